// From what a policy sees to the vector its head consumes (reference/sdpg.md 2.1, 2.2): every camera's stack of frames
// through its own convolutional encoder, a vector as it is, outputs joined in the order of the configuration.

import {
  cat,
  convEncode,
  full,
  type Generator,
  noGrad,
  ones,
  scope,
  scoped,
  type Tensor,
  TorchError,
  zeros,
} from "../torch/mod.ts";
import { LAYER_NORM_EPS, orthogonal } from "./mlp.ts";

/**
 * drqv2: four 3 × 3 convolutions, the first of stride 2, as DrQ-v2 and the published method have it: 42 million
 * multiply-adds for 9 × 84 × 84. small: two strided convolutions, 0.6 million for 9 × 42 × 42.
 */
export type EncoderKind = "drqv2" | "small";

/** Convolutions without padding, each followed by ReLU. */
const convolutions: Record<EncoderKind, { outputs: number; window: number; stride: number }[]> = {
  drqv2: [
    { outputs: 32, window: 3, stride: 2 },
    { outputs: 32, window: 3, stride: 1 },
    { outputs: 32, window: 3, stride: 1 },
    { outputs: 32, window: 3, stride: 1 },
  ],
  small: [
    { outputs: 32, window: 4, stride: 4 },
    { outputs: 32, window: 3, stride: 2 },
  ],
};

/** The fewest rows and columns a picture must have. */
export function smallestPicture(kind: EncoderKind): number {
  return convolutions[kind].reduceRight(
    (size, { window, stride }) => (size - 1) * stride + window,
    1,
  );
}

/** Multiply-adds and floats of activations per picture, and parameters: what memory and time are estimated from. */
export function encoderCosts(kind: EncoderKind, camera: Camera, features: number) {
  let { channels, rows, columns } = camera;
  const costs = { multiplyAdds: 0, activations: 0, parameters: 0 };
  for (const { outputs, window, stride } of convolutions[kind]) {
    rows = outputSize(rows, window, stride);
    columns = outputSize(columns, window, stride);
    const weights = outputs * channels * window * window;
    costs.multiplyAdds += weights * rows * columns;
    costs.activations += outputs * rows * columns;
    costs.parameters += weights + outputs;
    channels = outputs;
  }
  const flat = channels * rows * columns;
  costs.multiplyAdds += features * flat;
  costs.parameters += features * (flat + 3);
  return costs;
}

function outputSize(size: number, window: number, stride: number): number {
  return Math.floor((size - window) / stride) + 1;
}

/** What a camera delivers: uint8 [channels, rows, columns]; channels are frames × 3, oldest frame first. */
export interface Camera {
  readonly name: string;
  readonly channels: number;
  readonly rows: number;
  readonly columns: number;
}

/** Pictures / 255 − centre → convolutions → Linear → LayerNorm → tanh. */
export class ConvEncoder implements Disposable {
  readonly #parameters = new Map<string, Tensor>();
  /** float32 [channels, rows, columns]; ½ until centreOn(). */
  readonly #centre: Tensor;

  constructor(
    readonly kind: EncoderKind,
    readonly camera: Camera,
    /** Width of the output. */
    readonly features: number,
    source: Generator | ConvEncoder,
  ) {
    if (source instanceof ConvEncoder) {
      for (const [name, t] of source.#parameters) this.#add(name, noGrad(() => t.clone()));
      this.#centre = source.#centre.clone().persist();
      return;
    }
    let { channels, rows, columns } = camera;
    const smallest = smallestPicture(kind);
    if (rows < smallest || columns < smallest) {
      throw new TorchError(
        `Cannot encode camera "${camera.name}": encoder ${kind} needs pictures of at least ${smallest} × ${smallest}, ` +
          `got ${columns} × ${rows}`,
      );
    }
    this.#centre = full([channels, rows, columns], 0.5, { dtype: "float32" }).persist();
    convolutions[kind].forEach(({ outputs, window, stride }, i) => {
      const inputs = channels * window * window;
      // As PyTorch does it: the kernel as a matrix [outputs, inputs · rows · columns].
      this.#add(
        `conv.${i}.weight`,
        scoped(() =>
          orthogonal(outputs, inputs, Math.SQRT2, source)
            .reshape([outputs, channels, window, window])
        ),
      );
      this.#add(`conv.${i}.bias`, zeros([outputs]));
      channels = outputs;
      rows = outputSize(rows, window, stride);
      columns = outputSize(columns, window, stride);
    });
    this.#add("project.weight", orthogonal(features, channels * rows * columns, 1, source));
    this.#add("project.bias", zeros([features]));
    this.#add("norm.weight", ones([features]));
    this.#add("norm.bias", zeros([features]));
  }

