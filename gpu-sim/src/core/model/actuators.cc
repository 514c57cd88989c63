// Actuators: transmissions, activations, gains, ranges.
#include <algorithm>

#include "core/model/builder.h"

namespace sdpg::core {

void Builder::actuators() {
  const pb::Actuators& a = in.actuators();
  expect_size(a.trntype(), nu, 1, "actuators.trntype");
  expect_size(a.trnid(), nu, 1, "actuators.trnid");
  expect_size(a.ctrllimited(), nu, 1, "actuators.ctrllimited");
  expect_size(a.forcelimited(), nu, 1, "actuators.forcelimited");
  expect_size(a.dyntype(), nu, 1, "actuators.dyntype");
  expect_size(a.gaintype(), nu, 1, "actuators.gaintype");
  expect_size(a.biastype(), nu, 1, "actuators.biastype");
  const std::vector<double> gears = reals(a.gear(), nu, 6, "actuators.gear");
  std::vector<double> ctrl_range = reals(a.ctrlrange(), nu, 2, "actuators.ctrlrange");
  const std::vector<double> force_range = reals(a.forcerange(), nu, 2, "actuators.forcerange");
  const std::vector<double> gainprm = reals(a.gainprm(), nu, 10, "actuators.gainprm");
  const std::vector<double> biasprm = reals(a.biasprm(), nu, 10, "actuators.biasprm");
  const std::vector<double> dynprm = reals(a.dynprm(), nu, 10, "actuators.dynprm");
  const std::vector<int> actadr = integers_or_zero(a.actadr(), nu, "actuators.actadr");
  const std::vector<int> actnum = integers_or_zero(a.actnum(), nu, "actuators.actnum");
  const std::vector<int> actlimited = integers_or_zero(a.actlimited(), nu, "actuators.actlimited");
  const std::vector<int> actearly = integers_or_zero(a.actearly(), nu, "actuators.actearly");
  const std::vector<double> act_range = reals_or_zero(a.actrange(), nu, 2, "actuators.actrange");
  const double timestep = in.option().timestep();
  std::vector<int> driven(nu), dofnum(nu), address(nu, -1), owner;
  std::vector<DynamicsType> dyntype(nu);
  std::vector<std::uint8_t> ctrl_limited(nu), force_limited(nu), act_limited(nu), early(nu),
      affine(nu), affine_gain(nu);
  std::vector<double> gain(nu), gain_slope(nu * 2), bias(nu * 3), rate(nu), step(nu);
  std::vector<std::vector<int>> of_joint(njnt);
  out->actuated = nu > 0 && !(disabled & kNoActuation);
  for (int i = 0; i < nu; ++i) {
    if (a.trntype(i) != 0)
      refuse("unsupported: " + actuator(i) + ": transmission " + std::to_string(a.trntype(i)) +
             "; only joints can be driven");
    if (a.trnid(i) < 0 || a.trnid(i) >= njnt)
      refuse(actuator(i) + ": drives joint " + std::to_string(a.trnid(i)) + " of " +
             std::to_string(njnt));
    if (a.dyntype(i) < 0 || a.dyntype(i) > 3)
      refuse("unsupported: " + actuator(i) + ": activation dynamics " +
             std::to_string(a.dyntype(i)));
    if (a.gaintype(i) != 0 && a.gaintype(i) != 1)
      refuse("unsupported: " + actuator(i) + ": gain type " + std::to_string(a.gaintype(i)));
    if (a.biastype(i) != 0 && a.biastype(i) != 1)
      refuse("unsupported: " + actuator(i) + ": bias type " + std::to_string(a.biastype(i)));
    ctrl_limited[i] = a.ctrllimited(i) && !(disabled & kNoClampCtrl);
    force_limited[i] = a.forcelimited(i) != 0;
    const auto ordered = [&](const std::vector<double>& range, const char* what) {
      if (!(range[2 * i] <= range[2 * i + 1]))
        refuse(actuator(i) + ": expected an increasing " + what + ", got " + number(range[2 * i]) +
               " to " + number(range[2 * i + 1]));
    };
    if (ctrl_limited[i]) ordered(ctrl_range, "ctrlrange");
    if (force_limited[i]) ordered(force_range, "forcerange");
    driven[i] = a.trnid(i);
    dofnum[i] = dof_count(joint_type[driven[i]]);
    of_joint[driven[i]].push_back(i);

    // Activation: act_dot is the control or (control - act) / time constant.
    dyntype[i] = static_cast<DynamicsType>(a.dyntype(i));
    if (dyntype[i] != DynamicsType::kNone) {
      if (actnum[i] != 1 || actadr[i] != static_cast<int>(owner.size()))
        refuse(actuator(i) + ": expected one activation numbered " + std::to_string(owner.size()) +
               ", got " + std::to_string(actnum[i]) + " at " + std::to_string(actadr[i]));
      address[i] = actadr[i];
      owner.push_back(i);
      early[i] = actearly[i] != 0;
      act_limited[i] = actlimited[i] != 0;
      if (act_limited[i]) ordered(act_range, "actrange");
      const double constant = std::max(kTiny, dynprm[10 * i]);
      rate[i] = 1 / constant;
      step[i] = dyntype[i] == DynamicsType::kFilterExact
                    ? -constant * std::expm1(-timestep / constant)
                    : timestep;
    } else if (actnum[i] != 0) {
      refuse(actuator(i) + ": has an activation but no dynamics; compile the model again");
    }
    affine[i] = a.biastype(i) == 1;
    affine_gain[i] = a.gaintype(i) == 1;
    gain[i] = gainprm[10 * i];
    for (int k = 0; k < 2 && affine_gain[i]; ++k) gain_slope[2 * i + k] = gainprm[10 * i + 1 + k];
    for (int k = 0; k < 3 && affine[i]; ++k) bias[3 * i + k] = biasprm[10 * i + k];
    const bool damps =
        (affine[i] && (bias[3 * i + 2] != 0 || varies(Parameter::kActuatorBias, 3 * i + 2))) ||
        gain_slope[2 * i + 1] != 0;
    if (damps && out->actuated && out->integrator == Integrator::kImplicitFast)
      out->implicit = true;
    for (int k = 0; k < 3; ++k)
      if (!affine[i] && varies(Parameter::kActuatorBias, 3 * i + k))
        refuse(actuator(i) + ": its bias cannot vary because it has none; use biastype affine");
  }
  na = static_cast<int>(owner.size());
  out->na = na;
  std::vector<int> jnt_act_begin{0}, jnt_act;
  for (const std::vector<int>& list : of_joint) {
    jnt_act.insert(jnt_act.end(), list.begin(), list.end());
    jnt_act_begin.push_back(static_cast<int>(jnt_act.size()));
  }
  out->act_jnt = out->own(driven);
  out->act_dofnum = out->own(dofnum);
  out->jnt_act_begin = out->own(jnt_act_begin);
  out->jnt_act = out->own(jnt_act);
  out->act_dyntype = out->own(dyntype);
  out->act_actadr = out->own(address);
  out->actuator_of_act = out->own(owner);
  out->act_actlimited = out->own(act_limited);
  out->act_early = out->own(early);
  out->act_affine_gain = out->own(affine_gain);
  out->act_ctrl_limited = out->own(ctrl_limited);
  out->act_force_limited = out->own(force_limited);
  out->act_affine = out->own(affine);
  out->own(&Constants<float>::gear, &Constants<double>::gear, gears);
  out->own(&Constants<float>::gain, &Constants<double>::gain, gain);
  out->own(&Constants<float>::gain_slope, &Constants<double>::gain_slope, gain_slope);
  out->own(&Constants<float>::bias, &Constants<double>::bias, bias);
  out->own(&Constants<float>::act_rate, &Constants<double>::act_rate, rate);
  out->own(&Constants<float>::act_step, &Constants<double>::act_step, step);
  out->own(&Constants<float>::act_range, &Constants<double>::act_range, act_range);
  out->own(&Constants<float>::ctrl_range, &Constants<double>::ctrl_range, ctrl_range);
  out->own(&Constants<float>::force_range, &Constants<double>::force_range, force_range);
}

}  // namespace sdpg::core
