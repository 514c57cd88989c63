// From named observations to the vector a head consumes: each observation through its own encoder, outputs joined in
// the order of the configuration (reference/sdpg.md 2.1). Tasks seen from state use identity encoders only.

import { cat, type Tensor, TorchError } from "../torch/mod.ts";

export interface ObservationSpec {
  name: string;
  /** Width of the observation. */
  width: number;
}

/** Joins identity-encoded observations; a single one passes through unchanged (a view). */
export class IdentityEncoder {
  /** Width of the joined vector. */
  readonly output: number;

  constructor(readonly observations: readonly ObservationSpec[]) {
    if (observations.length === 0) {
      throw new TorchError("Cannot make an encoder: no observations were given");
    }
    this.output = observations.reduce((sum, o) => sum + o.width, 0);
  }

  /** observations: name → [..., width]; result [..., output]. */
  forward(observations: ReadonlyMap<string, Tensor>): Tensor {
    const parts = this.observations.map(({ name, width }) => {
      const t = observations.get(name);
      if (t === undefined) throw new TorchError(`Cannot encode: observation "${name}" is missing`);
      if (t.shape.at(-1) !== width) {
        throw new TorchError(
          `Cannot encode observation "${name}": expected a last dimension of ${width}, got ${t}`,
        );
      }
      return t;
    });
    return parts.length === 1 ? parts[0].reshape(parts[0].shape) : cat(parts, -1);
  }
}
