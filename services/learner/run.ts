// One training run: builds the simulator batches and the algorithm, then yields an event for every
// epoch and evaluation until it is told to stop. The service (service.ts) and the developer's entry
// (local.ts) both iterate over it; they differ in where the simulator is and what they do with events.

import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import type { TaskProgram } from "@proto/sdpg/task/v1/task_pb.ts";
import { unixMs } from "@sdpg/common/trace.ts";
import { evaluate, type EvaluationResult } from "../evaluation/evaluate.ts";
import { type EpochReport, Sdpg, sdpgTree } from "./algorithms/sdpg.ts";
import {
  CheckpointError,
  type Checkpoints,
  hashState,
  type StoredCheckpoint,
} from "./checkpoint.ts";
import { viewsOf } from "./cameras.ts";
import {
  choice,
  configure,
  flag,
  integer,
  later,
  readConfiguration,
  type Tree,
  type Values,
} from "./configuration.ts";
import { Phases } from "./phases.ts";
import type { PresetLayer } from "./presets.ts";
import type { BatchOptions, Simulation } from "./simulation.ts";
import { liveTensors, scope } from "./torch/mod.ts";

/** Settings of a run that are the same for every algorithm. */
export const runTree = {
  checkpoint: {
    every: integer(100, "epochs between checkpoints; 0 writes only the last", { min: 0 }),
  },
  evaluation: {
    every: integer(25, "epochs between evaluations of the deterministic policy; 0 for none", {
      min: 0,
    }),
    episodes: integer(16, "episodes of an evaluation, one environment each", { min: 1, max: 4096 }),
    seed: integer(1_000_003, "seed of the evaluations' starts, the same at each", { min: 0 }),
  },
  simulation: {
    transport: choice(
      ["shared_memory", "inline"],
      "shared_memory",
      "how the rollout buffer reaches the learner; the results are the same",
    ),
    doorbell: flag(
      true,
      "with shared memory, steps are rung for behind the rollout buffer instead of sent as messages; " +
        "the results are the same",
    ),
    render: later(choice(
      ["inside", "apart"],
      "inside",
      "pictures are drawn by the simulator or by a render service beside it; they are the same",
    )),
  },
} satisfies Tree;

export const trainingTree = { ...sdpgTree, ...runTree } satisfies Tree;
export type TrainingConfiguration = Values<typeof trainingTree>;

/**
 * Overrides of a command line, parted into those of the configuration and the options of the task
 * ("task.variant" -> "variant").
 */
export function partOverrides(overrides: Readonly<Record<string, string>>): {
  configuration: Record<string, string>;
  task: Record<string, string>;
} {
  const parted = { configuration: {}, task: {} } as Record<string, Record<string, string>>;
  for (const [key, value] of Object.entries(overrides)) {
    const option = /^task\.(.+)$/.exec(key)?.[1];
    if (option === undefined) parted.configuration[key] = value;
    else parted.task[option] = value;
  }
  return { configuration: parted.configuration, task: parted.task };
}

export function configureTraining(
  layers: readonly PresetLayer[],
  overrides: Readonly<Record<string, string>>,
): TrainingConfiguration {
  return configure(trainingTree, layers, overrides);
}

/** A task as tasks/mod.ts loads it. */
export interface Task {
  readonly name: string;
  /** Every option with its value; a checkpoint keeps them. */
  readonly options?: Readonly<Record<string, number | string>>;
  readonly model: Model;
  readonly program: TaskProgram;
  /** Cameras of the model that a policy from pixels looks through. */
  readonly cameras?: readonly string[];
}

export interface RunOptions {
  readonly task: Task;
  readonly config: TrainingConfiguration;
  readonly seed: bigint;
  /** Makes a simulator batch; `label` distinguishes the training from the evaluation batch. */
  simulate(options: BatchOptions): Promise<Simulation> | Simulation;
  /** Where checkpoints go and the newest is resumed from; undefined keeps none. */
  readonly checkpoints?: Checkpoints;
  /**
   * Plays the scheduled evaluations of a checkpoint elsewhere while training goes on. Without it, or
   * without checkpoints, the run stands still and plays them itself.
   */
  readonly evaluate?: (checkpoint: string, epoch: number) => Promise<EvaluationResult>;
  /** Rows of the record that are not known to be stored: a checkpoint keeps them (`unrecorded`). */
  readonly unrecorded?: () => readonly string[];
  /** Goes on from the newest valid checkpoint instead of starting afresh. */
  readonly resume?: boolean;
  /** Stops after this epoch. */
  readonly epochs: number;
  /** Stops after so many seconds of training in all; 0 sets no limit. */
  readonly seconds: number;
  /** When aborted, the run ends after the present epoch. */
  readonly signal?: AbortSignal;
}

