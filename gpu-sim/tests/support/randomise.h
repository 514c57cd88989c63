// Task programs whose model constants are drawn anew, for tests.
#pragma once

#include <cstdint>
#include <cstdio>

#include "sdpg/sim/v1/sim.pb.h"

namespace sdpg::testing {

// Makes an element of a model array a parameter of the request's program, drawn uniformly from
// [low, high), and adds it to what the critic sees.
inline void randomise(sim::v1::CreateBatchRequest* request, task::v1::ParameterField field,
                      std::uint32_t index, float low, float high, bool per_environment) {
  task::v1::TaskProgram* task = request->mutable_task();
  auto* parameter = task->add_parameters();
  parameter->set_field(field);
  parameter->set_index(index);
  parameter->set_per_environment(per_environment);
  const auto slot = static_cast<std::uint32_t>(task->parameters_size() - 1);
  const std::uint32_t r = task->register_count();
  task->set_register_count(r + 4);
  const auto add = [&](task::v1::Opcode op, std::uint32_t dst, float immediate,
                       std::uint32_t element) {
    auto* in = per_environment ? task->add_vary() : task->add_reset();
    in->set_op(op);
    in->set_dst(dst);
    in->set_length(1);
    in->set_immediate(immediate);
    in->set_index(element);
    in->set_a(op == task::v1::OPCODE_STORE_PARAMETER ? r + 3 : r);
    in->set_b(r + 1);
    in->set_c(r + 2);
  };
  // The draws of Hopper's own start are 0 to 5.
  add(task::v1::OPCODE_RANDOM_UNIFORM, r, 0, 8 + slot);
  add(task::v1::OPCODE_CONSTANT, r + 1, high - low, 0);
  add(task::v1::OPCODE_CONSTANT, r + 2, low, 0);
  add(task::v1::OPCODE_MULADD, r + 3, 0, 0);
  add(task::v1::OPCODE_STORE_PARAMETER, 0, 0, slot);
  auto* seen = task->add_observe();
  seen->set_op(task::v1::OPCODE_LOAD_PARAMETER);
  seen->set_dst(r);
  seen->set_length(1);
  seen->set_index(slot);
  auto* observation = task->add_observations();
  char name[32];
  std::snprintf(name, sizeof name, "parameter %u", slot);
  observation->set_name(name);
  observation->set_start(r);
  observation->set_length(1);
  observation->set_privileged(true);
}

}  // namespace sdpg::testing
