// Adam, as torch.optim.Adam: bias-corrected moments, L2 weight decay added to the gradient. One FFI call a step.

import { call, operator, TorchError } from "./ffi.ts";
import { Tensor, zeroGrad, zeros } from "./tensor.ts";

const ADAM_STEP = operator("adam_step");

export interface AdamOptions {
  lr: number;
  /** Decay of the first and second moment. Default [0.9, 0.999]. */
  betas?: readonly [number, number];
  /** Added to √v̂. Default 1e-8. */
  eps?: number;
  /** L2 penalty. Default 0. */
  weightDecay?: number;
}

export class Adam implements Disposable {
  lr: number;
  readonly betas: readonly [number, number];
  readonly eps: number;
  readonly weightDecay: number;
  readonly parameters: readonly Tensor[];
  /** First and second moments, one a parameter, zero at the start. */
  readonly m: readonly Tensor[];
  readonly v: readonly Tensor[];
  /** Steps taken. */
  steps = 0;

  constructor(parameters: readonly Tensor[], options: AdamOptions) {
    const { lr, betas = [0.9, 0.999], eps = 1e-8, weightDecay = 0 } = options;
    if (!(lr >= 0) || !(eps >= 0) || !betas.every((beta) => beta >= 0 && beta < 1)) {
      throw new TorchError(
        `Cannot make Adam: expected lr ≥ 0, eps ≥ 0 and betas in [0, 1), got lr ${lr}, eps ${eps}, betas ${betas}`,
      );
    }
    this.lr = lr;
    this.betas = betas;
    this.eps = eps;
    this.weightDecay = weightDecay;
    this.parameters = [...parameters];
    this.m = parameters.map((p) => zeros(p.shape, { dtype: p.dtype }).persist());
    this.v = parameters.map((p) => zeros(p.shape, { dtype: p.dtype }).persist());
  }

  /** lr, β1, β2, ε, weight decay and the number of the step that comes (from 1), as the native side reads them. */
  numbers(): number[] {
    return [this.lr, ...this.betas, this.eps, this.weightDecay, this.steps + 1];
  }

  /** Handles of parameters, first moments, second moments, in that order. */
  handles(): number[] {
    return [...this.parameters, ...this.m, ...this.v].map((t) => t.handle);
  }

  /** Moves every parameter that has a gradient. */
  step(): void {
    call(ADAM_STEP, this.handles(), this.numbers());
    this.steps++;
  }

  zeroGrad(): void {
    zeroGrad(this.parameters);
  }

  /** Everything a checkpoint needs (the tensors themselves, not copies): m/0 …, v/0 …, step, lr. */
  state(): Record<string, Tensor | number> {
    const state: Record<string, Tensor | number> = { step: this.steps, lr: this.lr };
    this.m.forEach((t, i) => state[`m/${i}`] = t);
    this.v.forEach((t, i) => state[`v/${i}`] = t);
    return state;
  }

  /** Copies a state of the same parameters in; refuses missing, unknown and wrongly shaped entries by name. */
  setState(state: Record<string, Tensor | number>): void {
    const own = this.state();
    for (const name of Object.keys(state)) {
      if (!(name in own)) {
        throw new TorchError(
          `Cannot restore Adam: it has ${this.m.length} parameters and no "${name}"`,
        );
      }
    }
    for (const [name, mine] of Object.entries(own)) {
      const theirs = state[name];
      const matches = mine instanceof Tensor
        ? theirs instanceof Tensor && theirs.toString() === mine.toString()
        : typeof theirs === "number" && theirs >= 0;
      if (!matches) {
        throw new TorchError(`Cannot restore Adam: expected ${name} as ${mine}, got ${theirs}`);
      }
    }
    for (const [name, mine] of Object.entries(own)) {
      if (mine instanceof Tensor) mine.copy_(state[name] as Tensor);
    }
    this.steps = state.step as number;
    this.lr = state.lr as number;
  }

  [Symbol.dispose](): void {
    for (const t of [...this.m, ...this.v]) t[Symbol.dispose]();
  }
}
