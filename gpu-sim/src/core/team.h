// A *team* is who computes one environment (on a CPU: one block of environments): the other half of
// "one source, two mappings". The pipeline is written once over a pack P (simd.h) and a team:
//
//   Alone            CPU. One member; every loop is a plain loop and inlines away.
//   WarpTeam<N>      CUDA. N threads of one warp (4, 8, 16 or 32) share an environment; P is
//                    Pack<T, 1>, the arrays of Scratch lie in shared memory.
//   EmulatedTeam<N>  CPU, tests. Goes through the loops as WarpTeam<N> would, members and parts in
//                    an order shuffled by a seed: a part that reads what another part of the same
//                    loop writes gives other bits under another seed.
//
// Outside of the calls below code is *uniform*: every member runs it and holds the same values, and
// it only reads the arrays it shares with the other members. Inside a call, part i writes only what
// belongs to part i and reads only what was complete before the call.
//
//   each(begin, end, f)    f(i) for every part, in any order
//   sum<X>(begin, end, f)  the sum of f(i), from X{}, in an order that depends on N alone; X is a
//                          pack or a struct of packs with operator+
//   unite(begin, end, f)   the parts' std::uint32_t lane masks, or-ed
//   collect<Local>(n, &counter, produce, write)
//                          compaction in part order: produce(i, local) says how many items part i
//                          has (kept in its Local); write(i, local, at, k) stores them, `at` being
//                          the counter plus the items of all parts before i; afterwards the counter
//                          has grown by all of them
//   once(f)                f() by one member
//
// Each call begins and ends with a barrier of the team. All members make the same calls.
#pragma once

#include <cstdint>

#include "core/simd.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

struct Alone {
  static constexpr int members = 1;

  template <class F>
  SDPG_INLINE void each(int begin, int end, const F& f) const {
    for (int i = begin; i < end; ++i) f(i);
  }
  template <class X, class F>
  SDPG_INLINE X sum(int begin, int end, const F& f) const {
    X total{};
    for (int i = begin; i < end; ++i) total = total + f(i);
    return total;
  }
  template <class F>
  SDPG_INLINE std::uint32_t unite(int begin, int end, const F& f) const {
    std::uint32_t lanes = 0;
    for (int i = begin; i < end; ++i) lanes |= f(i);
    return lanes;
  }
  template <class Local, class Produce, class Write>
  SDPG_INLINE void collect(int n, int* counter, const Produce& produce, const Write& write) const {
    for (int i = 0; i < n; ++i) {
      Local local;
      const int items = produce(i, local);
      if (items == 0) continue;
      write(i, static_cast<const Local&>(local), *counter, items);
      *counter += items;
    }
  }
  template <class F>
  SDPG_INLINE void once(const F& f) const {
    f();
  }
};

#if defined(__CUDACC__)

template <int N>
struct WarpTeam {
  static_assert(N >= 2 && N <= 32 && (N & (N - 1)) == 0);
  static constexpr int members = N;

  std::uint32_t mask;  // the members' bits in their warp
  int member;          // this thread's number in the team

  // The team of the calling thread; whole warps are divided into teams.
  static __device__ WarpTeam of_thread() {
    const unsigned lane = threadIdx.x % 32u, first = lane / N * N;
    const std::uint32_t all = N == 32 ? ~0u : (1u << (N % 32)) - 1u;
    return {all << first, static_cast<int>(lane - first)};
  }

  template <class F>
  SDPG_INLINE void each(int begin, int end, const F& f) const {
    barrier();
    for (int i = begin + member; i < end; i += N) f(i);
    barrier();
  }
  template <class X, class F>
  SDPG_INLINE X sum(int begin, int end, const F& f) const {
    barrier();
    X total{};
    for (int i = begin + member; i < end; i += N) total = total + f(i);
    // A butterfly: a + b and b + a are the same bits, so all members end with the same sum.
    for (int step = 1; step < N; step *= 2) total = total + swapped(total, step);
    barrier();
    return total;
  }
  template <class F>
  SDPG_INLINE std::uint32_t unite(int begin, int end, const F& f) const {
    barrier();
    std::uint32_t lanes = 0;
    for (int i = begin + member; i < end; i += N) lanes |= f(i);
    for (int step = 1; step < N; step *= 2) lanes |= swapped(lanes, step);
    barrier();
    return lanes;
  }
  template <class Local, class Produce, class Write>
  SDPG_INLINE void collect(int n, int* counter, const Produce& produce, const Write& write) const {
    barrier();
    for (int first = 0; first < n; first += N) {
      const int i = first + member;
      Local local;
      const int items = i < n ? produce(i, local) : 0;
      int before = items;  // of the members up to and including this one
      for (int step = 1; step < N; step *= 2) {
        const int lower = from_lower(before, step);
        if (member >= step) before += lower;
      }
      if (items > 0) write(i, static_cast<const Local&>(local), *counter + before - items, items);
      *counter += from_last(before);
    }
    barrier();
  }
  template <class F>
  SDPG_INLINE void once(const F& f) const {
    barrier();
    if (member == 0) f();
    barrier();
  }

