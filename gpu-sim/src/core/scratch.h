// Everything one block's step computes, in scratch memory of the worker thread. The arrays are cut
// from one piece of memory each time (a few additions), in the order in which the stages use them.
// On CUDA that piece is the team's share of shared memory, which is small: what grows with the
// model's worst case lies there for the first `kept` contacts only, and in a second piece for the
// rest. Stages see one array either way.
#pragma once

#include "core/model.h"
#include "core/simd.h"
#include "core/spatial.h"
#include "core/team.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// A mask of lanes as it is stored.
template <int L>
struct LaneWord {
  using type = std::uint16_t;
};
template <>
struct LaneWord<1> {
  using type = std::uint8_t;
};
template <class P>
using Lanes = typename LaneWord<P::lanes>::type;

// One contact between two geoms in every lane that has it. Its *directions* (normal, two tangents,
// then rotation about each: as many as its condim) carry the solver's numbers, see
// Scratch::jacobian() and the functions after it; the edges of a friction pyramid are derived from
// them.
template <class P>
struct Contact {
  P distance;
  Vec3<P> position, normal, tangent1, tangent2;
  P stiffness;  // D of the normal or of every edge; 0 in lanes without this contact
  int pair;
  // Which zone of its cost each lane is in, at the present acceleration and where the line search
  // is: the lanes in which each edge of a pyramid pushes (edges n + mu_k t_k, n - mu_k t_k in the
  // order of k), or the lanes in the bottom and in the middle zone of an elliptic cone.
  Lanes<P> lanes;  // those that have it
  Lanes<P> zones[10], search_zones[10];
};

// One side of the range of a slide or hinge, or the range of a ball, in every lane that is beyond
// it.
template <class P>
struct Limit {
  P stiffness;  // D; 0 in lanes inside the range
  P axis[3];    // Jacobian: of the joint's only degree of freedom, or of a ball's three
  P reference, residual, slope, force, curvature;
  int dof, dofs;  // first degree of freedom and how many
  Lanes<P> lanes, pushing, search_pushing;
};

// Friction loss of one degree of freedom: a force against the motion that is proportional to the
// residual up to a greatest value.
template <class P>
struct Loss {
  P reference, residual, slope, force, curvature;
  Lanes<P> zones[2], search_zones[2];  // at the greatest force: positive, negative
};

// An array whose first `kept` items are in one memory and the others in another.
template <class X>
struct Parted {
  X *near, *far;
  int kept;
  SDPG_INLINE X& operator[](int i) const { return i < kept ? near[i] : far[i - kept]; }
};
template <class X, class Team, bool = (Team::members > 1)>
struct ItemsOf {
  using type = X*;
};
template <class X, class Team>
struct ItemsOf<X, Team, true> {
  using type = Parted<X>;
};

// Memory of a Scratch: 64-byte aligned, `far` only for teams of several members.
struct Workspace {
  void* near;
  void* far = nullptr;
  int kept = 0;  // contacts in `near`
};

template <class P, class Team = Alone>
struct Scratch {
  using T = typename P::Scalar;
  // An array with an item per contact; index it, it need not be in one piece.
  template <class X>
  using Items = typename ItemsOf<X, Team>::type;
  const Model& model;
  const Constants<T>& k;
  Team team{};

  // State of the block, plain memory of the caller.
  P *qpos, *qvel, *ctrl, *warmstart, *act;
  const P* parameters;  // [nparameters] what differs between the lanes, see parameter.h

  // Frames: body origin, orientation as quaternion and matrix, centre of mass.
  P *xpos, *xquat, *xmat, *xipos;  // [nbody*3], [nbody*4], [nbody*9], [nbody*3]
  P* cdof;                // [nv*6] motion of each degree of freedom about its tree's reference
  P* inertia;             // [nbody*10], later composite
  P* velocity;            // [nbody*6]
  P* acceleration;        // [nbody*6] without qacc
  P* body_force;          // [nbody*6]
  P *mass, *mass_factor;  // packed lower triangles; the factor as factor() leaves it
  P* hessian;             // packed lower triangle, then factored with 1/D on its diagonal
  P *geom_position, *geom_axis;                    // [ngeom*3]
  P* geom_matrix;                                  // [turned_geoms*9]
  P* body_center;                                  // [nbody*3]
  int* candidates;                                 // [npair] pairs left by the broad phase
  std::uint32_t* pair_overflow;                    // [npair] lanes with too many touches
  P* gravity_force;                                // [nv] of gravity compensation
  P *actuator_input, *actuator_force;              // [nu] control or activation; scalar force
  P *act_dot, *new_act;                            // [na]
  P* passive_and_applied;                          // [nv] qfrc_smooth
  P* smooth;                                       // [nv] qacc_smooth
  P *qacc, *qfrc_constraint;                       // [nv]
  P *mass_qacc, *gradient, *search, *mass_search;  // [nv]
  P *new_qpos, *new_qvel;                          // [nq], [nv]
  std::uint32_t bad_lanes = 0;                     // lanes that met a non-finite or huge number
  std::uint32_t overflow_lanes = 0;  // lanes in which a pair touches in too many places

  Items<Contact<P>> contacts;  // [max_contacts]
  Limit<P>* limits;            // [max_limits]
  Loss<P>* losses;             // [nloss]
  int contact_count = 0, limit_count = 0;
  int* kept_contact_count;  // of the last evaluation, for Kernels::contacts

