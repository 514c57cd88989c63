// The fused perceptron and encoder for any CPU the compiler can aim at (128-bit vectors, no fused
// multiply-add assumed).
#define SDPG_KERNELS baseline
#define SDPG_LANES 4
#define SDPG_ROWS 4
#define SDPG_VECTORS 2
#define SDPG_CONV_ROWS 4
#define SDPG_CONV_VECTORS 2
#include <type_traits>

#include "mlp_kernels.inc"
// After the other, whose vectors it uses.
#include "conv_kernels.inc"
