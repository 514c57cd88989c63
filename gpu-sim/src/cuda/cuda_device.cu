// Device::open: a CUDA GPU. Everything is launched on the default stream of the calling thread's
// device, in order.
#define SDPG_ISA cuda
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cuda/batch_threads.h"
#include "cuda/device.h"
#include "cuda/physics_launch.h"
#include "cuda/physics_team.h"
#include "cuda/picture_launch.h"

namespace sdpg::cuda {
namespace {

constexpr unsigned kThreads = 128;  // of a block of the kernels with a thread an environment

// Calls f(i, thread) for i in [0, count), `thread` being this thread's number in the shared arrays.
// Warps keep together, so that their rows do.
template <class F>
__device__ void each(std::uint32_t count, const F& f) {
  const std::uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
  for (std::uint32_t i = thread; i < count; i += gridDim.x * blockDim.x) f(i, thread);
}

__global__ void act_kernel(const __grid_constant__ BatchArgs args, StepArgs step) {
  each(args.environments,
       [&](std::uint32_t e, std::uint32_t thread) { act(args, step, e, thread); });
}
__global__ void finish_kernel(const __grid_constant__ BatchArgs args, StepArgs step) {
  each(args.environments,
       [&](std::uint32_t e, std::uint32_t thread) { finish(args, step, e, thread); });
}
__global__ void start_kernel(const __grid_constant__ BatchArgs args, bool all) {
  each(args.nominals, [&](std::uint32_t g, std::uint32_t thread) { start(args, all, g, thread); });
}
__global__ void show_kernel(const __grid_constant__ BatchArgs args, std::uint32_t t,
                            std::uint32_t stride, const std::uint8_t* only) {
  each(args.environments / stride, [&](std::uint32_t i, std::uint32_t thread) {
    if (only == nullptr || only[i] != 0) show(args, t, i * stride, thread);
  });
}
__global__ void copy_kernel(const __grid_constant__ BatchArgs args, bool all, bool draws,
                            bool in_step, std::uint32_t t) {
  each(args.environments, [&](std::uint32_t e, std::uint32_t thread) {
    copy(args, all, draws, in_step, t, e, thread);
  });
}

class Cuda final : public Device {
 public:
  Cuda(int index, const cudaDeviceProp& properties) : index_(index), properties_(properties) {}

  const char* name() const override { return properties_.name; }
  std::uint64_t memory_bytes() const override { return properties_.totalGlobalMem; }
  int index() const override { return index_; }
  std::uint32_t slots() const override { return blocks() * kThreads / kLanes; }

  void* allocate(std::size_t bytes) override {
    use();
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, bytes == 0 ? 1 : bytes);
    if (error == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();  // not sticky: the device goes on
      return nullptr;
    }
    check(error, "allocate");
    check(cudaMemset(memory, 0, bytes), "clear");
    return memory;
  }
  void release(void* memory) override {
    use();
    (void)cudaFree(memory);
  }
  void upload(void* to, const void* from, std::size_t bytes) override {
    use();
    check(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "upload");
  }
  void download(void* to, const void* from, std::size_t bytes) override {
    use();
    check(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "download");
  }
  bool ipc_handle(void* memory, unsigned char out[64]) override {
    static_assert(sizeof(cudaIpcMemHandle_t) == 64);
    use();
    cudaIpcMemHandle_t handle;
    if (cudaIpcGetMemHandle(&handle, memory) != cudaSuccess) {
      (void)cudaGetLastError();
      return false;
    }
    memcpy(out, &handle, sizeof handle);
    return true;
  }
  void synchronize() override {
    use();
    check(cudaDeviceSynchronize(), "run");
  }

  bool plan(const core::Model& model, int sensor_values, Plan* plan, std::string* error) override {
    use();
    const PhysicsLaunch& physics = by_members(team_members(model));
    if (!physics.plan(model, sensor_values, properties_.sharedMemPerBlockOptin, plan, error))
      return false;
    int blocks_here = 0;
    check(physics.prepare(*plan, &blocks_here), "prepare the physics");
    plan->teams = static_cast<std::uint32_t>(blocks_here * properties_.multiProcessorCount *
                                             (kPhysicsThreads / plan->members));
    return true;
  }

