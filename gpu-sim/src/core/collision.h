// Stage `collision`: the contacts of every pair of geoms. A pair that touches in no lane leaves
// nothing behind; otherwise its contact exists for the block, with a mask of the lanes that have
// it. Contact frames are MuJoCo's: the normal points from the first geom to the second, the first
// tangent along a capsule's axis against a plane, otherwise along y where the normal allows.
#pragma once

#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

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

template <class P>
struct Touch {
  P distance;
  Vec3<P> position, normal;
};

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

// The contact's frame from its normal and the wish for the first tangent.
template <class P>
SDPG_FN void set_frame(Contact<P>& contact, const Vec3<P>& normal, Vec3<P> wish) {
  contact.normal = normal;
  wish = wish - normal * dot(normal, wish);
  normalize(&wish, unit_x<P>());
  contact.tangent1 = wish;
  contact.tangent2 = cross(normal, wish);
}

template <class P, class Team>
struct Collider {
  using T = typename P::Scalar;
  using Bool = typename P::Bool;
  Scratch<P, Team>& s;
  int pair_index = 0;

  SDPG_FN Vec3<P> position(int geom) const { return load3(s.geom_position + 3 * geom); }
  SDPG_FN Vec3<P> axis(int geom) const { return load3(s.geom_axis + 3 * geom); }
  SDPG_FN P radius(int geom) const { return constant<P>(s.k.geom_size, 2 * geom); }
  SDPG_FN P half_length(int geom) const { return constant<P>(s.k.geom_size, 2 * geom + 1); }

  // Keeps a contact if some lane is near enough. `wish` null: the default tangent.
  SDPG_FN void keep_contact(const Touch<P>& touch, const Vec3<P>* wish, Bool among) {
    const Bool near = among & (touch.distance < s.k.contact[pair_index].margin);
    if (!any(near)) return;
    Contact<P>& contact = s.contacts[s.contact_count++];
    contact.pair = pair_index;
    contact.distance = touch.distance;
    contact.position = touch.position;
    contact.stiffness = keep(near, P(T(1)));  // the lanes; constraint() puts D there
    if (wish) {
      set_frame(contact, touch.normal, *wish);
    } else {
      const Bool steep = abs(touch.normal.y) < T(0.5);
      const P zero = P(T(0)), one = P(T(1));
      set_frame(contact, touch.normal,
                Vec3<P>{zero, select(steep, one, zero), select(steep, zero, one)});
    }
  }
  SDPG_FN void keep_contact(const Touch<P>& touch, const Vec3<P>* wish = nullptr) {
    keep_contact(touch, wish, all_lanes<P>());
  }

  // `center` is a sphere of the second geom.
  SDPG_FN Touch<P> touch_plane(int plane, const Vec3<P>& center, P sphere_radius) const {
    Touch<P> touch;
    touch.normal = axis(plane);
    touch.distance = dot(center - position(plane), touch.normal) - sphere_radius;
    touch.position = center - touch.normal * (sphere_radius + touch.distance * P(T(0.5)));
    return touch;
  }

  SDPG_FN void plane_sphere(const Pair& pair) {
    keep_contact(touch_plane(pair.geom1, position(pair.geom2), radius(pair.geom2)));
  }

  SDPG_FN void plane_capsule(const Pair& pair) {
    const Vec3<P> direction = axis(pair.geom2), center = position(pair.geom2);
    const Vec3<P> segment = direction * half_length(pair.geom2);
    keep_contact(touch_plane(pair.geom1, center + segment, radius(pair.geom2)), &direction);
    keep_contact(touch_plane(pair.geom1, center - segment, radius(pair.geom2)), &direction);
  }

  SDPG_FN void sphere_sphere(const Pair& pair) {
    keep_contact(touch_spheres(position(pair.geom1), radius(pair.geom1), axis(pair.geom1),
                               position(pair.geom2), radius(pair.geom2), axis(pair.geom2)));
  }

  SDPG_FN void sphere_capsule(const Pair& pair) {
    const Vec3<P> direction = axis(pair.geom2), center = position(pair.geom2);
    const P length = half_length(pair.geom2);
    P along = dot(direction, position(pair.geom1) - center);
    along = max(min(along, length), -length);
    keep_contact(touch_spheres(position(pair.geom1), radius(pair.geom1), axis(pair.geom1),
                               center + direction * along, radius(pair.geom2), direction));
  }

