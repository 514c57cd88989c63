// The physics kernel for teams of N threads; included by physics_<N>.cu.
#pragma once

#define SDPG_ISA cuda
#include "cuda/physics_launch.h"
#include "cuda/physics_team.h"

namespace sdpg::cuda {
namespace {

using P = core::Pack<float, 1>;

template <int N>
constexpr int kTeamsOfBlock = kPhysicsThreads / N;

// 16 blocks a multiprocessor leave a thread 128 registers.
template <int N>
__global__ void __launch_bounds__(kPhysicsThreads, 16)
    physics_kernel(const __grid_constant__ PhysicsArgs args) {
  extern __shared__ __align__(16) unsigned char shared[];
  const auto team = core::WarpTeam<N>::of_thread();
  const std::uint32_t place = threadIdx.x / N;
  simulate<P>(args, team, shared + place * args.plan.near_bytes,
              blockIdx.x * kTeamsOfBlock<N> + place);
}

template <int N>
bool plan(const core::Model& model, int sensor_values, std::size_t shared_bytes, Plan* out,
          std::string* error) {
  return plan_team<P, core::WarpTeam<N>>(model, sensor_values, kTeamsOfBlock<N>, shared_bytes, out,
                                         error);
}

template <int N>
cudaError_t prepare(const Plan& plan, int* blocks) {
  const int bytes = static_cast<int>(plan.near_bytes) * kTeamsOfBlock<N>;
  const cudaError_t error =
      cudaFuncSetAttribute(physics_kernel<N>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, physics_kernel<N>, kPhysicsThreads,
                                                       bytes);
}

template <int N>
cudaError_t launch(const PhysicsArgs& args) {
  const std::uint32_t wanted = (args.count + kTeamsOfBlock<N> - 1) / kTeamsOfBlock<N>;
  const std::uint32_t most = args.plan.teams / kTeamsOfBlock<N>;
  void* arguments[] = {const_cast<PhysicsArgs*>(&args)};
  return cudaLaunchKernel(reinterpret_cast<const void*>(physics_kernel<N>),
                          dim3(wanted < most ? wanted : most), dim3(kPhysicsThreads), arguments,
                          args.plan.near_bytes * kTeamsOfBlock<N>, nullptr);
}

template <int N>
constexpr PhysicsLaunch kPhysics = {plan<N>, prepare<N>, launch<N>};

}  // namespace
}  // namespace sdpg::cuda
