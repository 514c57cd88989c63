#include "batch/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

namespace sdpg::batch {
namespace {

TEST(ThreadPool, RunsEveryItemOnceOnAWorkerItHas) {
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int items : {0, 1, 3, 1000}) {
      for (int round = 0; round < 50; ++round) {
        std::vector<std::atomic<int>> ran(items);
        pool.run(items, [&](int item, int worker) {
          ran[item] += 1;
          if (worker < 0 || worker >= threads) std::abort();
        });
        for (const auto& r : ran) ASSERT_EQ(r.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, LetsCallersTakeTurns) {
  ThreadPool pool(3);
  std::atomic<int> sum{0}, inside{0};
  const auto caller = [&] {
    for (int round = 0; round < 200; ++round) {
      pool.run(10, [&](int item, int) {
        inside += 1;
        sum += item;
        inside -= 1;
      });
    }
  };
  std::thread other(caller);
  caller();
  other.join();
  EXPECT_EQ(sum.load(), 2 * 200 * 45);
  EXPECT_EQ(inside.load(), 0);
}

}  // namespace
}  // namespace sdpg::batch
