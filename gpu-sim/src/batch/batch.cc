#include "batch/batch.h"

#include <string.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "batch/philox.h"
#include "cuda/device.h"
#include "cuda/device_batch.h"
#include "render/image_stacks.h"
#include "sdpg/sim/v1/sim.pb.h"

namespace sdpg::batch {
namespace {

constexpr std::uint64_t kMaxEnvironments = 1u << 22;
constexpr std::uint32_t kMaxHorizon = 65536;
// Beyond this a number counts as not finite, as in the physics.
constexpr double kLargest = 1e10;

std::uint64_t now(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1000000000u + static_cast<std::uint64_t>(t.tv_nsec);
}

template <class T>
bool usable(T x) {
  return std::abs(x) <= static_cast<T>(kLargest);  // false for NaN
}

template <class T>
float cleaned(T x) {
  return usable(x) ? static_cast<float>(x) : 0.0f;
}

std::uint64_t align64(std::uint64_t bytes) { return (bytes + 63) / 64 * 64; }

std::uint32_t count_of(const std::vector<std::uint32_t>& rows) {
  return static_cast<std::uint32_t>(rows.size());
}

// What stands for a table of kernels where a device computes.
constexpr core::Kernels kOnDevice = {"cuda",        static_cast<int>(cuda::kLanes),
                                     sizeof(float), nullptr,
                                     nullptr,       nullptr,
                                     nullptr,       nullptr,
                                     nullptr};

Status check_bounds(const sim::v1::ActionBounds& bounds) {
  const bool ordered = bounds.mean_low() <= bounds.mean_high() &&  // false for NaN
                       bounds.log_std_low() <= bounds.log_std_high();
  if (ordered) return {};
  return refuse(kInvalidArgument,
                "action_bounds: expected low <= high, got mean [%g, %g], log_std [%g, %g]",
                bounds.mean_low(), bounds.mean_high(), bounds.log_std_low(), bounds.log_std_high());
}

}  // namespace

std::uint64_t fingerprint(const void* bytes, std::size_t count, std::uint64_t hash) {
  const auto* b = static_cast<const std::uint8_t*>(bytes);
  for (std::size_t i = 0; i < count; ++i) hash = (hash ^ b[i]) * 0x100000001b3u;
  return hash;
}

Status check_label(const std::string& label) {
  const bool good =
      label.size() <= 40 &&
      label.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
  if (good) return {};
  return refuse(kInvalidArgument, "label: expected [a-z0-9-]{0,40}, got '%.64s'", label.c_str());
}

Batch::Batch() = default;
Batch::~Batch() = default;

// ---- creation -----------------------------------------------------------------------------------

Status Batch::create(const sim::v1::CreateBatchRequest& request, const CreateOptions& options,
                     std::unique_ptr<Batch>* out) {
  if (request.nominals() < 1)
    return refuse(kInvalidArgument, "nominals: expected at least 1, got 0");
  const std::uint64_t members = std::uint64_t{request.auxiliaries_per_nominal()} + 1;
  if (members > kMaxEnvironments || request.nominals() > kMaxEnvironments / members)
    return refuse(kInvalidArgument,
                  "nominals * (1 + auxiliaries_per_nominal): expected at most %llu, got %u * %llu",
                  static_cast<unsigned long long>(kMaxEnvironments), request.nominals(),
                  static_cast<unsigned long long>(members));
  if (request.horizon() < 1 || request.horizon() > kMaxHorizon)
    return refuse(kInvalidArgument, "horizon: expected 1 to %u, got %u", kMaxHorizon,
                  request.horizon());
  if (request.precision() != sim::v1::PRECISION_UNSPECIFIED &&
      request.precision() != sim::v1::PRECISION_FLOAT32 &&
      request.precision() != sim::v1::PRECISION_FLOAT64)
    return refuse(kInvalidArgument, "precision: unknown value %d", int{request.precision()});
  if (Status s = check_label(request.label()); !s.ok()) return s;
  if (request.has_action_bounds()) {
    if (Status s = check_bounds(request.action_bounds()); !s.ok()) return s;
  }
  if (!request.has_model()) return refuse(kInvalidArgument, "model: expected a model, got none");
  if (!request.has_task()) return refuse(kInvalidArgument, "task: expected a program, got none");

  std::unique_ptr<Batch> batch(new Batch);
  std::string error;
  batch->model_ = core::make_model(request.model(), &error);
  // Lines about the model as a whole say so themselves.
  const char* const about = error.rfind("model: ", 0) == 0 ? "" : "model: ";
  if (!batch->model_) return refuse(kInvalidArgument, "%s%s", about, error.c_str());
  const task::ModelSizes model_sizes{core::nq(*batch->model_),
                                     core::nv(*batch->model_),
                                     core::nu(*batch->model_),
                                     core::nbody(*batch->model_),
                                     core::na(*batch->model_),
                                     request.model().geoms().name_size(),
                                     request.model().joints().name_size()};
  batch->program_ =
      task::make_program(request.task(), model_sizes, request.model().content_hash(), &error);
  if (!batch->program_) return refuse(kInvalidArgument, "task: %s", error.c_str());
  if (!batch->program_->parameters.empty()) {
    // Once more, with a place for each value that an environment has of its own.
    batch->model_ = core::make_model(request.model(), batch->program_->parameters, &error);
    if (!batch->model_) return refuse(kInvalidArgument, "task: parameters: %s", error.c_str());
  }
  if (options.device != nullptr && request.precision() == sim::v1::PRECISION_FLOAT64)
    return refuse(kInvalidArgument, "precision: a CUDA device computes in float32 only");
  if (options.device != nullptr)
    batch->kernels_ = &kOnDevice;
  else
    batch->kernels_ = core::select_kernels(request.precision() == sim::v1::PRECISION_FLOAT64
                                               ? core::Precision::kFloat64
                                               : core::Precision::kFloat32,
                                           options.isa, &error);
  if (batch->kernels_ == nullptr) return refuse(kFailedPrecondition, "%s", error.c_str());
  if (options.device == nullptr)
    batch->lane_kernels_ = select_lane_kernels(batch->kernels_->isa, batch->kernels_->lanes,
                                               batch->kernels_->scalar_bytes);
  if (options.device == nullptr && batch->lane_kernels_ == nullptr)
    return refuse(kInternal, "no lane kernels for %s with %d lanes of %d bytes",
                  batch->kernels_->isa, batch->kernels_->lanes, batch->kernels_->scalar_bytes);

  const std::string model_bytes = request.model().SerializeAsString();
  const std::string task_bytes = request.task().SerializeAsString();
  batch->model_fingerprint_ = fingerprint(model_bytes.data(), model_bytes.size());
  batch->task_fingerprint_ = fingerprint(task_bytes.data(), task_bytes.size());
  batch->qpos0_.assign(request.model().qpos0().begin(), request.model().qpos0().end());
  batch->seed_ = request.seed();
  const float infinity = HUGE_VALF;
  const bool bounded = request.has_action_bounds();
  const auto& bounds = request.action_bounds();
  batch->mean_low_ = bounded ? bounds.mean_low() : -infinity;
  batch->mean_high_ = bounded ? bounds.mean_high() : infinity;
  batch->log_std_low_ = bounded ? bounds.log_std_low() : -infinity;
  batch->log_std_high_ = bounded ? bounds.log_std_high() : infinity;

  const task::Program& program = *batch->program_;
  BatchSizes& sizes = batch->sizes_;
  sizes.nominals = request.nominals();
  sizes.auxiliaries = request.auxiliaries_per_nominal();
  sizes.members = static_cast<std::uint32_t>(members);
  sizes.environments = sizes.nominals * sizes.members;
  sizes.horizon = request.horizon();
  sizes.actions = program.action_size;
  sizes.privileged = static_cast<std::uint32_t>(program.privileged.size());
  sizes.actor = static_cast<std::uint32_t>(program.actor.size());
  sizes.rewards = static_cast<std::uint32_t>(program.rewards.size());

  for (std::uint32_t j = 0; j < sizes.actions; ++j) batch->action_rows_.push_back(j);
  for (const task::Persistent& range : program.persistent) {
    for (std::uint32_t r = 0; r < range.length; ++r)
      batch->persistent_rows_.push_back(range.start + r);
  }
  auto& observed = batch->observed_rows_;
  observed = program.privileged;
  observed.insert(observed.end(), program.actor.begin(), program.actor.end());
  std::sort(observed.begin(), observed.end());
  observed.erase(std::unique(observed.begin(), observed.end()), observed.end());

  if (request.views_size() > 0) {
    const render::StackOptions stacks{sizes.nominals, sizes.horizon, request.seed(),
                                      options.threads, options.isa};
    if (Status s =
            render::ImageStacks::create(request.model(), request.views(), stacks, &batch->stacks_);
        !s.ok())
      return s;
  }
  batch->shows_ = batch->stacks_ != nullptr || request.poses();
  if (Status s = options.device != nullptr ? batch->allocate_on_device(options, request.poses())
                                           : batch->allocate(options, request);
      !s.ok())
    return s;

  // The first episodes, on the calling thread.
  const auto start = [&]<class T>(T) {
    if (batch->device_) return batch->device_->begin(true) && batch->device_->is_finite();
    for (std::uint32_t group = 0; group < sizes.nominals; ++group) {
      if (!batch->begin_group<T>(group, batch->workers_[0], true)) return false;
      if (!batch->start_is_finite<T>(batch->workers_[0])) return false;
    }
    return true;
  };
  const bool finite = batch->kernels_->scalar_bytes == 8 ? start(double{}) : start(float{});
  if (!finite)
    return refuse(
        kInvalidArgument,
        "task: section reset or vary leaves a state, parameter or observation that is not "
        "finite");
  *out = std::move(batch);
  return {};
}

Status Batch::allocate(const CreateOptions& options, const sim::v1::CreateBatchRequest& request) {
  const core::Model& model = *model_;
  const bool shared = options.shared_memory;
  const std::uint64_t scalar = static_cast<std::uint64_t>(kernels_->scalar_bytes);
  lanes_ = static_cast<std::uint32_t>(kernels_->lanes);
  blocks_ = (sizes_.environments + lanes_ - 1) / lanes_;
  const std::uint64_t row_bytes = lanes_ * scalar;

  // Fields begin at multiples of 64 bytes.
  const auto field_step = static_cast<std::uint32_t>(std::max<std::uint64_t>(1, 64 / row_bytes));
  std::uint32_t next = 0;
  const auto field = [&](std::uint32_t count) {
    const std::uint32_t at = next;
    next = (next + count + field_step - 1) / field_step * field_step;
    return at;
  };
  const auto nbody = static_cast<std::uint32_t>(core::nbody(model));
  const auto parameters = static_cast<std::uint32_t>(program_->parameters.size());
  rows_.qpos = field(core::nq(model));
  rows_.qvel = field(core::nv(model));
  rows_.act = field(core::na(model));
  rows_.ctrl = field(core::nu(model));
  rows_.warmstart = field(core::nv(model));
  rows_.persistent = field(program_->persistent_rows);
  rows_.sensordata = field(program_->sensor_values);
  rows_.parameters = field(parameters);
  rows_.state_end = next;
  rows_.xpos = field(nbody * 3);
  rows_.xquat = field(nbody * 4);
  rows_.xipos = field(nbody * 3);
  rows_.end = next;
  if (program_->reads_frames) rows_.state_end = rows_.end;
  needs_frames_ = program_->reads_frames;
  for (const core::Sensor& sensor : program_->sensors) needs_frames_ |= core::is_velocity(sensor);
  std::uint32_t copied = 0;
  for (std::uint32_t i = 0; i < parameters; ++i) {
    if (!program_->own[i]) continue;
    if (copied < rows_.parameters + i) copied_.push_back({copied, rows_.parameters + i});
    copied = rows_.parameters + i + 1;
  }
  copied_.push_back({copied, rows_.state_end});
  block_stride_ = align64(rows_.state_end * row_bytes);

  // Everything but the rollout buffer lives in one allocation; parts are handed out in order.
  const std::uint64_t padded = std::uint64_t{blocks_} * lanes_;
  const std::uint64_t na = std::uint64_t{sizes_.nominals} * sizes_.actions;
  const std::uint64_t action_rows = sizes_.actions * std::uint64_t{lanes_};
  // Nominals whose poses are for the batch's own pictures only.
  const std::uint64_t unshared = shows_ && !request.poses() ? sizes_.nominals : 0;
  struct Part {
    std::uint64_t bytes;
    void* pointer = nullptr;
  };
  std::vector<Part> parts = {{blocks_ * block_stride_},
                             {padded * 4},
                             {sizes_.nominals * 4ull},
                             {na * 4},
                             {na * 4},
                             {padded},
                             {unshared * nbody * render::kPoseNumbers * 4},
                             {unshared}};
  const std::size_t shared_parts = parts.size();
  for (int worker = 0; worker < options.threads; ++worker) {
    for (const std::uint64_t bytes : std::initializer_list<std::uint64_t>{
             static_cast<std::uint64_t>(kernels_->scratch_bytes(model)),
             program_->scratch_registers * row_bytes, (rows_.end - rows_.xpos) * row_bytes,
             rows_.end * row_bytes, std::max(program_->draws, program_->own_draws) * row_bytes,
             sizes_.actions * row_bytes, action_rows * 4, action_rows * 4, action_rows * 4,
             lanes_ * 4ull, lanes_ * 4ull})
      parts.push_back({bytes});
  }
  state_bytes_ = 0;
  for (const Part& part : parts) state_bytes_ += align64(part.bytes);
  const std::uint64_t parts_bytes = state_bytes_;
  if (stacks_) state_bytes_ += stacks_->state_bytes();
  environment_bytes_ = static_cast<std::uint32_t>(rows_.state_end * scalar + 4);

  layout_ = lay_out({sizes_.horizon, sizes_.environments, sizes_.nominals, sizes_.actions,
                     sizes_.privileged, sizes_.actor, sizes_.rewards, request.poses() ? nbody : 0});
  const std::uint64_t bell_bytes = shared ? Doorbell::bytes(na) : 0;
  const double images = stacks_ ? stacks_->image_bytes() : 0;  // more than 64 bits hold, perhaps
  const double buffer = static_cast<double>(layout_.bytes + bell_bytes) + images;
  const double needed = static_cast<double>(state_bytes_) + buffer;
  if (needed > static_cast<double>(options.memory_limit_bytes)) {
    char part[64] = "";
    if (stacks_) std::snprintf(part, sizeof part, ", %.0f of it images", images);
    return refuse(
        kResourceExhausted,
        "the batch needs %.0f bytes (%.0f state, %.0f rollout buffer%s), %.0f are allowed; "
        "lower nominals, auxiliaries_per_nominal or horizon%s, or raise --memory-limit-mb",
        needed, static_cast<double>(state_bytes_), buffer, part,
        static_cast<double>(options.memory_limit_bytes),
        stacks_ ? ", or the views' sizes or frames" : "");
  }
  if (stacks_) stacks_->lay_out(&layout_);
  const std::uint64_t memory_bytes = layout_.bytes + bell_bytes;

  std::string error;
  state_memory_ = Memory::plain(parts_bytes, &error);
  if (!state_memory_) return refuse(kResourceExhausted, "%s", error.c_str());
  memory_ = shared ? Memory::shared(memory_bytes, request.label(), &error)
                   : Memory::plain(memory_bytes, &error);
  if (!memory_) return refuse(kResourceExhausted, "%s", error.c_str());
  if (stacks_) {
    if (Status s = stacks_->allocate(memory_->data()); !s.ok()) return s;
  }
  if (shared) doorbell()->magic = Doorbell::kMagic;
  out_ = point_into(layout_, memory_->data());

  std::uint8_t* at = static_cast<std::uint8_t*>(state_memory_->data());
  for (Part& part : parts) {
    part.pointer = at;
    at += align64(part.bytes);
  }
  state_ = static_cast<std::uint8_t*>(parts[0].pointer);
  progress_ = static_cast<std::int32_t*>(parts[1].pointer);
  episodes_ = static_cast<std::uint32_t*>(parts[2].pointer);
  mean_ = static_cast<float*>(parts[3].pointer);
  std_ = static_cast<float*>(parts[4].pointer);
  ended_ = static_cast<std::uint8_t*>(parts[5].pointer);
  pose_ = static_cast<float*>(parts[6].pointer);
  fresh_ = static_cast<std::uint8_t*>(parts[7].pointer);
  workers_.resize(options.threads);
  const Part* part = &parts[shared_parts];
  for (Worker& worker : workers_) {
    worker = Worker{};
    worker.scratch = static_cast<std::uint8_t*>(part[0].pointer);
    worker.registers = static_cast<std::uint8_t*>(part[1].pointer);
    worker.frames = static_cast<std::uint8_t*>(part[2].pointer);
    worker.start = static_cast<std::uint8_t*>(part[3].pointer);
    worker.uniforms = static_cast<std::uint8_t*>(part[4].pointer);
    worker.acting = static_cast<std::uint8_t*>(part[5].pointer);
    worker.noise = static_cast<float*>(part[6].pointer);
    worker.action = static_cast<float*>(part[7].pointer);
    worker.squashed = static_cast<float*>(part[8].pointer);
    worker.status = static_cast<std::uint32_t*>(part[9].pointer);
    worker.start_progress = static_cast<std::int32_t*>(part[10].pointer);
    part += 11;
  }
  return {};
}

Status Batch::allocate_on_device(const CreateOptions& options, bool poses) {
  layout_ = lay_out({sizes_.horizon, sizes_.environments, sizes_.nominals, sizes_.actions,
                     sizes_.privileged, sizes_.actor, sizes_.rewards,
                     poses ? static_cast<std::uint64_t>(core::nbody(*model_)) : 0});
  // More than 64 bits hold, perhaps; DeviceBatch counts the rest.
  if (stacks_ && stacks_->image_bytes() > static_cast<double>(options.device->memory_bytes()))
    return refuse(kResourceExhausted,
                  "the images need %.0f bytes of the device, it has %.0f; lower nominals, horizon, "
                  "or the views' sizes or frames",
                  stacks_->image_bytes(), static_cast<double>(options.device->memory_bytes()));
  if (stacks_) stacks_->lay_out(&layout_);
  std::string error;
  device_ = cuda::DeviceBatch::create(
      *options.device,
      {model_.get(), program_.get(), qpos0_, seed_, sizes_.nominals, sizes_.members, layout_,
       options.memory_limit_bytes, shows_, stacks_.get()},
      &error);
  if (!device_) return refuse(kResourceExhausted, "%s", error.c_str());
  cuda_ipc_ = options.cuda_ipc;
  state_bytes_ = device_->state_bytes();
  environment_bytes_ = device_->environment_bytes();
  rows_.state_end = device_->rows();
  const std::uint64_t na = std::uint64_t{sizes_.nominals} * sizes_.actions;
  state_memory_ = Memory::plain(align64(na * 4) * 2, &error);
  memory_ = Memory::plain(cuda_ipc_ ? 64 : layout_.bytes, &error);
  if (!state_memory_ || !memory_) return refuse(kResourceExhausted, "%s", error.c_str());
  mean_ = static_cast<float*>(state_memory_->data());
  std_ = mean_ + align64(na * 4) / 4;
  out_ = point_into(layout_, memory_->data());
  return {};
}

void Batch::mirror(const BufferArray& array, std::uint64_t first, std::uint64_t end) {
  if (cuda_ipc_ || array.slot_bytes == 0) return;
  const std::uint64_t at = array.offset_bytes + first * array.slot_bytes;
  device_->read_buffer(at, (end - first) * array.slot_bytes,
                       static_cast<std::uint8_t*>(memory_->data()) + at);
}

void describe_array(const BufferArray& array, sim::v1::BufferTensor* out) {
  out->set_name(array.name);
  out->set_offset_bytes(array.offset_bytes);
  auto* tensor = out->mutable_tensor();
  tensor->set_dtype(array.type == BufferArray::kFloat32 ? tensor::v1::DTYPE_FLOAT32
                    : array.type == BufferArray::kInt32 ? tensor::v1::DTYPE_INT32
                                                        : tensor::v1::DTYPE_UINT8);
  for (const std::int64_t extent : array.shape) tensor->add_shape(extent);
}

Doorbell* Batch::doorbell() const {
  if (memory_->name().empty()) return nullptr;
  return reinterpret_cast<Doorbell*>(static_cast<std::uint8_t*>(memory_->data()) + layout_.bytes);
}

void Batch::describe(sim::v1::CreateBatchResponse* response) const {
  response->set_buffer_bytes(layout_.bytes);
  response->set_state_bytes(state_bytes_);
  for (const BufferArray& array : layout_.arrays) {
    auto* described = response->add_tensors();
    describe_array(array, described);
    auto* tensor = described->mutable_tensor();
    if (cuda_ipc_) {
      unsigned char handle[64];
      if (device_->ipc_handle(handle)) {
        auto* ipc = tensor->mutable_cuda_ipc();
        ipc->set_handle(handle, sizeof handle);
        ipc->set_offset_bytes(array.offset_bytes);
        ipc->set_device(static_cast<std::uint32_t>(device_->device().index()));
      }
    }
    if (!memory_->name().empty()) {
      auto* shared = tensor->mutable_shared_memory();
      shared->set_name(memory_->name());
      shared->set_offset_bytes(array.offset_bytes);
      shared->set_object_bytes(layout_.bytes + Doorbell::bytes(action_values()));
    }
  }
}

// ---- parts of a step
// ------------------------------------------------------------------------------

core::BlockView Batch::view(std::uint8_t* rows, std::uint8_t* frames, std::uint32_t* status) const {
  const std::uint64_t row_bytes = lanes_ * static_cast<std::uint64_t>(kernels_->scalar_bytes);
  const auto at = [&](std::uint32_t row) { return rows + row * row_bytes; };
  const auto frame = [&](std::uint32_t row) { return frames + (row - rows_.xpos) * row_bytes; };
  return {at(rows_.qpos),
          at(rows_.qvel),
          at(rows_.ctrl),
          at(rows_.warmstart),
          frame(rows_.xpos),
          frame(rows_.xquat),
          frame(rows_.xipos),
          status,
          at(rows_.act),
          at(rows_.parameters),
          program_->sensors.data(),
          static_cast<int>(program_->sensors.size()),
          at(rows_.sensordata)};
}

template <class T>
void Batch::run_section(const task::Section& section, const core::BlockView& v, Worker& worker,
                        const std::int32_t* progress, const void* action) {
  // Only `reset` and `vary` store parameters, and they run on blocks of the worker's own.
  void* parameters = const_cast<void*>(v.parameters);
  const task::ProgramArgs args{
      worker.registers, v.qpos,          v.qvel,   v.ctrl, action,       v.xpos,    v.xquat,
      v.xipos,          worker.uniforms, progress, v.act,  v.sensordata, parameters};
  kernels_->run_program(&section, &args);
}

template <class T>
void Batch::load_persistent(std::uint8_t* rows, Worker& worker) {
  for (const task::Persistent& range : program_->persistent) {
    memcpy(worker.registers + range.start * lanes_ * sizeof(T),
           rows + (rows_.persistent + range.row) * lanes_ * sizeof(T),
           range.length * lanes_ * sizeof(T));
  }
}

template <class T>
void Batch::save_persistent(std::uint8_t* rows, Worker& worker) {
  for (const task::Persistent& range : program_->persistent) {
    memcpy(rows + (rows_.persistent + range.row) * lanes_ * sizeof(T),
           worker.registers + range.start * lanes_ * sizeof(T), range.length * lanes_ * sizeof(T));
  }
}

// Overwrites environment `to` with lane `from_lane` of a block.
template <class T>
void Batch::copy_environment(std::uint32_t to, const std::uint8_t* from_rows,
                             std::uint32_t from_lane, std::int32_t progress) {
  const T* from = reinterpret_cast<const T*>(from_rows) + from_lane;
  T* into = reinterpret_cast<T*>(block_rows(to / lanes_)) + to % lanes_;
  for (const RowRange& range : copied_) {
    const std::uint32_t end = range.end * lanes_;
    for (std::uint32_t i = range.begin * lanes_; i < end; i += lanes_) into[i] = from[i];
  }
  progress_[to] = progress;
}

// A fresh episode of nominal `group` in lane 0 of worker.start (all lanes hold the same). Leaves
// the observations in the registers.
template <class T>
void Batch::start_episode(std::uint32_t group, Worker& worker) {
  T* rows = reinterpret_cast<T*>(worker.start);
  memset(rows, 0, rows_.end * lanes_ * sizeof(T));
  for (std::size_t i = 0; i < qpos0_.size(); ++i) {
    std::fill_n(rows + (rows_.qpos + i) * lanes_, lanes_, static_cast<T>(qpos0_[i]));
  }
  T* registers = reinterpret_cast<T*>(worker.registers);
  for (const task::Persistent& range : program_->persistent) {
    std::fill_n(registers + range.start * lanes_, range.length * lanes_,
                static_cast<T>(range.initial));
  }
  const std::uint32_t episode = episodes_[group]++;
  T* uniforms = reinterpret_cast<T*>(worker.uniforms);
  for (std::uint32_t first = 0; first < program_->draws; first += 4) {
    const std::uint32_t counter[4] = {first / 4 | kEpisodeStart, group, episode, 0};
    std::uint32_t words[4];
    philox(counter, seed_, words);
    for (std::uint32_t k = 0; k < 4 && first + k < program_->draws; ++k) {
      std::fill_n(uniforms + (first + k) * lanes_, lanes_, static_cast<T>(uniform(words[k])));
    }
  }
  const std::uint64_t frames_at = rows_.xpos * lanes_ * sizeof(T);
  const core::BlockView v = view(worker.start, worker.start + frames_at, worker.status);
  run_section<T>(program_->reset, v, worker, worker.start_progress, nullptr);
  save_persistent<T>(worker.start, worker);
  if (program_->varies) {
    for (std::uint32_t lane = 0; lane < lanes_; ++lane)
      draw_own<T>(group * sizes_.members, lane, episode, worker);
    run_section<T>(program_->vary, v, worker, worker.start_progress, nullptr);
    load_persistent<T>(worker.start, worker);  // `vary` may have used their registers
  }
  if (needs_frames_) kernels_->kinematics(*model_, v, worker.scratch);
  run_section<T>(program_->observe, v, worker, worker.start_progress, nullptr);
}

// Uniforms of `vary` for environment `e` into a lane.
template <class T>
void Batch::draw_own(std::uint32_t e, std::uint32_t lane, std::uint32_t episode, Worker& worker) {
  T* uniforms = reinterpret_cast<T*>(worker.uniforms);
  for (std::uint32_t first = 0; first < program_->own_draws; first += 4) {
    const std::uint32_t counter[4] = {first / 4 | kOwnParameters, e, episode, 0};
    std::uint32_t words[4];
    philox(counter, seed_, words);
    for (std::uint32_t k = 0; k < 4 && first + k < program_->own_draws; ++k)
      uniforms[(first + k) * lanes_ + lane] = static_cast<T>(uniform(words[k]));
  }
}

template <class T>
bool Batch::vary(std::uint32_t begin, std::uint32_t end, std::uint32_t episode, Worker& worker) {
  // The group's parameters are in worker.start; the environments' own go through there, a lane
  // each.
  const std::uint64_t frames_at = rows_.xpos * lanes_ * sizeof(T);
  const core::BlockView v = view(worker.start, worker.start + frames_at, worker.status);
  const T* drawn = reinterpret_cast<const T*>(worker.start) + rows_.parameters * lanes_;
  bool finite = true;
  for (std::uint32_t first = begin; first < end; first += lanes_) {
    const std::uint32_t count = std::min(lanes_, end - first);
    for (std::uint32_t lane = 0; lane < lanes_; ++lane)
      draw_own<T>(first + std::min(lane, count - 1), lane, episode, worker);
    run_section<T>(program_->vary, v, worker, worker.start_progress, nullptr);
    for (std::uint32_t i = 0; i < program_->own.size(); ++i) {
      if (!program_->own[i]) continue;
      for (std::uint32_t lane = 0; lane < count; ++lane) {
        const std::uint32_t e = first + lane;
        const T value = drawn[i * lanes_ + lane];
        finite &= usable(value);
        reinterpret_cast<T*>(block_rows(e / lanes_))[(rows_.parameters + i) * lanes_ + e % lanes_] =
            value;
      }
    }
  }
  return finite;
}

template <class T>
bool Batch::start_is_finite(Worker& worker) {
  const T* rows = reinterpret_cast<const T*>(worker.start);
  for (std::uint32_t i = 0; i < rows_.state_end * lanes_; ++i) {
    if (!usable(rows[i])) return false;
  }
  return lane_kernels_->unusable(worker.registers, observed_rows_.data(),
                                 count_of(observed_rows_)) == 0;
}

// Observations of `count` lanes from environment `first` on into one slot's arrays; numbers of
// lanes marked in `bad` are cleaned.
template <class T>
void Batch::write_observations(std::uint32_t first, std::uint32_t count, std::uint32_t bad,
                               const Worker& worker, float* privileged, float* actor) {
  const T* registers = reinterpret_cast<const T*>(worker.registers);
  const std::uint32_t values = sizes_.privileged, actor_values = sizes_.actor;
  float* rows = privileged + std::uint64_t{first} * values;
  lane_kernels_->write(registers, program_->privileged.data(), values, count, rows);
  for (std::uint32_t lane = 0; bad != 0 && lane < count; ++lane) {
    if ((bad >> lane & 1) == 0) continue;
    for (std::uint32_t j = 0; j < values; ++j)
      rows[std::uint64_t{lane} * values + j] =
          cleaned(registers[program_->privileged[j] * lanes_ + lane]);
  }
  const std::uint32_t skipped = (sizes_.members - first % sizes_.members) % sizes_.members;
  for (std::uint32_t lane = skipped; lane < count; lane += sizes_.members) {  // the nominals
    float* row = actor + std::uint64_t{(first + lane) / sizes_.members} * actor_values;
    for (std::uint32_t j = 0; j < actor_values; ++j)
      row[j] = cleaned(registers[program_->actor[j] * lanes_ + lane]);
  }
}

template <class T>
bool Batch::begin_group(std::uint32_t group, Worker& worker, bool reset) {
  const std::uint32_t nominal = group * sizes_.members;
  std::uint32_t copies_end = nominal + sizes_.members;
  // Lanes beyond the last environment repeat its group, so that they hold ordinary numbers.
  if (group + 1 == sizes_.nominals) copies_end = blocks_ * lanes_;
  if (reset) {
    start_episode<T>(group, worker);
    copy_environment<T>(nominal, worker.start, 0, 0);
  }
  const std::uint8_t* rows = block_rows(nominal / lanes_);
  for (std::uint32_t e = nominal + 1; e < copies_end; ++e)
    copy_environment<T>(e, rows, nominal % lanes_, progress_[nominal]);
  return !reset || !program_->varies || vary<T>(nominal, copies_end, episodes_[group] - 1, worker);
}

template <class T>
void Batch::observe_block(std::uint32_t block, Worker& worker, std::uint32_t t) {
  const std::uint32_t first = block * lanes_;
  const std::uint32_t count = std::min(lanes_, sizes_.environments - first);
  std::uint8_t* rows = block_rows(block);
  std::uint8_t* frames =
      program_->reads_frames ? rows + rows_.xpos * lanes_ * sizeof(T) : worker.frames;
  const core::BlockView v = view(rows, frames, worker.status);
  load_persistent<T>(rows, worker);
  // The frames of a copy are its nominal's; its own parameters may move them.
  if (program_->varies && needs_frames_) kernels_->kinematics(*model_, v, worker.scratch);
  run_section<T>(program_->observe, v, worker, progress_ + first, nullptr);
  // A restored state may hold anything: clean every lane.
  const std::uint64_t slot = t;
  write_observations<T>(first, count, ~0u, worker,
                        out_.privileged + slot * sizes_.environments * sizes_.privileged,
                        out_.actor + slot * sizes_.nominals * sizes_.actor);
}

template <class T>
void Batch::observe_copies(std::uint32_t block, Worker& worker, std::uint32_t t) {
  const std::uint32_t first = block * lanes_;
  const std::uint32_t count = std::min(lanes_, sizes_.environments - first);
  const std::uint8_t* done = out_.done + std::uint64_t{t} * sizes_.environments + first;
  if (memchr(done, 1, count) != nullptr) observe_block<T>(block, worker, t + 1);
}

// Everything of a step that concerns one block; see the header of sim.proto for the order.
template <class T>
void Batch::step_block(std::uint32_t block, Worker& worker, const ActionArgs& step) {
  const task::Program& program = *program_;
  const std::uint32_t lanes = lanes_;
  const std::uint32_t first = block * lanes;
  const std::uint32_t count = std::min(lanes, sizes_.environments - first);
  const std::uint64_t slot = std::uint64_t{step.t} * sizes_.environments + first;
  // Shares of the phases are measured on every fourth block; the clock is not free.
  const bool timed = block % 4 == 0;
  const auto clock = [timed] { return timed ? now(CLOCK_MONOTONIC) : 0; };
  const std::uint64_t started = clock();

  // Actions.
  ActionArgs action = step;
  action.first_environment = first;
  action.noise = worker.noise;
  action.action = worker.action;
  action.squashed = worker.squashed;
  lane_kernels_->draw_actions(action);
  const std::uint32_t actions = sizes_.actions;
  lane_kernels_->write_floats(worker.noise, action_rows_.data(), actions, count,
                              out_.noise + slot * actions);
  lane_kernels_->write_floats(worker.action, action_rows_.data(), actions, count,
                              out_.action + slot * actions);
  const void* acting = worker.squashed;
  if constexpr (sizeof(T) == 8) {
    T* wide = reinterpret_cast<T*>(worker.acting);
    for (std::uint32_t i = 0; i < actions * lanes; ++i) wide[i] = worker.squashed[i];
    acting = wide;
  }
  const std::uint64_t noise_done = clock();

  // Control program and physics.
  std::uint8_t* rows = block_rows(block);
  std::uint8_t* frames =
      program.reads_frames ? rows + rows_.xpos * lanes * sizeof(T) : worker.frames;
  const core::BlockView v = view(rows, frames, worker.status);
  std::int32_t* progress = progress_ + first;
  std::fill_n(worker.status, lanes, 0u);
  load_persistent<T>(rows, worker);
  run_section<T>(program.control, v, worker, progress, acting);
  const std::uint64_t control_done = clock();
  kernels_->step(*model_, v, worker.scratch, static_cast<int>(program.substeps));
  if (needs_frames_) kernels_->kinematics(*model_, v, worker.scratch);
  const std::uint64_t physics_done = clock();
  for (std::uint32_t lane = 0; lane < lanes; ++lane) progress[lane] += 1;

  // Rewards and terminations; persistent registers are still where `control` left them.
  run_section<T>(program.step, v, worker, progress, acting);
  const auto unusable = [&](const std::vector<std::uint32_t>& registers) {
    return lane_kernels_->unusable(worker.registers, registers.data(), count_of(registers));
  };
  std::uint32_t bad = lane_kernels_->unusable(acting, action_rows_.data(), actions) |
                      unusable(program.rewards) | unusable(program.terminations) |
                      unusable(persistent_rows_);
  std::uint32_t ends = lane_kernels_->nonzero(worker.registers, program.terminations.data(),
                                              count_of(program.terminations));
  const std::uint32_t terms = sizes_.rewards;
  float* terms_out = out_.reward_terms + slot * terms;
  float rewards[64];
  lane_kernels_->write(worker.registers, program.rewards.data(), terms, count, terms_out);
  lane_kernels_->sum(worker.registers, program.rewards.data(), terms, rewards);
  save_persistent<T>(rows, worker);

  // Observations of the un-reset successor; they stand for slot t + 1 until the groups say
  // otherwise.
  run_section<T>(program.observe, v, worker, progress, nullptr);
  bad |= unusable(observed_rows_);
  // A fault of any kind ends the episode: numbers that are not finite, contacts beyond the
  // capacity, a solver at its limit.
  std::uint32_t faulted = 0;
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    worker.status[lane] |= (bad >> lane & 1) * core::kNonFinite;
    faulted |= static_cast<std::uint32_t>(worker.status[lane] != 0) << lane;
    bad |= (worker.status[lane] & core::kNonFinite) << lane;  // kNonFinite is bit 0
  }
  ends |= faulted;
  const std::uint64_t values = sizes_.privileged;
  float* successor = out_.privileged_successor + (slot - first) * values;
  write_observations<T>(first, count, bad, worker, successor,
                        out_.actor + (step.t + 1) * std::uint64_t{sizes_.nominals} * sizes_.actor);
  memcpy(out_.privileged + (slot + sizes_.environments) * values, successor + first * values,
         count * values * sizeof(float));

