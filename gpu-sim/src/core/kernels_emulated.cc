// The CUDA mapping without CUDA: one environment a block, as a CUDA thread team computes it, its
// loops in shuffled order (team.h). For tests: the arithmetic a GPU runs, checked like any other
// table and under the sanitizers.
#define SDPG_ISA emulated
#include <atomic>

#include "core/kernels_table.h"
#include "core/tables.h"

namespace sdpg::core {
namespace {

std::atomic<std::uint32_t> order{1};

}  // namespace

void set_emulated_order(std::uint32_t seed) { order = seed; }

inline namespace emulated {

template <>
EmulatedTeam<16> team_of_table<EmulatedTeam<16>>() {
  EmulatedTeam<16> team;
  team.seed = order.load(std::memory_order_relaxed);
  return team;
}

}  // namespace emulated

const Kernels kEmulatedFloat32 = make_table<Pack<float, 1>, EmulatedTeam<16>>("emulated");
const Kernels kEmulatedFloat64 = make_table<Pack<double, 1>, EmulatedTeam<16>>("emulated");

}  // namespace sdpg::core
