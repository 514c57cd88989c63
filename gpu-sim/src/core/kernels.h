// What the core offers to the rest of gpu-sim: one table of functions per (instruction set,
// precision). The same templated source is compiled once per table; `select_kernels` picks
// one when the process starts. Nothing in here allocates while stepping.
//
// A *block* holds `lanes` environments. Every per-environment quantity is stored as
// [index][lane], so that a SIMD vector covers the same quantity of all lanes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace sdpg::model::v1 {
class Model;
}
namespace sdpg::task::v1 {
class TaskProgram;
}

namespace sdpg::core {

// Checked, flattened model constants shared by all tables; opaque outside core/.
struct Model;

// Model constants of which an environment may have its own value (numbers of
// sdpg.task.v1.ParameterField, where each is explained). MuJoCo's names and units; values are
// absolute. What MuJoCo derives from them when it compiles (invweight0, meaninertia) stays the
// model's, as it does when an mjModel is edited.
enum class Parameter : std::int32_t {
  kBodyMass = 1,
  kBodyInertia = 2,
  kBodyIpos = 3,
  kGeomFriction = 4,
  kDofArmature = 5,
  kDofDamping = 6,
  kJntStiffness = 7,
  kActuatorGain = 8,  // actuator_gainprm[0]
  kActuatorBias = 9,  // actuator_biasprm[0..2], three an actuator
  kQpos0 = 10,        // of slides and hinges
};
inline constexpr int kParameterFields = 11;  // 0 is none
struct ParameterSlot {
  Parameter field;
  int index;  // element of MuJoCo's array of that name
};

// Checks the message and builds the constants; slot i of `slots` reads BlockView::parameters[i]. On
// failure returns null and one line in `error` that names the element ("unsupported: tendon 'x'",
// "geom 'foot': mass ...").
std::shared_ptr<const Model> make_model(const sdpg::model::v1::Model& message,
                                        const std::vector<ParameterSlot>& slots,
                                        std::string* error);
std::shared_ptr<const Model> make_model(const sdpg::model::v1::Model& message, std::string* error);

int nq(const Model&);
int nv(const Model&);
int nu(const Model&);
int na(const Model&);
int nparameters(const Model&);
// The model's own value of the number a slot replaces.
double parameter_default(const Model&, ParameterSlot);
int nbody(const Model&);
// Upper bound of simultaneous contacts and constraint rows, known from the geom pairs.
int max_contacts(const Model&);
int max_rows(const Model&);

// Bits of BlockView::status, equal to sdpg.sim.v1.FaultBit.
enum StatusBit : std::uint32_t { kNonFinite = 1, kOverflow = 2, kNotConverged = 4 };

// Numbers of one contact in the output of Kernels::contacts: 1 + 3 + 9 + 2 + 6.
inline constexpr int kContactNumbers = 21;

// One measurement (numbers of sdpg.task.v1.SensorKind, where each is explained).
enum class SensorKind : std::int32_t {
  kLinearVelocity = 1,
  kAngularVelocity = 2,
  kLinearAcceleration = 3,
  kAngularAcceleration = 4,
  kContactForce = 5,
  kTouchBody = 6,
  kTouchGeom = 7,
};
struct Sensor {
  SensorKind kind;
  int object;  // body, or geom for kTouchGeom
  int local;   // 1: in the body's axes
  int adr;     // first value in sensordata
};
// Values of a sensor.
inline constexpr int sensor_values(SensorKind kind) {
  return kind == SensorKind::kTouchBody || kind == SensorKind::kTouchGeom ? 1 : 3;
}

inline constexpr bool is_velocity(const Sensor& sensor) {
  return sensor.kind == SensorKind::kLinearVelocity || sensor.kind == SensorKind::kAngularVelocity;
}

// Pointers into one block's state; T is float or double according to the table. All of it
// is plain memory of the caller, 64-byte aligned, `[count][lane]`.
struct BlockView {
  void* qpos;             // T [nq]
  void* qvel;             // T [nv]
  void* ctrl;             // T [nu]
  void* qacc_warmstart;   // T [nv]
  void* xpos;             // T [nbody*3]  written by kinematics
  void* xquat;            // T [nbody*4]
  void* xipos;            // T [nbody*3]
  std::uint32_t* status;  // [1] bits set by this call are OR-ed in; the caller clears

  void* act = nullptr;               // T [na] activations; null where the model has none
  const void* parameters = nullptr;  // T [parameter slots]; null where the model has none
  // What `step` and `kinematics` are to measure (sensors.h): `step` the accelerations and forces of
  // its last physics step, `kinematics` the velocities of the present state.
  const Sensor* sensor = nullptr;  // [nsensor]
  int nsensor = 0;
  void* sensordata = nullptr;  // T [sensor values]
};

enum class Precision { kFloat32, kFloat64 };

struct Kernels {
  const char* isa;   // "avx512", "avx2", "generic", "emulated"
  int lanes;         // environments of a block
  int scalar_bytes;  // sizeof(T)

  // Bytes of scratch one worker thread needs; 64-byte aligned by the caller.
  std::size_t (*scratch_bytes)(const Model&);

  // `substeps` physics steps with ctrl held. A lane whose state, acceleration or velocity
  // becomes non-finite or exceeds 1e10 sets kNonFinite and keeps the last finite state;
  // all other lanes are unchanged by it to the bit.
  void (*step)(const Model&, const BlockView&, void* scratch, int substeps);

  // Frames of the present qpos.
  void (*kinematics)(const Model&, const BlockView&, void* scratch);

  // One evaluation without integration, for parity tests: accelerations and constraint
  // forces at (qpos, qvel, ctrl). Outputs are T [nv] each, [index][lane].
  void (*forward)(const Model&, const BlockView&, void* scratch, void* qacc, void* qacc_smooth,
                  void* qfrc_constraint);

  // Contacts of the last `forward` or `step` held in scratch, for parity tests: per lane count,
  // then per contact dist, pos[3], frame[9], geom1, geom2, force[6] in the contact frame (normal
  // first). `out` is double [max_contacts][kContactNumbers]; returns the number of contacts of
  // `lane`.
  int (*contacts)(const Model&, const void* scratch, int lane, double* out);

  // The vector program of a task (task/program.h), one section at a time; see there.
  void (*run_program)(const void* section, const void* args);
};

// The best table this machine can run; `isa` empty, or the name of one to force (tests,
// SDPG_ISA). Null and a line in `error` if it is unknown or the machine lacks it.
const Kernels* select_kernels(Precision, const std::string& isa, std::string* error);

}  // namespace sdpg::core
