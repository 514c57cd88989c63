// A team whose members are fibers of one CPU thread: each member runs the whole kernel, as a CUDA
// thread does, and hands over at every barrier. Between two barriers the members run one after the
// other in an order shuffled by a seed. What EmulatedTeam cannot show, this does: code outside of a
// team's calls that writes what its members share is run by all of them. For tests; the sums have
// the order of WarpTeam<N>.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "core/team.h"

namespace sdpg::cuda {
SDPG_ISA_BEGIN

// Runs N members of one function to its end.
template <int N>
class Fibers {
 public:
  explicit Fibers(std::uint32_t seed) : random_(seed) {
    for (auto& stack : stacks_) stack = std::make_unique<unsigned char[]>(kStackBytes);
  }

  void run(const std::function<void(int member)>& f) {
    function_ = &f;
    for (int m = 0; m < N; ++m) {
      getcontext(&members_[m]);
      members_[m].uc_stack.ss_sp = stacks_[m].get();
      members_[m].uc_stack.ss_size = kStackBytes;
      members_[m].uc_link = &main_;
      const auto self = reinterpret_cast<std::uintptr_t>(this);
      makecontext(&members_[m], reinterpret_cast<void (*)()>(entry), 3, static_cast<unsigned>(self),
                  static_cast<unsigned>(self >> 32), m);
      running_[m] = true;
    }
    for (int left = N; left > 0;) {
      random_ = random_ * 1664525u + 1013904223u;
      const int first = static_cast<int>(random_ >> 27), step = static_cast<int>(random_ >> 16) | 1;
      for (int k = 0; k < N; ++k) {
        const int m = (first + k * step) & (N - 1);  // an odd step visits every member
        if (!running_[m]) continue;
        now_ = m;
        swapcontext(&main_, &members_[m]);
        left -= running_[m] ? 0 : 1;
      }
    }
  }

  void barrier(int member) { swapcontext(&members_[member], &main_); }
  unsigned char* slot(int member) { return slots_[member]; }

 private:
  static constexpr std::size_t kStackBytes = 256 << 10;

  static void entry(unsigned low, unsigned high, int member) {
    auto* self = reinterpret_cast<Fibers*>(std::uintptr_t{high} << 32 | low);
    (*self->function_)(member);
    self->running_[member] = false;
  }

  const std::function<void(int)>* function_ = nullptr;
  ucontext_t main_, members_[N];
  std::unique_ptr<unsigned char[]> stacks_[N];
  bool running_[N];
  int now_ = 0;
  std::uint32_t random_;
  alignas(16) unsigned char slots_[N][64];
};

template <int N>
struct FiberTeam {
  static_assert(N >= 2 && N <= 32 && (N & (N - 1)) == 0);
  static constexpr int members = N;

  Fibers<N>* fibers = nullptr;
  int member = 0;

  template <class F>
  void each(int begin, int end, const F& f) const {
    barrier();
    for (int i = begin + member; i < end; i += N) f(i);
    barrier();
  }
  template <class X, class F>
  X sum(int begin, int end, const F& f) const {
    barrier();
    X total{};
    for (int i = begin + member; i < end; i += N) total = total + f(i);
    for (int step = 1; step < N; step *= 2) total = total + from(member ^ step, total);
    barrier();
    return total;
  }
  template <class F>
  std::uint32_t unite(int begin, int end, const F& f) const {
    barrier();
    std::uint32_t lanes = 0;
    for (int i = begin + member; i < end; i += N) lanes |= f(i);
    for (int step = 1; step < N; step *= 2) lanes |= from(member ^ step, lanes);
    barrier();
    return lanes;
  }
  template <class Local, class Produce, class Write>
  void collect(int n, int* counter, const Produce& produce, const Write& write) const {
    barrier();
    for (int first = 0; first < n; first += N) {
      const int i = first + member;
      Local local;
      const int items = i < n ? produce(i, local) : 0;
      int before = items;
      for (int step = 1; step < N; step *= 2) {
        const int lower = from(member >= step ? member - step : member, before);
        if (member >= step) before += lower;
      }
      if (items > 0) write(i, static_cast<const Local&>(local), *counter + before - items, items);
      *counter += from(N - 1, before);
    }
    barrier();
  }
  template <class F>
  void once(const F& f) const {
    barrier();
    if (member == 0) f();
    barrier();
  }

 private:
  void barrier() const { fibers->barrier(member); }
  // Another member's x, as __shfl_sync hands it over.
  template <class X>
  X from(int other, const X& x) const {
    static_assert(sizeof(X) <= 64);
    std::memcpy(fibers->slot(member), &x, sizeof x);
    barrier();
    X out;
    std::memcpy(&out, fibers->slot(other), sizeof out);
    barrier();
    return out;
  }
};

SDPG_ISA_END
}  // namespace sdpg::cuda
