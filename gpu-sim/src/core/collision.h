// Stage `collision`: the contacts of every pair of geoms that may touch.
//
//   geoms on their bodies -> broad phase: groups of pairs between two bodies, then single pairs,
//   are dropped by their bounding spheres -> narrow phase of the pairs left -> contacts with frames
//
// A pair that touches in no lane leaves nothing behind; otherwise its contact exists for the block,
// with a mask of the lanes that have it. Contact frames are MuJoCo's: the normal points from the
// first geom to the second, the first tangent along a capsule's axis against a plane, otherwise
// along y where the normal allows.
#pragma once

#include "core/collision_box.h"
#include "core/collision_convex.h"
#include "core/collision_hfield.h"
#include "core/collision_round.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// The contact's frame from its normal and the wish for the first tangent.
template <class P>
SDPG_FN void set_frame(Contact<P>& contact, const Vec3<P>& normal, Vec3<P> wish) {
  contact.normal = normal;
  wish = wish - normal * dot(normal, wish);
  normalize(&wish, unit_x<P>());
  contact.tangent1 = wish;
  contact.tangent2 = cross(normal, wish);
}
template <class P>
SDPG_FN void set_frame(Contact<P>& contact, const Vec3<P>& normal) {
  using T = typename P::Scalar;
  const auto steep = abs(normal.y) < T(0.5);
  const P zero = P(T(0)), one = P(T(1));
  set_frame(contact, normal, Vec3<P>{zero, select(steep, one, zero), select(steep, zero, one)});
}

template <class P, class Team>
SDPG_FN void place_geoms(Scratch<P, Team>& s) {
  const Model& m = s.model;
  s.team.each(0, m.used_geoms, [&](int u) {
    const int g = m.used_geom[u], b = m.geom_body[g], turned = m.geom_turned[g];
    const P* body = s.xmat + 9 * b;
    const Vec3<P> offset = constant3<P>(s.k.geom_pos, g);
    const Vec3<P> axis = constant3<P>(s.k.geom_axis, g);
    store3(s.geom_position + 3 * g, b == 0 ? offset : load3(s.xpos + 3 * b) + rotate(body, offset));
    store3(s.geom_axis + 3 * g, b == 0 ? axis : rotate(body, axis));
    if (turned < 0) return;
    P* matrix = s.geom_matrix + 9 * turned;
    for (int k = 0; k < 3; ++k) {
      const Vec3<P> local = constant3<P>(s.k.geom_turn, 3 * turned + k);
      const Vec3<P> column = b == 0 ? local : rotate(body, local);
      matrix[k] = column.x;
      matrix[3 + k] = column.y;
      matrix[6 + k] = column.z;
    }
  });
}

// Whether two spheres come nearer than `bound` in some lane. A bound below 0 is none.
template <class P>
SDPG_INLINE bool near_anywhere(const Vec3<P>& a, const Vec3<P>& b, typename P::Scalar bound) {
  if (bound < 0) return true;
  const Vec3<P> apart = b - a;
  return any(dot(apart, apart) < bound * bound);
}

// Leaves the pairs that may touch in s.candidates and returns how many they are.
template <class P, class Team>
SDPG_FN int broad_phase(Scratch<P, Team>& s) {
  const Model& m = s.model;
  s.team.each(0, m.bounded_bodies, [&](int i) {
    const int b = m.bounded_body[i];
    const Vec3<P> center = constant3<P>(s.k.body_center, b);
    store3(s.body_center + 3 * b,
           b == 0 ? center : load3(s.xpos + 3 * b) + rotate(s.xmat + 9 * b, center));
  });
  int count = 0;
  s.team.template collect<std::uint32_t>(
      m.npair_group, &count,
      [&](int i, std::uint32_t& near) {
        const PairGroup& group = m.pair_group[i];
        near = 0;
        if (!near_anywhere(load3(s.body_center + 3 * group.body1),
                           load3(s.body_center + 3 * group.body2), s.k.group_bound[i]))
          return 0;
        int pairs = 0;
        for (int k = 0; k < group.pairs; ++k) {
          const Pair& pair = m.pair[group.first_pair + k];
          if (!near_anywhere(load3(s.geom_position + 3 * pair.geom1),
                             load3(s.geom_position + 3 * pair.geom2),
                             s.k.pair_bound[group.first_pair + k]))
            continue;
          near |= 1u << k;
          ++pairs;
        }
        return pairs;
      },
      [&](int i, const std::uint32_t& near, int at, int) {
        for (int k = 0; k < m.pair_group[i].pairs; ++k)
          if (near >> k & 1) s.candidates[at++] = m.pair_group[i].first_pair + k;
      });
  return count;
}

template <class P, class Team>
SDPG_INLINE Shape<P> shape_of(const Scratch<P, Team>& s, int geom) {
  const int turned = s.model.geom_turned[geom];
  return {load3(s.geom_position + 3 * geom), load3(s.geom_axis + 3 * geom),
          turned < 0 ? nullptr : s.geom_matrix + 9 * turned, s.k.geom_size + 3 * geom};
}

