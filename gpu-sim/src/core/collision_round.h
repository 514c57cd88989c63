// Narrow phases between planes and all shapes, and among spheres, capsules and the sphere's other
// partners: closed forms over whole packs. `reach` is the distance up to which touches are sought.
#pragma once

#include "core/collision_shapes.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// ---- a plane and ...
// ------------------------------------------------------------------------------

// A point of the second shape that is nearest to the plane there.
template <class P>
SDPG_INLINE Touch<P> touch_plane(const Shape<P>& plane, const Vec3<P>& point) {
  using T = typename P::Scalar;
  Touch<P> touch;
  touch.normal = plane.axis;
  touch.distance = dot(point - plane.position, touch.normal);
  touch.position = point - touch.normal * (touch.distance * P(T(0.5)));
  return touch;
}
// A sphere.
template <class P>
SDPG_INLINE Touch<P> touch_plane(const Shape<P>& plane, const Vec3<P>& center, P radius) {
  using T = typename P::Scalar;
  Touch<P> touch;
  touch.normal = plane.axis;
  touch.distance = dot(center - plane.position, touch.normal) - radius;
  touch.position = center - touch.normal * (radius + touch.distance * P(T(0.5)));
  return touch;
}

template <class P>
SDPG_FN void plane_sphere(const Shape<P>& plane, const Shape<P>& sphere, typename P::Scalar reach,
                          Touches<P>& out) {
  const Touch<P> touch = touch_plane(plane, sphere.position, P(sphere.size[0]));
  out.add(touch, touch.distance < reach, 1);
}

template <class P>
SDPG_FN void plane_capsule(const Shape<P>& plane, const Shape<P>& capsule, typename P::Scalar reach,
                           Touches<P>& out) {
  const P radius = P(capsule.size[0]);
  const Vec3<P> half = capsule.axis * P(capsule.size[1]);
  const Touch<P> upper = touch_plane(plane, capsule.position + half, radius);
  const Touch<P> lower = touch_plane(plane, capsule.position - half, radius);
  out.add(upper, upper.distance < reach, 2);
  out.add(lower, lower.distance < reach, 2);
}

template <class P>
SDPG_FN void plane_ellipsoid(const Shape<P>& plane, const Shape<P>& ellipsoid,
                             typename P::Scalar reach, Touches<P>& out) {
  // The point of the ellipsoid farthest against the normal: the unit sphere's, stretched.
  const Vec3<P> local = rotate_back(ellipsoid.matrix, plane.axis);
  const P a = P(ellipsoid.size[0]), b = P(ellipsoid.size[1]), c = P(ellipsoid.size[2]);
  Vec3<P> onto = {a * local.x, b * local.y, c * local.z};
  normalize(&onto, unit_x<P>());
  const Vec3<P> lowest = {-(a * onto.x), -(b * onto.y), -(c * onto.z)};
  const Touch<P> touch = touch_plane(plane, ellipsoid.position + rotate(ellipsoid.matrix, lowest));
  out.add(touch, touch.distance < reach, 1);
}

// The two ends of the lowest generator line, and two more points of the lower disc, which make an
// equilateral triangle with the lowest one.
template <class P>
SDPG_FN void plane_cylinder(const Shape<P>& plane, const Shape<P>& cylinder,
                            typename P::Scalar reach, Touches<P>& out) {
  using T = typename P::Scalar;
  const P radius = P(cylinder.size[0]), zero = P(T(0));
  P slope = dot(plane.axis, cylinder.axis);
  const auto up = slope > T(0);
  const Vec3<P> flipped = {-cylinder.axis.x, -cylinder.axis.y, -cylinder.axis.z};
  const Vec3<P> down = select(up, flipped, cylinder.axis);
  slope = select(up, -slope, slope);
  // Down the disc; where the disc lies flat any direction will do: the cylinder's x axis.
  Vec3<P> rim = down * slope - plane.axis;
  normalize(&rim, column(cylinder.matrix, 0));
  rim = rim * radius;
  const Vec3<P> half = down * P(cylinder.size[1]);
  const Touch<P> lowest = touch_plane(plane, cylinder.position + half + rim);
  const auto near = lowest.distance < reach;
  if (!any(near)) return;
  const Touch<P> far_end = touch_plane(plane, cylinder.position - half + rim);
  Vec3<P> sideways = cross(rim, half);
  normalize(&sideways, Vec3<P>{zero, zero, zero});
  sideways = sideways * (radius * P(T(0.86602540378443864676)));
  const Vec3<P> middle = cylinder.position + half - rim * P(T(0.5));
  const Touch<P> left = touch_plane(plane, middle + sideways);
  const Touch<P> right = touch_plane(plane, middle - sideways);
  // Both have the height of `middle`; only one of two different roundings may not decide.
  const auto disc = near & (dot(middle - plane.position, plane.axis) < reach);
  out.add(lowest, near, 4);
  out.add(far_end, near & (far_end.distance < reach), 4);
  out.add(left, disc, 4);
  out.add(right, disc, 4);
}

