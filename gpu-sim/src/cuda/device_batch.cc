#include "cuda/device_batch.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "cuda/device_layout.h"

namespace sdpg::cuda {
namespace {

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
  out->stacks_ = setup.stacks;
  if (setup.stacks != nullptr) {
    out->renderer_ = DeviceRenderer::create(device, setup.stacks->scene(), error);
    if (!out->renderer_) return nullptr;
  }

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
  const std::uint64_t poses =
      std::uint64_t{a.nominals} * static_cast<std::uint64_t>(m.nbody) * render::kPoseNumbers;
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
    out->pose_ = divider.take<float>(setup.shows ? poses : 0);
    out->begun_ = divider.take<std::uint8_t>(setup.shows ? a.nominals : 0);
    p.far = divider.take<unsigned char>(std::uint64_t{p.plan.teams} * p.plan.far_bytes);
    return divider.used();
  };
  const std::uint64_t saved_bytes = saved(Divider(nullptr)), work_bytes = work(Divider(nullptr));
  out->state_bytes_ = saved_bytes + work_bytes + constants.bytes().size() +
                      (out->renderer_ ? out->renderer_->bytes() : 0);
  out->environment_bytes_ = rows.end * 4 + 4;
  const double needed = static_cast<double>(out->state_bytes_ + setup.layout.bytes);
  const double allowed =
      static_cast<double>(std::min(setup.memory_limit_bytes, device.memory_bytes()));
  if (needed > allowed) {
    char line[256], images[64] = "";
    if (setup.stacks != nullptr)
      std::snprintf(images, sizeof images, ", %.0f of it images", setup.stacks->image_bytes());
    std::snprintf(
        line, sizeof line,
        "the batch needs %.0f bytes of the device (%.0f state, %.0f rollout buffer%s), %.0f "
        "are allowed; lower nominals, auxiliaries_per_nominal or horizon%s",
        needed, static_cast<double>(out->state_bytes_), static_cast<double>(setup.layout.bytes),
        images, allowed, setup.stacks != nullptr ? ", or the views' sizes or frames" : "");
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

unsigned char* DeviceBatch::stacks_at(std::size_t view, std::uint32_t slot) const {
  return buffer_.data() + stacks_->offset(view) + slot * stacks_bytes(view);
}
std::uint64_t DeviceBatch::stacks_bytes(std::size_t view) const {
  const render::View& v = stacks_->views()[view];
  return frame_bytes(v) * static_cast<std::uint64_t>(v.frames) * args_.nominals;
}

void DeviceBatch::pose(std::uint32_t slot) {
  PhysicsArgs p = frames(args_.members, nullptr);
  p.pose = pose_;
  p.begun = begun_;
  p.progress = args_.progress;
  device_.simulate(p);
  if (args_.out.pose == nullptr) return;
  const std::uint64_t numbers = std::uint64_t{args_.nominals} *
                                static_cast<std::uint64_t>(p.model.nbody) * render::kPoseNumbers;
  device_.move(args_.out.pose + slot * numbers, pose_, numbers * sizeof(float));
  device_.move(args_.out.fresh + std::uint64_t{slot} * args_.nominals, begun_, args_.nominals);
}

std::uint32_t DeviceBatch::advance_stacks(std::uint32_t from, std::uint32_t to) {
  const std::size_t views = stacks_->views().size();
  for (std::size_t v = 0; v < views; ++v) {
    DrawArgs draw{};
    draw.view = stacks_->views()[v];
    draw.environments = args_.nominals;
    draw.pose = pose_;
    draw.fresh = begun_;
    draw.from = stacks_at(v, from);
    draw.to = stacks_at(v, to);
    draw.seed = args_.seed;
    draw.picture = pictures_ * views + v;
    renderer_->draw(draw);
  }
  pictures_ += 1;
  return static_cast<std::uint32_t>(views) * args_.nominals;
}

void DeviceBatch::copy_stacks(std::uint32_t from, std::uint32_t to) {
  if (from == to) return;
  for (std::size_t v = 0; v < stacks_->views().size(); ++v)
    device_.move(stacks_at(v, to), stacks_at(v, from), stacks_bytes(v));
}

void DeviceBatch::save_stacks(std::uint32_t slot, std::uint8_t* out) const {
  std::vector<std::int32_t> progress(args_.environments);
  device_.download(progress.data(), args_.progress, progress.size() * sizeof(std::int32_t));
  for (std::uint32_t n = 0; n < args_.nominals; ++n, out += sizeof pictures_)
    std::memcpy(out, &pictures_, sizeof pictures_);
  for (std::size_t v = 0; v < stacks_->views().size(); ++v) {
    const std::uint64_t bytes = stacks_bytes(v);
    device_.download(out, stacks_at(v, slot), bytes);
    for (std::uint32_t n = 0; n < args_.nominals; ++n)
      if (progress[n * args_.members] == 0)
        std::memset(out + n * (bytes / args_.nominals), 0, bytes / args_.nominals);
    out += bytes;
  }
}

void DeviceBatch::restore_stacks(std::uint32_t slot, const std::uint8_t* in) {
  std::memcpy(&pictures_, in, sizeof pictures_);  // the same for all nominals
  in += args_.nominals * sizeof pictures_;
  for (std::size_t v = 0; v < stacks_->views().size(); ++v) {
    device_.upload(stacks_at(v, slot), in, stacks_bytes(v));
    in += stacks_bytes(v);
  }
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
