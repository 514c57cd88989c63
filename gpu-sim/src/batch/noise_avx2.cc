#define SDPG_ISA avx2
#include "batch/noise_kernels.h"

namespace sdpg::batch {

ActionKernel action_kernel_avx2(int lanes) { return action_kernel(lanes); }

}  // namespace sdpg::batch
