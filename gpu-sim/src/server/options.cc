#include "server/options.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

namespace sdpg::server {

const char kUsage[] =
    "gpu-sim --serve sim|render --listen HOST:PORT [flags]\n"
    "\n"
    "Serves sdpg.sim.v1.SimulationService and sdpg.render.v1.RenderService over gRPC, with health "
    "and\n"
    "reflection. Prints one JSON line on standard output when it listens; logs JSON lines to "
    "standard\n"
    "error.\n"
    "\n"
    "  --serve NAME             sim: both services; render: RenderService alone\n"
    "  --listen HOST:PORT       address; port 0 takes a free port\n"
    "  --threads N              worker threads, 1 to 1024 (default: the number of cores)\n"
    "  --isa NAME               avx512, avx2 or generic (default: the best here, or SDPG_ISA)\n"
    "  --device NAME            cpu, cuda or cuda:N, the device with number N (default: cpu)\n"
    "  --memory-limit-mb N      most memory of all batches and scenes (default: 3/4 of the "
    "machine's)\n"
    "  --no-shared-memory       offer the inline transport only\n"
    "  --exit-with-parent       stop when standard input reaches its end\n"
    "  --help                   this text\n";

namespace {

bool parse_number(const std::string& text, std::uint64_t low, std::uint64_t high,
                  std::uint64_t* out) {
  if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos) return false;
  errno = 0;
  const unsigned long long value = strtoull(text.c_str(), nullptr, 10);
  if (errno != 0 || value < low || value > high) return false;
  *out = value;
  return true;
}

bool is_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  std::uint64_t port = 0;
  return colon != std::string::npos && colon > 0 &&
         parse_number(text.substr(colon + 1), 0, 65535, &port);
}

}  // namespace

bool parse_options(int argc, char** argv, Options* options, std::string* error) {
  const auto refuse = [&](const std::string& line) {
    *error = "gpu-sim: ";
    error->append(line).append("; see gpu-sim --help");
    return false;
  };
  bool served = false;
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i], value;
    bool has_value = false;
    if (const std::size_t equals = flag.find('='); equals != std::string::npos) {
      value = flag.substr(equals + 1);
      flag.resize(equals);
      has_value = true;
    }
    const bool is_switch = flag == "--no-shared-memory" || flag == "--exit-with-parent" ||
                           flag == "--help" || flag == "-h";
    const bool takes_value = flag == "--serve" || flag == "--listen" || flag == "--threads" ||
                             flag == "--isa" || flag == "--device" || flag == "--memory-limit-mb";
    if (!is_switch && !takes_value) return refuse("unknown flag '" + flag + "'");
    if (is_switch && has_value) return refuse(flag + " takes no value, got '" + value + "'");
    if (takes_value && !has_value) {
      if (i + 1 == argc) return refuse(flag + " needs a value");
      value = argv[++i];
    }

    std::uint64_t number = 0;
    if (flag == "--help" || flag == "-h") {
      options->help = true;
      return true;
    } else if (flag == "--serve") {
      if (value != "sim" && value != "render")
        return refuse("--serve: expected sim or render, got '" + value + "'");
      options->simulates = value == "sim";
      served = true;
    } else if (flag == "--listen") {
      if (!is_address(value)) return refuse("--listen: expected HOST:PORT, got '" + value + "'");
      options->listen = value;
    } else if (flag == "--threads") {
      if (!parse_number(value, 1, 1024, &number))
        return refuse("--threads: expected 1 to 1024, got '" + value + "'");
      options->threads = static_cast<int>(number);
    } else if (flag == "--isa") {
      if (value != "avx512" && value != "avx2" && value != "generic")
        return refuse("--isa: expected avx512, avx2 or generic, got '" + value + "'");
      options->isa = value;
    } else if (flag == "--device") {
      number = 0;
      if (value == "cpu")
        options->cuda_device = -1;
      else if (value == "cuda" ||
               (value.rfind("cuda:", 0) == 0 && parse_number(value.substr(5), 0, 1023, &number)))
        options->cuda_device = static_cast<int>(number);
      else
        return refuse("--device: expected cpu, cuda or cuda:N, got '" + value + "'");
    } else if (flag == "--memory-limit-mb") {
      if (!parse_number(value, 1, std::uint64_t{1} << 40, &number))
        return refuse("--memory-limit-mb: expected a number from 1, got '" + value + "'");
      options->memory_limit_mb = number;
    } else if (flag == "--no-shared-memory") {
      options->shared_memory = false;
    } else if (flag == "--exit-with-parent") {
      options->exit_with_parent = true;
    }
  }
  if (!served) return refuse("--serve sim (or render) is missing");
  if (options->listen.empty()) return refuse("--listen HOST:PORT is missing");
  if (!options->simulates && options->cuda_device >= 0)
    return refuse("--device: the render service draws on the CPU; leave the flag out");
  if (options->threads == 0)
    options->threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
  if (options->memory_limit_mb == 0) {
    const std::uint64_t pages = static_cast<std::uint64_t>(std::max(1l, sysconf(_SC_PHYS_PAGES)));
    const std::uint64_t page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    options->memory_limit_mb = std::max<std::uint64_t>(1, pages / 4 * 3 * page / (1u << 20));
  }
  return true;
}

}  // namespace sdpg::server
