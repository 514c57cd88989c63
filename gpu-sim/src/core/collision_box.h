// Narrow phases of boxes with spheres, capsules and boxes. The sphere's is a closed form over
// packs; the two others decide case by case, so their decisions are taken lane by lane. Which of
// the many possible touches make up a contact follows MuJoCo 3.14 (measured against it in
// test/parity/collision.test.ts).
#pragma once

#include "core/collision_shapes.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// ---- sphere
// -----------------------------------------------------------------------------------------

// A sphere with `center` in the box's frame.
template <class P>
SDPG_FN Touch<P> touch_box(const Shape<P>& box, const Vec3<P>& center, P radius) {
  using T = typename P::Scalar;
  const P zero = P(T(0)), one = P(T(1)), half = P(T(0.5));
  const P hx = P(box.size[0]), hy = P(box.size[1]), hz = P(box.size[2]);
  const Vec3<P> nearest = {max(min(center.x, hx), -hx), max(min(center.y, hy), -hy),
                           max(min(center.z, hz), -hz)};
  Vec3<P> normal = nearest - center;
  const P outside = sqrt(dot(normal, normal));
  const auto within = outside < kNoDirection<T>;
  normal = normal * (one / select(within, one, outside));
  Touch<P> touch;
  touch.distance = outside - radius;
  touch.position = (nearest + center + normal * radius) * half;
  if (any(within)) {
    // Through the nearest face; the first of -x, +x, -y, ... if there are several.
    P depth = abs(hx + center.x);
    Vec3<P> inward = {one, zero, zero};
    const auto consider = [&](P candidate, const Vec3<P>& direction) {
      const auto better = candidate < depth;
      depth = select(better, candidate, depth);
      inward = select(better, direction, inward);
    };
    consider(abs(hx - center.x), {-one, zero, zero});
    consider(abs(hy + center.y), {zero, one, zero});
    consider(abs(hy - center.y), {zero, -one, zero});
    consider(abs(hz + center.z), {zero, zero, one});
    consider(abs(hz - center.z), {zero, zero, -one});
    normal = select(within, inward, normal);
    touch.distance = select(within, -depth - radius, touch.distance);
    touch.position = select(within, center + inward * ((radius - depth) * half), touch.position);
  }
  touch.position = box.position + rotate(box.matrix, touch.position);
  touch.normal = rotate(box.matrix, normal);
  return touch;
}

template <class P>
SDPG_FN void sphere_box(const Shape<P>& sphere, const Shape<P>& box, typename P::Scalar reach,
                        Touches<P>& out) {
  const Vec3<P> center = rotate_back(box.matrix, sphere.position - box.position);
  const Touch<P> touch = touch_box(box, center, P(sphere.size[0]));
  out.add(touch, touch.distance < reach, 1);
}

// ---- capsule
// ----------------------------------------------------------------------------------------

// Where on a capsule's axis its spheres touch a box: center + t half_axis for t in [-1, 1].
template <class T>
struct AxisPoints {
  T nearest;
  T second;  // only if there is one
  bool has_second;
};

// What of the box and of the axis is nearest.
enum class NearestPart { kNone, kEnd, kEdge, kCorner };

