// Plays one full episode of a deterministic policy in each environment of a batch and sums it up.
// Every environment counts exactly once, with its first episode, so short episodes weigh no more than
// long ones. The learner calls it for its scheduled evaluations, the evaluation service for those that
// are asked for.

import type { RolloutTensors, Simulation } from "../learner/simulation.ts";

export interface EvaluationOptions {
  /** A batch without auxiliaries; its number of nominals is the number of episodes. */
  readonly simulation: Simulation;
  /** State of the batch to start from; the same state gives the same episodes. */
  readonly start: Uint8Array;
  /** What the environments show in slot t -> raw pre-tanh means [N*A]. */
  act(tensors: RolloutTensors, t: number): Float32Array;
  /** Control steps after which the task truncates an episode. */
  readonly episodeLength: number;
  /** Names of the reward terms, in the task program's order. */
  readonly rewardTerms: readonly string[];
}

export interface EvaluationResult {
  /** One value per episode, raw and undiscounted. */
  readonly returns: number[];
  /** Control steps of each episode. */
  readonly lengths: number[];
  readonly returnMean: number;
  /** Standard deviation over the episodes, with Bessel's correction; 0 for a single one. */
  readonly returnStd: number;
  /** Half the width of the 95 % interval of the mean (Student's t); 0 for a single episode. */
  readonly returnCi95: number;
  readonly lengthMean: number;
  /** Mean over the episodes of each reward term's sum. */
  readonly rewardTerms: Record<string, number>;
  /** Episodes that lasted until the task's time limit. */
  readonly lasted: number;
  /** Episodes that ended in a simulation fault; their return is what they had earned until then. */
  readonly faulted: number;
}

export async function evaluate(options: EvaluationOptions): Promise<EvaluationResult> {
  for await (const said of playEpisodes(options)) {
    if ("returns" in said) return said;
  }
  throw new Error("playEpisodes ended without a result");
}

/** The same, saying after every segment how many episodes have ended; the result comes last. */
export async function* playEpisodes(
  options: EvaluationOptions,
): AsyncGenerator<{ readonly finished: number } | EvaluationResult> {
  const { simulation, rewardTerms } = options;
  const { nominals: N, horizon: T } = simulation.sizes;
  if (simulation.sizes.auxiliaries !== 0) {
    throw new Error(`Cannot evaluate: expected 0 auxiliaries, got ${simulation.sizes.auxiliaries}`);
  }
  const K = rewardTerms.length;
  const returns = new Array<number>(N).fill(0);
  const lengths = new Array<number>(N).fill(0);
  const terms = new Array<number>(K).fill(0);
  const finished = new Uint8Array(N);
  let lasted = 0;
  let faulted = 0;
  let left = N;

  await simulation.restore(options.start);
  for (let segment = 0; left > 0; segment++) {
    if (segment * T >= options.episodeLength + T) {
      throw new Error(
        `Cannot evaluate: ${left} episodes are longer than the task's ${options.episodeLength} steps`,
      );
    }
    await simulation.begin(segment, segment === 0);
    for (let t = 0; t < T; t++) {
      await simulation.step(t, options.act(simulation.tensors, t), null);
    }
    await simulation.end();

    const { tensors } = simulation;
    const reward = tensors.reward.toArray(); // [T, N]
    const termValues = tensors.rewardTerms.toArray(); // [T, N, K]
    const terminated = tensors.terminated.toArray();
    const truncated = tensors.truncated.toArray();
    const fault = tensors.fault.toArray();
    for (let i = 0; i < T * N; i++) {
      const episode = i % N;
      if (finished[episode]) continue;
      returns[episode] += Number(reward[i]);
      lengths[episode]++;
      for (let k = 0; k < K; k++) terms[k] += Number(termValues[i * K + k]);
      if (!terminated[i] && !truncated[i]) continue;
      finished[episode] = 1;
      left--;
      if (truncated[i]) lasted++;
      if (Number(fault[i]) !== 0) faulted++;
    }
    yield { finished: N - left };
  }

  const returnMean = mean(returns);
  const returnStd = N === 1
    ? 0
    : Math.sqrt(returns.reduce((sum, r) => sum + (r - returnMean) ** 2, 0) / (N - 1));
  yield {
    returns,
    lengths,
    returnMean,
    returnStd,
    returnCi95: N === 1 ? 0 : studentQuantile975(N - 1) * returnStd / Math.sqrt(N),
    lengthMean: mean(lengths),
    rewardTerms: Object.fromEntries(rewardTerms.map((name, k) => [name, terms[k] / N])),
    lasted,
    faulted,
  };
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/**
 * 97.5 % quantile of Student's t. Exact for 1 and 2 degrees of freedom, otherwise the Cornish-Fisher
 * expansion about the normal quantile (Abramowitz and Stegun 26.7.5), within 0.5 % from 3 on.
 */
export function studentQuantile975(degrees: number): number {
  if (degrees === 1) return 12.706204736174698;
  if (degrees === 2) return 4.302652729749464;
  const z = 1.959963984540054;
  const z2 = z * z;
  const g1 = z * (z2 + 1) / 4;
  const g2 = z * (5 * z2 * z2 + 16 * z2 + 3) / 96;
  const g3 = z * (3 * z2 ** 3 + 19 * z2 ** 2 + 17 * z2 - 15) / 384;
  const g4 = z * (79 * z2 ** 4 + 776 * z2 ** 3 + 1482 * z2 ** 2 - 1920 * z2 - 945) / 92160;
  const n = degrees;
  return z + g1 / n + g2 / n ** 2 + g3 / n ** 3 + g4 / n ** 4;
}
