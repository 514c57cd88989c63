// Actuators: transmissions, gains, ranges.
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
  reals(a.dynprm(), nu, 10, "actuators.dynprm");
  std::vector<int> driven(nu);
  std::vector<std::uint8_t> ctrl_limited(nu), force_limited(nu), affine(nu);
  std::vector<double> gear(nu), gain(nu), bias(nu * 3);
  for (int i = 0; i < nu; ++i) {
    if (a.trntype(i) != 0)
      refuse("unsupported: " + actuator(i) + ": transmission " + std::to_string(a.trntype(i)) +
             "; only joints can be driven");
    if (a.trnid(i) < 0 || a.trnid(i) >= njnt)
      refuse(actuator(i) + ": drives joint " + std::to_string(a.trnid(i)) + " of " +
             std::to_string(njnt));
    if (a.dyntype(i) != 0)
      refuse("unsupported: " + actuator(i) + ": activation dynamics " +
             std::to_string(a.dyntype(i)));
    if (a.gaintype(i) != 0)
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
    gear[i] = gears[6 * i];
    const bool off = disabled & kNoActuation;
    if (!off) gain[i] = gainprm[10 * i];
    for (int k = 0; k < 3 && !off; ++k)
      bias[3 * i + k] = a.biastype(i) == 1 ? biasprm[10 * i + k] : 0;
    affine[i] = a.biastype(i) == 1;
  }
  out->act_jnt = out->own(driven);
  out->act_ctrl_limited = out->own(ctrl_limited);
  out->act_force_limited = out->own(force_limited);
  out->act_affine = out->own(affine);
  out->own(&Constants<float>::gear, &Constants<double>::gear, gear);
  out->own(&Constants<float>::gain, &Constants<double>::gain, gain);
  out->own(&Constants<float>::bias, &Constants<double>::bias, bias);
  out->own(&Constants<float>::ctrl_range, &Constants<double>::ctrl_range, ctrl_range);
  out->own(&Constants<float>::force_range, &Constants<double>::force_range, force_range);
}

}  // namespace sdpg::core