/** Where in the run something was measured: the five axes every plot chooses from. */
export interface Axes {
  /** Epochs finished, 1 after the first. */
  readonly epoch: number;
  readonly envStepsNominal: number;
  /** Auxiliaries included. */
  readonly envStepsTotal: number;
  readonly imagesRendered: number;
  /** Seconds of training since the start of the run, over all its resumptions. */
  readonly wallTimeS: number;
  readonly gpuSeconds: number;
}

export interface EpochEvent extends EpochReport, Axes {
  readonly kind: "epoch";
  /** What was done between the epoch before and this one is among its phases, and within its time. */
  readonly startMs: number;
  readonly endMs: number;
}

export interface EvaluationEvent extends EvaluationResult, Axes {
  readonly kind: "evaluation";
}

export type RunEvent = EpochEvent | EvaluationEvent | WarningEvent | DoneEvent;

/** Something worth telling that does not end the run: the checkpoint could not be written, ... */
export interface WarningEvent {
  readonly kind: "warning";
  readonly message: string;
}

export interface DoneEvent {
  readonly kind: "done";
  readonly epochs: number;
  readonly return: number | undefined;
  readonly stateHash: string;
  /** Path of the newest checkpoint; undefined when none is kept. */
  readonly checkpoint: string | undefined;
}

/** An evaluation that is being played elsewhere. */
interface Asked {
  readonly axes: Axes;
  readonly checkpoint: string;
  readonly result: Promise<EvaluationResult | { readonly failed: string }>;
  settled: boolean;
}

/** A run under way. `start` builds everything, `events` trains, `close` frees everything. */
export class TrainingRun {
  wallTimeS = 0;
  /** Mean return of the best evaluation so far. */
  best: { epoch: number; return: number } | undefined;
  /** Damaged checkpoints passed over on resuming, newest first. */
  skipped: readonly string[] = [];
  /** Of the record, after a resume: what was not known to be stored at the checkpoint. */
  unrecorded: readonly string[] = [];
  #asked: Asked | undefined;
  /** Epoch of the newest evaluation whose result is known. */
  #evaluated = 0;

  private constructor(
    readonly options: RunOptions,
    readonly algorithm: Sdpg,
    readonly simulation: Simulation,
    readonly evaluation: { simulation: Simulation; start: Uint8Array } | undefined,
  ) {}

  static async start(options: RunOptions): Promise<TrainingRun> {
    const { task, config } = options;
    const opened: Simulation[] = [];
    const open = async (batch: BatchOptions) => {
      const simulation = await options.simulate(batch);
      opened.push(simulation);
      return simulation;
    };
    try {
      const simulation = await open({
        model: task.model,
        program: task.program,
        nominals: config.nominals,
        auxiliaries: config.auxiliaries,
        horizon: config.horizon,
        seed: options.seed,
        meanBounds: config.actor.mean_bounds,
        logStdBounds: config.actor.log_std_bounds,
        label: "training",
        views: viewsOf(task, config),
      });
      const elsewhere = options.evaluate !== undefined && options.checkpoints !== undefined;
      const none = config.evaluation.every === 0 || elsewhere;
      const evaluation = none ? undefined : await open(evaluationBatch(
        task,
        config,
        config.evaluation.episodes,
        BigInt(config.evaluation.seed),
      ));
      const run = new TrainingRun(
        options,
        new Sdpg(config, task.program, simulation, options.seed),
        simulation,
        evaluation && { simulation: evaluation, start: await evaluation.snapshot() },
      );
      if (options.resume) await run.#resume();
      return run;
    } catch (error) {
      for (const simulation of opened) await simulation.close().catch(() => {});
      throw error;
    }
  }

