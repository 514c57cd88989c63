// Chooses the table of the renderer as core/select_kernels.cc does for the physics.
#include <cstdlib>

#include "render/tables.h"

namespace sdpg::render {
namespace {

struct Choice {
  const char* name;
  bool available;
  const Renderer* table;
};

}  // namespace

const Renderer* select_renderer(const std::string& asked, std::string* error) {
  const char* wish = std::getenv("SDPG_ISA");
  const std::string isa = asked.empty() && wish != nullptr ? wish : asked;
  const Choice choices[] = {
#if defined(__x86_64__) && !defined(SDPG_BASELINE_ONLY)
    {"avx512",
     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("fma"),
     &kAvx512},
    {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), &kAvx2},
#endif
    {"generic", true, &kGeneric},
    // For tests, only when they are asked for: one lane; no bounds on the screen.
    {"emulated", true, &kEmulated},
    {"unculled", true, &kUnculled},
  };
  std::string names;
  for (const Choice& choice : choices) {
    if (choice.available && (isa.empty() || isa == choice.name)) return choice.table;
    if (isa == choice.name) {
      *error =
          "instruction set '" + isa + "' is not available on this machine; ask for another or none";
      return nullptr;
    }
    names += (names.empty() ? "" : ", ") + std::string(choice.name);
  }
  *error = "unknown instruction set '" + isa + "'; expected one of " + names + ", or none";
  return nullptr;
}

}  // namespace sdpg::render
