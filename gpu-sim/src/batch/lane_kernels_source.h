// Source of the lane kernels; see lane_kernels.h. Included by lane_kernels_<isa>.cc, which name the
// instruction set. The random numbers are those of philox.h, an environment a lane.
#pragma once

#include "batch/lane_kernels.h"
#include "batch/philox.h"
#include "core/simd.h"

namespace sdpg::batch {
SDPG_ISA_BEGIN

template <int L>
struct Words {
  typedef std::uint32_t U32 __attribute__((vector_size(4 * L)));
  typedef std::uint64_t U64 __attribute__((vector_size(8 * L)));
  typedef std::int32_t I32 __attribute__((vector_size(4 * L)));
};
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
#if defined(__AVX512F__)
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
#if defined(__AVX2__)
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
  } else {
    const U64 product = __builtin_convertvector(a, U64) * std::uint64_t{b};
    *low = __builtin_convertvector(product, U32);
    *high = __builtin_convertvector(product >> 32, U32);
  }
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

template <int L>
void draw_actions(const ActionArgs& args) {
  using P = core::Pack<float, L>;
  using U32 = typename Words<L>::U32;
  const int actions = args.action_size;

  U32 environment;
  std::uint32_t perturbed = 0;  // bit: the lane is an auxiliary
  std::uint32_t group[L];
  std::uint32_t next_group = args.first_environment / args.members;
  std::uint32_t next_member = args.first_environment % args.members;
  const std::uint32_t last_group = args.environments / args.members - 1;
  for (int lane = 0; lane < L; ++lane) {
    const std::uint32_t e = args.first_environment + lane;
    if constexpr (L == 1)
      environment = e;
    else
      environment[lane] = e;
    group[lane] = next_group < last_group ? next_group : last_group;
    if (args.std != nullptr && next_member != 0 && e < args.environments) perturbed |= 1u << lane;
    if (++next_member == args.members) {
      next_member = 0;
      next_group += 1;
    }
  }
  const bool one_group = group[0] == group[L - 1];
  // A group's number j as a pack, from rows `stride` apart.
  const auto gather = [&](const float* from, std::uint32_t stride, int j) {
    if (one_group) return P(from[group[0] * stride + j]);
    P out;
    for (int lane = 0; lane < L; ++lane) core::set_lane(out, lane, from[group[lane] * stride + j]);
    return out;
  };
  const auto has_noise = core::from_bits<P>(perturbed);

  for (int first = 0; first < actions; first += 4) {
    P z[4] = {P(0.0f), P(0.0f), P(0.0f), P(0.0f)};
    if (perturbed != 0) {
      U32 counter[4];
      counter[0] = U32{} + (static_cast<std::uint32_t>(first / 4) | kActionNoise);
      counter[1] = environment;
      counter[2] = U32{} + args.t;
      counter[3] = U32{} + args.epoch;
      philox_lanes<L>(counter, args.seed);
      normals<L>(counter[0], counter[1], &z[0], &z[1]);
      normals<L>(counter[2], counter[3], &z[2], &z[3]);
    }
    for (int k = 0; k < 4 && first + k < actions; ++k) {
      const int j = first + k;
      const P mean = gather(args.mean, static_cast<std::uint32_t>(actions), j);
      const P std = args.std != nullptr
                        ? gather(args.std, static_cast<std::uint32_t>(args.std_stride), j)
                        : P(0.0f);
      const P noise = core::keep(has_noise, z[k]);
      // In this order the bounds let through what is not a number.
      const P moved = core::max(P(args.low), core::min(P(args.high), mean + std * noise));
      const P action = core::select(has_noise, moved, mean);
      core::store(args.noise + j * L, noise);
      core::store(args.action + j * L, action);
      core::store(args.squashed + j * L, core::tanh(action));
    }
  }
}

// ---- registers ----------------------------------------------------------------------------------

template <class T, int L>
std::uint32_t unusable(const void* registers, const std::uint32_t* rows, std::uint32_t count) {
  using P = core::Pack<T, L>;
  auto usable = core::all_lanes<P>();
  for (std::uint32_t i = 0; i < count; ++i) {
    const P x = core::load<P>(static_cast<const T*>(registers) + rows[i] * L);
    usable = usable & (core::abs(x) <= T(1e10));  // false for NaN
  }
  return core::bits(!usable);
}

template <class T, int L>
std::uint32_t nonzero(const void* registers, const std::uint32_t* rows, std::uint32_t count) {
  using P = core::Pack<T, L>;
  auto found = core::no_lanes<P>();
  for (std::uint32_t i = 0; i < count; ++i) {
    found = found | (core::load<P>(static_cast<const T*>(registers) + rows[i] * L) != T(0));
  }
  return core::bits(found);
}

// A register as float32.
template <class T, int L>
SDPG_INLINE core::Pack<float, L> narrow(const void* registers, std::uint32_t row) {
  const auto wide = core::load<core::Pack<T, L>>(static_cast<const T*>(registers) + row * L);
  if constexpr (L == 1) {
    return core::Pack<float, L>(static_cast<float>(wide.v));
  } else {
    using V = typename core::Pack<float, L>::Vector;
    return core::Pack<float, L>(__builtin_convertvector(wide.v, V));
  }
}

