// Vectors, quaternions and spatial (6D) vectors over packs. Spatial vectors put the rotational part
// first, as MuJoCo does; a spatial inertia is 10 numbers about a reference point: the symmetric
// matrix (xx, yy, zz, xy, xz, yz), then mass times the offset of the centre of mass, then the mass.
#pragma once

#include "core/simd.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

template <class P>
struct Vec3 {
  P x, y, z;
};

template <class P>
SDPG_INLINE Vec3<P> load3(const P* p) {
  return {p[0], p[1], p[2]};
}
// The places where a model's constants become packs. Today they are the same for all lanes;
// constants that differ between environments would be loaded here, [index][lane], instead of
// repeated.
template <class P>
SDPG_INLINE P constant(const typename P::Scalar* table, int index) {
  return P(table[index]);
}
template <class P>
SDPG_INLINE Vec3<P> constant3(const typename P::Scalar* table, int index) {
  return {constant<P>(table, 3 * index), constant<P>(table, 3 * index + 1),
          constant<P>(table, 3 * index + 2)};
}
template <class P>
SDPG_INLINE void store3(P* p, const Vec3<P>& a) {
  p[0] = a.x;
  p[1] = a.y;
  p[2] = a.z;
}
template <class P>
SDPG_INLINE Vec3<P> operator+(const Vec3<P>& a, const Vec3<P>& b) {
  return {a.x + b.x, a.y + b.y, a.z + b.z};
}
template <class P>
SDPG_INLINE Vec3<P> operator-(const Vec3<P>& a, const Vec3<P>& b) {
  return {a.x - b.x, a.y - b.y, a.z - b.z};
}
template <class P>
SDPG_INLINE Vec3<P> operator*(const Vec3<P>& a, P s) {
  return {a.x * s, a.y * s, a.z * s};
}
template <class P>
SDPG_INLINE P dot(const Vec3<P>& a, const Vec3<P>& b) {
  return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <class P>
SDPG_INLINE Vec3<P> cross(const Vec3<P>& a, const Vec3<P>& b) {
  return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
template <class P>
SDPG_INLINE Vec3<P> select(typename P::Bool mask, const Vec3<P>& a, const Vec3<P>& b) {
  return {select(mask, a.x, b.x), select(mask, a.y, b.y), select(mask, a.z, b.z)};
}

// m is a row-major 3x3 rotation.
template <class P>
SDPG_INLINE Vec3<P> rotate(const P* m, const Vec3<P>& a) {
  return {m[0] * a.x + m[1] * a.y + m[2] * a.z, m[3] * a.x + m[4] * a.y + m[5] * a.z,
          m[6] * a.x + m[7] * a.y + m[8] * a.z};
}

// Quaternions are (w, x, y, z); out may not alias the operands.
template <class P>
SDPG_INLINE void multiply_quaternions(P* out, const P* a, const P* b) {
  out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
  out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2];
  out[2] = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1];
  out[3] = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0];
}
template <class P>
SDPG_INLINE void rotation_matrix(P* m, const P* q) {
  using T = typename P::Scalar;
  const P x2 = q[1] + q[1], y2 = q[2] + q[2], z2 = q[3] + q[3];
  const P xx = q[1] * x2, yy = q[2] * y2, zz = q[3] * z2;
  const P xy = q[1] * y2, xz = q[1] * z2, yz = q[2] * z2;
  const P wx = q[0] * x2, wy = q[0] * y2, wz = q[0] * z2;
  m[0] = T(1) - (yy + zz);
  m[1] = xy - wz;
  m[2] = xz + wy;
  m[3] = xy + wz;
  m[4] = T(1) - (xx + zz);
  m[5] = yz - wx;
  m[6] = xz - wy;
  m[7] = yz + wx;
  m[8] = T(1) - (xx + yy);
}

// q := q times the turn by its half angle's cosine and its axis times the sine.
template <class P>
SDPG_INLINE void turn_quaternion(P* q, P cosine, const Vec3<P>& sines) {
  const P before[4] = {q[0], q[1], q[2], q[3]};
  const P turn[4] = {cosine, sines.x, sines.y, sines.z};
  multiply_quaternions(q, before, turn);
}

// Length 1; the quaternion of no rotation in place of one without length (mju_normalize4).
template <class P>
SDPG_INLINE void load_unit_quaternion(P* out, const P* q) {
  using T = typename P::Scalar;
  const P length = sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
  const auto none = length < T(1e-15);
  const P inverse = T(1) / select(none, T(1), length);
  for (int i = 0; i < 4; ++i) out[i] = select(none, P(T(i == 0)), q[i] * inverse);
}

// Axis times angle, in (-pi, pi], of the rotation of a unit quaternion (mju_quat2Vel over 1 s).
template <class P>
SDPG_FN Vec3<P> rotation_vector(const P* q) {
  using T = typename P::Scalar;
  const Vec3<P> axis = load3(q + 1);
  const P sine = sqrt(dot(axis, axis));
  P angle = atan2(sine, q[0]) * P(T(2));
  angle = select(angle > T(3.14159265358979323846), angle - T(6.28318530717958647693), angle);
  const auto none = sine < T(1e-15);
  const P scale = angle / select(none, T(1), sine);
  return {select(none, angle, axis.x * scale), axis.y * scale, axis.z * scale};
}

// Turns a unit quaternion by the velocity `w` in the frame it describes, for h seconds
// (mju_quatIntegrate).
template <class P>
SDPG_FN void integrate_quaternion(P* q, const Vec3<P>& w, P h) {
  using T = typename P::Scalar;
  const P speed = sqrt(dot(w, w));
  P sine, cosine;
  sincos(speed * h * P(T(0.5)), &sine, &cosine);
  turn_quaternion(q, cosine, w * (sine / max(speed, T(1e-15))));
}

template <class P>
struct Spatial {
  Vec3<P> r, l;  // rotational, linear
};
template <class P>
SDPG_INLINE Spatial<P> load6(const P* p) {
  return {load3(p), load3(p + 3)};
}
template <class P>
SDPG_INLINE void store6(P* p, const Spatial<P>& a) {
  store3(p, a.r);
  store3(p + 3, a.l);
}

// Momentum or force of the inertia under a spatial motion.
template <class P>
SDPG_INLINE Spatial<P> apply_inertia(const P* inertia, const Spatial<P>& v) {
  const P *i = inertia, mass = inertia[9];
  const Vec3<P> offset = load3(inertia + 6);  // times mass
  const Vec3<P> twist = {i[0] * v.r.x + i[3] * v.r.y + i[4] * v.r.z,
                         i[3] * v.r.x + i[1] * v.r.y + i[5] * v.r.z,
                         i[4] * v.r.x + i[5] * v.r.y + i[2] * v.r.z};
  return {twist + cross(offset, v.l), v.l * mass - cross(offset, v.r)};
}
// The same for a motion without rotation.
template <class P>
SDPG_INLINE Spatial<P> apply_inertia(const P* inertia, const Vec3<P>& linear) {
  return {cross(load3(inertia + 6), linear), linear * inertia[9]};
}

SDPG_ISA_END
}  // namespace sdpg::core
