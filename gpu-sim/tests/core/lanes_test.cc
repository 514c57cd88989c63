// What a lane computes depends on nothing but its own state: not on what its neighbours hold, not
// on which lane it is, not on the number of threads. All comparisons are of bits.
#include <cmath>
#include <limits>

#include "core/block.h"
#include "gpu_sim.h"

namespace sdpg::testing {
namespace {

class Lanes : public ::testing::TestWithParam<const core::Kernels*> {
 protected:
  const core::Kernels& k = *GetParam();
  const std::uint64_t seed = test_seed();
  std::mt19937_64 random{seed};
  const std::shared_ptr<const core::Model> m = made(hopper_message());
  ::testing::ScopedTrace trace{__FILE__, __LINE__, ::testing::Message() << "seed " << seed};
};

TEST_P(Lanes, StepLeavesNeighboursAloneWhenALaneIsNotFinite) {
  const double bad[] = {std::nan(""), std::numeric_limits<double>::infinity(), -1e11};
  const Block::Array places[] = {Block::kQpos, Block::kQvel, Block::kCtrl};
  for (const double value : bad)
    for (const Block::Array place : places) {
      if (place == Block::kCtrl && !std::isnan(value)) continue;  // clamped, which is right
      Block clean(*m, k), poisoned(*m, k);
      const int victim = static_cast<int>(random() % k.lanes);
      for (int lane = 0; lane < k.lanes; ++lane) {
        std::mt19937_64 twin = random;
        clean.randomize(lane, random);
        poisoned.randomize(lane, twin);
      }
      for (int t = 0; t < 40; ++t) {
        if (t == 5) poisoned.set(place, 1, victim, value);
        const std::vector<unsigned char> before = poisoned.bits(victim);
        clean.step(1);
        poisoned.step(1);
        if (t < 5) continue;
        EXPECT_EQ(poisoned.status(victim), core::kNonFinite) << k.isa << " step " << t;
        EXPECT_EQ(poisoned.bits(victim), before) << "a faulty lane keeps its last state";
        for (int lane = 0; lane < k.lanes; ++lane) {
          if (lane == victim) continue;
          ASSERT_EQ(poisoned.status(lane), 0u);
          ASSERT_EQ(poisoned.bits(lane), clean.bits(lane)) << k.isa << " lane " << lane;
        }
      }
    }
}

TEST_P(Lanes, StepKeepsTheLastFiniteStateWhenALaneRunsAway) {
  Block block(*m, k);
  for (int lane = 0; lane < k.lanes; ++lane) block.randomize(lane, random);
  block.set(Block::kQvel, 2, 0, 9e7);  // its acceleration exceeds what is accepted
  block.step(1);
  EXPECT_EQ(block.status(0), core::kNonFinite);
  EXPECT_NEAR(block.get(Block::kQvel, 2, 0), 9e7, 10);
  for (int lane = 1; lane < k.lanes; ++lane) EXPECT_EQ(block.status(lane), 0u);
}

TEST_P(Lanes, StepGivesTheSameBitsInAnyLaneBesideAnyNeighbours) {
  std::vector<std::vector<unsigned char>> seen;
  for (int lane = 0; lane < k.lanes; ++lane)
    for (int company = 0; company < 3; ++company) {
      Block block(*m, k);
      for (int other = 0; other < k.lanes; ++other) {
        if (company > 0) block.randomize(other, random);
        std::mt19937_64 same(seed);
        if (other == lane) block.randomize(lane, same);
      }
      for (int t = 0; t < 60; ++t) block.step(1);
      seen.push_back(block.bits(lane));
      EXPECT_EQ(block.status(lane), 0u);
    }
  for (const auto& bits : seen) EXPECT_EQ(bits, seen[0]) << k.isa << "/" << k.scalar_bytes;
}

// Standing still at the reference, where many terms are exactly zero and a zero of the other sign
// would be seen.
TEST_P(Lanes, StepGivesTheSameBitsAtRestWhenNeighboursAreInContact) {
  Block alone(*m, k), beside(*m, k);
  for (int lane = 1; lane < k.lanes; ++lane) beside.randomize(lane, random);
  for (int t = 0; t < 100; ++t) {
    alone.step(1);
    beside.step(1);
    ASSERT_EQ(alone.bits(0), beside.bits(0)) << k.isa << " step " << t;
  }
}

TEST_P(Lanes, StepInOneCallEqualsStepsOneByOne) {
  Block together(*m, k), apart(*m, k);
  for (int lane = 0; lane < k.lanes; ++lane) {
    std::mt19937_64 twin = random;
    together.randomize(lane, random);
    apart.randomize(lane, twin);
  }
  together.step(25);
  for (int t = 0; t < 25; ++t) apart.step(1);
  for (int lane = 0; lane < k.lanes; ++lane) EXPECT_EQ(together.bits(lane), apart.bits(lane));
}

INSTANTIATE_TEST_SUITE_P(Tables, Lanes, ::testing::ValuesIn(all_kernels()),
                         [](const ::testing::TestParamInfo<const core::Kernels*>& info) {
                           return std::string(info.param->isa) + "_" +
                                  std::to_string(8 * info.param->scalar_bytes);
                         });

TEST(PhysicsBoundary, StepGivesTheSameBitsForAnyNumberOfThreads) {
  const std::string model = read_file("hopper.model.binpb");
  constexpr int kEnvironments = 37;
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 5}) {
    gpu_sim_physics* physics = nullptr;
    char error[200] = "";
    ASSERT_EQ(
        gpu_sim_physics_create(reinterpret_cast<const std::uint8_t*>(model.data()), model.size(),
                               kEnvironments, 4, threads, "", &physics, error, sizeof error),
        0)
        << error;
    std::mt19937_64 random(test_seed());
    std::uniform_real_distribution<double> one(-1, 1);
    std::vector<double> qpos(kEnvironments * 6), qvel(qpos.size()), ctrl(kEnvironments * 3);
    for (double& x : qpos) x = 0.4 * one(random);
    for (double& x : qvel) x = 2 * one(random);
    for (double& x : ctrl) x = one(random);
    gpu_sim_physics_set(physics, qpos.data(), qvel.data(), ctrl.data());
    gpu_sim_physics_step(physics, 50);
    std::vector<double> out(2 * qpos.size());
    gpu_sim_physics_get(physics, out.data(), out.data() + qpos.size());
    results.push_back(out);
    gpu_sim_physics_destroy(physics);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

}  // namespace
}  // namespace sdpg::testing
