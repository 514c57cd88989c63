// The transposes and checks of every table against plain loops.

#include "batch/lane_kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "support/fixtures.h"

namespace sdpg::batch {
namespace {

template <class T>
void check_table(const core::Kernels& kernels, std::mt19937_64& random) {
  const LaneKernels* table = select_lane_kernels(kernels.isa, kernels.lanes, kernels.scalar_bytes);
  ASSERT_TRUE(table) << kernels.isa;
  const auto lanes = static_cast<std::uint32_t>(kernels.lanes);
  constexpr std::uint32_t kRegisters = 100;
  struct alignas(64) Line {
    T values[64 / sizeof(T)];
  };
  std::vector<Line> memory(kRegisters * lanes * sizeof(T) / 64 + 1);
  T* registers = memory[0].values;
  for (std::uint32_t i = 0; i < kRegisters * lanes; ++i)
    registers[i] = static_cast<T>(static_cast<double>(random() % 2000) / 16 - 60);
  for (const std::uint32_t count : {0u, 1u, 2u, 3u, 4u, 11u, 16u, 17u, 40u, 64u, 90u}) {
    for (std::uint32_t live = 1; live <= lanes; ++live) {
      std::vector<std::uint32_t> rows;
      for (std::uint32_t i = 0; i < count; ++i)
        rows.push_back(static_cast<std::uint32_t>(random() % kRegisters));
      std::vector<float> out(live * count + 64, -777.0f);
      table->write(registers, rows.data(), count, live, out.data());
      for (std::uint32_t lane = 0; lane < live; ++lane) {
        for (std::uint32_t i = 0; i < count; ++i)
          ASSERT_EQ(out[lane * count + i], static_cast<float>(registers[rows[i] * lanes + lane]));
      }
      for (std::size_t i = live * count; i < out.size(); ++i)
        ASSERT_EQ(out[i], -777.0f) << "written beyond the block";
    }
  }

  std::vector<std::uint32_t> rows = {3, 50, 7, 99};
  std::vector<float> sums(lanes);
  table->sum(registers, rows.data(), 4, sums.data());
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    float expected = 0;
    for (const std::uint32_t r : rows) expected += static_cast<float>(registers[r * lanes + lane]);
    EXPECT_EQ(sums[lane], expected);
  }
  EXPECT_EQ(table->unusable(registers, rows.data(), 4), 0u);
  EXPECT_EQ(table->unusable(registers, nullptr, 0), 0u);
  for (const double poison : {static_cast<double>(NAN), static_cast<double>(INFINITY), -2e10}) {
    const std::uint32_t lane = static_cast<std::uint32_t>(random() % lanes);
    const T kept = registers[50 * lanes + lane];
    registers[50 * lanes + lane] = static_cast<T>(poison);
    EXPECT_EQ(table->unusable(registers, rows.data(), 4), 1u << lane);
    EXPECT_EQ(table->unusable(registers, rows.data(), 1), 0u);
    registers[50 * lanes + lane] = kept;
  }
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    for (const std::uint32_t r : rows) registers[r * lanes + lane] = 0;
  }
  EXPECT_EQ(table->nonzero(registers, rows.data(), 4), 0u);
  registers[99 * lanes + lanes - 1] = 1;
  registers[3 * lanes] = static_cast<T>(NAN);
  EXPECT_EQ(table->nonzero(registers, rows.data(), 4), 1u | 1u << (lanes - 1));
}

TEST(LaneKernels, AgreeWithPlainLoopsOnEveryTable) {
  std::mt19937_64 random(testing::test_seed());
  SCOPED_TRACE(::testing::Message() << "seed " << testing::test_seed());
  for (const core::Kernels* kernels : testing::all_kernels()) {
    if (kernels->scalar_bytes == 8)
      check_table<double>(*kernels, random);
    else
      check_table<float>(*kernels, random);
  }
}

}  // namespace
}  // namespace sdpg::batch
