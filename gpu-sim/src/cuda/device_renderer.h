// A scene in a device's memory, and pictures of it drawn there.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "cuda/device_model.h"

namespace sdpg::cuda {

class DeviceRenderer {
 public:
  // Null and one line in `error` when the device has no memory for the scene.
  static std::unique_ptr<DeviceRenderer> create(Device& device, const render::Scene& scene,
                                                std::string* error);
  // Launches; of the arguments, `scene`, `plan` and `far` are filled in here.
  void draw(DrawArgs args) const;
  // Of the scene and of what its blocks work in.
  std::uint64_t bytes() const { return scene_.bytes() + far_.bytes(); }

 private:
  explicit DeviceRenderer(Device& device) : device_(device) {}

  Device& device_;
  render::SceneArrays arrays_{};
  PicturePlan plan_{};
  DeviceMemory scene_, far_;
};

}  // namespace sdpg::cuda