 private:
  SDPG_INLINE void barrier() const {
#if defined(__CUDA_ARCH__)
    __syncwarp(mask);
#endif
  }
  template <class X>
  SDPG_INLINE X swapped(const X& x, int step) const {
    static_assert(sizeof(X) % 4 == 0 && alignof(X) >= 4);
    X out = x;
#if defined(__CUDA_ARCH__)
    std::uint32_t words[sizeof(X) / 4];
    memcpy(words, &x, sizeof(X));
    for (auto& word : words) word = __shfl_xor_sync(mask, word, step, N);
    memcpy(&out, words, sizeof(X));
#endif
    return out;
  }
  SDPG_INLINE int from_lower(int x, int step) const {
#if defined(__CUDA_ARCH__)
    return __shfl_up_sync(mask, x, step, N);
#else
    return x;
#endif
  }
  SDPG_INLINE int from_last(int x) const {
#if defined(__CUDA_ARCH__)
    return __shfl_sync(mask, x, N - 1, N);
#else
    return x;
#endif
  }
};

#else

template <int N>
struct EmulatedTeam {
  static_assert(N >= 2 && N <= 32 && (N & (N - 1)) == 0);
  static constexpr int members = N;

  std::uint32_t seed = 0;  // 0 keeps the order; anything else shuffles each call anew

  template <class F>
  void each(int begin, int end, const F& f) const {
    const Order order(*this, end - begin);
    for (int i = 0; i < end - begin; ++i) f(begin + order(i));
  }
  template <class X, class F>
  X sum(int begin, int end, const F& f) const {
    X part[N];
    const Order order(*this, N);
    for (int k = 0; k < N; ++k) {
      const int member = order(k);
      part[member] = X{};
      for (int i = begin + member; i < end; i += N) part[member] = part[member] + f(i);
    }
    // Member 0 of the butterfly.
    for (int step = 1; step < N; step *= 2)
      for (int m = 0; m < N; m += 2 * step) part[m] = part[m] + part[m + step];
    return part[0];
  }
  template <class F>
  std::uint32_t unite(int begin, int end, const F& f) const {
    std::uint32_t lanes = 0;
    each(begin, end, [&](int i) { lanes |= f(i); });
    return lanes;
  }
  template <class Local, class Produce, class Write>
  void collect(int n, int* counter, const Produce& produce, const Write& write) const {
    for (int first = 0; first < n; first += N) {
      const int count = n - first < N ? n - first : N;
      Local local[N];
      int items[N], at[N];
      const Order making(*this, count), writing(*this, count);
      for (int k = 0; k < count; ++k) {
        const int m = making(k);
        items[m] = produce(first + m, local[m]);
      }
      for (int m = 0; m < count; ++m) {
        at[m] = *counter;
        *counter += items[m];
      }
      for (int k = 0; k < count; ++k) {
        const int m = writing(k);
        if (items[m] > 0) write(first + m, static_cast<const Local&>(local[m]), at[m], items[m]);
      }
    }
  }
  template <class F>
  void once(const F& f) const {
    f();
  }

 private:
  // i -> (i * prime + shift) mod n, a permutation of 0 ... n - 1 for n below the prime.
  struct Order {
    std::uint32_t n, prime, shift;
    Order(const EmulatedTeam& team, int count) : n(count < 1 ? 1u : static_cast<unsigned>(count)) {
      prime = 1;
      shift = 0;
      if (team.seed == 0) return;
      team.calls_ = team.calls_ * 1664525u + 1013904223u + team.seed;
      const std::uint32_t primes[4] = {1000003, 1299709, 1500007, 1999993};
      prime = primes[team.calls_ >> 30];
      shift = team.calls_ >> 8 & 0xfffff;
    }
    int operator()(int i) const {
      return static_cast<int>((std::uint64_t{static_cast<unsigned>(i)} * prime + shift) % n);
    }
  };
  mutable std::uint32_t calls_ = 0;
};

#endif

SDPG_ISA_END
}  // namespace sdpg::core
