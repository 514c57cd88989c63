// A batch on a device: its state, its rollout buffer and the steps over them never leave it.
// batch::Batch checks what it is asked, and calls this instead of its own loops where it has a
// device.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batch/rollout_buffer.h"
#include "cuda/batch_args.h"
#include "cuda/device_model.h"
#include "task/make_program.h"

namespace sdpg::cuda {

// What a batch tells; the layout of its state is made here.
struct DeviceBatchSetup {
  const core::Model* model;
  const task::Program* program;
  std::vector<double> qpos0;
  std::uint64_t seed;
  std::uint32_t nominals, members;
  batch::BufferLayout layout;
  std::uint64_t memory_limit_bytes;
};

class DeviceBatch {
 public:
  // Null and one line in `error` when the model or the batch does not fit.
  static std::unique_ptr<DeviceBatch> create(Device& device, const DeviceBatchSetup& setup,
                                             std::string* error);

  // New episodes for all nominals if `reset`; then auxiliaries become their nominals, and slot 0
  // gets its observations. False if one of these is not finite.
  bool begin(bool reset);
  // mean [N, A] clipped; std [A] or [N, A] or null, as the host holds them.
  Counters step(const StepArgs& args, const float* mean, const float* std, std::size_t std_count);

  std::uint32_t rows() const { return args_.state.rows.end; }
  // Of everything but the rollout buffer; of one environment's state.
  std::uint64_t state_bytes() const { return state_bytes_; }
  std::uint32_t environment_bytes() const { return environment_bytes_; }

  // The exact state: [state blocks][progress][episodes].
  std::uint64_t saved_bytes() const { return saved_.bytes(); }
  void save(void* out) const;
  void restore(const void* in);
  // False if a number of the state is not finite.
  bool is_finite() const;

  // The rollout buffer, for callers without access to the device.
  void read_buffer(std::uint64_t offset, std::uint64_t bytes, void* out) const;
  bool ipc_handle(unsigned char handle[64]) const;
  const Device& device() const { return device_; }

 private:
  explicit DeviceBatch(Device& device) : device_(device) {}
  PhysicsArgs frames(std::uint32_t stride, const std::uint8_t* only) const;

  Device& device_;
  BatchArgs args_{};
  PhysicsArgs physics_{};
  bool needs_frames_ = false;
  int substeps_ = 1;
  std::uint64_t state_bytes_ = 0;
  std::uint32_t environment_bytes_ = 0;
  DeviceMemory model_, saved_, constants_, work_, buffer_;
};

}  // namespace sdpg::cuda
