// Constants that differ between environments: which numbers have a slot, and which places of the
// fields' arrays they replace.
#include "core/model/builder.h"

namespace sdpg::core {
namespace {

const char* field_name(Parameter field) {
  switch (field) {
    case Parameter::kBodyMass:
      return "body_mass";
    case Parameter::kBodyInertia:
      return "body_inertia";
    case Parameter::kBodyIpos:
      return "body_ipos";
    case Parameter::kGeomFriction:
      return "geom_friction";
    case Parameter::kDofArmature:
      return "dof_armature";
    case Parameter::kDofDamping:
      return "dof_damping";
    case Parameter::kJntStiffness:
      return "jnt_stiffness";
    case Parameter::kActuatorGain:
      return "actuator_gain";
    case Parameter::kActuatorBias:
      return "actuator_bias";
    case Parameter::kQpos0:
      return "qpos0";
  }
  return nullptr;
}

}  // namespace

void Builder::parameters() {
  const auto size = [&](Parameter field) {
    switch (field) {
      case Parameter::kBodyMass:
        return nbody;
      case Parameter::kBodyInertia:
      case Parameter::kBodyIpos:
        return 3 * nbody;
      case Parameter::kGeomFriction:
        return 3 * ngeom;
      case Parameter::kDofArmature:
      case Parameter::kDofDamping:
        return nv;
      case Parameter::kJntStiffness:
        return njnt;
      case Parameter::kActuatorGain:
        return nu;
      case Parameter::kActuatorBias:
        return 3 * nu;
      case Parameter::kQpos0:
        return nq;
    }
    return 0;
  };
  // What a disabled force is multiplied by is zero whatever the environment holds.
  const auto without_effect = [&](Parameter field) {
    return (field == Parameter::kDofDamping && disabled & kNoDamper) ||
           (field == Parameter::kJntStiffness && disabled & kNoSpring) ||
           ((field == Parameter::kActuatorGain || field == Parameter::kActuatorBias) &&
            disabled & kNoActuation);
  };
  std::vector<bool> turns_by_quaternion;  // [nq]
  for (const JointType type : joint_type)
    turns_by_quaternion.insert(turns_by_quaternion.end(), position_count(type),
                               position_count(type) != 1);
  slot_of.assign(kParameterFields, {});
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const int field = static_cast<int>(slots[i].field), index = slots[i].index;
    if (field < 1 || field >= kParameterFields)
      refuse("parameter " + std::to_string(i) + ": unknown field " + std::to_string(field));
    const std::string what =
        std::string(field_name(slots[i].field)) + "[" + std::to_string(index) + "]";
    const int count = size(slots[i].field);
    if (index < 0 || index >= count)
      refuse("parameter " + what + ": expected an index below " + std::to_string(count));
    if (without_effect(slots[i].field))
      refuse("parameter " + what + ": an option flag disables what it acts on");
    if (slots[i].field == Parameter::kQpos0 && turns_by_quaternion[index])
      refuse("unsupported: parameter " + what + ": the zero of a free or ball joint");
    if (slot_of[field].empty()) slot_of[field].assign(count, -1);
    if (slot_of[field][index] >= 0) refuse("parameter " + what + ": given twice");
    slot_of[field][index] = static_cast<int>(i);
  }
  for (int field = 0; field < kParameterFields; ++field)
    if (!slot_of[field].empty()) out->slots[field] = out->own(slot_of[field]);
  out->nparameters = static_cast<int>(slots.size());
}

bool Builder::varies(Parameter field, int index) const {
  const std::vector<int>& places = slot_of[static_cast<int>(field)];
  return !places.empty() && places[index] >= 0;
}

int nparameters(const Model& m) { return m.nparameters; }

double parameter_default(const Model& m, ParameterSlot slot) {
  const Constants<double>& k = m.d;
  switch (slot.field) {
    case Parameter::kBodyMass:
      return k.body_mass[slot.index];
    case Parameter::kBodyInertia:
      return k.body_inertia[slot.index];
    case Parameter::kBodyIpos:
      return k.body_ipos[slot.index];
    case Parameter::kGeomFriction:
      return k.geom_friction[slot.index];
    case Parameter::kDofArmature:
      return k.armature[slot.index];
    case Parameter::kDofDamping:
      return k.damping[slot.index];
    case Parameter::kJntStiffness:
      return k.stiffness[slot.index];
    case Parameter::kActuatorGain:
      return k.gain[slot.index];
    case Parameter::kActuatorBias:
      return k.bias[slot.index];
    case Parameter::kQpos0:
      return k.qpos0[slot.index];
  }
  return 0;
}

}  // namespace sdpg::core
