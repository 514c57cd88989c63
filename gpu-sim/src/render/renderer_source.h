// Draws a frame with `P::lanes` pixels at once. renderer_<isa>.cc includes this once, with SDPG_ISA
// set and the flags of its instruction set; a thread of CUDA is one lane (cuda/picture.h), which
// draws a pixel without passes by the same functions.
//
// Where a picture's ground is the background or a single plane on which all lights are alike, its
// colours are written first, line by line. Whatever else may be seen is drawn over it.
//
// A pack covers a tile of the picture (4 x 4 pixels of 16 lanes), because shapes are compact: tiles
// that touch one are fewer than strips. Rows of tiles are drawn one after another:
//   ground  nearest plane, else the background;
//   shapes  one after another, those tiles that its bound on the screen touches: nearer hits;
//   shadows on a plane on which all lights are alike, one caster after another, likewise;
//   colour  the shapes seen in each tile are lit, and the tile is written out.
// Between them a pixel's depth and the number of its shape lie tile after tile in scratch memory.
//
// A lane's numbers never depend on its neighbours, and products and sums are rounded one by one
// (-ffp-contract=off): all instruction sets draw the same bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "batch/philox.h"
#include "core/simd.h"
#include "core/spatial.h"
#include "render/frame.h"

// Large: part of its caller on a CPU, under nvcc a function of its own.
#if defined(__CUDACC__)
#define SDPG_PART SDPG_FN
#else
#define SDPG_PART SDPG_INLINE
#endif

