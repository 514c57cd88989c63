// The renderer compiled for AVX2 (32-byte vectors).
#define SDPG_ISA renderer_avx2
#include "render/renderer_source.h"
#include "render/tables.h"

namespace sdpg::render {

const Renderer kAvx2 = make_renderer<core::Pack<float, 8>>("avx2");

}  // namespace sdpg::render
