// The arithmetic of fused multi-layer perceptrons (hidden: Linear → ELU → LayerNorm; last: Linear)
// on raw float32 memory, compiled once per instruction set; choose() picks the best the CPU has.
//
// Samples ride in SIMD lanes: a block is [features][64 samples], so that matrix products, ELU and
// LayerNorm are all vertical and any width works without padding. A sample's result therefore does
// not depend on which other samples share its block, and sums over samples run in one fixed order
// per tile: no result depends on the number of threads. (It does depend on the instruction set:
// lanes are summed in another order.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace sdpg {

constexpr int32_t kBlock = 64;  // samples of a block
constexpr int32_t kMaxHiddenLayers = 16;

// Parameters in order: per hidden layer weight [N, K], bias [N], gain [N], shift [N]; last weight
// [O, K], bias [O].
struct MlpNet {
  int32_t hidden;                        // number of hidden layers
  int32_t widths[kMaxHiddenLayers + 2];  // input, hidden …, output
  const float* parameters[4 * kMaxHiddenLayers + 2];
  float eps;  // of LayerNorm
};

struct AdamCoefficients {
  float lr_over_correction1;
  float beta1;
  float beta2;
  float rest1;  // 1 − β1 and 1 − β2, rounded once: 1 − 0.999f is off by 5e-5 of itself
  float rest2;
  float sqrt_correction2;
  float eps;
  float weight_decay;
};

struct MlpKernels {
  const char* name;

  // Floats of 64-byte aligned scratch memory that one tile of so many blocks needs.
  size_t (*forward_floats)(const MlpNet& net);
  size_t (*backward_floats)(const MlpNet& net, int32_t blocks);

  // y [rows, O] ← net(x [rows, D]); rows ≤ 64. Keeps nothing.
  void (*forward_block)(const MlpNet& net, const float* x, int32_t rows, float* y, float* scratch);

  // Gradients of a tile of rows ≤ 64 · blocks samples, recomputing the forward pass.
  //   x          [*, D]; sample s is row (order ? order[s] : s)
  //   dy         [rows, O], or null: then the loss is scale/2 · Σ (y − target)² with target indexed
  //   like x (O = 1) gradients  overwritten: all parameters' gradients one after the other, in the
  //   order of MlpNet::parameters dx         [rows, D] or null
  // Returns Σ (y − target)² (0 when dy is given).
  double (*backward_tile)(const MlpNet& net, const float* x, const int64_t* order, int32_t rows,
                          const float* dy, const float* target, float scale, float* gradients,
                          float* dx, float* scratch);

  // into[i] ← Σ_p parts[p · stride + i], p in order.
  void (*sum_parts)(const float* parts, int32_t count, size_t stride, size_t size, float* into);
  double (*sum_of_squares)(const float* values, size_t size);
  void (*scale)(float* values, size_t size, float factor);
  void (*adam)(float* parameter, const float* gradient, float* m, float* v, size_t size,
               const AdamCoefficients& c);
};

// The set in use: the best this CPU runs, unless choose_kernels() named another ("avx512", "avx2",
// "baseline"), which returns false for one that is unknown or that this CPU cannot run.
const MlpKernels& kernels();
bool choose_kernels(const char* name);

// Blocks of a tile, by the widths alone: its working set stays inside a second-level cache.
int32_t tile_blocks(const MlpNet& net);

}  // namespace sdpg
