// Smooth dynamics of trees with joints of every type: what mechanics demands of accelerations and
// of steps, and what actuators do by MuJoCo's definition. Velocities of bodies come from
// differences of the frames that `kinematics` writes, so they owe nothing to the code that is
// tested.
#include <cmath>
#include <functional>

#include "core/block.h"
#include "core/tree.h"

namespace sdpg::testing {
namespace {

using model::v1::Model;

const core::Kernels& double_kernels() {
  std::string error;
  const core::Kernels* k = core::select_kernels(core::Precision::kFloat64, "", &error);
  EXPECT_NE(k, nullptr) << error;
  return *k;
}

void multiply(const double* a, const double* b, double* out) {
  out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
  out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2];
  out[2] = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1];
  out[3] = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0];
}
void rotate(const double* q, const double* x, double* out) {
  const double point[4] = {0, x[0], x[1], x[2]}, back[4] = {q[0], -q[1], -q[2], -q[3]};
  double half[4], turned[4];
  multiply(q, point, half);
  multiply(half, back, turned);
  for (int k = 0; k < 3; ++k) out[k] = turned[k + 1];
}

// qpos after moving with velocity `v` for `h` seconds: turns about the body's own axes.
std::vector<double> displaced(const Model& message, std::vector<double> q,
                              const std::vector<double>& v, double h) {
  const auto& j = message.joints();
  for (int i = 0; i < j.type_size(); ++i) {
    int at = j.qposadr(i), d = j.dofadr(i);
    for (int k = 0; k < (j.type(i) == kFreeJoint ? 3 : j.type(i) == kBallJoint ? 0 : 1); ++k)
      q[at++] += h * v[d++];
    if (j.type(i) > kBallJoint) continue;
    const double speed = std::sqrt(v[d] * v[d] + v[d + 1] * v[d + 1] + v[d + 2] * v[d + 2]);
    const double sine = speed > 0 ? std::sin(speed * h / 2) / speed : 0;
    const double turn[4] = {std::cos(speed * h / 2), sine * v[d], sine * v[d + 1], sine * v[d + 2]};
    const double before[4] = {q[at], q[at + 1], q[at + 2], q[at + 3]};
    multiply(before, turn, &q[at]);
  }
  return q;
}

struct State {
  std::vector<double> qpos, qvel;
};
State random_state(Tree& tree) {
  State s;
  for (const double x : tree.message.qpos0()) s.qpos.push_back(x + 0.8 * tree.one());
  const auto& j = tree.message.joints();
  for (int i = 0; i < j.type_size(); ++i) {
    if (j.type(i) > kBallJoint) continue;
    double* q = &s.qpos[j.qposadr(i) + (j.type(i) == kFreeJoint ? 3 : 0)];
    const double length = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    for (int k = 0; k < 4; ++k) q[k] /= length;
  }
  for (int i = 0; i < tree.message.dofs().bodyid_size(); ++i) s.qvel.push_back(2 * tree.one());
  return s;
}
void load(Block& block, const State& s, int lane = 0) {
  for (std::size_t i = 0; i < s.qpos.size(); ++i) block.set(Block::kQpos, i, lane, s.qpos[i]);
  for (std::size_t i = 0; i < s.qvel.size(); ++i) block.set(Block::kQvel, i, lane, s.qvel[i]);
}
State unload(const Block& block, const core::Model& m, int lane = 0) {
  return {block.row(Block::kQpos, nq(m), lane), block.row(Block::kQvel, nv(m), lane)};
}