  /** Trains; yields after every epoch, so that the caller's other work gets its turn. */
  async *events(): AsyncGenerator<RunEvent> {
    const { config, checkpoints } = this.options;
    const { every } = config.evaluation;
    let written = this.algorithm.epoch; // epoch of the newest checkpoint
    let lastReturn: number | undefined;
    // What is done between two epochs counts to the second: also the caller's work on the events.
    let phases = new Phases();
    let startMs = unixMs();
    let toldMs = startMs;
    const heard = () => phases.add("record", (unixMs() - toldMs) / 1e3, { startMs: toldMs });

    // What a resumed run does not know of the checkpoint it goes on from.
    if (this.#plays("elsewhere") && written > 0 && written % every === 0) {
      if (this.#evaluated < written) this.#ask(this.#axes(), checkpoints!.newestPath()!);
    }
    while (!this.#finished()) {
      const report = await this.algorithm.train();
      const { epoch } = report;
      lastReturn = report.episodes?.return;
      phases.addAll(report.phases);

      const evaluating = every > 0 && epoch % every === 0;
      let evaluated: EvaluationResult | undefined;
      let isBest = false;
      if (evaluating && this.#plays("here")) {
        evaluated = await phases.timeAsync("evaluate", () => this.#evaluateHere());
        isBest = this.#isBest(epoch, evaluated);
      }
      const scalars: Record<string, number> = { ...report.scalars, live_tensors: liveTensors() };
      if (this.best !== undefined) scalars.best_policy = this.best.return;

      const endMs = unixMs();
      this.wallTimeS += (endMs - startMs) / 1e3;
      const axes = this.#axes();
      toldMs = endMs;
      yield { kind: "epoch", ...report, ...axes, scalars, phases: [...phases], startMs, endMs };
      startMs = endMs;
      phases = new Phases();
      if (evaluated !== undefined) yield { kind: "evaluation", ...axes, ...evaluated };
      heard();
      // A new evaluation waits for the one before, so which epochs are evaluated does not depend on
      // how fast anything is.
      if (evaluating || this.#asked?.settled) {
        const collected = await phases.timeAsync("evaluate", () => this.#collect());
        toldMs = unixMs();
        for (const event of collected) yield event;
        heard();
      }

      // Only now, with the epoch's events delivered: a resume goes on after this epoch, so nobody
      // would say them again.
      const asking = evaluating && this.#plays("elsewhere");
      const due = config.checkpoint.every > 0 && epoch % config.checkpoint.every === 0;
      if (checkpoints !== undefined && (due || isBest || asking)) {
        const warning = await phases.timeAsync("checkpoint", () => this.#save(isBest));
        if (warning !== undefined) yield { kind: "warning", message: warning };
        else {
          written = epoch;
          if (asking) this.#ask(axes, checkpoints.newestPath()!);
        }
      }
    }

    for (const event of await this.#collect()) yield event;
    if (checkpoints !== undefined && (written !== this.algorithm.epoch || written === 0)) {
      const warning = await this.#save(false);
      if (warning !== undefined) yield { kind: "warning", message: warning };
    }
    yield {
      kind: "done",
      epochs: this.algorithm.epoch,
      return: lastReturn,
      stateHash: await this.stateHash(),
      checkpoint: checkpoints?.newestPath(),
    };
  }

  #axes(): Axes {
    const { epoch, envStepsNominal, envStepsTotal, imagesRendered } = this.algorithm;
    const { wallTimeS } = this;
    return { epoch, envStepsNominal, envStepsTotal, imagesRendered, wallTimeS, gpuSeconds: 0 };
  }

  // --------------------------------------------------------------------------------- evaluations

  /** Whether scheduled evaluations are played in this process, or by somebody else. */
  #plays(where: "here" | "elsewhere"): boolean {
    if (this.options.config.evaluation.every === 0) return false;
    return (this.evaluation === undefined) === (where === "elsewhere");
  }

  async #evaluateHere(): Promise<EvaluationResult> {
    const { program } = this.options.task;
    using policy = this.algorithm.evaluationPolicy();
    return await evaluate({
      ...this.evaluation!,
      act: policy.act,
      episodeLength: program.episodeLength,
      rewardTerms: program.rewards.map((term) => term.name),
    });
  }

  /** Has a checkpoint evaluated; it stays on the disk until the next is. */
  #ask(axes: Axes, checkpoint: string) {
    this.options.checkpoints!.hold(checkpoint);
    const result = this.options.evaluate!(checkpoint, axes.epoch).catch((error: unknown) => ({
      failed: error instanceof Error ? error.message : String(error),
    }));
    const asked: Asked = { axes, checkpoint, result, settled: false };
    void result.then(() => asked.settled = true);
    this.#asked = asked;
  }

  /** Waits for the evaluation that was asked for and says what came of it. */
  async #collect(): Promise<RunEvent[]> {
    const asked = this.#asked;
    if (asked === undefined) return [];
    const { axes, checkpoint } = asked;
    const result = await asked.result;
    this.#asked = undefined;
    if ("failed" in result) {
      const message = `The evaluation of epoch ${axes.epoch} failed: ${result.failed}`;
      return [{ kind: "warning", message }];
    }
    const events: RunEvent[] = [{ kind: "evaluation", ...axes, ...result }];
    this.#evaluated = axes.epoch;
    if (this.#isBest(axes.epoch, result)) {
      try {
        this.options.checkpoints!.markBest(checkpoint);
      } catch (error) {
        if (!(error instanceof CheckpointError)) throw error;
        events.push({ kind: "warning", message: error.message });
      }
    }
    return events;
  }