  // Flags, with faults contained: such a transition ends here and is worth nothing.
  const auto limit = static_cast<std::int32_t>(program.episode_length);
  const RolloutBuffer out = out_;  // a copy: byte stores could change members, for all g++ knows
  const std::uint32_t* const status = worker.status;
  std::uint32_t late = 0;
  for (std::uint32_t lane = 0; lane < count; ++lane)
    late |= static_cast<std::uint32_t>(progress[lane] >= limit) << lane;
  late &= ~ends;
  memcpy(out.reward + slot, rewards, count * sizeof(float));
  memcpy(out.progress + slot, progress, count * sizeof(std::int32_t));
  memset(out.terminated + slot, 0, count);
  memset(out.truncated + slot, 0, count);
  memset(out.done + slot, 0, count);
  memset(out.fault + slot, 0, count);
  memset(ended_ + first, 0, count);
  if ((ends | late) != 0) {
    for (std::uint32_t lane = 0; lane < count; ++lane) {
      const std::uint32_t fault = status[lane];
      out.terminated[slot + lane] = ends >> lane & 1;
      out.truncated[slot + lane] = late >> lane & 1;
      out.done[slot + lane] = ended_[first + lane] = (ends | late) >> lane & 1;
      out.fault[slot + lane] = static_cast<std::uint8_t>(fault);
      if (fault != 0) {
        worker.faults += 1;
        for (int bit = 0; bit < 8; ++bit) worker.fault_bits[bit] += fault >> bit & 1;
      }
      if (fault != 0) {
        out.reward[slot + lane] = 0;
        std::fill_n(terms_out + std::uint64_t{lane} * terms, terms, 0.0f);
        float* acted = out.action + (slot + lane) * actions;
        for (std::uint32_t j = 0; j < actions; ++j) acted[j] = cleaned(acted[j]);
      }
    }
  }
  const std::uint64_t finished = clock();
  worker.noise_time += noise_done - started;
  worker.physics_time += physics_done - control_done;
  worker.task_time += (control_done - noise_done) + (finished - physics_done);
}

