// Source of the action kernels; see noise.h. Included by noise_<isa>.cc, which name the instruction
// set. The numbers are those of philox.h, an environment a lane.
#pragma once

#include "batch/noise.h"
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

template <int L>
SDPG_INLINE void multiply(typename Words<L>::U32 a, std::uint32_t b, typename Words<L>::U32* low,
                          typename Words<L>::U32* high) {
  using U32 = typename Words<L>::U32;
  using U64 = typename Words<L>::U64;
  const U64 product = __builtin_convertvector(a, U64) * std::uint64_t{b};
  *low = __builtin_convertvector(product, U32);
  *high = __builtin_convertvector(product >> 32, U32);
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
  using Vector = typename core::Pack<float, L>::Vector;
  using I32 = typename Words<L>::I32;
  return core::Pack<float, L>(__builtin_convertvector((I32)(words >> 8), Vector));
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
  for (int lane = 0; lane < L; ++lane) {
    const std::uint32_t e = args.first_environment + lane;
    environment[lane] = e;
    const bool padding = e >= args.environments;
    group[lane] = (padding ? args.environments - 1 : e) / args.members;
    if (!padding && args.std != nullptr && e % args.members != 0) perturbed |= 1u << lane;
  }
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
      P mean, std = P(0.0f);
      for (int lane = 0; lane < L; ++lane) mean.v[lane] = args.mean[group[lane] * actions + j];
      if (args.std != nullptr) {
        for (int lane = 0; lane < L; ++lane)
          std.v[lane] = args.std[group[lane] * static_cast<std::uint32_t>(args.std_stride) + j];
      }
      const P noise = core::keep(has_noise, z[k]);
      const P moved = core::max(core::min(mean + std * noise, args.high), args.low);
      const P action = core::select(has_noise, moved, mean);
      core::store(args.noise + j * L, noise);
      core::store(args.action + j * L, action);
      core::store(args.squashed + j * L, core::tanh(action));
    }
  }
}

SDPG_INLINE ActionKernel action_kernel(int lanes) {
  return lanes == 2    ? draw_actions<2>
         : lanes == 4  ? draw_actions<4>
         : lanes == 8  ? draw_actions<8>
         : lanes == 16 ? draw_actions<16>
                       : static_cast<ActionKernel>(nullptr);
}

SDPG_ISA_END
}  // namespace sdpg::batch
