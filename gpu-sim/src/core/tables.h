// The tables that kernels_<isa>.cc define.
#pragma once

#include "core/kernels.h"

namespace sdpg::core {

extern const Kernels kGenericFloat32, kGenericFloat64;
extern const Kernels kEmulatedFloat32, kEmulatedFloat64;
#if defined(__x86_64__) && !defined(SDPG_BASELINE_ONLY)
extern const Kernels kAvx2Float32, kAvx2Float64;
extern const Kernels kAvx512Float32, kAvx512Float64;
#endif

// Order in which kEmulated... go through the parts of a loop: 0 ascending, anything else a shuffle.
// Results must not depend on it. Starts at 1.
void set_emulated_order(std::uint32_t seed);

}  // namespace sdpg::core
