// The fused perceptron with 16 lanes and 32 registers.
#define SDPG_KERNELS avx512
#define SDPG_LANES 16
#define SDPG_ROWS 6
#define SDPG_VECTORS 4
#include <type_traits>

#include "mlp_kernels.inc"
