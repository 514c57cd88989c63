// make_frame() of one CPU thread.
#define SDPG_ISA frame
#include <algorithm>

#include "render/frame_source.h"

namespace sdpg::render {

SceneArrays arrays_of(const Scene& scene) {
  const auto count = [](const auto& list) { return static_cast<int>(list.size()); };
  SceneArrays out{};
  out.nbody = scene.nbody;
  out.needs_com = scene.needs_com;
  out.parent = scene.parent.data();
  out.mass = scene.mass.data();
  out.ipos = scene.ipos.data();
  out.subtree_mass = scene.subtree_mass.data();
  out.geoms = count(scene.geoms);
  while (out.planes < out.geoms && scene.geoms[out.planes].type == kPlane) ++out.planes;
  out.cameras = count(scene.cameras);
  out.lights = count(scene.lights);
  out.geom = scene.geoms.data();
  out.camera = scene.cameras.data();
  out.light = scene.lights.data();
  std::copy_n(scene.background, 3, out.background);
  out.global_ambient = scene.global_ambient;
  return out;
}

std::size_t frame_memory(const SceneArrays& scene) {
  return placing::FrameMemory(scene, nullptr).bytes;
}
std::size_t frame_memory(const Scene& scene) { return frame_memory(arrays_of(scene)); }

void make_frame(const Scene& scene, const View& view, const float* pose, void* memory, bool cull,
                Frame* out) {
  make_frame(arrays_of(scene), view, pose, memory, cull, core::Alone{}, out);
}

}  // namespace sdpg::render
