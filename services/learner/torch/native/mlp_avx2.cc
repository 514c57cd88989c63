// The fused perceptron and encoder with 8 lanes and 16 registers.
#define SDPG_KERNELS avx2
#define SDPG_LANES 8
#define SDPG_ROWS 6
#define SDPG_VECTORS 2
#define SDPG_CONV_ROWS 6
#define SDPG_CONV_VECTORS 2
#include <type_traits>

#include "mlp_kernels.inc"
// After the other, whose vectors it uses.
#include "conv_kernels.inc"