// Energy with gravity and springs, momentum, angular momentum about the world's origin, and the
// moment of the weights about it.
struct Mechanics {
  double energy = 0, momentum[3] = {}, angular[3] = {}, weight_moment[3] = {};
};
Mechanics mechanics(const Model& message, const core::Model& m, const State& s) {
  const double e = 1e-5;
  Block block(m, double_kernels());
  std::vector<double> xipos[3], xquat[3];
  for (int side = 0; side < 3; ++side) {
    load(block, {displaced(message, s.qpos, s.qvel, (side - 1) * e), s.qvel});
    block.kinematics();
    xipos[side] = block.row(Block::kXipos, 3 * nbody(m), 0);
    xquat[side] = block.row(Block::kXquat, 4 * nbody(m), 0);
  }
  Mechanics out;
  const auto& bodies = message.bodies();
  for (int b = 1; b < nbody(m); ++b) {
    const double mass = bodies.mass(b), *x = &xipos[1][3 * b];
    const double *q0 = &xquat[0][4 * b], *q1 = &xquat[2][4 * b];
    const double back[4] = {q0[0], -q0[1], -q0[2], -q0[3]};
    double turn[4], frame[4], velocity[3], local[3], spin[3];
    multiply(q1, back, turn);
    const double w[3] = {turn[1] / e, turn[2] / e, turn[3] / e};
    const double iquat[4] = {bodies.iquat(4 * b), bodies.iquat(4 * b + 1), bodies.iquat(4 * b + 2),
                             bodies.iquat(4 * b + 3)};
    multiply(&xquat[1][4 * b], iquat, frame);
    const double inverse[4] = {frame[0], -frame[1], -frame[2], -frame[3]};
    rotate(inverse, w, local);
    for (int k = 0; k < 3; ++k) {
      velocity[k] = (xipos[2][3 * b + k] - xipos[0][3 * b + k]) / (2 * e);
      out.energy += 0.5 * mass * velocity[k] * velocity[k] +
                    0.5 * bodies.inertia(3 * b + k) * local[k] * local[k];
      out.energy -= (1 - bodies.gravcomp(b)) * mass * message.option().gravity(k) * x[k];
      out.momentum[k] += mass * velocity[k];
      local[k] *= bodies.inertia(3 * b + k);
    }
    rotate(frame, local, spin);
    for (int k = 0; k < 3; ++k) {
      const int k1 = (k + 1) % 3, k2 = (k + 2) % 3;
      out.angular[k] += spin[k] + mass * (x[k1] * velocity[k2] - x[k2] * velocity[k1]);
      out.weight_moment[k] +=
          mass * (x[k1] * message.option().gravity(k2) - x[k2] * message.option().gravity(k1));
    }
  }
  for (int i = 0; i < message.dofs().bodyid_size(); ++i)
    out.energy += 0.5 * message.dofs().armature(i) * s.qvel[i] * s.qvel[i];
  const auto& j = message.joints();
  for (int i = 0; i < j.type_size(); ++i) {
    int at = j.qposadr(i);
    double square = 0;
    for (int k = 0; k < (j.type(i) == kFreeJoint ? 3 : j.type(i) == kBallJoint ? 0 : 1); ++k, ++at)
      square += std::pow(s.qpos[at] - message.qpos_spring(at), 2);
    if (j.type(i) <= kBallJoint) {
      const double rest[4] = {message.qpos_spring(at), -message.qpos_spring(at + 1),
                              -message.qpos_spring(at + 2), -message.qpos_spring(at + 3)};
      double turn[4];
      multiply(rest, &s.qpos[at], turn);
      const double angle =
          2 * std::atan2(std::sqrt(turn[1] * turn[1] + turn[2] * turn[2] + turn[3] * turn[3]),
                         std::abs(turn[0]));
      square += angle * angle;
    }
    out.energy += 0.5 * j.stiffness(i) * square;
  }
  return out;
}

class Seeded : public ::testing::Test {
 protected:
  const std::uint64_t seed = test_seed();
  ::testing::ScopedTrace trace{__FILE__, __LINE__, ::testing::Message() << "seed " << seed};
};
using Dynamics = Seeded;
using Actuators = Seeded;
using Parameters = Seeded;

// Springs at rest elsewhere than at zero, for every joint.
void add_springs(Tree& tree) {
  auto& message = tree.message;
  const auto& j = message.joints();
  for (int i = 0; i < j.type_size(); ++i) {
    message.mutable_joints()->set_stiffness(i, 5 + 2 * tree.one());
    int at = j.qposadr(i);
    for (int k = 0; k < (j.type(i) == kFreeJoint ? 3 : j.type(i) == kBallJoint ? 0 : 1); ++k)
      message.set_qpos_spring(at++, 0.3 * tree.one());
    if (j.type(i) > kBallJoint) continue;
    const double half = 0.4 * tree.one();
    message.set_qpos_spring(at, std::cos(half));
    message.set_qpos_spring(at + 1, 0.6 * std::sin(half));
    message.set_qpos_spring(at + 2, 0);
    message.set_qpos_spring(at + 3, 0.8 * std::sin(half));
  }
}

