// Launches of pictures. They are a translation unit of their own, compiled without fused products
// (cmake/cuda.cmake), so that a GPU rounds as a CPU does.
#pragma once

#include <cuda_runtime.h>

#include "cuda/draw_args.h"

namespace sdpg::cuda {

// Everything of the plan but the number of blocks, and how many of them a multiprocessor holds.
cudaError_t lay_out_pictures(const render::SceneArrays& scene, PicturePlan* plan,
                             int* blocks_of_multiprocessor);
cudaError_t launch_pictures(const DrawArgs& args);

}  // namespace sdpg::cuda
