// A model in a device's memory.
#pragma once

#include <cstring>
#include <memory>

#include "core/model/flat_model.h"
#include "cuda/device.h"

namespace sdpg::cuda {

// Memory of a device, given back with its owner.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Device& device, std::size_t bytes)
      : device_(&device), data_(device.allocate(bytes)), bytes_(bytes) {}
  ~DeviceMemory() {
    if (data_ != nullptr) device_->release(data_);
  }
  DeviceMemory(DeviceMemory&& other) noexcept { *this = std::move(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  explicit operator bool() const { return data_ != nullptr; }
  unsigned char* data() const { return static_cast<unsigned char*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// The model with pointers into `memory`, for a kernel's arguments; `memory` receives the arrays.
inline bool upload_model(Device& device, const core::Model& model, core::Model* out,
                         DeviceMemory* memory) {
  const core::FlatModel flat = core::flatten_model(model);
  *memory = DeviceMemory(device, flat.bytes.size());
  if (!*memory) return false;
  const auto placed = flat.at(reinterpret_cast<std::uintptr_t>(memory->data()));
  device.upload(memory->data(), placed.data(), placed.size());
  std::memcpy(out, placed.data(), sizeof *out);
  return true;
}

}  // namespace sdpg::cuda
