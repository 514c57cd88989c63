// Model constants as the kernels read them: plain arrays, checked and flattened once by
// make_model() (model/). Integer tables are shared, real-valued ones exist in both precisions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/fn.h"
#include "core/kernels.h"

namespace sdpg::core {

// Largest models accepted; they bound the scratch memory of a worker thread.
inline constexpr int kMaxBodies = 256;
inline constexpr int kMaxDofs = 128;
inline constexpr int kMaxGeoms = 512;
inline constexpr int kMaxPairs = 4096;
inline constexpr int kMaxFieldPoints = 4096;  // rows and columns of a height field

// Integrators, with mjtIntegrator's numbers.
enum class Integrator : std::int32_t { kEuler = 0, kImplicitFast = 3 };

// Activation dynamics of an actuator (mjtDyn).
enum class DynamicsType : std::int32_t {
  kNone = 0,
  kIntegrator = 1,
  kFilter = 2,
  kFilterExact = 3
};

enum class JointType : std::int32_t { kFree = 0, kBall = 1, kSlide = 2, kHinge = 3 };

// Which routine finds the contacts of a pair; the geoms are ordered so.
enum class PairKind : std::int32_t {
  kPlaneSphere,
  kPlaneCapsule,
  kPlaneEllipsoid,
  kPlaneCylinder,
  kPlaneBox,
  kSphereSphere,
  kSphereCapsule,
  kSphereCylinder,
  kSphereBox,
  kCapsuleCapsule,
  kCapsuleBox,
  kBoxBox,
  kSphereEllipsoid,
  kCapsuleEllipsoid,
  kCapsuleCylinder,
  kEllipsoidEllipsoid,
  kEllipsoidCylinder,
  kEllipsoidBox,
  kCylinderCylinder,
  kCylinderBox,
  kHeightFieldSphere,
  kHeightFieldCapsule,
  kHeightFieldEllipsoid,
  kHeightFieldCylinder,
  kHeightFieldBox,
};

// Two geoms that may touch.
struct Pair {
  PairKind kind;
  int geom1, geom2;
  int body1, body2;
  int contacts;  // most contacts it makes
  int condim;    // 1, 3, 4 or 6: normal, two tangents, torsion, two rolling directions
  // Degrees of freedom that move the two bodies relative to each other, ascending:
  // Model::pair_dof[dof_begin ...], and the sign with which each moves body2 from body1. Pairs of
  // the same two bodies share them; `chain` numbers the different ones.
  int dof_begin, dof_count, chain;
  // Geoms whose friction, the larger of the two, is the pair's; -1 where it is Constants::friction
  // for all environments.
  int friction_geom1, friction_geom2;
};

// A grid of heights; row r and column c at x = (2 c / (ncol - 1) - 1) size[0], y likewise with
// size[1] and r, z = size[2] times Model::hfield_data[begin + r ncol + c]. Solid down to -size[3].
struct HeightField {
  int nrow, ncol, begin;
  double size[4];  // m
};

// Consecutive pairs between the same two bodies, which one test of the broad phase can drop.
struct PairGroup {
  int first_pair, pairs;  // at most 32
  int body1, body2;
};

// Rows of a symmetric matrix below the diagonal: columns col[begin[i] .. begin[i+1]) of row i,
// ascending. Values are kept in the packed lower triangle, see triangle().
struct Pattern {
  const int* begin;
  const int* col;
  // The same by columns: rows below[below_begin[j] .. below_begin[j+1]) have an entry in column j.
  const int* below_begin;
  const int* below;
};
SDPG_INLINE constexpr int triangle(int i, int j) { return i * (i + 1) / 2 + j; }

// Numbers of one constraint: stiffness and damping of the reference acceleration and the
// impedance curve d(r) (MuJoCo's solref and solimp, resolved).
template <class T>
struct Softness {
  T stiffness, damping;      // K, B
  T d0, rise, one_minus_d1;  // d = d0 + y * rise; 1 - d = (1 - d1) + (1 - y) * rise
  T inverse_width;
  T midpoint, power;
  T below, above;    // factors of the two halves of the curve: y = below * x^p, 1 - above * (1-x)^p
  T inverse_weight;  // regularisation R = inverse_weight * (1 - d) / d
  T margin;          // the constraint acts where the distance is below it
  int shape;         // 0 constant impedance d0, 1 linear, 2 quadratic, 3 any power
};

template <class T>
struct Constants {
  T timestep;
  T gravity[3];
  T solver_scale;  // 1 / (meaninertia * nv)
  T tolerance;
  T impratio_root;  // square root of impratio