template <class P, class Team>
SDPG_FN void against_field(const Scratch<P, Team>& s, const Pair& pair, Form form,
                           const Shape<P>& field, const Shape<P>& shape, typename P::Scalar reach,
                           Touches<P>& out) {
  const HeightField& heights = s.model.hfield[s.model.geom_hfield[pair.geom1]];
  height_field_convex(heights, s.model.hfield_data + heights.begin, field, shape, form, reach,
                      pair.contacts, out);
}

template <class P, class Team>
SDPG_FN void narrow_phase(const Scratch<P, Team>& s, int pair_index, Touches<P>& out) {
  const Pair& pair = s.model.pair[pair_index];
  const typename P::Scalar reach = s.k.pair_reach[pair_index];
  const Shape<P> a = shape_of(s, pair.geom1), b = shape_of(s, pair.geom2);
  switch (pair.kind) {
    case PairKind::kPlaneSphere:
      return plane_sphere(a, b, reach, out);
    case PairKind::kPlaneCapsule:
      return plane_capsule(a, b, reach, out);
    case PairKind::kPlaneEllipsoid:
      return plane_ellipsoid(a, b, reach, out);
    case PairKind::kPlaneCylinder:
      return plane_cylinder(a, b, reach, out);
    case PairKind::kPlaneBox:
      return plane_box(a, b, reach, out);
    case PairKind::kSphereSphere:
      return sphere_sphere(a, b, reach, out);
    case PairKind::kSphereCapsule:
      return sphere_capsule(a, b, reach, out);
    case PairKind::kSphereCylinder:
      return sphere_cylinder(a, b, reach, out);
    case PairKind::kSphereBox:
      return sphere_box(a, b, reach, out);
    case PairKind::kCapsuleCapsule:
      return capsule_capsule(a, b, reach, out);
    case PairKind::kCapsuleBox:
      return capsule_box(a, b, reach, out);
    case PairKind::kBoxBox:
      return box_box(a, b, reach, out);
    case PairKind::kSphereEllipsoid:
      return convex_convex(a, Form::kPoint, b, Form::kEllipsoid, reach, out);
    case PairKind::kCapsuleEllipsoid:
      return convex_convex(a, Form::kSegment, b, Form::kEllipsoid, reach, out);
    case PairKind::kCapsuleCylinder:
      return convex_convex(a, Form::kSegment, b, Form::kCylinder, reach, out);
    case PairKind::kEllipsoidEllipsoid:
      return convex_convex(a, Form::kEllipsoid, b, Form::kEllipsoid, reach, out);
    case PairKind::kEllipsoidCylinder:
      return convex_convex(a, Form::kEllipsoid, b, Form::kCylinder, reach, out);
    case PairKind::kEllipsoidBox:
      return convex_convex(a, Form::kEllipsoid, b, Form::kBox, reach, out);
    case PairKind::kCylinderCylinder:
      return convex_convex(a, Form::kCylinder, b, Form::kCylinder, reach, out);
    case PairKind::kCylinderBox:
      return convex_convex(a, Form::kCylinder, b, Form::kBox, reach, out);
    case PairKind::kHeightFieldSphere:
      return against_field(s, pair, Form::kPoint, a, b, reach, out);
    case PairKind::kHeightFieldCapsule:
      return against_field(s, pair, Form::kSegment, a, b, reach, out);
    case PairKind::kHeightFieldEllipsoid:
      return against_field(s, pair, Form::kEllipsoid, a, b, reach, out);
    case PairKind::kHeightFieldCylinder:
      return against_field(s, pair, Form::kCylinder, a, b, reach, out);
    case PairKind::kHeightFieldBox:
      return against_field(s, pair, Form::kBox, a, b, reach, out);
  }
}

template <class P, class Team>
SDPG_FN void collision(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  place_geoms(s);
  const int candidates = broad_phase(s);
  s.contact_count = 0;
  s.team.template collect<Touches<P>>(
      candidates, &s.contact_count,
      [&](int i, Touches<P>& touches) {
        const int pair = s.candidates[i];
        narrow_phase(s, pair, touches);
        if (m.may_overflow) s.pair_overflow[i] = touches.overflow;
        // Touches between margin and margin + gap are sought but exert nothing.
        int kept = 0;
        for (int k = 0; k < touches.count; ++k) {
          const auto near =
              touches.present[k] & (touches.touch[k].distance < s.k.contact[pair].margin);
          if (!any(near)) continue;
          touches.present[kept] = near;
          touches.touch[kept++] = touches.touch[k];
        }
        touches.count = kept;
        return kept;
      },
      [&](int i, const Touches<P>& touches, int at, int count) {
        const int pair = s.candidates[i];
        for (int k = 0; k < count; ++k) {
          Contact<P>& contact = s.contacts[at + k];
          const Touch<P>& touch = touches.touch[k];
          contact.pair = pair;
          contact.distance = touch.distance;
          contact.position = touch.position;
          contact.stiffness = keep(touches.present[k], P(T(1)));  // constraint() puts D there
          if (m.pair[pair].kind == PairKind::kPlaneCapsule)
            set_frame(contact, touch.normal, load3(s.geom_axis + 3 * m.pair[pair].geom2));
          else
            set_frame(contact, touch.normal);
        }
      });
  if (m.may_overflow)
    s.overflow_lanes |= s.team.unite(0, candidates, [&](int i) { return s.pair_overflow[i]; });
}

SDPG_ISA_END
}  // namespace sdpg::core
