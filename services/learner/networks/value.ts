// The value head: privileged state → expected discounted return, one number a state.

import {
  type Adam,
  type Generator,
  mlpRegress,
  type RegressionResult,
  type Tensor,
  TorchError,
} from "../torch/mod.ts";
import { LAYER_NORM_EPS, Mlp } from "./mlp.ts";

export interface ValueOptions {
  /** Width of the privileged state. */
  input: number;
  hidden: readonly number[];
  /** Default √2, as published. */
  outputGain?: number;
  /** Draws the initial weights. */
  generator: Generator;
}

export class ValueNetwork implements Disposable {
  readonly mlp: Mlp;

  constructor(options: ValueOptions | Mlp) {
    this.mlp = options instanceof Mlp ? options : new Mlp({ ...options, output: 1 });
  }

  /** state [..., input] → value [...], recording gradients. */
  forward(state: Tensor): Tensor {
    using column = this.mlp.forward(state);
    return column.squeeze(-1);
  }

  /** The same without gradients, in one native call. */
  infer(state: Tensor): Tensor {
    using column = this.mlp.infer(state);
    return column.squeeze(-1);
  }

  /**
   * One pass of shuffled mini-batches of mean-squared-error regression in one native call (fused.ts); optimiser must
   * hold exactly this network's parameters. states [B, input], targets [B], order int64 [n] rows of states.
   */
  regress(
    optimiser: Adam,
    states: Tensor,
    targets: Tensor,
    order: Tensor,
    options: { batchSize: number; maxGradNorm?: number },
  ): RegressionResult {
    const own = [...this.parameters().values()];
    if (
      optimiser.parameters.length !== own.length ||
      optimiser.parameters.some((p, i) => p !== own[i])
    ) {
      throw new TorchError(
        "Cannot regress: the optimiser must hold exactly this network's parameters, in their order",
      );
    }
    return mlpRegress(optimiser, states, targets, order, { ...options, eps: LAYER_NORM_EPS });
  }

  parameters(): Map<string, Tensor> {
    return this.mlp.parameters();
  }
  clone(): ValueNetwork {
    return new ValueNetwork(this.mlp.clone());
  }
  /** this ← source. */
  copyFrom(source: ValueNetwork): void {
    this.mlp.copyFrom(source.mlp);
  }
  /** this ← this + weight · (source − this): a target network that keeps the share 1 − weight of itself. */
  lerp(source: ValueNetwork, weight: number): void {
    this.mlp.lerp(source.mlp, weight);
  }
  [Symbol.dispose](): void {
    this.mlp[Symbol.dispose]();
  }
}
