// One control step of one environment by a team of threads: its state comes from global memory into
// the team's shared memory, all substeps run there, and the state goes back.
#pragma once

#include <string>

#include "core/step.h"
#include "cuda/state.h"

namespace sdpg::cuda {
SDPG_ISA_BEGIN

// The state's copy at the start of a team's near memory; Scratch follows it.
template <class P>
struct StateCopy {
  P *qpos, *qvel, *ctrl, *warmstart, *act, *parameters, *sensordata;
  unsigned char* rest;

  SDPG_FN StateCopy(const core::Model& m, int sensor_values, unsigned char* near) {
    P* at = reinterpret_cast<P*>(near);
    const auto take = [&](int count) {
      P* const out = at;
      at += count;
      return out;
    };
    qpos = take(m.nq);
    qvel = take(m.nv);
    ctrl = take(m.nu);
    warmstart = take(m.nv);
    act = take(m.na);
    parameters = take(m.nparameters);
    sensordata = take(sensor_values);
    const std::size_t bytes = reinterpret_cast<unsigned char*>(at) - near;
    rest = near + (bytes + 15) / 16 * 16;
  }
};

template <class P, class Team>
SDPG_FN core::Scratch<P, Team> open_team_scratch(const core::Model& m, const StateCopy<P>& state,
                                                 int kept, unsigned char* far) {
  core::Scratch<P, Team> s(m, core::Workspace{state.rest, far, kept});
  s.qpos = state.qpos;
  s.qvel = state.qvel;
  s.ctrl = state.ctrl;
  s.warmstart = state.warmstart;
  s.act = state.act;
  s.parameters = state.parameters;
  return s;
}

// Bytes of a team's two memories.
template <class P, class Team>
SDPG_FN void team_bytes(const core::Model& m, int sensor_values, int kept, std::uint32_t* near,
                        std::uint32_t* far) {
  alignas(16) unsigned char header[64];  // never written: only offsets are computed
  const StateCopy<P> state(m, sensor_values, header);
  const auto s = open_team_scratch<P, Team>(m, state, kept, header);
  *near = static_cast<std::uint32_t>((state.rest - header + s.bytes() + 15) / 16 * 16);
  *far = static_cast<std::uint32_t>((s.far_bytes() + 127) / 128 * 128);
}

template <class P, class Team>
SDPG_FN void simulate_environment(const PhysicsArgs& args, const Team& team, unsigned char* near,
                                  unsigned char* far, std::uint32_t environment) {
  using T = typename P::Scalar;
  const core::Model& m = args.model;
  const Rows& rows = args.state.rows;
  const StateCopy<P> state(m, args.sensor_values, near);
  core::Scratch<P, Team> s = open_team_scratch<P, Team>(m, state, args.plan.kept, far);
  s.team = team;
  const auto fetch = [&](P* to, std::uint32_t row, int count) {
    const T* from = args.state.template at<T>(environment, row);
    team.each(0, count, [&](int i) { to[i] = P(from[i * kLanes]); });
  };
  const auto put_back = [&](const P* from, std::uint32_t row, int count) {
    T* to = args.state.template at<T>(environment, row);
    team.each(0, count, [&](int i) { to[i * kLanes] = from[i][0]; });
  };
  fetch(s.qpos, rows.qpos, m.nq);
  fetch(s.qvel, rows.qvel, m.nv);
  fetch(s.ctrl, rows.ctrl, m.nu);
  fetch(s.warmstart, rows.warmstart, m.nv);
  fetch(s.act, rows.act, m.na);
  fetch(state.parameters, rows.parameters, m.nparameters);
  fetch(state.sensordata, rows.sensordata, args.sensor_values);

  if (args.substeps > 0) {
    const core::StepFaults faults =
        core::run_substeps(s, args.substeps, args.sensors, args.nsensor, state.sensordata);
    const std::uint32_t status = (faults.non_finite != 0 ? core::kNonFinite : 0u) |
                                 (faults.overflow != 0 ? core::kOverflow : 0u) |
                                 (faults.not_converged != 0 ? core::kNotConverged : 0u);
    put_back(s.qpos, rows.qpos, m.nq);
    put_back(s.qvel, rows.qvel, m.nv);
    put_back(s.warmstart, rows.warmstart, m.nv);
    put_back(s.act, rows.act, m.na);
    team.once([&] { args.status[environment] |= status; });
  }
  if (rows.frames || args.velocities) core::kinematics(s);
  core::measure_velocities(s, args.sensors, args.nsensor, state.sensordata);
  if (rows.frames) {
    put_back(s.xpos, rows.xpos, 3 * m.nbody);
    put_back(s.xquat, rows.xquat, 4 * m.nbody);
    put_back(s.xipos, rows.xipos, 3 * m.nbody);
  }
  put_back(state.sensordata, rows.sensordata, args.sensor_values);
}

// The bodies' poses of an environment's present state; Batch::pose_block (batch/batch.cc) on a CPU.
template <class P, class Team>
SDPG_FN void pose_environment(const PhysicsArgs& args, const Team& team, unsigned char* near,
                              unsigned char* far, std::uint32_t number) {
  using T = typename P::Scalar;
  const core::Model& m = args.model;
  const Rows& rows = args.state.rows;
  const std::uint32_t environment = number * args.stride;
  const StateCopy<P> state(m, args.sensor_values, near);
  core::Scratch<P, Team> s = open_team_scratch<P, Team>(m, state, args.plan.kept, far);
  s.team = team;
  const auto fetch = [&](P* to, std::uint32_t row, int count) {
    const T* from = args.state.template at<T>(environment, row);
    team.each(0, count, [&](int i) { to[i] = P(from[i * kLanes]); });
  };
  fetch(s.qpos, rows.qpos, m.nq);
  fetch(state.parameters, rows.parameters, m.nparameters);
  core::kinematics(s);
  float* const out = args.pose + static_cast<std::uint64_t>(number) * m.nbody * 7;
  // A restored state may hold anything.
  team.each(0, m.nbody, [&](int b) {
    for (int k = 0; k < 3; ++k) out[b * 7 + k] = cleaned(s.xpos[b * 3 + k][0]);
    for (int k = 0; k < 4; ++k) out[b * 7 + 3 + k] = cleaned(s.xquat[b * 4 + k][0]);
  });
  team.once([&] { args.begun[number] = args.progress[environment] == 0; });
}

// Every environment that is team `number`'s turn.
template <class P, class Team>
SDPG_FN void simulate(const PhysicsArgs& args, const Team& team, unsigned char* near,
                      std::uint32_t number) {
  unsigned char* const far = args.far + static_cast<std::uint64_t>(number) * args.plan.far_bytes;
  for (std::uint32_t i = number; i < args.count; i += args.plan.teams) {
    if (args.pose != nullptr)
      pose_environment<P>(args, team, near, far, i);
    else if (args.only == nullptr || args.only[i] != 0)
      simulate_environment<P>(args, team, near, far, i * args.stride);
  }
}

// Threads of a team for a model: more of them where there are more parts to share.
inline int team_members(const core::Model& m) { return m.nv <= 16 ? 16 : 32; }

// Contacts kept in shared memory, at most; a robot on its feet has fewer.
inline constexpr int kMostKept = 16;

// The memories of a team such that `share` of them fit `shared_bytes`, with as many contacts near
// as possible. False and a line in `error` if they do not fit with none.
template <class P, class Team>
bool plan_team(const core::Model& m, int sensor_values, int share, std::size_t shared_bytes,
               Plan* plan, std::string* error) {
  plan->members = Team::members;
  for (plan->kept = m.max_contacts < kMostKept ? m.max_contacts : kMostKept; plan->kept >= 0;
       --plan->kept) {
    team_bytes<P, Team>(m, sensor_values, plan->kept, &plan->near_bytes, &plan->far_bytes);
    if (std::size_t{plan->near_bytes} * share <= shared_bytes) return true;
  }
  *error = "the model is too large for this device: an environment needs " +
           std::to_string(plan->near_bytes) + " bytes of shared memory, " +
           std::to_string(shared_bytes / share) + " are there";
  return false;
}

SDPG_ISA_END
}  // namespace sdpg::cuda