// `center` and `half_axis` in the box's frame. The second point is as far along the axis from the
// nearest one as the axis stays above the face or edge that the capsule leans on.
template <class T>
SDPG_RARE AxisPoints<T> capsule_on_box(const T* center, const T* half_axis, T half_length,
                                       const T* box) {
  constexpr T huge = T(1e30);
  constexpr bool single = sizeof(T) == 4;
  NearestPart part = NearestPart::kNone;
  T best = huge, t = T(0), on_edge = T(0);
  int face = -1, corner = 0, edge = 0;

  // An end of the axis above a face, or inside.
  for (int end = -1; end <= 1; end += 2) {
    T square = T(0);
    int outside = 0, beyond = -1;
    for (int k = 0; k < 3; ++k) {
      const T x = center[k] + T(end) * half_axis[k];
      const T excess = magnitude(x) - box[k];
      if (!(excess > T(0))) continue;
      ++outside;
      beyond = k;
      square += excess * excess;
    }
    if (outside > 1 || !(square < best)) continue;
    part = NearestPart::kEnd;
    best = square;
    t = T(end);
    face = beyond;
  }

  // The axis against each edge: corner(i) with coordinate k free, at x box[k] for x in [-1, 1].
  for (int k = 0; k < 3; ++k)
    for (int i = 0; i < 8; ++i) {
      if (i >> k & 1) continue;
      T from[3];  // the middle of the edge, seen from the capsule's centre
      for (int c = 0; c < 3; ++c)
        from[c] = (c == k ? T(0) : i >> c & 1 ? box[c] : -box[c]) - center[c];
      const T ee = box[k] * box[k], ea = -box[k] * half_axis[k], aa = half_length * half_length;
      const T u = -box[k] * from[k];
      const T v = half_axis[0] * from[0] + half_axis[1] * from[1] + half_axis[2] * from[2];
      const T determinant = ee * aa - ea * ea;
      if (magnitude(determinant) < (single ? T(1e-6) * ee * aa : T(1e-15))) continue;
      T x = (aa * u - ea * v) / determinant, y = (ee * v - ea * u) / determinant;
      // The end of the edge that x was moved to, if any: it names the corner even where clipping y
      // moves x back inside.
      int moved_to = 0;
      if (magnitude(x) > T(1)) {
        moved_to = x > T(1) ? 1 : -1;
        x = T(moved_to);
        y = (v - ea * x) / aa;
      }
      if (magnitude(y) > T(1)) {
        y = clip(y, T(-1), T(1));
        x = (u - ea * y) / ee;
        if (magnitude(x) > T(1)) {
          moved_to = x > T(1) ? 1 : -1;
          x = T(moved_to);
        }
      }
      T square = T(0);
      for (int c = 0; c < 3; ++c) {
        const T gap = from[c] - y * half_axis[c] + (c == k ? x * box[k] : T(0));
        square += gap * gap;
      }
      // A tie within rounding is left to what was found first.
      if (!(square < (single ? best * T(1 - 1e-6) : best - T(1e-15)))) continue;
      part = moved_to != 0 ? NearestPart::kCorner : NearestPart::kEdge;
      best = square;
      t = y;
      on_edge = x;
      edge = k;
      corner = i + (moved_to > 0 ? 1 << k : 0);
    }

  AxisPoints<T> out{t, T(0), false};
  int heading = 0;  // octant into which the axis points
  for (int k = 0; k < 3; ++k) heading |= (half_axis[k] > T(0) ? 1 : 0) << k;
  // Distance along the axis, in half lengths, over which coordinate k changes by 2 box[k] * share.
  const auto across = [&](int k, T share) {
    return T(2) * box[k] * share / magnitude(half_axis[k]);
  };

  if (part == NearestPart::kCorner) {
    int differ = heading ^ corner;
    if (differ == 0 || differ == 7) return out;  // straight to or away from the corner
    const bool one_differs = differ == 1 || differ == 2 || differ == 4;
    if (!one_differs) differ = 7 - differ;
    const T sign = one_differs ? T(1) : T(-1);
    const int k = differ == 1 ? 0 : differ == 2 ? 1 : 2;
    out.has_second = true;
    if (half_axis[k] * half_axis[k] > T(0.5) * half_length * half_length) {
      out.second = sign * smaller(T(1) - sign * t, across(k, T(1)));  // along the edge
    } else {
      const T over = smaller(across((k + 1) % 3, T(1)), across((k + 2) % 3, T(1)));
      out.second = -sign * smaller(T(1) + sign * t, over);  // across the face
    }
  } else if (part == NearestPart::kEdge) {
    const int differ = (heading ^ corner) & ~(1 << edge);
    if (differ != 1 && differ != 2 && differ != 4) return out;  // like a T, not like an X
    const int k1 = (edge + 1) % 3, k2 = (edge + 2) % 3;
    // The face that the capsule makes the smaller angle with extends along `k`.
    const int k = magnitude(half_axis[k1]) > magnitude(half_axis[k2]) ? k1 : k2;
    const bool forward = differ >> k & 1;
    const T sign = forward ? T(1) : T(-1);
    const bool to_upper = ((heading >> edge & 1) != 0) == forward;
    T second = smaller(T(1) - sign * t, across(k, T(1)));
    second = smaller(second, across(edge, T(0.5) * (to_upper ? T(1) - on_edge : T(1) + on_edge)));
    out.second = sign * second;
    out.has_second = true;
  } else if (part == NearestPart::kEnd) {
    if (face < 0) return out;  // that end is inside
    const T sign = -t;
    T second = T(2);
    for (int k = 0; k < 3; ++k) {
      if (k == face) continue;
      const T start = center[k] + t * half_axis[k];
      for (int side = -1; side <= 1; side += 2) {
        const T leaves = (T(-side) * box[k] - start) / half_axis[k] * sign;
        if (leaves > T(0) && leaves < second) second = leaves;
      }
    }
    out.second = sign * second;
    out.has_second = true;
  } else {
    return out;
  }
  out.second += t;
  return out;
}

