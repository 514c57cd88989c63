// The core compiled for AVX2 with FMA (32-byte vectors).
#define SDPG_ISA avx2
#include "core/kernels_table.h"
#include "core/tables.h"

namespace sdpg::core {

const Kernels kAvx2Float32 = make_table<Pack<float, 8>>("avx2");
const Kernels kAvx2Float64 = make_table<Pack<double, 4>>("avx2");

}  // namespace sdpg::core