template <class T, int L>
void sum(const void* registers, const std::uint32_t* rows, std::uint32_t count, float* out) {
  core::Pack<float, L> total = core::Pack<float, L>(0.0f);
  for (std::uint32_t i = 0; i < count; ++i) total = total + narrow<T, L>(registers, rows[i]);
  for (int lane = 0; lane < L; ++lane) out[lane] = total[lane];
}

// Transposes W packs of L lanes in squares of W: stage s swaps the off-diagonal halves of every
// 2s x 2s square. Afterwards lane k's W numbers are the square k / W of pack k % W.
template <int L, int W, int s = 1>
SDPG_INLINE void transpose(core::Pack<float, L> v[W]) {
  if constexpr (s < W) {
    using I = typename core::Pack<float, L>::Integers;
    I low, high;
    for (int k = 0; k < L; ++k) {
      low[k] = (k & s) == 0 ? k : L + k - s;
      high[k] = (k & s) == 0 ? k + s : L + k;
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if ((i & s) != 0) continue;
      const auto a = v[i].v, b = v[i + s].v;
      v[i].v = __builtin_shuffle(a, b, low);
      v[i + s].v = __builtin_shuffle(a, b, high);
    }
    transpose<L, W, s * 2>(v);
  }
}

// Columns [first, first + columns) of `write`, columns <= W. Whole squares run over into what
// follows: later rows' first columns, which the caller writes later, but nothing beyond the block.
template <class T, int L, int W>
SDPG_INLINE void write_columns(const void* registers, const std::uint32_t* rows,
                               std::uint32_t count, std::uint32_t first, std::uint32_t columns,
                               std::uint32_t lanes, float* out) {
  core::Pack<float, L> tile[W];
  for (std::uint32_t i = 0; i < W; ++i)
    tile[i] = narrow<T, L>(registers, rows[first + (i < columns ? i : columns - 1)]);
  transpose<L, W>(tile);
  const auto numbers = [&](std::uint32_t lane) {
    return reinterpret_cast<const float*>(&tile[lane % W]) + lane / W * W;
  };
  const std::uint32_t end = lanes * count;
  std::uint32_t lane = 0;
  for (; lane < lanes && lane * count + first + W <= end; ++lane)
    __builtin_memcpy(out + lane * count + first, numbers(lane), W * sizeof(float));
  for (; lane < lanes; ++lane) {
    for (std::uint32_t i = 0; i < columns; ++i) out[lane * count + first + i] = numbers(lane)[i];
  }
}

template <class T, int L>
void write(const void* registers, const std::uint32_t* rows, std::uint32_t count,
           std::uint32_t lanes, float* out) {
  if (count == 0) return;
  if constexpr (L == 1) {
    for (std::uint32_t i = 0; i < count && lanes > 0; ++i)
      out[i] = narrow<T, 1>(registers, rows[i])[0];
    return;
  } else {
    // The last columns first: what they run over into is then written by the columns before them,
    // or, if there are none, by the next row.
    constexpr std::uint32_t width = L;
    std::uint32_t first = (count - 1) / width * width;
    const std::uint32_t columns = count - first;
    if constexpr (L >= 4) {
      if (columns <= 4)
        write_columns<T, L, 4>(registers, rows, count, first, columns, lanes, out);
      else if (L >= 8 && columns <= 8)
        write_columns<T, L, L >= 8 ? 8 : L>(registers, rows, count, first, columns, lanes, out);
      else
        write_columns<T, L, L>(registers, rows, count, first, columns, lanes, out);
    } else {
      write_columns<T, L, L>(registers, rows, count, first, columns, lanes, out);
    }
    while (first > 0) {
      first -= width;
      write_columns<T, L, L>(registers, rows, count, first, width, lanes, out);
    }
  }
}

template <class T, int L>
inline constexpr LaneKernels kLaneKernels = {draw_actions<L>, unusable<T, L>, nonzero<T, L>,
                                             sum<T, L>,       write<T, L>,    write<float, L>};

SDPG_INLINE const LaneKernels* lane_kernels(int lanes, int scalar_bytes) {
  if (scalar_bytes == 4) {
    switch (lanes) {
      case 1:
        return &kLaneKernels<float, 1>;
      case 4:
        return &kLaneKernels<float, 4>;
      case 8:
        return &kLaneKernels<float, 8>;
      case 16:
        return &kLaneKernels<float, 16>;
    }
  } else if (scalar_bytes == 8) {
    switch (lanes) {
      case 1:
        return &kLaneKernels<double, 1>;
      case 2:
        return &kLaneKernels<double, 2>;
      case 4:
        return &kLaneKernels<double, 4>;
      case 8:
        return &kLaneKernels<double, 8>;
    }
  }
  return nullptr;
}

SDPG_ISA_END
}  // namespace sdpg::batch