// Episode starts and copies of one group (reset rules of the reference, section 1.4).
template <class T>
void Batch::step_group(std::uint32_t group, Worker& worker, std::uint32_t t) {
  const std::uint32_t nominal = group * sizes_.members;
  const std::uint32_t values = sizes_.privileged;
  const std::uint64_t slot = std::uint64_t{t} * sizes_.environments;
  float* after = out_.privileged + (slot + sizes_.environments) * values;
  const bool fresh = ended_[nominal] != 0;
  if (fresh) {
    worker.nominals_done += 1;
    start_episode<T>(group, worker);
    copy_environment<T>(nominal, worker.start, 0, 0);
    const T* registers = reinterpret_cast<const T*>(worker.registers);
    for (std::uint32_t j = 0; j < values; ++j)
      after[std::uint64_t{nominal} * values + j] =
          cleaned(registers[program_->privileged[j] * lanes_]);
    float* actor = out_.actor + (std::uint64_t{t + 1} * sizes_.nominals + group) * sizes_.actor;
    for (std::uint32_t j = 0; j < sizes_.actor; ++j)
      actor[j] = cleaned(registers[program_->actor[j] * lanes_]);
  }
  const std::uint8_t* rows = block_rows(nominal / lanes_);
  const float* observed = after + std::uint64_t{nominal} * values;
  for (std::uint32_t e = nominal + 1; e < nominal + sizes_.members; ++e) {
    if (!fresh && ended_[e] == 0) continue;
    copy_environment<T>(e, rows, nominal % lanes_, progress_[nominal]);
    memcpy(after + std::uint64_t{e} * values, observed, values * sizeof(float));
    out_.done[slot + e] = 1;
  }
  if (fresh && program_->varies)
    vary<T>(nominal, nominal + sizes_.members, episodes_[group] - 1, worker);
}

