// The kernels of a batch outside the physics: what one thread does for one environment or one
// group. Together with the physics (physics_team.h) they are a step as sim.proto orders it:
//
//   act          a thread an environment: noise, action, the program's section control
//   physics      a team an environment
//   finish       a thread an environment: rewards, ends, faults, observations
//   start        a thread a group whose nominal ended: the new episode's state
//   physics      frames of those states
//   show_start   a thread a group: their observations
//   copy         a thread an environment: auxiliaries that ended, or whose nominal did
//
// Batch::step_block and Batch::step_group (batch/batch.cc) do the same on a CPU; tests compare the
// two bit for bit.
#pragma once

#define SDPG_ROW_STRIDE 32

#include "batch/normals.h"
#include "core/kernels.h"
#include "cuda/batch_args.h"
#include "task/program_kernels.h"

namespace sdpg::cuda {
SDPG_ISA_BEGIN

static_assert(SDPG_ROW_STRIDE == kLanes);

using Number = core::Pack<float, 1>;

SDPG_FN void count(std::uint32_t* counter) {
#if defined(__CUDA_ARCH__)
  atomicAdd(counter, 1u);
#else
  *counter += 1;
#endif
}

// One environment's view of the arrays it works on; rows are kLanes apart.
struct Lane {
  const BatchArgs& args;
  std::uint32_t environment;
  float* registers;
  float* uniforms;

  // `thread` is the thread's number in the arrays that the threads at work share.
  SDPG_FN Lane(const BatchArgs& a, std::uint32_t e, std::uint32_t thread)
      : args(a),
        environment(e),
        registers(a.registers +
                  static_cast<std::uint64_t>(thread / kLanes) * a.scratch_registers * kLanes +
                  thread % kLanes),
        uniforms(a.uniforms +
                 static_cast<std::uint64_t>(thread / kLanes) *
                     (a.draws > a.own_draws ? a.draws : a.own_draws) * kLanes +
                 thread % kLanes) {}

  SDPG_FN float* row(std::uint32_t r) const { return args.state.at<float>(environment, r); }
  SDPG_FN float value(std::uint32_t r) const { return registers[r * kLanes]; }
  SDPG_FN float* acting() const {
    return args.acting + static_cast<std::uint64_t>(environment / kLanes) * args.actions * kLanes +
           environment % kLanes;
  }

