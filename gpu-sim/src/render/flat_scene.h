// A scene as a file that a machine without protobuf reads: gpu-sim/tests/data/*.scene, which
// gpu-sim/tools/gpu_check.sh draws.
#pragma once

#include <memory>
#include <string>

#include "render/scene.h"

namespace sdpg::render {

std::string save_flat_scene(const Scene& scene);
// Null and a line in `error` when the bytes are not a flat scene with the fields of this build.
std::shared_ptr<const Scene> load_flat_scene(const std::string& file, std::string* error);

}  // namespace sdpg::render
