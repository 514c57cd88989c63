// Running mean and variance, and the observation normaliser built from them (1.12).
//
// Data path: after a segment the learner merges every slot's raw observations into the *live*
// statistics; at the start of the next segment it freezes a copy, and that copy alone normalises
// everything of the segment. Sums are kept in double, so merging order costs no precision.

import type { Observation } from "@proto/sdpg/task/v1/task_pb.ts";
import { fromArray, scope, type Tensor } from "./torch/mod.ts";

/** Mean and population variance of each of `width` columns, merged batch by batch. */
export class RunningStatistics {
  readonly mean: Float64Array;
  readonly variance: Float64Array;
  /** Samples seen; the small start keeps the first merge defined. */
  count = 1e-4;

  constructor(readonly width: number) {
    this.mean = new Float64Array(width);
    this.variance = new Float64Array(width).fill(1);
  }

  /** Merges a batch of `count` samples with the given column means and population variances. */
  merge(mean: ArrayLike<number>, variance: ArrayLike<number>, count: number, offset = 0) {
    const total = this.count + count;
    for (let i = 0; i < this.width; i++) {
      const delta = mean[offset + i] - this.mean[i];
      this.mean[i] += delta * count / total;
      this.variance[i] = (this.variance[i] * this.count + variance[offset + i] * count +
        delta * delta * this.count * count / total) / total;
    }
    this.count = total;
  }

  copyFrom(other: RunningStatistics) {
    this.mean.set(other.mean);
    this.variance.set(other.variance);
    this.count = other.count;
  }

  state(): Map<string, Tensor> {
    return new Map([
      ["mean", fromArray(this.mean, [this.width])],
      ["variance", fromArray(this.variance, [this.width])],
      ["count", fromArray(new Float64Array([this.count]), [1])],
    ]);
  }

  load(state: ReadonlyMap<string, Tensor>) {
    this.mean.set(state.get("mean")!.toArray() as Float64Array);
    this.variance.set(state.get("variance")!.toArray() as Float64Array);
    this.count = Number(state.get("count")!.toArray()[0]);
  }
}

/**
 * (x - mean) / sqrt(variance + 1e-5) over the last axis, as constant tensors. They outlive any scope:
 * whoever froze a normaliser disposes of it.
 */
export class Normaliser implements Disposable {
  readonly mean: Tensor; // [W] float32
  readonly deviation: Tensor; // [W] float32

  constructor(mean: Float64Array, variance: Float64Array) {
    this.mean = fromArray(Float32Array.from(mean), [mean.length]).persist();
    this.deviation = fromArray(
      Float32Array.from(variance, (v) => Math.sqrt(v + 1e-5)),
      [mean.length],
    ).persist();
  }

  /** x [..., W] float32 -> same shape; no clipping. */
  normalise(x: Tensor): Tensor {
    return x.sub(this.mean).div_(this.deviation);
  }

  /** The same into `out`, which spares large segments their memory's first touch. */
  normaliseInto(out: Tensor, x: Tensor): Tensor {
    return out.copy_(x).sub_(this.mean).div_(this.deviation);
  }

  [Symbol.dispose]() {
    this.mean[Symbol.dispose]();
    this.deviation[Symbol.dispose]();
  }
}

/** Normalisers of what the critic and what the actor see. */
export interface FrozenObservations {
  readonly privileged: Normaliser;
  readonly actor: Normaliser;
}

/** Which environments' observations count. */
export type StatisticsWeighting = "all" | "nominal";

interface Key {
  readonly name: string;
  /** First column in the privileged and in the actor vector; undefined where it is not part of it. */
  readonly privileged: number | undefined;
  readonly actor: number | undefined;
  readonly statistics: RunningStatistics;
}

/**
 * Statistics of a task's observations: one accumulator for each observation that asks for it, shared
 * by the actor and the critic where both see it.
 */
export class ObservationStatistics {
  readonly #keys: Key[] = [];
  readonly #privilegedWidth: number;
  readonly #actorWidth: number;