TEST_F(Dynamics, AccelerationChangesMomentumByTheWeightAlone) {
  for (int trial = 0; trial < 10; ++trial) {
    Tree tree = floating_tree(seed + trial);
    const auto m = made(tree.message);
    Block block(*m, double_kernels());
    const State s = random_state(tree);
    load(block, s);
    block.forward();
    const std::vector<double> qacc = block.row(Block::kQacc, nv(*m), 0);
    const double e = 1e-4;
    Mechanics side[2];
    for (int i = 0; i < 2; ++i) {
      const double h = i == 0 ? -e : e;
      // Position to second order, since the velocity changes on the way.
      std::vector<double> middle = s.qvel, velocity = s.qvel;
      for (int d = 0; d < nv(*m); ++d) {
        middle[d] += 0.5 * h * qacc[d];
        velocity[d] += h * qacc[d];
      }
      side[i] = mechanics(tree.message, *m, {displaced(tree.message, s.qpos, middle, h), velocity});
    }
    const Mechanics here = mechanics(tree.message, *m, s);
    double mass = 0;
    for (const double x : tree.message.bodies().mass()) mass += x;
    for (int k = 0; k < 3; ++k) {
      EXPECT_NEAR((side[1].momentum[k] - side[0].momentum[k]) / (2 * e),
                  mass * tree.message.option().gravity(k), 1e-4)
          << "trial " << trial << " axis " << k;
      EXPECT_NEAR((side[1].angular[k] - side[0].angular[k]) / (2 * e), here.weight_moment[k], 2e-4)
          << "trial " << trial << " axis " << k;
    }
    EXPECT_NEAR((side[1].energy - side[0].energy) / (2 * e), 0, 5e-4) << "trial " << trial;
  }
}

TEST_F(Dynamics, AccelerationLosesThePowerOfDampersAndStoresThatOfSprings) {
  for (int trial = 0; trial < 10; ++trial) {
    Tree tree = floating_tree(seed + trial);
    add_springs(tree);
    for (int d = 0; d < tree.message.dofs().bodyid_size(); ++d) {
      tree.message.mutable_dofs()->set_damping(d, 0.5 + 0.4 * tree.one());
      tree.message.mutable_dofs()->set_armature(d, 0.05 + 0.04 * tree.one());
    }
    // A free joint with armature has no inertia of its own in the world; leave it out of the sums.
    for (int d = 0; d < 6; ++d) tree.message.mutable_dofs()->set_armature(d, 0);
    for (int b = 1; b < tree.message.bodies().mass_size(); ++b)
      tree.message.mutable_bodies()->set_gravcomp(b, 0.5 + 0.5 * tree.one());
    const auto m = made(tree.message);
    Block block(*m, double_kernels());
    const State s = random_state(tree);
    load(block, s);
    block.forward();
    const std::vector<double> qacc = block.row(Block::kQacc, nv(*m), 0);
    const double e = 1e-4;
    double energy[2], loss = 0;
    for (int i = 0; i < 2; ++i) {
      const double h = i == 0 ? -e : e;
      std::vector<double> middle = s.qvel, velocity = s.qvel;
      for (int d = 0; d < nv(*m); ++d) {
        middle[d] += 0.5 * h * qacc[d];
        velocity[d] += h * qacc[d];
      }
      energy[i] =
          mechanics(tree.message, *m, {displaced(tree.message, s.qpos, middle, h), velocity})
              .energy;
    }
    for (int d = 0; d < nv(*m); ++d) loss += tree.message.dofs().damping(d) * s.qvel[d] * s.qvel[d];
    EXPECT_NEAR((energy[1] - energy[0]) / (2 * e), -loss, 1e-3 * (1 + loss)) << "trial " << trial;
  }
}

// Where the floating tree is after `seconds`.
Mechanics after(Tree tree, const State& start, double seconds, double timestep) {
  tree.message.mutable_option()->set_timestep(timestep);
  const auto m = made(tree.message);
  Block block(*m, double_kernels());
  load(block, start);
  block.step(static_cast<int>(std::lround(seconds / timestep)));
  EXPECT_EQ(block.status(0), 0u);
  return mechanics(tree.message, *m, unload(block, *m));
}