// ---- what cameras see
// ------------------------------------------------------------------------------

// Frames of a block of nominals: their kinematics once more, packed, which is less work than
// keeping the frames of every auxiliary.
template <class T>
void Batch::pose_block(std::uint32_t block, Worker& worker, float* pose, std::uint8_t* fresh) {
  const std::uint32_t first = block * lanes_;
  T* const packed = reinterpret_cast<T*>(worker.start);
  for (std::uint32_t lane = 0; lane < lanes_; ++lane) {
    // Lanes beyond the last nominal repeat it.
    const std::uint32_t e = std::min(first + lane, sizes_.nominals - 1) * sizes_.members;
    const T* from = reinterpret_cast<const T*>(block_rows(e / lanes_)) + e % lanes_;
    const auto take = [&](std::uint32_t row, std::size_t count) {
      for (std::size_t i = row * lanes_; i < (row + count) * lanes_; i += lanes_)
        packed[i + lane] = from[i];
    };
    take(rows_.qpos, qpos0_.size());
    take(rows_.parameters, program_->parameters.size());
  }
  core::BlockView v =
      view(worker.start, worker.start + rows_.xpos * lanes_ * sizeof(T), worker.status);
  v.nsensor = 0;
  kernels_->kinematics(*model_, v, worker.scratch);
  const T* const xpos = static_cast<const T*>(v.xpos);
  const T* const xquat = static_cast<const T*>(v.xquat);
  const auto bodies = static_cast<std::uint32_t>(core::nbody(*model_));
  const std::uint32_t count = std::min(lanes_, sizes_.nominals - first);
  for (std::uint32_t lane = 0; lane < count; ++lane) {
    float* out = pose + std::uint64_t{first + lane} * bodies * render::kPoseNumbers;
    for (std::uint32_t b = 0; b < bodies; ++b) {
      // A restored state may hold anything.
      for (std::uint32_t k = 0; k < 3; ++k) *out++ = cleaned(xpos[(b * 3 + k) * lanes_ + lane]);
      for (std::uint32_t k = 0; k < 4; ++k) *out++ = cleaned(xquat[(b * 4 + k) * lanes_ + lane]);
    }
    fresh[first + lane] = progress_[(first + lane) * sizes_.members] == 0;
  }
}

