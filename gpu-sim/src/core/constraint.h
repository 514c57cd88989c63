// Stage `constraint`: for every contact and every joint beyond its range, the Jacobian, the
// reference acceleration a* = -B v - K d (r - margin), and the stiffness D = 1 / R with R = (1 - d)
// / d times the inverse inertia MuJoCo assumes for the row.
#pragma once

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

// D and K d (r - margin).
template <class P>
SDPG_INLINE void resolve(const Softness<typename P::Scalar>& soft, P r, P* stiffness, P* pull) {
  using T = typename P::Scalar;
  const Impedance<P> d = impedance(soft, r);
  const P regularisation = max(P(soft.inverse_weight) * d.complement / d.value, T(1e-15));
  *stiffness = T(1) / regularisation;
  *pull = P(soft.stiffness) * d.value * (r - soft.margin);
}

// rows[3][max_chain]: how the pair's degrees of freedom move geom 2 against geom 1 at the contact.
template <class P, class Team>
SDPG_FN void contact_jacobian(const Scratch<P, Team>& s, const Contact<P>& contact, P* rows) {
  const Model& m = s.model;
  const Pair& pair = m.pair[contact.pair];
  int root = -1;
  Vec3<P> arm{};
  for (int i = 0; i < pair.dof_count; ++i) {
    const int dof = m.pair_dof[pair.dof_begin + i];
    Vec3<P> linear = load3(s.cdof + 6 * dof + 3);
    if (is_angular(m, dof)) {
      const int dof_root = m.body_root[m.dof_bodyid[dof]];
      if (dof_root != root) {
        root = dof_root;
        arm = contact.position - load3(s.xpos + 3 * root);
      }
      linear = linear + cross(load3(s.cdof + 6 * dof), arm);
    }
    if (m.pair_sign[pair.dof_begin + i] < 0) linear = Vec3<P>{-linear.x, -linear.y, -linear.z};
    rows[i] = dot(contact.normal, linear);
    if (pair.condim == 1) continue;
    rows[m.max_chain + i] = dot(contact.tangent1, linear);
    rows[2 * m.max_chain + i] = dot(contact.tangent2, linear);
  }
}

// out[k] = sum of row k times x, k below the contact's base directions.
template <class P, class Team>
SDPG_INLINE void multiply_rows(const Scratch<P, Team>& s, const Pair& pair, const P* rows,
                               const P* x, P* out) {
  using T = typename P::Scalar;
  const int stride = s.model.max_chain;
  P n = P(T(0)), t1 = P(T(0)), t2 = P(T(0));
  for (int i = 0; i < pair.dof_count; ++i) {
    const P value = x[s.model.pair_dof[pair.dof_begin + i]];
    n += rows[i] * value;
    if (pair.condim == 1) continue;
    t1 += rows[stride + i] * value;
    t2 += rows[2 * stride + i] * value;
  }
  out[0] = n;
  out[1] = t1;
  out[2] = t2;
}

template <class P, class Team>
SDPG_FN void contact_constraints(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  for (int c = 0; c < s.contact_count; ++c) {
    Contact<P>& contact = s.contacts[c];
    const Pair& pair = s.model.pair[contact.pair];
    const Softness<T>& soft = s.k.contact[contact.pair];
    contact_jacobian(s, contact, s.rows(c));
    P velocity[3], stiffness, pull;
    multiply_rows(s, pair, s.rows(c), s.qvel, velocity);
    resolve(soft, contact.distance, &stiffness, &pull);
    for (int i = 0; i < 3; ++i) contact.reference[i] = -(velocity[i] * soft.damping);
    contact.reference[0] -= pull;
    contact.stiffness = keep(contact.stiffness > T(0), stiffness);
  }
}

template <class P, class Team>
SDPG_FN void limit_constraints(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  s.limit_count = 0;
  for (int i = 0; i < m.nlimited; ++i) {
    const int j = m.limited[i], dof = m.jnt_dofadr[j];
    const P position = s.qpos[m.jnt_qposadr[j]];
    const Softness<T>& soft = s.k.limit[j];
    for (int side = 0; side < 2; ++side) {
      const P distance = side == 0 ? position - constant<P>(s.k.jnt_range, 2 * j)
                                   : constant<P>(s.k.jnt_range, 2 * j + 1) - position;
      const auto beyond = distance < soft.margin;
      if (!any(beyond)) continue;
      Limit<P>& limit = s.limits[s.limit_count++];
      limit.dof = dof;
      limit.sign = side == 0 ? T(1) : T(-1);
      P stiffness, pull;
      resolve(soft, distance, &stiffness, &pull);
      limit.reference = -(s.qvel[dof] * (limit.sign * soft.damping)) - pull;
      limit.stiffness = keep(beyond, stiffness);
    }
  }
}

template <class P, class Team>
SDPG_FN void constraint(Scratch<P, Team>& s) {
  contact_constraints(s);
  limit_constraints(s);
}

SDPG_ISA_END
}  // namespace sdpg::core