TEST_F(Dynamics, StepKeepsEnergyAndMomentumUpToEulersError) {
  Tree tree = floating_tree(seed);
  for (int k = 0; k < 3; ++k) tree.message.mutable_option()->set_gravity(k, 0);
  const auto m = made(tree.message);
  const State start = random_state(tree);
  const Mechanics before = mechanics(tree.message, *m, start);
  const Mechanics coarse = after(tree, start, 0.1, 2e-5), fine = after(tree, start, 0.1, 1e-5);
  // The error is proportional to the step, so twice the finer result less the coarser has none.
  const auto expect = [&](double x0, double x2, double x1, const char* what) {
    EXPECT_NEAR(2 * x1 - x2, x0, 2e-5 * std::abs(before.energy)) << what;
    EXPECT_LT(std::abs(x1 - x0), 1e-2 * std::abs(before.energy)) << what;
  };
  expect(before.energy, coarse.energy, fine.energy, "energy");
  for (int k = 0; k < 3; ++k) {
    expect(before.momentum[k], coarse.momentum[k], fine.momentum[k], "momentum");
    expect(before.angular[k], coarse.angular[k], fine.angular[k], "angular momentum");
  }
}

TEST_F(Dynamics, StepMovesALoneBodyUniformlyAndTurnsItByItsSpin) {
  Tree tree(seed);
  tree.add_body("body", 0);
  tree.add_joint(kFreeJoint);
  auto& message = tree.message;
  for (int k = 0; k < 3; ++k) {
    message.mutable_option()->set_gravity(k, 0);
    message.mutable_bodies()->set_ipos(3 + k, 0);
    message.mutable_bodies()->set_inertia(3 + k, 0.1);
  }
  const auto m = made(message);
  for (const core::Kernels* k : all_kernels()) {
    Block block(*m, *k);
    State s = random_state(tree);
    // The length of a quaternion means nothing.
    const std::vector<double> unit(s.qpos.begin() + 3, s.qpos.end());
    for (int i = 3; i < 7; ++i) s.qpos[i] *= 3;
    load(block, s);
    const int steps = 250;
    block.step(steps);
    const State end = unload(block, *m);
    const double tolerance = k->scalar_bytes == 4 ? 2e-5 : 1e-13;
    for (int d = 0; d < 6; ++d) EXPECT_NEAR(end.qvel[d], s.qvel[d], tolerance) << k->isa;
    for (int i = 3; i < 7; ++i) s.qpos[i] = unit[i - 3];
    const std::vector<double> expected = displaced(message, s.qpos, s.qvel, 0.002 * steps);
    for (int i = 0; i < 7; ++i) EXPECT_NEAR(end.qpos[i], expected[i], tolerance) << k->isa << i;
  }
}

// (1 - h dqacc/dv) dv = h qacc, with the derivative by differences.
TEST_F(Dynamics, ImplicitFastTakesTheSpinOfALoneBodyAtTheEndOfTheStep) {
  Tree tree(seed);
  const int body = tree.add_body("body", 0);
  tree.add_joint(kFreeJoint);
  tree.add_body("fixed to it", body);
  tree.message.mutable_option()->set_integrator(3);
  const double h = 0.01;
  tree.message.mutable_option()->set_timestep(h);
  for (int d = 0; d < 6; ++d) tree.message.mutable_dofs()->set_damping(d, 0.3);
  const auto m = made(tree.message);
  State s = random_state(tree);
  for (double& x : s.qvel) x *= 4;
  Block block(*m, double_kernels());
  const auto qacc_at = [&](const std::vector<double>& qvel) {
    load(block, {s.qpos, qvel});
    block.forward();
    return block.row(Block::kQacc, 6, 0);
  };
  const std::vector<double> qacc = qacc_at(s.qvel);
  block.step(1);
  const std::vector<double> after = block.row(Block::kQvel, 6, 0);
  std::vector<double> left(6);
  for (int d = 0; d < 6; ++d) left[d] = (after[d] - s.qvel[d]) / h;
  for (int k = 0; k < 6; ++k) {
    std::vector<double> plus = s.qvel, minus = s.qvel;
    plus[k] += 1e-5;
    minus[k] -= 1e-5;
    const std::vector<double> a = qacc_at(plus), b = qacc_at(minus);
    for (int d = 0; d < 6; ++d) left[d] -= (a[d] - b[d]) / 2e-5 * (after[k] - s.qvel[k]);
  }
  for (int d = 0; d < 6; ++d)
    EXPECT_NEAR(left[d], qacc[d], 1e-6 * (1 + std::abs(qacc[d]))) << "dof " << d;
}