template <class P>
SDPG_FN void capsule_box(const Shape<P>& capsule, const Shape<P>& box, typename P::Scalar reach,
                         Touches<P>& out) {
  using T = typename P::Scalar;
  const P radius = P(capsule.size[0]);
  const Vec3<P> center = rotate_back(box.matrix, capsule.position - box.position);
  const Vec3<P> axis = rotate_back(box.matrix, capsule.axis * P(capsule.size[1]));
  // Lanes in which the capsule comes near the box along the box's axes.
  const P far = radius + reach;
  std::uint32_t lanes = bits((abs(center.x) - abs(axis.x) - P(box.size[0]) < far) &
                             (abs(center.y) - abs(axis.y) - P(box.size[1]) < far) &
                             (abs(center.z) - abs(axis.z) - P(box.size[2]) < far));
  if (lanes == 0) return;
  const std::uint32_t first = lanes;
  std::uint32_t second = 0;
  P t1 = P(T(0)), t2 = P(T(0));
  for (int lane = 0; lanes != 0; ++lane, lanes >>= 1) {
    if (!(lanes & 1)) continue;
    const T c[3] = {center.x[lane], center.y[lane], center.z[lane]};
    const T h[3] = {axis.x[lane], axis.y[lane], axis.z[lane]};
    const AxisPoints<T> points = capsule_on_box(c, h, capsule.size[1], box.size);
    set_lane(t1, lane, points.nearest);
    set_lane(t2, lane, points.second);
    if (points.has_second) second |= 1u << lane;
  }
  const Touch<P> near = touch_box(box, center + axis * t1, radius);
  out.add(near, from_bits<P>(first) & (near.distance < reach), 2);
  if (second == 0) return;
  const Touch<P> other = touch_box(box, center + axis * t2, radius);
  out.add(other, from_bits<P>(second) & (other.distance < reach), 2);
}

// ---- box
// --------------------------------------------------------------------------------------------

inline constexpr int kBoxBoxTouches = 8;
inline constexpr int kClippedVertices =
    12;  // 4, one more for each of 4 cuts, and room for rounding

// Cuts the polygon by sign * vertex[coordinate] <= limit (Sutherland and Hodgman); the third
// coordinate is carried along.
template <class T>
SDPG_FN int cut_polygon(T (*polygon)[3], int n, int coordinate, T sign, T limit) {
  T from[kClippedVertices][3], over[kClippedVertices];
  bool all_inside = true;
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < 3; ++k) from[i][k] = polygon[i][k];
    over[i] = sign * from[i][coordinate] - limit;
    all_inside = all_inside && over[i] <= T(0);
  }
  if (all_inside) return n;
  int count = 0;
  for (int i = 0; i < n; ++i) {
    const int next = i + 1 == n ? 0 : i + 1;
    if (over[i] <= T(0) && count < kClippedVertices) {
      for (int k = 0; k < 3; ++k) polygon[count][k] = from[i][k];
      ++count;
    }
    if ((over[i] < T(0)) == (over[next] < T(0)) || over[i] == over[next]) continue;
    if (count == kClippedVertices) continue;
    const T share = over[i] / (over[i] - over[next]);
    for (int k = 0; k < 3; ++k)
      polygon[count][k] = from[i][k] + share * (from[next][k] - from[i][k]);
    ++count;
  }
  return count;
}