namespace sdpg::render {
SDPG_ISA_BEGIN

using core::abs;
using core::copysign;
using core::floor;
using core::max;
using core::min;
using core::Pack;
using core::select;
using core::sqrt;
using core::Vec3;

template <class P>
struct Tiles {
  static constexpr int width = P::lanes < 4 ? P::lanes : 4;
  static constexpr int height = P::lanes / width;
};

// Tiles from `first` to before `end`, of a row or of a column.
struct Span {
  int first, end;
};

// Where in a row a shape may throw a shadow on a flat plane.
struct Shadow {
  int plane, caster;
  Span columns;
};

// Where each pass finds its memory.
template <class P>
struct Canvas {
  Frame frame;
  int columns, rows;  // tiles
  // Of the row of tiles that is being drawn, [columns][lanes]:
  float* depth;
  float* number;    // index into frame.shape, or -1; then its colour
  float* triangle;  // of its mesh; null in a scene without meshes
  float* dark;      // 1 in a shadow on a flat plane, else 0; null where the view has no shadows
  // Of the row a bit for each column: whether anything but plain ground may be seen in the tile.
  std::uint64_t* busy;
  // [3][width, up to a pack more] of plain ground: u of a line's pixels times each axis's x.
  float* plain[3];
  // [rows][words]: a bit for each shape but planes, whether its bound touches the row.
  std::uint64_t* present;
  int words;
  Span* shape_columns;  // [shapes], those of the present row that its bound touches
  Shadow* shadow;       // on flat planes, of the row; up to [planes][shapes]
  P lane;               // its number
  P lane_x, lane_y;     // place of each lane in its tile
};

template <class P>
SDPG_INLINE Vec3<P> all_lanes(const float* v) {
  return {P(v[0]), P(v[1]), P(v[2])};
}
template <class P>
SDPG_INLINE P dot(const float* a, const Vec3<P>& b) {
  return b.x * a[0] + b.y * a[1] + b.z * a[2];
}

// The rays (u, v, -1) of a tile.
template <class P>
struct Rays {
  P u, v;
  // Along one axis of a geom's frame.
  SDPG_INLINE P along(const float* axis) const {
    return u * axis[0] + (v * axis[1] - P(axis[2]));  // the same v all along a row of tiles
  }
  SDPG_INLINE Vec3<P> local(const Shape& s) const {
    return {along(s.axes[0]), along(s.axes[1]), along(s.axes[2])};
  }
};
template <class P>
SDPG_INLINE Rays<P> rays_of(const Canvas<P>& c, int column, int row) {
  const Frame& f = c.frame;
  const P x = c.lane_x + P(static_cast<float>(column * Tiles<P>::width) + f.shift_x);
  const P y = c.lane_y + P(static_cast<float>(row * Tiles<P>::height) + f.shift_y);
  return {x * f.scale, y * -f.scale};
}

// ---- intersections

// Each takes a ray from `o` along `d` in the geom's frame and returns the parameter at which it
// enters the shape from outside, or kNoHit. Surfaces are seen from outside only, as MuJoCo culls
// the faces behind. Roots are taken from the point nearest to the centre, where nothing cancels.

inline constexpr float kNoHit = -1.0f;

template <class P>
SDPG_INLINE P hit_plane(const Vec3<P>& o, const Vec3<P>& d, const float* size) {
  auto hit = d.z < 0.0f;
  if (!core::any(hit)) return P(kNoHit);  // the sky needs no division
  const P t = -o.z / d.z;
  if (size[0] > 0) hit = hit & (abs(o.x + t * d.x) <= size[0]);
  if (size[1] > 0) hit = hit & (abs(o.y + t * d.y) <= size[1]);
  return select(hit, t, kNoHit);
}

template <class P>
SDPG_INLINE P hit_sphere(const Vec3<P>& o, const Vec3<P>& d, float radius) {
  const P inverse = 1.0f / dot(d, d);
  const P nearest = -dot(o, d) * inverse;
  const Vec3<P> q{o.x + nearest * d.x, o.y + nearest * d.y, o.z + nearest * d.z};
  const P rest = radius * radius - dot(q, q);
  return select(rest >= 0.0f, nearest - sqrt(max(rest, 0.0f) * inverse), kNoHit);
}

// A ray along the axis of a cylinder: its parameter runs to infinity, and must not be NaN.
inline constexpr float kSmallest = 1e-20f;

// Where rays enter and leave the infinite cylinder about z; `rest` is below 0 where they miss it.
template <class P>
struct Round {
  P in, out, rest;
};
template <class P>
SDPG_INLINE Round<P> through_round(const Vec3<P>& o, const Vec3<P>& d, float radius) {
  const P inverse = 1.0f / max(d.x * d.x + d.y * d.y, kSmallest);
  const P nearest = -(o.x * d.x + o.y * d.y) * inverse;
  const P x = o.x + nearest * d.x, y = o.y + nearest * d.y;
  const P rest = radius * radius - (x * x + y * y);
  const P half = sqrt(max(rest, 0.0f) * inverse);
  return {nearest - half, nearest + half, rest};
}

template <class P>
SDPG_INLINE P hit_capsule(const Vec3<P>& o, const Vec3<P>& d, const float* size) {
  const Round<P> side = through_round(o, d, size[0]);
  const P z = o.z + side.in * d.z;
  const auto touched = side.rest >= 0.0f;
  const auto on_side = abs(z) <= size[1];
  P t = select(touched & on_side, side.in, kNoHit);
  const auto capped = touched & (!on_side);
  if (core::any(capped)) {
    // Past an end of the cylinder's side the ray can only enter through the cap of that end.
    const Vec3<P> from_cap{o.x, o.y, o.z - copysign(P(size[1]), z)};
    t = select(capped, hit_sphere(from_cap, d, size[0]), t);
  }
  return t;
}

// Between two planes that are `half` from the middle.
template <class P>
SDPG_INLINE void through_slab(P o, P d, float half, P* in, P* out) {
  // Parallel rays: a tiny slope keeps 0 / 0 away.
  const P inverse = 1.0f / copysign(max(abs(d), kSmallest), d);
  const P a = (-half - o) * inverse, b = (half - o) * inverse;
  *in = min(a, b);
  *out = max(a, b);
}

template <class P>
SDPG_INLINE P hit_cylinder(const Vec3<P>& o, const Vec3<P>& d, const float* size) {
  const Round<P> side = through_round(o, d, size[0]);
  P in, out;
  through_slab(o.z, d.z, size[1], &in, &out);
  in = max(in, side.in);
  out = min(out, side.out);
  return select((side.rest >= 0.0f) & (in <= out), in, kNoHit);
}

template <class P>
SDPG_INLINE P hit_box(const Vec3<P>& o, const Vec3<P>& d, const float* half) {
  P in, out, in_y, out_y, in_z, out_z;
  through_slab(o.x, d.x, half[0], &in, &out);
  through_slab(o.y, d.y, half[1], &in_y, &out_y);
  through_slab(o.z, d.z, half[2], &in_z, &out_z);
  in = max(max(in, in_y), in_z);
  out = min(min(out, out_y), out_z);
  return select(in <= out, in, kNoHit);
}

template <class P>
SDPG_INLINE P hit_ellipsoid(const Vec3<P>& o, const Vec3<P>& d, const float* size) {
  const float x = 1 / size[0], y = 1 / size[1], z = 1 / size[2];
  return hit_sphere(Vec3<P>{o.x * x, o.y * y, o.z * z}, Vec3<P>{d.x * x, d.y * y, d.z * z}, 1.0f);
}

inline constexpr bool is_mesh(ShapeType type) { return type == kMesh || type == kHeightField; }

// Whether some lane's ray meets the box before `limit`.
template <class P>
SDPG_INLINE bool meets(const Mesh::Node& node, const Vec3<P>& o, const Vec3<P>& inverse, P limit) {
  const auto slab = [](float low, float high, P o, P inverse, P* in, P* out) {
    const P a = (low - o) * inverse, b = (high - o) * inverse;
    *in = min(a, b);
    *out = max(a, b);
  };
  P in, out, in_y, out_y, in_z, out_z;
  slab(node.low[0], node.high[0], o.x, inverse.x, &in, &out);
  slab(node.low[1], node.high[1], o.y, inverse.y, &in_y, &out_y);
  slab(node.low[2], node.high[2], o.z, inverse.z, &in_z, &out_z);
  in = max(max(max(in, in_y), in_z), 0.0f);
  out = min(min(min(out, out_y), out_z), limit);
  return core::any(in <= out);
}

// Nearest of the mesh's triangles met from outside at a parameter of at least `least` and before
// *nearest, which it becomes, with the triangle's number; true where there is one. All rays of the
// pack walk the hierarchy together; among triangles at the same parameter the lowest number wins,
// so that the way they took does not matter. With `any_hit` the walk ends once all of `asked` have
// met something.
template <bool any_hit, class P>
SDPG_PART typename P::Bool hit_mesh(const Triangles& mesh, const Vec3<P>& o, const Vec3<P>& d,
                                    float least, typename P::Bool asked, P* nearest, P* triangle) {
  const auto invert = [](P x) { return 1.0f / copysign(max(abs(x), kSmallest), x); };
  const Vec3<P> inverse{invert(d.x), invert(d.y), invert(d.z)};
  const float first_direction[3] = {d.x[0], d.y[0], d.z[0]};
  auto found = core::no_lanes<P>();
  int stack[kMeshStack], waiting = 0;
  stack[waiting++] = 0;
  while (waiting > 0) {
    const Mesh::Node& node = mesh.nodes[stack[--waiting]];
    if (!meets(node, o, inverse, *nearest)) continue;
    if (node.count == 0) {
      // The nearer child is looked at first: it is put on top.
      const int far_first = first_direction[node.axis] > 0 ? 1 : 0;
      stack[waiting++] = node.first + far_first;
      stack[waiting++] = node.first + 1 - far_first;
      continue;
    }
    for (int i = node.first; i < node.first + node.count; ++i) {
      // T. Moeller and B. Trumbore, Fast, minimum storage ray/triangle intersection, 1997.
      const Mesh::Triangle& t = mesh.triangles[i];
      const Vec3<P> edge1 = all_lanes<P>(t.edge1), edge2 = all_lanes<P>(t.edge2);
      const Vec3<P> p = core::cross(d, edge2);
      const P determinant = dot(edge1, p);
      const P scale = 1.0f / determinant;
      const Vec3<P> from = o - all_lanes<P>(t.corner);
      const P u = dot(from, p) * scale;
      const Vec3<P> q = core::cross(from, edge1);
      const P v = dot(d, q) * scale;
      const P at = dot(edge2, q) * scale;
      // A little of its neighbours, so that no ray slips between them.
      constexpr float slack = 1e-6f;
      const P own = P(static_cast<float>(i));
      const auto better = (at < *nearest) | ((at == *nearest) & (own < *triangle));
      const auto hit = (determinant > 0.0f) & (u >= -slack) & (v >= -slack) & (u + v <= 1 + slack) &
                       (at >= least) & better;
      *nearest = select(hit, at, *nearest);
      *triangle = select(hit, own, *triangle);
      found = found | hit;
    }
    if (any_hit && core::bits(asked & (!found)) == 0) break;
  }
  return found;
}

template <ShapeType type, class P>
SDPG_INLINE P hit(const Shape& shape, const Vec3<P>& o, const Vec3<P>& d) {
  const float* size = shape.geom->size;
  if constexpr (type == kPlane) return hit_plane(o, d, size);
  if constexpr (type == kSphere) return hit_sphere(o, d, size[0]);
  if constexpr (type == kCapsule) return hit_capsule(o, d, size);
  if constexpr (type == kCylinder) return hit_cylinder(o, d, size);
  if constexpr (type == kEllipsoid) return hit_ellipsoid(o, d, size);
  if constexpr (type == kBox) return hit_box(o, d, size);
}

// Calls `work` with the shape's type as a constant.
template <class Work>
SDPG_INLINE void with_type(ShapeType type, const Work& work) {
  switch (type) {
    case kPlane:
      return work.template operator()<kPlane>();
    case kSphere:
      return work.template operator()<kSphere>();
    case kCapsule:
      return work.template operator()<kCapsule>();
    case kEllipsoid:
      return work.template operator()<kEllipsoid>();
    case kCylinder:
      return work.template operator()<kCylinder>();
    case kBox:
      return work.template operator()<kBox>();
    case kMesh:
    case kHeightField:
      return work.template operator()<kMesh>();
  }
}

// ---- ground and shapes

template <class P>
SDPG_INLINE void draw_ground(const Canvas<P>& c, int row, Span columns) {
  const Frame& f = c.frame;
  for (int column = columns.first; column < columns.end; ++column) {
    const Rays<P> rays = rays_of(c, column, row);
    P depth = P(f.far), number = P(-1.0f);
    for (int i = 0; i < f.planes; ++i) {
      const Shape& s = f.shape[i];
      const P t = hit<kPlane>(s, all_lanes<P>(s.origin), rays.local(s));
      const auto nearer = (t >= f.near) & (t < depth);
      depth = select(nearer, t, depth);
      number = select(nearer, P(static_cast<float>(i)), number);
    }
    const int at = column * P::lanes;
    core::store(c.depth + at, depth);
    core::store(c.number + at, number);
    if (c.triangle != nullptr) core::store(c.triangle + at, P(-1.0f));
    if (c.dark != nullptr) core::store(c.dark + at, P(0.0f));
  }
}

// Those of `tiles` tiles that pixels from `low` to `high` touch.
SDPG_INLINE Span tile_range(float low, float high, int size, int tiles) {
  // Kept inside before becoming integers: a bound may be far outside, or no number where the
  // model's numbers are so large that the arithmetic overflows.
  const float most = static_cast<float>(tiles * size);
  const int from = low > 0 ? static_cast<int>(std::ceil(std::min(low, most))) : 0;
  const int to = high >= 0 ? static_cast<int>(std::floor(std::min(high, most))) : -1;
  return {from / size, to < 0 ? 0 : std::min(to / size + 1, tiles)};
}

// The part of a bound that lies between two rows of pixels. The hull of two boxes is the union of
// all boxes between them; those that reach the rows are an interval, and the outermost of them are
// its ends.
SDPG_INLINE void span(const ScreenBox& a, const ScreenBox& b, float top, float bottom, float* left,
                      float* right) {
  // Fractions of the way from a to b: the box's top must be at most `bottom`, its bottom at least
  // `top`.
  float low = 0, high = 1;
  const auto at_most = [&](float from, float to, float limit) {  // from + x (to - from) <= limit
    const float slope = to - from;
    if (std::abs(slope) < 1e-3f) return;  // keeps more than it must
    const float x = (limit - from) / slope;
    if (slope > 0)
      high = std::min(high, x);
    else
      low = std::max(low, x);
  };
  at_most(a.top, b.top, bottom);
  at_most(-a.bottom, -b.bottom, -top);
  low = std::min(low, 1.0f);
  high = std::max(high, 0.0f);
  const auto between = [](float from, float to, float x) { return from + x * (to - from); };
  *left = std::min(between(a.left, b.left, low), between(a.left, b.left, high));
  *right = std::max(between(a.right, b.right, low), between(a.right, b.right, high));
}

template <class P>
SDPG_INLINE Span rows_of(const Canvas<P>& c, const ScreenBox* ends) {
  return tile_range(std::min(ends[0].top, ends[1].top), std::max(ends[0].bottom, ends[1].bottom),
                    Tiles<P>::height, c.rows);
}
template <class P>
SDPG_INLINE bool touches_row(const Canvas<P>&, const ScreenBox& box, int row) {
  return box.top <= static_cast<float>((row + 1) * Tiles<P>::height - 1) &&
         box.bottom >= static_cast<float>(row * Tiles<P>::height);
}
template <class P>
SDPG_INLINE Span columns_of(const Canvas<P>& c, const ScreenBox* ends, int row) {
  const int top = row * Tiles<P>::height;
  float left, right;
  span(ends[0], ends[1], static_cast<float>(top), static_cast<float>(top + Tiles<P>::height - 1),
       &left, &right);
  return tile_range(left, right, Tiles<P>::width, c.columns);
}

template <ShapeType type, class P>
SDPG_INLINE void draw_shape(const Canvas<P>& c, int index, int row, Span columns) {
  const Frame& f = c.frame;
  const Shape& s = f.shape[index];
  const P own = P(static_cast<float>(index));
  const Vec3<P> origin = all_lanes<P>(s.origin);
  for (int column = columns.first; column < columns.end; ++column) {
    const int at = column * P::lanes;
    const P depth = core::load<P>(c.depth + at);
    const Vec3<P> d = rays_of(c, column, row).local(s);
    if constexpr (is_mesh(type)) {
      P t = depth, triangle = P(-1.0f);
      const auto nearer =
          hit_mesh<false>(s.geom->mesh, origin, d, f.near, core::all_lanes<P>(), &t, &triangle);
      core::store(c.depth + at, t);
      core::store(c.number + at, select(nearer, own, core::load<P>(c.number + at)));
      core::store(c.triangle + at, select(nearer, triangle, core::load<P>(c.triangle + at)));
    } else {
      const P t = hit<type>(s, origin, d);
      const auto nearer = (t >= f.near) & (t < depth);
      core::store(c.depth + at, select(nearer, t, depth));
      core::store(c.number + at, select(nearer, own, core::load<P>(c.number + at)));
    }
  }
}

// ---- colour

// Number of the lowest bit that is set.
SDPG_INLINE int lowest(std::uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __ffs(static_cast<int>(bits)) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

template <class P>
struct Colour {
  P red, green, blue;
};

// Out of the geom's frame into the camera's.
template <class P>
SDPG_INLINE Vec3<P> turn_out(const Shape& s, const Vec3<P>& a) {
  return {a.x * s.axes[0][0] + a.y * s.axes[1][0] + a.z * s.axes[2][0],
          a.x * s.axes[0][1] + a.y * s.axes[1][1] + a.z * s.axes[2][1],
          a.x * s.axes[0][2] + a.y * s.axes[1][2] + a.z * s.axes[2][2]};
}

// And into it.
template <class P>
SDPG_INLINE Vec3<P> turn_in(const Shape& s, const Vec3<P>& a) {
  return {dot(s.axes[0], a), dot(s.axes[1], a), dot(s.axes[2], a)};
}

// Outward normal of length 1, in the camera's frame, at the point p; `local` is the point in the
// geom's frame.
template <ShapeType type, class P>
SDPG_INLINE Vec3<P> normal(const Shape& s, const Vec3<P>& p, const Vec3<P>& local) {
  const float* size = s.geom->size;
  const auto turned = [&](const Vec3<P>& n) { return turn_out(s, n); };
  if constexpr (type == kPlane) {
    return all_lanes<P>(s.axes[2]);
  } else if constexpr (type == kSphere) {
    const float inverse = 1 / size[0];
    return {(p.x - P(s.centre[0])) * inverse, (p.y - P(s.centre[1])) * inverse,
            (p.z - P(s.centre[2])) * inverse};
  } else if constexpr (type == kCapsule) {
    // From the nearest point of the axis.
    const float inverse = 1 / size[0];
    const P along = max(min(local.z, size[1]), -size[1]);
    return {(p.x - P(s.centre[0]) - along * s.axes[2][0]) * inverse,
            (p.y - P(s.centre[1]) - along * s.axes[2][1]) * inverse,
            (p.z - P(s.centre[2]) - along * s.axes[2][2]) * inverse};
  } else if constexpr (type == kCylinder) {
    // The cap where the point is nearer to its plane than to the side.
    const P square = local.x * local.x + local.y * local.y;
    const P inverse = 1.0f / sqrt(max(square, kSmallest));
    const auto cap = abs(local.z) - size[1] >= square * inverse - size[0];
    const P zero = P(0.0f);
    return turned({select(cap, zero, local.x * inverse), select(cap, zero, local.y * inverse),
                   select(cap, copysign(P(1.0f), local.z), zero)});
  } else if constexpr (type == kEllipsoid) {
    const Vec3<P> n{local.x * (1 / (size[0] * size[0])), local.y * (1 / (size[1] * size[1])),
                    local.z * (1 / (size[2] * size[2]))};
    return turned(n * (1.0f / sqrt(max(dot(n, n), kSmallest))));
  } else {  // box: the face whose plane is nearest
    const P x = abs(local.x) - size[0], y = abs(local.y) - size[1], z = abs(local.z) - size[2];
    const auto on_x = (x >= y) & (x >= z);
    const auto on_y = (!on_x) & (y >= z);
    const P zero = P(0.0f), one = P(1.0f);
    return turned({select(on_x, copysign(one, local.x), zero),
                   select(on_y, copysign(one, local.y), zero),
                   select(on_x | on_y, zero, copysign(one, local.z))});
  }
}

// The triangles' normals; `triangle` holds the numbers of all lanes, `lanes` the bits of those that
// are the shape's.
template <class P>
SDPG_INLINE Vec3<P> mesh_normal(const Shape& s, const float* triangle, std::uint32_t lanes) {
  Vec3<P> n{P(0.0f), P(0.0f), P(1.0f)};
  for (; lanes != 0; lanes &= lanes - 1) {
    const int i = lowest(lanes);
    const float* own = s.geom->mesh.triangles[static_cast<int>(triangle[i])].normal;
    core::set_lane(n.x, i, own[0]);
    core::set_lane(n.y, i, own[1]);
    core::set_lane(n.z, i, own[2]);
  }
  return turn_out(s, n);
}

// What is seen in a tile of shapes of one look.
template <class P>
struct Surface {
  const Geom* geom;      // of one of them
  P number;              // of the shape that each lane shows
  typename P::Bool own;  // lanes that show one of them
  Vec3<P> p, n;          // point and normal, in the camera's frame
  // A sphere around the points, in m.
  float middle[3], radius;
};

// The least number of all lanes.
template <class P>
SDPG_INLINE float least(P x) {
#if !defined(__CUDACC__)
  if constexpr (P::lanes > 1) {
    for (int step = P::lanes / 2; step > 0; step /= 2) {
      typename P::Integers order;
      for (int i = 0; i < P::lanes; ++i) order[i] = i ^ step;
      x = min(x, P(__builtin_shuffle(x.v, order)));
    }
  }
#endif
  return x[0];
}

template <class P>
SDPG_INLINE void bound(const Canvas<P>& c, int column, int row, P depth, Surface<P>* surface) {
  constexpr float half_width = 0.5f * (Tiles<P>::width - 1);
  constexpr float half_height = 0.5f * (Tiles<P>::height - 1);
  const Frame& f = c.frame;
  const float low = least(select(surface->own, depth, f.far));
  const float high = -least(select(surface->own, -depth, 0.0f));
  const float u = (static_cast<float>(column * Tiles<P>::width) + half_width + f.shift_x) * f.scale;
  const float v = (static_cast<float>(row * Tiles<P>::height) + half_height + f.shift_y) * -f.scale;
  const float t = 0.5f * (low + high);
  surface->middle[0] = u * t;
  surface->middle[1] = v * t;
  surface->middle[2] = -t;
  surface->radius = 0.5f * (high - low) * std::sqrt(u * u + v * v + 1) +
                    high * f.scale * std::sqrt(half_width * half_width + half_height * half_height);
}

// Where a ray to a light starts, in m: off the surface, past the rounding of its points.
inline constexpr float kOffSurface = 1e-3f;

// The rays from a surface to a light.
struct Bundle {
  // To a directional one: its place across the rays and towards the light.
  float across[2], height;
  // To another: the line of a capsule from one to the other.
  float along[3], reach;
};
template <class P>
SDPG_INLINE Bundle bundle(const FrameLight& light, const Surface<P>& surface) {
  Bundle out{};
  const auto place = [&](const float* axis) {
    return axis[0] * surface.middle[0] + axis[1] * surface.middle[1] + axis[2] * surface.middle[2];
  };
  if (light.light->directional) {
    out.across[0] = place(light.across[0]);
    out.across[1] = place(light.across[1]);
    out.height = place(light.towards);
    return out;
  }
  float square = 0;
  for (int k = 0; k < 3; ++k) {
    out.along[k] = light.pos[k] - surface.middle[k];
    square += out.along[k] * out.along[k];
  }
  out.reach = std::sqrt(square);
  for (float& x : out.along) x /= std::max(out.reach, float{kSmallest});
  return out;
}

// Which of the shapes from number `block` on may stand in a bundle's way, a bit each.
template <class P>
SDPG_INLINE std::uint32_t in_the_way(const Canvas<P>& c, int block, const FrameLight& light,
                                     const Bundle& bundle, const Surface<P>& surface) {
  const Frame& f = c.frame;
  // Widened by more than rounding: whether a lane is dark must not depend on its neighbours.
  const auto touching = [&](P radius) {
    return (radius + P(surface.radius)) * 1.001f + P(kOffSurface);
  };
  std::uint32_t near;
  if (light.light->directional) {
    const auto caster = [&](Caster k) { return core::load<P>(light.caster[k] + block); };
    const P x = P(bundle.across[0]) - caster(kX), y = P(bundle.across[1]) - caster(kY);
    const P along_x = caster(kAlongX), along_y = caster(kAlongY);
    const P part = max(min((x * along_x + y * along_y) * caster(kPerSquare), 1.0f), 0.0f);
    const P off_x = x - part * along_x, off_y = y - part * along_y;
    const P reach = touching(caster(kRadius));
    near = core::bits((off_x * off_x + off_y * off_y <= reach * reach) &
                      (caster(kTop) + touching(P(0.0f)) >= bundle.height));
  } else {
    const auto caster = [&](int k) { return core::load<P>(f.caster[k] + block); };
    const Vec3<P> to{caster(0) - P(surface.middle[0]), caster(1) - P(surface.middle[1]),
                     caster(2) - P(surface.middle[2])};
    const P at = max(min(dot(bundle.along, to), bundle.reach), 0.0f);
    const Vec3<P> off{to.x - at * bundle.along[0], to.y - at * bundle.along[1],
                      to.z - at * bundle.along[2]};
    const P reach = touching(caster(3));
    near = core::bits(dot(off, off) <= reach * reach);
  }
  // A light in front of a plane is not behind it for anything seen.
  for (int index = block; index < std::min(f.planes, block + P::lanes); ++index) {
    const Shape& s = f.shape[index];
    float height = 0;
    for (int k = 0; k < 3; ++k)
      height +=
          s.axes[2][k] * (light.light->directional ? light.towards[k] : light.pos[k] - s.centre[k]);
    if (height >= 0) near &= ~(1u << (index - block));
  }
  return near;
}

// Lanes where the shape stands between the points `p`, of which some are `asked` for, and a light
// that is `distance` away in the direction of `d` in the geom's frame.
template <ShapeType type, class P>
SDPG_INLINE typename P::Bool in_between(const Shape& s, const Vec3<P>& p, const Vec3<P>& d,
                                        P distance, typename P::Bool asked) {
  const Vec3<P> o =
      turn_in<P>(s, {p.x - P(s.centre[0]), p.y - P(s.centre[1]), p.z - P(s.centre[2])});
  if constexpr (is_mesh(type)) {
    P triangle = P(-1.0f);
    return hit_mesh<true>(s.geom->mesh, o, d, kOffSurface, asked, &distance, &triangle);
  } else {
    const P t = hit<type>(s, o, d);
    return (t > kOffSurface) & (t < distance);
  }
}

// Lanes of `asked` that a light does not reach. `towards` has length 1; the light is `distance`
// away.
template <class P>
SDPG_PART typename P::Bool shadowed(const Canvas<P>& c, const Surface<P>& surface,
                                    typename P::Bool asked, const FrameLight& light,
                                    const Vec3<P>& towards, P distance) {
  const Frame& f = c.frame;
  const Bundle rays = bundle(light, surface);
  auto dark = core::no_lanes<P>();
  for (int block = 0; block < f.shapes; block += P::lanes) {
    for (std::uint32_t near = in_the_way(c, block, light, rays, surface); near != 0;
         near &= near - 1) {
      const int index = block + lowest(near);
      const Shape& s = f.shape[index];
      // Nothing convex darkens itself where it faces the light.
      auto lit = asked & (!dark);
      if (!is_mesh(s.geom->type)) lit = lit & (surface.number != static_cast<float>(index));
      if (!core::any(lit)) continue;
      with_type(s.geom->type, [&]<ShapeType kind>() {
        dark = dark | (lit & in_between<kind>(s, surface.p, turn_in(s, towards), distance, lit));
      });
    }
    if (core::bits(asked & (!dark)) == 0) break;
  }
  return dark;
}

// The shadow that a shape throws on a flat plane, whose number is `number`.
template <ShapeType type, class P>
SDPG_INLINE void draw_shadow(const Canvas<P>& c, P number, const Shape& s, const Vec3<P>& towards,
                             int row, Span columns) {
  const Vec3<P> d = turn_in(s, towards);
  for (int column = columns.first; column < columns.end; ++column) {
    const int at = column * P::lanes;
    const P before = core::load<P>(c.dark + at);
    const auto asked = (core::load<P>(c.number + at) == number) & (before == 0.0f);
    if (!core::any(asked)) continue;
    const P t = core::load<P>(c.depth + at);
    const Rays<P> rays = rays_of(c, column, row);
    const auto dark = in_between<type>(s, {rays.u * t, rays.v * t, -t}, d, P(INFINITY), asked);
    core::store(c.dark + at, select(asked & dark, P(1.0f), before));
  }
}

// x to a power, 0 for x <= 0; exponents are at least 0.
template <class P>
SDPG_INLINE P power(P x, float exponent) {
  if (exponent == 0) return select(x > 0.0f, P(1.0f), 0.0f);
  return core::keep(x > 0.0f, core::exp(core::log(max(x, 1e-30f)) * exponent));
}

// OpenGL's lighting of fixed function, as MuJoCo sets it up, at every pixel instead of every
// vertex.
template <class P>
SDPG_PART Colour<P> light_up(const Canvas<P>& c, const Surface<P>& surface) {
  const Geom& g = *surface.geom;
  const Vec3<P>&p = surface.p, &n = surface.n;
  const Frame& f = c.frame;
  P lit[3], shine[3];
  for (int i = 0; i < 3; ++i) {
    lit[i] = P(g.emission + f.global_ambient);
    shine[i] = P(0.0f);
  }
  for (int l = 0; l < f.lights; ++l) {
    const FrameLight& placed = f.light[l];
    const Light& light = *placed.light;
    Vec3<P> towards = all_lanes<P>(placed.towards);
    P strength = P(1.0f), distance = P(INFINITY);
    if (!light.directional) {
      const Vec3<P> to = all_lanes<P>(placed.pos) - p;
      const P square = max(dot(to, to), kSmallest);
      const P length = sqrt(square);
      distance = length;
      towards = to * (1.0f / length);
      strength = 1.0f / (P(light.attenuation[0]) + length * light.attenuation[1] +
                         square * light.attenuation[2]);
      if (light.cos_cutoff > -1) {
        const P inside = dot(placed.towards, towards);
        strength = core::keep(inside >= light.cos_cutoff, strength * power(inside, light.exponent));
      }
    }
    const P facing = max(dot(n, towards), 0.0f);
    if (placed.casts) {
      // MuJoCo's shadows swallow all of the light, its ambient part too.
      auto reached = surface.own & (facing > 0.0f);
      if (core::any(reached))
        reached = reached & (!shadowed(c, surface, reached, placed, towards, distance));
      if (!core::any(reached)) continue;
      strength = core::keep(reached, strength);
    }
    // The whole strength needs no product.
    const bool whole = light.directional && !placed.casts;
    for (int i = 0; i < 3; ++i) {
      const P more = P(light.ambient[i]) + facing * light.diffuse[i];
      lit[i] += whole ? more : strength * more;
    }
    const float *specular = light.specular,
                strongest = std::max({specular[0], specular[1], specular[2]});
    if (g.specular > 0 && strongest > 0 && core::any(facing > 0.0f)) {
      // Half way between the light and the eye.
      const Vec3<P> eye = p * (-1.0f / sqrt(max(dot(p, p), kSmallest)));
      const Vec3<P> sum = towards + eye;
      const P cosine = dot(n, sum) / sqrt(max(dot(sum, sum), kSmallest));
      const P bright = core::keep(facing > 0.0f, strength * power(cosine, g.exponent)) * g.specular;
      for (int i = 0; i < 3; ++i) shine[i] += bright * specular[i];
    }
  }
  const auto finish = [&](int i) { return min(lit[i] * g.albedo[i] + shine[i], 1.0f); };
  return {finish(0), finish(1), finish(2)};
}

// Of whole numbers.
template <class P>
SDPG_INLINE typename P::Bool is_odd(P x) {
  const P half = x * 0.5f;
  return floor(half) != half;
}

// Which of a checker's two colours: at (0+, 0+) the second, as MuJoCo lays its texture.
template <class P>
SDPG_INLINE typename P::Bool on_first(const float* squares, P x, P y) {
  return is_odd(floor(x * squares[0]) + floor(y * squares[1]));
}

// What a pixel shows, as frame.h packs it: bits of integers, which a pack carries unread.
template <class P>
SDPG_INLINE P packed(std::uint32_t rgb) {
  typename P::Integers all{};
  return core::from_integer_bits<P>(all + static_cast<std::int32_t>(rgb));
}
template <class P>
SDPG_INLINE P packed(const Colour<P>& colour) {
  const auto byte = [](P x) -> typename P::Integers {
    x = x * 255.0f + P(0.5f);
#if !defined(__CUDACC__)
    if constexpr (P::lanes > 1)
      return __builtin_convertvector(x.v, typename P::Integers);
    else
#endif
      return static_cast<std::int32_t>(x.v);
  };
  return core::from_integer_bits<P>(byte(colour.red) | byte(colour.green) << 8 |
                                    byte(colour.blue) << 16);
}

// Whether some of the pixels of a tile are inside.
template <class P>
SDPG_INLINE bool touches(const Canvas<P>& c, const ScreenBox& box, int column, int row) {
  return touches_row(c, box, row) &&
         box.left <= static_cast<float>((column + 1) * Tiles<P>::width - 1) &&
         box.right >= static_cast<float>(column * Tiles<P>::width);
}

// Of a plane on which all lights are alike, at (x, y) of its frame.
template <class P>
SDPG_INLINE P flat_colour(const Shape& s, const Geom& g, P x, P y, typename P::Bool dark) {
  const auto shade = [&](int k) {
    return select(dark, packed<P>(s.shaded[k]), packed<P>(s.flat[k]));
  };
  if (!g.checker) return shade(0);
  return select(on_first(g.squares, x, y), shade(0), shade(1));
}

// The canvas's arrays, and where in them a tile's numbers are.
struct Tile {
  const float *depth, *number, *triangle, *dark;
  int at;
};

template <class P>
SDPG_INLINE P colour_of_tile(const Canvas<P>& c, int column, int row, const Tile& tile) {
  const Frame& f = c.frame;
  const int at = tile.at;
  const float* numbers = tile.number + at;
  const P number = core::load<P>(numbers), t = core::load<P>(tile.depth + at);
  const Rays<P> rays = rays_of(c, column, row);
  Surface<P> surface;
  surface.number = number;
  surface.p = {rays.u * t, rays.v * t, -t};
  P out = packed<P>(f.background);
  const auto shape_of = [&](std::uint32_t lanes) -> const Shape& {
    return f.shape[static_cast<int>(numbers[lowest(lanes)])];
  };
  const auto local = [&](const Shape& s, int axis) {
    return t * rays.along(s.axes[axis]) + P(s.origin[axis]);
  };
  // Every look that some lane shows, in turn.
  for (std::uint32_t rest = core::bits(number >= 0.0f); rest != 0;) {
    const Shape& first = shape_of(rest);
    const Geom& g = *first.geom;
    surface.geom = &g;
    surface.own = number == numbers[lowest(rest)];
    if (first.is_flat &&
        !(f.shadows && first.light < 0 && touches(c, first.shadows, column, row))) {
      auto dark = core::no_lanes<P>();
      if (f.shadows && first.light >= 0) dark = core::load<P>(tile.dark + at) > 0.0f;
      out = select(surface.own, flat_colour(first, g, local(first, 0), local(first, 1), dark), out);
      rest &= ~core::bits(surface.own);
      continue;
    }
    P x = P(0.0f), y = P(0.0f);
    const auto add = [&](const Shape& s, typename P::Bool own, bool only) {
      with_type(s.geom->type, [&]<ShapeType type>() {
        const Vec3<P> place{local(s, 0), local(s, 1), local(s, 2)};
        Vec3<P> n;
        if constexpr (is_mesh(type))
          n = mesh_normal<P>(s, tile.triangle + at, core::bits(own));
        else
          n = normal<type>(s, surface.p, place);
        surface.n = only ? n
                         : Vec3<P>{select(own, n.x, surface.n.x), select(own, n.y, surface.n.y),
                                   select(own, n.z, surface.n.z)};
        x = place.x;
        y = place.y;
      });
      rest &= ~core::bits(own);
    };
    add(first, surface.own, true);
    for (std::uint32_t others = P::lanes > 1 ? rest : 0; others != 0;) {
      const Shape& s = shape_of(others);
      const auto own = number == numbers[lowest(others)];
      others &= ~core::bits(own);
      if (s.geom->look != g.look) continue;
      surface.own = surface.own | own;
      add(s, own, false);
    }
    if (f.shadows) bound(c, column, row, t, &surface);
    Colour<P> lit = light_up(c, surface);
    if (g.checker) {
      const auto on = on_first(g.squares, x, y);
      lit.red = lit.red * select(on, P(g.first[0]), P(g.second[0]));
      lit.green = lit.green * select(on, P(g.first[1]), P(g.second[1]));
      lit.blue = lit.blue * select(on, P(g.first[2]), P(g.second[2]));
    }
    out = select(surface.own, packed(lit), out);
  }
  return out;
}

// ---- pixels

#if !defined(__CUDACC__)

// Writes the part of a tile that lies in the picture, a value for every lane.
template <class P, class T>
SDPG_INLINE void write_tile(const Canvas<P>& c, int column, int row, const T* values,
                            unsigned char* plane) {
  constexpr int tile_width = Tiles<P>::width, tile_height = Tiles<P>::height;
  const int x = column * tile_width, y = row * tile_height;
  const std::size_t line = sizeof(T) * static_cast<std::size_t>(c.frame.width);
  unsigned char* to = plane + line * y + sizeof(T) * x;
  if (x + tile_width <= c.frame.width && y + tile_height <= c.frame.height) {
    for (int i = 0; i < tile_height; ++i)
      std::memcpy(to + line * i, values + i * tile_width, sizeof(T) * tile_width);
    return;
  }
  for (int i = 0; i < std::min(tile_height, c.frame.height - y); ++i)
    std::memcpy(to + line * i, values + i * tile_width,
                sizeof(T) * std::min(tile_width, c.frame.width - x));
}

// The first `count` bytes, below 16.
SDPG_INLINE void put(const unsigned char* from, int count, unsigned char* to) {
  const auto part = [&](std::size_t bytes) {
    std::memcpy(to, from, bytes);
    to += bytes;
    from += bytes;
  };
  if (count & 8) part(8);
  if (count & 4) part(4);
  if (count & 2) part(2);
  if (count & 1) part(1);
}

template <class T, int bytes>
struct Vector {
  typedef T type __attribute__((vector_size(bytes)));
};

// Colours of four pixels in a row become four bytes of each colour: red, green, blue, and nothing.
template <class P>
SDPG_INLINE typename P::Integers by_colour(P rgb) {
  using Bytes = typename Vector<unsigned char, 4 * P::lanes>::type;
  Bytes order;
  for (int i = 0; i < 4 * P::lanes; ++i)
    order[i] = static_cast<unsigned char>(i / 16 * 16 + i % 4 * 4 + i / 4 % 4);
  return (typename P::Integers)__builtin_shuffle((Bytes)rgb.v, order);
}

// The same numbers in another order: number i of the result is number at(i) of the pairs (a, b).
template <class I, class At>
SDPG_INLINE I mixed(I a, I b, const At& at) {
  I order;
  for (int i = 0; i < static_cast<int>(sizeof(I) / 4); ++i) order[i] = at(i);
  return __builtin_shuffle(a, b, order);
}

// Writes the colours of tiles, which lie where their numbers were.
template <class P>
SDPG_INLINE void write_colours(const Canvas<P>& c, int row, Span columns, unsigned char* pixels) {
  constexpr int lanes = P::lanes;
  const int width = c.frame.width, y = row * Tiles<P>::height;
  const std::size_t plane = static_cast<std::size_t>(width) * c.frame.height;
  unsigned char* const line = pixels + static_cast<std::size_t>(y) * width;
  if constexpr (lanes == 1) {
    for (int x = columns.first; x < columns.end; ++x)
      for (int k = 0; k < 3; ++k)
        line[k * plane + x] = static_cast<unsigned char>(
            core::integer_bits(core::load<P>(c.number + x)) >> (8 * k) & 255);
  } else {
    using Integers = typename P::Integers;
    const int lines = std::min(Tiles<P>::height, c.frame.height - y);
    // Four side by side: 16 bytes of each line.
    for (int first = columns.first; first < columns.end; first += 4) {
      Integers tile[4];
      for (int k = 0; k < 4; ++k)
        tile[k] = by_colour(core::load<P>(c.number + std::min(first + k, columns.end - 1) * lanes));
      // Within the four numbers of a line: red and green, or blue, of two tiles; then of four.
      const auto pair = [](Integers a, Integers b, int half) {
        return mixed(a, b, [&](int i) { return i / 4 * 4 + half + i % 4 / 2 + i % 2 * lanes; });
      };
      const auto four = [](Integers a, Integers b, int half) {
        return mixed(a, b, [&](int i) { return i / 4 * 4 + half + i % 2 + i % 4 / 2 * lanes; });
      };
      const Integers left = pair(tile[0], tile[1], 0), right = pair(tile[2], tile[3], 0);
      const Integers bytes[3] = {four(left, right, 0), four(left, right, 2),
                                 four(pair(tile[0], tile[1], 2), pair(tile[2], tile[3], 2), 0)};
      const int x = first * Tiles<P>::width;
      const int count = std::min(columns.end * Tiles<P>::width, width) - x;
      for (int k = 0; k < 3; ++k) {
        for (int i = 0; i < lines; ++i) {
          const auto* from = reinterpret_cast<const unsigned char*>(&bytes[k]) + 16 * i;
          unsigned char* const to = line + k * plane + static_cast<std::size_t>(i) * width + x;
          if (count >= 16)
            std::memcpy(to, from, 16);
          else
            put(from, count, to);
        }
      }
    }
  }
}

// Whether tiles without shapes and shadows show nothing but a single flat plane or the background.
inline bool is_plain(const Frame& f) {
  return f.planes == 0 || (f.planes == 1 && f.shape[0].is_flat);
}

// Writes the bytes of the next `lanes` pixels of a line, of which `count` lie in it.
template <class P>
SDPG_INLINE void write_strip(P rgb, int count, std::size_t plane, unsigned char* to) {
  constexpr int lanes = P::lanes;
  if constexpr (lanes == 1) {
    for (int k = 0; k < 3; ++k)
      to[k * plane] = static_cast<unsigned char>(core::integer_bits(rgb) >> (8 * k) & 255);
  } else {
    const auto sorted = by_colour(rgb);
    const auto bytes =
        mixed(sorted, sorted, [](int i) { return i % (lanes / 4) * 4 + i / (lanes / 4); });
    const auto* from = reinterpret_cast<const unsigned char*>(&bytes);
    for (int k = 0; k < 3; ++k) {
      if (count >= lanes)
        std::memcpy(to + k * plane, from + lanes * k, lanes);
      else
        put(from + lanes * k, count, to + k * plane);
    }
  }
}

// Without alignment.
template <class P>
SDPG_INLINE P load_anywhere(const float* p) {
  struct __attribute__((packed)) Anywhere {
    typename P::Vector v;
  };
  return P(reinterpret_cast<const Anywhere*>(p)->v);
}

// Plain ground along a line of pixels: an axis of its points is `plain` as the canvas has it, and
// what to add to that.
struct PlainLine {
  const float* plain[3];
  float rest[3];
};

// What is alike all along a line: nothing, that it shows the plane, the plane's depth as well, or
// of a plane whose x or y is across the view, that one too.
enum class Alike { kNothing, kSeen, kDepth, kAxis };

// Writes the colours of a line. With kAxis it is `across` of the plane's axes that changes.
template <Alike alike, class P>
SDPG_INLINE void write_line(const PlainLine line, const Frame& f, int across, unsigned char* to) {
  // Copies: for all that the compiler knows, the bytes written are those of the plane.
  const Shape& s = f.shape[0];
  const Geom& g = *s.geom;
  const Vec3<P> origin = all_lanes<P>(s.origin);
  const float size[2] = {g.size[0], g.size[1]}, squares[2] = {g.squares[0], g.squares[1]};
  const P first = packed<P>(s.flat[0]), second = packed<P>(s.flat[1]);
  const P background = packed<P>(f.background);
  const float near = f.near, far = f.far;
  const bool checker = g.checker;
  const int width = f.width;
  const std::size_t plane = static_cast<std::size_t>(width) * f.height;
  const float depth = -s.origin[2] / line.rest[2];
  const float changing = s.origin[across], changing_squares = squares[across];
  const int along = 1 - across;
  const float squares_along =
      std::floor((depth * line.rest[along] + s.origin[along]) * squares[along]);
  for (int start = 0; start < width; start += P::lanes) {
    const int x = std::max(std::min(start, width - P::lanes), 0);
    const auto at = [&](int k) { return load_anywhere<P>(line.plain[k] + x) + line.rest[k]; };
    P rgb = first;
    if constexpr (alike == Alike::kAxis) {
      const P place = at(across) * depth + changing;
      if (checker)
        rgb = select(is_odd(floor(place * changing_squares) + squares_along), first, second);
    } else {
      const Vec3<P> d{at(0), at(1), at(2)};
      const P t = alike == Alike::kDepth  ? P(depth)
                  : alike == Alike::kSeen ? -origin.z / d.z
                                          : hit_plane(origin, d, size);
      if (checker)
        rgb = select(on_first(squares, t * d.x + origin.x, t * d.y + origin.y), first, second);
      if (alike == Alike::kNothing) rgb = select((t >= near) & (t < far), rgb, background);
    }
    write_strip(rgb, width - x, plane, to + x);
  }
}

// Writes the colours of plain ground all over the picture.
template <class P>
SDPG_INLINE void write_plain(const Canvas<P>& c, unsigned char* pixels) {
  const Frame& f = c.frame;
  const std::size_t width = static_cast<std::size_t>(f.width), plane = width * f.height;
  const auto write_sky = [&](int from, int end) {
    for (int k = 0; k < 3; ++k)
      std::memset(pixels + k * plane + from * width,
                  static_cast<int>(f.background >> (8 * k) & 255), (end - from) * width);
  };
  if (f.planes == 0) return write_sky(0, f.height);
  const Shape& s = f.shape[0];
  const Geom& g = *s.geom;
  for (int x = 0; x < f.width + P::lanes; x += P::lanes) {
    const P u = (c.lane + P(static_cast<float>(x) + f.shift_x)) * f.scale;
    for (int k = 0; k < 3; ++k) core::store(c.plain[k] + x, u * s.axes[k][0]);
  }
  const bool is_level = s.axes[2][0] == 0;
  const int across = s.axes[0][0] == 0 ? 1 : 0;
  const bool is_straight = is_level && s.axes[1 - across][0] == 0;
  PlainLine line{{c.plain[0], c.plain[1], c.plain[2]}, {}};
  int sky = 0;  // lines from there on show nothing else
  for (int y = 0; y < f.height; ++y) {
    const float v = (static_cast<float>(y) + f.shift_y) * -f.scale;
    for (int k = 0; k < 3; ++k) line.rest[k] = v * s.axes[k][1] - s.axes[k][2];
    // Along a line the plane's depth rises or falls, and rays turn from the sky to it at most once.
    const float z[2] = {line.plain[2][0] + line.rest[2], line.plain[2][f.width - 1] + line.rest[2]};
    if (!(z[0] < 0) && !(z[1] < 0)) continue;
    if (sky < y) write_sky(sky, y);
    sky = y + 1;
    bool seen = z[0] < 0 && z[1] < 0 && !(g.size[0] > 0) && !(g.size[1] > 0);
    for (const float each : z)
      seen = seen && -s.origin[2] / each >= f.near && -s.origin[2] / each < f.far;
    unsigned char* const to = pixels + static_cast<std::size_t>(y) * width;
    if (!seen)
      write_line<Alike::kNothing, P>(line, f, across, to);
    else if (is_straight)
      write_line<Alike::kAxis, P>(line, f, across, to);
    else if (is_level)
      write_line<Alike::kDepth, P>(line, f, across, to);
    else
      write_line<Alike::kSeen, P>(line, f, across, to);
  }
  if (sky < f.height) write_sky(sky, f.height);
}

template <class P>
SDPG_INLINE void write_segmentation(const Canvas<P>& c, int row, int column,
                                    unsigned char* pixels) {
  const float* number = c.number + column * P::lanes;
  std::int32_t ids[P::lanes];
  for (int i = 0; i < P::lanes; ++i)
    ids[i] = number[i] < 0 ? -1 : c.frame.shape[static_cast<int>(number[i])].geom->id;
  write_tile(c, column, row, ids, pixels);
}

// ---- rows

inline constexpr int kWord = 64;
inline constexpr std::uint64_t kAllBits = ~std::uint64_t{0};

template <class P>
SDPG_INLINE void mark_busy(const Canvas<P>& c, Span columns) {
  for (int word = columns.first / kWord; word * kWord < columns.end; ++word) {
    const int from = std::max(columns.first - word * kWord, 0), to = columns.end - word * kWord;
    c.busy[word] |= kAllBits << from & (to < kWord ? ~(kAllBits << to) : kAllBits);
  }
}
// The first column from `from` on that is busy, or is not.
template <class P>
SDPG_INLINE int next_column(const Canvas<P>& c, int from, bool busy) {
  for (int word = from / kWord; word * kWord < c.columns; ++word, from = word * kWord) {
    const std::uint64_t bits = (busy ? c.busy[word] : ~c.busy[word]) & kAllBits << from % kWord;
    if (bits != 0) return std::min(word * kWord + __builtin_ctzll(bits), c.columns);
  }
  return c.columns;
}

// Notes which shapes but planes each row has.
template <class P>
SDPG_INLINE void find_present(const Canvas<P>& c) {
  const Frame& f = c.frame;
  std::memset(c.present, 0, sizeof(std::uint64_t) * static_cast<std::size_t>(c.rows * c.words));
  for (int i = f.planes; i < f.shapes; ++i) {
    const Span rows = rows_of(c, f.shape[i].ends);
    for (int row = rows.first; row < rows.end; ++row)
      c.present[row * c.words + i / kWord] |= std::uint64_t{1} << i % kWord;
  }
}
// Calls `work` with the number of each of them, in order.
template <class P, class Work>
SDPG_INLINE void each_present(const Canvas<P>& c, int row, const Work& work) {
  for (int word = 0; word < c.words; ++word)
    for (std::uint64_t rest = c.present[row * c.words + word]; rest != 0; rest &= rest - 1)
      work(word * kWord + __builtin_ctzll(rest));
}

// Finds the tiles of the row in which shapes and shadows may be; the number of shadows.
template <class P>
SDPG_INLINE int find_busy(const Canvas<P>& c, int row) {
  const Frame& f = c.frame;
  each_present(c, row, [&](int i) {
    c.shape_columns[i] = columns_of(c, f.shape[i].ends, row);
    mark_busy(c, c.shape_columns[i]);
  });
  int shadows = 0;
  for (int p = 0; f.shadows && p < f.planes; ++p) {
    const Shape& plane = f.shape[p];
    if (!plane.is_flat || !touches_row(c, plane.shadows, row)) continue;
    if (plane.light < 0) {
      mark_busy(c, tile_range(plane.shadows.left, plane.shadows.right, Tiles<P>::width, c.columns));
      continue;
    }
    for (int i = 0; i < f.shapes; ++i) {
      const ScreenBox *ends = plane.thrown[i], *last = ends + 1;
      const ScreenBox both{0, 0, std::min(ends->top, last->top),
                           std::max(ends->bottom, last->bottom)};
      if (!touches_row(c, both, row)) continue;
      const Span columns = columns_of(c, ends, row);
      if (columns.first >= columns.end) continue;
      mark_busy(c, columns);
      c.shadow[shadows++] = {p, i, columns};
    }
  }
  return shadows;
}

template <class P>
void draw_row(const Canvas<P>& c, Kind kind, bool plain, int row, unsigned char* pixels) {
  const Frame& f = c.frame;
  for (int word = 0; word * kWord < c.columns; ++word) c.busy[word] = plain ? 0 : kAllBits;
  const int shadows = find_busy(c, row);
  for (Span run{0, 0}; (run.first = next_column(c, run.end, true)) < c.columns;) {
    run.end = next_column(c, run.first, false);
    draw_ground(c, row, run);
  }
  each_present(c, row, [&](int i) {
    with_type(f.shape[i].geom->type,
              [&]<ShapeType type>() { draw_shape<type>(c, i, row, c.shape_columns[i]); });
  });
  for (int i = 0; i < shadows && kind == Kind::kRgb; ++i) {
    const auto& [plane, caster, columns] = c.shadow[i];
    const Shape& s = f.shape[caster];
    const Vec3<P> towards = all_lanes<P>(f.light[f.shape[plane].light].towards);
    with_type(s.geom->type, [&]<ShapeType type>() {
      draw_shadow<type>(c, P(static_cast<float>(plane)), s, towards, row, columns);
    });
  }
  for (Span run{0, 0}; (run.first = next_column(c, run.end, true)) < c.columns;) {
    run.end = next_column(c, run.first, false);
    for (int column = run.first; column < run.end; ++column) {
      if (kind == Kind::kRgb)
        core::store(c.number + column * P::lanes,
                    colour_of_tile(c, column, row,
                                   {c.depth, c.number, c.triangle, c.dark, column * P::lanes}));
      else if (kind == Kind::kDepth)
        write_tile(c, column, row, c.depth + column * P::lanes, pixels);
      else
        write_segmentation(c, row, column, pixels);
    }
    if (kind == Kind::kRgb) write_colours(c, row, run, pixels);
  }
}

#endif

// The random words of four pixels' noise, from pixel 4 * block on.
SDPG_INLINE void noise_words(const NoiseKey& key, std::uint32_t block, std::uint32_t words[4]) {
  const std::uint32_t counter[4] = {block | batch::kDepthNoise, key.environment,
                                    static_cast<std::uint32_t>(key.picture),
                                    static_cast<std::uint32_t>(key.picture >> 32)};
  batch::philox(counter, key.seed, words);
}
// Uniform in [-amplitude, amplitude), then the clip.
SDPG_INLINE float noisy(const Frame& f, float depth, float amplitude, std::uint32_t word) {
  depth += (2 * batch::uniform(word) - 1) * amplitude;
  return std::clamp(depth, f.near, f.far);
}

#if !defined(__CUDACC__)
// Value i mod 4 of block i / 4 for pixel i.
inline void add_noise(const Frame& f, const NoiseKey& key, float amplitude, unsigned char* pixels) {
  const std::size_t count = static_cast<std::size_t>(f.width) * f.height;
  std::uint32_t words[4];
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 4 == 0) noise_words(key, static_cast<std::uint32_t>(i / 4), words);
    float depth;
    std::memcpy(&depth, pixels + 4 * i, 4);
    depth = noisy(f, depth, amplitude, words[i % 4]);
    std::memcpy(pixels + 4 * i, &depth, 4);
  }
}

