// Constants that may differ between environments (domain randomisation). Which ones do is decided
// when the model is made: an element that was given a slot is read from the lane's own values,
// [slot][lane], every other from the model. All stages read such constants through here.
#pragma once

#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

template <class T>
SDPG_INLINE const T* parameter_table(const Constants<T>& k, Parameter field) {
  switch (field) {
    case Parameter::kBodyMass:
      return k.body_mass;
    case Parameter::kBodyInertia:
      return k.body_inertia;
    case Parameter::kBodyIpos:
      return k.body_ipos;
    case Parameter::kGeomFriction:
      return k.geom_friction;
    case Parameter::kDofArmature:
      return k.armature;
    case Parameter::kDofDamping:
      return k.damping;
    case Parameter::kJntStiffness:
      return k.stiffness;
    case Parameter::kActuatorGain:
      return k.gain;
    case Parameter::kActuatorBias:
      return k.bias;
    case Parameter::kQpos0:
      return k.qpos0;
  }
  return nullptr;
}

// Number `index` of the field's flat array; vectors have three numbers an element.
template <class P, class Team>
SDPG_INLINE P parameter(const Scratch<P, Team>& s, Parameter field, int index) {
  const int* slots = s.model.slots[static_cast<int>(field)];
  if (slots != nullptr && slots[index] >= 0) return s.parameters[slots[index]];
  return constant<P>(parameter_table(s.k, field), index);
}
template <class P, class Team>
SDPG_INLINE Vec3<P> parameter3(const Scratch<P, Team>& s, Parameter field, int index) {
  return {parameter(s, field, 3 * index), parameter(s, field, 3 * index + 1),
          parameter(s, field, 3 * index + 2)};
}

SDPG_ISA_END
}  // namespace sdpg::core
