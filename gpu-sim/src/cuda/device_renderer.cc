#include "cuda/device_renderer.h"

#include "cuda/device_layout.h"

namespace sdpg::cuda {

std::unique_ptr<DeviceRenderer> DeviceRenderer::create(Device& device, const render::Scene& scene,
                                                       std::string* error) {
  std::unique_ptr<DeviceRenderer> out(new DeviceRenderer(device));
  out->arrays_ = arrays_of(scene);
  out->plan_ = device.plan_pictures(out->arrays_);
  Constants constants;
  const std::uint64_t at[] = {constants.add(scene.parent), constants.add(scene.mass),
                              constants.add(scene.ipos),   constants.add(scene.subtree_mass),
                              constants.add(scene.geoms),  constants.add(scene.cameras),
                              constants.add(scene.lights)};
  // Places of each mesh's nodes and triangles.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> meshes;
  for (const auto& mesh : scene.meshes) {
    const std::uint64_t nodes = constants.add(mesh->nodes);
    meshes.emplace_back(nodes, constants.add(mesh->triangles));
  }
  out->scene_ = DeviceMemory(device, constants.bytes().size());
  out->far_ = DeviceMemory(device, out->plan_.blocks * out->plan_.far_bytes);
  if (!out->scene_ || !out->far_) {
    *error = "the device has no memory left for the scene";
    return nullptr;
  }
  const unsigned char* const base = out->scene_.data();
  render::Geom* const geoms = constants.at<render::Geom>(at[4]);
  for (std::size_t g = 0; g < scene.geoms.size(); ++g) {
    for (std::size_t k = 0; k < meshes.size(); ++k) {
      if (geoms[g].mesh.nodes != scene.meshes[k]->nodes.data()) continue;
      geoms[g].mesh = {reinterpret_cast<const render::Mesh::Node*>(base + meshes[k].first),
                       reinterpret_cast<const render::Mesh::Triangle*>(base + meshes[k].second)};
      break;
    }
  }
  device.upload(out->scene_.data(), constants.bytes().data(), constants.bytes().size());
  const auto point = [&]<class T>(const T** to, int which) {
    *to = reinterpret_cast<const T*>(base + at[which]);
  };
  render::SceneArrays& arrays = out->arrays_;
  point(&arrays.parent, 0);
  point(&arrays.mass, 1);
  point(&arrays.ipos, 2);
  point(&arrays.subtree_mass, 3);
  point(&arrays.geom, 4);
  point(&arrays.camera, 5);
  point(&arrays.light, 6);
  return out;
}

void DeviceRenderer::draw(DrawArgs args) const {
  args.scene = arrays_;
  args.plan = plan_;
  args.far = far_.data();
  device_.draw(args);
}

}  // namespace sdpg::cuda
