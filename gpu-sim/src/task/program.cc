// Checks a TaskProgram completely and flattens it, so that the evaluator may run without a single
// check: registers and elements in range, operations in sections where their sources mean
// something, nothing read before it is written. The last rule also makes an environment's result a
// function of its state alone, which the copies of nominals into auxiliaries rely on.

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <set>

#include "sdpg/task/v1/task.pb.h"
#include "task/make_program.h"
#include "task/program_kernels.h"

namespace sdpg::task {
namespace {

constexpr std::uint32_t kMaxRegisters = 65536;
constexpr int kMaxInstructions = 65536;      // of one section
constexpr std::uint64_t kMaxWork = 1 << 22;  // registers computed by one section
constexpr std::uint32_t kMaxDraws = 65536;
constexpr int kMaxTerms = 4096;  // observations, rewards, terminations, persistent ranges
constexpr std::uint32_t kMaxValues = 65536;  // of all observations of one network

constexpr int kMaxSensors = 4096;
constexpr int kMaxParameters = 4096;

enum SectionBit {
  kControl = 1,
  kStep = 2,
  kObserve = 4,
  kReset = 8,
  kVary = 16,
  kAnywhere = 31,
  kOfState = 15,  // where there is a state to read
};

enum class Shape {
  kFill,    // dst[length] from the immediate
  kMap,     // dst[length] from operands of the same length
  kReduce,  // dst[1] from operands of that length
  kLoad,    // dst[length] from a source
  kStore,   // a[length] to a destination
};

// What an operation is allowed to be, and whose elements it indexes.
struct Rule {
  std::uint32_t op;
  Shape shape;
  int operands;
  int sections;
  const char* array;  // source or destination, for loads and stores
};

constexpr Rule kRules[] = {
    {kConstant, Shape::kFill, 0, kAnywhere, nullptr},
    {kMove, Shape::kMap, 1, kAnywhere, nullptr},
    {kAdd, Shape::kMap, 2, kAnywhere, nullptr},
    {kSub, Shape::kMap, 2, kAnywhere, nullptr},
    {kMul, Shape::kMap, 2, kAnywhere, nullptr},
    {kDiv, Shape::kMap, 2, kAnywhere, nullptr},
    {kMin, Shape::kMap, 2, kAnywhere, nullptr},
    {kMax, Shape::kMap, 2, kAnywhere, nullptr},
    {kNeg, Shape::kMap, 1, kAnywhere, nullptr},
    {kAbs, Shape::kMap, 1, kAnywhere, nullptr},
    {kSqrt, Shape::kMap, 1, kAnywhere, nullptr},
    {kExp, Shape::kMap, 1, kAnywhere, nullptr},
    {kLog, Shape::kMap, 1, kAnywhere, nullptr},
    {kSin, Shape::kMap, 1, kAnywhere, nullptr},
    {kCos, Shape::kMap, 1, kAnywhere, nullptr},
    {kTanh, Shape::kMap, 1, kAnywhere, nullptr},
    {kAtan2, Shape::kMap, 2, kAnywhere, nullptr},
    {kFloor, Shape::kMap, 1, kAnywhere, nullptr},
    {kMulAdd, Shape::kMap, 3, kAnywhere, nullptr},
    {kWrapAngle, Shape::kMap, 1, kAnywhere, nullptr},
    {kLess, Shape::kMap, 2, kAnywhere, nullptr},
    {kLessEqual, Shape::kMap, 2, kAnywhere, nullptr},
    {kEqual, Shape::kMap, 2, kAnywhere, nullptr},
    {kAnd, Shape::kMap, 2, kAnywhere, nullptr},
    {kOr, Shape::kMap, 2, kAnywhere, nullptr},
    {kNot, Shape::kMap, 1, kAnywhere, nullptr},
    {kSelect, Shape::kMap, 3, kAnywhere, nullptr},
    {kSum, Shape::kReduce, 1, kAnywhere, nullptr},
    {kReduceMax, Shape::kReduce, 1, kAnywhere, nullptr},
    {kReduceMin, Shape::kReduce, 1, kAnywhere, nullptr},
    {kDot, Shape::kReduce, 2, kAnywhere, nullptr},
    {kLoadQpos, Shape::kLoad, 0, kOfState, "qpos"},
    {kLoadQvel, Shape::kLoad, 0, kOfState, "qvel"},
    {kLoadCtrl, Shape::kLoad, 0, kOfState, "ctrl"},
    // After a reset or a copy there is no action of this step: keep it in a persistent range
    // instead.
    {kLoadAction, Shape::kLoad, 0, kControl | kStep, "action"},
    // While `reset` builds the configuration its frames do not exist yet.
    {kLoadXpos, Shape::kLoad, 0, kControl | kStep | kObserve, "xpos"},
    {kLoadXquat, Shape::kLoad, 0, kControl | kStep | kObserve, "xquat"},
    {kLoadXipos, Shape::kLoad, 0, kControl | kStep | kObserve, "xipos"},
    {kLoadProgress, Shape::kLoad, 0, kOfState, nullptr},
    {kRandomUniform, Shape::kLoad, 0, kReset | kVary, "random draws"},
    // A new episode has measured nothing yet.
    {kLoadSensor, Shape::kLoad, 0, kControl | kStep | kObserve, "the sensors' values"},
    {kLoadParameter, Shape::kLoad, 0, kAnywhere, "the parameters"},
    {kLoadAct, Shape::kLoad, 0, kOfState, "act"},
    {kStoreQpos, Shape::kStore, 1, kReset, "qpos"},
    {kStoreQvel, Shape::kStore, 1, kReset, "qvel"},
    {kStoreCtrl, Shape::kStore, 1, kControl, "ctrl"},
    {kStoreParameter, Shape::kStore, 1, kReset | kVary, "the parameters"},
};

const Rule* rule_of(std::uint32_t op) {
  for (const Rule& rule : kRules) {
    if (rule.op == op) return &rule;
  }
  return nullptr;
}

static_assert(kConstant == v1::OPCODE_CONSTANT && kMove == v1::OPCODE_MOVE &&
              kAdd == v1::OPCODE_ADD && kSub == v1::OPCODE_SUB && kMul == v1::OPCODE_MUL &&
              kDiv == v1::OPCODE_DIV && kMin == v1::OPCODE_MIN && kMax == v1::OPCODE_MAX &&
              kNeg == v1::OPCODE_NEG && kAbs == v1::OPCODE_ABS && kSqrt == v1::OPCODE_SQRT &&
              kExp == v1::OPCODE_EXP && kLog == v1::OPCODE_LOG && kSin == v1::OPCODE_SIN &&
              kCos == v1::OPCODE_COS && kTanh == v1::OPCODE_TANH && kAtan2 == v1::OPCODE_ATAN2 &&
              kFloor == v1::OPCODE_FLOOR && kMulAdd == v1::OPCODE_MULADD &&
              kWrapAngle == v1::OPCODE_WRAP_ANGLE && kLess == v1::OPCODE_LESS &&
              kLessEqual == v1::OPCODE_LESS_EQUAL && kEqual == v1::OPCODE_EQUAL &&
              kAnd == v1::OPCODE_AND && kOr == v1::OPCODE_OR && kNot == v1::OPCODE_NOT &&
              kSelect == v1::OPCODE_SELECT && kSum == v1::OPCODE_SUM &&
              kReduceMax == v1::OPCODE_REDUCE_MAX && kReduceMin == v1::OPCODE_REDUCE_MIN &&
              kDot == v1::OPCODE_DOT && kLoadQpos == v1::OPCODE_LOAD_QPOS &&
              kLoadQvel == v1::OPCODE_LOAD_QVEL && kLoadCtrl == v1::OPCODE_LOAD_CTRL &&
              kLoadAction == v1::OPCODE_LOAD_ACTION && kLoadXpos == v1::OPCODE_LOAD_XPOS &&
              kLoadXquat == v1::OPCODE_LOAD_XQUAT && kLoadXipos == v1::OPCODE_LOAD_XIPOS &&
              kLoadProgress == v1::OPCODE_LOAD_PROGRESS &&
              kRandomUniform == v1::OPCODE_RANDOM_UNIFORM && kStoreQpos == v1::OPCODE_STORE_QPOS &&
              kStoreQvel == v1::OPCODE_STORE_QVEL && kStoreCtrl == v1::OPCODE_STORE_CTRL &&
              kLoadSensor == v1::OPCODE_LOAD_SENSOR &&
              kLoadParameter == v1::OPCODE_LOAD_PARAMETER && kLoadAct == v1::OPCODE_LOAD_ACT &&
              kStoreParameter == v1::OPCODE_STORE_PARAMETER);

// The core's numbers are the contract's.
static_assert(int{v1::SENSOR_KIND_LINEAR_VELOCITY} == int(core::SensorKind::kLinearVelocity) &&
              int{v1::SENSOR_KIND_ANGULAR_VELOCITY} == int(core::SensorKind::kAngularVelocity) &&
              int{v1::SENSOR_KIND_LINEAR_ACCELERATION} ==
                  int(core::SensorKind::kLinearAcceleration) &&
              int{v1::SENSOR_KIND_ANGULAR_ACCELERATION} ==
                  int(core::SensorKind::kAngularAcceleration) &&
              int{v1::SENSOR_KIND_CONTACT_FORCE} == int(core::SensorKind::kContactForce) &&
              int{v1::SENSOR_KIND_TOUCH_BODY} == int(core::SensorKind::kTouchBody) &&
              int{v1::SENSOR_KIND_TOUCH_GEOM} == int(core::SensorKind::kTouchGeom));
static_assert(int{v1::PARAMETER_FIELD_BODY_MASS} == int(core::Parameter::kBodyMass) &&
              int{v1::PARAMETER_FIELD_BODY_INERTIA} == int(core::Parameter::kBodyInertia) &&
              int{v1::PARAMETER_FIELD_BODY_IPOS} == int(core::Parameter::kBodyIpos) &&
              int{v1::PARAMETER_FIELD_GEOM_FRICTION} == int(core::Parameter::kGeomFriction) &&
              int{v1::PARAMETER_FIELD_DOF_ARMATURE} == int(core::Parameter::kDofArmature) &&
              int{v1::PARAMETER_FIELD_DOF_DAMPING} == int(core::Parameter::kDofDamping) &&
              int{v1::PARAMETER_FIELD_JNT_STIFFNESS} == int(core::Parameter::kJntStiffness) &&
              int{v1::PARAMETER_FIELD_ACTUATOR_GAIN} == int(core::Parameter::kActuatorGain) &&
              int{v1::PARAMETER_FIELD_ACTUATOR_BIAS} == int(core::Parameter::kActuatorBias) &&
              int{v1::PARAMETER_FIELD_QPOS0} == int(core::Parameter::kQpos0));

// A message in flight: where it is being checked, and the first thing found wrong.
class Checker {
 public:
  Checker(const v1::TaskProgram& message, const ModelSizes& sizes, Program* program)
      : message_(message), sizes_(sizes), program_(*program) {}