template <class T>
std::uint32_t Batch::show(ThreadPool& pool, std::uint32_t slot) {
  const std::uint64_t n = sizes_.nominals;
  const auto bodies = static_cast<std::uint64_t>(core::nbody(*model_));
  float* const pose =
      out_.pose != nullptr ? out_.pose + slot * n * bodies * render::kPoseNumbers : pose_;
  std::uint8_t* const fresh = out_.fresh != nullptr ? out_.fresh + slot * n : fresh_;
  pool.run(static_cast<int>((n + lanes_ - 1) / lanes_), [&](int block, int worker) {
    pose_block<T>(static_cast<std::uint32_t>(block), workers_[worker], pose, fresh);
  });
  if (!stacks_ || slot == sizes_.horizon) return 0;
  std::uint32_t images = 0;
  if (newest_shown_)
    stacks_->copy(newest_slot_, slot);  // the segment before ended early, with its last state drawn
  else
    images = stacks_->advance(pool, newest_slot_, slot, pose, fresh, nullptr, sizes_.nominals);
  newest_slot_ = slot;
  newest_shown_ = true;
  return images;
}

// ---- segments
// --------------------------------------------------------------------------------------

namespace {

// Groups per item of a loop over groups: small groups share one, so that taking items stays cheap.
std::uint32_t groups_per_item(const BatchSizes& sizes) {
  return std::max<std::uint32_t>(1, 64 / sizes.members);
}

}  // namespace

