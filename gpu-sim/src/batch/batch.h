// A batch: N groups of one nominal and M auxiliary environments, their state, and the rollout
// buffer a segment writes into. The contract is proto/sdpg/sim/v1/sim.proto.
//
// State is kept in blocks of `lanes` consecutive environments; a block is an array of rows
// [row][lane], and a row is one number of the state (a coordinate, a velocity, a persistent
// register,
// ...). A step is two loops over a thread pool: over blocks (actions, control program, physics,
// step and observe programs, outputs), then over groups (episode starts and copies of nominals into
// auxiliaries). An item of a loop touches nothing of another item, so results do not depend on the
// number of threads. Where views are asked for, two more loops follow: over blocks of nominals
// (their bodies' poses) and over pictures.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "batch/doorbell.h"
#include "batch/lane_kernels.h"
#include "batch/rollout_buffer.h"
#include "batch/shared_memory.h"
#include "batch/status.h"
#include "batch/thread_pool.h"
#include "core/kernels.h"
#include "task/make_program.h"

namespace sdpg::sim::v1 {
class BufferTensor;
class CreateBatchRequest;
class CreateBatchResponse;
}  // namespace sdpg::sim::v1

namespace sdpg::cuda {
class Device;
class DeviceBatch;
}  // namespace sdpg::cuda

namespace sdpg::render {
class ImageStacks;
}

namespace sdpg::batch {

// What the caller of `Batch::create` decides and the request does not say.
struct CreateOptions {
  int threads = 1;             // of the pool the batch will run on
  bool shared_memory = false;  // place the buffer in POSIX shared memory
  std::string isa;             // forces an instruction set; empty for the best
  std::uint64_t memory_limit_bytes = UINT64_MAX;
  // Steps on it instead of on the CPU; outlives the batch.
  cuda::Device* device = nullptr;
  bool cuda_ipc = false;  // the caller maps the device's memory; else it reads a copy in buffer()
};

// One measured phase, in nanoseconds of Unix time.
struct PhaseTime {
  const char* phase;
  std::uint64_t start, end;
};

struct BeginReport {
  std::uint32_t images = 0;  // pictures drawn
  // "begin", "render"; the latter where the batch has views or poses, else null.
  PhaseTime phases[2] = {};
};

struct StepReport {
  std::uint32_t nominals_done = 0;  // nominals whose episode ended
  std::uint32_t faults = 0;         // environments with any fault bit
  std::uint32_t images = 0;         // pictures drawn
  // "noise", "physics", "task", "reset", "render". The first three alternate from block to block on
  // every thread; they are reported one after the other with the lengths of their shares, which are
  // measured on every fourth block. The last is null where the batch has neither views nor poses.
  PhaseTime phases[5] = {};
};

struct BatchSizes {
  std::uint32_t nominals, auxiliaries, members, environments, horizon;
  std::uint32_t actions, privileged, actor, rewards;
};

class Batch {
 public:
  ~Batch();
  // Checks the request, allocates everything, and starts an episode in every environment.
  static Status create(const sim::v1::CreateBatchRequest& request, const CreateOptions& options,
                       std::unique_ptr<Batch>* out);

  const BatchSizes& sizes() const { return sizes_; }
  const BufferLayout& layout() const { return layout_; }
  const Memory& memory() const { return *memory_; }
  void* buffer() const { return memory_->data(); }
  // Means of a step: N * A.
  std::uint64_t action_values() const { return std::uint64_t{sizes_.nominals} * sizes_.actions; }
  // Behind the buffer in shared memory; null for plain memory.
  Doorbell* doorbell() const;
  std::uint64_t state_bytes() const { return state_bytes_; }
  std::uint32_t environment_bytes() const { return environment_bytes_; }
  std::uint64_t environment_steps() const { return environment_steps_.load(); }
  std::uint64_t fault_count(int bit) const { return fault_counts_[bit].load(); }
  const char* isa() const { return kernels_->isa; }
  int lanes() const { return kernels_->lanes; }
  bool segment_open() const { return segment_open_; }
  // Arrays of the buffer as the contract describes them; `batch_id` is left empty.
  void describe(sim::v1::CreateBatchResponse* response) const;

