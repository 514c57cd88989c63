// See simd_checks.h.
#define SDPG_ISA generic
#include "core/simd_checks.h"

sdpg::testing::SimdErrors sdpg::testing::simd_errors_generic(unsigned long long seed) {
  return simd_errors<4>(seed);
}

sdpg::testing::SimdErrors sdpg::testing::simd_errors_emulated(unsigned long long seed) {
  return simd_errors<1>(seed);
}
