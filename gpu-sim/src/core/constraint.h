// Stage `constraint`: for every contact, every joint beyond its range and every degree of freedom
// with friction loss, the Jacobian, the reference acceleration a* = -B v - K d (r - margin), and
// the stiffness D = 1 / R with R = (1 - d) / d times the inverse inertia MuJoCo assumes for the row
// (https://mujoco.readthedocs.io/en/stable/computation, "Constraint model").
#pragma once

#include "core/cone.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

template <class P>
struct Impedance {
  P value, complement;  // d and 1 - d, each without cancellation
};

// The impedance at distance `r` of the constraint.
template <class P>
SDPG_FN Impedance<P> impedance(const Softness<typename P::Scalar>& soft, P r) {
  using T = typename P::Scalar;
  if (soft.shape == 0) return {P(soft.d0), P(soft.one_minus_d1)};
  const P x = min(abs((r - soft.margin) * soft.inverse_width), T(1));
  const P rest = T(1) - x;
  P y, complement;
  if (soft.shape == 1) {
    y = x;
    complement = rest;
  } else {
    const bool quadratic = soft.shape == 2;
    const P low = P(soft.below) * (quadratic ? x * x : pow(x, P(soft.power)));
    const P high = P(soft.above) * (quadratic ? rest * rest : pow(rest, P(soft.power)));
    const auto below = x <= soft.midpoint;
    y = select(below, low, T(1) - high);
    complement = select(below, T(1) - low, high);
  }
  return {P(soft.d0) + y * soft.rise, P(soft.one_minus_d1) + complement * soft.rise};
}

// D and K d (r - margin); `factor` is what the row's R is of the one its inverse weight gives.
template <class P>
SDPG_INLINE void resolve(const Softness<typename P::Scalar>& soft, P r, P factor, P* stiffness,
                         P* pull) {
  using T = typename P::Scalar;
  const Impedance<P> d = impedance(soft, r);
  const P regularisation = max(P(soft.inverse_weight) * factor * d.complement / d.value, T(1e-15));
  *stiffness = T(1) / regularisation;
  *pull = P(soft.stiffness) * d.value * (r - soft.margin);
}

// jacobian[dof_count][Dim]: how the pair's degrees of freedom move geom 2 against geom 1 at the
// contact, along the normal and the tangents and then about them.
template <int Dim, class P, class Team>
SDPG_FN void contact_jacobian(const Scratch<P, Team>& s, const Contact<P>& contact, P* jacobian) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const Pair& pair = m.pair[contact.pair];
  int root = -1;
  Vec3<P> arm{};
  for (int i = 0; i < pair.dof_count; ++i) {
    const int dof = m.pair_dof[pair.dof_begin + i];
    const T sign = T(m.pair_sign[pair.dof_begin + i]);
    const bool angular = is_angular(m, dof);
    Vec3<P> linear = load3(s.cdof + 6 * dof + 3);
    P* row = jacobian + i * Dim;
    if (angular) {
      const int dof_root = m.body_root[m.dof_bodyid[dof]];
      if (dof_root != root) {
        root = dof_root;
        arm = contact.position - load3(s.xpos + 3 * root);
      }
      linear = linear + cross(load3(s.cdof + 6 * dof), arm);
    }
    row[0] = dot(contact.normal, linear) * sign;
    if constexpr (Dim > 1) {
      row[1] = dot(contact.tangent1, linear) * sign;
      row[2] = dot(contact.tangent2, linear) * sign;
    }
    if constexpr (Dim > 3) {
      const P zero = P(T(0));
      const Vec3<P> turn = angular ? load3(s.cdof + 6 * dof) * P(sign) : Vec3<P>{zero, zero, zero};
      row[3] = dot(contact.normal, turn);
      if constexpr (Dim > 4) {
        row[4] = dot(contact.tangent1, turn);
        row[5] = dot(contact.tangent2, turn);
      }
    }
  }
}

// out[k] = sum over the pair's degrees of freedom of jacobian[.][k] x.
template <int Dim, class P>
SDPG_INLINE void multiply_jacobian(const Model& m, const Pair& pair, const P* jacobian, const P* x,
                                   P* out) {
  using T = typename P::Scalar;
  const int* dofs = m.pair_dof + pair.dof_begin;
  P sum[Dim];
  for (int k = 0; k < Dim; ++k) sum[k] = P(T(0));
  for (int i = 0; i < pair.dof_count; ++i) {
    const P value = x[dofs[i]];
    for (int k = 0; k < Dim; ++k) sum[k] += jacobian[i * Dim + k] * value;
  }
  for (int k = 0; k < Dim; ++k) out[k] = sum[k];
}