  // A segment. The calls must come from one thread at a time; the pool must have as many threads as
  // CreateOptions said.
  Status begin(ThreadPool& pool, std::uint64_t epoch, bool reset, BeginReport* report);
  // mean: [N, A]; log_std: [A] or [N, A], or null for no noise.
  Status step(ThreadPool& pool, std::uint32_t t, const float* mean, std::size_t mean_count,
              const float* log_std, std::size_t log_std_count, StepReport* report);
  Status end(std::uint32_t* steps);
  // Leaves a segment that its caller abandoned; the state stays as the last step left it.
  void abandon() { segment_open_ = false; }
  // Whether it has views.
  bool draws() const { return stacks_ != nullptr; }
  // Calls f(offset, bytes) for the places of one slot's images in the buffer.
  void image_ranges(std::uint32_t slot,
                    const std::function<void(std::uint64_t, std::uint64_t)>& f) const;
  // Calls f(offset, bytes) for each written range of the buffer after `steps` steps, images left
  // out.
  void written_ranges(std::uint32_t steps,
                      const std::function<bool(std::uint64_t, std::uint64_t)>& f) const;

  // The exact state, between segments (snapshot.cc).
  std::uint64_t snapshot_bytes() const;
  Status snapshot(std::uint8_t* out, std::uint64_t bytes) const;
  // Checks everything before it changes anything.
  Status restore(const std::uint8_t* bytes, std::uint64_t count);

 private:
  // Rows of a block's state, one field after another, each aligned to 64 bytes.
  struct Rows {
    std::uint32_t qpos, qvel, act, ctrl, warmstart, persistent, sensordata, parameters;
    std::uint32_t xpos, xquat, xipos;  // in a block's state only where the task reads frames
    std::uint32_t state_end;           // rows saved and restored
    std::uint32_t end;                 // rows of a block with frames
  };
  struct RowRange {
    std::uint32_t begin, end;
  };

  // What one worker thread owns.
  struct Worker {
    std::uint8_t* scratch;    // of the physics
    std::uint8_t* registers;  // T [Program::scratch_registers][lane]
    std::uint8_t* frames;     // T [frame rows][lane], where the state holds none
    std::uint8_t* start;      // T [Rows::end][lane], a block in which episodes start; lane 0 counts
    std::uint8_t* uniforms;   // T [Program::draws or own_draws][lane]
    std::uint8_t* acting;     // T [A][lane] after tanh, for tables in double
    float* noise;             // [A][lane]
    float* action;            // [A][lane]
    float* squashed;          // [A][lane]
    std::uint32_t* status;    // [lane]
    std::int32_t* start_progress;  // [lane] zeros
    // Sums of one step, added up after it.
    std::uint64_t noise_time, physics_time, task_time;
    std::uint32_t nominals_done, faults, fault_bits[8];
  };

  Batch();
  Status allocate_on_device(const CreateOptions& options, bool poses);
  Status step_on_device(const ActionArgs& args, std::size_t std_count, StepReport* report);
  // As show() does on a CPU.
  std::uint32_t show_on_device(std::uint32_t slot);
  // Copies slots [first, end) of the arrays that have them into buffer(), unless the caller maps
  // the device's memory.
  void mirror(const BufferArray& array, std::uint64_t first, std::uint64_t end);
  Status allocate(const CreateOptions& options, const sim::v1::CreateBatchRequest& request);
  // Of a snapshot's part before the stacks.
  std::uint64_t saved_state_bytes() const;

  // Poses of the nominals before step `slot`, and pictures of them while the buffer has that slot.
  template <class T>
  std::uint32_t show(ThreadPool& pool, std::uint32_t slot);
  template <class T>
  void pose_block(std::uint32_t block, Worker& worker, float* pose, std::uint8_t* fresh);

  core::BlockView view(std::uint8_t* rows, std::uint8_t* frames, std::uint32_t* status) const;
  std::uint8_t* block_rows(std::uint32_t block) const { return state_ + block * block_stride_; }

