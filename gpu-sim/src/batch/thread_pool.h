// A fixed set of threads that runs the items of one loop at a time. The caller works too. Which
// thread runs an item is left to chance, so items must not depend on each other or on the worker.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace sdpg::batch {

class ThreadPool {
 public:
  // `threads` workers in all, the caller included; at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls f(item, worker) for every item in [0, items), worker in [0, threads()); returns when all
  // have finished. Callers on several threads take turns.
  template <class Function>
  void run(int items, const Function& f) {
    run(items, &f, [](const void* context, int item, int worker) {
      (*static_cast<const Function*>(context))(item, worker);
    });
  }

 private:
  using Call = void (*)(const void* context, int item, int worker);

  void run(int items, const void* context, Call call);
  void work(int worker);
  void take_items(int worker);

  std::mutex turn_;  // held by the caller whose loop is running
  // The loop that runs; written before `generation_` moves on.
  const void* context_ = nullptr;
  Call call_ = nullptr;
  int items_ = 0;
  std::atomic<int> next_{0};
  std::atomic<int> busy_{0};  // workers that have not left the loop yet
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<bool> stop_{false};
  std::mutex sleep_;
  std::condition_variable wake_, finished_;
  std::vector<std::thread> workers_;
};

}  // namespace sdpg::batch
