// Task programs: what make_program refuses, and that every table computes what each operation
// means.

#include <google/protobuf/stubs/logging.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <random>

#include "sdpg/task/v1/task.pb.h"
#include "support/fixtures.h"
#include "task/make_program.h"

namespace sdpg::task {
namespace {

using ::sdpg::testing::all_kernels;
using ::sdpg::testing::test_seed;

constexpr ModelSizes kSizes{3, 3, 2, 4};

v1::Instruction instruction(v1::Opcode op, std::uint32_t dst, std::uint32_t a, std::uint32_t b,
                            std::uint32_t c, std::uint32_t length, std::uint32_t index = 0) {
  v1::Instruction in;
  in.set_op(op);
  in.set_dst(dst);
  in.set_a(a);
  in.set_b(b);
  in.set_c(c);
  in.set_length(length);
  in.set_index(index);
  return in;
}

// The smallest program that is accepted.
v1::TaskProgram smallest() {
  v1::TaskProgram program;
  program.set_name("smallest");
  program.set_register_count(8);
  program.set_substeps(1);
  program.set_episode_length(10);
  program.set_action_size(2);
  *program.add_control() = instruction(v1::OPCODE_LOAD_ACTION, 0, 0, 0, 0, 2);
  *program.add_control() = instruction(v1::OPCODE_STORE_CTRL, 0, 0, 0, 0, 2);
  *program.add_step() = instruction(v1::OPCODE_LOAD_QVEL, 0, 0, 0, 0, 1);
  auto* reward = program.add_rewards();
  reward->set_name("speed");
  reward->set_register_(0);
  *program.add_observe() = instruction(v1::OPCODE_LOAD_QPOS, 2, 0, 0, 0, 3);
  auto* observation = program.add_observations();
  observation->set_name("qpos");
  observation->set_start(2);
  observation->set_length(3);
  observation->set_privileged(true);
  return program;
}

std::string refusal(const v1::TaskProgram& program, const ModelSizes& sizes = kSizes) {
  std::string error;
  return make_program(program, sizes, "", &error) ? "accepted" : error;
}

TEST(MakeProgram, AcceptsTheSmallestProgram) { EXPECT_EQ(refusal(smallest()), "accepted"); }

TEST(MakeProgram, AcceptsHopper) {
  const auto request = testing::hopper_request(1, 0, 1);
  std::string error;
  const auto program =
      make_program(request.task(), {6, 6, 3, 5}, request.model().content_hash(), &error);
  ASSERT_TRUE(program) << error;
  EXPECT_EQ(program->privileged.size(), 11u);
  EXPECT_EQ(program->action_size, 3u);
}

TEST(MakeProgram, RefusesByNameWhatDoesNotFit) {
  using Edit = std::function<void(v1::TaskProgram&)>;
  const struct {
    const char* says;
    Edit edit;
  } cases[] = {
      {"register_count: expected 1 to 65536, got 0", [](auto& p) { p.set_register_count(0); }},
      {"register_count: expected 1 to 65536, got 4000000000",
       [](auto& p) { p.set_register_count(4000000000u); }},
      {"substeps: expected 1 to 10000, got 0", [](auto& p) { p.set_substeps(0); }},
      {"episode_length: expected 1 to 1000000000, got 0", [](auto& p) { p.set_episode_length(0); }},
      {"action_size: expected 1 to 4096, got 0", [](auto& p) { p.set_action_size(0); }},
      {"rewards: expected at least 1 term, got 0", [](auto& p) { p.clear_rewards(); }},
      {"observations: expected at least one privileged, got none",
       [](auto& p) { p.clear_observations(); }},
      {"section control: ctrl[1] is never stored; end it with STORE_CTRL",
       [](auto& p) { p.mutable_control(1)->set_length(1); }},
      {"section control, instruction 1: operand a: register 3 has no value yet",
       [](auto& p) { p.mutable_control(1)->set_a(3); }},
      {"section control, instruction 0: OPCODE_LOAD_ACTION: elements [1, 3) of action, which has 2",
       [](auto& p) { p.mutable_control(0)->set_index(1); }},
      {"section step, instruction 0: OPCODE_LOAD_QVEL: length: expected 1 to 65536, got 0",
       [](auto& p) { p.mutable_step(0)->set_length(0); }},
      {"section step, instruction 0: OPCODE_LOAD_QVEL: elements [4294967295, 4294967296) of qvel, "
       "which has 3",
       [](auto& p) { p.mutable_step(0)->set_index(4294967295u); }},
      {"section step, instruction 0: OPCODE_LOAD_QVEL: result registers [4294967295, 4294967296) "
       "of 8",
       [](auto& p) { p.mutable_step(0)->set_dst(4294967295u); }},
      {"section step, instruction 0: unknown operation 77",
       [](auto& p) { p.mutable_step(0)->set_op(static_cast<v1::Opcode>(77)); }},
      {"section step, instruction 0: OPCODE_STORE_QPOS is not allowed here",
       [](auto& p) { p.mutable_step(0)->set_op(v1::OPCODE_STORE_QPOS); }},
      {"section observe, instruction 0: OPCODE_LOAD_ACTION is not allowed here",
       [](auto& p) { p.mutable_observe(0)->set_op(v1::OPCODE_LOAD_ACTION); }},
      {"section observe, instruction 0: OPCODE_RANDOM_UNIFORM is not allowed here",
       [](auto& p) { p.mutable_observe(0)->set_op(v1::OPCODE_RANDOM_UNIFORM); }},
      {"reward 'speed': section step leaves no value in register 7",
       [](auto& p) { p.mutable_rewards(0)->set_register_(7); }},
      {"termination 'fell': section step leaves no value in register 99",
       [](auto& p) {
         p.add_terminations()->set_name("fell");
         p.mutable_terminations(0)->set_register_(99);
       }},
      {"observation 'qpos': section observe leaves no value in register 0",
       [](auto& p) { p.mutable_observations(0)->set_start(0); }},
      {"observation 'qpos': registers [2, 4294967297) of 8",
       [](auto& p) { p.mutable_observations(0)->set_length(4294967295u); }},
      {"persistent 'air': registers [7, 9) of 8",
       [](auto& p) {
         auto* range = p.add_persistent();
         range->set_name("air");
         range->set_start(7);
         range->set_length(2);
       }},
      {"section observe, instruction 0: OPCODE_LOAD_QPOS: register 4 is persistent and observe "
       "must "
       "not write it",
       [](auto& p) {
         auto* range = p.add_persistent();
         range->set_name("air");
         range->set_start(4);
         range->set_length(1);
       }},
      {"section step, instruction 1: OPCODE_CONSTANT: immediate is not finite",
       [](auto& p) {
         *p.add_step() = instruction(v1::OPCODE_CONSTANT, 1, 0, 0, 0, 1);
         p.mutable_step(1)->set_immediate(NAN);
       }},
  };
  for (const auto& c : cases) {
    v1::TaskProgram program = smallest();
    c.edit(program);
    EXPECT_EQ(refusal(program), c.says);
  }
}

// A program that draws a parameter for the group, one for each environment, and measures.
v1::TaskProgram randomised() {
  v1::TaskProgram program = smallest();
  auto* mass = program.add_parameters();
  mass->set_field(v1::PARAMETER_FIELD_BODY_MASS);
  mass->set_index(1);
  auto* friction = program.add_parameters();
  friction->set_field(v1::PARAMETER_FIELD_GEOM_FRICTION);
  friction->set_index(5);
  friction->set_per_environment(true);
  *program.add_reset() = instruction(v1::OPCODE_RANDOM_UNIFORM, 0, 0, 0, 0, 1, 3);
  *program.add_reset() = instruction(v1::OPCODE_STORE_PARAMETER, 0, 0, 0, 0, 1, 0);
  *program.add_vary() = instruction(v1::OPCODE_RANDOM_UNIFORM, 0, 0, 0, 0, 2, 0);
  *program.add_vary() = instruction(v1::OPCODE_STORE_PARAMETER, 0, 1, 0, 0, 1, 1);
  auto* force = program.add_sensors();
  force->set_kind(v1::SENSOR_KIND_CONTACT_FORCE);
  force->set_object(2);
  force->set_local(true);
  auto* touch = program.add_sensors();
  touch->set_kind(v1::SENSOR_KIND_TOUCH_GEOM);
  touch->set_object(1);
  *program.add_step() = instruction(v1::OPCODE_LOAD_SENSOR, 0, 0, 0, 0, 4);
  *program.add_observe() = instruction(v1::OPCODE_LOAD_PARAMETER, 0, 0, 0, 0, 2);
  return program;
}
constexpr ModelSizes kRandomisedSizes{3, 3, 2, 4, 1, 2, 3};

TEST(MakeProgram, ResolvesSensorsAndParameters) {
  std::string error;
  const auto program = make_program(randomised(), kRandomisedSizes, "", &error);
  ASSERT_TRUE(program) << error;
  EXPECT_EQ(program->draws, 4u);
  EXPECT_EQ(program->own_draws, 2u);
  EXPECT_TRUE(program->varies);
  EXPECT_EQ(program->own, (std::vector<bool>{false, true}));
  ASSERT_EQ(program->parameters.size(), 2u);
  EXPECT_EQ(program->parameters[1].field, core::Parameter::kGeomFriction);
  EXPECT_EQ(program->parameters[1].index, 5);
  ASSERT_EQ(program->sensors.size(), 2u);
  EXPECT_EQ(program->sensors[0].local, 1);
  EXPECT_EQ(program->sensors[1].adr, 3);
  EXPECT_EQ(program->sensor_values, 4u);
}

TEST(MakeProgram, RefusesSensorsAndParametersThatDoNotFit) {
  using Edit = std::function<void(v1::TaskProgram&)>;
  const struct {
    const char* says;
    Edit edit;
  } cases[] = {
      {"sensor 0: unknown kind 0",
       [](auto& p) { p.mutable_sensors(0)->set_kind(v1::SENSOR_KIND_UNSPECIFIED); }},
      {"sensor 0: unknown kind 99",
       [](auto& p) { p.mutable_sensors(0)->set_kind(static_cast<v1::SensorKind>(99)); }},
      {"sensor 0: body 4 of 4", [](auto& p) { p.mutable_sensors(0)->set_object(4); }},
      {"sensor 1: geom 4294967295 of 2",
       [](auto& p) { p.mutable_sensors(1)->set_object(4294967295u); }},
      {"sensor 1: a touch has no axes to be local in",
       [](auto& p) { p.mutable_sensors(1)->set_local(true); }},
      {"section step, instruction 1: OPCODE_LOAD_SENSOR: elements [1, 5) of the sensors' values, "
       "which has 4",
       [](auto& p) { p.mutable_step(1)->set_index(1); }},
      {"parameter 0: unknown field 0",
       [](auto& p) { p.mutable_parameters(0)->set_field(v1::PARAMETER_FIELD_UNSPECIFIED); }},
      {"parameter 1: element 6 of PARAMETER_FIELD_GEOM_FRICTION, which has 6",
       [](auto& p) { p.mutable_parameters(1)->set_index(6); }},
      {"parameter 2: element 1 of PARAMETER_FIELD_BODY_MASS is a parameter already",
       [](auto& p) { *p.add_parameters() = p.parameters(0); }},
      {"parameter 0: section reset never stores it", [](auto& p) { p.clear_reset(); }},
      {"parameter 1: section vary never stores it", [](auto& p) { p.clear_vary(); }},
      {"section reset, instruction 1: parameter 1 belongs to section vary",
       [](auto& p) { p.mutable_reset(1)->set_index(1); }},
      {"section reset, instruction 2: parameter 0 is stored twice",
       [](auto& p) { *p.add_reset() = p.reset(1); }},
      {"section reset, instruction 2: parameter 1 has no value yet",
       [](auto& p) { *p.add_reset() = instruction(v1::OPCODE_LOAD_PARAMETER, 0, 0, 0, 0, 1, 1); }},
      {"section vary, instruction 2: OPCODE_LOAD_QPOS is not allowed here",
       [](auto& p) { *p.add_vary() = instruction(v1::OPCODE_LOAD_QPOS, 0, 0, 0, 0, 1); }},
      {"section step, instruction 2: OPCODE_STORE_PARAMETER is not allowed here",
       [](auto& p) { *p.add_step() = instruction(v1::OPCODE_STORE_PARAMETER, 0, 0, 0, 0, 1); }},
      {"section step, instruction 2: OPCODE_LOAD_ACT: elements [1, 2) of act, which has 1",
       [](auto& p) { *p.add_step() = instruction(v1::OPCODE_LOAD_ACT, 0, 0, 0, 0, 1, 1); }},
      {"section vary, instruction 0: OPCODE_RANDOM_UNIFORM: register 0 is persistent and vary must "
       "not write it",
       [](auto& p) {
         auto* range = p.add_persistent();
         range->set_name("air");
         range->set_start(0);
         range->set_length(1);
         p.mutable_observe(1)->set_dst(6);
       }},
  };
  for (const auto& c : cases) {
    v1::TaskProgram program = randomised();
    c.edit(program);
    EXPECT_EQ(refusal(program, kRandomisedSizes), c.says);
  }
}

TEST(MakeProgram, RefusesAProgramOfAnotherModel) {
  v1::TaskProgram program = smallest();
  program.set_model_hash("aaaa");
  std::string error;
  EXPECT_FALSE(make_program(program, kSizes, "bbbb", &error));
  EXPECT_EQ(error, "task 'smallest' was compiled for model aaaa, got model bbbb");
}

// ---- evaluation
// -----------------------------------------------------------------------------------

// One block's arrays, aligned for any table.
template <class T>
struct Block {
  explicit Block(const core::Kernels& kernels, const Program& program)
      : lanes(kernels.lanes),
        registers(program.scratch_registers),
        memory((registers + 64) * lanes + 64) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    base = memory.data() + (64 - address % 64) % 64 / sizeof(T);
  }
  T& reg(std::uint32_t r, int lane) { return base[r * lanes + lane]; }
  T* array(int which) { return base + (registers + which * 8) * lanes; }  // 8 rows each