// ---- the table

// What the passes need beside make_frame()'s memory, in bytes.
template <class P>
struct Needs {
  std::size_t tiles;  // one array of a row of tiles
  std::size_t arrays, line, words, present, spans, shadows, busy;
  Needs(const Scene& scene, const View& view) {
    const auto up = [](std::size_t n, std::size_t to) { return (n + to - 1) / to * to; };
    const std::size_t columns = up(view.width, Tiles<P>::width) / Tiles<P>::width;
    tiles = up(columns * P::lanes * sizeof(float), 64);
    arrays = 2 + !scene.meshes.empty() + view.shadows;
    line = up((view.width + P::lanes) * sizeof(float), 64);
    spans = up(scene.geoms.size() * sizeof(Span), 64);
    const std::size_t rows = up(view.height, Tiles<P>::height) / Tiles<P>::height;
    words = up(scene.geoms.size(), 64) / 64;
    present = up(rows * words * 8, 64);
    std::size_t planes = 0;
    while (planes < scene.geoms.size() && scene.geoms[planes].type == kPlane) ++planes;
    shadows = up(view.shadows ? planes * scene.geoms.size() * sizeof(Shadow) : 0, 64);
    busy = up(up(columns, 64) / 8, 64);
  }
  std::size_t bytes() const { return arrays * tiles + 3 * line + present + spans + shadows + busy; }
};

