#define SDPG_ISA avx2
#include "batch/lane_kernels_source.h"

namespace sdpg::batch {

const LaneKernels* lane_kernels_avx2(int lanes, int scalar_bytes) {
  return lane_kernels(lanes, scalar_bytes);
}

}  // namespace sdpg::batch
