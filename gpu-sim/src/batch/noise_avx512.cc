#define SDPG_ISA avx512
#include "batch/noise_kernels.h"

namespace sdpg::batch {

ActionKernel action_kernel_avx512(int lanes) { return action_kernel(lanes); }

}  // namespace sdpg::batch
