// make_frame(): poses to the camera's frame, in double precision because a robot may be far from
// the world's origin; then bounds on the screen.
#include "render/frame.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace sdpg::render {
namespace {

struct V {
  double x, y, z;
};
V operator+(V a, V b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
V operator-(V a, V b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
V operator*(V a, double s) { return {a.x * s, a.y * s, a.z * s}; }
double dot(V a, V b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
V cross(V a, V b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }
// Of length 1; `otherwise` where there is no length.
V unit(V a, V otherwise) {
  const double length = std::sqrt(dot(a, a));
  return length > 1e-12 ? a * (1 / length) : otherwise;
}
V vector(const double* p) { return {p[0], p[1], p[2]}; }
void put(V a, float* to) {
  to[0] = static_cast<float>(a.x);
  to[1] = static_cast<float>(a.y);
  to[2] = static_cast<float>(a.z);
}

// A frame by its axes.
struct Axes {
  V x, y, z;
  V out_of(V local) const { return x * local.x + y * local.y + z * local.z; }
  V into(V world) const { return {dot(x, world), dot(y, world), dot(z, world)}; }
};
Axes turned(const double* q) {
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  return {{1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)},
          {2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)},
          {2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)}};
}
Axes operator*(const Axes& a, const Axes& b) {
  return {a.out_of(b.x), a.out_of(b.y), a.out_of(b.z)};
}

struct Bodies {
  const double* pose;  // [nbody][7]
  const double* com;   // [nbody][3] of subtrees, or null where no mount needs them
  V pos(int b) const { return vector(pose + 7 * b); }
  Axes axes(int b) const { return turned(pose + 7 * b + 3); }
};

V mounted_position(const Mount& mount, const Bodies& bodies) {
  switch (mount.mode) {
    case kTrack:
      return bodies.pos(mount.body) + vector(mount.pos0);
    case kTrackCom:
      return vector(bodies.com + 3 * mount.body) + vector(mount.poscom0);
    default:
      return bodies.pos(mount.body) + bodies.axes(mount.body).out_of(vector(mount.pos));
  }
}
V target(const Mount& mount, const Bodies& bodies) {
  return mount.mode == kTargetBodyCom ? vector(bodies.com + 3 * mount.target)
                                      : bodies.pos(mount.target);
}

struct Placed {
  V pos;
  Axes axes;
};
Placed place(const Camera& camera, const Bodies& bodies) {
  const Mount& mount = camera.mount;
  Placed out{mounted_position(mount, bodies), {}};
  switch (mount.mode) {
    case kTrack:
    case kTrackCom: {
      const double* m = camera.mat0;  // rows; its columns are the axes
      out.axes = {{m[0], m[3], m[6]}, {m[1], m[4], m[7]}, {m[2], m[5], m[8]}};
      break;
    }
    case kTargetBody:
    case kTargetBodyCom:
      // Looks at the target, the world's z up; straight down, x stays x.
      out.axes.z = unit(out.pos - target(mount, bodies), {0, 0, 1});
      out.axes.x = unit(cross({0, 0, 1}, out.axes.z), {1, 0, 0});
      out.axes.y = cross(out.axes.z, out.axes.x);
      break;
    case kFixed:
      out.axes = bodies.axes(mount.body) * turned(camera.quat);
      break;
  }
  return out;
}
V direction(const Light& light, V pos, const Bodies& bodies) {
  switch (light.mount.mode) {
    case kTrack:
    case kTrackCom:
      return vector(light.dir0);
    case kTargetBody:
    case kTargetBodyCom:
      return target(light.mount, bodies) - pos;
    default:
      return bodies.axes(light.mount.body).out_of(vector(light.dir));
  }
}

// -- bounds ------------------------------------------------------------------------------------

constexpr float kEverywhere = 1e9f;
constexpr ScreenBox kWholeScreen{-kEverywhere, kEverywhere, -kEverywhere, kEverywhere};
constexpr ScreenBox kNowhere{kEverywhere, -kEverywhere, kEverywhere, -kEverywhere};
bool is_whole(const ScreenBox& box) { return box.left == -kEverywhere; }
ScreenBox both(const ScreenBox& a, const ScreenBox& b) {
  return {std::min(a.left, b.left), std::max(a.right, b.right), std::min(a.top, b.top),
          std::max(a.bottom, b.bottom)};
}
// Added around every bound: rounding here and in the intersections is far below a pixel.
constexpr double kMargin = 0.25;

struct Screen {
  const Frame* frame;
  double pixels;  // per slope of 1
  ScreenBox box(double u0, double u1, double v0, double v1) const {
    return {static_cast<float>(u0 * pixels - frame->shift_x - kMargin),
            static_cast<float>(u1 * pixels - frame->shift_x + kMargin),
            static_cast<float>(-v1 * pixels - frame->shift_y - kMargin),
            static_cast<float>(-v0 * pixels - frame->shift_y + kMargin)};
  }
  ScreenBox sphere(V c, double radius) const {
    const double depth = -c.z;
    // Around the camera or beside it; below the near plane nothing is seen anyway.
    if (depth < radius * 1.001 + 0.5 * frame->near) return kWholeScreen;
    // Slopes of the tangents of a disc around (x, depth) in the plane of x and depth; likewise y.
    const double square = depth * depth - radius * radius, inverse = 1 / square;
    const double x = c.x * depth, root_x = radius * std::sqrt(c.x * c.x + square);
    const double y = c.y * depth, root_y = radius * std::sqrt(c.y * c.y + square);
    return box((x - root_x) * inverse, (x + root_x) * inverse, (y - root_y) * inverse,
               (y + root_y) * inverse);
  }
  // Of a box along the camera's own axes.
  ScreenBox upright(V c, V half) const {
    const double near_depth = -c.z - half.z, far_depth = -c.z + half.z;
    if (near_depth < 0.5 * frame->near) return kWholeScreen;
    const double near_scale = 1 / near_depth, far_scale = 1 / far_depth;
    const auto least = [&](double x) { return x * (x < 0 ? near_scale : far_scale); };
    const auto most = [&](double x) { return x * (x < 0 ? far_scale : near_scale); };
    return box(least(c.x - half.x), most(c.x + half.x), least(c.y - half.y), most(c.y + half.y));
  }
  ScreenBox corners(V centre, const Axes& axes, V half) const {
    double u0 = kEverywhere, u1 = -kEverywhere, v0 = kEverywhere, v1 = -kEverywhere;
    for (int i = 0; i < 8; ++i) {
      const V c = centre + axes.out_of({i & 1 ? half.x : -half.x, i & 2 ? half.y : -half.y,
                                        i & 4 ? half.z : -half.z});
      const double depth = -c.z;
      if (depth < 0.5 * frame->near) return kWholeScreen;
      u0 = std::min(u0, c.x / depth);
      u1 = std::max(u1, c.x / depth);
      v0 = std::min(v0, c.y / depth);
      v1 = std::max(v1, c.y / depth);
    }
    return box(u0, u1, v0, v1);
  }
};

void bound(const Screen& screen, const Geom& geom, V centre, const Axes& axes, bool cull,
           Shape* out) {
  const V half{geom.extent[0], geom.extent[1], geom.extent[2]};
  const V middle = centre + axes.out_of({geom.centre[0], geom.centre[1], geom.centre[2]});
  const double radius = geom.type == kPlane     ? std::numeric_limits<double>::infinity()
                        : geom.type == kSphere  ? half.x
                        : geom.type == kCapsule ? half.z
                                                : std::sqrt(dot(half, half));
  put(middle, out->middle);
  out->radius = static_cast<float>(radius);
  ScreenBox *first = &out->ends[0], *last = &out->ends[1];
  *first = *last = kWholeScreen;
  if (!cull || geom.type == kPlane) return;
  if (radius - middle.z < 0.5 * screen.frame->near) {
    *first = *last = kNowhere;
  } else if (geom.type == kSphere) {
    *first = *last = screen.sphere(centre, radius);
  } else if (geom.type == kCapsule) {
    const V along = axes.z * geom.size[1];
    *first = screen.sphere(centre - along, geom.size[0]);
    *last = screen.sphere(centre + along, geom.size[0]);
    // The hull holds only where both ends are in front of the camera.
    if (is_whole(*first) || is_whole(*last)) *first = *last = kWholeScreen;
  } else {
    *first = *last = screen.corners(middle, axes, half);
  }
}

// -- colours of what is lit alike all over -------------------------------------------------------

std::uint32_t pack(const float* colour) {
  std::uint32_t out = 0;
  for (int c = 0; c < 3; ++c) out |= static_cast<std::uint32_t>(colour[c] * 255 + 0.5f) << (8 * c);
  return out;
}

// In the order of light_up(), operation by operation: whether a tile takes this colour or works it
// out must not show.
void find_flat_colours(const Frame& frame, Shape* shape) {
  const Geom& geom = *shape->geom;
  // With and without the lights that cast shadows.
  float lit[3], shaded[3];
  for (int c = 0; c < 3; ++c) lit[c] = shaded[c] = geom.emission + frame.global_ambient;
  int casters = 0;
  shape->light = -1;
  for (int l = 0; l < frame.lights; ++l) {
    const FrameLight& placed = frame.light[l];
    const Light& light = *placed.light;
    const float* towards = placed.towards;
    const float along = towards[0] * shape->axes[2][0] + towards[1] * shape->axes[2][1] +
                        towards[2] * shape->axes[2][2];
    const float facing = along > 0 ? along : 0;  // 0 also where it is no number
    const bool shines = geom.specular > 0 &&
                        (light.specular[0] > 0 || light.specular[1] > 0 || light.specular[2] > 0);
    if (!light.directional || (shines && facing > 0)) return;
    if (placed.casts && !(facing > 0)) continue;
    if (placed.casts) {
      ++casters;
      shape->light = l;
    }
    for (int c = 0; c < 3; ++c) {
      const float more = light.ambient[c] + facing * light.diffuse[c];
      lit[c] += more;
      if (!placed.casts) shaded[c] += more;
    }
  }
  shape->is_flat = true;
  if (casters != 1) shape->light = -1;
  const auto paint = [&](const float* light, std::uint32_t* colours) {
    float most[3], first[3], second[3];
    for (int c = 0; c < 3; ++c) {
      most[c] = light[c] * geom.albedo[c];
      if (!(most[c] < 1)) most[c] = 1;
      first[c] = most[c] * geom.first[c];
      second[c] = most[c] * geom.second[c];
    }
    colours[0] = pack(geom.checker ? first : most);
    colours[1] = pack(second);
  };
  paint(lit, shape->flat);
  paint(shaded, shape->shaded);
}

// -- shadows -------------------------------------------------------------------------------------

constexpr float kFarAway = 1e15f;
std::size_t padded_casters(const Scene& scene) {
  return (scene.geoms.size() + kCasterBlock - 1) / kCasterBlock * kCasterBlock;
}
std::size_t planes_of(const Scene& scene) {
  return std::ranges::count(scene.geoms, kPlane, &Geom::type);
}
V vector(const float* p) { return {p[0], p[1], p[2]}; }

// The line and the radius around it that hold a shape: a capsule's own, of others a point's.
struct Core {
  V from, along;
  double radius;
};
Core core_of(const Shape& shape) {
  if (shape.geom->type != kCapsule) return {vector(shape.middle), {0, 0, 0}, shape.radius};
  const V half = vector(shape.axes[2]) * shape.geom->size[1];
  return {vector(shape.centre) - half, half * 2, shape.geom->size[0]};
}

void cast(const Frame& frame, bool cull, FrameLight* light) {
  const V towards = vector(light->towards);
  // Away from the axis that the light is farthest from.
  const double x = std::abs(towards.x), y = std::abs(towards.y), z = std::abs(towards.z);
  const V apart = x <= y && x <= z ? V{1, 0, 0} : y <= z ? V{0, 1, 0} : V{0, 0, 1};
  const V first = unit(cross(towards, apart), apart), second = cross(towards, first);
  put(first, light->across[0]);
  put(second, light->across[1]);
  for (int i = 0; i < frame.casters; ++i) {
    const auto set = [&](Caster row, double value) {
      light->caster[row][i] = static_cast<float>(value);
    };
    for (int row = 0; row < kCasterRows; ++row) light->caster[row][i] = 0;
    if (i >= frame.shapes) {
      set(kX, kFarAway);
      continue;
    }
    const Core core = core_of(frame.shape[i]);
    const double along_x = dot(first, core.along), along_y = dot(second, core.along);
    const double square = along_x * along_x + along_y * along_y;
    set(kX, dot(first, core.from));
    set(kY, dot(second, core.from));
    set(kAlongX, along_x);
    set(kAlongY, along_y);
    set(kPerSquare, square > 1e-12 ? 1 / square : 0);
    set(kRadius, cull ? core.radius : std::numeric_limits<double>::infinity());
    set(kTop, cull ? dot(towards, core.from) + std::max(dot(towards, core.along), 0.0) + core.radius
                   : std::numeric_limits<double>::infinity());
  }
}

// Bounds what a light throws of a shape on a plane: discs around the shadows of its core's ends,
// as long as the light is slanted. A disc of radius 1 on the plane reaches `reach` along the
// camera's axes.
void shadow_on(const Shape& plane, const V& reach, const V& towards, const Shape& shape,
               const Screen& screen, ScreenBox* ends) {
  const V normal = vector(plane.axes[2]);
  const double slant = dot(normal, towards);
  const Core core = core_of(shape);
  // More than the rounding of the points on the plane.
  const double radius = (core.radius * 1.001 + 0.01) / slant;
  ends[0] = ends[1] = kWholeScreen;
  if (slant < 0.05 || !(radius < kEverywhere)) return;
  const auto disc = [&](V end) {
    const double height = dot(normal, end - vector(plane.centre));
    return screen.upright(end - towards * (height / slant), reach * radius);
  };
  ends[0] = disc(core.from);
  ends[1] = shape.geom->type == kCapsule ? disc(core.from + core.along) : ends[0];
  if (is_whole(ends[0]) || is_whole(ends[1])) ends[0] = ends[1] = kWholeScreen;
}

void find_shadows(const Frame& frame, const Screen& screen, bool cull, Shape* plane) {
  plane->shadows = cull ? kNowhere : kWholeScreen;
  // A little more than in the plane, whose normal is rounded.
  const auto reach = [&](float n) { return 0.01 + std::sqrt(std::max(1.0 - n * n, 0.0)); };
  const float* normal = plane->axes[2];
  const V disc{reach(normal[0]), reach(normal[1]), reach(normal[2])};
  for (int l = 0; l < frame.lights; ++l) {
    const FrameLight& light = frame.light[l];
    const V towards = vector(light.towards);
    if (!light.casts || (l != plane->light && dot(vector(plane->axes[2]), towards) <= 0)) continue;
    for (int i = 0; i < frame.shapes; ++i) {
      ScreenBox ends[2] = {kWholeScreen, kWholeScreen};
      if (&frame.shape[i] == plane)
        ends[0] = ends[1] = kNowhere;
      else if (cull)
        shadow_on(*plane, disc, towards, frame.shape[i], screen, ends);
      plane->shadows = both(plane->shadows, both(ends[0], ends[1]));
      if (l == plane->light) std::copy(ends, ends + 2, plane->thrown[i]);
    }
  }
}

}  // namespace

