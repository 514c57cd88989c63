// Returns and lengths of the nominal environments' episodes while training. Nominals act without
// noise, so these are returns of the deterministic policy.

import { fromArray, type Tensor } from "./torch/mod.ts";

/** The newest `capacity` finished episodes, and the running sums of those under way. */
export class EpisodeMeter {
  /** Episodes finished since the start of the run, those that ended in a fault included. */
  finished = 0;
  readonly #running: Float64Array; // [N] raw return so far
  readonly #returns: Float64Array; // ring
  readonly #lengths: Float64Array; // ring
  #recorded = 0;

  constructor(nominals: number, readonly capacity = 100) {
    this.#running = new Float64Array(nominals);
    this.#returns = new Float64Array(capacity);
    this.#lengths = new Float64Array(capacity);
  }

  /**
   * Takes in a segment of the nominals, all arrays [T, N]. An episode that ends in a
   * fault of the simulator is not recorded: its return says nothing about the policy.
   */
  add(segment: {
    reward: ArrayLike<number>;
    ended: ArrayLike<number>;
    /** Bits of sdpg.sim.v1.FaultBit. */
    faults: ArrayLike<number>;
    progress: ArrayLike<number>;
  }) {
    const nominals = this.#running.length;
    for (let i = 0; i < segment.reward.length; i++) {
      const k = i % nominals;
      this.#running[k] += segment.reward[i];
      if (!segment.ended[i]) continue;
      this.finished++;
      if (segment.faults[i] === 0) {
        const slot = this.#recorded++ % this.capacity;
        this.#returns[slot] = this.#running[k];
        this.#lengths[slot] = segment.progress[i];
      }
      this.#running[k] = 0;
    }
  }

  /** Mean return and length of the recorded episodes; undefined before the first. */
  means(): { return: number; length: number } | undefined {
    const n = Math.min(this.#recorded, this.capacity);
    if (n === 0) return undefined;
    const mean = (ring: Float64Array) => ring.subarray(0, n).reduce((a, b) => a + b, 0) / n;
    return { return: mean(this.#returns), length: mean(this.#lengths) };
  }

  state(): Map<string, Tensor> {
    return new Map([
      ["running", fromArray(this.#running, [this.#running.length])],
      ["returns", fromArray(this.#returns, [this.capacity])],
      ["lengths", fromArray(this.#lengths, [this.capacity])],
      ["counts", fromArray(new Float64Array([this.finished, this.#recorded]), [2])],
    ]);
  }

  load(state: ReadonlyMap<string, Tensor>) {
    this.#running.set(state.get("running")!.toArray() as Float64Array);
    this.#returns.set(state.get("returns")!.toArray() as Float64Array);
    this.#lengths.set(state.get("lengths")!.toArray() as Float64Array);
    const counts = state.get("counts")!.toArray();
    this.finished = Number(counts[0]);
    this.#recorded = Number(counts[1]);
  }
}
