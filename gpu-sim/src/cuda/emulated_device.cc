// Device::emulated: the kernels of a GPU on one CPU thread, in plain memory, thread after thread
// and the physics by teams of fibers.
#define SDPG_ISA device
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/batch_threads.h"
#include "cuda/device.h"
#include "cuda/emulated_picture.h"
#include "cuda/fiber_team.h"
#include "cuda/physics_team.h"

namespace sdpg::cuda {
namespace {

using P = core::Pack<float, 1>;

// Shared memory of a block on the GPUs this stands for, and few enough teams that they take turns.
constexpr std::size_t kSharedBytes = 227 << 10;
constexpr std::uint32_t kTeams = 3, kSlots = 2;

class Emulated final : public Device {
 public:
  Emulated(std::uint32_t seed, bool fibers) : seed_(seed), fibers_(fibers) {}

  const char* name() const override { return "emulated"; }
  std::uint64_t memory_bytes() const override { return std::uint64_t{1} << 34; }
  int index() const override { return 0; }
  std::uint32_t slots() const override { return kSlots; }

  void* allocate(std::size_t bytes) override {
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (memory != nullptr) memset(memory, 0, bytes);
    return memory;
  }
  void release(void* memory) override { free(memory); }
  void upload(void* to, const void* from, std::size_t bytes) override { move(to, from, bytes); }
  void download(void* to, const void* from, std::size_t bytes) override { move(to, from, bytes); }
  bool ipc_handle(void*, unsigned char*) override { return false; }
  void synchronize() override {}

  bool plan(const core::Model& model, int sensor_values, Plan* plan, std::string* error) override {
    plan->teams = kTeams;
    return team_members(model) == 16
               ? plan_team<P, FiberTeam<16>>(model, sensor_values, 2, kSharedBytes, plan, error)
               : plan_team<P, FiberTeam<32>>(model, sensor_values, 1, kSharedBytes, plan, error);
  }

  void simulate(const PhysicsArgs& args) override {
    args.plan.members == 16 ? simulate_by<16>(args) : simulate_by<32>(args);
  }

  void act(const BatchArgs& args, const StepArgs& step) override {
    each(args.environments,
         [&](std::uint32_t e, std::uint32_t thread) { device::act(args, step, e, thread); });
  }
  void finish(const BatchArgs& args, const StepArgs& step) override {
    each(args.environments,
         [&](std::uint32_t e, std::uint32_t thread) { device::finish(args, step, e, thread); });
  }
  void start(const BatchArgs& args, bool all) override {
    each(args.nominals,
         [&](std::uint32_t g, std::uint32_t thread) { device::start(args, all, g, thread); });
  }
  void show(const BatchArgs& args, std::uint32_t t, std::uint32_t stride,
            const std::uint8_t* only) override {
    each(args.environments / stride, [&](std::uint32_t i, std::uint32_t thread) {
      if (only == nullptr || only[i] != 0) device::show(args, t, i * stride, thread);
    });
  }
  void copy(const BatchArgs& args, bool all, bool draws, bool in_step, std::uint32_t t) override {
    each(args.environments, [&](std::uint32_t e, std::uint32_t thread) {
      device::copy(args, all, draws, in_step, t, e, thread);
    });
  }
  PicturePlan plan_pictures(const render::SceneArrays& scene) override {
    return plan_emulated_pictures(scene);
  }
  void draw(const DrawArgs& args) override { draw_emulated_pictures(args, seed_, fibers_); }
  void move(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) memcpy(to, from, bytes);  // an empty array has no address
  }

 private:
  template <int N>
  void simulate_by(const PhysicsArgs& args) {
    // Poisoned, as shared memory may hold anything.
    unsigned char* const near =
        static_cast<unsigned char*>(aligned_alloc(64, (args.plan.near_bytes + 63) / 64 * 64));
    for (std::uint32_t number = 0; number < args.plan.teams; ++number) {
      memset(near, 0xff, args.plan.near_bytes);
      if (fibers_) {
        Fibers<N> fibers(seed_);
        fibers.run([&](int member) {
          FiberTeam<N> team;
          team.fibers = &fibers;
          team.member = member;
          device::simulate<P>(args, team, near, number);
        });
      } else {
        core::EmulatedTeam<N> team;
        team.seed = seed_;
        device::simulate<P>(args, team, near, number);
      }
    }
    free(near);
  }
  // Blocks in shuffled order, their environments ascending.
  template <class F>
  void each(std::uint32_t count, const F& f) {
    const std::uint32_t blocks = (count + kLanes - 1) / kLanes;
    seed_ = seed_ * 1664525u + 1013904223u;
    const std::uint32_t first = blocks == 0 ? 0 : (seed_ >> 8) % blocks;
    for (std::uint32_t k = 0; k < blocks; ++k) {
      const std::uint32_t block = (first + k) % blocks;
      for (std::uint32_t i = block * kLanes; i < (block + 1) * kLanes && i < count; ++i)
        f(i, block % kSlots * kLanes + i % kLanes);
    }
  }

  std::uint32_t seed_;
  bool fibers_;
};

}  // namespace

std::unique_ptr<Device> Device::emulated(std::uint32_t seed, bool fibers) {
  return std::make_unique<Emulated>(seed, fibers);
}

}  // namespace sdpg::cuda