std::size_t frame_memory(const Scene& scene) {
  const std::size_t bytes =
      scene.geoms.size() * sizeof(Shape) + scene.lights.size() * sizeof(FrameLight) +
      (4 + kCasterRows * scene.lights.size()) * padded_casters(scene) * sizeof(float) +
      planes_of(scene) * scene.geoms.size() * 2 * sizeof(ScreenBox) +
      static_cast<std::size_t>(scene.nbody) * 10 * sizeof(double);
  return (bytes + 63) / 64 * 64;
}

void make_frame(const Scene& scene, const View& view, const float* pose, void* memory, bool cull,
                Frame* out) {
  // The casters first: they are loaded as packs.
  float* row = static_cast<float*>(memory);
  const auto next_row = [&] { return std::exchange(row, row + padded_casters(scene)); };
  for (float*& casters : out->caster) casters = next_row();
  float* const of_lights = row;
  row += kCasterRows * scene.lights.size() * padded_casters(scene);
  double* body_pose = reinterpret_cast<double*>(row);
  double* com = body_pose + 7 * scene.nbody;
  out->shape = reinterpret_cast<Shape*>(com + 3 * scene.nbody);
  out->light = reinterpret_cast<FrameLight*>(out->shape + scene.geoms.size());
  auto* thrown = reinterpret_cast<ScreenBox(*)[2]>(out->light + scene.lights.size());
  row = of_lights;
  for (int i = 0; i < 7 * scene.nbody; ++i) body_pose[i] = pose[i];
  if (scene.needs_com) subtree_com(scene, body_pose, com);
  const Bodies bodies{body_pose, com};

  const Camera& camera = scene.cameras[view.camera];
  const Placed eye = place(camera, bodies);
  out->width = view.width;
  out->height = view.height;
  out->near = view.near;
  out->far = view.far;
  out->scale = static_cast<float>(camera.height / view.height);
  out->shift_x = 0.5f - 0.5f * static_cast<float>(view.width);
  out->shift_y = 0.5f - 0.5f * static_cast<float>(view.height);
  out->background = pack(scene.background);

  out->global_ambient = scene.global_ambient;
  out->shadows = false;
  out->lights = static_cast<int>(scene.lights.size());
  for (int l = 0; l < out->lights; ++l) {
    const Light& light = scene.lights[l];
    FrameLight& placed = out->light[l];
    placed.light = &light;
    for (float*& casters : placed.caster) casters = next_row();
    placed.casts = view.shadows && light.castshadow;
    out->shadows |= placed.casts;
    if (light.headlight) {
      put({0, 0, 0}, placed.pos);
      put({0, 0, 1}, placed.towards);
      continue;
    }
    const V pos = mounted_position(light.mount, bodies);
    put(eye.axes.into(pos - eye.pos), placed.pos);
    const V along = unit(direction(light, pos, bodies), {0, 0, -1});
    put(eye.axes.into(along * -1), placed.towards);
  }

  const Screen screen{out, 1.0 / out->scale};
  out->planes = out->shapes = 0;
  Axes body{};
  const Geom* before = nullptr;
  for (const Geom& geom : scene.geoms) {
    if (before == nullptr || geom.body != before->body) body = bodies.axes(geom.body);
    before = &geom;
    const V pos = bodies.pos(geom.body) + body.out_of(vector(geom.pos)) - eye.pos;
    const Axes world =
        body * Axes{vector(geom.axes[0]), vector(geom.axes[1]), vector(geom.axes[2])};
    const Axes axes{eye.axes.into(world.x), eye.axes.into(world.y), eye.axes.into(world.z)};
    const V centre = eye.axes.into(pos);
    const V origin = axes.into(centre * -1);

    Shape& shape = out->shape[out->shapes];
    shape.geom = &geom;
    put(centre, shape.centre);
    put(axes.x, shape.axes[0]);
    put(axes.y, shape.axes[1]);
    put(axes.z, shape.axes[2]);
    put(origin, shape.origin);
    shape.is_flat = false;
    if (geom.type == kPlane) {
      // Seen from its front only.
      if (!(origin.z > 0)) continue;
      find_flat_colours(*out, &shape);
    }
    // What cannot be seen may still throw a shadow.
    bound(screen, geom, centre, axes, cull, &shape);
    ++out->shapes;
    out->planes += geom.type == kPlane;
  }
  out->casters = (out->shapes + kCasterBlock - 1) / kCasterBlock * kCasterBlock;
  if (!out->shadows) return;
  for (int i = 0; i < out->casters; ++i) {
    const bool real = i < out->shapes;
    for (int k = 0; k < 3; ++k) out->caster[k][i] = real ? out->shape[i].middle[k] : kFarAway;
    out->caster[3][i] = !real  ? 0
                        : cull ? out->shape[i].radius
                               : std::numeric_limits<float>::infinity();
  }
  for (int l = 0; l < out->lights; ++l)
    if (out->light[l].casts && out->light[l].light->directional) cast(*out, cull, &out->light[l]);
  for (int i = 0; i < out->planes; ++i) {
    out->shape[i].thrown = std::exchange(thrown, thrown + scene.geoms.size());
    find_shadows(*out, screen, cull, &out->shape[i]);
  }
}

}  // namespace sdpg::render