// The axis along which two boxes are farthest apart, or overlap least.
template <class T>
struct SeparatingAxis {
  T separation;
  int code;  // 0 ... 2 an axis of the first box, 3 ... 5 of the second, 6 + 3 i + j edges i and j
};

// One touch where two edges cross. r maps the second box's frame to the first's, `offset` is its
// centre there.
template <class T>
SDPG_FN int touch_edges(const Solid<T>& a, const Solid<T>& b, const T* r, const T* offset, int i,
                        int j, T reach, Point<T>* out) {
  constexpr bool single = sizeof(T) == 4;
  const int i1 = (i + 1) % 3, i2 = (i + 2) % 3, j1 = (j + 1) % 3, j2 = (j + 2) % 3;
  T axis[3];
  axis[i] = T(0);
  axis[i1] = -r[3 * i2 + j];
  axis[i2] = r[3 * i1 + j];
  T scale = T(1) / scalar_sqrt(axis[i1] * axis[i1] + axis[i2] * axis[i2]);
  if (axis[i1] * offset[i1] + axis[i2] * offset[i2] < T(0)) scale = -scale;
  axis[i1] *= scale;
  axis[i2] *= scale;
  T seen[3];  // the axis in the second box's frame
  for (int k = 0; k < 3; ++k) seen[k] = axis[0] * r[k] + axis[1] * r[3 + k] + axis[2] * r[6 + k];

  // The supporting edges are at the corners the axis points to. Where a component vanishes two
  // edges of a face support it: both are tried, and the nearest pair of points counts.
  constexpr T unclear = single ? T(1e-5) : T(1e-9);
  const int either1 = magnitude(axis[i1]) < unclear ? i1 : magnitude(axis[i2]) < unclear ? i2 : -1;
  const int either2 = magnitude(seen[j1]) < unclear ? j1 : magnitude(seen[j2]) < unclear ? j2 : -1;
  const Vec3<T> along2 = {r[j], r[3 + j], r[6 + j]};
  const T cosine = r[3 * i + j], sine_square = T(1) - cosine * cosine;
  T best = T(1e30);
  Vec3<T> near1{}, near2{};
  for (int option = 0; option < 4; ++option) {
    const bool flip1 = option & 1, flip2 = option & 2;
    if ((flip1 && either1 < 0) || (flip2 && either2 < 0)) continue;
    T corner1[3], corner2[3];
    corner1[i] = corner2[j] = T(0);
    corner1[i1] = axis[i1] >= T(0) ? a.size[i1] : -a.size[i1];
    corner1[i2] = axis[i2] >= T(0) ? a.size[i2] : -a.size[i2];
    corner2[j1] = seen[j1] >= T(0) ? -b.size[j1] : b.size[j1];
    corner2[j2] = seen[j2] >= T(0) ? -b.size[j2] : b.size[j2];
    if (flip1) corner1[either1] = -corner1[either1];
    if (flip2) corner2[either2] = -corner2[either2];
    const Vec3<T> from1 = load3(corner1), from2 = rotate(r, load3(corner2)) + load3(offset);
    // Nearest points of the two segments; each clip settles the other parameter anew.
    const Vec3<T> between = from2 - from1;
    const T between1 = i == 0 ? between.x : i == 1 ? between.y : between.z;
    const T between2 = dot(along2, between);
    T s = sine_square < (single ? T(1e-6) : T(1e-15))
              ? T(0)
              : (between1 - cosine * between2) / sine_square;
    s = clip(s, -a.size[i], a.size[i]);
    const T t = clip(cosine * s - between2, -b.size[j], b.size[j]);
    s = clip(between1 + cosine * t, -a.size[i], a.size[i]);
    corner1[i] = s;
    const Vec3<T> p1 = load3(corner1), p2 = from2 + along2 * t;
    const T square = dot(p2 - p1, p2 - p1);
    if (!(square < best)) continue;
    best = square;
    near1 = p1;
    near2 = p2;
  }
  const Vec3<T> direction = load3(axis);
  out->distance = dot(near2 - near1, direction);
  if (!(out->distance < reach)) return 0;
  out->normal = rotate(a.matrix, direction);
  out->position = a.position + rotate(a.matrix, (near1 + near2) * T(0.5));
  return 1;
}

