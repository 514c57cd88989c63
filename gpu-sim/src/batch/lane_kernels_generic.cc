#define SDPG_ISA generic
#include <string.h>

#include "batch/lane_kernels_source.h"

namespace sdpg::batch {

const LaneKernels* lane_kernels_avx2(int lanes, int scalar_bytes);
const LaneKernels* lane_kernels_avx512(int lanes, int scalar_bytes);

const LaneKernels* select_lane_kernels(const char* isa, int lanes, int scalar_bytes) {
#if defined(__x86_64__) && !defined(SDPG_BASELINE_ONLY)
  if (strcmp(isa, "avx2") == 0) return lane_kernels_avx2(lanes, scalar_bytes);
  if (strcmp(isa, "avx512") == 0) return lane_kernels_avx512(lanes, scalar_bytes);
#endif
  const bool baseline = strcmp(isa, "generic") == 0 || strcmp(isa, "emulated") == 0;
  return baseline ? lane_kernels(lanes, scalar_bytes) : nullptr;
}

}  // namespace sdpg::batch
