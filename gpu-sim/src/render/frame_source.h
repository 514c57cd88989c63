// make_frame() by a team (core/team.h): poses to the camera's frame, in double precision because a
// robot may be far from the world's origin; then bounds on the screen. Alone on a CPU
// (make_frame.cc), by a block of threads on a device (cuda/picture.h).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/team.h"
#include "render/frame.h"

namespace sdpg::render {
SDPG_ISA_BEGIN

// Centre of mass of the subtree under every body, [nbody*3] m, from the poses of all bodies.
SDPG_FN void subtree_com(const SceneArrays& scene, const double* pose, double* out) {
  for (int b = 0; b < scene.nbody; ++b) {
    const double *p = pose + 7 * b, *local = &scene.ipos[3 * b];
    const double w = p[3], x = p[4], y = p[5], z = p[6];
    const double m[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z),     2 * (x * z + w * y),
                         2 * (x * y + w * z),     1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                         2 * (x * z - w * y),     2 * (y * z + w * x),     1 - 2 * (x * x + y * y)};
    for (int i = 0; i < 3; ++i)
      out[3 * b + i] = scene.mass[b] * (p[i] + m[3 * i] * local[0] + m[3 * i + 1] * local[1] +
                                        m[3 * i + 2] * local[2]);
  }
  for (int b = scene.nbody - 1; b > 0; --b)
    for (int i = 0; i < 3; ++i) out[3 * scene.parent[b] + i] += out[3 * b + i];
  // A subtree without mass is where its body is, as in mj_comPos.
  for (int b = 0; b < scene.nbody; ++b)
    for (int i = 0; i < 3; ++i)
      out[3 * b + i] =
          scene.subtree_mass[b] > 1e-15 ? out[3 * b + i] / scene.subtree_mass[b] : pose[7 * b + i];
}

