#include "batch/doorbell.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "batch/batch.h"
#include "gpu_sim.h"

namespace sdpg::batch {
namespace {

std::uint32_t load(const std::uint32_t& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }

void store_and_wake(std::uint32_t* word, std::uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
  syscall(SYS_futex, word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

std::int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

// Sleeps until the word differs from `value`; false when it still equals it after `timeout_ms`.
bool await_change(std::uint32_t* word, std::uint32_t value, int timeout_ms) {
  const std::int64_t deadline = now_ns() + timeout_ms * 1'000'000ll;
  while (load(*word) == value) {
    const std::int64_t left = deadline - now_ns();
    if (left <= 0) return false;
    const timespec timeout = {left / 1'000'000'000, left % 1'000'000'000};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &timeout, nullptr, 0);
  }
  return true;
}

}  // namespace

void Doorbell::listen() {
  nominals_done = faults = images = phase_count = status = 0;
  memset(phases, 0, sizeof phases);
  __atomic_store_n(&reply, load(request), __ATOMIC_RELEASE);
}

bool Doorbell::await_ring(int timeout_ms) { return await_change(&request, reply, timeout_ms); }

void Doorbell::add(const StepReport& report) {
  nominals_done += report.nominals_done;
  faults += report.faults;
  images += report.images;
  phase_count = 0;
  for (const PhaseTime& phase : report.phases) {
    if (phase.phase == nullptr) break;
    Phase& sum = phases[phase_count++];
    if (strncmp(sum.name, phase.phase, sizeof sum.name) != 0) {
      sum = {};
      snprintf(sum.name, sizeof sum.name, "%s", phase.phase);
      sum.start_unix_nano = phase.start;
    }
    sum.count += 1;
    sum.seconds += static_cast<double>(phase.end - phase.start) * 1e-9;
  }
}

void Doorbell::answer(std::uint32_t code, const char* line) {
  status = code;
  snprintf(error, sizeof error, "%s", line);
  store_and_wake(&reply, load(request));
}

bool Doorbell::ring(int timeout_ms) {
  store_and_wake(&request, load(request) + 1);
  return await_answer(timeout_ms);
}

bool Doorbell::await_answer(int timeout_ms) {
  const std::int64_t deadline = now_ns() + timeout_ms * 1'000'000ll;
  const std::uint32_t wanted = load(request);
  while (true) {
    const std::uint32_t answered = load(reply);
    if (answered == wanted) return true;
    const std::int64_t left = deadline - now_ns();
    if (left <= 0) return false;
    await_change(&reply, answered, static_cast<int>(left / 1'000'000) + 1);
  }
}

}  // namespace sdpg::batch

extern "C" {

int gpu_sim_doorbell_ring(void* doorbell, int timeout_ms) {
  return static_cast<sdpg::batch::Doorbell*>(doorbell)->ring(timeout_ms) ? 1 : 0;
}

int gpu_sim_doorbell_await(void* doorbell, int timeout_ms) {
  return static_cast<sdpg::batch::Doorbell*>(doorbell)->await_answer(timeout_ms) ? 1 : 0;
}

}  // extern "C"
