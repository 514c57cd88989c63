// The renderer's half of the C boundary (gpu_sim.h): one picture at a time, for tests that compare
// it with other renderers.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "gpu_sim.h"
#include "render/renderer.h"
#include "sdpg/model/v1/model.pb.h"
#include "sdpg/view/v1/view.pb.h"

namespace {

using namespace sdpg::render;

int fail(int code, const std::string& line, char* error, std::size_t error_bytes) {
  if (error != nullptr && error_bytes > 0) {
    const std::size_t n = std::min(line.size(), error_bytes - 1);
    std::memcpy(error, line.data(), n);
    error[n] = 0;
  }
  return code;
}

struct OpenScene {
  std::shared_ptr<const Scene> scene;
};

}  // namespace

int sdpg_render_open(const uint8_t* model, size_t model_bytes, void** scene, char* error,
                     size_t error_bytes) {
  try {
    sdpg::model::v1::Model message;
    if (!message.ParseFromArray(model, static_cast<int>(model_bytes)))
      return fail(3, "model: not a serialised sdpg.model.v1.Model", error, error_bytes);
    std::string line;
    auto made = make_scene(message, &line);
    if (!made) return fail(3, line, error, error_bytes);
    *scene = new OpenScene{std::move(made)};
    return 0;
  } catch (const std::exception& e) {
    return fail(13, std::string("render: ") + e.what(), error, error_bytes);
  }
}

int sdpg_render_draw(void* scene, const uint8_t* view_message, size_t view_bytes, const float* pose,
                     uint64_t seed, uint32_t environment, uint64_t picture, const char* isa,
                     void* pixels, size_t pixel_bytes, char* error, size_t error_bytes) {
  try {
    const Scene& s = *static_cast<OpenScene*>(scene)->scene;
    sdpg::view::v1::View message;
    if (!message.ParseFromArray(view_message, static_cast<int>(view_bytes)))
      return fail(3, "view: not a serialised sdpg.view.v1.View", error, error_bytes);
    View view;
    std::string line;
    if (!make_view(s, message, &view, &line)) return fail(3, line, error, error_bytes);
    if (pixel_bytes != frame_bytes(view))
      return fail(3,
                  "pixels: expected room for " + std::to_string(frame_bytes(view)) +
                      " bytes, got " + std::to_string(pixel_bytes),
                  error, error_bytes);
    const Renderer* renderer = select_renderer(isa == nullptr ? "" : isa, &line);
    if (renderer == nullptr) return fail(9, line, error, error_bytes);
    const std::size_t bytes = (renderer->scratch_bytes(s, view) + 63) / 64 * 64;
    const std::unique_ptr<void, decltype(&std::free)> scratch(std::aligned_alloc(64, bytes),
                                                              &std::free);
    if (!scratch) return fail(8, "out of memory", error, error_bytes);
    renderer->draw(s, view, pose, {seed, environment, picture}, pixels, scratch.get());
    return 0;
  } catch (const std::exception& e) {
    return fail(13, std::string("render: ") + e.what(), error, error_bytes);
  }
}

void sdpg_render_close(void* scene) { delete static_cast<OpenScene*>(scene); }
