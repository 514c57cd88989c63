#include "cuda/device_batch.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace sdpg::cuda {
namespace {

std::uint64_t align256(std::uint64_t bytes) { return (bytes + 255) / 256 * 256; }

// Arrays collected on the host, to be uploaded in one piece.
class Constants {
 public:
  // Offset of the array.
  template <class T>
  std::uint64_t add(const T* items, std::size_t count) {
    const std::uint64_t at = bytes_.size();
    bytes_.resize(at + align256(count * sizeof(T)));
    if (count > 0) std::memcpy(bytes_.data() + at, items, count * sizeof(T));
    return at;
  }
  template <class T>
  std::uint64_t add(const std::vector<T>& items) {
    return add(items.data(), items.size());
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  std::vector<unsigned char> bytes_;
};

// Divides one allocation; with a null base it only counts.
class Divider {
 public:
  explicit Divider(unsigned char* base) : base_(base) {}
  template <class T>
  T* take(std::uint64_t count) {
    T* const out = reinterpret_cast<T*>(base_ + used_);
    used_ += align256(count * sizeof(T));
    return out;
  }
  std::uint64_t used() const { return used_; }

 private:
  unsigned char* base_;
  std::uint64_t used_ = 0;
};

std::uint32_t lay_out_rows(const core::Model& m, const task::Program& program, Rows* rows) {
  std::uint32_t next = 0;
  const auto field = [&](std::uint64_t count) {
    const std::uint32_t at = next;
    next += static_cast<std::uint32_t>(count);
    return at;
  };
  const auto n = [](int count) { return static_cast<std::uint64_t>(count); };
  rows->qpos = field(n(m.nq));
  rows->qvel = field(n(m.nv));
  rows->act = field(n(m.na));
  rows->ctrl = field(n(m.nu));
  rows->warmstart = field(n(m.nv));
  rows->persistent = field(program.persistent_rows);
  rows->sensordata = field(program.sensor_values);
  rows->parameters = field(program.parameters.size());
  rows->frames = program.reads_frames;
  rows->xpos = field(rows->frames ? n(m.nbody) * 3 : 0);
  rows->xquat = field(rows->frames ? n(m.nbody) * 4 : 0);
  rows->xipos = field(rows->frames ? n(m.nbody) * 3 : 0);
  rows->end = next;
  return next;
}

}  // namespace

std::unique_ptr<DeviceBatch> DeviceBatch::create(Device& device, const DeviceBatchSetup& setup,
                                                 std::string* error) {
  const core::Model& m = *setup.model;
  const task::Program& program = *setup.program;
  std::unique_ptr<DeviceBatch> out(new DeviceBatch(device));
  BatchArgs& a = out->args_;
  a.seed = setup.seed;
  a.nominals = setup.nominals;
  a.members = setup.members;
  a.environments = setup.nominals * setup.members;
  a.actions = program.action_size;
  a.privileged_values = static_cast<std::uint32_t>(program.privileged.size());
  a.actor_values = static_cast<std::uint32_t>(program.actor.size());
  a.reward_terms = static_cast<std::uint32_t>(program.rewards.size());
  a.scratch_registers = program.scratch_registers;
  a.draws = program.draws;
  a.own_draws = program.own_draws;
  a.nq = static_cast<std::uint32_t>(m.nq);
  a.episode_length = static_cast<std::int32_t>(program.episode_length);
  a.varies = program.varies;
  a.slots = device.slots();
  a.state.environments = a.environments;
  lay_out_rows(m, program, &a.state.rows);
  const Rows& rows = a.state.rows;
  a.state.block_bytes = std::uint64_t{rows.end} * kLanes * sizeof(float);
  const std::uint64_t blocks = (a.environments + kLanes - 1) / kLanes;
  out->substeps_ = static_cast<int>(program.substeps);

  PhysicsArgs& p = out->physics_;
  if (!device.plan(m, static_cast<int>(program.sensor_values), &p.plan, error)) return nullptr;
  p.nsensor = static_cast<int>(program.sensors.size());
  p.sensor_values = static_cast<int>(program.sensor_values);
  for (const core::Sensor& sensor : program.sensors) p.velocities |= core::is_velocity(sensor);
  out->needs_frames_ = rows.frames || p.velocities;

  // Constants.
  Constants constants;
  std::vector<PersistentRange> persistent;
  for (const task::Persistent& range : program.persistent)
    persistent.push_back({range.start, range.length, range.row, range.initial});
  std::vector<RowRange> copied;
  std::uint32_t from = 0;
  for (std::uint32_t i = 0; i < program.own.size(); ++i) {
    if (!program.own[i]) continue;
    if (from < rows.parameters + i) copied.push_back({from, rows.parameters + i});
    from = rows.parameters + i + 1;
  }
  copied.push_back({from, rows.end});
  const std::vector<float> qpos0(setup.qpos0.begin(), setup.qpos0.end());
  const std::uint64_t at[] = {constants.add(program.control_ops),
                              constants.add(program.step_ops),
                              constants.add(program.observe_ops),
                              constants.add(program.reset_ops),
                              constants.add(program.vary_ops),
                              constants.add(persistent),
                              constants.add(copied),
                              constants.add(program.privileged),
                              constants.add(program.actor),
                              constants.add(program.rewards),
                              constants.add(program.terminations),
                              constants.add(qpos0),
                              constants.add(program.sensors)};

  // Everything that is written, once to count and once to point.
  const auto saved = [&](Divider divider) {
    a.state.base = divider.take<unsigned char>(blocks * a.state.block_bytes);
    a.progress = divider.take<std::int32_t>(a.environments);
    a.episodes = divider.take<std::uint32_t>(a.nominals);
    return divider.used();
  };
  const std::uint64_t acting = std::uint64_t{a.nominals} * a.actions;
  float *mean = nullptr, *std = nullptr;
  const auto work = [&](Divider divider) {
    const std::uint64_t lanes = std::uint64_t{a.slots} * kLanes;
    a.registers = divider.take<float>(lanes * a.scratch_registers);
    a.uniforms = divider.take<float>(lanes * std::max(a.draws, a.own_draws));
    a.acting = divider.take<float>(blocks * kLanes * a.actions);
    a.status = divider.take<std::uint32_t>(a.environments);
    a.ended = divider.take<std::uint8_t>(a.environments);
    a.fresh = divider.take<std::uint8_t>(a.nominals);
    mean = divider.take<float>(acting);
    std = divider.take<float>(acting);
    a.counters = divider.take<Counters>(1);
    p.far = divider.take<unsigned char>(std::uint64_t{p.plan.teams} * p.plan.far_bytes);
    return divider.used();
  };
  const std::uint64_t saved_bytes = saved(Divider(nullptr)), work_bytes = work(Divider(nullptr));
  out->state_bytes_ = saved_bytes + work_bytes + constants.bytes().size();
  out->environment_bytes_ = rows.end * 4 + 4;
  const double needed = static_cast<double>(out->state_bytes_ + setup.layout.bytes);
  const double allowed =
      static_cast<double>(std::min(setup.memory_limit_bytes, device.memory_bytes()));
  if (needed > allowed) {
    char line[256];
    std::snprintf(
        line, sizeof line,
        "the batch needs %.0f bytes of the device (%.0f state, %.0f rollout buffer), %.0f "
        "are allowed; lower nominals, auxiliaries_per_nominal or horizon",
        needed, static_cast<double>(out->state_bytes_), static_cast<double>(setup.layout.bytes),
        allowed);
    *error = line;
    return nullptr;
  }
  const bool modelled = upload_model(device, m, &p.model, &out->model_);
  out->saved_ = DeviceMemory(device, saved_bytes);
  out->work_ = DeviceMemory(device, work_bytes);
  out->constants_ = DeviceMemory(device, constants.bytes().size());
  out->buffer_ = DeviceMemory(device, setup.layout.bytes);
  if (!modelled || !out->saved_ || !out->work_ || !out->constants_ || !out->buffer_) {
    *error =
        "the device has no memory left for the batch; lower nominals, auxiliaries_per_nominal "
        "or horizon";
    return nullptr;
  }
  saved(Divider(out->saved_.data()));
  work(Divider(out->work_.data()));
  a.mean = mean;
  a.std = std;
  device.upload(out->constants_.data(), constants.bytes().data(), constants.bytes().size());
  const auto list = [&]<class T>(int which, List<T>* to, std::size_t count) {
    *to = {reinterpret_cast<const T*>(out->constants_.data() + at[which]),
           static_cast<std::uint32_t>(count)};
  };
  const auto section = [&](int which, const task::Section& host) {
    return task::Section{reinterpret_cast<const task::Op*>(out->constants_.data() + at[which]),
                         host.count};
  };
  a.control = section(0, program.control);
  a.step = section(1, program.step);
  a.observe = section(2, program.observe);
  a.reset = section(3, program.reset);
  a.vary = section(4, program.vary);
  list(5, &a.persistent, persistent.size());
  list(6, &a.copied, copied.size());
  list(7, &a.privileged, program.privileged.size());
  list(8, &a.actor, program.actor.size());
  list(9, &a.rewards, program.rewards.size());
  list(10, &a.terminations, program.terminations.size());
  a.qpos0 = reinterpret_cast<const float*>(out->constants_.data() + at[11]);
  p.sensors = reinterpret_cast<const core::Sensor*>(out->constants_.data() + at[12]);
  a.out = batch::point_into(setup.layout, out->buffer_.data());
  p.state = a.state;
  p.status = a.status;
  return out;
}

// The present state's frames and velocities, of some environments.
PhysicsArgs DeviceBatch::frames(std::uint32_t stride, const std::uint8_t* only) const {
  PhysicsArgs p = physics_;
  p.substeps = 0;
  p.stride = stride;
  p.count = args_.environments / stride;
  p.only = only;
  return p;
}

bool DeviceBatch::begin(bool reset) {
  Counters counters{};
  device_.upload(args_.counters, &counters, sizeof counters);
  if (reset) {
    device_.start(args_, true);
    if (needs_frames_) device_.simulate(frames(args_.members, nullptr));
  }
  device_.copy(args_, true, reset && args_.varies, false, 0);
  // The frames of a copy are its nominal's; its own parameters may move them.
  if (args_.varies && needs_frames_) device_.simulate(frames(1, nullptr));
  device_.show(args_, 0, 1, nullptr);
  device_.download(&counters, args_.counters, sizeof counters);  // waits for all of it
  return counters.unusable == 0;
}

Counters DeviceBatch::step(const StepArgs& step, const float* mean, const float* std,
                           std::size_t std_count) {
  const std::size_t means = std::size_t{args_.nominals} * args_.actions;
  device_.upload(const_cast<float*>(args_.mean), mean, means * sizeof(float));
  if (std != nullptr) device_.upload(const_cast<float*>(args_.std), std, std_count * sizeof(float));
  Counters counters{};
  device_.upload(args_.counters, &counters, sizeof counters);

  device_.act(args_, step);
  PhysicsArgs physics = physics_;
  physics.substeps = substeps_;
  physics.stride = 1;
  physics.count = args_.environments;
  physics.only = nullptr;
  device_.simulate(physics);
  device_.finish(args_, step);

  device_.start(args_, false);
  if (needs_frames_) device_.simulate(frames(args_.members, args_.fresh));
  device_.show(args_, step.t + 1, args_.members, args_.fresh);
  device_.copy(args_, false, args_.varies, true, step.t);
  if (args_.varies) {
    // Copies whose parameters are their own do not look as their nominal does.
    const std::uint8_t* done = args_.out.done + std::uint64_t{step.t} * args_.environments;
    if (needs_frames_) device_.simulate(frames(1, done));
    device_.show(args_, step.t + 1, 1, done);
  }
  device_.download(&counters, args_.counters, sizeof counters);  // waits for all of it
  return counters;
}

void DeviceBatch::save(void* out) const { device_.download(out, saved_.data(), saved_.bytes()); }

void DeviceBatch::restore(const void* in) { device_.upload(saved_.data(), in, saved_.bytes()); }

bool DeviceBatch::is_finite() const {
  std::vector<float> numbers(args_.state.block_bytes / sizeof(float) *
                             ((args_.environments + kLanes - 1) / kLanes));
  device_.download(numbers.data(), args_.state.base, numbers.size() * sizeof(float));
  for (const float x : numbers)
    if (!(std::abs(x) <= 1e10f)) return false;
  return true;
}

void DeviceBatch::read_buffer(std::uint64_t offset, std::uint64_t bytes, void* out) const {
  device_.download(out, buffer_.data() + offset, bytes);
}

bool DeviceBatch::ipc_handle(unsigned char handle[64]) const {
  return device_.ipc_handle(buffer_.data(), handle);
}

}  // namespace sdpg::cuda
