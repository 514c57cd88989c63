// The physics kernel as a GPU runs it, on the CPU's stand-in for a device: shared and global memory
// of the sizes that are planned, teams taking turns, and members of a team each running the kernel.
#include <random>

#include "core/block.h"
#include "core/model.h"
#include "cuda/environments.h"

namespace sdpg::cuda {
namespace {

using testing::Block;

constexpr std::uint32_t kCount = 7;

// Random states of `model`, the same for each seed.
void randomize(Environments& environments, const core::Model& m, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> one(-1, 1);
  const Rows& rows = environments.args.state.rows;
  for (std::uint32_t e = 0; e < kCount; ++e) {
    for (int i = 0; i < m.nq; ++i)
      environments.number(e, rows.qpos + i) = static_cast<float>(m.d.qpos0[i]) + 0.3f * one(random);
    for (int i = 0; i < m.nv; ++i) environments.number(e, rows.qvel + i) = one(random);
    for (int i = 0; i < m.nu; ++i) environments.number(e, rows.ctrl + i) = one(random);
  }
  environments.put();
}

std::vector<float> stepped(const core::Model& m, std::uint32_t order, bool fibers,
                           std::uint64_t seed) {
  const auto device = Device::emulated(order, fibers);
  std::string error;
  const auto environments = Environments::create(*device, m, kCount, &error);
  EXPECT_TRUE(environments) << error;
  randomize(*environments, m, seed);
  for (int t = 0; t < 3; ++t) environments->step(4);
  environments->get();
  for (const std::uint32_t status : environments->status()) EXPECT_EQ(status, 0u);
  return environments->host();
}

TEST(DevicePhysics, StepGivesTheSameBitsWhetherMembersShareOrOneStandsForThem) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  const auto model = testing::made(testing::hopper_message());
  const std::vector<float> expected = stepped(*model, 1, false, seed);
  for (const bool fibers : {false, true})
    for (const std::uint32_t order : {2u, 99u})
      EXPECT_EQ(stepped(*model, order, fibers, seed), expected) << fibers << " order " << order;
}

TEST(DevicePhysics, StepGivesTheBitsOfTheEmulatedTable) {
  const std::uint64_t seed = testing::test_seed();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  const auto model = testing::made(testing::hopper_message());
  const core::Model& m = *model;
  std::string error;
  const core::Kernels* k = core::select_kernels(core::Precision::kFloat32, "emulated", &error);
  ASSERT_TRUE(k) << error;
  const auto device = Device::emulated(1, false);
  const auto environments = Environments::create(*device, m, kCount, &error);
  ASSERT_TRUE(environments) << error;
  const Rows& rows = environments->args.state.rows;
  std::mt19937_64 random(seed);
  std::vector<std::unique_ptr<Block>> blocks;
  for (std::uint32_t e = 0; e < kCount; ++e) {
    blocks.push_back(std::make_unique<Block>(m, *k));
    blocks[e]->randomize(0, random);
    const auto copy = [&](std::uint32_t row, Block::Array array, int count) {
      for (int i = 0; i < count; ++i)
        environments->number(e, row + i) = static_cast<float>(blocks[e]->get(array, i, 0));
    };
    copy(rows.qpos, Block::kQpos, m.nq);
    copy(rows.qvel, Block::kQvel, m.nv);
    copy(rows.ctrl, Block::kCtrl, m.nu);
    copy(rows.warmstart, Block::kWarm, m.nv);
  }
  environments->put();
  for (int t = 0; t < 5; ++t) environments->step(20);
  environments->get();
  for (std::uint32_t e = 0; e < kCount; ++e) {
    blocks[e]->step(100);
    const auto expect = [&](std::uint32_t row, Block::Array array, int count) {
      for (int i = 0; i < count; ++i)
        ASSERT_EQ(environments->number(e, row + i), blocks[e]->get(array, i, 0))
            << "environment " << e << " row " << row + i;
    };
    expect(rows.qpos, Block::kQpos, m.nq);
    expect(rows.qvel, Block::kQvel, m.nv);
    expect(rows.warmstart, Block::kWarm, m.nv);
    EXPECT_EQ(environments->status()[e], blocks[e]->status(0));
  }
}

// What gpu_check.sh reads belongs to this build.
TEST(FlatModel, CommittedFilesHaveThisLayout) {
  for (const char* name : {"hopper", "walker", "ant", "humanoid"}) {
    std::string error;
    const auto model =
        core::load_flat_model(testing::read_file(std::string(name) + ".flat"), &error);
    ASSERT_TRUE(model) << name << ": " << error << "; see gpu-sim/tests/data/README.md";
    EXPECT_EQ(model->nu, model->nv - (model->jnt_type[0] == core::JointType::kFree ? 6 : 3))
        << name;
  }
}

TEST(FlatModel, LoadsWhatWasSaved) {
  const auto model = testing::made(testing::hopper_message());
  const std::string file = save_flat_model(core::flatten_model(*model));
  std::string error;
  const auto loaded = core::load_flat_model(file, &error);
  ASSERT_TRUE(loaded) << error;
  for (const core::Kernels* k : testing::all_kernels()) {
    Block one(*model, *k), other(*loaded, *k);
    std::mt19937_64 random(testing::test_seed()), same(testing::test_seed());
    one.randomize(0, random);
    other.randomize(0, same);
    one.step(50);
    other.step(50);
    EXPECT_EQ(one.bits(0), other.bits(0)) << k->isa;
  }
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{10}, file.size() - 1}) {
    EXPECT_FALSE(core::load_flat_model(file.substr(0, bytes), &error));
    EXPECT_NE(error.find("flat model"), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace sdpg::cuda
