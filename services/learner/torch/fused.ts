// Operators that do in one native call what composed operators do in dozens: perceptrons of the kind that
// networks/mlp.ts describes, a whole pass of regression, and image encoders of networks/encoder.ts. Each is tested
// against its composed form.

import { call, callForNumbers, operator, results } from "./ffi.ts";
import type { Adam } from "./optim.ts";
import { Tensor } from "./tensor.ts";

const MLP_FORWARD = operator("mlp_forward");
const MLP_REGRESS = operator("mlp_regress");
const CONV_ENCODE = operator("conv_encode");

/**
 * Linear → ELU → LayerNorm per hidden layer, then Linear. x [..., D] float32; parameters in order: per hidden layer
 * weight [N, K], bias [N], gain [N], shift [N]; last weight [O, K], bias [O]. Result [..., O]. Differentiable once.
 */
export function mlpForward(x: Tensor, parameters: readonly Tensor[], eps: number): Tensor {
  call(MLP_FORWARD, [x.handle, ...parameters.map((p) => p.handle)], [eps]);
  return new Tensor(results[0]);
}

export interface RegressionOptions {
  /** Samples of a mini-batch; the last may be smaller. */
  batchSize: number;
  /** Largest global gradient norm; undefined does not clip. */
  maxGradNorm?: number;
  /** ε of the network's LayerNorm. */
  eps: number;
}

export interface RegressionResult {
  /** Mean squared error over the pass, each sample as it was met. */
  loss: number;
  /** Mean squared error of the last mini-batch. */
  lastLoss: number;
  /** Mean over mini-batches of the gradient's global norm before clipping. */
  gradNorm: number;
  /** Adam steps taken: one a mini-batch, except those whose gradient was not finite, which are left out of everything. */
  steps: number;
}

/**
 * One pass of mean-squared-error regression of a one-output perceptron, whose parameters (in mlpForward's order) are
 * exactly the optimiser's: mini-batches of consecutive entries of order, each with one clipped Adam step.
 * input [B, D] float32, target [B] float32, order int64 [n] (rows of input; a permutation, or part of one).
 */
export function mlpRegress(
  optimiser: Adam,
  input: Tensor,
  target: Tensor,
  order: Tensor,
  options: RegressionOptions,
): RegressionResult {
  const [loss, lastLoss, gradNorm, steps] = callForNumbers(
    MLP_REGRESS,
    [input.handle, target.handle, order.handle, ...optimiser.handles()],
    [options.eps, options.batchSize, options.maxGradNorm ?? 0, ...optimiser.numbers()],
    4,
  );
  optimiser.steps += steps;
  return { loss, lastLoss, gradNorm, steps };
}

/**
 * Convolutions without padding, each followed by ReLU, then a projection, of pictures / 255 − centre. pictures uint8
 * [B, C, H, W], contiguous; centre float32 [C, H, W]; parameters in order: per convolution weight [O, C, h, w] and bias [O], last the projection's
 * weight [D, O·H'·W'] and bias [D]; one stride per convolution. Result [B, D]. Differentiable once, in the parameters.
 * The pictures are never copied as floats. Activations are kept for the backward pass up to 64 MiB; beyond, it computes
 * them again, a few pictures at a time, so memory does not grow with B.
 */
export function convEncode(
  pictures: Tensor,
  centre: Tensor,
  parameters: readonly Tensor[],
  strides: readonly number[],
): Tensor {
  call(CONV_ENCODE, [pictures.handle, centre.handle, ...parameters.map((p) => p.handle)], strides);
  return new Tensor(results[0]);
}
