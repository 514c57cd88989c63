// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011), the source of every random number of a batch.
// It maps a counter of four words under a key of two to four random words, so a number can be
// computed anywhere from what it is for, and no generator state needs saving.
//
// key = (low, high word of the seed). Counters, word 0 to 3:
//   action noise    {block | 1 << 28, environment, step t in the segment, epoch}
//   episode starts  {block | 2 << 28, nominal (its group), episode number of that nominal, 0}
//   own parameters  {block | 3 << 28, environment, episode number of its nominal, 0}
//   depth noise     {block | 4 << 28, environment, low, high word of the picture's number}
// where `block` = number of the value wanted / 4, and the value comes from word (number mod 4).
//   uniform in [0, 1):  (word >> 8) * 2^-24
//   normal:  words (0, 1) give values 4 block + 0 and + 1, words (2, 3) the next two, by
//   Box-Muller:
//     u1 = ((first >> 8) + 0.5) * 2^-24,  u2 = (second >> 8) * 2^-24,
//     r = sqrt(-2 ln u1),  values r cos(2 pi u2), r sin(2 pi u2), all in float32.
#pragma once

#include <cstdint>

#include "core/fn.h"

namespace sdpg::batch {

inline constexpr std::uint32_t kActionNoise = 1u << 28;
inline constexpr std::uint32_t kEpisodeStart = 2u << 28;
inline constexpr std::uint32_t kOwnParameters = 3u << 28;
inline constexpr std::uint32_t kDepthNoise = 4u << 28;

inline constexpr std::uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr std::uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;

SDPG_FN void philox(const std::uint32_t counter[4], std::uint64_t seed, std::uint32_t out[4]) {
  std::uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{kPhiloxMultiplier0} * c0;
    const std::uint64_t p1 = std::uint64_t{kPhiloxMultiplier1} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

SDPG_FN float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

}  // namespace sdpg::batch