// Touches where a face of one box meets the other: the face of the other box that is turned to it,
// cut to its outline. r maps the other box's frame to that of the face's owner, `offset` is its
// centre there; `outward` is 1 if the owner is the first box, else -1.
template <class T>
SDPG_FN int touch_face(const Solid<T>& owner, const Solid<T>& other, const T* r, const T* offset,
                       int face, T outward, T reach, Point<T>* out) {
  const int x = (face + 1) % 3, y = (face + 2) % 3;
  const T side = offset[face] >= T(0) ? T(1) : T(-1);
  int turned = 0;
  for (int k = 1; k < 3; ++k)
    if (magnitude(r[3 * face + k]) > magnitude(r[3 * face + turned])) turned = k;
  const T toward = side * r[3 * face + turned] > T(0) ? T(-1) : T(1);
  const int u = (turned + 1) % 3, v = (turned + 2) % 3;

  // Corners as (x, y, height above the face).
  T polygon[kClippedVertices][3];
  const int row[3] = {x, y, face};
  for (int k = 0; k < 3; ++k) {
    const T* axes = r + 3 * row[k];
    const T sign = k == 2 ? side : T(1);
    const T middle = sign * (offset[row[k]] + toward * other.size[turned] * axes[turned]) -
                     (k == 2 ? owner.size[face] : T(0));
    const T du = sign * other.size[u] * axes[u], dv = sign * other.size[v] * axes[v];
    polygon[0][k] = middle + du + dv;
    polygon[1][k] = middle - du + dv;
    polygon[2][k] = middle - du - dv;
    polygon[3][k] = middle + du - dv;
  }
  int n = 4;
  n = cut_polygon(polygon, n, 0, T(1), owner.size[x]);
  n = cut_polygon(polygon, n, 0, T(-1), owner.size[x]);
  n = cut_polygon(polygon, n, 1, T(1), owner.size[y]);
  n = cut_polygon(polygon, n, 1, T(-1), owner.size[y]);

  // Those low enough, without the doubles that cuts through a corner leave.
  const T apart = (sizeof(T) == 4 ? T(1e-10) : T(1e-14)) *
                  (owner.size[x] * owner.size[x] + owner.size[y] * owner.size[y]);
  T kept[kClippedVertices][3];
  int count = 0;
  for (int i = 0; i < n; ++i) {
    if (!(polygon[i][2] < reach)) continue;
    bool twice = false;
    for (int q = 0; q < count; ++q) {
      const T dx = kept[q][0] - polygon[i][0], dy = kept[q][1] - polygon[i][1];
      twice = twice || dx * dx + dy * dy < apart;
    }
    if (twice) continue;
    for (int k = 0; k < 3; ++k) kept[count][k] = polygon[i][k];
    ++count;
  }
  if (count > kBoxBoxTouches) count = kBoxBoxTouches;  // only rounding makes more of them
  const Vec3<T> normal = column(owner.matrix, face) * (side * outward);
  for (int i = 0; i < count; ++i) {
    const T* vertex = kept[i];
    T local[3];
    local[x] = vertex[0];
    local[y] = vertex[1];
    local[face] = side * (owner.size[face] + T(0.5) * vertex[2]);
    out[i].distance = vertex[2];
    out[i].position = owner.position + rotate(owner.matrix, load3(local));
    out[i].normal = normal;
  }
  return count;
}

