// What the narrow phases work with: shapes as packs (all lanes of a block) or as plain numbers (one
// lane), and the touches they find. A pack routine handles all lanes at once; a branchy one is
// written for plain numbers and called for the lanes that passed its cheap test.
//
// All normals point from the first shape to the second, distances are negative inside, positions
// lie midway between the two surfaces, as in MuJoCo
// (https://mujoco.readthedocs.io/en/stable/computation/index.html#collision-detection).
#pragma once

#include "core/spatial.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Most touches of any pair: MuJoCo's mjMAXCONPAIR, reached by height fields only.
inline constexpr int kMostTouches = 50;

// Length below which a direction is noise.
template <class T>
inline constexpr T kNoDirection = sizeof(T) == 4 ? T(1e-6) : T(1e-15);

// a / |a|, or `otherwise` where |a| is noise. Returns the length.
template <class P>
SDPG_INLINE P normalize(Vec3<P>* a, const Vec3<P>& otherwise) {
  using T = typename P::Scalar;
  const P length = sqrt(dot(*a, *a));
  const auto short_ = length < kNoDirection<T>;
  const P inverse = T(1) / select(short_, T(1), length);
  *a = select(short_, otherwise, *a * inverse);
  return length;
}

template <class P>
SDPG_INLINE Vec3<P> unit_x() {
  using T = typename P::Scalar;
  return {P(T(1)), P(T(0)), P(T(0))};
}

// m' a for a row-major 3x3 matrix; packs or plain numbers.
template <class X>
SDPG_INLINE Vec3<X> rotate_back(const X* m, const Vec3<X>& a) {
  return {m[0] * a.x + m[3] * a.y + m[6] * a.z, m[1] * a.x + m[4] * a.y + m[7] * a.z,
          m[2] * a.x + m[5] * a.y + m[8] * a.z};
}
template <class X>
SDPG_INLINE Vec3<X> column(const X* m, int k) {
  return {m[k], m[3 + k], m[6 + k]};
}

// A geom in the world. `matrix` is null for spheres and capsules, which need `axis` only.
template <class P>
struct Shape {
  using T = typename P::Scalar;
  Vec3<P> position, axis;
  const P* matrix;  // [9] row-major; its third column is the axis
  const T* size;    // [3] MuJoCo's geom_size
};

template <class P>
struct Touch {
  P distance;
  Vec3<P> position, normal;
};

template <class P>
SDPG_INLINE Touch<P> select(typename P::Bool mask, const Touch<P>& a, const Touch<P>& b) {
  return {select(mask, a.distance, b.distance), select(mask, a.position, b.position),
          select(mask, a.normal, b.normal)};
}

// The touches of one pair. The n-th touch of a lane is in slot n, so that lanes share slots and the
// order within a lane does not depend on the others.
template <class P>
struct Touches {
  using T = typename P::Scalar;
  using Bool = typename P::Bool;
  int count = 0;
  std::uint32_t overflow = 0;  // lanes in which more touched than there is room for
  Bool present[kMostTouches];
  Touch<P> touch[kMostTouches];

  // Adds a touch in `lanes`; `most` slots may be used.
  SDPG_FN void add(const Touch<P>& found, Bool lanes, int most) {
    for (int slot = 0; slot < count; ++slot) {
      if (!any(lanes)) return;
      const Bool here = lanes & !present[slot];
      if (!any(here)) continue;
      touch[slot] = select(here, found, touch[slot]);
      present[slot] = present[slot] | here;
      lanes = lanes & !here;
    }
    if (!any(lanes)) return;
    if (count == most) {
      overflow |= bits(lanes);
      return;
    }
    present[count] = lanes;
    touch[count++] = found;
  }
};

// ---- one lane
// -------------------------------------------------------------------------------------

template <class T>
struct Solid {
  Vec3<T> position;
  T matrix[9];  // of a shape without matrix only the third column, its axis
  T size[3];
};

template <class T>
struct Point {
  T distance;
  Vec3<T> position, normal;
};

template <class T>
SDPG_INLINE T smaller(T a, T b) {
  return a < b ? a : b;
}
template <class T>
SDPG_INLINE T larger(T a, T b) {
  return a > b ? a : b;
}
template <class T>
SDPG_INLINE T clip(T x, T low, T high) {
  return x < low ? low : x > high ? high : x;
}
template <class T>
SDPG_INLINE T magnitude(T x) {
  return x < T(0) ? -x : x;
}
template <class T>
SDPG_INLINE T length(const Vec3<T>& a) {
  return scalar_sqrt(dot(a, a));
}

template <class P>
SDPG_INLINE Vec3<typename P::Scalar> lane_of(const Vec3<P>& a, int lane) {
  return {a.x[lane], a.y[lane], a.z[lane]};
}
template <class P>
SDPG_FN Solid<typename P::Scalar> lane_of(const Shape<P>& shape, int lane) {
  Solid<typename P::Scalar> out{};
  out.position = lane_of(shape.position, lane);
  for (int k = 0; k < 3; ++k) out.size[k] = shape.size[k];
  if (shape.matrix != nullptr) {
    for (int i = 0; i < 9; ++i) out.matrix[i] = shape.matrix[i][lane];
  } else {
    out.matrix[2] = shape.axis.x[lane];
    out.matrix[5] = shape.axis.y[lane];
    out.matrix[8] = shape.axis.z[lane];
  }
  return out;
}

template <class P>
SDPG_INLINE void set_lane(Touch<P>& touch, int lane, const Point<typename P::Scalar>& from) {
  set_lane(touch.distance, lane, from.distance);
  set_lane(touch.position.x, lane, from.position.x);
  set_lane(touch.position.y, lane, from.position.y);
  set_lane(touch.position.z, lane, from.position.z);
  set_lane(touch.normal.x, lane, from.normal.x);
  set_lane(touch.normal.y, lane, from.normal.y);
  set_lane(touch.normal.z, lane, from.normal.z);
}

// Calls find(first, second, points), which returns how many touches there are, for each of the
// lanes and puts its first `most` points into the slots. `points` holds kMostTouches.
template <class P, class Find>
SDPG_FN void for_lanes(const Shape<P>& a, const Shape<P>& b, std::uint32_t lanes, int most_points,
                       Touches<P>& out, const Find& find) {
  using T = typename P::Scalar;
  std::uint32_t have[kMostTouches];
  for (int lane = 0; lanes != 0; ++lane, lanes >>= 1) {
    if (!(lanes & 1)) continue;
    Point<T> points[kMostTouches];
    int n = find(lane_of(a, lane), lane_of(b, lane), points);
    if (n > most_points) {
      out.overflow |= 1u << lane;
      n = most_points;
    }
    for (; out.count < n; ++out.count) {
      const P zero = P(T(0));
      out.touch[out.count] = {zero, {zero, zero, zero}, {zero, zero, zero}};
      have[out.count] = 0;
    }
    for (int i = 0; i < n; ++i) {
      set_lane(out.touch[i], lane, points[i]);
      have[i] |= 1u << lane;
    }
  }
  for (int i = 0; i < out.count; ++i) out.present[i] = from_bits<P>(have[i]);
}

SDPG_ISA_END
}  // namespace sdpg::core
