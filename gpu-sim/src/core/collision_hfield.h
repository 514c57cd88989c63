// Narrow phase of a height field with a convex shape, one lane at a time: the field is a row of
// triangular prisms between its surface and its base, and each prism that the shape overlaps makes
// a touch of its own, as in MuJoCo. Where MuJoCo lifts the field by the margin, distances here are
// those of the geometry.
#pragma once

#include "core/collision_convex.h"
#include "core/model.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Range of grid cells [first, last) that an interval of one coordinate meets; `half` is the field's
// half extent.
struct Cells {
  int first, last;
};
SDPG_INLINE Cells cells_between(double low, double high, double half, int points) {
  const double scale = (points - 1) / (2 * half);
  const auto bounded = [&](double x) {
    const double last = static_cast<double>(points - 1);
    return x < 0 ? 0.0 : x > last ? last : x;
  };
  return {static_cast<int>(scalar_floor(bounded((low + half) * scale))),
          static_cast<int>(-scalar_floor(-bounded((high + half) * scale)))};
}

// Touches of the field with a shape given in the field's frame. Returns how many there are, at most
// `most` + 1; what is beyond `most` is not stored.
SDPG_RARE int touch_height_field(const HeightField& field, const float* data, const Convex& shape,
                                 double reach, int most, Spot* out) {
  double low[3], high[3];
  for (int k = 0; k < 3; ++k) {
    const Vec3d axis = {k == 0 ? 1.0 : 0.0, k == 1 ? 1.0 : 0.0, k == 2 ? 1.0 : 0.0};
    high[k] = dot(axis, support(shape, axis)) + shape.radius;
    low[k] = dot(axis, support(shape, negative(axis))) - shape.radius;
  }
  const double *size = field.size, base = -size[3];
  if (low[0] - reach > size[0] || high[0] + reach < -size[0] || low[1] - reach > size[1] ||
      high[1] + reach < -size[1] || low[2] - reach > size[2] || high[2] + reach < base)
    return 0;
  const Cells columns = cells_between(low[0] - reach, high[0] + reach, size[0], field.ncol);
  const Cells rows = cells_between(low[1] - reach, high[1] + reach, size[1], field.nrow);
  const double dx = 2 * size[0] / (field.ncol - 1), dy = 2 * size[1] / (field.nrow - 1);
  const auto corner = [&](int row, int column) {
    return Vec3d{dx * column - size[0], dy * row - size[1],
                 static_cast<double>(data[row * field.ncol + column]) * size[2]};
  };
  int count = 0;
  for (int r = rows.first; r < rows.last; ++r)
    for (int c = columns.first; c < columns.last; ++c)
      for (int half = 0; half < 2; ++half) {
        // A strip of triangles: (upper c, lower c, upper c+1), (lower c, upper c+1, lower c+1).
        Convex prism{};
        prism.form = Form::kPrism;
        prism.corner[0] = half == 0 ? corner(r + 1, c) : corner(r, c);
        prism.corner[1] = half == 0 ? corner(r, c) : corner(r + 1, c + 1);
        prism.corner[2] = half == 0 ? corner(r + 1, c + 1) : corner(r, c + 1);
        Vec3d* const v = prism.corner;
        if (v[0].z < low[2] - reach && v[1].z < low[2] - reach && v[2].z < low[2] - reach) continue;
        Vec3d top = unit(cross(v[1] - v[0], v[2] - v[0]));
        if (top.z < 0) top = negative(top);
        const double above = dot(top, support(shape, negative(top)) - v[0]) - shape.radius;
        if (!(above < reach)) continue;
        for (int k = 0; k < 3; ++k) {
          v[3 + k] = {v[k].x, v[k].y, base};
          prism.position = prism.position + (v[k] + v[3 + k]) * (1.0 / 6);
        }
        for (int k = 0; k < 6; ++k)
          prism.bound = larger(prism.bound, length(v[k] - prism.position));
        Spot spot[kConvexTouches];
        if (touch_convex(prism, shape, reach, false, spot) == 0) continue;
        if (count == most) return most + 1;
        out[count++] = spot[0];
      }
  return count;
}

template <class P>
SDPG_FN void height_field_convex(const HeightField& field, const float* data, const Shape<P>& a,
                                 const Shape<P>& b, Form form, typename P::Scalar reach, int most,
                                 Touches<P>& out) {
  using T = typename P::Scalar;
  const T around = form_bound(b.size, form) + reach;
  const Vec3<P> center = rotate_back(a.matrix, b.position - a.position);
  const auto size = [&](int k) { return static_cast<T>(field.size[k]); };
  const std::uint32_t lanes =
      bits((abs(center.x) < size(0) + around) & (abs(center.y) < size(1) + around) &
           (center.z < size(2) + around) & (center.z > -size(3) - around));
  if (lanes == 0) return;
  for_lanes(a, b, lanes, most, out,
            [&](const Solid<T>& ground, const Solid<T>& solid, Point<T>* points) {
              // The shape in the field's frame.
              const Convex frame = convex_of(ground, Form::kBox);
              Convex shape = convex_of(solid, form);
              shape.position = rotate_back(frame.matrix, shape.position - frame.position);
              double matrix[9];
              for (int k = 0; k < 3; ++k) {
                const Vec3d axis = rotate_back(frame.matrix, column(shape.matrix, k));
                matrix[k] = axis.x;
                matrix[3 + k] = axis.y;
                matrix[6 + k] = axis.z;
              }
              for (int i = 0; i < 9; ++i) shape.matrix[i] = matrix[i];
              Spot spots[kMostTouches];
              const int n =
                  touch_height_field(field, data, shape, static_cast<double>(reach), most, spots);
              for (int i = 0; i < n && i < most; ++i) {
                spots[i].position = frame.position + rotate(frame.matrix, spots[i].position);
                spots[i].normal = rotate(frame.matrix, spots[i].normal);
                points[i] = point_of<T>(spots[i]);
              }
              return n;
            });
}

SDPG_ISA_END
}  // namespace sdpg::core
