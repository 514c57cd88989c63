// Source of the lane kernels; see lane_kernels.h. Included by lane_kernels_<isa>.cc, which name the
// instruction set. The random numbers are those of philox.h, an environment a lane.
#pragma once

#include "batch/lane_kernels.h"
#include "batch/normals.h"

namespace sdpg::batch {
SDPG_ISA_BEGIN

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
