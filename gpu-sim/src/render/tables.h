// The tables that renderer_<isa>.cc make.
#pragma once

#include "render/renderer.h"

namespace sdpg::render {

extern const Renderer kGeneric, kEmulated, kUnculled;
#if defined(__x86_64__) && !defined(SDPG_BASELINE_ONLY)
extern const Renderer kAvx2, kAvx512;
#endif

}  // namespace sdpg::render