TEST_F(Dynamics, ForwardAndStepAgreeBetweenAllTables) {
  Tree tree = floating_tree(seed);
  add_springs(tree);
  tree.message.mutable_option()->set_integrator(3);
  for (int d = 0; d < tree.message.dofs().bodyid_size(); ++d)
    tree.message.mutable_dofs()->set_damping(d, 1);
  for (int j = 0; j < tree.message.joints().type_size(); ++j) {
    const int a = tree.add_actuator(j);
    auto* act = tree.message.mutable_actuators();
    for (int k = 0; k < 6; ++k) act->set_gear(6 * a + k, tree.one());
    act->set_biastype(a, 1);
    for (int k = 0; k < 3; ++k) act->set_biasprm(10 * a + k, -1 + tree.one());
  }
  const auto m = made(tree.message);
  Block reference(*m, double_kernels());
  const State s = random_state(tree);
  load(reference, s);
  reference.forward();
  reference.step(3);
  for (const core::Kernels* k : all_kernels()) {
    Block block(*m, *k);
    load(block, s, k->lanes - 1);
    block.forward();
    block.step(3);
    const double tolerance = k->scalar_bytes == 4 ? 1e-4 : 1e-10;
    for (const auto& [array, count] :
         {std::pair{Block::kSmooth, nv(*m)}, {Block::kQpos, nq(*m)}, {Block::kQvel, nv(*m)}}) {
      double largest = 0;
      for (const double x : reference.row(array, count, 0))
        largest = std::max(largest, std::abs(x));
      for (int i = 0; i < count; ++i)
        EXPECT_NEAR(block.get(array, i, k->lanes - 1), reference.get(array, i, 0),
                    tolerance * largest)
            << k->isa << " array " << array << " index " << i;
    }
  }
}

TEST_F(Dynamics, GravityCompensationInFullIsFreedomFromGravity) {
  for (const bool by_actuator : {false, true}) {
    Tree tree = floating_tree(seed);
    tree.add_actuator(1);
    const State s = random_state(tree);
    Model weightless = tree.message;
    weightless.mutable_option()->set_gravity(2, 0);
    for (int b = 1; b < tree.message.bodies().mass_size(); ++b)
      tree.message.mutable_bodies()->set_gravcomp(b, 1);
    for (int j = 0; by_actuator && j < tree.message.joints().type_size(); ++j)
      tree.message.mutable_joints()->add_actgravcomp(1);
    const auto m = made(tree.message), free = made(weightless);
    Block compensated(*m, double_kernels()), floating(*free, double_kernels());
    load(compensated, s);
    load(floating, s);
    compensated.forward();
    floating.forward();
    for (int d = 0; d < nv(*m); ++d)
      EXPECT_NEAR(compensated.get(Block::kSmooth, d, 0), floating.get(Block::kSmooth, d, 0), 1e-10)
          << "dof " << d;
  }
}

// A body on a slide: acceleration is force over mass.
struct Slider {
  explicit Slider(std::uint64_t seed) : tree(seed) {
    tree.add_body("body", 0);
    tree.add_joint(kSlideJoint);
    tree.add_actuator(0);
    for (int k = 0; k < 3; ++k) tree.message.mutable_option()->set_gravity(k, 0);
    mass = tree.message.bodies().mass(1);
  }
  model::v1::Actuators& actuator() { return *tree.message.mutable_actuators(); }
  struct Result {
    double qacc, qvel, qpos, act;
  };
  // qacc at the state, and the state after one step, from every double table.
  Result run(double qpos, double qvel, double ctrl, double act = 0) {
    const auto m = made(tree.message);
    Block block(*m, double_kernels());
    block.set(Block::kQpos, 0, 0, qpos);
    block.set(Block::kQvel, 0, 0, qvel);
    block.set(Block::kCtrl, 0, 0, ctrl);
    if (na(*m) > 0) block.set(Block::kAct, 0, 0, act);
    block.forward();
    block.step(1);
    EXPECT_EQ(block.status(0), 0u);
    return {block.get(Block::kQacc, 0, 0), block.get(Block::kQvel, 0, 0),
            block.get(Block::kQpos, 0, 0), na(*m) > 0 ? block.get(Block::kAct, 0, 0) : 0};
  }
  Tree tree;
  double mass;
  const double h = 0.002;
};