  SDPG_FN void run(const task::Section& section, const std::int32_t* progress,
                   const float* action) const {
    const Rows& rows = args.state.rows;
    const task::ProgramArgs program{
        registers,      row(rows.qpos),       row(rows.qvel),      row(rows.ctrl), action,
        row(rows.xpos), row(rows.xquat),      row(rows.xipos),     uniforms,       progress,
        row(rows.act),  row(rows.sensordata), row(rows.parameters)};
    task::run_program<Number>(&section, &program);
  }
  SDPG_FN void load_persistent() const {
    for (std::uint32_t n = 0; n < args.persistent.count; ++n) {
      const PersistentRange& range = args.persistent.items[n];
      const float* from = row(args.state.rows.persistent + range.row);
      for (std::uint32_t i = 0; i < range.length; ++i)
        registers[(range.start + i) * kLanes] = from[i * kLanes];
    }
  }
  SDPG_FN void save_persistent() const {
    for (std::uint32_t n = 0; n < args.persistent.count; ++n) {
      const PersistentRange& range = args.persistent.items[n];
      float* to = row(args.state.rows.persistent + range.row);
      for (std::uint32_t i = 0; i < range.length; ++i)
        to[i * kLanes] = registers[(range.start + i) * kLanes];
    }
  }
  // Uniforms [0, count) of a use (philox.h) for a nominal's or environment's episode.
  SDPG_FN void draw(std::uint32_t use, std::uint32_t who, std::uint32_t episode,
                    std::uint32_t count) const {
    for (std::uint32_t first = 0; first < count; first += 4) {
      const std::uint32_t counter[4] = {first / 4 | use, who, episode, 0};
      std::uint32_t words[4];
      batch::philox(counter, args.seed, words);
      for (std::uint32_t k = 0; k < 4 && first + k < count; ++k)
        uniforms[(first + k) * kLanes] = batch::uniform(words[k]);
    }
  }
  // The parameters that are this environment's own.
  SDPG_FN void vary(std::uint32_t episode) const {
    draw(batch::kOwnParameters, environment, episode, args.own_draws);
    run(args.vary, args.progress + environment, nullptr);
  }
  SDPG_FN bool unusable(const List<std::uint32_t>& list) const {
    for (std::uint32_t i = 0; i < list.count; ++i)
      if (!usable(value(list.items[i]))) return true;
    return false;
  }
  SDPG_FN bool unusable_persistent() const {
    for (std::uint32_t n = 0; n < args.persistent.count; ++n) {
      const PersistentRange& range = args.persistent.items[n];
      for (std::uint32_t i = 0; i < range.length; ++i)
        if (!usable(value(range.start + i))) return true;
    }
    return false;
  }
  SDPG_FN void write(const List<std::uint32_t>& list, float* out) const {
    for (std::uint32_t i = 0; i < list.count; ++i) out[i] = cleaned(value(list.items[i]));
  }
};

// Noise and action of environment e; see ActionArgs (batch/lane_kernels.h).
SDPG_FN void act(const BatchArgs& args, const StepArgs& step, std::uint32_t e,
                 std::uint32_t thread) {
  const Lane lane(args, e, thread);
  const std::uint32_t group = e / args.members;
  const bool perturbed = step.noise && e % args.members != 0;
  const std::uint64_t at =
      (static_cast<std::uint64_t>(step.t) * args.environments + e) * args.actions;
  float* const acting = lane.acting();
  for (std::uint32_t first = 0; first < args.actions; first += 4) {
    Number z[4] = {Number(0.0f), Number(0.0f), Number(0.0f), Number(0.0f)};
    if (perturbed) {
      std::uint32_t counter[4] = {first / 4 | batch::kActionNoise, e, step.t, step.epoch};
      batch::philox_lanes<1>(counter, args.seed);
      batch::normals<1>(counter[0], counter[1], &z[0], &z[1]);
      batch::normals<1>(counter[2], counter[3], &z[2], &z[3]);
    }
    for (std::uint32_t k = 0; k < 4 && first + k < args.actions; ++k) {
      const std::uint32_t j = first + k;
      const Number mean = Number(args.mean[group * args.actions + j]);
      Number action = mean;
      if (perturbed) {
        const Number std = Number(args.std[group * step.std_stride + j]);
        // In this order the bounds let through what is not a number.
        action = core::max(Number(step.low), core::min(Number(step.high), mean + std * z[k]));
      }
      args.out.noise[at + j] = z[k][0];
      args.out.action[at + j] = action[0];
      acting[j * kLanes] = core::tanh(action)[0];
    }
  }
  args.status[e] = 0;
  lane.load_persistent();
  lane.run(args.control, args.progress + e, acting);
  lane.save_persistent();
}

// Rewards, ends, faults and observations of environment e after the physics.
SDPG_FN void finish(const BatchArgs& args, const StepArgs& step, std::uint32_t e,
                    std::uint32_t thread) {
  const Lane lane(args, e, thread);
  const std::uint64_t at = static_cast<std::uint64_t>(step.t) * args.environments + e;
  const std::int32_t progress = ++args.progress[e];

  lane.load_persistent();
  lane.run(args.step, args.progress + e, lane.acting());
  bool bad =
      lane.unusable(args.rewards) || lane.unusable(args.terminations) || lane.unusable_persistent();
  for (std::uint32_t j = 0; j < args.actions; ++j) bad = bad || !usable(lane.acting()[j * kLanes]);
  bool ends = false;
  for (std::uint32_t i = 0; i < args.terminations.count; ++i)
    ends = ends || lane.value(args.terminations.items[i]) != 0.0f;
  float* const terms = args.out.reward_terms + at * args.reward_terms;
  float reward = 0;
  for (std::uint32_t i = 0; i < args.reward_terms; ++i) {
    terms[i] = lane.value(args.rewards.items[i]);
    reward += terms[i];
  }
  lane.save_persistent();

  lane.run(args.observe, args.progress + e, nullptr);
  bad = bad || lane.unusable(args.privileged) || lane.unusable(args.actor);
  // A fault of any kind ends the episode.
  const std::uint32_t fault = args.status[e] | (bad ? core::kNonFinite : 0u);
  ends = ends || fault != 0;
  float* const successor = args.out.privileged_successor + at * args.privileged_values;
  float* const after = args.out.privileged + (at + args.environments) *
                                                 static_cast<std::uint64_t>(args.privileged_values);
  for (std::uint32_t j = 0; j < args.privileged_values; ++j)
    after[j] = successor[j] = cleaned(lane.value(args.privileged.items[j]));
  if (e % args.members == 0)
    lane.write(args.actor,
               args.out.actor +
                   (static_cast<std::uint64_t>(step.t + 1) * args.nominals + e / args.members) *
                       args.actor_values);

  // A faulty transition is worth nothing.
  const bool late = progress >= args.episode_length && !ends;
  if (fault != 0) {
    reward = 0;
    for (std::uint32_t i = 0; i < args.reward_terms; ++i) terms[i] = 0;
    float* const action = args.out.action + at * args.actions;
    for (std::uint32_t j = 0; j < args.actions; ++j) action[j] = cleaned(action[j]);
  }
  args.out.reward[at] = reward;
  args.out.progress[at] = progress;
  args.out.terminated[at] = ends;
  args.out.truncated[at] = late;
  args.out.done[at] = args.ended[e] = ends || late;
  args.out.fault[at] = static_cast<std::uint8_t>(fault);
  if (fault != 0) {
    count(&args.counters->faults);
    for (int bit = 0; bit < 8; ++bit)
      if ((fault >> bit & 1) != 0) count(&args.counters->fault_bits[bit]);
  }
}

// The state in which group g's nominal starts a new episode, if it does.
SDPG_FN void start(const BatchArgs& args, bool all, std::uint32_t g, std::uint32_t thread) {
  const std::uint32_t e = g * args.members;
  const bool fresh = all || args.ended[e] != 0;
  args.fresh[g] = fresh;
  if (!fresh) return;
  if (!all) count(&args.counters->nominals_done);
  const Lane lane(args, e, thread);
  const Rows& rows = args.state.rows;
  for (std::uint32_t r = 0; r < rows.end; ++r) *lane.row(r) = 0;
  for (std::uint32_t i = 0; i < args.nq; ++i) *lane.row(rows.qpos + i) = args.qpos0[i];
  for (std::uint32_t n = 0; n < args.persistent.count; ++n) {
    const PersistentRange& range = args.persistent.items[n];
    for (std::uint32_t i = 0; i < range.length; ++i)
      lane.registers[(range.start + i) * kLanes] = range.initial;
  }
  const std::uint32_t episode = args.episodes[g]++;
  lane.draw(batch::kEpisodeStart, g, episode, args.draws);
  args.progress[e] = 0;
  lane.run(args.reset, args.progress + e, nullptr);
  lane.save_persistent();
  if (args.varies) lane.vary(episode);
}

// Observations of environment e's present state into slot t of the buffer's arrays.
SDPG_FN void show(const BatchArgs& args, std::uint32_t t, std::uint32_t e, std::uint32_t thread) {
  const Lane lane(args, e, thread);
  lane.load_persistent();
  lane.run(args.observe, args.progress + e, nullptr);
  if (lane.unusable(args.privileged) || lane.unusable(args.actor)) count(&args.counters->unusable);
  const std::uint64_t at = static_cast<std::uint64_t>(t) * args.environments + e;
  lane.write(args.privileged, args.out.privileged + at * args.privileged_values);
  if (e % args.members == 0)
    lane.write(args.actor,
               args.out.actor + (static_cast<std::uint64_t>(t) * args.nominals + e / args.members) *
                                    args.actor_values);
}

// Auxiliary e becomes its nominal if either has ended (or `all`). In a step its observations in
// slot t + 1 do too; `draws`: where the nominal's episode is new, e draws its own parameters.
SDPG_FN void copy(const BatchArgs& args, bool all, bool draws, bool in_step, std::uint32_t t,
                  std::uint32_t e, std::uint32_t thread) {
  const std::uint32_t group = e / args.members, nominal = group * args.members;
  const bool fresh = args.fresh[group] != 0;
  if (e == nominal || !(all || fresh || args.ended[e] != 0)) return;
  const float* from = args.state.at<float>(nominal, 0);
  float* into = args.state.at<float>(e, 0);
  for (std::uint32_t n = 0; n < args.copied.count; ++n)
    for (std::uint32_t r = args.copied.items[n].begin; r < args.copied.items[n].end; ++r)
      into[r * kLanes] = from[r * kLanes];
  args.progress[e] = args.progress[nominal];
  if (draws && fresh) Lane(args, e, thread).vary(args.episodes[group] - 1);
  if (!in_step) return;
  const std::uint64_t at = (static_cast<std::uint64_t>(t) + 1) * args.environments;
  for (std::uint32_t j = 0; j < args.privileged_values; ++j)
    args.out.privileged[(at + e) * args.privileged_values + j] =
        args.out.privileged[(at + nominal) * args.privileged_values + j];
  args.out.done[at - args.environments + e] = 1;
}

SDPG_ISA_END
}  // namespace sdpg::cuda
