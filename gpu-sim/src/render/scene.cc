// make_scene(): every array's length and index is checked before it is used, so that drawing needs
// no checks at all.
#define SDPG_ISA frame
#include "render/scene.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "render/frame_source.h"
#include "sdpg/model/v1/model.pb.h"
#include "sdpg/view/v1/view.pb.h"

namespace sdpg::render {
namespace {

namespace proto = sdpg::model::v1;

struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// "geom 'torso'", or "geom 3" of one without a name.
std::string called(const char* kind, const std::string& name, int index) {
  return std::string(kind) + " " + (name.empty() ? std::to_string(index) : "'" + name + "'");
}

template <class Array>
void expect_count(const Array& array, int count, const std::string& what) {
  if (array.size() != count)
    throw Refused(what + ": expected " + std::to_string(count) + " numbers, got " +
                  std::to_string(array.size()));
  for (const auto x : array)
    if (!std::isfinite(static_cast<double>(x))) throw Refused(what + ": expected finite numbers");
}

template <class Array, class Number>
void copy(const Array& array, int first, int count, Number* to) {
  for (int i = 0; i < count; ++i) to[i] = static_cast<Number>(array[first + i]);
}

// A colour of `count` numbers.
template <class Array>
void copy_colour(const Array& array, int count, const std::string& what, float* to, int kept) {
  expect_count(array, count, what);
  for (const double x : array)
    if (x < 0 || x > 1) throw Refused(what + ": expected 0 to 1, got " + std::to_string(x));
  copy(array, 0, kept, to);
}

void unit_quaternion(double* q, const std::string& what) {
  const double length = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  if (!(length > 1e-9)) throw Refused(what + ": expected a quaternion, got zeros");
  for (int i = 0; i < 4; ++i) q[i] /= length;
}

void read_bodies(const proto::Bodies& bodies, Scene* out) {
  const int n = bodies.parentid_size();
  if (n < 1) throw Refused("bodies: expected at least the world");
  expect_count(bodies.pos(), 3 * n, "bodies.pos");
  expect_count(bodies.quat(), 4 * n, "bodies.quat");
  expect_count(bodies.ipos(), 3 * n, "bodies.ipos");
  expect_count(bodies.mass(), n, "bodies.mass");
  out->nbody = n;
  for (int b = 0; b < n; ++b) {
    const int parent = bodies.parentid(b);
    if (parent < 0 || parent > b || (b > 0 && parent == b))
      throw Refused(called("body", b < bodies.name_size() ? bodies.name(b) : "", b) + ": parent " +
                    std::to_string(parent) + " does not come before it");
    out->parent.push_back(parent);
    out->mass.push_back(bodies.mass(b));
  }
  out->ipos.assign(bodies.ipos().begin(), bodies.ipos().end());
  out->subtree_mass = out->mass;
  for (int b = n - 1; b > 0; --b) out->subtree_mass[out->parent[b]] += out->subtree_mass[b];
}

// Poses of all bodies at qpos0, [nbody*7]: every joint displacement is 0 there.
std::vector<double> zero_pose(const proto::Bodies& bodies) {
  std::vector<double> pose(7 * bodies.parentid_size(), 0);
  pose[3] = 1;
  for (int b = 1; b < bodies.parentid_size(); ++b) {
    const double* parent = &pose[7 * bodies.parentid(b)];
    double* own = &pose[7 * b];
    double pos[3], quat[4];
    copy(bodies.pos(), 3 * b, 3, pos);
    copy(bodies.quat(), 4 * b, 4, quat);
    const double w = parent[3], x = parent[4], y = parent[5], z = parent[6];
    const double m[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z),     2 * (x * z + w * y),
                         2 * (x * y + w * z),     1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                         2 * (x * z - w * y),     2 * (y * z + w * x),     1 - 2 * (x * x + y * y)};
    for (int i = 0; i < 3; ++i)
      own[i] = parent[i] + m[3 * i] * pos[0] + m[3 * i + 1] * pos[1] + m[3 * i + 2] * pos[2];
    own[3] = w * quat[0] - x * quat[1] - y * quat[2] - z * quat[3];
    own[4] = w * quat[1] + x * quat[0] + y * quat[3] - z * quat[2];
    own[5] = w * quat[2] - x * quat[3] + y * quat[0] + z * quat[1];
    own[6] = w * quat[3] + x * quat[2] - y * quat[1] + z * quat[0];
  }
  return pose;
}

// Whether it keeps its place and direction of qpos0 relative to something.
bool follows(const Mount& mount) { return mount.mode == kTrack || mount.mode == kTrackCom; }

// What cameras and lights say alike.
template <class Message>
Mount read_mount(const Message& message, const std::string& what, const std::vector<double>& pose0,
                 const std::vector<double>& com0, int nbody) {
  Mount mount{};
  const auto body_exists = [&](int b) { return b >= 0 && b < nbody; };
  if (message.mode() < kFixed || message.mode() > kTargetBodyCom)
    throw Refused(what + ": unknown mode " + std::to_string(message.mode()) +
                  "; expected fixed (0), track, trackcom, targetbody or targetbodycom (4)");
  mount.mode = static_cast<Mode>(message.mode());
  if (!body_exists(message.bodyid()))
    throw Refused(what + ": no body " + std::to_string(message.bodyid()) + "; the model has " +
                  std::to_string(nbody));
  mount.body = message.bodyid();
  mount.target = message.targetbodyid();
  if (mount.mode == kTargetBody || mount.mode == kTargetBodyCom) {
    if (!body_exists(mount.target))
      throw Refused(what + ": no target body " + std::to_string(mount.target) + "; the model has " +
                    std::to_string(nbody));
  }
  expect_count(message.pos(), 3, what + ": pos");
  copy(message.pos(), 0, 3, mount.pos);
  if (!follows(mount)) return mount;
  expect_count(message.pos0(), 3, what + ": pos0");
  copy(message.pos0(), 0, 3, mount.pos0);
  for (int i = 0; i < 3; ++i)
    mount.poscom0[i] = mount.pos0[i] + pose0[7 * mount.body + i] - com0[3 * mount.body + i];
  return mount;
}

bool needs_com(const Mount& mount) {
  return mount.mode == kTrackCom || mount.mode == kTargetBodyCom;
}

void read_lights(const proto::Model& message, const std::vector<double>& pose0,
                 const std::vector<double>& com0, Scene* out) {
  const proto::Visual& visual = message.visual();
  if (visual.headlight_ambient_size() + visual.headlight_diffuse_size() +
          visual.headlight_specular_size() >
      0) {
    Light head{};
    head.headlight = head.directional = true;
    copy_colour(visual.headlight_ambient(), 3, "headlight: ambient", head.ambient, 3);
    copy_colour(visual.headlight_diffuse(), 3, "headlight: diffuse", head.diffuse, 3);
    copy_colour(visual.headlight_specular(), 3, "headlight: specular", head.specular, 3);
    out->lights.push_back(head);
  }
  for (int i = 0; i < message.lights_size(); ++i) {
    const proto::Light& from = message.lights(i);
    const std::string what = called("light", from.name(), i);
    Light light{};
    light.mount = read_mount(from, what, pose0, com0, out->nbody);
    light.directional = from.directional();
    light.castshadow = from.castshadow();
    expect_count(from.dir(), 3, what + ": dir");
    copy(from.dir(), 0, 3, light.dir);
    const double* dir = light.dir;
    if (follows(light.mount)) {
      expect_count(from.dir0(), 3, what + ": dir0");
      copy(from.dir0(), 0, 3, light.dir0);
      dir = light.dir0;
    }
    if (!(dir[0] * dir[0] + dir[1] * dir[1] + dir[2] * dir[2] > 1e-18))
      throw Refused(what + ": expected a direction, got zeros");
    copy_colour(from.ambient(), 3, what + ": ambient", light.ambient, 3);
    copy_colour(from.diffuse(), 3, what + ": diffuse", light.diffuse, 3);
    copy_colour(from.specular(), 3, what + ": specular", light.specular, 3);
    if (!light.directional) {
      expect_count(from.attenuation(), 3, what + ": attenuation");
      double sum = 0;
      for (const double a : from.attenuation()) {
        if (a < 0) throw Refused(what + ": attenuation: expected at least 0");
        sum += a;
      }
      if (!(sum > 0)) throw Refused(what + ": attenuation: expected a number above 0");
      copy(from.attenuation(), 0, 3, light.attenuation);
      if (!(from.cutoff() >= 0 && (from.cutoff() <= 90 || from.cutoff() == 180)))
        throw Refused(what + ": cutoff: expected 0 to 90 or 180 degrees, got " +
                      std::to_string(from.cutoff()));
      light.cos_cutoff =
          from.cutoff() == 180 ? -2.0f : static_cast<float>(std::cos(from.cutoff() * M_PI / 180));
      if (!(from.exponent() >= 0 && from.exponent() <= 128))
        throw Refused(what + ": exponent: expected 0 to 128, got " +
                      std::to_string(from.exponent()));
      light.exponent = static_cast<float>(from.exponent());
    }
    out->needs_com |= needs_com(light.mount);
    out->lights.push_back(light);
  }
  // MuJoCo's: a model without any light is not black.
  if (out->lights.empty()) out->global_ambient = 0.3f;
  if (visual.background_size() > 0)
    copy_colour(visual.background(), 3, "background", out->background, 3);
}

void read_cameras(const proto::Model& message, const std::vector<double>& pose0,
                  const std::vector<double>& com0, Scene* out) {
  for (int i = 0; i < message.cameras_size(); ++i) {
    const proto::Camera& from = message.cameras(i);
    const std::string what = called("camera", from.name(), i);
    Camera camera{};
    camera.mount = read_mount(from, what, pose0, com0, out->nbody);
    expect_count(from.quat(), 4, what + ": quat");
    copy(from.quat(), 0, 4, camera.quat);
    if (follows(camera.mount)) {
      expect_count(from.mat0(), 9, what + ": mat0");
      copy(from.mat0(), 0, 9, camera.mat0);
    }
    unit_quaternion(camera.quat, what + ": quat");
    if (!(from.fovy() > 0 && from.fovy() < 180))
      throw Refused(what + ": fovy: expected between 0 and 180 degrees, got " +
                    std::to_string(from.fovy()));
    camera.height = 2 * std::tan(from.fovy() * M_PI / 360);
    out->needs_com |= needs_com(camera.mount);
    out->cameras.push_back(camera);
    out->camera_names.push_back(from.name());
  }
}

void read_material(const proto::Model& message, int index, const float rgba[4],
                   const std::string& what, Geom* out) {
  std::fill_n(out->first, 3, 1.0f);
  std::fill_n(out->second, 3, 1.0f);
  std::copy_n(rgba, 3, out->albedo);
  // mjModel's defaults of a geom without material.
  out->specular = 0.5f;
  out->exponent = 0.5f * 128;
  if (index < 0) return;
  const proto::Material& material = message.materials(index);
  const std::string name = called("material", material.name(), index);
  out->emission = static_cast<float>(material.emission());
  out->specular = static_cast<float>(material.specular());
  out->exponent = static_cast<float>(material.shininess() * 128);
  for (const float x : {out->emission, out->specular, out->exponent / 128})
    if (!(x >= 0 && x <= 1))
      throw Refused(name + ": emission, specular, shininess: expected 0 to 1");
  // MuJoCo takes the geom's own colour where it is not the default.
  const bool own = rgba[0] != 0.5f || rgba[1] != 0.5f || rgba[2] != 0.5f || rgba[3] != 1;
  float first[4];
  copy_colour(material.rgba(), 4, name + ": rgba", first, 4);
  if (material.rgba2_size() == 0) {
    if (!own) std::copy_n(first, 3, out->albedo);
    return;
  }
  if (own)
    throw Refused(what + ": a colour of its own over the checker of " + name +
                  "; remove the geom's rgba");
  out->checker = true;
  copy_colour(material.rgba2(), 4, name + ": rgba2", out->second, 3);
  std::copy_n(first, 3, out->first);
  std::fill_n(out->albedo, 3, 1.0f);
  expect_count(material.texrepeat(), 2, name + ": texrepeat");
  for (int i = 0; i < 2; ++i) {
    if (!(material.texrepeat(i) > 0))
      throw Refused(name + ": texrepeat: expected above 0, got " +
                    std::to_string(material.texrepeat(i)));
    // Not uniform: squares across the whole extent, which is 2 m of an infinite plane.
    const double extent = out->extent[i] > 0 ? 2.0 * out->extent[i] : 2.0;
    out->squares[i] =
        static_cast<float>(material.texrepeat(i) / (material.texuniform() ? 1.0 : extent));
  }
}

std::shared_ptr<const Mesh> read_mesh(const proto::Model& message, int index,
                                      const std::string& geom) {
  if (index < 0 || index >= message.meshes_size())
    throw Refused(geom + ": no mesh " + std::to_string(index) + "; the model has " +
                  std::to_string(message.meshes_size()));
  const proto::Mesh& from = message.meshes(index);
  const std::string what = geom + ": " + called("mesh", from.name(), index);
  if (from.face_size() == 0) throw Refused(what + " has no faces");
  if (from.face_size() % 3 != 0 || from.vert_size() % 3 != 0)
    throw Refused(what + ": expected three numbers a vertex and a face, got " +
                  std::to_string(from.vert_size()) + " and " + std::to_string(from.face_size()));
  if (from.face_size() / 3 > kMostTriangles)
    throw Refused(what + ": expected at most " + std::to_string(kMostTriangles) + " faces, got " +
                  std::to_string(from.face_size() / 3));
  expect_count(from.vert(), from.vert_size(), what + ": vert");
  for (const int v : from.face())
    if (v < 0 || v >= from.vert_size() / 3)
      throw Refused(what + ": no vertex " + std::to_string(v) + "; it has " +
                    std::to_string(from.vert_size() / 3));
  return make_mesh({from.vert().begin(), from.vert().end()},
                   {from.face().begin(), from.face().end()});
}

std::shared_ptr<const Mesh> read_height_field(const proto::Model& message, int index,
                                              const std::string& geom) {
  if (index < 0 || index >= message.hfields_size())
    throw Refused(geom + ": no height field " + std::to_string(index) + "; the model has " +
                  std::to_string(message.hfields_size()));
  const proto::HeightField& from = message.hfields(index);
  const std::string what = geom + ": " + called("height field", from.name(), index);
  const long long nrow = from.nrow(), ncol = from.ncol();
  if (nrow < 2 || ncol < 2)
    throw Refused(what + ": expected at least 2 rows and columns, got " + std::to_string(nrow) +
                  " and " + std::to_string(ncol));
  if (2 * (nrow - 1) * (ncol - 1) + 4 * (nrow + ncol) > kMostTriangles)
    throw Refused(what + ": expected at most " + std::to_string(kMostTriangles) + " triangles");
  expect_count(from.data(), static_cast<int>(nrow * ncol), what + ": data");
  expect_count(from.size(), 4, what + ": size");
  double size[4];
  copy(from.size(), 0, 4, size);
  if (!(size[0] > 0 && size[1] > 0 && size[2] >= 0 && size[3] >= 0))
    throw Refused(what + ": size: expected extents above 0 and heights of at least 0");
  return make_height_field(from.nrow(), from.ncol(), size,
                           {from.data().begin(), from.data().end()});
}

void read_shape(const proto::Model& message, int g, const std::string& what, Scene* scene,
                Geom* out) {
  const proto::Geoms& geoms = message.geoms();
  copy(geoms.size(), 3 * g, 3, out->size);
  const float* s = out->size;
  const auto positive = [&](int count) {
    for (int i = 0; i < count; ++i)
      if (!(s[i] > 0))
        throw Refused(what + ": size: expected above 0, got " + std::to_string(s[i]));
  };
  const auto extent = [&](float x, float y, float z) {
    out->extent[0] = x;
    out->extent[1] = y;
    out->extent[2] = z;
  };
  const int data = g < geoms.dataid_size() ? geoms.dataid(g) : -1;
  switch (geoms.type(g)) {
    case kPlane:
      if (!(s[0] >= 0 && s[1] >= 0)) throw Refused(what + ": size: expected at least 0");
      extent(s[0], s[1], 0);
      break;
    case kSphere:
      positive(1);
      extent(s[0], s[0], s[0]);
      break;
    case kCapsule:
      positive(2);
      extent(s[0], s[0], s[0] + s[1]);
      break;
    case kCylinder:
      positive(2);
      extent(s[0], s[0], s[1]);
      break;
    case kEllipsoid:
    case kBox:
      positive(3);
      extent(s[0], s[1], s[2]);
      break;
    case kMesh:
    case kHeightField:
      scene->meshes.push_back(geoms.type(g) == kMesh ? read_mesh(message, data, what)
                                                     : read_height_field(message, data, what));
      set_mesh(*scene->meshes.back(), out);
      break;
    default:
      throw Refused(what + ": shape " + std::to_string(geoms.type(g)) +
                    " is not drawn; expected a plane (0), height field (1), sphere (2), capsule "
                    "(3), ellipsoid (4), cylinder (5), box (6) or mesh (7)");
  }
  out->type = static_cast<ShapeType>(geoms.type(g));
}

// MuJoCo's visible groups by default.
constexpr int kVisibleGroups = 3;

// Checkers lie in the frame of their geom: none is like another.
bool look_alike(const Geom& a, const Geom& b) {
  return !a.checker && !b.checker && std::equal(a.albedo, a.albedo + 3, b.albedo) &&
         a.emission == b.emission && a.specular == b.specular && a.exponent == b.exponent;
}

void read_geoms(const proto::Model& message, Scene* out) {
  const proto::Geoms& geoms = message.geoms();
  const int n = geoms.type_size();
  const auto count_is = [&](int count, const char* what) {
    if (count != n)
      throw Refused(std::string("geoms.") + what + ": expected " + std::to_string(n) + ", got " +
                    std::to_string(count));
  };
  count_is(geoms.bodyid_size(), "bodyid");
  count_is(geoms.matid_size(), "matid");
  count_is(geoms.group_size(), "group");
  expect_count(geoms.size(), 3 * n, "geoms.size");
  expect_count(geoms.pos(), 3 * n, "geoms.pos");
  expect_count(geoms.quat(), 4 * n, "geoms.quat");
  expect_count(geoms.rgba(), 4 * n, "geoms.rgba");
  for (int g = 0; g < n; ++g) {
    const std::string what = called("geom", g < geoms.name_size() ? geoms.name(g) : "", g);
    float rgba[4];
    copy(geoms.rgba(), 4 * g, 4, rgba);
    const int material = geoms.matid(g);
    if (material >= message.materials_size() || material < -1)
      throw Refused(what + ": no material " + std::to_string(material) + "; the model has " +
                    std::to_string(message.materials_size()));
    for (const float x : rgba)
      if (!(x >= 0 && x <= 1)) throw Refused(what + ": rgba: expected 0 to 1");
    const bool own = rgba[0] != 0.5f || rgba[1] != 0.5f || rgba[2] != 0.5f || rgba[3] != 1;
    double alpha = rgba[3];
    if (!own && material >= 0) {
      if (message.materials(material).rgba_size() != 4)
        throw Refused(called("material", message.materials(material).name(), material) +
                      ": rgba: expected 4 numbers, got " +
                      std::to_string(message.materials(material).rgba_size()));
      alpha = message.materials(material).rgba(3);
    }
    if (alpha == 0 || geoms.group(g) >= kVisibleGroups) continue;
    if (alpha < 1)
      throw Refused(what + ": alpha " + std::to_string(alpha) +
                    " is not drawn; expected 1 (opaque) or 0 (invisible)");
    Geom geom{};
    geom.id = g;
    geom.body = geoms.bodyid(g);
    if (geom.body < 0 || geom.body >= out->nbody)
      throw Refused(what + ": no body " + std::to_string(geom.body));
    copy(geoms.pos(), 3 * g, 3, geom.pos);
    double quat[4];
    copy(geoms.quat(), 4 * g, 4, quat);
    unit_quaternion(quat, what + ": quat");
    turn_axes(quat, geom.axes);
    read_shape(message, g, what, out, &geom);
    read_material(message, material, rgba, what, &geom);
    out->geoms.push_back(geom);
  }
  // Planes first, for the drawing starts with them; then one kind after another.
  std::stable_sort(out->geoms.begin(), out->geoms.end(),
                   [](const Geom& a, const Geom& b) { return a.type < b.type; });
  for (std::size_t g = 0; g < out->geoms.size(); ++g) {
    std::size_t like = 0;
    while (!look_alike(out->geoms[like], out->geoms[g]) && like < g) ++like;
    out->geoms[g].look = static_cast<int>(like);
  }
}

bool is_name(const std::string& name) {
  if (name.empty() || name.size() > 40 || name[0] < 'a' || name[0] > 'z') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

}  // namespace

std::shared_ptr<const Scene> make_scene(const proto::Model& message, std::string* error) {
  try {
    auto scene = std::make_shared<Scene>();
    read_bodies(message.bodies(), scene.get());
    const std::vector<double> pose0 = zero_pose(message.bodies());
    std::vector<double> com0(3 * scene->nbody);
    subtree_com(arrays_of(*scene), pose0.data(), com0.data());
    read_cameras(message, pose0, com0, scene.get());
    read_lights(message, pose0, com0, scene.get());
    read_geoms(message, scene.get());
    return scene;
  } catch (const Refused& refused) {
    *error = refused.what();
    return nullptr;
  }
}

bool make_view(const Scene& scene, const sdpg::view::v1::View& message, View* out,
               std::string* error) {
  const std::string what = "view '" + message.name() + "': ";
  const auto refuse = [&](const std::string& line) {
    *error = what + line;
    return false;
  };
  if (!is_name(message.name()))
    return refuse("expected a name of 1 to 40 of a-z, 0-9 and _ that starts with a letter");
  *out = {};
  out->name = message.name();
  out->camera = -1;
  std::string names;
  for (std::size_t c = 0; c < scene.cameras.size(); ++c) {
    if (scene.camera_names[c] == message.camera()) out->camera = static_cast<int>(c);
    names += (c == 0 ? "" : ", ") + scene.camera_names[c];
  }
  if (out->camera < 0)
    return refuse("no camera '" + message.camera() + "'; the model has " +
                  (names.empty() ? "none" : names));
  const auto in_range = [&](const char* name, std::uint32_t x, std::uint32_t most) {
    if (x >= 1 && x <= most) return true;
    return refuse(std::string(name) + ": expected 1 to " + std::to_string(most) + ", got " +
                  std::to_string(x));
  };
  if (!in_range("width", message.width(), 4096) || !in_range("height", message.height(), 4096) ||
      !in_range("frames", message.frames(), 16))
    return false;
  out->width = static_cast<int>(message.width());
  out->height = static_cast<int>(message.height());
  out->frames = static_cast<int>(message.frames());
  switch (message.kind()) {
    case sdpg::view::v1::IMAGE_KIND_RGB:
    case sdpg::view::v1::IMAGE_KIND_DEPTH:
    case sdpg::view::v1::IMAGE_KIND_SEGMENTATION:
      out->kind = static_cast<Kind>(message.kind());
      break;
    default:
      return refuse("kind " + std::to_string(message.kind()) +
                    "; expected RGB (1), DEPTH (2) or SEGMENTATION (3)");
  }
  const double near = message.near() == 0 ? 0.01 : message.near();
  const double far = message.far() == 0 ? 100 : message.far();
  out->near = static_cast<float>(near);
  out->far = static_cast<float>(far);
  if (!(out->near > 0 && out->near < out->far && far < 1e6))
    return refuse("near, far: expected 0 < near < far < 1e6 m, got " + std::to_string(near) +
                  " and " + std::to_string(far));
  out->shadows = message.shadows();
  if (!(message.depth_noise() >= 0 && message.depth_noise() < 1e6))
    return refuse("depth_noise: expected at least 0 m, got " +
                  std::to_string(message.depth_noise()));
  if (message.depth_noise() > 0 && out->kind != Kind::kDepth)
    return refuse("depth_noise: only a DEPTH view has it");
  out->depth_noise = static_cast<float>(message.depth_noise());
  return true;
}

int nbody(const Scene& scene) { return scene.nbody; }

}  // namespace sdpg::render
