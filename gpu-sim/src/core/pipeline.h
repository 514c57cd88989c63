// One physics step of a block: the stages in MuJoCo's order and with its names.
#pragma once

#include "core/collision.h"
#include "core/constraint.h"
#include "core/inertia.h"
#include "core/kernels.h"
#include "core/kinematics.h"
#include "core/scratch.h"
#include "core/smooth.h"
#include "core/solver.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// From state and controls to accelerations. Returns the lanes in which the solver did not converge.
template <class P, class Team>
SDPG_FN std::uint32_t forward(Scratch<P, Team>& s) {
  kinematics(s);
  com(s);
  collision(s);
  bias_forces(s);
  passive_forces(s);
  actuator_forces(s);
  crb(s);
  factor(s.team, s.model.mass, s.model.nv, s.mass, s.mass_factor);
  smooth_acceleration(s);
  constraint(s);
  return solve(s);
}

// Row i of M - h times the derivative of the smooth forces by velocity (mjd_smooth_vel without the
// bias): damping, and for implicitfast what actuators add. The couplings within a joint that
// several dofs share lie in the pattern of M, since each of these dofs carries the next.
template <class P, class Team>
SDPG_FN void implicit_row(Scratch<P, Team>& s, int i) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P h = P(s.k.timestep);
  P* row = s.mass_factor + triangle(i, 0);
  const P* mass = s.mass + triangle(i, 0);
  for (int c = m.mass.begin[i]; c < m.mass.begin[i + 1]; ++c)
    row[m.mass.col[c]] = mass[m.mass.col[c]];
  row[i] = mass[i] + h * parameter(s, Parameter::kDofDamping, i);
  if (m.integrator != Integrator::kImplicitFast || !m.actuated) return;
  const int j = m.dof_jntid[i], first = m.jnt_dofadr[j];
  for (int n = m.jnt_act_begin[j]; n < m.jnt_act_begin[j + 1]; ++n) {
    const int a = m.jnt_act[n];
    if (!m.act_affine[a] && !m.act_affine_gain[a]) continue;
    P slope = m.act_affine[a] ? parameter(s, Parameter::kActuatorBias, 3 * a + 2) : P(T(0));
    if (m.act_affine_gain[a]) slope += s.actuator_input[a] * constant<P>(s.k.gain_slope, 2 * a + 1);
    if (m.act_force_limited[a]) {
      // A force at its bound does not change with velocity.
      const P force = s.actuator_force[a];
      slope = keep((force > constant<P>(s.k.force_range, 2 * a)) &
                       (force < constant<P>(s.k.force_range, 2 * a + 1)),
                   slope);
    }
    slope = slope * (h * constant<P>(s.k.gear, 6 * a + i - first));
    for (int d = first; d <= i; ++d) row[d] -= slope * constant<P>(s.k.gear, 6 * a + d - first);
  }
}

// Acceleration of the six degrees of freedom of a free body that carries no joint, with the forces
// of its own spin taken at the end of the step too: MuJoCo's implicitfast does so for such bodies
// only, whose equations stand alone, by an unsymmetric solve.
template <class P, class Team>
SDPG_FN void solve_lone_body(Scratch<P, Team>& s, int j, P* acceleration) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P h = P(s.k.timestep);
  const int d = m.jnt_dofadr[j];
  P a[6][6], x[6];
  for (int i = 0; i < 6; ++i) {
    implicit_row(s, d + i);
    const P* row = s.mass_factor + triangle(d + i, d);
    for (int c = 0; c <= i; ++c) a[i][c] = a[c][i] = row[c];
    x[i] = s.passive_and_applied[d + i] + s.qfrc_constraint[d + i];
  }
  // About the body's origin the spin w costs the force w x (w x mr) and the moment w x (I w).
  const P* inertia = s.inertia + 10 * m.jnt_bodyid[j];
  const Vec3<P> moment = load3(inertia + 6), zero{P(T(0)), P(T(0)), P(T(0))};
  const auto axis = [&](int i) { return load3(s.cdof + 6 * (d + 3 + i)); };
  const auto angular_momentum = [&](const Vec3<P>& w) {
    return apply_inertia(inertia, Spatial<P>{w, zero}).r;
  };
  const Vec3<P> w = axis(0) * s.qvel[d + 3] + axis(1) * s.qvel[d + 4] + axis(2) * s.qvel[d + 5];
  const Vec3<P> carried = cross(w, moment), spin = angular_momentum(w);
  for (int c = 0; c < 3; ++c) {
    const Vec3<P> t = axis(c);
    const Vec3<P> force = (cross(t, carried) + cross(w, cross(t, moment))) * h;
    const Vec3<P> torque = (cross(t, spin) + cross(w, angular_momentum(t))) * h;
    a[0][3 + c] += force.x;
    a[1][3 + c] += force.y;
    a[2][3 + c] += force.z;
    for (int i = 0; i < 3; ++i) a[3 + i][3 + c] += dot(axis(i), torque);
  }
  for (int k = 0; k < 6; ++k) {
    const P inverse = T(1) / a[k][k];
    for (int i = k + 1; i < 6; ++i) {
      const P multiplier = a[i][k] * inverse;
      for (int c = k + 1; c < 6; ++c) a[i][c] -= multiplier * a[k][c];
      x[i] -= multiplier * x[k];
    }
  }
  for (int k = 5; k >= 0; --k) {
    for (int c = k + 1; c < 6; ++c) x[k] -= a[k][c] * x[c];
    x[k] = x[k] / a[k][k];
    acceleration[d + k] = x[k];
  }
}