  const T* body_pos;   // [nbody*3]
  const T* body_quat;  // [nbody*4]
  const T* body_ipos;  // [nbody*3]
  const T* body_mass;  // [nbody]
  const T* gravcomp;   // [nbody] share of the weight
  // Inertia about the centre of mass: base * 1 + sum of weight_k * axis_k axis_k', k < 2.
  const T* inertia_base;    // [nbody]
  const T* inertia_weight;  // [nbody*2]
  const T* inertia_axis;    // [nbody*2*3] in the body's frame
  const T* body_inertia;    // [nbody*3] diagonal, of bodies whose inertia varies

  const T* jnt_pos;          // [njnt*3]
  const T* jnt_axis;         // [njnt*3]
  const T* qpos0;            // [nq]
  const T* qpos_spring;      // [nq]
  const T* jnt_range;        // [njnt*2]
  const T* stiffness;        // [njnt]
  const T* armature;         // [nv]
  const T* damping;          // [nv]
  const T* jnt_actfrcrange;  // [njnt*2]

  const T* geom_pos;     // [ngeom*3] in the body's frame
  const T* geom_axis;    // [ngeom*3] the geom's z axis in the body's frame
  const T* geom_turn;    // [turned_geoms*9] the three axes of a geom in the body's frame
  const T* geom_size;    // [ngeom*3]
  const T* pair_reach;   // [npair] distance up to which touches are sought: margin + gap
  const T* pair_bound;   // [npair] distance of the centres above which nothing touches, -1 for none
  const T* body_center;  // [nbody*3] of a sphere around the body's geoms, in the body's frame
  const T* group_bound;  // [npair_group] as pair_bound, between the bodies' centres
  const T* geom_friction;  // [ngeom*3] sliding, torsional, rolling

  const Softness<T>* limit;    // [njnt]
  const Softness<T>* contact;  // [npair]
  const T* friction;           // [npair*5] two tangents, torsion, two rolling directions
  const T* friction_damping;   // [npair] B of an elliptic cone's frictional directions

  // Friction loss: greatest force, D and B of each row.
  const T* loss_force;      // [nloss]
  const T* loss_stiffness;  // [nloss]
  const T* loss_damping;    // [nloss]

  const T* gear;         // [nu*6]
  const T* gain;         // [nu] force per input
  const T* gain_slope;   // [nu*2] change of the gain per length, per velocity
  const T* bias;         // [nu*3] constant, per length, per velocity
  const T* act_rate;     // [nu] 1 / time constant of a filter
  const T* act_step;     // [nu] seconds by which act_dot counts in a step
  const T* act_range;    // [nu*2]
  const T* ctrl_range;   // [nu*2]
  const T* force_range;  // [nu*2]
};

struct Model {
  int nq, nv, nu, na, nbody, njnt, ngeom, npair;
  int max_contacts, max_limits;
  // Of one contact: directions, numbers in its Jacobian.
  int max_condim, max_jacobian;
  int iterations, ls_iterations;
  bool warm_start;
  bool elliptic;  // friction cones are elliptic, else pyramidal
  bool implicit;  // velocity-dependent forces are taken at the end of the step
  bool has_gravcomp;
  bool actuated;  // there are actuators, and they are enabled
  Integrator integrator;

  // Elements whose constants differ between environments, see parameter.h: for every field a slot,
  // or -1, for each number of its flat array; null where the field has no slot at all.
  const int* slots[kParameterFields];
  int nparameters;

