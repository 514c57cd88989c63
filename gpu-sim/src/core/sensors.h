// Stage `sensors`: what a task asks to be measured (kernels.h, Sensor), computed only then. The
// definitions are MuJoCo's: velocity and acceleration of a body's origin, an accelerometer's
// acceleration that contains gravity, forces of contacts as the solver left them. Parts of the
// loops are sensors; each walks from its body to the root, or over all contacts.
#pragma once

#include "core/kernels.h"
#include "core/kinematics.h"
#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

SDPG_INLINE bool is_acceleration(SensorKind kind) {
  return kind == SensorKind::kLinearAcceleration || kind == SensorKind::kAngularAcceleration;
}

// Sum over the degrees of freedom that move a body of cdof times `rates` [nv].
template <class P, class Team>
SDPG_INLINE Spatial<P> motion_of(const Scratch<P, Team>& s, int body, const P* rates) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const Vec3<P> zero = {P(T(0)), P(T(0)), P(T(0))};
  Spatial<P> sum = {zero, zero};
  for (int b = body; b != 0; b = m.body_parent[b]) {
    for (int d = m.body_dof[b]; d < m.body_dof[b + 1]; ++d) {
      const Spatial<P> motion = load6(s.cdof + 6 * d);
      sum.r = sum.r + motion.r * rates[d];
      sum.l = sum.l + motion.l * rates[d];
    }
  }
  return sum;
}

// From the reference point of a body's tree to the body's origin.
template <class P, class Team>
SDPG_INLINE Vec3<P> arm_of(const Scratch<P, Team>& s, int body) {
  return load3(s.xpos + 3 * body) - load3(s.xpos + 3 * s.model.body_root[body]);
}

// Writes a vector in world axes, or in the body's where the sensor is local.
template <class P, class Team>
SDPG_INLINE void store_sensor(const Scratch<P, Team>& s, const Sensor& sensor, const Vec3<P>& v,
                              P* sensordata) {
  const P* m = s.xmat + 9 * sensor.object;
  const Vec3<P> local = {m[0] * v.x + m[3] * v.y + m[6] * v.z, m[1] * v.x + m[4] * v.y + m[7] * v.z,
                         m[2] * v.x + m[5] * v.y + m[8] * v.z};
  store3(sensordata + sensor.adr, sensor.local != 0 ? local : v);
}

// After kinematics() and com(): velocities of the present state.
template <class P, class Team>
SDPG_FN void velocity_sensors(Scratch<P, Team>& s, const Sensor* sensors, int count,
                              P* sensordata) {
  s.team.each(0, count, [&](int i) {
    const Sensor& sensor = sensors[i];
    if (!is_velocity(sensor)) return;
    const Spatial<P> v = motion_of(s, sensor.object, s.qvel);
    const Vec3<P> value = sensor.kind == SensorKind::kAngularVelocity
                              ? v.r
                              : v.l + cross(v.r, arm_of(s, sensor.object));
    store_sensor(s, sensor, value, sensordata);
  });
}

// After forward() and before integrate(): accelerations and contact forces.
template <class P, class Team>
SDPG_FN void acceleration_sensors(Scratch<P, Team>& s, const Sensor* sensors, int count,
                                  P* sensordata) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  s.team.each(0, count, [&](int i) {
    const Sensor& sensor = sensors[i];
    const int object = sensor.object;
    if (is_velocity(sensor)) return;
    if (is_acceleration(sensor.kind)) {
      const Spatial<P> a = motion_of(s, object, s.qacc);
      const Spatial<P> bias = load6(s.acceleration + 6 * object);
      const Vec3<P> angular = a.r + bias.r;
      Vec3<P> value = angular;
      if (sensor.kind == SensorKind::kLinearAcceleration) {
        // A spatial acceleration is that of a fixed point the body passes; its own point turns too.
        const Spatial<P> v = load6(s.velocity + 6 * object);
        const Vec3<P> arm = arm_of(s, object);
        value = a.l + bias.l + cross(angular, arm) + cross(v.r, v.l + cross(v.r, arm));
      }
      store_sensor(s, sensor, value, sensordata);
      return;
    }
    Vec3<P> force = {P(T(0)), P(T(0)), P(T(0))};
    P normal_force = P(T(0));
    for (int c = 0; c < s.contact_count; ++c) {
      const Contact<P>& contact = s.contacts[c];
      const Pair& pair = m.pair[contact.pair];
      const bool of_geom = sensor.kind == SensorKind::kTouchGeom;
      const bool first = object == (of_geom ? pair.geom1 : pair.body1);
      const bool second = object == (of_geom ? pair.geom2 : pair.body2);
      if (!first && !second) continue;
      const auto here = contact.stiffness > T(0);
      const P *forces = s.force(c), normal = keep(here, forces[0]);
      normal_force += normal;
      Vec3<P> on_second = contact.normal * normal;
      if (pair.condim > 1)
        on_second = on_second + contact.tangent1 * keep(here, forces[1]) +
                    contact.tangent2 * keep(here, forces[2]);
      if (second) force = force + on_second;
      if (first) force = force - on_second;
    }
    if (sensor.kind == SensorKind::kContactForce)
      store_sensor(s, sensor, force, sensordata);
    else
      sensordata[sensor.adr] = normal_force;
  });
}

// Whether a stage has anything to do.
SDPG_INLINE bool any_velocity(const Sensor* sensors, int count) {
  for (int i = 0; i < count; ++i)
    if (is_velocity(sensors[i])) return true;
  return false;
}

SDPG_ISA_END
}  // namespace sdpg::core