template <class P, class Team>
SDPG_FN void contact_constraints(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  s.team.each(0, s.contact_count, [&](int c) {
    Contact<P>& contact = s.contacts[c];
    const Pair& pair = s.model.pair[contact.pair];
    const Softness<T>& soft = s.k.contact[contact.pair];
    // Lanes without the contact get an empty Jacobian, whatever their geometry was.
    const auto has = contact.stiffness > T(0);
    const P zero = P(T(0));
    const Vec3<P> none{zero, zero, zero};
    contact.lanes = static_cast<Lanes<P>>(bits(has));
    contact.position = select(has, contact.position, none);
    contact.normal = select(has, contact.normal, none);
    contact.tangent1 = select(has, contact.tangent1, none);
    contact.tangent2 = select(has, contact.tangent2, none);
    contact.distance = select(has, contact.distance, P(soft.margin));
    with_cone(s, pair, [&](auto cone) {
      constexpr int dim = decltype(cone)::dim;
      P velocity[dim], stiffness, pull, *reference = s.reference(c);
      contact_jacobian<dim>(s, contact, s.jacobian(c));
      multiply_jacobian<dim>(s.model, pair, s.jacobian(c), s.qvel, velocity);
      const Friction<P, dim> mu(s, contact.pair);
      resolve(soft, contact.distance, cone.regularisation_factor(mu), &stiffness, &pull);
      for (int k = 0; k < dim; ++k) {
        const bool across = decltype(cone)::elliptic && k > 0;
        const T damping = across ? s.k.friction_damping[contact.pair] : soft.damping;
        reference[k] = -(velocity[k] * damping);
      }
      reference[0] -= pull;
      contact.stiffness = keep(has, stiffness);
    });
  });
}

// The limits of one joint that some lane is beyond.
template <class P>
struct LimitCandidates {
  P distance[2];
  P axis[3];  // of a ball
  bool beyond[2];
};

// How far inside its range a ball joint is, and the axis that leads further inside.
template <class P>
SDPG_FN P ball_distance(const P* quaternion, P range, P* axis) {
  using T = typename P::Scalar;
  P unit[4];
  load_unit_quaternion(unit, quaternion);
  const Vec3<P> turn = rotation_vector(unit);
  const P angle = sqrt(dot(turn, turn));
  const auto none = angle < T(1e-15);
  const P scale = P(T(-1)) / select(none, T(1), angle);
  axis[0] = select(none, T(-1), turn.x * scale);
  axis[1] = turn.y * scale;
  axis[2] = turn.z * scale;
  return range - angle;
}

template <class P, class Team>
SDPG_FN void limit_constraints(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  s.limit_count = 0;
  s.team.template collect<LimitCandidates<P>>(
      m.nlimited, &s.limit_count,
      [&](int i, LimitCandidates<P>& found) {
        const int j = m.limited[i];
        const P* position = s.qpos + m.jnt_qposadr[j];
        const P low = constant<P>(s.k.jnt_range, 2 * j),
                high = constant<P>(s.k.jnt_range, 2 * j + 1);
        const T margin = s.k.limit[j].margin;
        if (m.jnt_type[j] == JointType::kBall) {
          found.distance[0] = ball_distance(position, max(low, high), found.axis);
          found.beyond[1] = false;
        } else {
          found.distance[0] = position[0] - low;
          found.distance[1] = high - position[0];
          found.beyond[1] = any(found.distance[1] < margin);
        }
        found.beyond[0] = any(found.distance[0] < margin);
        return int{found.beyond[0]} + int{found.beyond[1]};
      },
      [&](int i, const LimitCandidates<P>& found, int at, int) {
        const int j = m.limited[i];
        const Softness<T>& soft = s.k.limit[j];
        for (int side = 0; side < 2; ++side) {
          if (!found.beyond[side]) continue;
          Limit<P>& limit = s.limits[at++];
          limit.dof = m.jnt_dofadr[j];
          limit.dofs = m.jnt_type[j] == JointType::kBall ? 3 : 1;
          P velocity = P(T(0)), stiffness, pull;
          for (int k = 0; k < limit.dofs; ++k) {
            limit.axis[k] = limit.dofs == 3 ? found.axis[k] : P(side == 0 ? T(1) : T(-1));
            velocity += limit.axis[k] * s.qvel[limit.dof + k];
          }
          const auto beyond = found.distance[side] < soft.margin;
          resolve(soft, found.distance[side], P(T(1)), &stiffness, &pull);
          limit.reference = -(velocity * soft.damping) - pull;
          limit.stiffness = keep(beyond, stiffness);
          limit.lanes = static_cast<Lanes<P>>(bits(beyond));
        }
      });
}

template <class P, class Team>
SDPG_FN void constraint(Scratch<P, Team>& s) {
  contact_constraints(s);
  limit_constraints(s);
  s.team.each(0, s.model.nloss, [&](int i) {
    s.losses[i].reference = -(s.qvel[s.model.loss_dof[i]] * s.k.loss_damping[i]);
  });
}

SDPG_ISA_END
}  // namespace sdpg::core