  const int* body_parent;  // [nbody]
  const int* body_root;    // [nbody] body whose position is the reference point of the tree
  const int* body_jnt;     // [nbody+1] first joint
  const int* body_dof;     // [nbody+1] first degree of freedom
  const std::uint8_t* body_turned;          // [nbody] the frame in the parent is rotated
  const std::uint8_t* inertia_axes;         // [nbody] 0 spherical, 1 axisymmetric, 2 general
  const std::uint8_t* body_inertia_varies;  // [nbody] between environments
  // Bodies of equal depth in the tree, the world left out: level_body[level_begin[l] ...]; and the
  // children of every body: child[child_begin[b] ...].
  int nlevel;
  const int *level_begin, *level_body;
  const int *child_begin, *child;

  const JointType* jnt_type;         // [njnt]
  const int* jnt_qposadr;            // [njnt] first of its positions
  const int* jnt_dofadr;             // [njnt] first of its degrees of freedom
  const int* jnt_bodyid;             // [njnt]
  const int* dof_bodyid;             // [nv]
  const int* dof_jntid;              // [nv]
  const std::uint8_t* dof_angular;   // [nv] see is_angular()
  const std::uint8_t* free_columns;  // [nv] ancestors that are translations of a free joint: 0 to 3
  const int* spring_jnt;             // [nspring] joints with stiffness
  int nspring;
  const int* lone_jnt;  // [nlone] free joints of bodies that carry no joint; only for implicitfast
  int nlone;
  const std::uint8_t* jnt_actgravcomp;    // [njnt]
  const std::uint8_t* jnt_actfrclimited;  // [njnt]
  Pattern mass;                           // ancestors of each degree of freedom
  Pattern hessian;  // mass plus what contacts couple plus the fill of the factorisation

  const int* geom_body;  // [ngeom]
  const int* used_geom;  // [used_geoms] geoms of some pair
  int used_geoms;
  const int* geom_turned;  // [ngeom] index into geom_turn where all axes count, else -1
  int turned_geoms;
  const int* geom_hfield;  // [ngeom] index into hfield of a height field, else -1
  const HeightField* hfield;
  const float* hfield_data;
  bool may_overflow;            // some pair may touch in more places than it has contacts
  const PairGroup* pair_group;  // [npair_group]
  int npair_group;
  const int* bounded_body;  // [bounded_bodies] bodies of some group
  int bounded_bodies;
  const Pair* pair;     // [npair]
  const int* pair_dof;  // dofs of all pairs
  const std::int8_t* pair_sign;
  const std::int16_t* chain_place;  // [chains*nv] place of a degree of freedom in a chain, or -1
  const int* limited;               // [nlimited] joints with a range
  int nlimited;
  const int* loss_dof;  // [nloss] degrees of freedom with friction loss
  int nloss;

  const int* act_jnt;                     // [nu] joint driven
  const int* act_dofnum;                  // [nu] degrees of freedom of that joint
  const int *jnt_act_begin, *jnt_act;     // [njnt+1] actuators that drive each joint
  const DynamicsType* act_dyntype;        // [nu]
  const int* act_actadr;                  // [nu] its activation, or -1
  const int* actuator_of_act;             // [na]
  const std::uint8_t* act_actlimited;     // [nu]
  const std::uint8_t* act_early;          // [nu] the force comes from the next activation
  const std::uint8_t* act_affine_gain;    // [nu] the gain depends on length or velocity
  const std::uint8_t* act_ctrl_limited;   // [nu]
  const std::uint8_t* act_force_limited;  // [nu]
  const std::uint8_t* act_affine;         // [nu] there is a bias

  Constants<float> f;
  Constants<double> d;
};

// Whether a degree of freedom turns: its motion has a rotational part. The first three of a free
// joint and a slide only translate.
SDPG_INLINE bool is_angular(const Model& model, int dof) { return model.dof_angular[dof]; }

template <class T>
SDPG_INLINE const Constants<T>& constants(const Model& model);
template <>
SDPG_INLINE const Constants<float>& constants<float>(const Model& model) {
  return model.f;
}
template <>
SDPG_INLINE const Constants<double>& constants<double>(const Model& model) {
  return model.d;
}

}  // namespace sdpg::core
