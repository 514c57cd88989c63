// What the services of one process share: how they were started, the worker threads, and the
// account of the memory that batches and scenes take.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "batch/thread_pool.h"

namespace sdpg::cuda {
class Device;
}

namespace sdpg::server {

struct ServiceOptions {
  int threads = 1;
  std::string isa;
  std::uint64_t memory_limit_bytes = UINT64_MAX;  // of all batches and scenes together
  bool shared_memory = true;
  std::shared_ptr<cuda::Device> device;  // steps on it; null: on the CPU
  bool simulates = true;                 // serves SimulationService beside RenderService
};

struct Resources {
  explicit Resources(const ServiceOptions& options) : options(options), pool(options.threads) {}

  const ServiceOptions options;
  batch::ThreadPool pool;
  // One creation at a time holds it: what it may take is what the others have left.
  std::mutex memory;
  std::uint64_t used_bytes = 0;  // under `memory`

  std::uint64_t left_bytes() const { return options.memory_limit_bytes - used_bytes; }
  void give_back(std::uint64_t bytes) {
    std::lock_guard lock(memory);
    used_bytes -= bytes;
  }
};

// Largest message the server takes; a longer one is RESOURCE_EXHAUSTED before it is read.
inline constexpr int kMaxMessageBytes = 32 << 20;
// Largest piece of a chunked transfer.
inline constexpr std::size_t kChunkBytes = 1 << 20;

}  // namespace sdpg::server
