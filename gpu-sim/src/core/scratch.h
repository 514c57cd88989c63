// Everything one block's step computes, in scratch memory of the worker thread. The arrays are cut
// from one piece of memory each time (a few additions), in the order in which the stages use them.
#pragma once

#include "core/model.h"
#include "core/simd.h"
#include "core/spatial.h"
#include "core/team.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

// One contact between two geoms in every lane that has it. The solver works on the contact's three
// base directions (normal, two tangents); the four edges of the friction pyramid, n +- mu t1 and
// n +- mu t2, are derived from them.
template <class P>
struct Contact {
  P distance;
  Vec3<P> position, normal, tangent1, tangent2;
  P stiffness;     // D of every edge; 0 in lanes without this contact
  P reference[3];  // reference acceleration of the base directions
  P residual[3];   // J qacc - reference
  P at_smooth[3];  // J qacc_smooth - reference
  P slope[3];      // J search
  P force[3];
  P curvature[5];              // C of J' C J: nn, n1, n2, 11, 22
  std::uint32_t pushing[4];    // lanes in which an edge pushes, in the order n+1, n-1, n+2, n-2
  std::uint32_t searching[4];  // the same while the line search moves
  int pair;
};

// One side of a joint's range, in every lane that is beyond it.
template <class P>
struct Limit {
  P stiffness;  // D; 0 in lanes inside the range
  P reference, residual, at_smooth, slope, force, curvature;
  std::uint32_t pushing, searching;
  int dof;
  typename P::Scalar sign;  // +1 at the lower end, -1 at the upper
};

template <class P, class Team = Alone>
struct Scratch {
  using T = typename P::Scalar;
  const Model& model;
  const Constants<T>& k;
  Team team{};

  // State of the block, plain memory of the caller.
  P *qpos, *qvel, *ctrl, *warmstart;

  // Frames: body origin, orientation as quaternion and matrix, centre of mass.
  P *xpos, *xquat, *xmat, *xipos;  // [nbody*3], [nbody*4], [nbody*9], [nbody*3]
  P* cdof;                // [nv*6] motion of each degree of freedom about its tree's reference
  P* inertia;             // [nbody*10], later composite
  P* velocity;            // [nbody*6]
  P* acceleration;        // [nbody*6] without qacc
  P* body_force;          // [nbody*6]
  P *mass, *mass_factor;  // packed lower triangles; the factor has 1/D on its diagonal
  P* hessian;
  P *geom_position, *geom_axis;                    // [ngeom*3]
  P* passive_and_applied;                          // [nv] qfrc_smooth
  P* smooth;                                       // [nv] qacc_smooth
  P *qacc, *qfrc_constraint;                       // [nv]
  P *mass_qacc, *gradient, *search, *mass_search;  // [nv]
  P *new_qpos, *new_qvel;                          // [nq], [nv]
  std::uint32_t bad_lanes = 0;                     // lanes that met a non-finite or huge number

  P* jacobian;           // [max_contacts][3][max_chain]
  Contact<P>* contacts;  // [max_contacts]
  Limit<P>* limits;      // [max_limits]
  int contact_count = 0, limit_count = 0;
  int* kept_contact_count;  // of the last evaluation, for Kernels::contacts

  SDPG_FN Scratch(const Model& m, void* memory) : model(m), k(constants<T>(m)) {
    bytes_ = static_cast<unsigned char*>(memory);
    const unsigned nb = static_cast<unsigned>(m.nbody), nv = static_cast<unsigned>(m.nv);
    const unsigned ng = static_cast<unsigned>(m.ngeom), tri = nv * (nv + 1) / 2;
    kept_contact_count = reinterpret_cast<int*>(bytes_);
    used_ = 64;
    cut(contacts, static_cast<unsigned>(m.max_contacts));
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
    cut(jacobian, static_cast<unsigned>(m.max_contacts) * 3u * static_cast<unsigned>(m.max_chain));
  }
  SDPG_FN std::size_t bytes() const { return used_; }
  SDPG_FN P* rows(int contact) const { return jacobian + contact * 3 * model.max_chain; }

 private:
  template <class X>
  SDPG_FN void cut(X*& pointer, std::size_t count) {
    static_assert(alignof(X) <= 64);
    pointer = reinterpret_cast<X*>(bytes_ + used_);
    used_ += (count * sizeof(X) + 63) / 64 * 64;
  }
  unsigned char* bytes_;
  std::size_t used_;
};

SDPG_ISA_END
}  // namespace sdpg::core