// The positions of one joint after the step.
template <class P, class Team>
SDPG_FN void integrate_joint(Scratch<P, Team>& s, int j) {
  const Model& m = s.model;
  const P h = P(s.k.timestep);
  const JointType type = m.jnt_type[j];
  int at = m.jnt_qposadr[j], d = m.jnt_dofadr[j];
  const int straight = type == JointType::kFree ? 3 : type == JointType::kBall ? 0 : 1;
  for (int i = 0; i < straight; ++i, ++at, ++d) s.new_qpos[at] = s.qpos[at] + h * s.new_qvel[d];
  if (straight == 1) return;
  load_unit_quaternion(s.new_qpos + at, s.qpos + at);
  integrate_quaternion(s.new_qpos + at, load3(s.new_qvel + d), h);
}

// Semi-implicit Euler. Velocity-dependent forces are taken at the end of the step (joint damping
// with Euler, actuators too with implicitfast), which changes the acceleration to
// (M - h dF/dv)^-1 times the force.
template <class P, class Team>
SDPG_FN void integrate(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P h = P(s.k.timestep);
  P* acceleration = s.qacc;
  if (m.implicit) {
    acceleration = s.search;
    s.team.each(0, m.nv, [&](int i) {
      implicit_row(s, i);
      acceleration[i] = s.passive_and_applied[i] + s.qfrc_constraint[i];
    });
    factor(s.team, m.mass, m.nv, s.mass_factor, s.mass_factor);
    solve_factored(s.team, m.mass, m.nv, s.mass_factor, acceleration);
    s.team.each(0, m.nlone, [&](int i) { solve_lone_body(s, m.lone_jnt[i], acceleration); });
  }
  const P largest = P(kLargest<T>);
  const auto beyond = [&](P x) { return !(abs(x) <= largest); };
  s.team.each(0, m.nv, [&](int i) { s.new_qvel[i] = s.qvel[i] + h * acceleration[i]; });
  s.team.each(0, m.njnt, [&](int j) { integrate_joint(s, j); });
  // Without actuation activations stand still.
  s.team.each(0, m.na, [&](int i) {
    s.new_act[i] = m.actuated ? next_activation(s, m.actuator_of_act[i]) : s.act[i];
  });
  std::uint32_t bad = s.team.unite(0, m.nv, [&](int i) {
    return bits(beyond(s.qvel[i]) | beyond(s.qacc[i]) | beyond(s.new_qvel[i]));
  });
  bad |=
      s.team.unite(0, m.nq, [&](int i) { return bits(beyond(s.qpos[i]) | beyond(s.new_qpos[i])); });
  bad |=
      s.team.unite(0, m.na, [&](int i) { return bits(beyond(s.act[i]) | beyond(s.new_act[i])); });
  s.bad_lanes |= bad;
  const auto good = !from_bits<P>(bad);
  s.team.each(0, m.nq, [&](int i) { s.qpos[i] = select(good, s.new_qpos[i], s.qpos[i]); });
  s.team.each(0, m.nv, [&](int i) {
    s.qvel[i] = select(good, s.new_qvel[i], s.qvel[i]);
    s.warmstart[i] = select(good, s.qacc[i], s.warmstart[i]);
  });
  s.team.each(0, m.na, [&](int i) { s.act[i] = select(good, s.new_act[i], s.act[i]); });
}

SDPG_ISA_END
}  // namespace sdpg::core
