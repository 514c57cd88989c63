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
#include "cuda/device_renderer.h"
#include "render/image_stacks.h"
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
  bool shows;                         // the nominals' poses are asked for
  const render::ImageStacks* stacks;  // their views, laid out in `layout`; null without any
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

  // Poses of the nominals before step `slot`.
  void pose(std::uint32_t slot);
  // Pictures of these poses, and the stacks with them; see ImageStacks::advance and copy. Returns
  // the number of pictures.
  std::uint32_t advance_stacks(std::uint32_t from, std::uint32_t to);
  void copy_stacks(std::uint32_t from, std::uint32_t to);
  // As ImageStacks saves and restores them.
  void save_stacks(std::uint32_t slot, std::uint8_t* out) const;
  void restore_stacks(std::uint32_t slot, const std::uint8_t* in);

  // The exact state: [state blocks][progress][episodes].
  std::uint64_t saved_bytes() const { return saved_.bytes(); }
  void save(void* out) const;
  void restore(const void* in);
  // False if a number of the state is not finite.
  bool is_finite() const;

  // The rollout buffer, for callers without access to the device.
  void read_buffer(std::uint64_t offset, std::uint64_t bytes, void* out) const;
  bool ipc_handle(unsigned char handle[64]) const;
  // Waits for what was launched.
  void synchronize() const { device_.synchronize(); }
  const Device& device() const { return device_; }

 private:
  explicit DeviceBatch(Device& device) : device_(device) {}
  PhysicsArgs frames(std::uint32_t stride, const std::uint8_t* only) const;
  // Of all nominals, in a slot of the buffer.
  unsigned char* stacks_at(std::size_t view, std::uint32_t slot) const;
  std::uint64_t stacks_bytes(std::size_t view) const;

  Device& device_;
  BatchArgs args_{};
  PhysicsArgs physics_{};
  bool needs_frames_ = false;
  int substeps_ = 1;
  std::uint64_t state_bytes_ = 0;
  std::uint32_t environment_bytes_ = 0;
  const render::ImageStacks* stacks_ = nullptr;
  std::unique_ptr<DeviceRenderer> renderer_;
  float* pose_ = nullptr;          // [N, B, 7] of the newest slot
  std::uint8_t* begun_ = nullptr;  // [N] their episodes have just begun
  std::uint64_t pictures_ = 0;     // drawn of each nominal, all views of a slot as one
  DeviceMemory model_, saved_, constants_, work_, buffer_;
};

}  // namespace sdpg::cuda
