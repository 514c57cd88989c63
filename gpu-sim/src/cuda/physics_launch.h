// Launches of the physics, one team size a translation unit (physics_<N>.cu), so that they compile
// side by side.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "cuda/state.h"

namespace sdpg::cuda {

// Threads of a block of the physics: one warp, so that shared memory is given out finely.
inline constexpr int kPhysicsThreads = 32;

struct PhysicsLaunch {
  // Fills in everything of the plan but what the device is asked for; see plan_team().
  bool (*plan)(const core::Model& model, int sensor_values, std::size_t shared_bytes, Plan* plan,
               std::string* error);
  cudaError_t (*prepare)(const Plan& plan, int* blocks_of_multiprocessor);
  cudaError_t (*launch)(const PhysicsArgs& args);
};

extern const PhysicsLaunch kPhysics16, kPhysics32;

}  // namespace sdpg::cuda
