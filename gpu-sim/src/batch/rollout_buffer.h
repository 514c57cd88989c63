// The rollout buffer of a batch: its arrays, laid out once, and typed pointers into them. The
// contract is the comment of BufferTensor in proto/sdpg/sim/v1/sim.proto.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sdpg::batch {

struct BufferArray {
  enum Type { kFloat32, kInt32, kUint8 };
  std::string name;
  Type type;
  std::vector<std::int64_t> shape;  // outermost is the slot
  std::uint64_t offset_bytes;       // multiple of 64
  std::uint64_t slot_bytes;
  bool extra_slot;  // has T + 1 slots: slot t + 1 is written by step t

  std::uint64_t bytes() const { return slot_bytes * static_cast<std::uint64_t>(shape[0]); }
};

struct BufferLayout {
  std::vector<BufferArray> arrays;
  std::uint64_t bytes;
};

struct BufferSizes {
  std::uint64_t horizon, environments, nominals, actions, privileged, actor, rewards;
};

BufferLayout lay_out(const BufferSizes& sizes);

// Pointers to slot 0 of each array.
struct RolloutBuffer {
  float* privileged;            // [T+1, E, P]
  float* privileged_successor;  // [T, E, P]
  float* actor;                 // [T+1, N, O]
  float* noise;                 // [T, E, A]
  float* action;                // [T, E, A]
  float* reward;                // [T, E]
  float* reward_terms;          // [T, E, K]
  std::uint8_t* terminated;     // [T, E]
  std::uint8_t* truncated;      // [T, E]
  std::uint8_t* done;           // [T, E]
  std::uint8_t* fault;          // [T, E]
  std::int32_t* progress;       // [T, E]
};

RolloutBuffer point_into(const BufferLayout& layout, void* memory);

}  // namespace sdpg::batch
