// A task program, checked against its model and flattened for the evaluator.
//
// sdpg.task.v1.TaskProgram -> make_program (program.cc: every index is checked once, here) ->
// Program -> Kernels::run_program (program_kernels.h: straight-line loops over packs that check
// nothing). The structs of this file are plain, so that the files compiled per instruction set
// need no protobuf and no std:: templates.
#pragma once

#include <cstdint>

namespace sdpg::task {

// One instruction. `op` is the number of sdpg.task.v1.Opcode.
struct Op {
  std::uint32_t op;
  std::uint32_t dst, a, b, c;  // registers
  std::uint32_t length;
  std::uint32_t index;                   // element of a load's source or a store's destination
  std::uint32_t a_step, b_step, c_step;  // 1, or 0 where one register is repeated
  float immediate;
};

// What Kernels::run_program takes as `section`.
struct Section {
  const Op* ops;
  std::uint32_t count;
};

// What Kernels::run_program takes as `args`: one block's arrays, `[count][lane]`, aligned to 64
// bytes. T is float or double according to the table. Arrays a section cannot reach may be null.
struct ProgramArgs {
  void* registers;               // T [Program::scratch_registers]
  void* qpos;                    // T [nq]
  void* qvel;                    // T [nv]
  void* ctrl;                    // T [nu]
  const void* action;            // T [action_size], after tanh
  const void* xpos;              // T [nbody*3]
  const void* xquat;             // T [nbody*4]
  const void* xipos;             // T [nbody*3]
  const void* uniforms;          // T [Program::draws] or [Program::own_draws], in [0, 1)
  const std::int32_t* progress;  // [1]
  const void* act;               // T [na]
  const void* sensordata;        // T [Program::sensor_values]
  void* parameters;              // T [Program::parameters.size()]
};

}  // namespace sdpg::task
