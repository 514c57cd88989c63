// A pool of threads for the fused operators. Work is split into tasks by the caller, by size alone:
// which thread runs a task never changes its result. Threads sleep between calls (no spinning: the
// simulator needs the cores).
#pragma once

#include <cstdint>
#include <functional>

namespace sdpg::workers {

void set_threads(int32_t threads);
int32_t threads();

// Runs body(task, thread) for every task in [0, tasks); returns when all are done. thread <
// threads() names the scratch memory a task may use. body must not throw.
void run(int32_t tasks, const std::function<void(int32_t task, int32_t thread)>& body);

}  // namespace sdpg::workers