Status Batch::begin(ThreadPool& pool, std::uint64_t epoch, bool reset, BeginReport* report) {
  if (segment_open_)
    return refuse(kFailedPrecondition, "begin: a segment is open after step %u; send End first",
                  next_t_);
  if (epoch > UINT32_MAX)
    return refuse(kInvalidArgument, "begin: epoch: expected below 2^32, got %llu",
                  static_cast<unsigned long long>(epoch));
  const std::uint64_t started = now(CLOCK_REALTIME);
  memory_->unlink();  // the caller has mapped it by now
  epoch_ = static_cast<std::uint32_t>(epoch);
  const std::uint32_t chunk = groups_per_item(sizes_);
  std::uint64_t begun = 0;
  std::uint32_t images = 0;
  const auto run = [&]<class T>(T) {
    if (device_) {
      device_->begin(reset);
      begun = now(CLOCK_REALTIME);
      if (reset) newest_shown_ = false;
      if (shows_) images = show_on_device(0);
      for (const BufferArray& array : layout_.arrays)
        if (array.extra_slot || array.image) mirror(array, 0, 1);
      return;
    }
    pool.run((sizes_.nominals + chunk - 1) / chunk, [&](int item, int worker) {
      const std::uint32_t end = std::min((item + 1) * chunk, sizes_.nominals);
      for (std::uint32_t group = item * chunk; group < end; ++group)
        begin_group<T>(group, workers_[worker], reset);
    });
    pool.run(static_cast<int>(blocks_),
             [&](int block, int worker) { observe_block<T>(block, workers_[worker], 0); });
    if (!shows_) return;
    begun = now(CLOCK_REALTIME);
    if (reset) newest_shown_ = false;
    images = show<T>(pool, 0);
  };
  kernels_->scalar_bytes == 8 ? run(double{}) : run(float{});
  segment_open_ = true;
  next_t_ = 0;
  if (report != nullptr) {
    const std::uint64_t finished = now(CLOCK_REALTIME);
    *report = {};
    report->images = images;
    report->phases[0] = {"begin", started, shows_ ? begun : finished};
    if (shows_) report->phases[1] = {"render", begun, finished};
  }
  return {};
}

