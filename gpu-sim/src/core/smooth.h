// Stage `smooth dynamics`: velocities and bias forces by the recursive Newton-Euler method, passive
// forces, actuators, and the acceleration without constraints.
#pragma once

#include "core/inertia.h"
#include "core/parameter.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Velocity of one body, its acceleration at zero joint acceleration, and the force that gives its
// own inertia this acceleration, all about the reference of its tree.
template <class P, class Team>
SDPG_FN void body_motion(Scratch<P, Team>& s, int b) {
  const Model& m = s.model;
  const int parent = m.body_parent[b];
  Spatial<P> v = load6(s.velocity + 6 * parent), a = load6(s.acceleration + 6 * parent);
  for (int j = m.body_jnt[b]; j < m.body_jnt[b + 1]; ++j) {
    const JointType type = m.jnt_type[j];
    int d = m.jnt_dofadr[j];
    // A motion changes by the velocity of what carries it, the joints before it included. That of
    // several dofs which turn with the body changes as a whole by the velocity before it. The
    // translations of a free joint keep to the axes of the world.
    if (type == JointType::kFree) {
      v.l = v.l + load3(s.qvel + d);
      d += 3;
    }
    if (type == JointType::kSlide) {
      const Vec3<P> linear = load3(s.cdof + 6 * d + 3) * s.qvel[d];
      a.l = a.l + cross(v.r, linear);
      v.l = v.l + linear;
      continue;
    }
    Spatial<P> motion = load6(s.cdof + 6 * d);
    motion = {motion.r * s.qvel[d], motion.l * s.qvel[d]};
    if (type != JointType::kHinge)
      for (int i = 1; i < 3; ++i) {
        const Spatial<P> next = load6(s.cdof + 6 * (d + i));
        motion = {motion.r + next.r * s.qvel[d + i], motion.l + next.l * s.qvel[d + i]};
      }
    a.r = a.r + cross(v.r, motion.r);
    a.l = a.l + cross(v.r, motion.l) + cross(v.l, motion.r);
    v = {v.r + motion.r, v.l + motion.l};
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

// What a force on the body and all it carries does along a degree of freedom.
template <class P, class Team>
SDPG_INLINE P along_dof(const Scratch<P, Team>& s, int d, const P* forces) {
  const P* force = forces + 6 * s.model.dof_bodyid[d];
  const P linear = dot(load3(s.cdof + 6 * d + 3), load3(force + 3));
  return is_angular(s.model, d) ? linear + dot(load3(s.cdof + 6 * d), load3(force)) : linear;
}

// Forces of inertia and gravity at zero joint acceleration; leaves them, negated, in
// passive_and_applied. Reads the bodies' own inertias, so it runs before crb().
template <class P, class Team>
SDPG_FN void bias_forces(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  s.team.each(0, 6, [&](int i) {
    s.velocity[i] = P(T(0));
    // An accelerating world in place of gravity.
    s.acceleration[i] = i < 3 ? P(T(0)) : P(-s.k.gravity[i - 3]);
  });
  for (int level = 0; level < m.nlevel; ++level)
    s.team.each(m.level_begin[level], m.level_begin[level + 1],
                [&](int i) { body_motion(s, m.level_body[i]); });
  sum_subtrees<6>(s, s.body_force);
  s.team.each(0, m.nv, [&](int d) { s.passive_and_applied[d] = -along_dof(s, d, s.body_force); });
}

// What gravity compensation does along each degree of freedom: a force on the centre of mass of
// every body against its weight.
template <class P, class Team>
SDPG_FN void compensate_gravity(Scratch<P, Team>& s) {
  const Model& m = s.model;
  const Vec3<P> up = {P(-s.k.gravity[0]), P(-s.k.gravity[1]), P(-s.k.gravity[2])};
  s.team.each(1, m.nbody, [&](int b) {
    const Vec3<P> offset = load3(s.xipos + 3 * b) - load3(s.xpos + 3 * m.body_root[b]);
    const Vec3<P> force =
        up * (parameter(s, Parameter::kBodyMass, b) * constant<P>(s.k.gravcomp, b));
    store6(s.body_force + 6 * b, Spatial<P>{cross(offset, force), force});
  });
  sum_subtrees<6>(s, s.body_force);
  s.team.each(0, m.nv, [&](int d) { s.gravity_force[d] = along_dof(s, d, s.body_force); });
}

// Springs of one joint.
template <class P, class Team>
SDPG_FN void spring_force(Scratch<P, Team>& s, int j) {
  const Model& m = s.model;
  const P stiffness = parameter(s, Parameter::kJntStiffness, j);
  const auto pull = [&](int d, P displacement) {
    s.passive_and_applied[d] -= displacement * stiffness;
  };
  int at = m.jnt_qposadr[j], d = m.jnt_dofadr[j];
  const JointType type = m.jnt_type[j];
  if (type == JointType::kFree) {
    for (int i = 0; i < 3; ++i, ++at, ++d) pull(d, s.qpos[at] - constant<P>(s.k.qpos_spring, at));
  }
  if (type == JointType::kFree || type == JointType::kBall) {
    // The turn from the spring's rest, in the body's own axes.
    P now[4], turn[4];
    load_unit_quaternion(now, s.qpos + at);
    const P back[4] = {constant<P>(s.k.qpos_spring, at), -constant<P>(s.k.qpos_spring, at + 1),
                       -constant<P>(s.k.qpos_spring, at + 2),
                       -constant<P>(s.k.qpos_spring, at + 3)};
    multiply_quaternions(turn, back, now);
    const Vec3<P> vector = rotation_vector(turn);
    pull(d, vector.x);
    pull(d + 1, vector.y);
    pull(d + 2, vector.z);
  } else {
    pull(d, s.qpos[at] - constant<P>(s.k.qpos_spring, at));
  }
}

// Springs and dampers of the joints, gravity compensation.
template <class P, class Team>
SDPG_FN void passive_forces(Scratch<P, Team>& s) {
  const Model& m = s.model;
  if (m.has_gravcomp) compensate_gravity(s);
  s.team.each(0, m.nv, [&](int d) {
    s.passive_and_applied[d] -= s.qvel[d] * parameter(s, Parameter::kDofDamping, d);
    if (m.has_gravcomp && !m.jnt_actgravcomp[m.dof_jntid[d]])
      s.passive_and_applied[d] += s.gravity_force[d];
  });
  s.team.each(0, m.nspring, [&](int i) { spring_force(s, m.spring_jnt[i]); });
}

// NaN passes through, so that a bad control is seen and not turned into a bound.
template <class P>
SDPG_INLINE P clamp(P x, P low, P high) {
  x = select(x < low, low, x);
  return select(x > high, high, x);
}
// Between the two numbers of row `index` of a table.
template <class P>
SDPG_INLINE P clamp(P x, const typename P::Scalar* range, int index) {
  return clamp(x, constant<P>(range, 2 * index), constant<P>(range, 2 * index + 1));
}

// Length of an actuator's transmission: the joint's position along the gear. That of a free joint
// is 0 by MuJoCo's definition.
template <class P, class Team>
SDPG_FN P actuator_length(const Scratch<P, Team>& s, int a) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const int j = m.act_jnt[a], at = m.jnt_qposadr[j];
  const typename P::Scalar* gear = s.k.gear + 6 * a;
  if (m.jnt_type[j] == JointType::kFree) return P(T(0));
  if (m.jnt_type[j] != JointType::kBall) return s.qpos[at] * constant<P>(gear, 0);
  P now[4];
  load_unit_quaternion(now, s.qpos + at);
  return dot(rotation_vector(now), constant3<P>(gear, 0));
}
template <class P, class Team>
SDPG_FN P actuator_velocity(const Scratch<P, Team>& s, int a) {
  const Model& m = s.model;
  const int d = m.jnt_dofadr[m.act_jnt[a]];
  P velocity = s.qvel[d] * constant<P>(s.k.gear, 6 * a);
  for (int i = 1; i < m.act_dofnum[a]; ++i)
    velocity += s.qvel[d + i] * constant<P>(s.k.gear, 6 * a + i);
  return velocity;
}

// The activation of an actuator after this step.
template <class P, class Team>
SDPG_INLINE P next_activation(const Scratch<P, Team>& s, int a) {
  const Model& m = s.model;
  const int i = m.act_actadr[a];
  const P next = s.act[i] + s.act_dot[i] * constant<P>(s.k.act_step, a);
  return m.act_actlimited[a] ? clamp(next, s.k.act_range, a) : next;
}

// act_dot and force of one actuator.
template <class P, class Team>
SDPG_FN void actuator_force(Scratch<P, Team>& s, int a) {
  const Model& m = s.model;
  P input = s.ctrl[a];
  if (m.act_ctrl_limited[a]) input = clamp(input, s.k.ctrl_range, a);
  if (m.act_dyntype[a] != DynamicsType::kNone) {
    const int i = m.act_actadr[a];
    s.act_dot[i] = m.act_dyntype[a] == DynamicsType::kIntegrator
                       ? input
                       : (input - s.act[i]) * constant<P>(s.k.act_rate, a);
    input = m.act_early[a] ? next_activation(s, a) : s.act[i];
  }
  P gain = parameter(s, Parameter::kActuatorGain, a), bias{};
  if (m.act_affine_gain[a] || m.act_affine[a]) {
    const P length = actuator_length(s, a), velocity = actuator_velocity(s, a);
    if (m.act_affine_gain[a])
      gain += length * constant<P>(s.k.gain_slope, 2 * a) +
              velocity * constant<P>(s.k.gain_slope, 2 * a + 1);
    if (m.act_affine[a])
      bias = parameter(s, Parameter::kActuatorBias, 3 * a) +
             length * parameter(s, Parameter::kActuatorBias, 3 * a + 1) +
             velocity * parameter(s, Parameter::kActuatorBias, 3 * a + 2);
  }
  P force = input * gain;
  if (m.act_affine[a]) force += bias;
  if (m.act_force_limited[a]) force = clamp(force, s.k.force_range, a);
  s.actuator_input[a] = input;
  s.actuator_force[a] = force;
}

template <class P, class Team>
SDPG_FN void actuator_forces(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  if (!m.actuated) return;
  s.team.each(0, m.nu, [&](int a) { actuator_force(s, a); });
  s.team.each(0, m.nv, [&](int d) {
    const int j = m.dof_jntid[d], within = d - m.jnt_dofadr[j];
    P force = P(T(0));
    for (int i = m.jnt_act_begin[j]; i < m.jnt_act_begin[j + 1]; ++i) {
      const int a = m.jnt_act[i];
      force += s.actuator_force[a] * constant<P>(s.k.gear, 6 * a + within);
    }
    if (m.has_gravcomp && m.jnt_actgravcomp[j]) force += s.gravity_force[d];
    if (m.jnt_actfrclimited[j]) force = clamp(force, s.k.jnt_actfrcrange, j);
    s.passive_and_applied[d] += force;
  });
}

// qacc_smooth, from the factored mass matrix.
template <class P, class Team>
SDPG_FN void smooth_acceleration(Scratch<P, Team>& s) {
  s.team.each(0, s.model.nv, [&](int d) { s.smooth[d] = s.passive_and_applied[d]; });
  solve_factored(s.team, s.model.mass, s.model.nv, s.mass_factor, s.smooth);
}

SDPG_ISA_END
}  // namespace sdpg::core
