// Chooses the table of kernels when the process starts: the widest instruction set the machine has,
// or the one that is asked for by the caller or, if the caller leaves it open, by SDPG_ISA.
#include <cstdlib>

#include "core/tables.h"

namespace sdpg::core {
namespace {

struct Choice {
  const char* name;
  bool available;
  const Kernels *single, *full;
};

}  // namespace

const Kernels* select_kernels(Precision precision, const std::string& asked, std::string* error) {
  const char* wish = std::getenv("SDPG_ISA");
  const std::string isa = asked.empty() && wish != nullptr ? wish : asked;
  const Choice choices[] = {
#if defined(__x86_64__) && !defined(SDPG_BASELINE_ONLY)
    {"avx512",
     __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("fma"),
     &kAvx512Float32, &kAvx512Float64},
    {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), &kAvx2Float32,
     &kAvx2Float64},
#endif
    {"generic", true, &kGenericFloat32, &kGenericFloat64},
    // The CUDA mapping's arithmetic and loops, for tests: only when it is asked for.
    {"emulated", true, &kEmulatedFloat32, &kEmulatedFloat64},
  };
  std::string names;
  for (const Choice& choice : choices) {
    const Kernels* table = precision == Precision::kFloat32 ? choice.single : choice.full;
    if (choice.available && (isa.empty() || isa == choice.name)) return table;
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

}  // namespace sdpg::core
