// The builder behind make_model(): checks a sdpg.model.v1.Model completely and flattens it into the
// constants of core/model.h. A message that passes can be stepped without further checks; anything
// the core does not do is refused here, by the element's name. One file of this folder holds one
// part; they run in the order of Builder::build(), each reading what the parts before it have left.
// Rules for mixing the parameters of two geoms, for resolving solref and solimp, and for choosing
// pairs are those of MuJoCo 3.14 (https://mujoco.readthedocs.io/en/stable/modeling.html, "Solver
// parameters", "Collision").
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/model.h"
#include "core/model/owned_model.h"
#include "sdpg/model/v1/model.pb.h"

namespace sdpg::core {

namespace pb = sdpg::model::v1;

inline constexpr double kTiny = 1e-15;             // mjMINVAL
inline constexpr double kLeastFriction = 1e-5;     // mjMINMU
inline constexpr double kLeastImpedance = 0.0001;  // mjMINIMP
inline constexpr double kMostImpedance = 0.9999;   // mjMAXIMP

enum DisableBit {
  kNoConstraint = 1 << 0,
  kNoFrictionLoss = 1 << 2,
  kNoLimit = 1 << 3,
  kNoContact = 1 << 4,
  kNoSpring = 1 << 5,
  kNoDamper = 1 << 6,
  kNoGravity = 1 << 7,
  kNoClampCtrl = 1 << 8,
  kNoWarmStart = 1 << 9,
  kNoFilterParent = 1 << 10,
  kNoActuation = 1 << 11,
  kNoRefSafe = 1 << 12,
  kNoEulerDamp = 1 << 15,
  kDisableBits = 20,
};

enum GeomType {
  kPlane = 0,
  kHeightField = 1,
  kSphere = 2,
  kCapsule = 3,
  kEllipsoid = 4,
  kCylinder = 5,
  kBox = 6,
  kGeomTypes = 9
};

struct Refusal {
  std::string line;
};
[[noreturn]] void refuse(std::string line);  // throws Refusal

std::string number(double x);

// Columns of the rotation matrix of a unit quaternion.
void rotation_columns(const double* q, double columns[3][3]);

// Numbers in qpos and in qvel of a joint.
inline int position_count(JointType type) {
  return type == JointType::kFree ? 7 : type == JointType::kBall ? 4 : 1;
}
inline int dof_count(JointType type) {
  return type == JointType::kFree ? 6 : type == JointType::kBall ? 3 : 1;
}

// Parameters of the contacts between two geoms.
struct ContactParameters {
  int condim;
  double friction[5];    // two tangents, torsion, two rolling directions
  int friction_geom[2];  // geoms of which it is the larger one, or -1
  double solref[2], solref_friction[2], solimp[5];
  double margin, gap;  // the contact acts below the margin, is reported below their sum
};

class Builder {
 public:
  Builder(const pb::Model& message, const std::vector<ParameterSlot>& slots)
      : in(message), slots(slots) {}

  std::shared_ptr<const Model> build() {
    sizes();
    options();
    parameters();
    bodies();
    tree();
    joints();
    geoms();
    hfields();
    pairs();
    bounds();
    patterns();
    actuators();
    return out;
  }

 private:
  const pb::Model& in;
  const std::vector<ParameterSlot>& slots;
  std::shared_ptr<OwnedModel> out = std::make_shared<OwnedModel>();
  int nbody = 0, njnt = 0, nq = 0, nv = 0, ngeom = 0, nu = 0, na = 0, disabled = 0;
  std::vector<JointType> joint_type;      // [njnt]
  std::vector<std::vector<int>> slot_of;  // by field, for each of its numbers; empty without slots
  std::vector<int> body_root, body_weld;
  std::vector<double> pair_reach;       // [npair]
  std::vector<std::vector<int>> chain;  // ascending degrees of freedom that move each body

  // Pairs found so far, with what add_pair() appends for each.
  std::vector<Pair> pair;
  std::vector<Softness<double>> contact_softness;
  std::vector<double> friction, friction_damping;
  std::vector<int> pair_dof;
  std::vector<std::int8_t> pair_sign;
  std::vector<std::int16_t> chain_place;

  // ---- names and elementary checks --------------------------------------------------------------

  std::string body(int i) const { return "body '" + in.bodies().name(i) + "'"; }
  std::string joint(int i) const { return "joint '" + in.joints().name(i) + "'"; }
  std::string geom(int i) const { return "geom '" + in.geoms().name(i) + "'"; }
  std::string actuator(int i) const { return "actuator '" + in.actuators().name(i) + "'"; }

  template <class Repeated>
  static void expect_size(const Repeated& field, int count, int each, const char* what) {
    if (field.size() != static_cast<int>(count * each))
      refuse(std::string("model: ") + what + ": expected " + std::to_string(count * each) +
             " values, got " + std::to_string(field.size()) + "; compile the model again");
  }
  template <class Repeated>
  static std::vector<double> reals(const Repeated& field, int count, int each, const char* what) {
    expect_size(field, count, each, what);
    for (int i = 0; i < field.size(); ++i)
      if (!std::isfinite(field.Get(i)))
        refuse(std::string("model: ") + what + "[" + std::to_string(i) +
               "]: expected a finite number, got " + number(field.Get(i)));
    return std::vector<double>(field.begin(), field.end());
  }
  // Fields that messages of an earlier version lack: absent means 0 everywhere.
  template <class Repeated>
  static std::vector<int> integers_or_zero(const Repeated& field, int count, const char* what) {
    if (field.empty()) return std::vector<int>(count);
    expect_size(field, count, 1, what);
    return std::vector<int>(field.begin(), field.end());
  }
  template <class Repeated>
  static std::vector<double> reals_or_zero(const Repeated& field, int count, int each,
                                           const char* what) {
    if (field.empty()) return std::vector<double>(count * each);
    return reals(field, count, each, what);
  }
  static double finite(double x, const char* what);
  // Divides by the length, which must be 1 within 0.1 %.
  static void normalize(double* q, int n, const std::string& what);

  // ---- parts ------------------------------------------------------------------------------------

  void sizes();       // options.cc
  void options();     // options.cc
  void parameters();  // parameters.cc
  void bodies();      // bodies.cc
  void tree();        // bodies.cc
  void joints();      // joints.cc
  void geoms();       // geoms.cc
  void hfields();     // collision.cc
  void pairs();       // pairs.cc
  void bounds();      // collision.cc
  void patterns();    // patterns.cc
  void actuators();   // actuators.cc

  // Whether a number of a field has a slot, so that environments may differ in it.
  bool varies(Parameter field, int index) const;
  // `margin` as in the model, `inverse_weight` of the regularisation.
  Softness<double> soften(const std::string& what, const double* ref, const double* imp,
                          double margin, double inverse_weight) const;
  void check_shape(int geom) const;                          // geoms.cc
  void choose_narrow_phase(Pair& pair, double reach) const;  // collision.cc
  int field_contacts(const Pair& pair, double reach) const;  // collision.cc
  double bounding_radius(int geom) const;                    // collision.cc
  // Mixed from the two geoms (contact_parameters.cc).
  ContactParameters mixed_parameters(int g1, int g2) const;
  // Of the explicit pair `index` (contact_parameters.cc).
  ContactParameters explicit_parameters(int index) const;
  bool bodies_may_touch(int b1, int b2) const;
  void add_pair(int g1, int g2, const std::string& what, const ContactParameters& parameters);
  void chain_of_pair(Pair& pair);
  Pattern pattern(const std::vector<std::set<int>>& rows);
};

}  // namespace sdpg::core