  bool check(const std::string& model_hash);
  const std::string& error() const { return error_; }

 private:
  template <class... Arguments>
  bool fail(const char* format, Arguments... arguments) {
    char line[512];
    std::snprintf(line, sizeof line, format, arguments...);
    error_ = line;
    return false;
  }
  template <class... Arguments>
  bool fail_at(int instruction, const char* format, Arguments... arguments) {
    char line[400];
    std::snprintf(line, sizeof line, format, arguments...);
    return fail("section %s, instruction %d: %s", section_name_, instruction, line);
  }

  bool check_sizes(const std::string& model_hash);
  bool check_persistent();
  bool check_sensors();
  bool check_parameters();
  bool check_section(const char* name, SectionBit bit,
                     const google::protobuf::RepeatedPtrField<v1::Instruction>& instructions,
                     std::vector<Op>* out);
  bool check_outputs();
  bool check_instruction(int n, const v1::Instruction& in, SectionBit bit, std::vector<Op>* out);
  bool check_elements(int n, const v1::Instruction& in, const Rule& rule, SectionBit bit);
  bool check_parameter_use(int n, const v1::Instruction& in, SectionBit bit);
  bool check_read(int n, const char* operand, std::uint32_t start, std::uint32_t length);
  void emit(const v1::Instruction& in, const Rule& rule, std::vector<Op>* out);

