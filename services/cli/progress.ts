// What is known about a run while it goes on, gathered from its events: the numbers that the
// dashboard, the one-line reports and the final summary show.

import type { Done, Epoch, Evaluation } from "@proto/sdpg/learner/v1/learner_pb.ts";
import type { ProcessSample } from "./procfs.ts";

export interface RunFacts {
  runId: string;
  task: string;
  algorithm: string;
  preset: string;
  seed: string;
  /** Epochs and seconds after which the run ends; undefined where there is no such limit. */
  epochs: number | undefined;
  seconds: number | undefined;
  home: string;
}

/** Environment steps a second, auxiliaries included, of one epoch or several. */
export interface Throughput {
  /** The simulator alone. */
  physics: number;
  /** With the policy's inference: the whole rollout. */
  inference: number;
  /** With the updates: the whole epoch, without evaluations and checkpoints. */
  update: number;
}

/** Phases that are not part of training proper. */
const aside = new Set(["evaluate", "checkpoint", "record"]);

export class Progress {
  readonly facts: RunFacts;
  epoch: Epoch | undefined;
  evaluation: Evaluation | undefined;
  done: Done | undefined;
  bestReturn: number | undefined;
  bestEvaluation: number | undefined;
  /** Mean return of the last 100 episodes after each epoch. */
  readonly returns: number[] = [];
  /** Service -> newest sample, in the order the services were started. */
  memory = new Map<string, ProcessSample>();
  #recent: { steps: number; phases: Record<string, number> }[] = [];
  #stepsBefore: number | undefined;
  #startedAt: number | undefined;

  constructor(facts: RunFacts) {
    this.facts = facts;
  }

  addEpoch(epoch: Epoch): void {
    const total = Number(epoch.envStepsTotal);
    const each = this.#stepsBefore === undefined
      ? total / Math.max(1, Number(epoch.epoch))
      : total - this.#stepsBefore;
    this.#stepsBefore = total;
    this.#startedAt ??= epoch.wallTimeS;
    this.#recent.push({ steps: each, phases: epoch.phases });
    if (this.#recent.length > 20) this.#recent.shift();
    this.epoch = epoch;
    if (epoch.return !== undefined) {
      this.returns.push(epoch.return);
      this.bestReturn = Math.max(this.bestReturn ?? -Infinity, epoch.return);
    }
  }

  addEvaluation(evaluation: Evaluation): void {
    this.evaluation = evaluation;
    this.bestEvaluation = Math.max(this.bestEvaluation ?? -Infinity, evaluation.returnMean);
  }

  /** Over the last epochs (20 at most). */
  throughput(): Throughput | undefined {
    if (this.#recent.length === 0) return undefined;
    const steps = sum(this.#recent.map((each) => each.steps));
    const seconds = (phase: string) => sum(this.#recent.map(({ phases }) => phases[phase] ?? 0));
    return {
      physics: steps / seconds("rollout/simulation"),
      inference: steps / seconds("rollout"),
      update: steps / sum(this.#recent.map(({ phases }) => trainingSeconds(phases))),
    };
  }

  /** Phase -> share of the time of the last epochs, children after their parent, big ones first. */
  timeTree(): { phase: string; depth: number; share: number }[] {
    const seconds = new Map<string, number>();
    for (const { phases } of this.#recent) {
      for (const [phase, value] of Object.entries(phases)) {
        seconds.set(phase, (seconds.get(phase) ?? 0) + value);
      }
    }
    const total = sum([...seconds].filter(([phase]) => !phase.includes("/")).map(([, s]) => s));
    const below = (parent: string): { phase: string; depth: number; share: number }[] =>
      [...seconds]
        .filter(([phase]) => parentOf(phase) === parent)
        .sort((a, b) => b[1] - a[1])
        .flatMap(([phase, value]) => [
          { phase, depth: phase.split("/").length - 1, share: total > 0 ? value / total : 0 },
          ...below(phase),
        ]);
    return below("");
  }

  /** Seconds until the run ends at the present pace, the nearer of its two limits. */
  secondsLeft(): number | undefined {
    if (!this.epoch || this.#recent.length === 0) return undefined;
    const perEpoch = sum(this.#recent.map(({ phases }) => topSeconds(phases))) /
      this.#recent.length;
    const { epochs, seconds } = this.facts;
    const limits: number[] = [];
    if (epochs) limits.push((epochs - Number(this.epoch.epoch)) * perEpoch);
    if (seconds) limits.push(seconds - this.epoch.wallTimeS);
    return limits.length === 0 ? undefined : Math.max(0, Math.min(...limits));
  }
}

function parentOf(phase: string): string {
  const slash = phase.lastIndexOf("/");
  return slash < 0 ? "" : phase.slice(0, slash);
}

function topSeconds(phases: Record<string, number>): number {
  return sum(Object.entries(phases).filter(([phase]) => !phase.includes("/")).map(([, s]) => s));
}

function trainingSeconds(phases: Record<string, number>): number {
  return sum(
    Object.entries(phases).filter(([phase]) => !phase.includes("/") && !aside.has(phase))
      .map(([, s]) => s),
  );
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