  void simulate(const PhysicsArgs& args) override {
    use();
    check(by_members(args.plan.members).launch(args), "launch the physics");
  }
  void act(const BatchArgs& args, const StepArgs& step) override {
    use();
    act_kernel<<<blocks(), kThreads>>>(args, step);
    launched("act");
  }
  void finish(const BatchArgs& args, const StepArgs& step) override {
    use();
    finish_kernel<<<blocks(), kThreads>>>(args, step);
    launched("finish");
  }
  void start(const BatchArgs& args, bool all) override {
    use();
    start_kernel<<<blocks(), kThreads>>>(args, all);
    launched("start");
  }
  void show(const BatchArgs& args, std::uint32_t t, std::uint32_t stride,
            const std::uint8_t* only) override {
    use();
    show_kernel<<<blocks(), kThreads>>>(args, t, stride, only);
    launched("show");
  }
  void copy(const BatchArgs& args, bool all, bool draws, bool in_step, std::uint32_t t) override {
    use();
    copy_kernel<<<blocks(), kThreads>>>(args, all, draws, in_step, t);
    launched("copy");
  }

  PicturePlan plan_pictures(const render::SceneArrays& scene) override {
    use();
    PicturePlan plan;
    int blocks_here = 0;
    check(lay_out_pictures(scene, &plan, &blocks_here), "prepare the pictures");
    plan.blocks = static_cast<std::uint32_t>(blocks_here * properties_.multiProcessorCount);
    return plan;
  }
  void draw(const DrawArgs& args) override {
    use();
    check(launch_pictures(args), "launch the pictures");
  }
  void move(void* to, const void* from, std::size_t bytes) override {
    use();
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice), "move");
  }

 private:
  static const PhysicsLaunch& by_members(int members) {
    return members == 16 ? kPhysics16 : kPhysics32;
  }
  std::uint32_t blocks() const {
    return static_cast<std::uint32_t>(properties_.multiProcessorCount) * 4;
  }
  // Calls come from any thread of the server.
  void use() const { check(cudaSetDevice(index_), "select the device"); }
  void launched(const char* what) const { check(cudaGetLastError(), what); }
  void check(cudaError_t error, const char* what) const {
    if (error == cudaSuccess) return;
    fprintf(stderr, "gpu-sim: CUDA device %d cannot %s: %s\n", index_, what,
            cudaGetErrorString(error));
    _exit(1);
  }

  int index_;
  cudaDeviceProp properties_;
};

}  // namespace

std::unique_ptr<Device> Device::open(int index, std::string* error) {
  int count = 0;
  if (const cudaError_t e = cudaGetDeviceCount(&count); e != cudaSuccess || count == 0) {
    *error = std::string("no CUDA device: ") +
             (e != cudaSuccess ? cudaGetErrorString(e) : "the driver reports none") +
             "; use --device cpu";
    return nullptr;
  }
  if (index < 0 || index >= count) {
    *error = "CUDA device " + std::to_string(index) + ": this machine has " +
             std::to_string(count) + ", numbered from 0";
    return nullptr;
  }
  cudaDeviceProp properties;
  if (const cudaError_t e = cudaGetDeviceProperties(&properties, index); e != cudaSuccess) {
    *error = "CUDA device " + std::to_string(index) + ": " + cudaGetErrorString(e);
    return nullptr;
  }
  if (properties.major * 10 + properties.minor < 89) {
    *error = "CUDA device " + std::to_string(index) + " (" + properties.name +
             ") has compute capability " + std::to_string(properties.major) + "." +
             std::to_string(properties.minor) + "; 8.9 or newer is needed";
    return nullptr;
  }
  return std::make_unique<Cuda>(index, properties);
}

}  // namespace sdpg::cuda