  const v1::TaskProgram& message_;
  const ModelSizes& sizes_;
  Program& program_;
  std::string error_;
  const char* section_name_ = "";
  std::vector<bool> defined_;     // [register_count] holds a value at this point of the section
  std::vector<bool> persistent_;  // [register_count] belongs to a persistent range
  std::vector<bool> ctrl_;        // [nu] stored by `control`
  std::vector<bool> stored_;      // [parameters] stored so far
  std::uint64_t work_ = 0;        // registers computed so far by the section
  std::uint32_t temporary_ = 0;   // registers appended for results that overlap their operands
};

bool Checker::check(const std::string& model_hash) {
  if (!check_sizes(model_hash) || !check_persistent() || !check_sensors() || !check_parameters())
    return false;
  ctrl_.assign(sizes_.nu, false);
  if (!check_section("control", kControl, message_.control(), &program_.control_ops)) return false;
  for (int i = 0; i < sizes_.nu; ++i) {
    if (!ctrl_[i])
      return fail("section control: ctrl[%d] is never stored; end it with STORE_CTRL", i);
  }
  if (!check_section("step", kStep, message_.step(), &program_.step_ops)) return false;
  for (const auto& term : message_.rewards()) {
    if (term.register_() >= message_.register_count() || !defined_[term.register_()])
      return fail("reward '%.64s': section step leaves no value in register %" PRIu32,
                  term.name().c_str(), term.register_());
    program_.rewards.push_back(term.register_());
  }
  for (const auto& term : message_.terminations()) {
    if (term.register_() >= message_.register_count() || !defined_[term.register_()])
      return fail("termination '%.64s': section step leaves no value in register %" PRIu32,
                  term.name().c_str(), term.register_());
    program_.terminations.push_back(term.register_());
  }
  if (!check_section("observe", kObserve, message_.observe(), &program_.observe_ops)) return false;
  if (!check_outputs()) return false;
  if (!check_section("reset", kReset, message_.reset(), &program_.reset_ops)) return false;
  if (!check_section("vary", kVary, message_.vary(), &program_.vary_ops)) return false;
  for (std::size_t i = 0; i < stored_.size(); ++i) {
    if (!stored_[i])
      return fail("parameter %zu: section %s never stores it", i,
                  program_.own[i] ? "vary" : "reset");
  }

  program_.name = message_.name();
  program_.content_hash = message_.content_hash();
  program_.scratch_registers = message_.register_count() + temporary_;
  program_.substeps = message_.substeps();
  program_.episode_length = message_.episode_length();
  program_.action_size = message_.action_size();
  const auto section = [](const std::vector<Op>& ops) {
    return Section{ops.data(), static_cast<std::uint32_t>(ops.size())};
  };
  program_.control = section(program_.control_ops);
  program_.step = section(program_.step_ops);
  program_.observe = section(program_.observe_ops);
  program_.reset = section(program_.reset_ops);
  program_.vary = section(program_.vary_ops);
  return true;
}

bool Checker::check_sizes(const std::string& model_hash) {
  if (!model_hash.empty() && !message_.model_hash().empty() && message_.model_hash() != model_hash)
    return fail("task '%.64s' was compiled for model %.64s, got model %.64s",
                message_.name().c_str(), message_.model_hash().c_str(), model_hash.c_str());
  if (message_.register_count() < 1 || message_.register_count() > kMaxRegisters)
    return fail("register_count: expected 1 to %" PRIu32 ", got %" PRIu32, kMaxRegisters,
                message_.register_count());
  if (message_.substeps() < 1 || message_.substeps() > 10000)
    return fail("substeps: expected 1 to 10000, got %" PRIu32, message_.substeps());
  if (message_.episode_length() < 1 || message_.episode_length() > 1000000000)
    return fail("episode_length: expected 1 to 1000000000, got %" PRIu32,
                message_.episode_length());
  if (message_.action_size() < 1 || message_.action_size() > 4096)
    return fail("action_size: expected 1 to 4096, got %" PRIu32, message_.action_size());
  const struct {
    const char* name;
    int count;
    int limit;
  } counts[] = {{"control", message_.control_size(), kMaxInstructions},
                {"step", message_.step_size(), kMaxInstructions},
                {"observe", message_.observe_size(), kMaxInstructions},
                {"reset", message_.reset_size(), kMaxInstructions},
                {"vary", message_.vary_size(), kMaxInstructions},
                {"sensors", message_.sensors_size(), kMaxSensors},
                {"parameters", message_.parameters_size(), kMaxParameters},
                {"persistent", message_.persistent_size(), kMaxTerms},
                {"observations", message_.observations_size(), kMaxTerms},
                {"rewards", message_.rewards_size(), kMaxTerms},
                {"terminations", message_.terminations_size(), kMaxTerms}};
  for (const auto& c : counts) {
    if (c.count > c.limit)
      return fail("%s: expected at most %d entries, got %d", c.name, c.limit, c.count);
  }
  if (message_.rewards_size() == 0) return fail("rewards: expected at least 1 term, got 0");
  return true;
}

bool Checker::check_persistent() {
  persistent_.assign(message_.register_count(), false);
  program_.persistent_rows = 0;
  for (const auto& range : message_.persistent()) {
    const char* name = range.name().c_str();
    const std::uint64_t end = std::uint64_t{range.start()} + range.length();
    if (range.length() < 1 || end > message_.register_count())
      return fail("persistent '%.64s': registers [%" PRIu32 ", %" PRIu64 ") of %" PRIu32, name,
                  range.start(), end, message_.register_count());
    if (!std::isfinite(range.initial()))
      return fail("persistent '%.64s': initial value is not finite", name);
    for (std::uint64_t r = range.start(); r < end; ++r) {
      if (persistent_[r])
        return fail("persistent '%.64s': register %" PRIu64 " already belongs to another range",
                    name, r);
      persistent_[r] = true;
    }
    program_.persistent.push_back(
        {range.start(), range.length(), program_.persistent_rows, range.initial()});
    program_.persistent_rows += range.length();
  }
  return true;
}

bool Checker::check_sensors() {
  program_.sensor_values = 0;
  for (int i = 0; i < message_.sensors_size(); ++i) {
    const v1::Sensor& in = message_.sensors(i);
    const auto kind = static_cast<core::SensorKind>(in.kind());
    if (in.kind() == v1::SENSOR_KIND_UNSPECIFIED || !v1::SensorKind_IsValid(in.kind()))
      return fail("sensor %d: unknown kind %d", i, static_cast<int>(in.kind()));
    const bool of_geom = kind == core::SensorKind::kTouchGeom;
    const int objects = of_geom ? sizes_.ngeom : sizes_.nbody;
    if (in.object() >= static_cast<std::uint32_t>(objects))
      return fail("sensor %d: %s %" PRIu32 " of %d", i, of_geom ? "geom" : "body", in.object(),
                  objects);
    const int values = core::sensor_values(kind);
    if (in.local() && values == 1) return fail("sensor %d: a touch has no axes to be local in", i);
    program_.sensors.push_back({kind, static_cast<int>(in.object()), in.local() ? 1 : 0,
                                static_cast<int>(program_.sensor_values)});
    program_.sensor_values += static_cast<std::uint32_t>(values);
  }
  return true;
}

bool Checker::check_parameters() {
  const struct {
    v1::ParameterField field;
    int size;
  } arrays[] = {{v1::PARAMETER_FIELD_BODY_MASS, sizes_.nbody},
                {v1::PARAMETER_FIELD_BODY_INERTIA, sizes_.nbody * 3},
                {v1::PARAMETER_FIELD_BODY_IPOS, sizes_.nbody * 3},
                {v1::PARAMETER_FIELD_GEOM_FRICTION, sizes_.ngeom * 3},
                {v1::PARAMETER_FIELD_DOF_ARMATURE, sizes_.nv},
                {v1::PARAMETER_FIELD_DOF_DAMPING, sizes_.nv},
                {v1::PARAMETER_FIELD_JNT_STIFFNESS, sizes_.njnt},
                {v1::PARAMETER_FIELD_ACTUATOR_GAIN, sizes_.nu},
                {v1::PARAMETER_FIELD_ACTUATOR_BIAS, sizes_.nu * 3},
                {v1::PARAMETER_FIELD_QPOS0, sizes_.nq}};
  program_.varies = false;
  std::set<std::pair<int, std::uint32_t>> seen;
  for (int i = 0; i < message_.parameters_size(); ++i) {
    const v1::Parameter& in = message_.parameters(i);
    int size = -1;
    for (const auto& array : arrays) {
      if (array.field == in.field()) size = array.size;
    }
    if (size < 0) return fail("parameter %d: unknown field %d", i, static_cast<int>(in.field()));
    const std::string field = v1::ParameterField_Name(in.field());
    if (in.index() >= static_cast<std::uint32_t>(size))
      return fail("parameter %d: element %" PRIu32 " of %s, which has %d", i, in.index(),
                  field.c_str(), size);
    if (!seen.insert({static_cast<int>(in.field()), in.index()}).second)
      return fail("parameter %d: element %" PRIu32 " of %s is a parameter already", i, in.index(),
                  field.c_str());
    program_.parameters.push_back(
        {static_cast<core::Parameter>(in.field()), static_cast<int>(in.index())});
    program_.own.push_back(in.per_environment());
    program_.varies |= in.per_environment();
  }
  stored_.assign(program_.parameters.size(), false);
  return true;
}

bool Checker::check_section(const char* name, SectionBit bit,
                            const google::protobuf::RepeatedPtrField<v1::Instruction>& instructions,
                            std::vector<Op>* out) {
  section_name_ = name;
  defined_ = persistent_;
  if (bit == kVary) defined_.assign(defined_.size(), false);  // it knows no state
  work_ = 0;
  out->reserve(instructions.size());
  for (int n = 0; n < instructions.size(); ++n) {
    if (!check_instruction(n, instructions[n], bit, out)) return false;
  }
  return true;
}

bool Checker::check_instruction(int n, const v1::Instruction& in, SectionBit bit,
                                std::vector<Op>* out) {
  const std::string op_name = v1::Opcode_Name(in.op());
  const Rule* rule = rule_of(static_cast<std::uint32_t>(in.op()));
  if (rule == nullptr) return fail_at(n, "unknown operation %d", static_cast<int>(in.op()));
  if ((rule->sections & bit) == 0) return fail_at(n, "%s is not allowed here", op_name.c_str());
  const std::uint32_t registers = message_.register_count();
  if (in.length() < 1 || in.length() > kMaxRegisters)
    return fail_at(n, "%s: length: expected 1 to %" PRIu32 ", got %" PRIu32, op_name.c_str(),
                   kMaxRegisters, in.length());
  work_ += in.length();
  if (work_ > kMaxWork)
    return fail_at(n, "the section computes more than %" PRIu64 " registers", kMaxWork);

  const struct {
    const char* name;
    std::uint32_t start;
    bool scalar;
  } operands[] = {
      {"a", in.a(), in.a_scalar()}, {"b", in.b(), in.b_scalar()}, {"c", in.c(), in.c_scalar()}};
  for (int i = 0; i < rule->operands; ++i) {
    if (!check_read(n, operands[i].name, operands[i].start, operands[i].scalar ? 1 : in.length()))
      return false;
  }
  if (rule->shape == Shape::kFill && !std::isfinite(in.immediate()))
    return fail_at(n, "%s: immediate is not finite", op_name.c_str());
  if ((rule->shape == Shape::kLoad || rule->shape == Shape::kStore) &&
      !check_elements(n, in, *rule, bit))
    return false;

  if (rule->shape != Shape::kStore) {
    const std::uint32_t results = rule->shape == Shape::kReduce ? 1 : in.length();
    const std::uint64_t end = std::uint64_t{in.dst()} + results;
    if (end > registers)
      return fail_at(n, "%s: result registers [%" PRIu32 ", %" PRIu64 ") of %" PRIu32,
                     op_name.c_str(), in.dst(), end, registers);
    for (std::uint64_t r = in.dst(); r < end; ++r) {
      // `observe` runs a number of times that depends on resets, so it must not change the state;
      // `vary` has no state before it.
      if ((bit == kObserve || bit == kVary) && persistent_[r])
        return fail_at(n, "%s: register %" PRIu64 " is persistent and %s must not write it",
                       op_name.c_str(), r, section_name_);
      defined_[r] = true;
    }
  }
  emit(in, *rule, out);
  return true;
}

bool Checker::check_read(int n, const char* operand, std::uint32_t start, std::uint32_t length) {
  const std::uint64_t end = std::uint64_t{start} + length;
  if (end > message_.register_count())
    return fail_at(n, "operand %s: registers [%" PRIu32 ", %" PRIu64 ") of %" PRIu32, operand,
                   start, end, message_.register_count());
  for (std::uint64_t r = start; r < end; ++r) {
    if (!defined_[r])
      return fail_at(n, "operand %s: register %" PRIu64 " has no value yet", operand, r);
  }
  return true;
}

// Elements [index, index + length) of the array a load reads or a store writes.
bool Checker::check_elements(int n, const v1::Instruction& in, const Rule& rule, SectionBit bit) {
  std::uint64_t size = 0;
  switch (rule.op) {
    case kLoadProgress:
      return true;
    case kLoadQpos:
    case kStoreQpos:
      size = sizes_.nq;
      break;
    case kLoadQvel:
    case kStoreQvel:
      size = sizes_.nv;
      break;
    case kLoadCtrl:
    case kStoreCtrl:
      size = sizes_.nu;
      break;
    case kLoadAction:
      size = message_.action_size();
      break;
    case kLoadXpos:
    case kLoadXipos:
      size = std::uint64_t(sizes_.nbody) * 3;
      break;
    case kLoadXquat:
      size = std::uint64_t(sizes_.nbody) * 4;
      break;
    case kRandomUniform:
      size = kMaxDraws;
      break;
    case kLoadSensor:
      size = program_.sensor_values;
      break;
    case kLoadParameter:
    case kStoreParameter:
      size = program_.parameters.size();
      break;
    case kLoadAct:
      size = sizes_.na;
      break;
  }
  const std::uint64_t end = std::uint64_t{in.index()} + in.length();
  if (end > size)
    return fail_at(n, "%s: elements [%" PRIu32 ", %" PRIu64 ") of %s, which has %" PRIu64,
                   v1::Opcode_Name(in.op()).c_str(), in.index(), end, rule.array, size);
  if (rule.op == kRandomUniform) {
    std::uint32_t& draws = bit == kVary ? program_.own_draws : program_.draws;
    draws = std::max(draws, static_cast<std::uint32_t>(end));
  }
  if (rule.op == kStoreCtrl) std::fill(ctrl_.begin() + in.index(), ctrl_.begin() + end, true);
  if (rule.op == kLoadXpos || rule.op == kLoadXquat || rule.op == kLoadXipos)
    program_.reads_frames = true;
  if (rule.op == kLoadParameter || rule.op == kStoreParameter)
    return check_parameter_use(n, in, bit);
  return true;
}

// While an episode starts, a parameter has a value from the moment it is stored.
bool Checker::check_parameter_use(int n, const v1::Instruction& in, SectionBit bit) {
  const bool starting = bit == kReset || bit == kVary;
  const bool stores = in.op() == v1::OPCODE_STORE_PARAMETER;
  for (std::uint32_t i = in.index(); i < in.index() + in.length(); ++i) {
    if (stores && program_.own[i] != (bit == kVary))
      return fail_at(n, "parameter %" PRIu32 " belongs to section %s", i,
                     program_.own[i] ? "vary" : "reset");
    if (stores && stored_[i]) return fail_at(n, "parameter %" PRIu32 " is stored twice", i);
    if (!stores && starting && !stored_[i])
      return fail_at(n, "parameter %" PRIu32 " has no value yet", i);
    if (stores) stored_[i] = true;
  }
  return true;
}

void Checker::emit(const v1::Instruction& in, const Rule& rule, std::vector<Op>* out) {
  Op op{};
  op.op = rule.op;
  op.dst = in.dst();
  op.a = in.a();
  op.b = in.b();
  op.c = in.c();
  op.length = in.length();
  op.index = in.index();
  op.a_step = in.a_scalar() ? 0 : 1;
  op.b_step = in.b_scalar() ? 0 : 1;
  op.c_step = in.c_scalar() ? 0 : 1;
  op.immediate = in.immediate();

  // The contract computes all results from the operands as they were. The evaluator's loop goes
  // register by register, so a result that would overwrite an operand still needed goes through
  // temporary registers.
  bool overlaps = false;
  if (rule.shape == Shape::kMap && op.length > 1) {
    const std::uint32_t starts[] = {op.a, op.b, op.c}, steps[] = {op.a_step, op.b_step, op.c_step};
    for (int i = 0; i < rule.operands; ++i) {
      const std::uint32_t count = steps[i] == 0 ? 1 : op.length;
      const bool disjoint = op.dst + op.length <= starts[i] || starts[i] + count <= op.dst;
      const bool in_place = steps[i] == 1 && starts[i] == op.dst;
      overlaps |= !disjoint && !in_place;
    }
  }
  if (!overlaps) {
    out->push_back(op);
    return;
  }
  Op move{};
  move.op = kMove;
  move.dst = op.dst;
  move.a = message_.register_count();
  move.a_step = 1;
  move.length = op.length;
  temporary_ = std::max(temporary_, op.length);
  op.dst = move.a;
  out->push_back(op);
  out->push_back(move);
}

bool Checker::check_outputs() {
  for (const auto& observation : message_.observations()) {
    const char* name = observation.name().c_str();
    const std::uint64_t end = std::uint64_t{observation.start()} + observation.length();
    if (observation.length() < 1 || end > message_.register_count())
      return fail("observation '%.64s': registers [%" PRIu32 ", %" PRIu64 ") of %" PRIu32, name,
                  observation.start(), end, message_.register_count());
    for (std::uint64_t r = observation.start(); r < end; ++r) {
      if (!defined_[r])
        return fail("observation '%.64s': section observe leaves no value in register %" PRIu64,
                    name, r);
      if (observation.privileged()) program_.privileged.push_back(static_cast<std::uint32_t>(r));
      if (observation.actor()) program_.actor.push_back(static_cast<std::uint32_t>(r));
    }
    if (program_.privileged.size() > kMaxValues || program_.actor.size() > kMaxValues)
      return fail("observation '%.64s': more than %" PRIu32 " values in all", name, kMaxValues);
  }
  if (program_.privileged.empty())
    return fail("observations: expected at least one privileged, got none");
  return true;
}

}  // namespace

std::shared_ptr<const Program> make_program(const v1::TaskProgram& message, const ModelSizes& sizes,
                                            const std::string& model_hash, std::string* error) {
  auto program = std::make_shared<Program>();
  Checker checker(message, sizes, program.get());
  if (!checker.check(model_hash)) {
    *error = checker.error();
    return nullptr;
  }
  return program;
}

}  // namespace sdpg::task