// The corners below the box's centre, at most four.
template <class P>
SDPG_FN void plane_box(const Shape<P>& plane, const Shape<P>& box, typename P::Scalar reach,
                       Touches<P>& out) {
  using T = typename P::Scalar;
  const P height = dot(box.position - plane.position, plane.axis);
  const Vec3<P> x = column(box.matrix, 0) * P(box.size[0]);
  const Vec3<P> y = column(box.matrix, 1) * P(box.size[1]);
  const Vec3<P> z = column(box.matrix, 2) * P(box.size[2]);
  const P down = abs(dot(x, plane.axis)) + abs(dot(y, plane.axis)) + abs(dot(z, plane.axis));
  if (!any(height - down < reach)) return;
  auto full = no_lanes<P>();  // lanes with four
  for (int i = 0; i < 8; ++i) {
    const Vec3<P> xy = i & 1 ? x : Vec3<P>{-x.x, -x.y, -x.z};
    const Vec3<P> corner =
        (i & 4 ? z : Vec3<P>{-z.x, -z.y, -z.z}) + ((i & 2 ? y : Vec3<P>{-y.x, -y.y, -y.z}) + xy);
    const P along = dot(plane.axis, corner);
    const auto lanes = (height + along < reach) & (along <= T(0)) & !full;
    if (!any(lanes)) continue;
    Touch<P> touch;
    touch.normal = plane.axis;
    touch.distance = height + along;
    touch.position = box.position + corner - touch.normal * (touch.distance * P(T(0.5)));
    out.add(touch, lanes, 4);
    if (out.count == 4) full = out.present[3];
  }
}

// ---- spheres and capsules
// ---------------------------------------------------------------------------

// Two spheres; the axes of the geoms they belong to decide the normal if the centres coincide.
template <class P>
SDPG_FN Touch<P> touch_spheres(const Vec3<P>& c1, P r1, const Vec3<P>& axis1, const Vec3<P>& c2,
                               P r2, const Vec3<P>& axis2) {
  using T = typename P::Scalar;
  Touch<P> touch;
  touch.normal = c2 - c1;
  Vec3<P> sideways = cross(axis1, axis2);
  normalize(&sideways, unit_x<P>());
  touch.distance = normalize(&touch.normal, sideways) - r1 - r2;
  touch.position = c1 + touch.normal * (r1 + touch.distance * P(T(0.5)));
  return touch;
}

template <class P>
SDPG_FN void sphere_sphere(const Shape<P>& a, const Shape<P>& b, typename P::Scalar reach,
                           Touches<P>& out) {
  const Touch<P> touch =
      touch_spheres(a.position, P(a.size[0]), a.axis, b.position, P(b.size[0]), b.axis);
  out.add(touch, touch.distance < reach, 1);
}

template <class P>
SDPG_FN void sphere_capsule(const Shape<P>& sphere, const Shape<P>& capsule,
                            typename P::Scalar reach, Touches<P>& out) {
  const P half = P(capsule.size[1]);
  P along = dot(capsule.axis, sphere.position - capsule.position);
  along = max(min(along, half), -half);
  const Touch<P> touch =
      touch_spheres(sphere.position, P(sphere.size[0]), sphere.axis,
                    capsule.position + capsule.axis * along, P(capsule.size[0]), capsule.axis);
  out.add(touch, touch.distance < reach, 1);
}

