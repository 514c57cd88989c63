// Learning rates by epoch. Epoch e is counted from 0 and the schedule advances once per epoch
// (1.11).

export type ScheduleName = "constant" | "linear" | "cosine";

export interface ScheduleOptions {
  /** Rate at its highest, above 0. */
  readonly lr: number;
  /** Epochs the schedule spans, at least 1. */
  readonly epochs: number;
  /** Cosine: epochs of linear warm-up, 0 for none. */
  readonly warmupEpochs?: number;
  /** Cosine: share of `lr` the warm-up starts from. The published 0 leaves epoch 0 without effect. */
  readonly warmupStart?: number;
  /** Cosine: rate from epoch `epochs` on. */
  readonly lrMin?: number;
  /** Linear: share of `lr` that remains at the end. */
  readonly finalShare?: number;
}

/** Learning rate of epoch `epoch`. */
export function learningRate(
  schedule: ScheduleName,
  epoch: number,
  options: ScheduleOptions,
): number {
  const { lr, epochs } = options;
  switch (schedule) {
    case "constant":
      return lr;
    case "linear": {
      const finalShare = options.finalShare ?? 0.1;
      return lr * (1 - (1 - finalShare) * Math.min(1, epoch / epochs));
    }
    case "cosine": {
      const warmup = options.warmupEpochs ?? 0;
      const lrMin = options.lrMin ?? 0;
      if (epoch < warmup) {
        const start = options.warmupStart ?? 0;
        return lr * (start + (1 - start) * epoch / Math.max(1, warmup - 1));
      }
      if (epoch >= epochs) return lrMin;
      const progress = (epoch - warmup) / (epochs - warmup);
      return lrMin + (lr - lrMin) * (1 + Math.cos(Math.PI * progress)) / 2;
    }
  }
}
