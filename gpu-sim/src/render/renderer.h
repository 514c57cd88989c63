// What the renderer offers to the rest of gpu-sim: a scene made once from a model, views of it, and
// one table of functions per instruction set that draws a view of one environment from the poses of
// its bodies. Rays against exact shapes, SIMD across pixels; every picture depends on its arguments
// alone, to the bit, whatever the instruction set's width or the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace sdpg::model::v1 {
class Model;
}
namespace sdpg::view::v1 {
class View;
}

namespace sdpg::render {

// Checked, flattened constants of a model; opaque outside render/.
struct Scene;

// Numbers of sdpg.view.v1.ImageKind.
enum class Kind : std::int32_t { kRgb = 1, kDepth = 2, kSegmentation = 3 };

// What drawing a view reads.
struct Shot {
  int camera;  // index in the model
  int width, height;
  int frames;  // of the stack that the picture goes into; drawing does not look at it
  Kind kind;
  float near, far;  // m
  bool shadows;
  float depth_noise;  // m
};
struct View : Shot {
  std::string name;
};

// Checks the message and builds the constants. On failure returns null and one line in `error` that
// names the element ("geom 'visor': mesh 'visor' has no faces").
std::shared_ptr<const Scene> make_scene(const sdpg::model::v1::Model& message, std::string* error);

// Checks a view against a scene ("view 'left': no camera 'lft'; the model has side, front").
bool make_view(const Scene&, const sdpg::view::v1::View& message, View* out, std::string* error);

int nbody(const Scene&);

// Numbers of a body's pose: position in m, quaternion (w, x, y, z).
inline constexpr int kPoseNumbers = 7;
// Planes of a frame: red, green, blue, or one.
inline constexpr int planes(Kind kind) { return kind == Kind::kRgb ? 3 : 1; }
inline constexpr std::size_t value_bytes(Kind kind) { return kind == Kind::kRgb ? 1 : 4; }
inline std::size_t frame_bytes(const Shot& view) {
  return planes(view.kind) * value_bytes(view.kind) * static_cast<std::size_t>(view.width) *
         static_cast<std::size_t>(view.height);
}

// Key of the depth noise of one picture.
struct NoiseKey {
  std::uint64_t seed = 0;
  std::uint32_t environment = 0;
  std::uint64_t picture = 0;  // counts the pictures of the environment
};

struct Renderer {
  const char* isa;  // "avx512", "avx2", "generic"
  int lanes;        // pixels drawn at once

  // Bytes of scratch one worker thread needs for a view; 64-byte aligned by the caller.
  std::size_t (*scratch_bytes)(const Scene&, const View&);

  // Draws one frame (see sdpg.view.v1.View for its layout) of an environment whose bodies stand at
  // `pose`, float [nbody][kPoseNumbers], the world's body first. `pixels` is frame_bytes(view) long
  // and needs no alignment.
  void (*draw)(const Scene&, const View&, const float* pose, const NoiseKey&, void* pixels,
               void* scratch);
};

// The best table this machine can run; `isa` empty, or the name of one to force. Null and a line in
// `error` if it is unknown or the machine lacks it.
const Renderer* select_renderer(const std::string& isa, std::string* error);

}  // namespace sdpg::render