Status Batch::step(ThreadPool& pool, std::uint32_t t, const float* mean, std::size_t mean_count,
                   const float* log_std, std::size_t log_std_count, StepReport* report) {
  if (!segment_open_)
    return refuse(kFailedPrecondition, "step: no segment is open; send Begin first");
  if (t != next_t_) return refuse(kInvalidArgument, "step: t: expected %u, got %u", next_t_, t);
  if (t >= sizes_.horizon)
    return refuse(kInvalidArgument, "step: the segment has its %u steps; send End", t);
  const std::size_t actions = sizes_.actions, na = sizes_.nominals * actions;
  if (mean_count != na)
    return refuse(kInvalidArgument, "step: mean: expected [%u, %zu] = %zu values, got %zu",
                  sizes_.nominals, actions, na, mean_count);
  if (log_std != nullptr && log_std_count != actions && log_std_count != na)
    return refuse(kInvalidArgument,
                  "step: log_std: expected [%zu] or [%u, %zu] values or none, got %zu", actions,
                  sizes_.nominals, actions, log_std_count);
  for (std::size_t i = 0; i < na; ++i) {
    // A mean that is no number passes the clamps and becomes a fault of its group.
    mean_[i] = usable(mean[i]) ? std::max(std::min(mean[i], mean_high_), mean_low_)
                               : std::numeric_limits<float>::quiet_NaN();
  }
  if (log_std != nullptr) {
    for (std::size_t i = 0; i < log_std_count; ++i) {
      const float clipped = std::max(std::min(log_std[i], log_std_high_), log_std_low_);
      std_[i] = std::exp(clipped);
      if (std::isnan(log_std[i]) || !usable(std_[i]))
        return refuse(kInvalidArgument, "step: log_std[%zu] is %g, no usable standard deviation", i,
                      log_std[i]);
    }
  }
  next_t_ += 1;

  ActionArgs args{};
  args.seed = seed_;
  args.epoch = epoch_;
  args.t = t;
  args.environments = sizes_.environments;
  args.members = sizes_.members;
  args.action_size = static_cast<int>(actions);
  args.mean = mean_;
  args.std = log_std != nullptr ? std_ : nullptr;
  args.std_stride = log_std_count == actions ? 0 : static_cast<int>(actions);
  args.low = mean_low_;
  args.high = mean_high_;

  if (device_) return step_on_device(args, log_std_count, report);
  const std::uint64_t started = now(CLOCK_REALTIME);
  std::uint64_t stepped = 0, settled = 0;
  std::uint32_t images = 0;
  const std::uint32_t chunk = groups_per_item(sizes_);
  const auto run = [&]<class T>(T) {
    pool.run(static_cast<int>(blocks_),
             [&](int block, int worker) { step_block<T>(block, workers_[worker], args); });
    stepped = now(CLOCK_REALTIME);
    pool.run((sizes_.nominals + chunk - 1) / chunk, [&](int item, int worker) {
      const std::uint32_t end = std::min((item + 1) * chunk, sizes_.nominals);
      for (std::uint32_t group = item * chunk; group < end; ++group)
        step_group<T>(group, workers_[worker], t);
    });
    // Copies whose parameters are their own do not look as their nominal does.
    if (program_->varies)
      pool.run(static_cast<int>(blocks_),
               [&](int block, int worker) { observe_copies<T>(block, workers_[worker], t); });
    settled = now(CLOCK_REALTIME);
    newest_shown_ = false;
    if (shows_) images = show<T>(pool, t + 1);
  };
  kernels_->scalar_bytes == 8 ? run(double{}) : run(float{});

  StepReport sum;
  std::uint64_t noise = 0, physics = 0, task = 0;
  for (Worker& worker : workers_) {
    sum.nominals_done += worker.nominals_done;
    sum.faults += worker.faults;
    noise += worker.noise_time;
    physics += worker.physics_time;
    task += worker.task_time;
    for (int bit = 0; bit < 8; ++bit) {
      fault_counts_[bit] += worker.fault_bits[bit];
      worker.fault_bits[bit] = 0;
    }
    worker.nominals_done = worker.faults = 0;
    worker.noise_time = worker.physics_time = worker.task_time = 0;
  }
  environment_steps_ += sizes_.environments;
  if (report != nullptr) {
    const double share = static_cast<double>(stepped - started) /
                         static_cast<double>(std::max<std::uint64_t>(1, noise + physics + task));
    const auto noise_end = started + static_cast<std::uint64_t>(share * static_cast<double>(noise));
    const auto task_start = stepped - static_cast<std::uint64_t>(share * static_cast<double>(task));
    *report = sum;
    report->images = images;
    report->phases[0] = {"noise", started, noise_end};
    report->phases[1] = {"physics", noise_end, std::max(noise_end, task_start)};
    report->phases[2] = {"task", std::max(noise_end, task_start), stepped};
    report->phases[3] = {"reset", stepped, settled};
    if (shows_) report->phases[4] = {"render", settled, now(CLOCK_REALTIME)};
  }
  return {};
}

