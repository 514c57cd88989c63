// The rollout buffer of a batch: its arrays, laid out once, and typed pointers into them. The
// contract is the comment of BufferTensor in proto/sdpg/sim/v1/sim.proto.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "batch/rollout_pointers.h"

namespace sdpg::batch {

struct BufferArray {
  enum Type { kFloat32, kInt32, kUint8 };
  std::string name;
  Type type;
  std::vector<std::int64_t> shape;  // outermost is the slot
  std::uint64_t offset_bytes;       // multiple of 64
  std::uint64_t slot_bytes;
  bool extra_slot;     // has T + 1 slots: slot t + 1 is written by step t
  bool image = false;  // of a view: T slots, and slot t + 1 is drawn by step t

  std::uint64_t bytes() const { return slot_bytes * static_cast<std::uint64_t>(shape[0]); }
};

struct BufferLayout {
  std::vector<BufferArray> arrays;
  std::uint64_t bytes;
};

struct BufferSizes {
  std::uint64_t horizon, environments, nominals, actions, privileged, actor, rewards;
  std::uint64_t bodies = 0;  // of "pose"; 0 leaves "pose" and "fresh" out
};

// All arrays but the images, which render::ImageStacks appends.
BufferLayout lay_out(const BufferSizes& sizes);

// Appends an array of `slots` slots with these extents.
BufferArray& add_array(BufferLayout* layout, const std::string& name, BufferArray::Type type,
                       std::uint64_t slots, const std::vector<std::uint64_t>& extents);

RolloutBuffer point_into(const BufferLayout& layout, void* memory);

}  // namespace sdpg::batch
