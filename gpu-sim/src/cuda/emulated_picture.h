// Pictures of Device::emulated: the kernel of picture.cu on one CPU thread. A translation unit of
// its own for the same reason as there.
#pragma once

#include "cuda/draw_args.h"

namespace sdpg::cuda {

PicturePlan plan_emulated_pictures(const render::SceneArrays& scene);
void draw_emulated_pictures(const DrawArgs& args, std::uint32_t seed, bool fibers);

}  // namespace sdpg::cuda
