#include "cuda/physics_kernel.h"

namespace sdpg::cuda {

const PhysicsLaunch kPhysics16 = kPhysics<16>;

}  // namespace sdpg::cuda
