// Thread pool: a call publishes a job, every thread (the caller too) takes task numbers from a
// counter until none is left, and the caller waits for the last. One job at a time; a second caller
// waits its turn.

#include "workers.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sdpg::workers {
namespace {

// About 20 µs of looking, the longest a helper holds a core that it does not need.
constexpr int kLooks = 500;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

class Pool {
 public:
  explicit Pool(int32_t threads) {
    for (int32_t i = 1; i < threads; ++i) helpers_.emplace_back([this, i] { serve(i); });
  }

  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
  }

  int32_t threads() const { return static_cast<int32_t>(helpers_.size()) + 1; }

  void run(int32_t tasks, const std::function<void(int32_t, int32_t)>& body) {
    if (helpers_.empty() || tasks <= 1) {
      for (int32_t task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      body_ = &body;
      tasks_ = tasks;
      next_.store(0);
      open_ = true;
      ++job_;
    }
    wake_.notify_all();
    work(0);
    // A helper that has not woken by now is not waited for; one that took a task is.
    std::unique_lock<std::mutex> lock(mutex_);
    open_ = false;
    done_.wait(lock, [this] { return active_ == 0; });
  }

 private:
  void work(int32_t thread) {
    for (;;) {
      const int32_t task = next_.fetch_add(1);
      if (task >= tasks_) return;
      (*body_)(task, thread);
    }
  }

  void serve(int32_t thread) {
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040);  // flush denormals, as the caller does
#endif
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      // A pass of mini-batches is a chain of jobs a few microseconds apart: look for the next
      // before sleeping.
      if (!stopping_ && job_ == seen) {
        lock.unlock();
        for (int i = 0; i < kLooks && job_.load(std::memory_order_relaxed) == seen; ++i) pause();
        lock.lock();
      }
      wake_.wait(lock, [&] { return stopping_ || job_ != seen; });
      if (stopping_) return;
      seen = job_;
      if (!open_) continue;
      ++active_;
      lock.unlock();
      work(thread);
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const std::function<void(int32_t, int32_t)>* body_ = nullptr;
  int32_t tasks_ = 0;
  std::atomic<int32_t> next_{0};
  int32_t active_ = 0;
  bool open_ = false;
  std::atomic<uint64_t> job_{0};
  bool stopping_ = false;
};

std::mutex turn;
// Leaked at exit on purpose: joining threads from a library destructor can deadlock.
Pool*& pool() {
  static Pool* instance = new Pool(1);
  return instance;
}

}  // namespace

void set_threads(int32_t threads) {
  std::lock_guard<std::mutex> lock(turn);
  if (pool()->threads() == threads) return;
  delete pool();
  pool() = new Pool(threads);
}

int32_t threads() {
  std::lock_guard<std::mutex> lock(turn);
  return pool()->threads();
}

void run(int32_t tasks, const std::function<void(int32_t, int32_t)>& body) {
  std::lock_guard<std::mutex> lock(turn);
  pool()->run(tasks, body);
}

}  // namespace sdpg::workers