  #add(name: string, t: Tensor): void {
    this.#parameters.set(name, t.persist().requiresGrad_());
  }

  /** In the order of the computation; the same tensors every time. */
  parameters(): Map<string, Tensor> {
    return this.#parameters;
  }

  /** The parameters and what else a checkpoint must hold. */
  tensors(): Map<string, Tensor> {
    return new Map([...this.#parameters, ["centre", this.#centre]]);
  }

  /**
   * From now on subtracts these pictures' mean instead of ½: uint8 [B, channels, rows, columns]. What all pictures
   * share (sky, floor, the pose that the robot never leaves) would otherwise fill the features before the LayerNorm,
   * and make all states look alike to the layers behind it.
   */
  centreOn(pictures: Tensor): void {
    const rows = 64; // at a time, as floats
    using _scope = scope();
    const sum = zeros([...this.#centre.shape]);
    for (let first = 0; first < pictures.shape[0]; first += rows) {
      const end = Math.min(first + rows, pictures.shape[0]);
      sum.add_(scoped(() => pictures.slice(0, first, end).to("float32").sum(0)));
    }
    this.#centre.copy_(sum.div(255 * pictures.shape[0]));
  }

  get #strides(): number[] {
    return convolutions[this.kind].map(({ stride }) => stride);
  }

  /** pictures uint8 [B, channels, rows, columns], contiguous → [B, features]. */
  forward(pictures: Tensor): Tensor {
    const all = [...this.#parameters.values()];
    return this.#finish(convEncode(pictures, this.#centre, all.slice(0, -2), this.#strides));
  }

  /** The same from libtorch's own operators: what forward() is tested against. */
  forwardComposed(pictures: Tensor): Tensor {
    const p = this.#parameters;
    let h = pictures.to("float32").div(255).sub(this.#centre);
    this.#strides.forEach((stride, i) =>
      h = h.conv2d(p.get(`conv.${i}.weight`)!, p.get(`conv.${i}.bias`)!, { stride }).relu()
    );
    return this.#finish(h.flatten(1).linear(p.get("project.weight")!, p.get("project.bias")!));
  }

  #finish(projected: Tensor): Tensor {
    const p = this.#parameters;
    return projected
      .layerNorm([this.features], p.get("norm.weight")!, p.get("norm.bias")!, LAYER_NORM_EPS)
      .tanh();
  }

  clone(): ConvEncoder {
    return new ConvEncoder(this.kind, this.camera, this.features, this);
  }

  [Symbol.dispose](): void {
    for (const t of this.tensors().values()) t[Symbol.dispose]();
  }
}

/** What a policy that has cameras sees. */
export interface Sight {
  /** One stack of frames per camera, in the order of the cameras: uint8 [B, channels, rows, columns]. */
  readonly pictures: readonly Tensor[];
  /** [B, width], normalised; where the policy sees a vector too. */
  readonly vector?: Tensor;
}

export interface SightOptions {
  readonly cameras: readonly Camera[];
  /** Width of the vector beside the pictures; 0 for none. */
  readonly vector: number;
  readonly kind: EncoderKind;
  /** Width of each camera's encoding. */
  readonly features: number;
  /** Draws the initial weights. */
  readonly generator: Generator;
}

/** Every camera through its own encoder, then the vector, side by side. */
export class SightEncoder implements Disposable {
  readonly #encoders: readonly ConvEncoder[];
  readonly #vector: number;

  constructor(options: SightOptions | { copyOf: SightEncoder }) {
    if ("copyOf" in options) {
      this.#encoders = options.copyOf.#encoders.map((encoder) => encoder.clone());
      this.#vector = options.copyOf.#vector;
      return;
    }
    const { cameras, vector, kind, features, generator } = options;
    if (cameras.length === 0) throw new TorchError("Cannot make an encoder: no camera was given");
    this.#encoders = cameras.map((camera) => new ConvEncoder(kind, camera, features, generator));
    this.#vector = vector;
  }

  /** Width of the joined vector. */
  get output(): number {
    return this.#encoders.reduce((sum, { features }) => sum + features, this.#vector);
  }

  /** [B, output]. */
  forward({ pictures, vector }: Sight): Tensor {
    const widths = [pictures.length, vector?.shape.at(-1) ?? 0];
    if (widths[0] !== this.#encoders.length || widths[1] !== this.#vector) {
      throw new TorchError(
        `Cannot encode: expected ${this.#encoders.length} cameras and a vector of ${this.#vector}, ` +
          `got ${widths[0]} and ${widths[1]}`,
      );
    }
    const parts = this.#encoders.map((encoder, i) => encoder.forward(pictures[i]));
    if (vector !== undefined) parts.push(vector);
    return parts.length === 1 ? parts[0] : cat(parts, -1);
  }

  parameters(): Map<string, Tensor> {
    return this.#named((encoder) => encoder.parameters());
  }

  /** The parameters and what else a checkpoint must hold. */
  tensors(): Map<string, Tensor> {
    return this.#named((encoder) => encoder.tensors());
  }

  #named(of: (encoder: ConvEncoder) => Map<string, Tensor>): Map<string, Tensor> {
    return new Map(
      this.#encoders.flatMap((encoder) =>
        [...of(encoder)].map(([name, t]) => [`encoder.${encoder.camera.name}.${name}`, t] as const)
      ),
    );
  }

  /** Each camera's encoder on its pictures. */
  centreOn({ pictures }: Sight): void {
    this.#encoders.forEach((encoder, i) => encoder.centreOn(pictures[i]));
  }

  clone(): SightEncoder {
    return new SightEncoder({ copyOf: this });
  }

  [Symbol.dispose](): void {
    for (const encoder of this.#encoders) encoder[Symbol.dispose]();
  }
}
