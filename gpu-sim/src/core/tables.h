// The tables that kernels_<isa>.cc define.
#pragma once

#include "core/kernels.h"

namespace sdpg::core {

extern const Kernels kGenericFloat32, kGenericFloat64;
#if defined(__x86_64__)
extern const Kernels kAvx2Float32, kAvx2Float64;
extern const Kernels kAvx512Float32, kAvx512Float64;
#endif

}  // namespace sdpg::core