TEST_F(Actuators, ForceIsGainTimesControlPlusBiasWithinItsRange) {
  Slider s(seed);
  auto& a = s.actuator();
  a.set_gear(0, 1.5);
  a.set_gaintype(0, 1);
  a.set_biastype(0, 1);
  for (int k = 0; k < 3; ++k) {
    a.set_gainprm(k, 2 - 0.5 * k);
    a.set_biasprm(k, 0.3 - k);
  }
  const double q = 0.4, v = -0.7, u = 0.9, length = 1.5 * q, velocity = 1.5 * v;
  const double force = (2 + 1.5 * length + velocity) * u + 0.3 - 0.7 * length - 1.7 * velocity;
  EXPECT_NEAR(s.run(q, v, u).qacc, 1.5 * force / s.mass, 1e-13);
  a.set_ctrllimited(0, 1);
  a.set_ctrlrange(0, -0.5);
  a.set_ctrlrange(1, 0.5);
  const double clipped = force - (2 + 1.5 * length + velocity) * 0.4;
  EXPECT_NEAR(s.run(q, v, u).qacc, 1.5 * clipped / s.mass, 1e-13);
  a.set_forcelimited(0, 1);
  a.set_forcerange(0, -0.1);
  a.set_forcerange(1, 0.1);
  EXPECT_NEAR(s.run(q, v, u).qacc, 1.5 * 0.1 / s.mass, 1e-13);
  // The joint clamps what arrives at it.
  auto* j = s.tree.message.mutable_joints();
  j->add_actgravcomp(0);
  j->add_actfrclimited(1);
  j->add_actfrcrange(-0.05);
  j->add_actfrcrange(0.05);
  EXPECT_NEAR(s.run(q, v, u).qacc, 0.05 / s.mass, 1e-13);
}

TEST_F(Actuators, ImplicitFastTakesVelocityFeedbackAtTheEndOfTheStep) {
  Slider s(seed);
  auto& a = s.actuator();
  a.set_gear(0, 2);
  a.set_gaintype(0, 1);
  a.set_gainprm(2, -3);
  a.set_biastype(0, 1);
  a.set_biasprm(2, -40);
  s.tree.message.mutable_dofs()->set_damping(0, 5);
  const double v = 1.3, u = 0.5;
  const double slope = 4 * (-3 * u - 40);  // of the actuator's force on the joint by velocity
  const double force = 2 * u + slope * v - 5 * v;
  EXPECT_NEAR(s.run(0.1, v, u).qvel, v + s.h * force / (s.mass + s.h * 5), 1e-13) << "Euler";
  s.tree.message.mutable_option()->set_integrator(3);
  EXPECT_NEAR(s.run(0.1, v, u).qvel, v + s.h * force / (s.mass + s.h * (5 - slope)), 1e-13);
  // A clamped force has no slope.
  a.set_forcelimited(0, 1);
  a.set_forcerange(0, -1);
  a.set_forcerange(1, 1);
  EXPECT_NEAR(s.run(0.1, v, u).qvel, v + s.h * (-2 - 5 * v) / (s.mass + s.h * 5), 1e-13);
}

TEST_F(Actuators, ActivationFollowsItsDynamics) {
  Slider s(seed);
  auto& a = s.actuator();
  a.set_actadr(0, 0);
  a.set_actnum(0, 1);
  a.set_dynprm(0, 0.05);
  a.set_gainprm(0, 3);
  const double u = 0.8, act = 0.2;
  const double rates[4] = {0, u, (u - act) / 0.05, (u - act) / 0.05};
  for (const int type : {1, 2, 3}) {
    a.set_dyntype(0, type);
    const double seconds = type == 3 ? 0.05 * (1 - std::exp(-s.h / 0.05)) : s.h;
    const double next = act + rates[type] * seconds;
    for (const bool early : {false, true}) {
      a.set_actearly(0, early);
      const Slider::Result got = s.run(0, 0, u, act);
      EXPECT_NEAR(got.act, next, 1e-15) << "dynamics " << type;
      EXPECT_NEAR(got.qacc, 3 * (early ? next : act) / s.mass, 1e-13) << "dynamics " << type;
    }
    a.set_actearly(0, 1);
    a.set_actlimited(0, 1);
    a.set_actrange(0, -1);
    a.set_actrange(1, act + 1e-4);
    const Slider::Result got = s.run(0, 0, u, act);
    EXPECT_NEAR(got.act, act + 1e-4, 1e-15) << "dynamics " << type;
    EXPECT_NEAR(got.qacc, 3 * (act + 1e-4) / s.mass, 1e-13) << "dynamics " << type;
    a.set_actlimited(0, 0);
  }
}