  SDPG_FN void capsule_capsule(const Pair& pair) {
    const Vec3<P> center1 = position(pair.geom1), center2 = position(pair.geom2);
    const P radius1 = radius(pair.geom1), radius2 = radius(pair.geom2);
    const Vec3<P> difference = center1 - center2;
    // Too far apart in every lane: nothing to find.
    const P reach = half_length(pair.geom1) + half_length(pair.geom2) + radius1 + radius2 +
                    P(s.k.contact[pair_index].margin);
    if (!any(dot(difference, difference) < reach * reach)) return;

    const Vec3<P> direction1 = axis(pair.geom1), direction2 = axis(pair.geom2);
    const Vec3<P> segment1 = direction1 * half_length(pair.geom1);
    const Vec3<P> segment2 = direction2 * half_length(pair.geom2);
    // Nearest points center1 + x1 segment1 and center2 + x2 segment2 solve
    // [a b; b c] [x1; x2] = [u; v] where both lie inside their segments.
    const P a = dot(segment1, segment1), b = -dot(segment1, segment2), c = dot(segment2, segment2);
    const P u = -dot(segment1, difference), v = dot(segment2, difference);
    const P determinant = a * c - b * b;
    const P one = P(T(1));
    const auto clip = [&](P x) { return max(min(x, one), -one); };
    const auto touch_at = [&](P x1, P x2) {
      return touch_spheres(center1 + segment1 * x1, radius1, direction1, center2 + segment2 * x2,
                           radius2, direction2);
    };
    constexpr T least = sizeof(T) == 4 ? T(1e-6) : T(0);
    const P threshold = max(a * c * P(least), T(1e-15));
    const Bool parallel = abs(determinant) < threshold;
    P x1 = clip((c * u - b * v) / select(parallel, one, determinant));
    const P x2 = clip((v - b * x1) / c);
    x1 = clip((u - b * x2) / a);
    keep_contact(touch_at(x1, x2), nullptr, !parallel);
    if (!any(parallel)) return;

    // Parallel: of the four ends against the other segment, the first two that touch.
    const Touch<P> ends[4] = {touch_at(one, clip((v - b) / c)), touch_at(-one, clip((v + b) / c)),
                              touch_at(clip((u - b) / a), one), touch_at(clip((u + b) / a), -one)};
    Bool found_one = no_lanes<P>(), found_two = no_lanes<P>();
    Touch<P> first = ends[0], second = ends[0];
    for (const Touch<P>& end : ends) {
      const Bool near = parallel & (end.distance < s.k.contact[pair_index].margin);
      const auto take = [&](Touch<P>& into, Bool lanes) {
        into.distance = select(lanes, end.distance, into.distance);
        into.position = select(lanes, end.position, into.position);
        into.normal = select(lanes, end.normal, into.normal);
      };
      const Bool is_second = near & found_one & !found_two;
      take(second, is_second);
      take(first, near & !found_one);
      found_two = found_two | is_second;
      found_one = found_one | near;
    }
    keep_contact(first, nullptr, found_one);
    keep_contact(second, nullptr, found_two);
  }
};

template <class P, class Team>
SDPG_FN void collision(Scratch<P, Team>& s) {
  const Model& m = s.model;
  s.contact_count = 0;
  for (int u = 0; u < m.used_geoms; ++u) {
    const int g = m.used_geom[u], b = m.geom_body[g];
    const Vec3<P> offset = constant3<P>(s.k.geom_pos, g);
    const Vec3<P> axis = constant3<P>(s.k.geom_axis, g);
    if (b == 0) {
      store3(s.geom_position + 3 * g, offset);
      store3(s.geom_axis + 3 * g, axis);
    } else {
      const P* matrix = s.xmat + 9 * b;
      store3(s.geom_position + 3 * g, load3(s.xpos + 3 * b) + rotate(matrix, offset));
      store3(s.geom_axis + 3 * g, rotate(matrix, axis));
    }
  }
  Collider<P, Team> collider{s};
  for (int i = 0; i < m.npair; ++i) {
    const Pair& pair = m.pair[i];
    collider.pair_index = i;
    switch (pair.kind) {
      case PairKind::kPlaneSphere:
        collider.plane_sphere(pair);
        break;
      case PairKind::kPlaneCapsule:
        collider.plane_capsule(pair);
        break;
      case PairKind::kSphereSphere:
        collider.sphere_sphere(pair);
        break;
      case PairKind::kSphereCapsule:
        collider.sphere_capsule(pair);
        break;
      case PairKind::kCapsuleCapsule:
        collider.capsule_capsule(pair);
        break;
    }
  }
}

SDPG_ISA_END
}  // namespace sdpg::core
