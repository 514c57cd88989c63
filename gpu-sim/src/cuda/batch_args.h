// What the kernels of a batch are given: a batch as batch/batch.h describes it, with every array in
// the device's memory. Plain structs, passed to a launch by value.
#pragma once

#include <cstdint>

#include "batch/rollout_pointers.h"
#include "cuda/state.h"
#include "task/program.h"

namespace sdpg::cuda {

struct PersistentRange {
  std::uint32_t start, length, row;
  float initial;
};

template <class T>
struct List {
  const T* items;
  std::uint32_t count;
};

struct RowRange {
  std::uint32_t begin, end;
};

// Counters of one step, added to by every environment; integers, so that the order is of no
// consequence.
struct Counters {
  std::uint32_t nominals_done, faults, fault_bits[8];
  std::uint32_t unusable;  // observations shown that are not finite
};

struct BatchArgs {
  State state;
  std::uint64_t seed;
  std::uint32_t nominals, members, environments;
  std::uint32_t actions, privileged_values, actor_values, reward_terms;
  std::uint32_t scratch_registers, draws, own_draws, nq;
  std::int32_t episode_length;
  task::Section control, step, observe, reset, vary;
  bool varies;  // environments have parameters of their own, drawn by `vary`
  List<PersistentRange> persistent;
  List<RowRange> copied;  // rows of a nominal that its auxiliaries take over
  List<std::uint32_t> privileged, actor, rewards, terminations;  // registers
  const float* qpos0;                                            // [nq]

  float* registers;  // [slots][scratch_registers][kLanes], a slot for each warp at work
  std::uint32_t slots;
  float* uniforms;          // [slots][the larger of draws and own_draws][kLanes]
  float* acting;            // [blocks][actions][kLanes] after tanh
  std::int32_t* progress;   // [environments] control steps since the episode's start
  std::uint32_t* episodes;  // [nominals] episodes started
  std::uint32_t* status;    // [environments] of the present step
  std::uint8_t* ended;      // [environments] own end in the step
  std::uint8_t* fresh;      // [nominals] a new episode starts in the step
  const float *mean, *std;  // [nominals][actions]; exp(log_std) [A] or [N, A]
  Counters* counters;
  batch::RolloutBuffer out;
};

struct StepArgs {
  std::uint32_t epoch, t;
  bool noise;                // false: all environments act like nominals
  std::uint32_t std_stride;  // floats from one group's row of std to the next: 0 or A
  float low, high;           // bounds of mean and action
};

}  // namespace sdpg::cuda
