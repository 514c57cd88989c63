// The renderer compiled for the baseline of the machine's architecture (16-byte vectors).
#define SDPG_ISA renderer_generic
#include "render/renderer_source.h"
#include "render/tables.h"

namespace sdpg::render {

const Renderer kGeneric = make_renderer<core::Pack<float, 4>>("generic");
// A pixel at a time, as a thread of the CUDA mapping draws.
const Renderer kEmulated = make_renderer<core::Pack<float, 1>>("emulated");
// Tries every geom at every pixel: what culling must not change. For tests.
const Renderer kUnculled = make_renderer<core::Pack<float, 4>, false>("unculled");

}  // namespace sdpg::render
