// Loops over parts mean the same in every mapping: a team that goes through them in shuffled order,
// as the threads of a GPU might, gives the same bits.
#include "core/team.h"

#include <numeric>

#include "core/block.h"
#include "core/tables.h"

namespace sdpg::testing {
namespace {

class Order : public ::testing::Test {
 protected:
  ~Order() override { core::set_emulated_order(1); }
};

TEST_F(Order, StepGivesTheSameBitsInAnyOrderOfParts) {
  const std::uint64_t seed = test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  const auto m = made(hopper_message());
  std::string error;
  for (const core::Precision precision : {core::Precision::kFloat32, core::Precision::kFloat64}) {
    const core::Kernels* k = core::select_kernels(precision, "emulated", &error);
    ASSERT_TRUE(k) << error;
    std::vector<std::vector<unsigned char>> seen;
    for (const std::uint32_t order : {0u, 1u, 2u, 77u, 123456u}) {
      core::set_emulated_order(order);
      std::mt19937_64 random(seed);
      Block block(*m, *k);
      block.randomize(0, random);
      block.step(200);
      EXPECT_EQ(block.status(0), 0u);
      seen.push_back(block.bits(0));
    }
    for (const auto& bits : seen) EXPECT_EQ(bits, seen[0]) << 8 * k->scalar_bytes;
  }
}

TEST(Team, EachVisitsEveryPartOnce) {
  for (const std::uint32_t seed : {0u, 1u, 5u, 1000u})
    for (const int count : {0, 1, 2, 7, 8, 9, 31, 100}) {
      core::EmulatedTeam<8> team;
      team.seed = seed;
      for (int round = 0; round < 5; ++round) {
        std::vector<int> visits(count + 3);
        team.each(3, count + 3, [&](int i) { visits[i] += 1; });
        EXPECT_EQ(std::accumulate(visits.begin(), visits.end(), 0), count);
        for (int i = 3; i < count + 3; ++i) EXPECT_EQ(visits[i], 1) << "seed " << seed;
      }
    }
}

TEST(Team, SumHasOneOrderAndUniteNone) {
  using P = core::Pack<float, 1>;
  const auto value = [](int i) { return P(1.0f / static_cast<float>(i * i + 1)); };
  const auto mask = [](int i) { return 1u << i % 32; };
  core::EmulatedTeam<4> first;
  const float expected = first.sum<P>(0, 1000, value)[0];
  EXPECT_NEAR(expected, (core::Alone{}.sum<P>(0, 1000, value)[0]), 1e-5);
  for (std::uint32_t seed = 1; seed < 20; ++seed) {
    core::EmulatedTeam<4> team;
    team.seed = seed;
    EXPECT_EQ((team.sum<P>(0, 1000, value)[0]), expected) << "seed " << seed;
    EXPECT_EQ(team.unite(5, 9, mask), 0x1e0u);
  }
}

TEST(Team, CollectKeepsTheOrderOfParts) {
  const auto gathered = [](const auto& team) {
    std::vector<int> items(200, -1);
    int counter = 2;
    team.template collect<int>(
        50, &counter,
        [](int i, int& local) {
          local = 100 * i;
          return i % 4;
        },
        [&](int, const int& local, int at, int count) {
          for (int k = 0; k < count; ++k) items[at + k] = local + k;
        });
    EXPECT_EQ(counter, 2 + 73);
    return items;
  };
  const std::vector<int> expected = gathered(core::Alone{});
  EXPECT_EQ(expected[2], 100);
  EXPECT_EQ(expected[74], 4900);
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    core::EmulatedTeam<8> team;
    team.seed = seed;
    EXPECT_EQ(gathered(team), expected) << "seed " << seed;
  }
}

}  // namespace
}  // namespace sdpg::testing
