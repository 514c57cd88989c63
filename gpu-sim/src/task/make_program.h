// Checking and flattening of task programs; see program.h for where this stands.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/kernels.h"
#include "task/program.h"

namespace sdpg::task::v1 {
class TaskProgram;
}

namespace sdpg::task {

// Registers [start, start + length) that survive from step to step. They are rows
// [row, row + length) of the environment's persistent state.
struct Persistent {
  std::uint32_t start, length, row;
  float initial;
};

struct Program {
  std::string name, content_hash;
  std::vector<Op> control_ops, step_ops, observe_ops, reset_ops, vary_ops;
  Section control, step, observe, reset, vary;
  std::uint32_t scratch_registers;  // register_count and what the flattening added
  std::uint32_t substeps, episode_length, action_size;
  std::uint32_t draws;            // uniforms that one run of `reset` reads
  std::uint32_t own_draws;        // uniforms that one run of `vary` reads
  std::uint32_t persistent_rows;  // registers kept, all ranges together
  bool reads_frames;              // `control`, `step` or `observe` load xpos, xquat or xipos
  std::vector<Persistent> persistent;
  std::vector<std::uint32_t> privileged;    // [P] registers after `observe`
  std::vector<std::uint32_t> actor;         // [O]
  std::vector<std::uint32_t> rewards;       // [K] registers after `step`
  std::vector<std::uint32_t> terminations;  // registers after `step`
  std::vector<core::Sensor> sensors;
  std::uint32_t sensor_values;                  // of all sensors
  std::vector<core::ParameterSlot> parameters;  // as the kernels read them
  std::vector<bool> own;                        // [parameters] drawn by `vary`
  bool varies;                                  // some parameter is

  Program() = default;
  Program(const Program&) = delete;  // the sections point into this object
  Program& operator=(const Program&) = delete;
};

// Sizes a program's indices are checked against.
struct ModelSizes {
  int nq, nv, nu, nbody;
  int na = 0, ngeom = 0, njnt = 0;
};

// Checks the whole message. On failure returns null and one line in `error` that names the section,
// the number of the instruction (from 0) and what is wrong. `model_hash` is the content hash of the
// model the batch uses.
std::shared_ptr<const Program> make_program(const v1::TaskProgram& message, const ModelSizes& sizes,
                                            const std::string& model_hash, std::string* error);

}  // namespace sdpg::task
