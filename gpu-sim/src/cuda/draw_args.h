// What drawing on a device is given: one view of many environments, everything in the device's
// memory. Plain structs, passed to a launch by value.
#pragma once

#include <cstdint>

#include "render/scene.h"

namespace sdpg::cuda {

// Where a block of threads keeps the frame of the picture that it draws; chosen once for a scene
// (Device::plan_pictures).
struct PicturePlan {
  std::uint32_t near_bytes;  // shared memory of a block
  std::uint64_t far_bytes;   // global memory of a block: of scenes too large for shared memory
  std::uint32_t blocks;      // at work at the same time
};

struct DrawArgs {
  render::SceneArrays scene;
  render::Shot view;
  PicturePlan plan;
  unsigned char* far;  // [blocks][far_bytes]
  std::uint32_t environments;
  const float* pose;  // [environments][nbody][kPoseNumbers]
  // Not 0: the stack becomes F times the picture. Null: all do.
  const std::uint8_t* fresh;  // [environments]
  // The stacks, [environments][F][frame]; the newest F - 1 frames of `from` are kept in `to`, which
  // may be the same memory.
  const unsigned char* from;
  unsigned char* to;
  // Of the depth noise: key of environment e is (seed, e, picture).
  std::uint64_t seed, picture;
};

}  // namespace sdpg::cuda
