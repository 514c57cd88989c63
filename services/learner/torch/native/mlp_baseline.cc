// The fused perceptron for any CPU the compiler can aim at (128-bit vectors, no fused multiply-add
// assumed).
#define SDPG_KERNELS baseline
#define SDPG_LANES 4
#define SDPG_ROWS 4
#define SDPG_VECTORS 2
#include <type_traits>

#include "mlp_kernels.inc"