template <class P>
std::size_t scratch_bytes(const Scene& scene, const View& view) {
  return frame_memory(scene) + Needs<P>(scene, view).bytes();
}

template <class P>
void draw(const Scene& scene, const View& view, const float* pose, const NoiseKey& key,
          void* pixels, void* scratch, bool cull) {
  Canvas<P> c;
  c.columns = (view.width + Tiles<P>::width - 1) / Tiles<P>::width;
  c.rows = (view.height + Tiles<P>::height - 1) / Tiles<P>::height;
  const Needs<P> needs(scene, view);
  unsigned char* memory = static_cast<unsigned char*>(scratch);
  make_frame(scene, view, pose, memory, cull, &c.frame);
  memory += frame_memory(scene);
  const auto take = [&](std::size_t bytes) { return std::exchange(memory, memory + bytes); };
  const auto numbers = [&] { return reinterpret_cast<float*>(take(needs.tiles)); };
  c.depth = numbers();
  c.number = numbers();
  c.triangle = scene.meshes.empty() ? nullptr : numbers();
  c.dark = view.shadows ? numbers() : nullptr;
  c.present = reinterpret_cast<std::uint64_t*>(take(needs.present));
  c.words = static_cast<int>(needs.words);
  c.shape_columns = reinterpret_cast<Span*>(take(needs.spans));
  c.shadow = reinterpret_cast<Shadow*>(take(needs.shadows));
  c.busy = reinterpret_cast<std::uint64_t*>(take(needs.busy));
  for (float*& plain : c.plain) plain = reinterpret_cast<float*>(take(needs.line));
  for (int i = 0; i < P::lanes; ++i) {
    core::set_lane(c.lane, i, static_cast<float>(i));
    core::set_lane(c.lane_x, i, static_cast<float>(i % Tiles<P>::width));
    core::set_lane(c.lane_y, i, static_cast<float>(i / Tiles<P>::width));
  }
  find_present(c);
  const bool plain = view.kind == Kind::kRgb && is_plain(c.frame);
  unsigned char* out = static_cast<unsigned char*>(pixels);
  if (plain) write_plain(c, out);
  for (int row = 0; row < c.rows; ++row) draw_row(c, view.kind, plain, row, out);
  if (view.kind == Kind::kDepth && view.depth_noise > 0)
    add_noise(c.frame, key, view.depth_noise, out);
}

template <class P, bool cull>
void table_draw(const Scene& scene, const View& view, const float* pose, const NoiseKey& key,
                void* pixels, void* scratch) {
  draw<P>(scene, view, pose, key, pixels, scratch, cull);
}

template <class P, bool cull = true>
constexpr Renderer make_renderer(const char* isa) {
  return {isa, P::lanes, scratch_bytes<P>, table_draw<P, cull>};
}
#endif

SDPG_ISA_END
}  // namespace sdpg::render