  template <class T>
  void step_block(std::uint32_t block, Worker& worker, const ActionArgs& step);
  template <class T>
  void step_group(std::uint32_t group, Worker& worker, std::uint32_t t);
  template <class T>
  bool begin_group(std::uint32_t group, Worker& worker, bool reset);
  // Observations of a block's present state into slot `t` of the buffer.
  template <class T>
  void observe_block(std::uint32_t block, Worker& worker, std::uint32_t t);
  // The same into slot t + 1, where a lane of the block was copied in step t.
  template <class T>
  void observe_copies(std::uint32_t block, Worker& worker, std::uint32_t t);
  template <class T>
  void start_episode(std::uint32_t group, Worker& worker);
  template <class T>
  void draw_own(std::uint32_t e, std::uint32_t lane, std::uint32_t episode, Worker& worker);
  // Draws the parameters that environments [first, end) have of their own; `episode` is the number
  // of their nominal's episode. False where a value is not finite.
  template <class T>
  bool vary(std::uint32_t first, std::uint32_t end, std::uint32_t episode, Worker& worker);
  template <class T>
  void run_section(const task::Section& section, const core::BlockView& view, Worker& worker,
                   const std::int32_t* progress, const void* action);
  template <class T>
  void load_persistent(std::uint8_t* rows, Worker& worker);
  template <class T>
  void save_persistent(std::uint8_t* rows, Worker& worker);
  template <class T>
  void copy_environment(std::uint32_t to, const std::uint8_t* from_rows, std::uint32_t from_lane,
                        std::int32_t progress);
  template <class T>
  bool start_is_finite(Worker& worker);
  template <class T>
  void write_observations(std::uint32_t first, std::uint32_t count, std::uint32_t bad,
                          const Worker& worker, float* privileged, float* actor);

  BatchSizes sizes_{};
  std::uint64_t seed_ = 0;
  float mean_low_, mean_high_, log_std_low_, log_std_high_;
  std::uint64_t model_fingerprint_ = 0, task_fingerprint_ = 0;
  std::shared_ptr<const core::Model> model_;
  std::shared_ptr<const task::Program> program_;
  const core::Kernels* kernels_ = nullptr;
  const LaneKernels* lane_kernels_ = nullptr;
  std::vector<std::uint32_t> action_rows_;      // 0, 1, ..., A - 1
  std::vector<std::uint32_t> persistent_rows_;  // registers of all persistent ranges
  std::vector<std::uint32_t> observed_rows_;    // registers of all observations, each once
  std::vector<double> qpos0_;
  bool needs_frames_ = false;  // for the task's frames or for velocities it senses

  Rows rows_{};
  std::vector<RowRange> copied_;  // rows of a nominal that its auxiliaries take over
  std::uint32_t lanes_ = 0, blocks_ = 0;
  std::uint64_t block_stride_ = 0;  // bytes
  std::uint64_t state_bytes_ = 0;   // of everything but the buffer
  std::uint32_t environment_bytes_ = 0;
  std::unique_ptr<Memory> state_memory_, memory_;
  std::uint8_t* state_ = nullptr;      // [block][row][lane]
  std::int32_t* progress_ = nullptr;   // [blocks * lanes] control steps since the episode's start
  std::uint32_t* episodes_ = nullptr;  // [N] episodes started by each nominal
  float* mean_ = nullptr;              // [N, A] clipped means of the step
  float* std_ = nullptr;               // [N, A]
  std::uint8_t* ended_ = nullptr;      // [blocks * lanes] own end in the step
  std::vector<Worker> workers_;

  BufferLayout layout_;
  RolloutBuffer out_{};

  bool shows_ = false;  // there are views, or the arrays "pose" and "fresh"
  std::unique_ptr<render::ImageStacks> stacks_;
  float* pose_ = nullptr;          // [N, B, 7] where the buffer has no such array
  std::uint8_t* fresh_ = nullptr;  // [N] likewise
  std::uint32_t newest_slot_ = 0;  // holds the newest stacks
  bool newest_shown_ = false;      // they show the present state

  // Where the batch is on a device: all state but these means, and the buffer's original.
  std::unique_ptr<cuda::DeviceBatch> device_;
  bool cuda_ipc_ = false;

  bool segment_open_ = false;
  std::uint32_t next_t_ = 0;
  std::uint32_t epoch_ = 0;
  std::atomic<std::uint64_t> environment_steps_{0};
  std::atomic<std::uint64_t> fault_counts_[8] = {};
};

// Name, type, extents and offset of an array; its storage is left open.
void describe_array(const BufferArray& array, sim::v1::BufferTensor* out);

// Of a shared memory object: [a-z0-9-]{0,40}.
Status check_label(const std::string& label);

// FNV-1a, 64 bits: guards against accidents, not against attackers.
std::uint64_t fingerprint(const void* bytes, std::size_t count,
                          std::uint64_t start = 0xcbf29ce484222325u);

}  // namespace sdpg::batch
