// The renderer compiled for AVX-512 F, DQ, VL, BW (64-byte vectors).
#define SDPG_ISA renderer_avx512
#include "render/renderer_source.h"
#include "render/tables.h"

namespace sdpg::render {

const Renderer kAvx512 = make_renderer<core::Pack<float, 16>>("avx512");

}  // namespace sdpg::render
