// The command line of gpu-sim, checked.
#pragma once

#include <cstdint>
#include <string>

namespace sdpg::server {

struct Options {
  bool simulates = true;  // --serve sim; else render only
  std::string listen;     // HOST:PORT, port 0 for a free one
  int threads = 0;        // workers; 0 becomes the number of cores
  std::string isa;        // forces an instruction set; empty for the best
  std::uint64_t memory_limit_mb =
      0;  // of batches and scenes; 0 becomes 3/4 of the machine's memory
  bool shared_memory = true;
  int cuda_device = -1;           // steps on this CUDA device; -1: on the CPU
  bool exit_with_parent = false;  // stop when standard input ends
  bool help = false;
};

extern const char kUsage[];

// False and one line in `error` for a wrong flag or value.
bool parse_options(int argc, char** argv, Options* options, std::string* error);

}  // namespace sdpg::server
