// Stage `smooth dynamics`: velocities and bias forces by the recursive Newton-Euler method, passive
// forces, actuators, and the acceleration without constraints.
#pragma once

#include "core/inertia.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Forces of inertia and gravity at zero joint acceleration; leaves them, negated, in
// passive_and_applied. Reads the bodies' own inertias, so it runs before crb().
template <class P, class Team>
SDPG_FN void bias_forces(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  for (int i = 0; i < 6; ++i) {
    s.velocity[i] = P(T(0));
    // An accelerating world in place of gravity.
    s.acceleration[i] = i < 3 ? P(T(0)) : P(-s.k.gravity[i - 3]);
  }
  for (int b = 1; b < m.nbody; ++b) {
    const int parent = m.body_parent[b];
    Spatial<P> v = load6(s.velocity + 6 * parent), a = load6(s.acceleration + 6 * parent);
    for (int j = m.body_dof[b]; j < m.body_dof[b + 1]; ++j) {
      // A motion changes by the velocity of what carries it, the joints before it included.
      const P rate = s.qvel[j];
      const Vec3<P> linear = load3(s.cdof + 6 * j + 3) * rate;
      a.l = a.l + cross(v.r, linear);
      if (is_angular(m, j)) {
        const Vec3<P> angular = load3(s.cdof + 6 * j) * rate;
        a.r = a.r + cross(v.r, angular);
        a.l = a.l + cross(v.l, angular);
        v.r = v.r + angular;
      }
      v.l = v.l + linear;
    }
    store6(s.velocity + 6 * b, v);
    store6(s.acceleration + 6 * b, a);
    const P* inertia = s.inertia + 10 * b;
    const Spatial<P> momentum = apply_inertia(inertia, v);
    Spatial<P> force = apply_inertia(inertia, a);
    force.r = force.r + cross(v.r, momentum.r) + cross(v.l, momentum.l);
    force.l = force.l + cross(v.r, momentum.l);
    store6(s.body_force + 6 * b, force);
  }
  for (int b = m.nbody - 1; b > 0; --b) {
    const Spatial<P> force = load6(s.body_force + 6 * b);
    for (int j = m.body_dof[b]; j < m.body_dof[b + 1]; ++j) {
      P bias = dot(load3(s.cdof + 6 * j + 3), force.l);
      if (is_angular(m, j)) bias += dot(load3(s.cdof + 6 * j), force.r);
      s.passive_and_applied[j] = -bias;
    }
    const int parent = m.body_parent[b];
    if (parent == 0) continue;
    for (int i = 0; i < 6; ++i) s.body_force[6 * parent + i] += s.body_force[6 * b + i];
  }
}

// Springs and dampers of the joints.
template <class P, class Team>
SDPG_FN void passive_forces(Scratch<P, Team>& s) {
  const Model& m = s.model;
  for (int d = 0; d < m.nv; ++d)
    s.passive_and_applied[d] -= s.qvel[d] * constant<P>(s.k.damping, d);
  if (!m.has_stiffness) return;
  for (int j = 0; j < m.njnt; ++j) {
    const int at = m.jnt_qposadr[j];
    s.passive_and_applied[m.jnt_dofadr[j]] -=
        (s.qpos[at] - constant<P>(s.k.qpos_spring, at)) * constant<P>(s.k.stiffness, j);
  }
}

// NaN passes through, so that a bad control is seen and not turned into a bound.
template <class P>
SDPG_INLINE P clamp(P x, P low, P high) {
  x = select(x < low, low, x);
  return select(x > high, high, x);
}

template <class P, class Team>
SDPG_FN void actuator_forces(Scratch<P, Team>& s) {
  const Model& m = s.model;
  for (int a = 0; a < m.nu; ++a) {
    const int j = m.act_jnt[a], dof = m.jnt_dofadr[j];
    P control = s.ctrl[a];
    if (m.act_ctrl_limited[a])
      control = clamp(control, constant<P>(s.k.ctrl_range, 2 * a),
                      constant<P>(s.k.ctrl_range, 2 * a + 1));
    P force = control * constant<P>(s.k.gain, a);
    if (m.act_affine[a]) {
      const P gear = constant<P>(s.k.gear, a);
      force += constant<P>(s.k.bias, 3 * a) +
               s.qpos[m.jnt_qposadr[j]] * gear * constant<P>(s.k.bias, 3 * a + 1) +
               s.qvel[dof] * gear * constant<P>(s.k.bias, 3 * a + 2);
    }
    if (m.act_force_limited[a])
      force = clamp(force, constant<P>(s.k.force_range, 2 * a),
                    constant<P>(s.k.force_range, 2 * a + 1));
    s.passive_and_applied[dof] += force * constant<P>(s.k.gear, a);
  }
}

// qacc_smooth, from the factored mass matrix.
template <class P, class Team>
SDPG_FN void smooth_acceleration(Scratch<P, Team>& s) {
  for (int j = 0; j < s.model.nv; ++j) s.smooth[j] = s.passive_and_applied[j];
  solve_factored(s.model.mass, s.model.nv, s.mass_factor, s.smooth);
}

SDPG_ISA_END
}  // namespace sdpg::core