Status Batch::step_on_device(const ActionArgs& args, std::size_t std_count, StepReport* report) {
  const std::uint64_t started = now(CLOCK_REALTIME);
  const cuda::StepArgs step{
      args.epoch, args.t,   args.std != nullptr, static_cast<std::uint32_t>(args.std_stride),
      args.low,   args.high};
  const cuda::Counters counters = device_->step(step, args.mean, args.std, std_count);
  for (int bit = 0; bit < 8; ++bit) fault_counts_[bit] += counters.fault_bits[bit];
  environment_steps_ += sizes_.environments;
  const std::uint64_t stepped = now(CLOCK_REALTIME);
  newest_shown_ = false;
  const std::uint32_t images = shows_ ? show_on_device(args.t + 1) : 0;
  const std::uint64_t shown = now(CLOCK_REALTIME);
  // The replies of an inline transport carry the next actor observations and images.
  for (const BufferArray& array : layout_.arrays)
    if (array.name == "actor" || (array.image && args.t + 1 < sizes_.horizon))
      mirror(array, args.t + 1, args.t + 2);
  if (report != nullptr) {
    const std::uint64_t finished = now(CLOCK_REALTIME);
    *report = {};
    report->nominals_done = counters.nominals_done;
    report->faults = counters.faults;
    report->images = images;
    report->phases[0] = {"noise", started, started};
    report->phases[1] = {"physics", started, stepped};  // one queue of kernels, timed as a whole
    report->phases[2] = {"task", shown, finished};
    report->phases[3] = {"reset", finished, finished};
    if (shows_) report->phases[4] = {"render", stepped, shown};
  }
  return {};
}

std::uint32_t Batch::show_on_device(std::uint32_t slot) {
  device_->pose(slot);
  std::uint32_t images = 0;
  if (stacks_ && slot < sizes_.horizon) {
    if (newest_shown_)
      device_->copy_stacks(newest_slot_, slot);
    else
      images = device_->advance_stacks(newest_slot_, slot);
    newest_slot_ = slot;
    newest_shown_ = true;
  }
  device_->synchronize();
  return images;
}

Status Batch::end(std::uint32_t* steps) {
  if (!segment_open_)
    return refuse(kFailedPrecondition, "end: no segment is open; send Begin first");
  segment_open_ = false;
  if (device_) {
    for (const BufferArray& array : layout_.arrays)
      if (!array.image)  // came as they were drawn
        mirror(array, 0, next_t_ + (array.extra_slot ? 1u : 0u));
  }
  if (steps != nullptr) *steps = next_t_;
  return {};
}

void Batch::image_ranges(std::uint32_t slot,
                         const std::function<void(std::uint64_t, std::uint64_t)>& f) const {
  if (stacks_) stacks_->ranges(slot, nullptr, sizes_.nominals, f);
}

void Batch::written_ranges(std::uint32_t steps,
                           const std::function<bool(std::uint64_t, std::uint64_t)>& f) const {
  for (const BufferArray& array : layout_.arrays) {
    if (array.image) continue;  // sent as they are drawn
    const std::uint64_t bytes = array.slot_bytes * (steps + (array.extra_slot ? 1u : 0u));
    if (bytes > 0 && !f(array.offset_bytes, bytes)) return;
  }
}

}  // namespace sdpg::batch
