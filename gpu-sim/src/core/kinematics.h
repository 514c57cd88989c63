// Stages `kinematics` and `com`: from positions to frames, then to the motion of each degree of
// freedom and the inertia of each body, both about the reference point of the body's tree (the
// origin of the tree's first body, so that numbers stay small wherever the robot has walked to).
#pragma once

#include "core/scratch.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// The frame of one body from its parent's. Each joint moves the frame that the joints before it
// have left. The world axis of a slide or hinge is kept in the linear part of cdof until com()
// completes it, with the anchor in the rotational part.
template <class P, class Team>
SDPG_FN void body_frame(Scratch<P, Team>& s, int b) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const Constants<T>& k = s.k;
  const int parent = m.body_parent[b];
  P *matrix = s.xmat + 9 * b, *quaternion = s.xquat + 4 * b;
  const P* parent_matrix = s.xmat + 9 * parent;
  Vec3<P> position;
  const int first = m.body_jnt[b], end = m.body_jnt[b + 1];
  if (first < end && m.jnt_type[first] == JointType::kFree) {
    const P* qpos = s.qpos + m.jnt_qposadr[first];
    position = load3(qpos);
    load_unit_quaternion(quaternion, qpos + 3);
    rotation_matrix(matrix, quaternion);
  } else {
    const Vec3<P> offset = constant3<P>(k.body_pos, b);
    position = load3(s.xpos + 3 * parent) + (parent == 0 ? offset : rotate(parent_matrix, offset));
    for (int i = 0; i < 4; ++i) quaternion[i] = s.xquat[4 * parent + i];
    if (m.body_turned[b]) {
      turn_quaternion(
          quaternion, constant<P>(k.body_quat, 4 * b),
          Vec3<P>{constant<P>(k.body_quat, 4 * b + 1), constant<P>(k.body_quat, 4 * b + 2),
                  constant<P>(k.body_quat, 4 * b + 3)});
      rotation_matrix(matrix, quaternion);
    } else {
      for (int i = 0; i < 9; ++i) matrix[i] = parent_matrix[i];
    }
  }

  for (int j = first; j < end; ++j) {
    const JointType type = m.jnt_type[j];
    if (type == JointType::kFree) continue;
    P* motion = s.cdof + 6 * m.jnt_dofadr[j];
    const int at = m.jnt_qposadr[j];
    if (type == JointType::kSlide) {
      const Vec3<P> axis = rotate(matrix, constant3<P>(k.jnt_axis, j));
      store3(motion + 3, axis);
      position = position + axis * (s.qpos[at] - parameter(s, Parameter::kQpos0, at));
      continue;
    }
    const Vec3<P> local_anchor = constant3<P>(k.jnt_pos, j);
    const Vec3<P> anchor = position + rotate(matrix, local_anchor);
    store3(motion, anchor);
    if (type == JointType::kHinge) {
      const Vec3<P> local_axis = constant3<P>(k.jnt_axis, j);
      store3(motion + 3, rotate(matrix, local_axis));
      P sine, cosine;
      sincos((s.qpos[at] - parameter(s, Parameter::kQpos0, at)) * P(T(0.5)), &sine, &cosine);
      turn_quaternion(quaternion, cosine, local_axis * sine);
    } else {
      P turn[4];
      load_unit_quaternion(turn, s.qpos + at);
      turn_quaternion(quaternion, turn[0], load3(turn + 1));
    }
    rotation_matrix(matrix, quaternion);
    position = anchor - rotate(matrix, local_anchor);
  }
  store3(s.xpos + 3 * b, position);
  store3(s.xipos + 3 * b, position + rotate(matrix, parameter3(s, Parameter::kBodyIpos, b)));
}

template <class P, class Team>
SDPG_FN void kinematics(Scratch<P, Team>& s) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  s.team.each(0, 9, [&](int i) {
    s.xmat[i] = P(T(i % 4 == 0));
    if (i < 3) s.xpos[i] = s.xipos[i] = P(T(0));
    if (i < 4) s.xquat[i] = P(T(i == 0));
  });
  for (int level = 0; level < m.nlevel; ++level)
    s.team.each(m.level_begin[level], m.level_begin[level + 1],
                [&](int i) { body_frame(s, m.level_body[i]); });
}