namespace placing {

struct V {
  double x, y, z;
};
SDPG_INLINE V operator+(V a, V b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
SDPG_INLINE V operator-(V a, V b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
SDPG_INLINE V operator*(V a, double s) { return {a.x * s, a.y * s, a.z * s}; }
SDPG_INLINE double dot(V a, V b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
SDPG_INLINE V cross(V a, V b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
// Of length 1; `otherwise` where there is no length.
SDPG_INLINE V unit(V a, V otherwise) {
  const double length = std::sqrt(dot(a, a));
  return length > 1e-12 ? a * (1 / length) : otherwise;
}
SDPG_INLINE V vector(const double* p) { return {p[0], p[1], p[2]}; }
SDPG_INLINE void put(V a, float* to) {
  to[0] = static_cast<float>(a.x);
  to[1] = static_cast<float>(a.y);
  to[2] = static_cast<float>(a.z);
}

// A frame by its axes.
struct Axes {
  V x, y, z;
  SDPG_INLINE V out_of(V local) const { return x * local.x + y * local.y + z * local.z; }
  SDPG_INLINE V into(V world) const { return {dot(x, world), dot(y, world), dot(z, world)}; }
};
SDPG_FN Axes turned(const double* q) {
  const double w = q[0], x = q[1], y = q[2], z = q[3];
  return {{1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)},
          {2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)},
          {2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)}};
}
SDPG_INLINE Axes operator*(const Axes& a, const Axes& b) {
  return {a.out_of(b.x), a.out_of(b.y), a.out_of(b.z)};
}

struct Bodies {
  const double* pose;  // [nbody][7]
  const double* com;   // [nbody][3] of subtrees, or null where no mount needs them
  SDPG_INLINE V pos(int b) const { return vector(pose + 7 * b); }
  SDPG_INLINE Axes axes(int b) const { return turned(pose + 7 * b + 3); }
};

SDPG_FN V mounted_position(const Mount& mount, const Bodies& bodies) {
  switch (mount.mode) {
    case kTrack:
      return bodies.pos(mount.body) + vector(mount.pos0);
    case kTrackCom:
      return vector(bodies.com + 3 * mount.body) + vector(mount.poscom0);
    default:
      return bodies.pos(mount.body) + bodies.axes(mount.body).out_of(vector(mount.pos));
  }
}
SDPG_INLINE V target(const Mount& mount, const Bodies& bodies) {
  return mount.mode == kTargetBodyCom ? vector(bodies.com + 3 * mount.target)
                                      : bodies.pos(mount.target);
}

struct Placed {
  V pos;
  Axes axes;
};
SDPG_FN Placed place(const Camera& camera, const Bodies& bodies) {
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
SDPG_FN V direction(const Light& light, V pos, const Bodies& bodies) {
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

inline constexpr float kEverywhere = 1e9f;
SDPG_INLINE ScreenBox whole_screen() {
  return {-kEverywhere, kEverywhere, -kEverywhere, kEverywhere};
}
SDPG_INLINE ScreenBox nowhere() { return {kEverywhere, -kEverywhere, kEverywhere, -kEverywhere}; }
SDPG_INLINE bool is_whole(const ScreenBox& box) { return box.left == -kEverywhere; }
SDPG_INLINE ScreenBox both(const ScreenBox& a, const ScreenBox& b) {
  return {std::min(a.left, b.left), std::max(a.right, b.right), std::min(a.top, b.top),
          std::max(a.bottom, b.bottom)};
}
// Added around every bound: rounding here and in the intersections is far below a pixel.
inline constexpr double kMargin = 0.25;

struct Screen {
  const Frame* frame;
  double pixels;  // per slope of 1
  SDPG_INLINE ScreenBox box(double u0, double u1, double v0, double v1) const {
    return {static_cast<float>(u0 * pixels - frame->shift_x - kMargin),
            static_cast<float>(u1 * pixels - frame->shift_x + kMargin),
            static_cast<float>(-v1 * pixels - frame->shift_y - kMargin),
            static_cast<float>(-v0 * pixels - frame->shift_y + kMargin)};
  }
  SDPG_FN ScreenBox sphere(V c, double radius) const {
    const double depth = -c.z;
    // Around the camera or beside it; below the near plane nothing is seen anyway.
    if (depth < radius * 1.001 + 0.5 * frame->near) return whole_screen();
    // Slopes of the tangents of a disc around (x, depth) in the plane of x and depth; likewise y.
    const double square = depth * depth - radius * radius, inverse = 1 / square;
    const double x = c.x * depth, root_x = radius * std::sqrt(c.x * c.x + square);
    const double y = c.y * depth, root_y = radius * std::sqrt(c.y * c.y + square);
    return box((x - root_x) * inverse, (x + root_x) * inverse, (y - root_y) * inverse,
               (y + root_y) * inverse);
  }
  // Of a box along the camera's own axes.
  SDPG_FN ScreenBox upright(V c, V half) const {
    const double near_depth = -c.z - half.z, far_depth = -c.z + half.z;
    if (near_depth < 0.5 * frame->near) return whole_screen();
    const double near_scale = 1 / near_depth, far_scale = 1 / far_depth;
    const auto least = [&](double x) { return x * (x < 0 ? near_scale : far_scale); };
    const auto most = [&](double x) { return x * (x < 0 ? far_scale : near_scale); };
    return box(least(c.x - half.x), most(c.x + half.x), least(c.y - half.y), most(c.y + half.y));
  }
  SDPG_FN ScreenBox corners(V centre, const Axes& axes, V half) const {
    double u0 = kEverywhere, u1 = -kEverywhere, v0 = kEverywhere, v1 = -kEverywhere;
    for (int i = 0; i < 8; ++i) {
      const V c = centre + axes.out_of({i & 1 ? half.x : -half.x, i & 2 ? half.y : -half.y,
                                        i & 4 ? half.z : -half.z});
      const double depth = -c.z;
      if (depth < 0.5 * frame->near) return whole_screen();
      u0 = std::min(u0, c.x / depth);
      u1 = std::max(u1, c.x / depth);
      v0 = std::min(v0, c.y / depth);
      v1 = std::max(v1, c.y / depth);
    }
    return box(u0, u1, v0, v1);
  }
};

SDPG_FN void bound(const Screen& screen, const Geom& geom, V centre, const Axes& axes, bool cull,
                   Shape* out) {
  const V half{geom.extent[0], geom.extent[1], geom.extent[2]};
  const V middle = centre + axes.out_of({geom.centre[0], geom.centre[1], geom.centre[2]});
  const double radius = geom.type == kPlane     ? double{INFINITY}
                        : geom.type == kSphere  ? half.x
                        : geom.type == kCapsule ? half.z
                                                : std::sqrt(dot(half, half));
  put(middle, out->middle);
  out->radius = static_cast<float>(radius);
  ScreenBox *first = &out->ends[0], *last = &out->ends[1];
  *first = *last = whole_screen();
  if (!cull || geom.type == kPlane) return;
  if (radius - middle.z < 0.5 * screen.frame->near) {
    *first = *last = nowhere();
  } else if (geom.type == kSphere) {
    *first = *last = screen.sphere(centre, radius);
  } else if (geom.type == kCapsule) {
    const V along = axes.z * geom.size[1];
    *first = screen.sphere(centre - along, geom.size[0]);
    *last = screen.sphere(centre + along, geom.size[0]);
    // The hull holds only where both ends are in front of the camera.
    if (is_whole(*first) || is_whole(*last)) *first = *last = whole_screen();
  } else {
    *first = *last = screen.corners(middle, axes, half);
  }
}

// -- colours of what is lit alike all over -------------------------------------------------------

SDPG_INLINE std::uint32_t pack(const float* colour) {
  std::uint32_t out = 0;
  for (int c = 0; c < 3; ++c) out |= static_cast<std::uint32_t>(colour[c] * 255 + 0.5f) << (8 * c);
  return out;
}

// In the order of light_up(), operation by operation: whether a tile takes this colour or works it
// out must not show.
SDPG_FN void find_flat_colours(const Frame& frame, Shape* shape) {
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

inline constexpr float kFarAway = 1e15f;
SDPG_INLINE V vector(const float* p) { return {p[0], p[1], p[2]}; }

// The line and the radius around it that hold a shape: a capsule's own, of others a point's.
struct Core {
  V from, along;
  double radius;
};
SDPG_INLINE Core core_of(const Shape& shape) {
  if (shape.geom->type != kCapsule) return {vector(shape.middle), {0, 0, 0}, shape.radius};
  const V half = vector(shape.axes[2]) * shape.geom->size[1];
  return {vector(shape.centre) - half, half * 2, shape.geom->size[0]};
}

// Two axes at right angles to a directional light's rays.
SDPG_INLINE void look_across(FrameLight* light) {
  const V towards = vector(light->towards);
  // Away from the axis that the light is farthest from.
  const double x = std::abs(towards.x), y = std::abs(towards.y), z = std::abs(towards.z);
  const V apart = x <= y && x <= z ? V{1, 0, 0} : y <= z ? V{0, 1, 0} : V{0, 0, 1};
  const V first = unit(cross(towards, apart), apart);
  put(first, light->across[0]);
  put(cross(towards, first), light->across[1]);
}

// Shape i as a directional light's rays see it.
SDPG_INLINE void cast(const Frame& frame, bool cull, const FrameLight& light, int i) {
  const V towards = vector(light.towards);
  const V first = vector(light.across[0]), second = vector(light.across[1]);
  const auto set = [&](Caster row, double value) {
    light.caster[row][i] = static_cast<float>(value);
  };
  if (i >= frame.shapes) {
    for (int row = 0; row < kCasterRows; ++row) light.caster[row][i] = row == kX ? kFarAway : 0;
    return;
  }
  const Core core = core_of(frame.shape[i]);
  const double along_x = dot(first, core.along), along_y = dot(second, core.along);
  const double square = along_x * along_x + along_y * along_y;
  set(kX, dot(first, core.from));
  set(kY, dot(second, core.from));
  set(kAlongX, along_x);
  set(kAlongY, along_y);
  set(kPerSquare, square > 1e-12 ? 1 / square : 0);
  set(kRadius, cull ? core.radius : INFINITY);
  set(kTop, cull ? dot(towards, core.from) + std::max(dot(towards, core.along), 0.0) + core.radius
                 : INFINITY);
}

// How far a disc of radius 1 on a plane reaches along the camera's axes: a little more than in the
// plane, whose normal is rounded.
SDPG_INLINE V reach_of(const Shape& plane) {
  const auto reach = [&](int k) {
    const float n = plane.axes[2][k];
    return 0.01 + std::sqrt(std::max(1.0 - n * n, 0.0));
  };
  return {reach(0), reach(1), reach(2)};
}

// Bounds what a light throws of a shape on a plane: discs around the shadows of its core's ends,
// as long as the light is slanted. `reach` is reach_of() the plane.
SDPG_FN void shadow_on(const Shape& plane, const V& reach, const V& towards, const Shape& shape,
                       const Screen& screen, ScreenBox* ends) {
  const V normal = vector(plane.axes[2]);
  const double slant = dot(normal, towards);
  const Core core = core_of(shape);
  // More than the rounding of the points on the plane.
  const double radius = (core.radius * 1.001 + 0.01) / slant;
  ends[0] = ends[1] = whole_screen();
  if (slant < 0.05 || !(radius < kEverywhere)) return;
  const auto disc = [&](V end) {
    const double height = dot(normal, end - vector(plane.centre));
    return screen.upright(end - towards * (height / slant), reach * radius);
  };
  ends[0] = disc(core.from);
  ends[1] = shape.geom->type == kCapsule ? disc(core.from + core.along) : ends[0];
  if (is_whole(ends[0]) || is_whole(ends[1])) ends[0] = ends[1] = whole_screen();
}

// -- the parts of a frame -----------------------------------------------------------------------

// Divides the memory of a frame; without any it only counts.
struct FrameMemory {
  float* casters;     // [4][padded], those of Frame
  float* of_lights;   // [lights][kCasterRows][padded]
  double* body_pose;  // [nbody][7]
  double* com;        // [nbody][3]
  Placed* eye;
  Shape* shape;            // [geoms]
  FrameLight* light;       // [lights]
  ScreenBox (*thrown)[2];  // [planes][geoms]
  std::size_t padded, bytes;

  SDPG_INLINE FrameMemory(const SceneArrays& scene, void* memory) {
    // The casters first: they are loaded as packs.
    std::uintptr_t at = reinterpret_cast<std::uintptr_t>(memory);
    const std::uintptr_t first = at;
    const auto take = [&]<class T>(T** to, std::size_t count) {
      *to = reinterpret_cast<T*>(at);
      at += (count * sizeof(T) + 7) / 8 * 8;
    };
    const auto n = [](int count) { return static_cast<std::size_t>(count); };
    padded = (n(scene.geoms) + kCasterBlock - 1) / kCasterBlock * kCasterBlock;
    take(&casters, 4 * padded);
    take(&of_lights, kCasterRows * n(scene.lights) * padded);
    take(&body_pose, 7 * n(scene.nbody));
    take(&com, 3 * n(scene.nbody));
    take(&eye, 1);
    take(&shape, n(scene.geoms));
    take(&light, n(scene.lights));
    take(&thrown, n(scene.planes) * n(scene.geoms));
    bytes = (at - first + 63) / 64 * 64;
  }
};

// All that is one of its kind.
SDPG_FN void open_frame(const SceneArrays& scene, const Shot& view, const Bodies& bodies,
                        const FrameMemory& memory, Frame* out) {
  if (scene.needs_com) subtree_com(scene, memory.body_pose, memory.com);
  const Camera& camera = scene.camera[view.camera];
  *memory.eye = place(camera, bodies);
  out->width = view.width;
  out->height = view.height;
  out->near = view.near;
  out->far = view.far;
  out->scale = static_cast<float>(camera.height / view.height);
  out->shift_x = 0.5f - 0.5f * static_cast<float>(view.width);
  out->shift_y = 0.5f - 0.5f * static_cast<float>(view.height);
  out->background = pack(scene.background);
  out->global_ambient = scene.global_ambient;
  out->shape = memory.shape;
  out->light = memory.light;
  for (int k = 0; k < 4; ++k) out->caster[k] = memory.casters + k * memory.padded;
  out->lights = scene.lights;
  out->shadows = false;
  for (int l = 0; l < scene.lights; ++l) out->shadows |= view.shadows && scene.light[l].castshadow;
}

SDPG_FN void place_light(const SceneArrays& scene, const Shot& view, const Bodies& bodies,
                         const FrameMemory& memory, int l) {
  const Light& light = scene.light[l];
  FrameLight& placed = memory.light[l];
  placed.light = &light;
  for (int k = 0; k < kCasterRows; ++k)
    placed.caster[k] =
        memory.of_lights + (static_cast<std::size_t>(l) * kCasterRows + k) * memory.padded;
  placed.casts = view.shadows && light.castshadow;
  if (light.headlight) {
    put({0, 0, 0}, placed.pos);
    put({0, 0, 1}, placed.towards);
  } else {
    const Placed& eye = *memory.eye;
    const V pos = mounted_position(light.mount, bodies);
    put(eye.axes.into(pos - eye.pos), placed.pos);
    const V along = unit(direction(light, pos, bodies), {0, 0, -1});
    put(eye.axes.into(along * -1), placed.towards);
  }
  if (placed.casts && light.directional) look_across(&placed);
}

// The axes of the body of the geom before, which are often those of the next.
struct LastBody {
  int number = -1;
  Axes axes;
};

// Whether the camera is above the shape's plane of x and y.
SDPG_FN bool place_shape(const Geom& geom, const Bodies& bodies, const Placed& eye,
                         const Screen& screen, bool cull, LastBody* body, Shape* shape) {
  if (geom.body != body->number) *body = {geom.body, bodies.axes(geom.body)};
  const V pos = bodies.pos(geom.body) + body->axes.out_of(vector(geom.pos)) - eye.pos;
  const Axes world =
      body->axes * Axes{vector(geom.axes[0]), vector(geom.axes[1]), vector(geom.axes[2])};
  const Axes axes{eye.axes.into(world.x), eye.axes.into(world.y), eye.axes.into(world.z)};
  const V centre = eye.axes.into(pos);
  const V origin = axes.into(centre * -1);
  shape->geom = &geom;
  put(centre, shape->centre);
  put(axes.x, shape->axes[0]);
  put(axes.y, shape->axes[1]);
  put(axes.z, shape->axes[2]);
  put(origin, shape->origin);
  shape->is_flat = false;
  // What cannot be seen may still throw a shadow.
  bound(screen, geom, centre, axes, cull, shape);
  return origin.z > 0;
}

SDPG_FN void place_planes(const SceneArrays& scene, const Bodies& bodies, const FrameMemory& memory,
                          const Screen& screen, bool cull, Frame* out) {
  out->planes = 0;
  LastBody body;
  for (int g = 0; g < scene.planes; ++g) {
    Shape& shape = out->shape[out->planes];
    // Seen from its front only.
    if (!place_shape(scene.geom[g], bodies, *memory.eye, screen, cull, &body, &shape)) continue;
    find_flat_colours(*out, &shape);
    shape.shadows = cull ? nowhere() : whole_screen();
    shape.thrown = memory.thrown + out->planes * scene.geoms;
    ++out->planes;
  }
  out->shapes = out->planes + scene.geoms - scene.planes;
  out->casters = (out->shapes + kCasterBlock - 1) / kCasterBlock * kCasterBlock;
}

SDPG_INLINE void place_caster(const Frame& frame, bool cull, int i) {
  const bool real = i < frame.shapes;
  for (int k = 0; k < 3; ++k) frame.caster[k][i] = real ? frame.shape[i].middle[k] : kFarAway;
  frame.caster[3][i] = !real ? 0 : cull ? frame.shape[i].radius : INFINITY;
}

// Of a flat plane, light after light.
template <class Team>
SDPG_INLINE void find_shadows(const Frame& frame, const Screen& screen, bool cull, const Team& team,
                              Shape* plane) {
  const V reach = reach_of(*plane);
  for (int l = 0; l < frame.lights; ++l) {
    const FrameLight& light = frame.light[l];
    const V towards = vector(light.towards);
    if (!light.casts ||
        (plane->light >= 0 ? l != plane->light : dot(vector(plane->axes[2]), towards) <= 0))
      continue;
    team.each(0, frame.shapes, [&](int i) {
      ScreenBox* const ends = plane->thrown[i];
      if (&frame.shape[i] == plane)
        ends[0] = ends[1] = nowhere();
      else if (cull)
        shadow_on(*plane, reach, towards, frame.shape[i], screen, ends);
      else
        ends[0] = ends[1] = whole_screen();
    });
    team.once([&] {
      ScreenBox all = plane->shadows;
      for (int i = 0; i < frame.shapes; ++i)
        all = both(all, both(plane->thrown[i][0], plane->thrown[i][1]));
      plane->shadows = all;
    });
  }
}

}  // namespace placing

// `memory` is frame_memory() bytes long and, like `out`, shared by the team.
template <class Team>
SDPG_INLINE void make_frame(const SceneArrays& scene, const Shot& view, const float* pose,
                            void* memory, bool cull, const Team& team, Frame* out) {
  const placing::FrameMemory m(scene, memory);
  const placing::Bodies bodies{m.body_pose, m.com};
  team.each(0, 7 * scene.nbody, [&](int i) { m.body_pose[i] = pose[i]; });
  team.once([&] { placing::open_frame(scene, view, bodies, m, out); });
  team.each(0, scene.lights, [&](int l) { placing::place_light(scene, view, bodies, m, l); });
  const placing::Screen screen{out, 1.0 / out->scale};
  // Their colours need the lights.
  team.once([&] { placing::place_planes(scene, bodies, m, screen, cull, out); });
  placing::LastBody body;
  team.each(scene.planes, scene.geoms, [&](int g) {
    placing::place_shape(scene.geom[g], bodies, *m.eye, screen, cull, &body,
                         &out->shape[out->planes + g - scene.planes]);
  });
  if (!out->shadows) return;
  team.each(0, out->casters, [&](int i) { placing::place_caster(*out, cull, i); });
  for (int l = 0; l < out->lights; ++l) {
    const FrameLight& light = out->light[l];
    if (light.casts && light.light->directional)
      team.each(0, out->casters, [&](int i) { placing::cast(*out, cull, light, i); });
  }
  for (int p = 0; p < out->planes; ++p)
    if (out->shape[p].is_flat) placing::find_shadows(*out, screen, cull, team, &out->shape[p]);
}

SDPG_ISA_END
}  // namespace sdpg::render
