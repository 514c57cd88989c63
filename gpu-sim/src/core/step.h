// All physics steps of one control step, as every mapping runs them.
#pragma once

#include "core/pipeline.h"
#include "core/sensors.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// Lanes whose status word gets a bit.
struct StepFaults {
  std::uint32_t non_finite, overflow, not_converged;
};

// `substeps` steps with ctrl held. The last one leaves the accelerations and forces that `sensors`
// measure in sensordata.
template <class P, class Team>
SDPG_INLINE StepFaults run_substeps(Scratch<P, Team>& s, int substeps, const Sensor* sensors,
                                    int nsensor, P* sensordata) {
  std::uint32_t not_converged = 0;
  for (int i = 0; i < substeps; ++i) {
    not_converged |= forward(s);
    if (nsensor > 0 && i + 1 == substeps) acceleration_sensors(s, sensors, nsensor, sensordata);
    integrate(s);
  }
  return {s.bad_lanes, s.overflow_lanes, not_converged & ~s.bad_lanes};
}

// Velocities that `sensors` measure in the present state, after kinematics().
template <class P, class Team>
SDPG_INLINE void measure_velocities(Scratch<P, Team>& s, const Sensor* sensors, int nsensor,
                                    P* sensordata) {
  if (!any_velocity(sensors, nsensor)) return;
  com(s);
  velocity_sensors(s, sensors, nsensor, sensordata);
}

SDPG_ISA_END
}  // namespace sdpg::core
