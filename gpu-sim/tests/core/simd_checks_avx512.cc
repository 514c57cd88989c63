// See simd_checks.h.
#define SDPG_ISA avx512
#include "core/simd_checks.h"

sdpg::testing::SimdErrors sdpg::testing::simd_errors_avx512(unsigned long long seed) {
  return simd_errors<16>(seed);
}
