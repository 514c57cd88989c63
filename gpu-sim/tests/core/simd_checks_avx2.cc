// See simd_checks.h.
#define SDPG_ISA avx2
#include "core/simd_checks.h"

sdpg::testing::SimdErrors sdpg::testing::simd_errors_avx2(unsigned long long seed) {
  return simd_errors<8>(seed);
}
