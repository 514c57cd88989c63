// Identities that mechanics and optimality demand of the core, checked with quantities obtained
// without it: velocities and Jacobians come from differences of the frames that `kinematics`
// writes.
#include <cmath>

#include "core/block.h"

namespace sdpg::testing {
namespace {

constexpr int kNoLimit = 1 << 3, kNoContact = 1 << 4;

const core::Kernels& double_kernels() {
  std::string error;
  const core::Kernels* k = core::select_kernels(core::Precision::kFloat64, "", &error);
  EXPECT_NE(k, nullptr) << error;
  return *k;
}

// Frames of the bodies of lane 0 at a configuration.
struct Frames {
  std::vector<double> xpos, xquat, xipos;
};
Frames frames_at(Block& block, const core::Model& m, const std::vector<double>& qpos) {
  for (int i = 0; i < nq(m); ++i) block.set(Block::kQpos, i, 0, qpos[i]);
  block.kinematics();
  return {block.row(Block::kXpos, 3 * nbody(m), 0), block.row(Block::kXquat, 4 * nbody(m), 0),
          block.row(Block::kXipos, 3 * nbody(m), 0)};
}

// Linear velocity of each centre of mass and angular velocity of each body per unit of `direction`.
struct Motion {
  std::vector<double> linear, angular;  // [nbody*3]
  std::vector<double> origin;           // [nbody*3] velocity of the body's origin
};
Motion motion_along(const core::Model& m, const std::vector<double>& qpos,
                    const std::vector<double>& direction) {
  Block block(m, double_kernels());
  const double e = 1e-5;
  std::vector<double> plus = qpos, minus = qpos;
  for (int i = 0; i < nq(m); ++i) {
    plus[i] += e * direction[i];
    minus[i] -= e * direction[i];
  }
  const Frames a = frames_at(block, m, minus), b = frames_at(block, m, plus);
  Motion out;
  for (int i = 0; i < 3 * nbody(m); ++i) {
    out.linear.push_back((b.xipos[i] - a.xipos[i]) / (2 * e));
    out.origin.push_back((b.xpos[i] - a.xpos[i]) / (2 * e));
  }
  for (int i = 0; i < nbody(m); ++i) {
    // Rotation from one to the other, b * conj(a); its vector part is half the angle.
    const double *p = &b.xquat[4 * i], *q = &a.xquat[4 * i];
    out.angular.push_back((-p[0] * q[1] + p[1] * q[0] - p[2] * q[3] + p[3] * q[2]) / e);
    out.angular.push_back((-p[0] * q[2] + p[1] * q[3] + p[2] * q[0] - p[3] * q[1]) / e);
    out.angular.push_back((-p[0] * q[3] - p[1] * q[2] + p[2] * q[1] + p[3] * q[0]) / e);
  }
  return out;
}

// I w for a body's inertia in the world.
void inertia_times(const model::v1::Model& message, const double* body_quat, int body,
                   const double* w, double* out) {
  const auto& b = message.bodies();
  double iq[4], q[4];
  for (int k = 0; k < 4; ++k) iq[k] = b.iquat(4 * body + k);
  const double* p = body_quat;
  q[0] = p[0] * iq[0] - p[1] * iq[1] - p[2] * iq[2] - p[3] * iq[3];
  q[1] = p[0] * iq[1] + p[1] * iq[0] + p[2] * iq[3] - p[3] * iq[2];
  q[2] = p[0] * iq[2] - p[1] * iq[3] + p[2] * iq[0] + p[3] * iq[1];
  q[3] = p[0] * iq[3] + p[1] * iq[2] - p[2] * iq[1] + p[3] * iq[0];
  const double R[3][3] = {{1 - 2 * (q[2] * q[2] + q[3] * q[3]), 2 * (q[1] * q[2] - q[0] * q[3]),
                           2 * (q[1] * q[3] + q[0] * q[2])},
                          {2 * (q[1] * q[2] + q[0] * q[3]), 1 - 2 * (q[1] * q[1] + q[3] * q[3]),
                           2 * (q[2] * q[3] - q[0] * q[1])},
                          {2 * (q[1] * q[3] - q[0] * q[2]), 2 * (q[2] * q[3] + q[0] * q[1]),
                           1 - 2 * (q[1] * q[1] + q[2] * q[2])}};
  double local[3];
  for (int k = 0; k < 3; ++k)
    local[k] = b.inertia(3 * body + k) * (R[0][k] * w[0] + R[1][k] * w[1] + R[2][k] * w[2]);
  for (int k = 0; k < 3; ++k) out[k] = R[k][0] * local[0] + R[k][1] * local[1] + R[k][2] * local[2];
}

// Joint-space inertia from the motions of the bodies: sum of m v_i.v_j + w_i.I w_j.
std::vector<double> inertia_matrix(const model::v1::Model& message, const core::Model& m,
                                   const std::vector<double>& qpos) {
  const int n = nv(m);
  std::vector<Motion> motion;
  for (int i = 0; i < n; ++i) {
    std::vector<double> unit(n);
    unit[i] = 1;
    motion.push_back(motion_along(m, qpos, unit));
  }
  Block block(m, double_kernels());
  const Frames frames = frames_at(block, m, qpos);
  std::vector<double> M(n * n);
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      for (int b = 1; b < nbody(m); ++b) {
        double Iw[3];
        inertia_times(message, &frames.xquat[4 * b], b, &motion[j].angular[3 * b], Iw);
        for (int k = 0; k < 3; ++k)
          M[i * n + j] +=
              message.bodies().mass(b) * motion[i].linear[3 * b + k] * motion[j].linear[3 * b + k] +
              motion[i].angular[3 * b + k] * Iw[k];
      }
      if (i == j) M[i * n + j] += message.dofs().armature(i);
    }
  return M;
}

struct Mechanics {
  double energy, momentum_x, momentum_z;
};
Mechanics mechanics(const model::v1::Model& message, const core::Model& m,
                    const std::vector<double>& qpos, const std::vector<double>& qvel) {
  const Motion motion = motion_along(m, qpos, qvel);
  Block block(m, double_kernels());
  const Frames frames = frames_at(block, m, qpos);
  Mechanics out{};
  for (int b = 1; b < nbody(m); ++b) {
    const double mass = message.bodies().mass(b);
    double Iw[3];
    inertia_times(message, &frames.xquat[4 * b], b, &motion.angular[3 * b], Iw);
    for (int k = 0; k < 3; ++k) {
      out.energy += 0.5 * mass * motion.linear[3 * b + k] * motion.linear[3 * b + k] +
                    0.5 * motion.angular[3 * b + k] * Iw[k];
      out.energy -= mass * message.option().gravity(k) * frames.xipos[3 * b + k];
    }
    out.momentum_x += mass * motion.linear[3 * b];
    out.momentum_z += mass * motion.linear[3 * b + 2];
  }
  return out;
}

// Where a free hopper is after `seconds`, stepped with `timestep`.
Mechanics after(double seconds, double timestep, bool driven, Mechanics* before) {
  model::v1::Model message = hopper_message();
  message.mutable_option()->set_disableflags(kNoContact | kNoLimit);
  message.mutable_option()->set_timestep(timestep);
  const auto m = made(message);
  Block block(*m, double_kernels());
  const std::vector<double> qpos = {0, 0.3, 0.4, -0.7, -0.9, 0.3}, qvel = {1, 2, -2, 3, -4, 5};
  for (int i = 0; i < 6; ++i) {
    block.set(Block::kQpos, i, 0, qpos[i]);
    block.set(Block::kQvel, i, 0, qvel[i]);
  }
  for (int i = 0; i < 3; ++i) block.set(Block::kCtrl, i, 0, driven ? 0.1 * (i + 1) : 0);
  *before = mechanics(message, *m, qpos, qvel);
  block.step(static_cast<int>(std::lround(seconds / timestep)));
  EXPECT_EQ(block.status(0), 0u);
  return mechanics(message, *m, block.row(Block::kQpos, 6, 0), block.row(Block::kQvel, 6, 0));
}

TEST(Physics, StepConservesEnergyToFirstOrderWhenNothingActs) {
  Mechanics start, start_half;
  const double drift = after(0.2, 2e-4, false, &start).energy - start.energy;
  const double half = after(0.2, 1e-4, false, &start_half).energy - start_half.energy;
  EXPECT_LT(std::abs(drift), 0.01 * std::abs(start.energy));
  EXPECT_NEAR(drift / half, 2, 0.1) << "the error of Euler's method halves with the step";
}

TEST(Physics, StepKeepsHorizontalMomentumAndFallsWithGravityWhenDriven) {
  Mechanics start;
  const double seconds = 0.2;
  const Mechanics coarse = after(seconds, 2e-4, true, &start);
  const Mechanics fine = after(seconds, 1e-4, true, &start);
  const double mass = hopper_message().total_mass();
  const auto error_x = [&](const Mechanics& x) { return x.momentum_x - start.momentum_x; };
  const auto error_z = [&](const Mechanics& x) {
    return x.momentum_z - start.momentum_z + mass * 9.81 * seconds;
  };
  // Euler's error is proportional to the step, so twice the finer result less the coarser has none.
  EXPECT_NEAR(error_x(coarse) / error_x(fine), 2, 0.2);
  EXPECT_NEAR(error_z(coarse) / error_z(fine), 2, 0.2);
  EXPECT_NEAR(2 * error_x(fine), error_x(coarse), 2e-4 * mass * 9.81);
  EXPECT_NEAR(2 * error_z(fine), error_z(coarse), 2e-4 * mass * 9.81);
}

TEST(Physics, SmoothAccelerationInvertsTheInertiaOfTheBodiesMotions) {
  // A unit motor on every joint reads out the columns of the inverse.
  model::v1::Model message = hopper_message();
  const int n = message.joints().name_size();
  auto* a = message.mutable_actuators();
  a->Clear();
  for (int i = 0; i < n; ++i) {
    a->add_name("motor");
    a->add_trntype(0);
    a->add_trnid(i);
    for (const auto field : {a->mutable_ctrllimited(), a->mutable_forcelimited(),
                             a->mutable_dyntype(), a->mutable_gaintype(), a->mutable_biastype()})
      field->Add(0);
    for (int k = 0; k < 6; ++k) a->add_gear(k == 0);
    for (int k = 0; k < 2; ++k) {
      a->add_ctrlrange(0);
      a->add_forcerange(0);
    }
    for (int k = 0; k < 10; ++k) {
      a->add_dynprm(0);
      a->add_gainprm(k == 0);
      a->add_biasprm(0);
    }
    message.mutable_dofs()->set_armature(i, 0.01 * i);
  }
  const auto m = made(message);
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (int trial = 0; trial < 10; ++trial) {
    Block block(*m, double_kernels());
    block.randomize(0, random);
    const std::vector<double> qpos = block.row(Block::kQpos, n, 0);
    const std::vector<double> M = inertia_matrix(message, *m, qpos);
    std::vector<std::vector<double>> response;
    for (int column = -1; column < n; ++column) {
      for (int i = 0; i < n; ++i) block.set(Block::kCtrl, i, 0, i == column);
      block.forward();
      response.push_back(block.row(Block::kSmooth, n, 0));
    }
    for (int i = 0; i < n; ++i)
      for (int column = 0; column < n; ++column) {
        double sum = 0;
        for (int k = 0; k < n; ++k)
          sum += M[i * n + k] * (response[column + 1][k] - response[0][k]);
        EXPECT_NEAR(sum, i == column, 2e-6) << "row " << i << " column " << column;
      }
  }
}

TEST(Physics, ForwardSatisfiesTheOptimalityConditionsWhenInContact) {
  model::v1::Model message = hopper_message();
  message.mutable_option()->set_disableflags(kNoLimit);
  message.mutable_option()->set_tolerance(0);
  const auto m = made(message);
  const int n = nv(*m);
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  int touched = 0;
  for (int trial = 0; trial < 40; ++trial) {
    Block block(*m, double_kernels());
    block.randomize(0, random);
    block.forward();
    const std::vector<double> qpos = block.row(Block::kQpos, n, 0);
    const std::vector<double> qacc = block.row(Block::kQacc, n, 0),
                              smooth = block.row(Block::kSmooth, n, 0),
                              force = block.row(Block::kForce, n, 0);
    const auto contacts = block.contacts(0);
    touched += !contacts.empty();
    double scale = 100;
    for (const double f : force) scale = std::max(scale, std::abs(f));

    // Stationarity: M (qacc - qacc_smooth) is the force of the constraints.
    const std::vector<double> M = inertia_matrix(message, *m, qpos);
    for (int i = 0; i < n; ++i) {
      double sum = 0;
      for (int k = 0; k < n; ++k) sum += M[i * n + k] * (qacc[k] - smooth[k]);
      EXPECT_NEAR(sum, force[i], 1e-5 * scale) << "trial " << trial << " dof " << i;
    }

    // That force is what the contact forces do to the joints, and each lies in its pyramid.
    std::vector<Motion> motion;
    for (int i = 0; i < n; ++i) {
      std::vector<double> unit(n);
      unit[i] = 1;
      motion.push_back(motion_along(*m, qpos, unit));
    }
    Block frames_block(*m, double_kernels());
    const Frames frames = frames_at(frames_block, *m, qpos);
    std::vector<double> pulled(n);
    for (const std::vector<double>& c : contacts) {
      const double *position = &c[1], *frame = &c[4], *f = &c[15];
      const int g1 = static_cast<int>(c[13]), g2 = static_cast<int>(c[14]);
      const double mu =
          std::max(message.geoms().friction(3 * g1), message.geoms().friction(3 * g2));
      EXPECT_GE(f[0], 0);
      EXPECT_LE(std::abs(f[1]) + std::abs(f[2]), mu * f[0] + 1e-9 * scale);
      for (int i = 0; i < n; ++i)
        for (const int side : {-1, 1}) {
          const int b = message.geoms().bodyid(side < 0 ? g1 : g2);
          const double* w = &motion[i].angular[3 * b];
          double arm[3], velocity[3];
          for (int k = 0; k < 3; ++k) arm[k] = position[k] - frames.xpos[3 * b + k];
          for (int k = 0; k < 3; ++k)
            velocity[k] = motion[i].origin[3 * b + k] + w[(k + 1) % 3] * arm[(k + 2) % 3] -
                          w[(k + 2) % 3] * arm[(k + 1) % 3];
          for (int k = 0; k < 3; ++k)
            for (int axis = 0; axis < 3; ++axis)
              pulled[i] += side * velocity[k] * frame[3 * axis + k] * f[axis];
        }
    }
    for (int i = 0; i < n; ++i)
      EXPECT_NEAR(pulled[i], force[i], 1e-6 * scale) << "trial " << trial << " dof " << i;
  }
  EXPECT_GT(touched, 10);
}

TEST(Physics, ForwardReportsLanesThatRanOutOfIterations) {
  model::v1::Model message = hopper_message();
  const auto enough = made(message);
  message.mutable_option()->set_iterations(1);
  const auto few = made(message);
  for (const core::Kernels* k : all_kernels()) {
    std::mt19937_64 random(test_seed());
    Block hasty(*few, *k), patient(*enough, *k);
    int reported = 0;
    for (int trial = 0; trial < 20; ++trial) {
      for (int lane = 0; lane < k->lanes; ++lane) {
        hasty.randomize(lane, random);
        for (int i = 0; i < 6; ++i) {
          patient.set(Block::kQpos, i, lane, hasty.get(Block::kQpos, i, lane));
          patient.set(Block::kQvel, i, lane, hasty.get(Block::kQvel, i, lane));
        }
      }
      hasty.forward();
      patient.forward();
      for (int lane = 0; lane < k->lanes; ++lane) {
        reported += (hasty.status(lane) & core::kNotConverged) != 0;
        EXPECT_EQ(patient.status(lane), 0u);
      }
    }
    EXPECT_GT(reported, 0) << k->isa;
  }
}

}  // namespace
}  // namespace sdpg::testing
