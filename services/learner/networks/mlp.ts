// The multi-layer perceptron of policy and value heads (reference/sdpg.md 2.1): for each hidden width
// Linear → ELU → LayerNorm, then a Linear without activation. Weights orthogonal with gain √2, biases 0.

import {
  type Generator,
  mlpForward,
  noGrad,
  ones,
  randn,
  scoped,
  type Tensor,
  TorchError,
  zeros,
} from "../torch/mod.ts";
import { copyParameters, lerpParameters } from "./parameters.ts";

export interface MlpOptions {
  /** Width of the input. */
  input: number;
  hidden: readonly number[];
  /** Width of the output. */
  output: number;
  /** Gain of the output layer's orthogonal weights. Default √2, as published; 0.01 starts near zero outputs. */
  outputGain?: number;
  /** Draws the initial weights. */
  generator: Generator;
}

interface MlpCopy {
  input: number;
  hidden: readonly number[];
  output: number;
  /** Values to copy instead of drawing new ones. */
  parameters: ReadonlyMap<string, Tensor>;
}

export const LAYER_NORM_EPS = 1e-5;

/**
 * torch.nn.init.orthogonal_: a [rows, columns] matrix with orthonormal rows or columns (whichever are fewer) times
 * gain, drawn uniformly (QR of a normal matrix with the signs of R's diagonal moved into Q).
 */
export function orthogonal(
  rows: number,
  columns: number,
  gain: number,
  generator: Generator,
): Tensor {
  return scoped(() => {
    const normal = randn([rows, columns], generator);
    const { q, r } = (rows < columns ? normal.transpose(0, 1) : normal).qr();
    const n = r.shape[0];
    const diagonal = r.reshape([n * n]).slice(0, 0, n * n, n + 1);
    const signed = q.mul(diagonal.sign());
    return (rows < columns ? signed.transpose(0, 1) : signed).mul(gain).contiguous();
  });
}

export class Mlp implements Disposable {
  readonly input: number;
  readonly hidden: readonly number[];
  readonly output: number;
  readonly #parameters = new Map<string, Tensor>();

  constructor(options: MlpOptions | MlpCopy) {
    const { input, hidden, output } = options;
    for (const width of [input, ...hidden, output]) {
      if (!Number.isInteger(width) || width < 1) {
        throw new TorchError(
          `Cannot make a network of widths ${
            [input, ...hidden, output].join(" → ")
          }: each must be a whole number ≥ 1`,
        );
      }
    }
    this.input = input;
    this.hidden = [...hidden];
    this.output = output;
    if ("parameters" in options) {
      for (const [name, t] of options.parameters) this.#add(name, noGrad(() => t.clone()));
      return;
    }
    const { outputGain = Math.SQRT2, generator } = options;
    let width = input;
    hidden.forEach((next, i) => {
      this.#add(`hidden.${i}.weight`, orthogonal(next, width, Math.SQRT2, generator));
      this.#add(`hidden.${i}.bias`, zeros([next]));
      this.#add(`hidden.${i}.norm.weight`, ones([next]));
      this.#add(`hidden.${i}.norm.bias`, zeros([next]));
      width = next;
    });
    this.#add("output.weight", orthogonal(output, width, outputGain, generator));
    this.#add("output.bias", zeros([output]));
  }

  #add(name: string, t: Tensor): void {
    this.#parameters.set(name, t.persist().requiresGrad_());
  }

  /** In the order of the computation; the same tensors every time. */
  parameters(): Map<string, Tensor> {
    return this.#parameters;
  }

  /**
   * x [..., input] float32 → [..., output]: one native call each way, on all threads of setNumThreads(), with the same
   * bits for any number of them. Gradients are recorded where a parameter or x wants one.
   */
  forward(x: Tensor): Tensor {
    return mlpForward(x, [...this.#parameters.values()], LAYER_NORM_EPS);
  }

  /** The same bits without gradients, for acting and bootstrapping. */
  infer(x: Tensor): Tensor {
    return noGrad(() => this.forward(x));
  }

  /** The same from libtorch's own operators: what forward() is tested against. */
  forwardComposed(x: Tensor): Tensor {
    const p = this.#parameters;
    let h = x;
    for (let i = 0; i < this.hidden.length; i++) {
      h = h.linear(p.get(`hidden.${i}.weight`)!, p.get(`hidden.${i}.bias`)!).elu().layerNorm(
        [this.hidden[i]],
        p.get(`hidden.${i}.norm.weight`)!,
        p.get(`hidden.${i}.norm.bias`)!,
        LAYER_NORM_EPS,
      );
    }
    return h.linear(p.get("output.weight")!, p.get("output.bias")!);
  }

  /** Same shape, same values, its own memory. */
  clone(): Mlp {
    const { input, hidden, output } = this;
    const copy = new Mlp({ input, hidden, output, parameters: this.#parameters });
    return copy;
  }

  /** this ← source. */
  copyFrom(source: Mlp): void {
    copyParameters(this.#parameters, source.#parameters);
  }

  /** this ← this + weight · (source − this): weight 1 copies, 0 keeps. */
  lerp(source: Mlp, weight: number): void {
    lerpParameters(this.#parameters, source.#parameters, weight);
  }

  [Symbol.dispose](): void {
    for (const t of this.#parameters.values()) t[Symbol.dispose]();
  }
}