TEST_F(Actuators, ActuationDisabledLeavesActivationsAndForcesOut) {
  Slider s(seed);
  auto& a = s.actuator();
  a.set_dyntype(0, 1);
  a.set_actadr(0, 0);
  a.set_actnum(0, 1);
  s.tree.message.mutable_option()->set_disableflags(1 << 11);
  const Slider::Result got = s.run(0, 0.5, 1, 0.3);
  EXPECT_EQ(got.act, 0.3);
  EXPECT_EQ(got.qacc, 0);
}

TEST_F(Actuators, ABallIsDrivenAlongTheGear) {
  Tree tree(seed);
  tree.add_body("body", 0);
  tree.add_joint(kBallJoint);
  tree.add_actuator(0);
  auto& message = tree.message;
  const double inertia[3] = {0.1, 0.2, 0.15}, gear[3] = {1, -2, 0.5};
  for (int k = 0; k < 3; ++k) {
    message.mutable_option()->set_gravity(k, 0);
    message.mutable_bodies()->set_ipos(3 + k, 0);
    message.mutable_joints()->set_pos(k, 0);
    message.mutable_bodies()->set_inertia(3 + k, inertia[k]);
    message.mutable_actuators()->set_gear(k, gear[k]);
  }
  for (int k = 0; k < 4; ++k) message.mutable_bodies()->set_iquat(4 + k, k == 0);
  message.mutable_actuators()->set_biastype(0, 1);
  message.mutable_actuators()->set_biasprm(1, -4);
  const auto m = made(message);
  Block block(*m, double_kernels());
  // Turned by 1.2 rad about an axis; the length is the turn along the gear.
  const double axis[3] = {0.6, 0, 0.8}, angle = 1.2;
  block.set(Block::kQpos, 0, 0, 2 * std::cos(angle / 2));
  for (int k = 0; k < 3; ++k) block.set(Block::kQpos, 1 + k, 0, 2 * std::sin(angle / 2) * axis[k]);
  block.set(Block::kCtrl, 0, 0, 0.7);
  block.forward();
  const double length = angle * (axis[0] * gear[0] + axis[1] * gear[1] + axis[2] * gear[2]);
  for (int k = 0; k < 3; ++k)
    EXPECT_NEAR(block.get(Block::kQacc, k, 0), gear[k] * (0.7 - 4 * length) / inertia[k], 1e-12);
}

// ---- constants that differ between environments
// ---------------------------------------------------

struct Varied {
  core::ParameterSlot slot;
  std::function<void(Model&, double)> edit;  // the same in the message
};

// One element of every field but the friction, which contacts use.
std::vector<Varied> varied_elements() {
  using core::Parameter;
  return {
      {{Parameter::kBodyMass, 2}, [](Model& m, double x) { m.mutable_bodies()->set_mass(2, x); }},
      {{Parameter::kBodyInertia, 7},
       [](Model& m, double x) { m.mutable_bodies()->set_inertia(7, x); }},
      {{Parameter::kBodyIpos, 10}, [](Model& m, double x) { m.mutable_bodies()->set_ipos(10, x); }},
      {{Parameter::kDofArmature, 8},
       [](Model& m, double x) { m.mutable_dofs()->set_armature(8, x); }},
      {{Parameter::kDofDamping, 7},
       [](Model& m, double x) { m.mutable_dofs()->set_damping(7, x); }},
      {{Parameter::kJntStiffness, 2},
       [](Model& m, double x) { m.mutable_joints()->set_stiffness(2, x); }},
      {{Parameter::kActuatorGain, 0},
       [](Model& m, double x) { m.mutable_actuators()->set_gainprm(0, x); }},
      {{Parameter::kActuatorBias, 2},
       [](Model& m, double x) { m.mutable_actuators()->set_biasprm(2, x); }},
      {{Parameter::kQpos0, 11}, [](Model& m, double x) { m.set_qpos0(11, x); }},
  };
}
Tree varied_tree(std::uint64_t seed, int integrator) {
  Tree tree = floating_tree(seed);
  tree.message.mutable_option()->set_integrator(integrator);
  tree.add_actuator(2);
  tree.message.mutable_actuators()->set_biastype(0, 1);
  return tree;
}

