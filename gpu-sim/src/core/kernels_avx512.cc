// The core compiled for AVX-512 F, DQ, VL, BW (64-byte vectors).
#define SDPG_ISA avx512
#include "core/kernels_table.h"
#include "core/tables.h"

namespace sdpg::core {

const Kernels kAvx512Float32 = make_table<Pack<float, 16>>("avx512");
const Kernels kAvx512Float64 = make_table<Pack<double, 8>>("avx512");

}  // namespace sdpg::core
