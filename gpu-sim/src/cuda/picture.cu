// The kernel of pictures: a block of threads a picture, a thread a pixel.
#define SDPG_ISA cuda_picture
#include "cuda/picture.h"
#include "cuda/picture_launch.h"

namespace sdpg::cuda {
namespace {

// Few threads, so that the double precision of one block's frame and the pixels of others overlap.
constexpr int kThreads = 128;
// Memory of a block that needs no leave of the driver.
constexpr std::size_t kSharedBytes = 48 << 10;

// The team of a block's threads; see core/team.h.
struct BlockTeam {
  template <class F>
  __device__ void each(int begin, int end, const F& f) const {
    __syncthreads();
    for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) f(i);
    __syncthreads();
  }
  template <class F>
  __device__ void once(const F& f) const {
    __syncthreads();
    if (threadIdx.x == 0) f();
    __syncthreads();
  }
};

__global__ void __launch_bounds__(kThreads, 6)
    picture_kernel(const __grid_constant__ DrawArgs args) {
  extern __shared__ __align__(64) unsigned char shared[];
  draw_pictures(args, BlockTeam{}, shared, blockIdx.x);
}

}  // namespace

cudaError_t lay_out_pictures(const render::SceneArrays& scene, PicturePlan* plan, int* blocks) {
  *plan = plan_picture(scene, kSharedBytes);
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, picture_kernel, kThreads,
                                                       plan->near_bytes);
}

cudaError_t launch_pictures(const DrawArgs& args) {
  void* arguments[] = {const_cast<DrawArgs*>(&args)};
  const std::uint32_t blocks =
      args.environments < args.plan.blocks ? args.environments : args.plan.blocks;
  return cudaLaunchKernel(reinterpret_cast<const void*>(picture_kernel), dim3(blocks),
                          dim3(kThreads), arguments, args.plan.near_bytes, nullptr);
}

}  // namespace sdpg::cuda
