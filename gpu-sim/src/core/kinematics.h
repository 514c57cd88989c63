// Stages `kinematics` and `com`: from positions to frames, then to the motion of each degree of
// freedom and the inertia of each body, both about the reference point of the body's tree (the
// origin of the tree's first body, so that numbers stay small wherever the robot has walked to).
#pragma once

#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

template <class P, class Team>
SDPG_FN void kinematics(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const Constants<T>& k = s.k;
  for (int i = 0; i < 3; ++i) s.xpos[i] = s.xipos[i] = P(T(0));
  for (int i = 0; i < 4; ++i) s.xquat[i] = P(T(i == 0));
  for (int i = 0; i < 9; ++i) s.xmat[i] = P(T(i % 4 == 0));

  for (int b = 1; b < m.nbody; ++b) {
    const int parent = m.body_parent[b];
    P *matrix = s.xmat + 9 * b, *quaternion = s.xquat + 4 * b;
    const P* parent_matrix = s.xmat + 9 * parent;
    Vec3<P> position = load3(s.xpos + 3 * parent);
    const Vec3<P> offset = constant3<P>(k.body_pos, b);
    position = position + (parent == 0 ? offset : rotate(parent_matrix, offset));
    if (m.body_turned[b]) {
      const P turn[4] = {constant<P>(k.body_quat, 4 * b), constant<P>(k.body_quat, 4 * b + 1),
                         constant<P>(k.body_quat, 4 * b + 2), constant<P>(k.body_quat, 4 * b + 3)};
      multiply_quaternions(quaternion, s.xquat + 4 * parent, turn);
      rotation_matrix(matrix, quaternion);
    } else {
      for (int i = 0; i < 4; ++i) quaternion[i] = s.xquat[4 * parent + i];
      for (int i = 0; i < 9; ++i) matrix[i] = parent_matrix[i];
    }

    // Each joint moves the frame that the joints before it have left. The world axis is kept in
    // the linear part of cdof until com() completes it, with the anchor in the rotational part.
    for (int j = m.body_jnt[b]; j < m.body_jnt[b + 1]; ++j) {
      P* motion = s.cdof + 6 * m.jnt_dofadr[j];
      const int at = m.jnt_qposadr[j];
      const Vec3<P> local_axis = constant3<P>(k.jnt_axis, j);
      const Vec3<P> axis = rotate(matrix, local_axis);
      const P displacement = s.qpos[at] - constant<P>(k.qpos0, at);
      store3(motion + 3, axis);
      if (m.jnt_type[j] == JointType::kSlide) {
        position = position + axis * displacement;
      } else {
        const Vec3<P> local_anchor = constant3<P>(k.jnt_pos, j);
        const Vec3<P> anchor = position + rotate(matrix, local_anchor);
        store3(motion, anchor);
        P sine, cosine;
        sincos(displacement * P(T(0.5)), &sine, &cosine);
        const P before[4] = {quaternion[0], quaternion[1], quaternion[2], quaternion[3]};
        const P turn[4] = {cosine, sine * local_axis.x, sine * local_axis.y, sine * local_axis.z};
        multiply_quaternions(quaternion, before, turn);
        rotation_matrix(matrix, quaternion);
        position = anchor - rotate(matrix, local_anchor);
      }
    }
    store3(s.xpos + 3 * b, position);
    store3(s.xipos + 3 * b, position + rotate(matrix, constant3<P>(k.body_ipos, b)));
  }
}

template <class P, class Team>
SDPG_FN void com(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const Constants<T>& k = s.k;
  for (int b = 1; b < m.nbody; ++b) {
    const Vec3<P> reference = load3(s.xpos + 3 * m.body_root[b]);
    const P* matrix = s.xmat + 9 * b;

    // Inertia about the reference, in world axes.
    const Vec3<P> offset = load3(s.xipos + 3 * b) - reference;
    const P mass = constant<P>(k.body_mass, b);
    const Vec3<P> moment = offset * mass;
    const P base = constant<P>(k.inertia_base, b) + dot(moment, offset);
    P* inertia = s.inertia + 10 * b;
    inertia[0] = base - moment.x * offset.x;
    inertia[1] = base - moment.y * offset.y;
    inertia[2] = base - moment.z * offset.z;
    inertia[3] = -(moment.x * offset.y);
    inertia[4] = -(moment.x * offset.z);
    inertia[5] = -(moment.y * offset.z);
    for (int a = 0; a < m.inertia_axes[b]; ++a) {
      const Vec3<P> axis = rotate(matrix, constant3<P>(k.inertia_axis, 2 * b + a));
      const Vec3<P> scaled = axis * constant<P>(k.inertia_weight, 2 * b + a);
      inertia[0] += scaled.x * axis.x;
      inertia[1] += scaled.y * axis.y;
      inertia[2] += scaled.z * axis.z;
      inertia[3] += scaled.x * axis.y;
      inertia[4] += scaled.x * axis.z;
      inertia[5] += scaled.y * axis.z;
    }
    store3(inertia + 6, moment);
    inertia[9] = mass;

    for (int j = m.body_jnt[b]; j < m.body_jnt[b + 1]; ++j) {
      P* motion = s.cdof + 6 * m.jnt_dofadr[j];
      const Vec3<P> axis = load3(motion + 3);
      if (m.jnt_type[j] == JointType::kSlide) {
        for (int i = 0; i < 3; ++i) motion[i] = P(T(0));
      } else {
        const Vec3<P> anchor = load3(motion);
        store6(motion, Spatial<P>{axis, cross(axis, reference - anchor)});
      }
    }
  }
}

SDPG_ISA_END
}  // namespace sdpg::core
