// The quick way to step a batch whose rollout buffer is in shared memory: instead of a message each
// way, the caller writes the means behind the buffer, rings, and sleeps until the step is done. A
// message over gRPC costs about 0.4 ms, most of it waking threads of two network stacks; a ring
// costs two wake-ups.
//
// It lasts for one segment. The caller sets `armed` and sends Begin on its Rollout stream; after
// the answer the server listens here, until the caller rings kEnd, which also ends the segment, or
// until the stream is cancelled. Steps mean what they mean on the stream, with the same bits.
//
// The block follows the rollout buffer's arrays in the shared memory object, at offset
// `buffer_bytes`; `object_bytes` covers it. services/learner/simulation_grpc.ts writes it by the
// offsets below.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sdpg::batch {

struct StepReport;

struct Doorbell {
  static constexpr std::uint32_t kMagic = 0x32424453;  // "SDB2"
  enum Command : std::uint32_t { kStep = 1, kEnd = 2 };

  struct Phase {
    char name[12];                  // NUL-terminated
    std::uint32_t count;            // steps that had it
    double seconds;                 // summed over the segment's steps
    std::uint64_t start_unix_nano;  // of the first
  };

  std::uint32_t magic;                // 0
  alignas(64) std::uint32_t request;  // 64: futex; one more for each ring
  alignas(64) std::uint32_t reply;    // 128: futex; the newest ring answered
  // Written by the caller before it rings.
  alignas(64) std::uint32_t armed;  // 192: 1 asks for the next segment's steps to come here
  std::uint32_t command;            // 196
  std::uint32_t t;                  // 200
  std::uint32_t log_std_count;      // 204: A, N*A, or 0 for no noise
  // Written by the server before it answers.
  std::uint32_t status;         // 208: 0, or the gRPC code whose line is in `error`
  std::uint32_t nominals_done;  // 212: summed over the segment
  std::uint32_t faults;         // 216: summed over the segment
  std::uint32_t phase_count;    // 220
  std::uint32_t images;         // 224: drawn by the segment's steps; Begun says its own
  alignas(64) Phase phases[6];  // 256
  char error[512];              // 448: NUL-terminated
  alignas(64) float values[1];  // 960: mean [N*A], then log_std [log_std_count]

  static std::size_t bytes(std::uint64_t action_values) {
    return (offsetof(Doorbell, values) + 2 * action_values * sizeof(float) + 63) / 64 * 64;
  }

  // Server: takes no notice of rings before now.
  void listen();
  // Server: waits for the next ring. False when there was none in `timeout_ms`.
  bool await_ring(int timeout_ms);
  // Server: adds a step's report to the segment's.
  void add(const StepReport& report);
  // Server: answers the newest ring. `line` is cut to fit.
  void answer(std::uint32_t code, const char* line);

  // Caller: rings and waits for the answer. False when there was none in `timeout_ms`.
  bool ring(int timeout_ms);
  // Caller: goes on waiting for the answer of the newest ring.
  bool await_answer(int timeout_ms);
};

static_assert(offsetof(Doorbell, request) == 64 && offsetof(Doorbell, reply) == 128 &&
              offsetof(Doorbell, armed) == 192 && offsetof(Doorbell, status) == 208 &&
              offsetof(Doorbell, images) == 224 && offsetof(Doorbell, phases) == 256 &&
              offsetof(Doorbell, error) == 448 && offsetof(Doorbell, values) == 960);

}  // namespace sdpg::batch
