#define SDPG_ISA generic
#include <string.h>

#include "batch/noise_kernels.h"

namespace sdpg::batch {

ActionKernel action_kernel_avx2(int lanes);
ActionKernel action_kernel_avx512(int lanes);

ActionKernel select_action_kernel(const char* isa, int lanes) {
#if defined(__x86_64__)
  if (strcmp(isa, "avx2") == 0) return action_kernel_avx2(lanes);
  if (strcmp(isa, "avx512") == 0) return action_kernel_avx512(lanes);
#endif
  return strcmp(isa, "generic") == 0 ? action_kernel(lanes) : nullptr;
}

}  // namespace sdpg::batch
