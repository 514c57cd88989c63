// Adam and gradient clipping on whole tensors. The arithmetic is float32 in a fixed order
// (mlp_kernels.h) for contiguous float32 CPU tensors, so the fused training pass and the separate
// steps agree to the bit; libtorch's operators serve every other kind of tensor.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "mlp_kernels.h"

namespace sdpg {

struct AdamOptions {
  double lr;
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  int64_t step;  // counted from 1
};

AdamCoefficients adam_coefficients(const AdamOptions& options);

// p −= lr · m̂ / (√v̂ + ε), with bias-corrected moments; changes parameter, m and v.
void adam_update(at::Tensor parameter, const at::Tensor& gradient, at::Tensor m, at::Tensor v,
                 const AdamOptions& options);

double sum_of_squares(const at::Tensor& gradient);

// Factor for gradients of that global norm: torch.nn.utils.clip_grad_norm_'s min(1, max / (norm +
// 1e-6)).
double clip_scale(double norm, double max_norm);

}  // namespace sdpg
