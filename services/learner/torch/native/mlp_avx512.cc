// The fused perceptron and encoder with 16 lanes and 32 registers.
#define SDPG_KERNELS avx512
#define SDPG_LANES 16
#define SDPG_ROWS 6
#define SDPG_VECTORS 4
#define SDPG_CONV_ROWS 12
#define SDPG_CONV_VECTORS 2
#include <type_traits>

#include "mlp_kernels.inc"
// After the other, whose vectors it uses.
#include "conv_kernels.inc"
