// The vector half of a step outside the physics, for one block: actions, checks of registers, and
// the way from [register][lane] to the rollout buffer's [environment][column]. Compiled once per
// instruction set, like the physics; lane_kernels_source.h is the source.
#pragma once

#include <cstdint>

namespace sdpg::batch {

struct ActionArgs {
  std::uint64_t seed;
  std::uint32_t epoch, t;
  std::uint32_t first_environment;  // of the block
  std::uint32_t environments;       // of the batch; lanes beyond are padding and get no noise
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

// Registers are T [register][lane], T as in the core::Kernels the table goes with; `rows` [count]
// says which are meant. Masks have one bit per lane.
struct LaneKernels {
  void (*draw_actions)(const ActionArgs&);
  // Lanes where a register is not finite or beyond 1e10.
  std::uint32_t (*unusable)(const void* registers, const std::uint32_t* rows, std::uint32_t count);
  // Lanes where a register is not zero.
  std::uint32_t (*nonzero)(const void* registers, const std::uint32_t* rows, std::uint32_t count);
  // out[lane] = sum of the registers as float32, in order.
  void (*sum)(const void* registers, const std::uint32_t* rows, std::uint32_t count, float* out);
  // out[lane * count + i] = register rows[i], for the first `lanes` lanes.
  void (*write)(const void* registers, const std::uint32_t* rows, std::uint32_t count,
                std::uint32_t lanes, float* out);
  // The same from float32 registers, whatever T is.
  void (*write_floats)(const void* registers, const std::uint32_t* rows, std::uint32_t count,
                       std::uint32_t lanes, float* out);
};

// The table for a core::Kernels' isa, lanes and scalar size; null if there is none.
const LaneKernels* select_lane_kernels(const char* isa, int lanes, int scalar_bytes);

}  // namespace sdpg::batch
