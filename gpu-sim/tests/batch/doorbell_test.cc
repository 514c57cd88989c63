// The doorbell between two threads, as between two processes: rings, answers, time limits.

#include "batch/doorbell.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "batch/batch.h"

namespace sdpg::batch {
namespace {

TEST(Doorbell, HoldsMeansAndLogStdsBehindItsHeader) {
  EXPECT_EQ(Doorbell::bytes(0), 960u);
  EXPECT_EQ(Doorbell::bytes(3), 1024u);
  EXPECT_EQ(Doorbell::bytes(192), 960u + 2 * 192 * 4);
}

TEST(Doorbell, AnswersEveryRingOnce) {
  auto bell = std::make_unique<Doorbell>();
  bell->listen();
  std::uint32_t served = 0;
  std::thread server([&] {
    while (true) {
      while (!bell->await_ring(1000)) {
      }
      const std::uint32_t command = bell->command;
      served += command == Doorbell::kStep;
      bell->answer(0, "");
      if (command == Doorbell::kEnd) return;
    }
  });
  bell->command = Doorbell::kStep;
  for (int i = 0; i < 2000; ++i) ASSERT_TRUE(bell->ring(10'000));
  bell->command = Doorbell::kEnd;
  ASSERT_TRUE(bell->ring(10'000));
  server.join();
  EXPECT_EQ(served, 2000u);
}

TEST(Doorbell, GivesUpAfterItsTimeAndTakesTheLateAnswer) {
  auto bell = std::make_unique<Doorbell>();
  bell->listen();
  EXPECT_FALSE(bell->await_ring(1));
  EXPECT_FALSE(bell->ring(1));
  EXPECT_TRUE(bell->await_ring(1));  // the ring is not lost
  EXPECT_FALSE(bell->await_answer(1));
  bell->answer(9, "reason");
  EXPECT_TRUE(bell->await_answer(1));
  EXPECT_EQ(bell->status, 9u);
  EXPECT_STREQ(bell->error, "reason");
}

TEST(Doorbell, ForgetsRingsFromBeforeItListens) {
  auto bell = std::make_unique<Doorbell>();
  EXPECT_FALSE(bell->ring(0));
  bell->listen();
  EXPECT_FALSE(bell->await_ring(1));
}

TEST(Doorbell, SumsTheReportsOfASegment) {
  auto bell = std::make_unique<Doorbell>();
  bell->listen();
  StepReport report;
  report.nominals_done = 2;
  report.faults = 1;
  report.phases[0] = {"noise", 1'000, 3'000};
  report.phases[1] = {"physics", 3'000, 503'000};
  bell->add(report);
  report.phases[1] = {"physics", 1'003'000, 1'503'000};
  bell->add(report);
  EXPECT_EQ(bell->nominals_done, 4u);
  EXPECT_EQ(bell->faults, 2u);
  EXPECT_EQ(bell->phase_count, 2u);
  EXPECT_STREQ(bell->phases[1].name, "physics");
  EXPECT_DOUBLE_EQ(bell->phases[1].seconds, 1e-3);
  EXPECT_EQ(bell->phases[1].count, 2u);
  EXPECT_EQ(bell->phases[1].start_unix_nano, 3'000u);
  bell->listen();
  EXPECT_EQ(bell->phase_count, 0u);
  EXPECT_EQ(bell->phases[1].seconds, 0.0);
}

TEST(Doorbell, CutsALongLine) {
  auto bell = std::make_unique<Doorbell>();
  bell->answer(3, std::string(5000, 'x').c_str());
  EXPECT_EQ(std::string(bell->error), std::string(511, 'x'));
}

}  // namespace
}  // namespace sdpg::batch