  SDPG_FN Scratch(const Model& m, const Workspace& memory) : model(m), k(constants<T>(m)) {
    bytes_ = static_cast<unsigned char*>(memory.near);
    far_bytes_ = static_cast<unsigned char*>(memory.far);
    kept_ = Team::members == 1 || memory.kept > m.max_contacts ? m.max_contacts : memory.kept;
    const unsigned nb = static_cast<unsigned>(m.nbody), nv = static_cast<unsigned>(m.nv);
    const unsigned ng = static_cast<unsigned>(m.ngeom), tri = nv * (nv + 1) / 2;
    kept_contact_count = reinterpret_cast<int*>(bytes_);
    used_ = 64;
    cut_items(contacts, 1);
    cut(xpos, nb * 3);
    cut(xquat, nb * 4);
    cut(xmat, nb * 9);
    cut(xipos, nb * 3);
    cut(cdof, nv * 6);
    cut(inertia, nb * 10);
    cut(velocity, nb * 6);
    cut(acceleration, nb * 6);
    cut(body_force, nb * 6);
    cut(mass, tri);
    cut(mass_factor, tri);
    cut(hessian, tri);
    cut(geom_position, ng * 3);
    cut(geom_axis, ng * 3);
    cut(geom_matrix, static_cast<unsigned>(m.turned_geoms) * 9);
    cut(body_center, nb * 3);
    cut(candidates, static_cast<unsigned>(m.npair));
    cut(pair_overflow, m.may_overflow ? static_cast<unsigned>(m.npair) : 0u);
    cut(gravity_force, m.has_gravcomp ? nv : 0);
    cut(actuator_input, static_cast<unsigned>(m.nu));
    cut(actuator_force, static_cast<unsigned>(m.nu));
    cut(act_dot, static_cast<unsigned>(m.na));
    cut(new_act, static_cast<unsigned>(m.na));
    cut(passive_and_applied, nv);
    cut(smooth, nv);
    cut(qacc, nv);
    cut(qfrc_constraint, nv);
    cut(mass_qacc, nv);
    cut(gradient, nv);
    cut(search, nv);
    cut(mass_search, nv);
    cut(new_qpos, static_cast<unsigned>(m.nq));
    cut(new_qvel, nv);
    cut(limits, static_cast<unsigned>(m.max_limits));
    cut(losses, static_cast<unsigned>(m.nloss));
    contact_stride_ = m.max_jacobian + 4 * m.max_condim + triangle(m.max_condim, 0);
    cut_items(contact_numbers_, static_cast<unsigned>(contact_stride_));
  }
  SDPG_INLINE std::size_t bytes() const { return used_; }
  SDPG_INLINE std::size_t far_bytes() const { return far_used_; }

  // What the solver keeps for each direction of a contact.
  // [dof_count][condim] how the pair's degrees of freedom move the second geom against the first.
  SDPG_INLINE P* jacobian(int contact) const {
    return &contact_numbers_[contact * contact_stride_];
  }
  // [condim] each: reference acceleration, J qacc - reference, J search, force.
  SDPG_INLINE P* reference(int contact) const { return jacobian(contact) + model.max_jacobian; }
  SDPG_INLINE P* residual(int contact) const { return reference(contact) + model.max_condim; }
  SDPG_INLINE P* slope(int contact) const { return residual(contact) + model.max_condim; }
  SDPG_INLINE P* force(int contact) const { return slope(contact) + model.max_condim; }
  // [triangle(condim, 0)] C of the Hessian's J' C J.
  SDPG_INLINE P* curvature(int contact) const { return force(contact) + model.max_condim; }

 private:
  // Packs are aligned to themselves; numbers of one environment need not waste a cache line each.
  static constexpr std::size_t kAlign = Team::members == 1 ? 64 : 8;

  template <class X>
  SDPG_INLINE static X* take(unsigned char* memory, std::size_t& used, std::size_t count) {
    static_assert(alignof(X) <= kAlign);
    X* const out = reinterpret_cast<X*>(memory + used);
    used += (count * sizeof(X) + kAlign - 1) / kAlign * kAlign;
    return out;
  }
  template <class X>
  SDPG_INLINE void cut(X*& pointer, std::size_t count) {
    pointer = take<X>(bytes_, used_, count);
  }
  // `each` elements for every contact that is possible.
  template <class X>
  SDPG_INLINE void cut_items(X*& pointer, std::size_t each) {
    pointer = take<X>(bytes_, used_, static_cast<unsigned>(model.max_contacts) * each);
  }
  template <class X>
  SDPG_INLINE void cut_items(Parted<X>& items, std::size_t each) {
    items.kept = kept_ * static_cast<int>(each);
    items.near = take<X>(bytes_, used_, static_cast<unsigned>(items.kept));
    items.far =
        take<X>(far_bytes_, far_used_, static_cast<unsigned>(model.max_contacts - kept_) * each);
  }

  Items<P> contact_numbers_;  // [max_contacts][contact_stride_]
  int contact_stride_;
  unsigned char *bytes_, *far_bytes_;
  std::size_t used_ = 0, far_used_ = 0;
  int kept_;
};

SDPG_ISA_END
}  // namespace sdpg::core
