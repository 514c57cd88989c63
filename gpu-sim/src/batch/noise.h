// Actions of one block: counter-based noise around the clipped means, and their tanh. Compiled once
// per instruction set, like the physics; noise_kernels.h is the source.
#pragma once

#include <cstdint>

namespace sdpg::batch {

struct ActionArgs {
  std::uint64_t seed;
  std::uint32_t epoch, t;
  std::uint32_t first_environment;  // of the block
  std::uint32_t environments;       // of the batch; lanes beyond are padding and act as 0
  std::uint32_t members;            // 1 + M
  int action_size;
  const float* mean;  // [N, A] clipped
  const float* std;   // exp(clipped log_std): [A] or [N, A]; null for no noise
  int std_stride;     // floats from one group's row to the next: 0 or A
  float low, high;    // bounds of mean and action
  // Outputs, [A][lane], aligned to 64 bytes.
  float* noise;     // unclipped standard normals, 0 for nominals
  float* action;    // clip(mean + std * noise), exactly the mean for nominals
  float* squashed;  // tanh(action)
};

using ActionKernel = void (*)(const ActionArgs&);

// The kernel for a core::Kernels' isa and lanes; null if there is none.
ActionKernel select_action_kernel(const char* isa, int lanes);

}  // namespace sdpg::batch
