// Joints and degrees of freedom: types, springs, damping, ranges.
#include <algorithm>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::joints() {
  const pb::Joints& j = in.joints();
  const pb::Dofs& d = in.dofs();
  expect_size(j.qposadr(), njnt, 1, "joints.qposadr");
  expect_size(j.dofadr(), njnt, 1, "joints.dofadr");
  expect_size(j.bodyid(), njnt, 1, "joints.bodyid");
  expect_size(j.limited(), njnt, 1, "joints.limited");
  expect_size(d.bodyid(), nv, 1, "dofs.bodyid");
  expect_size(d.jntid(), nv, 1, "dofs.jntid");
  expect_size(d.parentid(), nv, 1, "dofs.parentid");
  std::vector<int> qposadr(njnt), dofadr(njnt), bodyid(njnt), dof_bodyid(nv), dof_jntid(nv),
      limited;
  std::vector<std::uint8_t> angular(nv);
  std::vector<int> loss_dof;
  std::vector<double> loss_force, loss_stiffness, loss_damping;
  int next_position = 0, next_dof = 0, owner = 0;
  for (int i = 0; i < njnt; ++i) {
    while (out->body_jnt[owner + 1] <= i) ++owner;
    if (i > out->body_jnt[owner] && joint_type[i - 1] == JointType::kBall &&
        joint_type[i] != JointType::kSlide)
      refuse(joint(i) + ": no joint may turn a body after a ball joint");
    qposadr[i] = next_position;
    dofadr[i] = next_dof;
    bodyid[i] = owner;
    bool agree = j.qposadr(i) == next_position && j.dofadr(i) == next_dof && j.bodyid(i) == owner;
    for (int k = 0; k < dof_count(joint_type[i]); ++k) {
      const int dof = next_dof + k;
      dof_bodyid[dof] = owner;
      dof_jntid[dof] = i;
      angular[dof] =
          joint_type[i] == JointType::kFree ? k >= 3 : joint_type[i] != JointType::kSlide;
      const std::vector<int>& own = chain[owner];
      const auto at = std::find(own.begin(), own.end(), dof);
      const int before = at == own.begin() ? -1 : *(at - 1);
      agree = agree && d.bodyid(dof) == owner && d.jntid(dof) == i && d.parentid(dof) == before;
    }
    if (!agree) refuse(joint(i) + ": its indices contradict the bodies; compile the model again");
    next_position += position_count(joint_type[i]);
    next_dof += dof_count(joint_type[i]);
  }
  const std::vector<double> pos = reals(j.pos(), njnt, 3, "joints.pos");
  std::vector<double> axis = reals(j.axis(), njnt, 3, "joints.axis");
  std::vector<double> range = reals(j.range(), njnt, 2, "joints.range");
  const std::vector<double> margin = reals(j.margin(), njnt, 1, "joints.margin");
  const std::vector<double> solref = reals(j.solref(), njnt, 2, "joints.solref");
  const std::vector<double> solimp = reals(j.solimp(), njnt, 5, "joints.solimp");
  std::vector<double> stiffness = reals(j.stiffness(), njnt, 1, "joints.stiffness");
  const std::vector<double> armature = reals(d.armature(), nv, 1, "dofs.armature");
  std::vector<double> damping = reals(d.damping(), nv, 1, "dofs.damping");
  const std::vector<double> friction = reals(d.frictionloss(), nv, 1, "dofs.frictionloss");
  const std::vector<int> actgravcomp =
      integers_or_zero(j.actgravcomp(), njnt, "joints.actgravcomp");
  const std::vector<int> actfrclimited =
      integers_or_zero(j.actfrclimited(), njnt, "joints.actfrclimited");
  const std::vector<double> force_range =
      reals_or_zero(j.actfrcrange(), njnt, 2, "joints.actfrcrange");
  const std::vector<double> loss_solref = reals(d.solref(), nv, 2, "dofs.solref");
  const std::vector<double> loss_solimp = reals(d.solimp(), nv, 5, "dofs.solimp");
  const std::vector<double> invweight = reals(d.invweight0(), nv, 1, "dofs.invweight0");
  for (int i = 0; i < nv; ++i) {
    if (armature[i] < 0 || damping[i] < 0 || invweight[i] < 0 || friction[i] < 0)
      refuse(joint(dof_jntid[i]) +
             ": armature, damping, frictionloss and invweight0 must be at least 0");
    if (disabled & kNoDamper) damping[i] = 0;
    if ((damping[i] != 0 || varies(Parameter::kDofDamping, i)) &&
        (out->integrator == Integrator::kImplicitFast || !(disabled & kNoEulerDamp)))
      out->implicit = true;
    if (friction[i] == 0 || disabled & (kNoFrictionLoss | kNoConstraint)) continue;
    const Softness<double> loss =
        soften(joint(dof_jntid[i]), &loss_solref[2 * i], &loss_solimp[5 * i], 0, invweight[i]);
    // Its position is always 0, so the impedance is that of the curve's start.
    loss_dof.push_back(i);
    loss_force.push_back(friction[i]);
    loss_stiffness.push_back(
        1 / std::max(kTiny, invweight[i] * (loss.one_minus_d1 + loss.rise) / loss.d0));
    loss_damping.push_back(loss.damping);
  }
  std::vector<Softness<double>> soft(njnt);
  std::vector<int> springs;
  std::vector<std::uint8_t> gravity_by_actuator(njnt), force_limited(njnt);
  for (int i = 0; i < njnt; ++i) {
    normalize(&axis[3 * i], 3, joint(i) + ": axis");
    if (stiffness[i] < 0)
      refuse(joint(i) + ": expected stiffness at least 0, got " + number(stiffness[i]));
    if (j.limited(i) != 0 && j.limited(i) != 1)
      refuse(joint(i) + ": limited: expected 0 or 1, got " + std::to_string(j.limited(i)));
    if (disabled & kNoSpring) stiffness[i] = 0;
    if (stiffness[i] != 0 || varies(Parameter::kJntStiffness, i)) springs.push_back(i);
    gravity_by_actuator[i] = actgravcomp[i] != 0;
    force_limited[i] = actfrclimited[i] != 0;
    if (force_limited[i] && dof_count(joint_type[i]) != 1)
      refuse("unsupported: " + joint(i) + ": actuatorfrcrange of a joint with several dofs");
    if (force_limited[i] && !(force_range[2 * i] <= force_range[2 * i + 1]))
      refuse(joint(i) + ": expected an increasing actuatorfrcrange, got " +
             number(force_range[2 * i]) + " to " + number(force_range[2 * i + 1]));
    if (!j.limited(i) || disabled & (kNoLimit | kNoConstraint)) continue;
    if (joint_type[i] == JointType::kFree) refuse(joint(i) + ": a free joint has no range");
    if (!(range[2 * i] < range[2 * i + 1]))
      refuse(joint(i) + ": expected an increasing range, got " + number(range[2 * i]) + " to " +
             number(range[2 * i + 1]));
    limited.push_back(i);
    soft[i] = soften(joint(i), &solref[2 * i], &solimp[5 * i], margin[i], invweight[dofadr[i]]);
  }
  std::vector<int> lone;
  for (int i = 0; i < njnt && out->integrator == Integrator::kImplicitFast; ++i)
    if (joint_type[i] == JointType::kFree &&
        std::count(body_root.begin(), body_root.end(), bodyid[i]) ==
            std::count(body_weld.begin(), body_weld.end(), bodyid[i]))
      lone.push_back(i);
  if (!lone.empty()) out->implicit = true;
  out->lone_jnt = out->own(lone);
  out->nlone = static_cast<int>(lone.size());
  out->jnt_type = out->own(joint_type);
  out->jnt_qposadr = out->own(qposadr);
  out->jnt_dofadr = out->own(dofadr);
  out->jnt_bodyid = out->own(bodyid);
  out->dof_bodyid = out->own(dof_bodyid);
  out->dof_jntid = out->own(dof_jntid);
  out->dof_angular = out->own(angular);
  out->spring_jnt = out->own(springs);
  out->nspring = static_cast<int>(springs.size());
  out->jnt_actgravcomp = out->own(gravity_by_actuator);
  out->jnt_actfrclimited = out->own(force_limited);
  out->own(&Constants<float>::jnt_actfrcrange, &Constants<double>::jnt_actfrcrange, force_range);
  out->nlimited = static_cast<int>(limited.size());
  out->max_limits = 2 * out->nlimited;
  out->limited = out->own(limited);
  out->nloss = static_cast<int>(loss_dof.size());
  out->loss_dof = out->own(loss_dof);
  out->own(&Constants<float>::loss_force, &Constants<double>::loss_force, loss_force);
  out->own(&Constants<float>::loss_stiffness, &Constants<double>::loss_stiffness, loss_stiffness);
  out->own(&Constants<float>::loss_damping, &Constants<double>::loss_damping, loss_damping);
  out->own(&Constants<float>::jnt_pos, &Constants<double>::jnt_pos, pos);
  out->own(&Constants<float>::jnt_axis, &Constants<double>::jnt_axis, axis);
  out->own(&Constants<float>::jnt_range, &Constants<double>::jnt_range, range);
  out->own(&Constants<float>::stiffness, &Constants<double>::stiffness, stiffness);
  out->own(&Constants<float>::armature, &Constants<double>::armature, armature);
  out->own(&Constants<float>::damping, &Constants<double>::damping, damping);
  out->own(&Constants<float>::qpos0, &Constants<double>::qpos0, reals(in.qpos0(), nq, 1, "qpos0"));
  out->own(&Constants<float>::qpos_spring, &Constants<double>::qpos_spring,
           reals(in.qpos_spring(), nq, 1, "qpos_spring"));
  out->own(&Constants<float>::limit, &Constants<double>::limit, soft);
}

}  // namespace sdpg::core
