// The Gaussian policy head: raw (pre-tanh, unclamped) mean and log standard deviation of every action dimension.
// Clamping, tanh and noise belong to the algorithm and the simulator. A policy that has cameras encodes what they see
// first (encoder.ts).

import { full, type Generator, noGrad, Tensor, TorchError } from "../torch/mod.ts";
import { type Sight, SightEncoder, type SightOptions } from "./encoder.ts";
import { Mlp } from "./mlp.ts";
import { copyParameters, lerpParameters } from "./parameters.ts";

/**
 * fixed: log σ is the constant logStdInit; state_independent: one learnable vector; state_dependent: the second half of
 * an output twice as wide, whose bias starts at logStdInit (output gain 0.01).
 */
export type StdKind = "fixed" | "state_independent" | "state_dependent";

export interface GaussianPolicyOptions {
  /** Width of the observation, or what there is to see. */
  input: number | Omit<SightOptions, "generator">;
  hidden: readonly number[];
  /** Action dimension A. */
  actions: number;
  /** Default "state_independent". */
  std?: StdKind;
  /** Default 0, σ = 1. */
  logStdInit?: number;
  /** Gain of the output layer: default √2 as published, 0.01 for state_dependent. */
  outputGain?: number;
  /** Draws the initial weights. */
  generator: Generator;
}

/** Vectors [..., input], or what cameras see. */
export type Observation = Tensor | Sight;

export class GaussianPolicy implements Disposable {
  readonly actions: number;
  readonly std: StdKind;
  readonly #encoder: SightEncoder | undefined;
  readonly #trunk: Mlp;
  /** [A]; absent for state_dependent. */
  readonly #logStd: Tensor | undefined;

  constructor(options: GaussianPolicyOptions | { copyOf: GaussianPolicy }) {
    if ("copyOf" in options) {
      const source = options.copyOf;
      this.actions = source.actions;
      this.std = source.std;
      this.#encoder = source.#encoder?.clone();
      this.#trunk = source.#trunk.clone();
      this.#logStd = noGrad(() => source.#logStd?.clone())?.persist();
    } else {
      const { input, hidden, actions, std = "state_independent", logStdInit = 0, generator } =
        options;
      const dependent = std === "state_dependent";
      const outputGain = options.outputGain ?? (dependent ? 0.01 : Math.SQRT2);
      this.actions = actions;
      this.std = std;
      const output = dependent ? 2 * actions : actions;
      this.#encoder = typeof input === "number"
        ? undefined
        : new SightEncoder({ ...input, generator });
      const width = this.#encoder?.output ?? input as number;
      this.#trunk = new Mlp({ input: width, hidden, output, outputGain, generator });
      if (dependent) {
        noGrad(() => {
          using bias = this.#trunk.parameters().get("output.bias")!.slice(0, actions, output);
          bias.fill_(logStdInit);
        });
      } else {
        this.#logStd = full([actions], logStdInit, { dtype: "float32" }).persist();
      }
    }
    if (this.std === "state_independent") this.#logStd!.requiresGrad_();
  }

  /** observation [..., input] → mean [..., A]; logStd [..., A], or [A] unless it depends on the state. */
  forward(observation: Observation): { mean: Tensor; logStd: Tensor } {
    return this.#split(this.#trunk.forward(this.#encode(observation)));
  }

  /** The same without gradients. */
  infer(observation: Observation): { mean: Tensor; logStd: Tensor } {
    return noGrad(() => this.forward(observation));
  }

  #encode(observation: Observation): Tensor {
    const sees = !(observation instanceof Tensor);
    if (sees !== (this.#encoder !== undefined)) {
      throw new TorchError(
        `Cannot act: expected ${this.#encoder ? "pictures" : "a vector"}, got ${
          sees ? "pictures" : observation
        }`,
      );
    }
    return sees ? this.#encoder!.forward(observation) : observation;
  }

  #split(output: Tensor): { mean: Tensor; logStd: Tensor } {
    // A view, so that freeing the result leaves the parameter alone.
    if (this.#logStd !== undefined) {
      return { mean: output, logStd: this.#logStd.reshape([this.actions]) };
    }
    const last = output.shape.length - 1;
    return {
      mean: output.slice(last, 0, this.actions),
      logStd: output.slice(last, this.actions, 2 * this.actions),
    };
  }

  /** Those of the cameras' encoders; none for a policy without. */
  encoderParameters(): Map<string, Tensor> {
    return this.#encoder?.parameters() ?? new Map();
  }

  /** What an optimiser may change: encoder, trunk, and log_std where it is learnable. */
  parameters(): Map<string, Tensor> {
    const all = new Map([...this.encoderParameters(), ...this.#trunk.parameters()]);
    if (this.std === "state_independent") all.set("log_std", this.#logStd!);
    return all;
  }

  /** What a checkpoint stores: the parameters, the encoders' centres, and a fixed log_std too. */
  tensors(): Map<string, Tensor> {
    const all = new Map([...this.#encoder?.tensors() ?? [], ...this.#trunk.parameters()]);
    if (this.#logStd !== undefined) all.set("log_std", this.#logStd);
    return all;
  }

  /** Lets the encoders subtract what these pictures have in common. */
  centreOn(seen: Sight): void {
    this.#encoder?.centreOn(seen);
  }

  clone(): GaussianPolicy {
    return new GaussianPolicy({ copyOf: this });
  }
  /** this ← source. */
  copyFrom(source: GaussianPolicy): void {
    copyParameters(this.tensors(), source.tensors());
  }
  /** this ← this + weight · (source − this). */
  lerp(source: GaussianPolicy, weight: number): void {
    lerpParameters(this.tensors(), source.tensors(), weight);
  }

  [Symbol.dispose](): void {
    this.#encoder?.[Symbol.dispose]();
    this.#trunk[Symbol.dispose]();
    this.#logStd?.[Symbol.dispose]();
  }
}
