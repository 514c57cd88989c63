// Typed pointers into a rollout buffer (rollout_buffer.h), plain enough for a kernel.
#pragma once

#include <cstdint>

namespace sdpg::batch {

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
  float* pose;                  // [T+1, N, B, 7], null where the batch has none
  std::uint8_t* fresh;          // [T+1, N], likewise
};

}  // namespace sdpg::batch
