// Fused perceptrons as operators: forward with autograd, and a whole pass of regression.
#pragma once

#include <ATen/ATen.h>

#include <string>

namespace sdpg {

struct Arguments;

// Tensors: x [..., D], then the parameters in the order of MlpNet (mlp_kernels.h). Numbers: ε of
// LayerNorm. Gives y [..., O]; records a gradient where one is wanted.
void mlp_forward(Arguments& a);

// One pass of mean-squared-error regression over mini-batches: gather, forward, backward, clipping,
// Adam. Tensors: x [B, D], target [B], order int64 [n] (rows of x, each mini-batch the next so
// many), then n parameters, n first moments, n second moments; they are changed in place. Numbers:
// ε of LayerNorm, batch size, largest gradient norm (0: no clipping), lr, β1, β2, ε, weight decay,
// first step. Answers numbers: mean loss of the pass, loss of the last mini-batch, mean gradient
// norm before clipping, steps taken; a mini-batch whose gradient is not finite takes no step and
// counts nowhere.
void mlp_regress(Arguments& a);

}  // namespace sdpg