// Inertia of one body about its tree's reference, in world axes.
template <class P, class Team>
SDPG_FN void body_inertia(Scratch<P, Team>& s, int b) {
  const Model& m = s.model;
  const Constants<typename P::Scalar>& k = s.k;
  const Vec3<P> offset = load3(s.xipos + 3 * b) - load3(s.xpos + 3 * m.body_root[b]);
  const P mass = parameter(s, Parameter::kBodyMass, b);
  const Vec3<P> moment = offset * mass;
  // base * 1 + sum of weight_k * axis_k axis_k' about the centre of mass.
  P base = constant<P>(k.inertia_base, b);
  P weight[2] = {constant<P>(k.inertia_weight, 2 * b), constant<P>(k.inertia_weight, 2 * b + 1)};
  if (m.body_inertia_varies[b]) {
    base = parameter(s, Parameter::kBodyInertia, 3 * b + 2);
    for (int a = 0; a < 2; ++a) weight[a] = parameter(s, Parameter::kBodyInertia, 3 * b + a) - base;
  }
  base += dot(moment, offset);
  P* inertia = s.inertia + 10 * b;
  P xx = base - moment.x * offset.x, yy = base - moment.y * offset.y;
  P zz = base - moment.z * offset.z;
  P xy = -(moment.x * offset.y), xz = -(moment.x * offset.z), yz = -(moment.y * offset.z);
  for (int a = 0; a < m.inertia_axes[b]; ++a) {
    const Vec3<P> axis = rotate(s.xmat + 9 * b, constant3<P>(k.inertia_axis, 2 * b + a));
    const Vec3<P> scaled = axis * weight[a];
    xx += scaled.x * axis.x;
    yy += scaled.y * axis.y;
    zz += scaled.z * axis.z;
    xy += scaled.x * axis.y;
    xz += scaled.x * axis.z;
    yz += scaled.y * axis.z;
  }
  store3(inertia, Vec3<P>{xx, yy, zz});
  store3(inertia + 3, Vec3<P>{xy, xz, yz});
  store3(inertia + 6, moment);
  inertia[9] = mass;
}

// cdof of the joints of one body.
template <class P, class Team>
SDPG_FN void body_motions(Scratch<P, Team>& s, int b) {
  using T = typename P::Scalar;
  const Model& m = s.model;
  const P zero = P(T(0)), one = P(T(1)), *matrix = s.xmat + 9 * b;
  const Vec3<P> reference = load3(s.xpos + 3 * m.body_root[b]);
  for (int j = m.body_jnt[b]; j < m.body_jnt[b + 1]; ++j) {
    P* motion = s.cdof + 6 * m.jnt_dofadr[j];
    switch (m.jnt_type[j]) {
      case JointType::kFree:
        // The body's origin is the reference: its turns have no linear part.
        for (int i = 0; i < 3; ++i)
          for (int c = 0; c < 6; ++c) motion[6 * i + c] = c == 3 + i ? one : zero;
        for (int i = 0; i < 3; ++i)
          store6(motion + 6 * (3 + i),
                 Spatial<P>{{matrix[i], matrix[3 + i], matrix[6 + i]}, {zero, zero, zero}});
        break;
      case JointType::kBall: {
        const Vec3<P> arm = reference - load3(motion);
        for (int i = 0; i < 3; ++i) {
          const Vec3<P> axis{matrix[i], matrix[3 + i], matrix[6 + i]};
          store6(motion + 6 * i, Spatial<P>{axis, cross(axis, arm)});
        }
        break;
      }
      case JointType::kSlide:
        store3(motion, Vec3<P>{zero, zero, zero});
        break;
      case JointType::kHinge: {
        const Vec3<P> axis = load3(motion + 3);
        store6(motion, Spatial<P>{axis, cross(axis, reference - load3(motion))});
        break;
      }
    }
  }
}

template <class P, class Team>
SDPG_FN void com(Scratch<P, Team>& s) {
  s.team.each(1, s.model.nbody, [&](int b) {
    body_inertia(s, b);
    body_motions(s, b);
  });
}

SDPG_ISA_END
}  // namespace sdpg::core