  constructor(observations: readonly Observation[]) {
    let privileged = 0;
    let actor = 0;
    for (const o of observations) {
      if (o.normalise) {
        this.#keys.push({
          name: o.name,
          privileged: o.privileged ? privileged : undefined,
          actor: o.actor ? actor : undefined,
          statistics: new RunningStatistics(o.length),
        });
      }
      if (o.privileged) privileged += o.length;
      if (o.actor) actor += o.length;
    }
    this.#privilegedWidth = privileged;
    this.#actorWidth = actor;
  }

  /**
   * Merges a segment's observations, slot by slot.
   *
   * @param observations normalised by `frozen`: privileged [S, E, P] of every environment, actor
   *   [S, N, O] of the nominals, for what only the actor sees
   * @param members environments of a group; a group's nominal is its first
   */
  merge(
    observations: { readonly privileged: Tensor; readonly actor: Tensor },
    frozen: FrozenObservations,
    members: number,
    weighting: StatisticsWeighting,
  ) {
    using _scope = scope();
    const { privileged, actor } = observations;
    const [slots, environments] = privileged.shape;
    const counted = weighting === "all"
      ? privileged
      : privileged.reshape([slots, environments / members, members, -1]).select(2, 0);
    const seen = rawMoments(counted, frozen.privileged);
    const seenByActor = this.#keys.some((k) => k.privileged === undefined)
      ? rawMoments(actor, frozen.actor)
      : undefined;
    for (let slot = 0; slot < slots; slot++) {
      for (const key of this.#keys) {
        const from = key.privileged === undefined ? seenByActor! : seen;
        const column = key.privileged ?? key.actor!;
        key.statistics.merge(
          from.mean,
          from.variance,
          from.count,
          slot * from.width + column,
        );
      }
    }
  }

  /** Constant normalisers of the present statistics. */
  freeze(): FrozenObservations {
    const gather = (width: number, columnOf: (key: Key) => number | undefined) => {
      const mean = new Float64Array(width);
      // Columns without statistics pass through unchanged.
      const variance = new Float64Array(width).fill(1 - 1e-5);
      for (const key of this.#keys) {
        const column = columnOf(key);
        if (column === undefined) continue;
        mean.set(key.statistics.mean, column);
        variance.set(key.statistics.variance, column);
      }
      return new Normaliser(mean, variance);
    };
    return {
      privileged: gather(this.#privilegedWidth, (k) => k.privileged),
      actor: gather(this.#actorWidth, (k) => k.actor),
    };
  }

  state(): Map<string, Tensor> {
    return new Map(
      this.#keys.flatMap((key) =>
        [...key.statistics.state()].map(([name, t]) => [`${key.name}/${name}`, t] as const)
      ),
    );
  }

  load(state: ReadonlyMap<string, Tensor>) {
    for (const key of this.#keys) {
      key.statistics.load(
        new Map(
          ["mean", "variance", "count"].map((name) => [name, state.get(`${key.name}/${name}`)!]),
        ),
      );
    }
  }
}

/**
 * Column means and population variances over R of what z [S, R, W] was before it was normalised.
 * Taken from z, whose columns are near mean 0 and variance 1, the mean square loses no precision.
 */
function rawMoments(z: Tensor, frozen: Normaliser) {
  const [, count, width] = z.shape;
  const shift = frozen.mean.toArray() as Float32Array;
  const scale = frozen.deviation.toArray() as Float32Array;
  const first = z.mean(1).toArray() as Float32Array; // [S, W]
  const second = z.square().mean(1).toArray() as Float32Array; // [S, W]
  const mean = new Float64Array(first.length);
  const variance = new Float64Array(first.length);
  for (let i = 0; i < first.length; i++) {
    const column = i % width;
    mean[i] = shift[column] + scale[column] * first[i];
    variance[i] = scale[column] ** 2 * Math.max(0, second[i] - first[i] * first[i]);
  }
  return { mean, variance, count, width };
}
