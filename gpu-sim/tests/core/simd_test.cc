// The functions of core/simd.h are as accurate as promised, in every instruction set of the
// machine.
#include <cmath>

#include "core/block.h"
#include "core/simd_checks.h"

namespace sdpg::testing {
namespace {

void judge(const SimdErrors& e) {
  EXPECT_LE(e.sine, 2);
  EXPECT_LE(e.cosine, 2);
  EXPECT_LE(e.exponential, 2);
  EXPECT_LE(e.logarithm, 2);
  EXPECT_LE(e.arc, 4);
  EXPECT_LE(e.hyperbolic, 2);
  EXPECT_EQ(e.wrong, 0);
}

TEST(Simd, FunctionsAreAccurateInEveryInstructionSet) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  for (const core::Kernels* k : all_kernels()) {
    if (k->scalar_bytes != 4) continue;
    SCOPED_TRACE(k->isa);
    const std::string isa = k->isa;
    if (isa == "generic") judge(simd_errors_generic(seed));
    if (isa == "emulated") judge(simd_errors_emulated(seed));
#if defined(__x86_64__) && !defined(SDPG_BASELINE_ONLY)
    if (isa == "avx2") judge(simd_errors_avx2(seed));
    if (isa == "avx512") judge(simd_errors_avx512(seed));
#endif
  }
}

}  // namespace
}  // namespace sdpg::testing
