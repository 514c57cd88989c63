#include "cuda/physics_kernel.h"

namespace sdpg::cuda {

const PhysicsLaunch kPhysics32 = kPhysics<32>;

}  // namespace sdpg::cuda
