// The random numbers of philox.h for L environments at once, an environment a lane: the action
// noise of a batch.
#pragma once

#include "batch/philox.h"
#include "core/simd.h"

namespace sdpg::batch {
SDPG_ISA_BEGIN

template <int L>
#if defined(__CUDACC__)
struct Words;
#else
struct Words {
  typedef std::uint32_t U32 __attribute__((vector_size(4 * L)));
  typedef std::uint64_t U64 __attribute__((vector_size(8 * L)));
  typedef std::int32_t I32 __attribute__((vector_size(4 * L)));
};
#endif
template <>
struct Words<1> {
  typedef std::uint32_t U32;
  typedef std::uint64_t U64;
  typedef std::int32_t I32;
};

template <int L>
SDPG_INLINE void multiply(typename Words<L>::U32 a, std::uint32_t b, typename Words<L>::U32* low,
                          typename Words<L>::U32* high) {
  using U32 = typename Words<L>::U32;
  using U64 = typename Words<L>::U64;
  // Even and odd words apart, by the machine's 32 by 32 bit product, where a pack is one register.
  // (The forms with a mask are those that g++ 12 does not warn about.)
#if defined(__AVX512F__) && !defined(__CUDACC__)
  if constexpr (L == 16) {
    const __m512i factor = _mm512_set1_epi64(b);
    const __m512i even = _mm512_maskz_mul_epu32(0xff, (__m512i)a, factor);
    const __m512i odd =
        _mm512_maskz_mul_epu32(0xff, _mm512_maskz_srli_epi64(0xff, (__m512i)a, 32), factor);
    *low = (U32)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_maskz_slli_epi64(0xff, odd, 32));
    *high = (U32)_mm512_mask_blend_epi32(0xaaaa, _mm512_maskz_srli_epi64(0xff, even, 32), odd);
    return;
  }
#endif
#if defined(__AVX2__) && !defined(__CUDACC__)
  if constexpr (L == 8) {
    const __m256i factor = _mm256_set1_epi64x(b);
    const __m256i even = _mm256_mul_epu32((__m256i)a, factor);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), factor);
    *low = (U32)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    *high = (U32)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    return;
  }
#endif
  if constexpr (L == 1) {
    const U64 product = U64{a} * b;
    *low = static_cast<U32>(product);
    *high = static_cast<U32>(product >> 32);
  }
#if !defined(__CUDACC__)
  else {
    const U64 product = __builtin_convertvector(a, U64) * std::uint64_t{b};
    *low = __builtin_convertvector(product, U32);
    *high = __builtin_convertvector(product >> 32, U32);
  }
#endif
}

// philox() of philox.h for L environments at once.
template <int L>
SDPG_INLINE void philox_lanes(typename Words<L>::U32 c[4], std::uint64_t seed) {
  using U32 = typename Words<L>::U32;
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    U32 low0, high0, low1, high1;
    multiply<L>(c[0], kPhiloxMultiplier0, &low0, &high0);
    multiply<L>(c[2], kPhiloxMultiplier1, &low1, &high1);
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
}

// The upper 24 bits of each word as floats in [0, 2^24): exact.
template <int L>
SDPG_INLINE core::Pack<float, L> upper24(typename Words<L>::U32 words) {
  return core::from_integers<core::Pack<float, L>>((typename Words<L>::I32)(words >> 8));
}

template <int L>
SDPG_INLINE void normals(typename Words<L>::U32 first, typename Words<L>::U32 second,
                         core::Pack<float, L>* z0, core::Pack<float, L>* z1) {
  using P = core::Pack<float, L>;
  const P u1 = (upper24<L>(first) + P(0.5f)) * P(0x1p-24f);
  const P u2 = upper24<L>(second) * P(0x1p-24f);
  const P radius = core::sqrt(P(-2.0f) * core::log(u1));
  P sine, cosine;
  core::sincos(u2 * P(6.28318530717958647692f), &sine, &cosine);
  *z0 = radius * cosine;
  *z1 = radius * sine;
}

SDPG_ISA_END
}  // namespace sdpg::batch