  int lanes;
  std::uint32_t registers;
  std::vector<T> memory;
  T* base;
};

using Reference = std::function<double(double, double, double)>;

struct OpCase {
  v1::Opcode op;
  int operands;
  double low, high;  // range of the operands
  double tolerance;  // relative, float32
  Reference expected;
};

const OpCase kOps[] = {
    {v1::OPCODE_MOVE, 1, -5, 5, 0, [](double a, double, double) { return a; }},
    {v1::OPCODE_ADD, 2, -5, 5, 1e-6, [](double a, double b, double) { return a + b; }},
    {v1::OPCODE_SUB, 2, -5, 5, 1e-6, [](double a, double b, double) { return a - b; }},
    {v1::OPCODE_MUL, 2, -5, 5, 1e-6, [](double a, double b, double) { return a * b; }},
    {v1::OPCODE_DIV, 2, 0.1, 5, 1e-6, [](double a, double b, double) { return a / b; }},
    {v1::OPCODE_MIN, 2, -5, 5, 0, [](double a, double b, double) { return std::min(a, b); }},
    {v1::OPCODE_MAX, 2, -5, 5, 0, [](double a, double b, double) { return std::max(a, b); }},
    {v1::OPCODE_NEG, 1, -5, 5, 0, [](double a, double, double) { return -a; }},
    {v1::OPCODE_ABS, 1, -5, 5, 0, [](double a, double, double) { return std::abs(a); }},
    {v1::OPCODE_SQRT, 1, 0, 5, 1e-6, [](double a, double, double) { return std::sqrt(a); }},
    {v1::OPCODE_EXP, 1, -5, 5, 1e-6, [](double a, double, double) { return std::exp(a); }},
    {v1::OPCODE_LOG, 1, 0.1, 5, 1e-6, [](double a, double, double) { return std::log(a); }},
    {v1::OPCODE_SIN, 1, -7, 7, 1e-6, [](double a, double, double) { return std::sin(a); }},
    {v1::OPCODE_COS, 1, -7, 7, 1e-6, [](double a, double, double) { return std::cos(a); }},
    {v1::OPCODE_TANH, 1, -4, 4, 1e-6, [](double a, double, double) { return std::tanh(a); }},
    {v1::OPCODE_ATAN2, 2, -4, 4, 1e-6, [](double a, double b, double) { return std::atan2(a, b); }},
    {v1::OPCODE_FLOOR, 1, -5, 5, 0, [](double a, double, double) { return std::floor(a); }},
    {v1::OPCODE_MULADD, 3, -5, 5, 1e-6, [](double a, double b, double c) { return a * b + c; }},
    {v1::OPCODE_WRAP_ANGLE, 1, -20, 20, 2e-6,
     [](double a, double, double) {
       const double turn = 2 * M_PI;
       double wrapped = std::fmod(a, turn);
       if (wrapped > M_PI) wrapped -= turn;
       if (wrapped <= -M_PI) wrapped += turn;
       return wrapped;
     }},
    {v1::OPCODE_LESS, 2, -2, 2, 0, [](double a, double b, double) { return double(a < b); }},
    {v1::OPCODE_LESS_EQUAL, 2, -2, 2, 0, [](double a, double b, double) { return double(a <= b); }},
    {v1::OPCODE_EQUAL, 2, -2, 2, 0, [](double a, double b, double) { return double(a == b); }},
    {v1::OPCODE_AND, 2, -1, 1, 0,
     [](double a, double b, double) { return double(a != 0 && b != 0); }},
    {v1::OPCODE_OR, 2, -1, 1, 0,
     [](double a, double b, double) { return double(a != 0 || b != 0); }},
    {v1::OPCODE_NOT, 1, -1, 1, 0, [](double a, double, double) { return double(a == 0); }},
    {v1::OPCODE_SELECT, 3, -1, 1, 0, [](double a, double b, double c) { return a != 0 ? b : c; }},
};

// Operands in registers 0-2, 3-5, 6-8 (length 3), results in 9-11. Every second operand of the
// logical kind is an exact small integer, so that equality and zero happen.
template <class T>
void check_operation(const core::Kernels& kernels, const OpCase& c, bool repeat_b,
                     std::mt19937_64& random) {
  v1::TaskProgram message = smallest();
  message.set_register_count(12);
  message.clear_persistent();
  auto* inputs = message.add_persistent();  // so that they count as defined
  inputs->set_start(0);
  inputs->set_length(9);
  auto in = instruction(c.op, 9, 0, 3, 6, 3);
  in.set_b_scalar(repeat_b);
  *message.add_step() = in;
  message.mutable_control(0)->set_dst(9);
  message.mutable_control(1)->set_a(9);
  message.mutable_step(0)->set_dst(9);
  message.mutable_rewards(0)->set_register_(9);
  message.mutable_observe(0)->set_dst(9);
  message.mutable_observations(0)->set_start(9);
  std::string error;
  const auto program = make_program(message, kSizes, "", &error);
  ASSERT_TRUE(program) << error;
  Block<T> block(kernels, *program);
  std::uniform_real_distribution<double> uniform(c.low, c.high);
  for (std::uint32_t r = 0; r < 9; ++r) {
    for (int lane = 0; lane < block.lanes; ++lane) {
      double value = uniform(random);
      if (c.op >= v1::OPCODE_LESS && c.op <= v1::OPCODE_SELECT) value = std::round(value);
      block.reg(r, lane) = static_cast<T>(value);
    }
  }
  Block<T> before = block;
  ProgramArgs args{};
  args.registers = block.base;
  args.qvel = block.array(1);
  const Section only{program->step.ops + 1, program->step.count - 1};
  kernels.run_program(&only, &args);
  const double tolerance = sizeof(T) == 8 ? std::min(c.tolerance, 1e-12) : c.tolerance;
  for (std::uint32_t i = 0; i < 3; ++i) {
    for (int lane = 0; lane < block.lanes; ++lane) {
      const double a = block.reg(i, lane), b = block.reg(repeat_b ? 3 : 3 + i, lane),
                   third = block.reg(6 + i, lane);
      const double expected = c.expected(a, b, third);
      EXPECT_NEAR(block.reg(9 + i, lane), expected, tolerance * std::max(1.0, std::abs(expected)))
          << kernels.isa << " " << sizeof(T) << " " << v1::Opcode_Name(c.op) << "(" << a << ", "
          << b << ", " << third << ")";
    }
  }
}

TEST(RunProgram, ComputesEveryElementwiseOperationOnEveryTable) {
  std::mt19937_64 random(test_seed());
  SCOPED_TRACE(::testing::Message() << "seed " << test_seed());
  for (const core::Kernels* kernels : all_kernels()) {
    for (const OpCase& c : kOps) {
      for (int round = 0; round < 20; ++round) {
        if (kernels->scalar_bytes == 8)
          check_operation<double>(*kernels, c, round % 2 == 1, random);
        else
          check_operation<float>(*kernels, c, round % 2 == 1, random);
      }
    }
  }
}

// Builds a program from `step` instructions over persistent registers [0, count) and runs it on one
// block of floats whose register r holds r + 1 in lane 0 and poison elsewhere behind `count`.
std::vector<float> run_step(const core::Kernels& kernels, std::uint32_t count,
                            const std::vector<v1::Instruction>& step,
                            const std::vector<float>& values) {
  v1::TaskProgram message = smallest();
  message.set_register_count(count + 8);
  auto* inputs = message.add_persistent();
  inputs->set_start(0);
  inputs->set_length(count);
  message.mutable_control(0)->set_dst(count);
  message.mutable_control(1)->set_a(count);
  message.mutable_observe(0)->set_dst(count);
  message.mutable_observations(0)->set_start(count);
  message.clear_step();
  for (const auto& in : step) *message.add_step() = in;
  message.mutable_rewards(0)->set_register_(0);
  std::string error;
  const auto program = make_program(message, kSizes, "", &error);
  EXPECT_TRUE(program) << error;
  if (!program) return {};
  Block<float> block(kernels, *program);
  for (std::uint32_t r = 0; r < program->scratch_registers; ++r) {
    for (int lane = 0; lane < block.lanes; ++lane)
      block.reg(r, lane) = r < values.size() && lane == 0 ? values[r] : NAN;
  }
  std::vector<std::int32_t> progress(block.lanes, 41);
  ProgramArgs args{};
  args.registers = block.base;
  args.progress = progress.data();
  kernels.run_program(&program->step, &args);
  std::vector<float> out;
  for (std::uint32_t r = 0; r < count; ++r) out.push_back(block.reg(r, 0));
  return out;
}

TEST(RunProgram, ReducesInIndexOrder) {
  for (const core::Kernels* kernels : all_kernels()) {
    if (kernels->scalar_bytes == 8) continue;
    // (1e8 + 1) + -1e8 is 0 in float32 in this order and 1 in any other.
    const std::vector<float> values = {1e8f, 1.0f, -1e8f, 2, 3, 4, 0, 0, 0, 0};
    const auto out = run_step(
        *kernels, 10,
        {instruction(v1::OPCODE_SUM, 6, 0, 0, 0, 3), instruction(v1::OPCODE_DOT, 7, 3, 3, 0, 3),
         instruction(v1::OPCODE_REDUCE_MAX, 8, 0, 0, 0, 6),
         instruction(v1::OPCODE_REDUCE_MIN, 9, 0, 0, 0, 6)},
        values);
    EXPECT_EQ(out[6], 0.0f);
    EXPECT_EQ(out[7], 29.0f);
    EXPECT_EQ(out[8], 1e8f);
    EXPECT_EQ(out[9], -1e8f);
  }
}

TEST(RunProgram, ReadsOperandsBeforeItWritesOverlappingResults) {
  for (const core::Kernels* kernels : all_kernels()) {
    if (kernels->scalar_bytes == 8) continue;
    const std::vector<float> values = {1, 2, 3, 4, 5, 6};
    // Shift up by one, shift down by one, and a repeated operand inside the result.
    EXPECT_EQ(run_step(*kernels, 6, {instruction(v1::OPCODE_MOVE, 1, 0, 0, 0, 5)}, values),
              (std::vector<float>{1, 1, 2, 3, 4, 5}));
    EXPECT_EQ(run_step(*kernels, 6, {instruction(v1::OPCODE_MOVE, 0, 1, 0, 0, 5)}, values),
              (std::vector<float>{2, 3, 4, 5, 6, 6}));
    auto scale = instruction(v1::OPCODE_MUL, 0, 0, 0, 0, 6);
    scale.set_b(1);
    scale.set_b_scalar(true);
    EXPECT_EQ(run_step(*kernels, 6, {scale}, values), (std::vector<float>{2, 4, 6, 8, 10, 12}));
  }
}

TEST(RunProgram, LoadsProgressAsAFloat) {
  for (const core::Kernels* kernels : all_kernels()) {
    if (kernels->scalar_bytes == 8) continue;
    const auto out =
        run_step(*kernels, 2, {instruction(v1::OPCODE_LOAD_PROGRESS, 1, 0, 0, 0, 1)}, {5, 6});
    EXPECT_EQ(out, (std::vector<float>{5, 41}));
  }
}

TEST(RunProgram, ComparesNanAsFalse) {
  for (const core::Kernels* kernels : all_kernels()) {
    if (kernels->scalar_bytes == 8) continue;
    const auto out = run_step(
        *kernels, 4,
        {instruction(v1::OPCODE_LESS, 1, 0, 1, 0, 1), instruction(v1::OPCODE_EQUAL, 2, 0, 0, 0, 1),
         instruction(v1::OPCODE_LESS_EQUAL, 3, 0, 0, 0, 1)},
        {NAN, 1, 7, 7});
    EXPECT_EQ(out[1], 0.0f);
    EXPECT_EQ(out[2], 0.0f);
    EXPECT_EQ(out[3], 0.0f);
  }
}

// Whatever bytes arrive, the checker answers and an accepted program runs inside its arrays (run
// this under AddressSanitizer to make the second half bite).
TEST(MakeProgram, SurvivesRandomlyChangedPrograms) {
  google::protobuf::SetLogHandler(nullptr);  // it reports every string that is not UTF-8
  std::mt19937_64 random(test_seed());
  SCOPED_TRACE(::testing::Message() << "seed " << test_seed());
  const std::string bytes = testing::read_file("hopper.task.binpb");
  int accepted = 0, refused = 0;
  for (int round = 0; round < 5000; ++round) {
    std::string changed = bytes;
    const int changes = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < changes; ++i)
      changed[random() % changed.size()] = static_cast<char>(random());
    v1::TaskProgram message;
    if (!message.ParseFromString(changed)) continue;
    std::string error;
    const auto program = make_program(message, {6, 6, 3, 5}, "", &error);
    ++(program ? accepted : refused);
    if (!program) {
      EXPECT_FALSE(error.empty());
      continue;
    }
    for (const auto* ops : {&program->control_ops, &program->step_ops, &program->observe_ops,
                            &program->reset_ops, &program->vary_ops}) {
      for (const Op& op : *ops) {
        ASSERT_LE(std::uint64_t{op.dst} + (op.op >= 100 ? 0 : 1), program->scratch_registers);
        ASSERT_LE(op.length, 65536u);
      }
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace sdpg::task
