// gpu-sim: the simulation server. Reads its flags, sweeps shared memory that a crash left behind,
// listens, and stops cleanly on SIGTERM, SIGINT or (with --exit-with-parent) the end of standard
// input.

#include <errno.h>
#include <google/protobuf/stubs/logging.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "batch/shared_memory.h"
#include "cuda/device.h"
#include "server/log.h"
#include "server/options.h"
#include "server/server.h"

namespace {

// Returns what ended the wait.
const char* wait_for_end(int signals, bool watch_stdin) {
  pollfd watched[2] = {{signals, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
  char ignored[4096];
  while (true) {
    if (poll(watched, watch_stdin ? 2 : 1, -1) < 0) {
      if (errno == EINTR) continue;
      return "poll failed";
    }
    if (watched[0].revents != 0) return "signal";
    if (watch_stdin && watched[1].revents != 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0)
      return "parent gone";
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace sdpg;
  server::Options options;
  std::string error;
  if (!server::parse_options(argc, argv, &options, &error)) {
    fprintf(stderr, "%s\n", error.c_str());
    return 2;
  }
  if (options.help) {
    fputs(server::kUsage, stdout);
    return 0;
  }
  if (!server::check_log_level(&error)) {
    fprintf(stderr, "gpu-sim: %s\n", error.c_str());
    return 2;
  }
  if (core::select_kernels(core::Precision::kFloat32, options.isa, &error) == nullptr) {
    fprintf(stderr, "gpu-sim: %s\n", error.c_str());
    return 1;
  }
  std::shared_ptr<cuda::Device> device;
  if (options.cuda_device >= 0) {
    device = cuda::Device::open(options.cuda_device, &error);
    if (!device) {
      fprintf(stderr, "gpu-sim: --device cuda: %s\n", error.c_str());
      return 2;
    }
  }
  // What the libraries would say is in our own lines or in a call's status.
  setenv("GRPC_VERBOSITY", "NONE", 0);
  google::protobuf::SetLogHandler(nullptr);

  // Blocked before any thread starts, so that the signals reach the descriptor alone.
  sigset_t stopping;
  sigemptyset(&stopping);
  sigaddset(&stopping, SIGTERM);
  sigaddset(&stopping, SIGINT);
  sigprocmask(SIG_BLOCK, &stopping, nullptr);
  signal(SIGPIPE, SIG_IGN);
  const int signals = signalfd(-1, &stopping, SFD_CLOEXEC);

  if (const int removed = batch::sweep_shared_memory(); removed > 0)
    server::log("warn", "removed shared memory of processes that are gone",
                {{"objects", std::to_string(removed)}});

  server::ServiceOptions service;
  service.threads = options.threads;
  service.isa = options.isa;
  service.memory_limit_bytes = options.memory_limit_mb << 20;
  service.shared_memory = options.shared_memory;
  service.device = device;
  service.simulates = options.simulates;
  const auto server = server::Server::start(options.listen, service, &error);
  if (!server) {
    fprintf(stderr, "gpu-sim: %s\n", error.c_str());
    return 1;
  }
  printf("{\"event\":\"listening\",\"service\":\"gpu-sim\",\"address\":%s}\n",
         server::json_string(server->address()).c_str());
  fflush(stdout);

  const char* reason = wait_for_end(signals, options.exit_with_parent);
  server::log("info", "stopping", {{"reason", reason}});
  server->stop(1000);
  return 0;
}
