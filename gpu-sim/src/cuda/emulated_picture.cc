#define SDPG_ISA device_picture
#include "cuda/emulated_picture.h"

#include <stdlib.h>
#include <string.h>

#include "cuda/fiber_team.h"
#include "cuda/picture.h"

namespace sdpg::cuda {
namespace {

constexpr int kThreads = 32;
// A block's shared memory, small enough that a large scene is tested outside of it.
constexpr std::size_t kSharedBytes = 48 << 10;
constexpr std::uint32_t kBlocks = 3;  // they take turns

}  // namespace

PicturePlan plan_emulated_pictures(const render::SceneArrays& scene) {
  PicturePlan plan = plan_picture(scene, kSharedBytes);
  plan.blocks = kBlocks;
  return plan;
}

void draw_emulated_pictures(const DrawArgs& args, std::uint32_t seed, bool fibers) {
  const std::size_t bytes = (args.plan.near_bytes + 64) / 64 * 64;
  unsigned char* const shared = static_cast<unsigned char*>(aligned_alloc(64, bytes));
  for (std::uint32_t number = 0; number < args.plan.blocks; ++number) {
    memset(shared, 0xff, bytes);  // poisoned, as shared memory may hold anything
    if (fibers) {
      Fibers<kThreads> threads(seed);
      threads.run([&](int member) {
        FiberTeam<kThreads> team;
        team.fibers = &threads;
        team.member = member;
        draw_pictures(args, team, shared, number);
      });
    } else {
      core::EmulatedTeam<kThreads> team;
      team.seed = seed;
      draw_pictures(args, team, shared, number);
    }
  }
  free(shared);
}

}  // namespace sdpg::cuda
