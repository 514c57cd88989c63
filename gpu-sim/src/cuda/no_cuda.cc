// Device::open in a build without CUDA.
#include "cuda/device.h"

namespace sdpg::cuda {

std::unique_ptr<Device> Device::open(int, std::string* error) {
  *error = "this build has no CUDA (nvcc was not found when it was configured); use --device cpu";
  return nullptr;
}

}  // namespace sdpg::cuda