TEST_F(Parameters, AnEnvironmentsOwnValueEqualsTheModelMadeWithIt) {
  for (const core::Kernels* k : all_kernels())
    for (const int integrator : {0, 3})
      for (const Varied& varied : varied_elements()) {
        SCOPED_TRACE(::testing::Message()
                     << k->isa << " field " << static_cast<int>(varied.slot.field));
        Tree tree = varied_tree(seed, integrator);
        std::string error;
        const auto m = core::make_model(tree.message, {varied.slot}, &error);
        ASSERT_TRUE(m) << error;
        ASSERT_EQ(nparameters(*m), 1);
        const double own = parameter_default(*m, varied.slot), other = own + 0.3;
        Model edited = tree.message;
        varied.edit(edited, other);
        const auto as_is = made(tree.message), changed = made(edited);
        const State s = random_state(tree);
        Block block(*m, *k), plain(*as_is, *k), different(*changed, *k);
        for (int lane = 0; lane < k->lanes; ++lane) {
          for (Block* each : {&block, &plain, &different}) {
            load(*each, s, lane);
            each->set(Block::kCtrl, 0, lane, 0.5);
          }
          block.set(Block::kParameters, 0, lane, lane % 2 ? other : own);
        }
        for (Block* each : {&block, &plain, &different}) each->step(5);
        // An inertia that varies is kept in another form.
        const double tolerance = k->scalar_bytes == 4 ? 2e-5 : 1e-11;
        double most = 0;
        for (int lane = 0; lane < k->lanes; ++lane)
          for (int i = 0; i < nv(*m); ++i) {
            const Block& expected = lane % 2 ? different : plain;
            EXPECT_NEAR(block.get(Block::kQvel, i, lane), expected.get(Block::kQvel, i, lane),
                        tolerance);
            most = std::max(most, std::abs(different.get(Block::kQvel, i, lane) -
                                           plain.get(Block::kQvel, i, lane)));
          }
        EXPECT_GT(most, 1e-5) << "the value makes no difference";
        if (varied.slot.field != core::Parameter::kBodyInertia)
          EXPECT_EQ(block.bits(0), plain.bits(0)) << "the model's own value changes a bit";
      }
}

TEST_F(Parameters, MakeModelRefusesSlotsThatCannotWork) {
  using core::Parameter;
  const Tree tree = varied_tree(seed, 0);
  const auto refused = [&](const Model& message, std::vector<core::ParameterSlot> slots,
                           const std::string& part) {
    std::string error;
    EXPECT_FALSE(core::make_model(message, slots, &error)) << part;
    EXPECT_NE(error.find(part), std::string::npos) << error;
  };
  refused(tree.message, {{Parameter::kBodyMass, 99}}, "body_mass[99]");
  refused(tree.message, {{Parameter::kBodyMass, -1}}, "body_mass[-1]");
  refused(tree.message, {{static_cast<Parameter>(77), 0}}, "unknown field 77");
  refused(tree.message, {{Parameter::kQpos0, 3}}, "qpos0[3]");
  refused(tree.message, {{Parameter::kDofDamping, 1}, {Parameter::kDofDamping, 1}},
          "dof_damping[1]: given twice");
  Model message = tree.message;
  message.mutable_actuators()->set_biastype(0, 0);
  refused(message, {{Parameter::kActuatorBias, 0}}, "actuator 'actuator0'");
  message.mutable_option()->set_disableflags(1 << 6);
  refused(message, {{Parameter::kDofDamping, 1}}, "dof_damping[1]");
}

}  // namespace
}  // namespace sdpg::testing