template <class P>
SDPG_FN void capsule_capsule(const Shape<P>& a, const Shape<P>& b, typename P::Scalar reach,
                             Touches<P>& out) {
  using T = typename P::Scalar;
  const P radius1 = P(a.size[0]), radius2 = P(b.size[0]);
  const Vec3<P> difference = a.position - b.position;
  const Vec3<P> segment1 = a.axis * P(a.size[1]), segment2 = b.axis * P(b.size[1]);
  // Nearest points center1 + x1 segment1 and center2 + x2 segment2 solve
  // [a b; b c] [x1; x2] = [u; v] where both lie inside their segments.
  const P aa = dot(segment1, segment1), ab = -dot(segment1, segment2), bb = dot(segment2, segment2);
  const P u = -dot(segment1, difference), v = dot(segment2, difference);
  const P determinant = aa * bb - ab * ab;
  const P one = P(T(1));
  const auto inside = [&](P x) { return max(min(x, one), -one); };
  const auto touch_at = [&](P x1, P x2) {
    return touch_spheres(a.position + segment1 * x1, radius1, a.axis, b.position + segment2 * x2,
                         radius2, b.axis);
  };
  constexpr T small = sizeof(T) == 4 ? T(1e-6) : T(0);
  const P threshold = max(aa * bb * P(small), T(1e-15));
  const auto parallel = abs(determinant) < threshold;
  P x1 = inside((bb * u - ab * v) / select(parallel, one, determinant));
  const P x2 = inside((v - ab * x1) / bb);
  x1 = inside((u - ab * x2) / aa);
  Touch<P> crossing = touch_at(x1, x2);
  if constexpr (sizeof(T) == 4) {
    // Where the axes nearly meet, the difference of the nearest points has lost its direction to
    // rounding, and the common perpendicular of the axes is still exact.
    const P radii = radius1 + radius2, apart = crossing.distance + radii;
    const auto meeting = (abs(x1) < one) & (abs(x2) < one) & !parallel &
                         (apart * apart * aa * bb < determinant * radii * radii);
    if (any(meeting)) {
      const Vec3<P> nearest1 = a.position + segment1 * x1, nearest2 = b.position + segment2 * x2;
      Touch<P> exact;
      exact.normal = cross(a.axis, b.axis);
      normalize(&exact.normal, unit_x<P>());
      const P signed_apart = dot(nearest2 - nearest1, exact.normal);
      exact.normal = exact.normal * select(signed_apart < T(0), -one, one);
      exact.distance = abs(signed_apart) - radii;
      exact.position = nearest1 + exact.normal * (radius1 + exact.distance * P(T(0.5)));
      crossing = select(meeting, exact, crossing);
    }
  }
  out.add(crossing, (crossing.distance < reach) & !parallel, 2);
  if (!any(parallel)) return;

  // Parallel: of the four ends against the other segment, the first two that touch.
  const Touch<P> ends[4] = {
      touch_at(one, inside((v - ab) / bb)), touch_at(-one, inside((v + ab) / bb)),
      touch_at(inside((u - ab) / aa), one), touch_at(inside((u + ab) / aa), -one)};
  auto found_one = no_lanes<P>(), found_two = no_lanes<P>();
  for (const Touch<P>& end : ends) {
    const auto near = parallel & (end.distance < reach) & !found_two;
    out.add(end, near, 2);
    found_two = found_two | (near & found_one);
    found_one = found_one | near;
  }
}

// ---- a sphere and ...
// -------------------------------------------------------------------------------

template <class P>
SDPG_FN void sphere_cylinder(const Shape<P>& sphere, const Shape<P>& cylinder,
                             typename P::Scalar reach, Touches<P>& out) {
  using T = typename P::Scalar;
  const P radius = P(sphere.size[0]), zero = P(T(0));
  const P rim = P(cylinder.size[0]), half = P(cylinder.size[1]);
  const Vec3<P> offset = sphere.position - cylinder.position;
  const P along = dot(cylinder.axis, offset);
  const Vec3<P> sideways = offset - cylinder.axis * along;
  const P aside = sqrt(dot(sideways, sideways));
  const auto beside = abs(along) < half, above = aside < rim;
  // Inside both ranges the nearer surface decides.
  const auto to_cap = (half - abs(along)) < (rim - aside);
  const auto side = beside & !(above & to_cap), cap = above & !(beside & !to_cap);

  // The wall: as against a sphere around the axis.
  const Touch<P> wall =
      touch_spheres(sphere.position, radius, sphere.axis, cylinder.position + cylinder.axis * along,
                    rim, cylinder.axis);
  // The edge: as against the nearest point of the circle.
  const P outward = rim / select(aside < kNoDirection<T>, P(T(1)), aside);
  const P signed_half = select(along > T(0), half, -half);
  const Touch<P> edge = touch_spheres(
      sphere.position, radius, sphere.axis,
      cylinder.position + cylinder.axis * signed_half + sideways * outward, zero, cylinder.axis);
  // The cap: as against a plane.
  const P sign = select(along > T(0), P(T(1)), P(T(-1)));
  Touch<P> flat;
  flat.distance = sign * along - half - radius;
  flat.normal = cylinder.axis * -sign;
  flat.position = sphere.position + flat.normal * (radius + flat.distance * P(T(0.5)));

  const Touch<P> touch = select(side, wall, select(cap, flat, edge));
  out.add(touch, touch.distance < reach, 1);
}

SDPG_ISA_END
}  // namespace sdpg::core
