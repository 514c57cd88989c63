// State of many environments in a device's memory, and what the kernels over it are given. It is
// the block layout of the CPU (batch/batch.h) with 32 lanes, a warp's width: block [row][lane], one
// number of an environment a row, so that neighbouring threads read neighbouring numbers.
#pragma once

#include <cstdint>

#include "core/kernels.h"
#include "core/model.h"

namespace sdpg::cuda {

inline constexpr std::uint32_t kLanes = 32;

// First row of each field; absent fields have no rows.
struct Rows {
  std::uint32_t qpos, qvel, act, ctrl, warmstart, persistent, sensordata, parameters;
  std::uint32_t xpos, xquat, xipos;  // only if `frames`
  std::uint32_t end;
  bool frames;
};

struct State {
  unsigned char* base;        // 64-byte aligned
  std::uint64_t block_bytes;  // from one block to the next
  std::uint32_t environments;
  Rows rows;

  // Number `row` of an environment; the next row is kLanes numbers on.
  template <class T>
  SDPG_INLINE T* at(std::uint32_t environment, std::uint32_t row) const {
    return reinterpret_cast<T*>(base + environment / kLanes * block_bytes) +
           static_cast<std::uint64_t>(row) * kLanes + environment % kLanes;
  }
};

// How the physics of a model is laid over the device; chosen once (Device::plan).
struct Plan {
  int members;               // threads of an environment's team
  int kept;                  // contacts in shared memory
  std::uint32_t near_bytes;  // shared memory of a team
  std::uint32_t far_bytes;   // global memory of a team
  std::uint32_t teams;       // at work at the same time
};

// |x| beyond this counts as not finite, as in the physics.
SDPG_FN bool usable(float x) { return x <= 1e10f && x >= -1e10f; }  // false for NaN
SDPG_FN float cleaned(float x) { return usable(x) ? x : 0.0f; }

struct PhysicsArgs {
  core::Model model;  // with pointers into the device's memory
  const core::Sensor* sensors;
  int nsensor, sensor_values;
  bool velocities;  // some sensor measures the present state
  State state;
  std::uint32_t* status;  // [environments], bits are or-ed in
  unsigned char* far;     // [Plan::teams][Plan::far_bytes]
  Plan plan;
  int substeps;  // 0: only the frames of the present state
  // Which environments: 0, stride, 2 stride, ... `count` of them, and of those the ones whose
  // number in `only`, if there is one, is not 0.
  std::uint32_t count, stride;
  const std::uint8_t* only;
  // Not null: what cameras follow instead of a step, and whether the episode has just begun; of
  // environment i * stride in place i.
  float* pose;                   // [count][nbody][7]
  std::uint8_t* begun;           // [count]
  const std::int32_t* progress;  // [environments]
};

}  // namespace sdpg::cuda
