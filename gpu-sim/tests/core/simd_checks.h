// Accuracy of the functions of core/simd.h, measured over random arguments by code that is compiled
// per instruction set (simd_checks_<isa>.cc). It includes nothing that the linker could merge with
// code of another instruction set; simd_test.cc judges the numbers.
#pragma once

#include "core/simd.h"

// libm, declared here because <cmath> brings inline functions along.
extern "C" {
double sin(double);
double cos(double);
double exp(double);
double log(double);
double atan2(double, double);
double tanh(double);
}

namespace sdpg::testing {

// Worst errors in units in the last place of float32, sine and cosine of 1/2^24 absolute; `wrong`
// counts special cases, comparisons and selections that did not come out as they must.
struct SimdErrors {
  double sine = 0, cosine = 0, exponential = 0, logarithm = 0, arc = 0, hyperbolic = 0;
  int wrong = 0;
};

SimdErrors simd_errors_generic(unsigned long long seed);
SimdErrors simd_errors_emulated(unsigned long long seed);  // Pack<float, 1>
SimdErrors simd_errors_avx2(unsigned long long seed);
SimdErrors simd_errors_avx512(unsigned long long seed);

SDPG_ISA_BEGIN

struct Draws {
  unsigned long long state;
  double uniform() {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<double>(state >> 11) * 0x1p-53;
  }
};

// |got - want| in units of the last place of want.
inline double ulps(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (want != want) return got != got ? 0 : 1e9;
  if (got == rounded) return 0;
  int exponent = 0;
  __builtin_frexp(want, &exponent);
  const double unit = __builtin_ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
  return __builtin_fabs(static_cast<double>(got) - want) / unit;
}

template <int L>
SimdErrors simd_errors(unsigned long long seed) {
  using P = core::Pack<float, L>;
  SimdErrors worst;
  Draws draws{seed};
  const auto raise = [](double& x, double error) {
    if (!(error <= x)) x = error;
  };
  for (int round = 0; round < 20000; ++round) {
    P x = P(0.0f), y = P(0.0f);
    for (int i = 0; i < L; ++i) {
      const double wide =
          __builtin_ldexp(2 * draws.uniform() - 1, static_cast<int>(40 * draws.uniform()) - 25);
      core::set_lane(x, i, static_cast<float>(round % 2 ? wide : 24 * draws.uniform() - 12));
      core::set_lane(y, i, static_cast<float>(24 * draws.uniform() - 12));
    }
    P s, c;
    core::sincos(x, &s, &c);
    const P e = core::exp(x), l = core::log(x), a = core::atan2(x, y), t = core::tanh(x);
    const auto less = x < y;
    const P smaller = core::min(x, y), root = core::sqrt(core::abs(x)), down = core::floor(x);
    for (int i = 0; i < L; ++i) {
      const double xi = x[i], yi = y[i];
      raise(worst.sine, __builtin_fabs(s[i] - ::sin(xi)) * 0x1p24);
      raise(worst.cosine, __builtin_fabs(c[i] - ::cos(xi)) * 0x1p24);
      raise(worst.exponential, ulps(e[i], ::exp(xi)));
      raise(worst.logarithm, ulps(l[i], ::log(xi)));
      raise(worst.arc, ulps(a[i], ::atan2(xi, yi)));
      raise(worst.hyperbolic, ulps(t[i], ::tanh(xi)));
      worst.wrong += (core::bits(less) >> i & 1) != (xi < yi);
      worst.wrong += smaller[i] != (xi < yi ? x[i] : y[i]);
      worst.wrong += root[i] != __builtin_sqrtf(__builtin_fabsf(x[i]));
      worst.wrong += down[i] != __builtin_floorf(x[i]);
    }
  }

  const float infinity = __builtin_inff(), nan = __builtin_nanf("");
  const auto negative = [](float x) { return __builtin_signbit(x) != 0; };
  const auto expect = [&](P got, float want) {
    for (int i = 0; i < L; ++i)
      worst.wrong +=
          want != want ? got[i] == got[i] : got[i] != want || negative(got[i]) != negative(want);
  };
  expect(core::exp(P(infinity)), infinity);
  expect(core::exp(P(-infinity)), 0.0f);
  expect(core::exp(P(nan)), nan);
  expect(core::log(P(0.0f)), -infinity);
  expect(core::log(P(infinity)), infinity);
  expect(core::log(P(-1.0f)), nan);
  expect(core::tanh(P(infinity)), 1.0f);
  expect(core::tanh(P(nan)), nan);
  expect(core::sin(P(infinity)), nan);
  expect(core::cos(P(nan)), nan);
  expect(core::atan2(P(0.0f), P(1.0f)), 0.0f);
  expect(core::atan2(P(-0.0f), P(-1.0f)), -3.14159265f);
  expect(core::atan2(P(infinity), P(infinity)), 0.785398163f);
  expect(core::atan2(P(nan), P(1.0f)), nan);
  expect(core::abs(P(-0.0f)), 0.0f);
  expect(P(-0.0f), -0.0f);
  expect(core::copysign(P(2.0f), P(-0.0f)), -2.0f);
  worst.wrong += core::any(P(nan) < P(1.0f)) || core::any(P(nan) >= P(1.0f)) ||
                 core::any(P(nan) == P(nan)) || !core::all(P(nan) != P(nan));
  for (std::uint32_t mask = 0; mask<1u << L; mask += L> 8 ? 77 : 1) {
    const auto lanes = core::from_bits<P>(mask);
    worst.wrong += core::bits(lanes) != mask || core::bits(!lanes) != (~mask & ((1u << L) - 1));
    const P kept = core::keep(lanes, P(nan));
    for (int i = 0; i < L; ++i) worst.wrong += (mask >> i & 1) != (kept[i] != kept[i]);
  }
  return worst;
}

SDPG_ISA_END
}  // namespace sdpg::testing