  #isBest(epoch: number, { returnMean }: EvaluationResult): boolean {
    if (returnMean <= (this.best?.return ?? -Infinity)) return false;
    this.best = { epoch, return: returnMean };
    return true;
  }

  // --------------------------------------------------------------------------------- checkpoints

  #finished(): boolean {
    const { epochs, seconds, signal } = this.options;
    return this.algorithm.epoch >= epochs || signal?.aborted === true ||
      seconds > 0 && this.wallTimeS >= seconds;
  }

  /** SHA-256, hex, over parameters, optimisers, normalisers, counters and the simulator's state. */
  async stateHash(): Promise<string> {
    const simulation = await this.simulation.snapshot();
    using _scope = scope();
    return hashState(this.algorithm.state(), simulation);
  }

  /** Writes a checkpoint; answers with a warning when the disk refuses, the run goes on then. */
  async #save(best: boolean): Promise<string | undefined> {
    const { checkpoints, config, seed, task } = this.options;
    const simulation = await this.simulation.snapshot();
    using _scope = scope();
    const groups = this.algorithm.state();
    try {
      checkpoints!.write({
        epoch: this.algorithm.epoch,
        groups,
        simulation,
        meta: {
          task: task.name,
          task_options: task.options ?? {},
          model_hash: task.model.contentHash,
          task_hash: task.program.contentHash,
          seed: String(seed),
          configuration: config,
          state_hash: hashState(groups, simulation),
          wall_time_s: this.wallTimeS,
          best: this.best ?? null,
          evaluated: this.#evaluated,
          unrecorded: this.options.unrecorded?.() ?? [],
        },
      }, { best });
      return undefined;
    } catch (error) {
      if (!(error instanceof CheckpointError)) throw error;
      return error.message;
    }
  }

  async #resume() {
    const { checkpoint, skipped } = this.options.checkpoints!.newest();
    this.skipped = skipped;
    this.#takeOver(checkpoint);
    await this.simulation.restore(checkpoint.simulation);
  }

  /** Takes over a checkpoint's state, the simulator's apart. */
  #takeOver({ path, meta, groups }: StoredCheckpoint) {
    const { config, seed, task } = this.options;
    const expected: [string, unknown, unknown][] = [
      ["model", task.model.contentHash, meta.model_hash],
      ["task program", task.program.contentHash, meta.task_hash],
      ["seed", String(seed), meta.seed],
      [
        "configuration",
        JSON.stringify(config),
        JSON.stringify(readConfiguration(trainingTree, meta.configuration)),
      ],
    ];
    for (const [what, now, then] of expected) {
      if (now === then) continue;
      throw new CheckpointError(
        `Cannot resume from ${path}: its ${what} was ${then}, now it is ${now}; ` +
          `start a new run, or go back to the version that wrote it`,
      );
    }
    using _scope = scope();
    this.algorithm.load(groups());
    this.wallTimeS = meta.wall_time_s as number;
    this.best = meta.best as { epoch: number; return: number } | null ?? undefined;
    this.#evaluated = meta.evaluated as number ?? 0;
    this.unrecorded = meta.unrecorded as string[] | undefined ?? []; // older ones waited for the store
  }

  /** Frees the algorithm and the batches. */
  async close() {
    this.algorithm[Symbol.dispose]();
    await this.simulation.close();
    await this.evaluation?.simulation.close();
  }
}

/** The batch an evaluation plays in: one environment per episode, no auxiliaries. */
export function evaluationBatch(
  task: Task,
  config: TrainingConfiguration,
  episodes: number,
  seed: bigint,
): BatchOptions {
  return {
    model: task.model,
    program: task.program,
    nominals: episodes,
    auxiliaries: 0,
    // Pictures are many bytes, and an evaluation looks at none twice.
    horizon: Math.min(config.observation === "pixels" ? 8 : 100, task.program.episodeLength),
    seed,
    meanBounds: config.actor.mean_bounds,
    logStdBounds: config.actor.log_std_bounds,
    label: "evaluation",
    views: viewsOf(task, config),
  };
}
