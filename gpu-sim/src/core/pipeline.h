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

// Largest magnitude of a position, velocity or acceleration, as in MuJoCo (mjMAXVAL).
template <class T>
inline constexpr T kLargest = T(1e10);

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
  for (int i = 0; i < triangle(s.model.nv, 0); ++i) s.mass_factor[i] = s.mass[i];
  factor(s.model.mass, s.model.nv, s.mass_factor);
  smooth_acceleration(s);
  constraint(s);
  return solve(s);
}

// Semi-implicit Euler; joint damping is taken at the end of the step, which changes the
// acceleration to (M + h B)^-1 times the force.
template <class P, class Team>
SDPG_FN void integrate(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P h = P(s.k.timestep);
  P* acceleration = s.qacc;
  if (m.implicit_damping) {
    for (int i = 0; i < triangle(m.nv, 0); ++i) s.mass_factor[i] = s.mass[i];
    for (int i = 0; i < m.nv; ++i) s.mass_factor[triangle(i, i)] += h * constant<P>(s.k.damping, i);
    factor(m.mass, m.nv, s.mass_factor);
    acceleration = s.search;
    for (int i = 0; i < m.nv; ++i)
      acceleration[i] = s.passive_and_applied[i] + s.qfrc_constraint[i];
    solve_factored(m.mass, m.nv, s.mass_factor, acceleration);
  }
  const P largest = P(kLargest<T>);
  auto good = all_lanes<P>();
  for (int i = 0; i < m.nv; ++i) {
    s.new_qvel[i] = s.qvel[i] + h * acceleration[i];
    s.new_qpos[i] = s.qpos[i] + h * s.new_qvel[i];
    good = good & (abs(s.qpos[i]) <= largest) & (abs(s.qvel[i]) <= largest) &
           (abs(s.qacc[i]) <= largest) & (abs(s.new_qvel[i]) <= largest) &
           (abs(s.new_qpos[i]) <= largest);
  }
  s.bad_lanes |= bits(!good);
  for (int i = 0; i < m.nv; ++i) {
    s.qpos[i] = select(good, s.new_qpos[i], s.qpos[i]);
    s.qvel[i] = select(good, s.new_qvel[i], s.qvel[i]);
    s.warmstart[i] = select(good, s.qacc[i], s.warmstart[i]);
  }
}

SDPG_ISA_END
}  // namespace sdpg::core
