#include "server/options.h"

#include <gtest/gtest.h>

#include <vector>

namespace sdpg::server {
namespace {

std::string refusal(std::vector<std::string> arguments, Options* options) {
  std::vector<char*> argv;
  arguments.insert(arguments.begin(), "gpu-sim");
  for (std::string& a : arguments) argv.push_back(a.data());
  std::string error;
  return parse_options(static_cast<int>(argv.size()), argv.data(), options, &error) ? "" : error;
}

TEST(ParseOptions, ReadsEveryFlag) {
  Options options;
  EXPECT_EQ(refusal({"--serve", "sim", "--listen=127.0.0.1:0", "--threads", "3", "--isa", "generic",
                     "--memory-limit-mb", "100", "--device", "cuda:2", "--no-shared-memory",
                     "--exit-with-parent"},
                    &options),
            "");
  EXPECT_EQ(options.listen, "127.0.0.1:0");
  EXPECT_EQ(options.threads, 3);
  EXPECT_EQ(options.isa, "generic");
  EXPECT_EQ(options.memory_limit_mb, 100u);
  EXPECT_FALSE(options.shared_memory);
  EXPECT_EQ(options.cuda_device, 2);
  EXPECT_TRUE(options.exit_with_parent);
  EXPECT_TRUE(options.simulates);
  Options apart;
  EXPECT_EQ(refusal({"--serve", "render", "--listen=127.0.0.1:0"}, &apart), "");
  EXPECT_FALSE(apart.simulates);
}

TEST(ParseOptions, RefusesWithOneLineThatSaysWhatWasExpected) {
  const struct {
    std::vector<std::string> arguments;
    const char* says;
  } cases[] = {
      {{}, "gpu-sim: --serve sim (or render) is missing; see gpu-sim --help"},
      {{"--serve", "draw"},
       "gpu-sim: --serve: expected sim or render, got 'draw'; see gpu-sim --help"},
      {{"--serve", "render", "--listen", "a:1", "--device", "cuda"},
       "gpu-sim: --device: the render service draws on the CPU; leave the flag out; see gpu-sim "
       "--help"},
      {{"--serve", "sim"}, "gpu-sim: --listen HOST:PORT is missing; see gpu-sim --help"},
      {{"--serve", "sim", "--listen", "8080"},
       "gpu-sim: --listen: expected HOST:PORT, got '8080'; see gpu-sim --help"},
      {{"--serve", "sim", "--listen", "a:99999"},
       "gpu-sim: --listen: expected HOST:PORT, got 'a:99999'; see gpu-sim --help"},
      {{"--threads", "0"}, "gpu-sim: --threads: expected 1 to 1024, got '0'; see gpu-sim --help"},
      {{"--threads", "2x"}, "gpu-sim: --threads: expected 1 to 1024, got '2x'; see gpu-sim --help"},
      {{"--isa", "neon"},
       "gpu-sim: --isa: expected avx512, avx2 or generic, got 'neon'; see gpu-sim --help"},
      {{"--memory-limit-mb", "-1"},
       "gpu-sim: --memory-limit-mb: expected a number from 1, got '-1'; see gpu-sim --help"},
      {{"--device", "tpu"},
       "gpu-sim: --device: expected cpu, cuda or cuda:N, got 'tpu'; see gpu-sim --help"},
      {{"--thread", "2"}, "gpu-sim: unknown flag '--thread'; see gpu-sim --help"},
      {{"--threads"}, "gpu-sim: --threads needs a value; see gpu-sim --help"},
      {{"--no-shared-memory=1"},
       "gpu-sim: --no-shared-memory takes no value, got '1'; see gpu-sim --help"},
  };
  for (const auto& c : cases) {
    Options options;
    EXPECT_EQ(refusal(c.arguments, &options), c.says);
  }
}

}  // namespace
}  // namespace sdpg::server
