// A device that steps environments in its own memory: a CUDA GPU, or its stand-in on the CPU that
// runs the same kernels (fiber_team.h), so that everything but the launches themselves is tested
// where there is no GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "cuda/batch_args.h"
#include "cuda/draw_args.h"
#include "cuda/state.h"

namespace sdpg::cuda {

class Device {
 public:
  // Device `index`. Null and one line in `error` when there is none or the build has no CUDA.
  static std::unique_ptr<Device> open(int index, std::string* error);
  // The stand-in; `seed` shuffles the order in which parts, members and environments are computed.
  // The members of a team are fibers, each running the whole kernel, or one stands for them all
  // (EmulatedTeam), which is quicker.
  static std::unique_ptr<Device> emulated(std::uint32_t seed, bool fibers);
  virtual ~Device() = default;

  virtual const char* name() const = 0;  // "NVIDIA H200", "emulated"
  virtual std::uint64_t memory_bytes() const = 0;

  // Zeroed memory, 256-byte aligned; null when there is not enough.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) = 0;
  virtual void upload(void* to, const void* from, std::size_t bytes) = 0;
  virtual void download(void* to, const void* from, std::size_t bytes) = 0;
  // The handle by which another process maps an allocation; false where that cannot be.
  virtual bool ipc_handle(void* memory, unsigned char handle[64]) = 0;
  virtual int index() const = 0;

  // Warps that run at the same time, for arrays that they share.
  virtual std::uint32_t slots() const = 0;
  // Lays out the physics of a model; false and a line in `error` if an environment does not fit.
  virtual bool plan(const core::Model& model, int sensor_values, Plan* plan,
                    std::string* error) = 0;
  // Lays out the pictures of a scene.
  virtual PicturePlan plan_pictures(const render::SceneArrays& scene) = 0;

  // Launches, in order. A failed launch ends the process with one line: a device that has failed
  // once gives no further answers. What each does is said in batch_threads.h and picture.h.
  virtual void simulate(const PhysicsArgs& args) = 0;
  virtual void act(const BatchArgs& args, const StepArgs& step) = 0;
  virtual void finish(const BatchArgs& args, const StepArgs& step) = 0;
  virtual void start(const BatchArgs& args, bool all) = 0;
  // Observations into slot `t` of environments 0, stride, 2 stride, ... or of those of them whose
  // number in `only` is not 0.
  virtual void show(const BatchArgs& args, std::uint32_t t, std::uint32_t stride,
                    const std::uint8_t* only) = 0;
  virtual void copy(const BatchArgs& args, bool all, bool draws, bool in_step, std::uint32_t t) = 0;
  virtual void draw(const DrawArgs& args) = 0;
  // Bytes from one place of its memory to another; the two do not overlap.
  virtual void move(void* to, const void* from, std::size_t bytes) = 0;
  // Waits until everything launched is done.
  virtual void synchronize() = 0;
};

}  // namespace sdpg::cuda