template <class T>
SDPG_RARE int box_box_lane(const Solid<T>& a, const Solid<T>& b, T reach, Point<T>* out) {
  constexpr bool single = sizeof(T) == 4;
  T r[9], back[9], offset[3], offset_back[3];
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      back[3 * j + i] = r[3 * i + j] = dot(column(a.matrix, i), column(b.matrix, j));
  const Vec3<T> apart = b.position - a.position;
  store3(offset, rotate_back(a.matrix, apart));
  store3(offset_back, rotate_back(b.matrix, Vec3<T>{-apart.x, -apart.y, -apart.z}));

  // Faces: along an axis of either box.
  SeparatingAxis<T> face{T(-1e30), 0};
  for (int k = 0; k < 6; ++k) {
    const bool first = k < 3;
    const int axis = k % 3;
    const T *rows = (first ? r : back) + 3 * axis, *other = first ? b.size : a.size;
    const T extent = magnitude(rows[0]) * other[0] + magnitude(rows[1]) * other[1] +
                     magnitude(rows[2]) * other[2];
    const T separation = magnitude(first ? offset[axis] : offset_back[axis]) -
                         (first ? a.size : b.size)[axis] - extent;
    if (!(separation < reach)) return 0;
    if (separation > face.separation) face = {separation, k};
  }

  // Edges: across one of each box. On a near tie the face wins, which holds with several touches.
  SeparatingAxis<T> best = face;
  T aligned = T(0);  // cosine between the best edge axis and the best face axis
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j) {
      const int i1 = (i + 1) % 3, i2 = (i + 2) % 3, j1 = (j + 1) % 3, j2 = (j + 2) % 3;
      T x1 = -r[3 * i2 + j], x2 = r[3 * i1 + j];
      const T square = x1 * x1 + x2 * x2;
      if (square < (single ? T(1e-8) : T(1e-16))) continue;  // parallel: the faces tell
      const T inverse = T(1) / scalar_sqrt(square);
      x1 *= inverse;
      x2 *= inverse;
      const T y1 = x1 * r[3 * i1 + j1] + x2 * r[3 * i2 + j1];
      const T y2 = x1 * r[3 * i1 + j2] + x2 * r[3 * i2 + j2];
      const T separation = magnitude(x1 * offset[i1] + x2 * offset[i2]) -
                           (a.size[i1] * magnitude(x1) + a.size[i2] * magnitude(x2)) -
                           (b.size[j1] * magnitude(y1) + b.size[j2] * magnitude(y2));
      if (!(separation < reach)) return 0;
      constexpr T bias = single ? T(1e-5) : T(1e-6);
      if (!(separation - bias * magnitude(separation) > best.separation)) continue;
      if (!(separation > face.separation)) continue;
      best = {separation, 6 + 3 * i + j};
      T axis[3];
      axis[i] = T(0);
      axis[i1] = x1;
      axis[i2] = x2;
      const int f = face.code % 3;
      aligned = magnitude(face.code < 3 ? axis[f]
                                        : axis[0] * r[f] + axis[1] * r[3 + f] + axis[2] * r[6 + f]);
    }
  // An edge axis within about 8 degrees of the face's must be 5 % better to be worth losing
  // touches.
  if (best.code >= 6 && aligned > T(0.99) &&
      best.separation < face.separation + T(0.05) * magnitude(face.separation) + T(1e-15))
    best = face;

  if (best.code >= 6)
    return touch_edges(a, b, r, offset, (best.code - 6) / 3, (best.code - 6) % 3, reach, out);
  if (best.code < 3) return touch_face(a, b, r, offset, best.code, T(1), reach, out);
  return touch_face(b, a, back, offset_back, best.code - 3, T(-1), reach, out);
}

template <class P>
SDPG_FN void box_box(const Shape<P>& a, const Shape<P>& b, typename P::Scalar reach,
                     Touches<P>& out) {
  using T = typename P::Scalar;
  // Lanes in which neither box's axes separate them by much.
  const Vec3<P> apart = b.position - a.position;
  const Vec3<P> offset = rotate_back(a.matrix, apart);
  const P around =
      P(scalar_sqrt(b.size[0] * b.size[0] + b.size[1] * b.size[1] + b.size[2] * b.size[2])) + reach;
  const std::uint32_t lanes =
      bits((abs(offset.x) - P(a.size[0]) < around) & (abs(offset.y) - P(a.size[1]) < around) &
           (abs(offset.z) - P(a.size[2]) < around));
  if (lanes == 0) return;
  const T limit = reach;
  for_lanes(a, b, lanes, kBoxBoxTouches, out,
            [&](const Solid<T>& first, const Solid<T>& second, Point<T>* points) {
              return box_box_lane(first, second, limit, points);
            });
}

SDPG_ISA_END
}  // namespace sdpg::core
