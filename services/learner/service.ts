// LearnerService (proto/sdpg/learner/v1): starts, watches, stops and resumes runs, one run
// being trained at a time. Handlers check their request, call plain functions and map the result; the
// run itself is a loop over TrainingRun.events(), each event going to the watchers and to the recorder.

import { join } from "node:path";
import { LearnerService } from "@proto/sdpg/learner/v1/learner_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WatchRunRequest, WatchRunResponseSchema } from "@proto/sdpg/learner/v1/learner_pb.ts";
import { checkpointsDirectory, isRunId, runDirectory, writeFileAtomic } from "@sdpg/common/home.ts";
import type { Logger } from "@sdpg/common/log.ts";
import type { Recorder, RunState } from "@sdpg/common/record.ts";
import { Code, implement, RpcError, type ServiceImplementation } from "@sdpg/common/rpc.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { iterationSpan, iterationTrace } from "@sdpg/common/trace.ts";
import { listTasks, loadTask, TaskError, taskOptions } from "@sdpg/tasks/mod.ts";
import type { EvaluationResult } from "../evaluation/evaluate.ts";
import type { RemoteEvaluation } from "../evaluation/remote.ts";
import { TrainingError } from "./algorithms/sdpg.ts";
import { CheckpointError, Checkpoints } from "./checkpoint.ts";
import { ConfigurationError, format, leaves, readConfiguration } from "./configuration.ts";
import { estimateBytes } from "./memory.ts";
import { secondsByName } from "./phases.ts";
import { type Observation, presetLayers, type PresetName, presets } from "./presets.ts";
import {
  configureTraining,
  type EpochEvent,
  partOverrides,
  type RunEvent,
  type Task,
  type TrainingConfiguration,
  TrainingRun,
  trainingTree,
} from "./run.ts";
import { type BatchOptions, type Simulation, SimulationError } from "./simulation.ts";
import { TorchError } from "./torch/mod.ts";
import { type Outcome, Watcher } from "./watcher.ts";

export interface LearnerOptions {
  /** SDPG_HOME: runs and their checkpoints. */
  readonly home: string;
  readonly simulate: (options: BatchOptions, how: Transport) => Simulation | Promise<Simulation>;
  /** Plays scheduled evaluations elsewhere; without it training stands still for them. */
  readonly evaluate?: (what: RemoteEvaluation) => Promise<EvaluationResult>;
  readonly recorder: Recorder;
  readonly log: Logger;
  /** What a run is recorded with: version of the code, and the machine. */
  readonly build: { readonly codeVersion: string; readonly hardware: Record<string, unknown> };
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

type Transport = TrainingConfiguration["simulation"];

/** runs/<run_id>/run.json: what a run was started with. */
interface RunFile {
  run_id: string;
  task: string;
  algorithm: string;
  observation: string;
  preset: string;
  seed: string;
  epochs: number;
  seconds: number;
  created: string;
  model_hash: string;
  task_hash: string;
  /** Every option of the task; absent in runs of earlier versions, which had the defaults. */
  task_options?: TaskOptionValues;
  configuration: TrainingConfiguration;
  /** What the preset alone would have given; absent in runs of earlier versions. */
  preset_configuration?: TrainingConfiguration;
}

type TaskOptionValues = Record<string, number | string>;

/** A run being trained, or the last one that was. */
interface ActiveRun {
  readonly file: RunFile;
  readonly run: TrainingRun;
  readonly stop: AbortController;
  readonly watchers: Set<Watcher>;
  /** Settles with the outcome once the batches are freed. */
  ended: Promise<Outcome>;
  outcome: Outcome | undefined;
}

export class Learner {
  #active: ActiveRun | undefined;
  #starting = false;

  constructor(private readonly options: LearnerOptions) {}

  implementation(): ServiceImplementation {
    return implement(LearnerService, {
      startRun: (request) => this.#refusals(() => this.#startRun(request)),
      resumeRun: (request) => this.#refusals(() => this.#resumeRun(request)),
      watchRun: (requests, { signal }) => this.#watchRun(requests, signal),
      stopRun: (request) => this.#refusals(() => this.#stopRun(request.runId)),
      listAlgorithms: () => ({ algorithms: [describeSdpg()] }),
      listTasks: () => this.#refusals(() => this.#listTasks()),
    });
  }

  /** Ends the present run after its epoch, with a checkpoint. */
  async stop(): Promise<void> {
    this.#active?.stop.abort();
    await this.#active?.ended;
  }

  // ------------------------------------------------------------------------------ start and resume

  async #startRun(request: {
    task: string;
    algorithm: string;
    observation: string;
    preset: string;
    seed: bigint;
    runId: string;
    overrides: Record<string, string>;
    epochs: bigint;
    seconds: number;
  }) {
    const algorithm = oneOf("algorithm", request.algorithm || "sdpg", ["sdpg"]);
    const observation = oneOf(
      "observation",
      request.observation || "pixels",
      ["state", "pixels"],
    ) as Observation;
    const preset = oneOf("preset", request.preset || "cpu", Object.keys(presets)) as PresetName;
    const name = oneOf("task", request.task, listTasks());
    const layers = presetLayers(preset, name, observation);
    if (layers === undefined) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `No preset "${preset}" for task "${name}"; there is one for ` +
          Object.keys(presets[preset]).join(", "),
      );
    }
    const overrides = partOverrides(request.overrides);
    const configuration = configureTraining(layers, overrides.configuration);
    if (configuration.observation !== observation) {
      throw new ConfigurationError(
        `Cannot set observation=${configuration.observation} by itself: choose it with ` +
          `--obs ${configuration.observation}, which brings the settings that go with it`,
      );
    }
    if (configuration.simulation.render === "apart" && observation === "state") {
      throw new ConfigurationError(
        "Cannot set simulation.render=apart: the policy sees the state, so there are no pictures to " +
          "draw; leave it out, or train with --obs pixels",
      );
    }
    if (!(request.seconds >= 0)) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `Cannot train for ${request.seconds} s: expected 0 or more`,
      );
    }
    const runId = request.runId || this.#newRunId(name, request.seed);
    if (!isRunId(runId)) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `Cannot name a run "${runId}": expected 1 to 64 of a-z, 0-9 and -`,
      );
    }
    const directory = runDirectory(this.options.home, runId);
    if (exists(directory)) {
      throw new RpcError(
        Code.ALREADY_EXISTS,
        `Run ${runId} exists; resume it with ./sdpg resume ${runId} or choose another name`,
      );
    }
    return await this.#exclusively(async () => {
      const task = await loadTask(name, overrides.task);
      const file: RunFile = {
        run_id: runId,
        task: name,
        algorithm,
        observation,
        preset,
        seed: String(request.seed),
        epochs: Number(request.epochs) || configuration.epochs,
        seconds: request.seconds,
        created: new Date(this.options.now()).toISOString(),
        model_hash: task.model.contentHash,
        task_hash: task.program.contentHash,
        task_options: task.options,
        configuration,
        preset_configuration: configureTraining(layers, {}),
      };
      const active = await this.#open(file, task, false);
      Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
      writeFileAtomic(join(directory, "run.json"), JSON.stringify(file, null, 2) + "\n");
      this.#launch(active);
      return {
        runId,
        configurationJson: JSON.stringify(recorded(file)),
        estimatedBytes: BigInt(estimateBytes(active.run)),
      };
    });
  }

  async #resumeRun(request: { runId: string; epochs: bigint; seconds: number }) {
    const before = this.#readRun(request.runId);
    return await this.#exclusively(async () => {
      const task = await loadTask(before.task, before.task_options);
      const file: RunFile = {
        ...before,
        epochs: Number(request.epochs) || before.configuration.epochs,
        seconds: request.seconds,
      };
      const active = await this.#open(file, task, true);
      this.#launch(active);
      return {
        epoch: BigInt(active.run.algorithm.epoch),
        configurationJson: JSON.stringify(recorded(file)),
        skipped: [...active.run.skipped],
      };
    });
  }

  /** Runs `start` if no run is being trained or started. */
  async #exclusively<T>(start: () => Promise<T>): Promise<T> {
    if (this.#starting || this.#active !== undefined && this.#active.outcome === undefined) {
      const busy = this.#active?.outcome === undefined ? this.#active?.file.run_id : undefined;
      throw new RpcError(
        Code.RESOURCE_EXHAUSTED,
        `Run ${busy ?? "another"} is being trained here; stop it or start another learner`,
      );
    }
    this.#starting = true;
    try {
      return await start();
    } finally {
      this.#starting = false;
    }
  }

  async #open(file: RunFile, task: Task, resume: boolean): Promise<ActiveRun> {
    const stop = new AbortController();
    const checkpoints = new Checkpoints(checkpointsDirectory(this.options.home, file.run_id));
    const { episodes, seed } = file.configuration.evaluation;
    const { evaluate } = this.options;
    const run = await TrainingRun.start({
      task,
      config: file.configuration,
      evaluate: evaluate &&
        ((checkpoint, epoch) =>
          evaluate({
            ...{ checkpoint, episodes, seed: BigInt(seed) },
            trace: iterationTrace(file.run_id, epoch),
          })),
      seed: BigInt(file.seed),
      simulate: (batch) =>
        this.options.simulate(
          { ...batch, trace: iterationTrace(file.run_id, 0) },
          file.configuration.simulation,
        ),
      checkpoints,
      // A resumed run replays only what came after its checkpoint. Waiting for the store instead takes
      // the training 0.15 s a checkpoint.
      unrecorded: () => this.options.recorder.unsent(file.run_id),
      // A run that ended before its first checkpoint begins again: the same seed, the same bits.
      resume: resume && checkpoints.newestPath() !== undefined,
      epochs: file.epochs,
      seconds: file.seconds,
      signal: stop.signal,
    });
    this.options.recorder.restore(run.unrecorded);
    const ended = Promise.resolve<Outcome>({ failed: "not launched" });
    return { file, run, stop, watchers: new Set(), ended, outcome: undefined };
  }

  #launch(active: ActiveRun) {
    this.#active = active;
    active.ended = this.#train(active);
  }

  /** The training loop: every event to the recorder and the watchers. Never rejects. */
  async #train(active: ActiveRun): Promise<Outcome> {
    const { file, run } = active;
    const { recorder, log } = this.options;
    const runId = file.run_id;
    this.#recordRun(active, "running");
    let outcome: Outcome = { failed: "the run ended without saying how" };
    let stopped = false;
    try {
      // Whoever started the run means to watch it from its first epoch.
      await firstWatcher(active.watchers, 1000, active.stop.signal);
      for await (const event of run.events()) {
        record(recorder, file, event);
        if (event.kind === "warning") log.warn(event.message, { run: runId });
        if (event.kind === "done") {
          outcome = { done: event };
          stopped = active.stop.signal.aborted;
          continue; // watchers hear of the end once it is recorded, below
        }
        for (const watcher of active.watchers) watcher.offer(event);
      }
    } catch (error) {
      outcome = { failed: this.#reasonOfFailure(error, runId) };
      log.error(outcome.failed, {
        run: runId,
        error: error instanceof Error ? error.stack : String(error),
      });
    }
    await run.close().catch((error) => log.warn("closing the run", { error }));
    this.#recordRun(
      active,
      "failed" in outcome ? "failed" : stopped ? "stopped" : "done",
      outcome,
    );
    active.outcome = outcome;
    for (const watcher of active.watchers) watcher.end(outcome);
    return outcome;
  }

  #reasonOfFailure(error: unknown, runId: string): string {
    const text = error instanceof Error ? error.message : String(error);
    const expected = error instanceof SimulationError || error instanceof TrainingError ||
      error instanceof CheckpointError || error instanceof TorchError;
    return expected
      ? `${text}; then go on with ./sdpg resume ${runId}`
      : `Internal error of the learner, its log has the cause: ${text}`;
  }

  #recordRun(active: ActiveRun, state: RunState, outcome?: Outcome) {
    const { file, run } = active;
    const reason = outcome !== undefined && "failed" in outcome ? outcome.failed : undefined;
    const done = outcome !== undefined && "done" in outcome
      ? { stateHash: outcome.done.stateHash, checkpoint: outcome.done.checkpoint }
      : {};
    this.options.recorder.run({
      runId: file.run_id,
      task: file.task,
      algorithm: file.algorithm,
      observation: file.observation,
      preset: file.preset,
      seed: BigInt(file.seed),
      configuration: {
        ...recorded(file),
        model_hash: file.model_hash,
        task_hash: file.task_hash,
      },
      state,
      reason,
      epochs: run.algorithm.epoch,
      ...done,
      ...this.options.build,
    });
  }

  // --------------------------------------------------------------------------------- watch and stop

  async *#watchRun(
    requests: AsyncIterable<WatchRunRequest>,
    signal: AbortSignal,
  ): AsyncIterable<MessageInitShape<typeof WatchRunResponseSchema>> {
    const iterator = requests[Symbol.asyncIterator]();
    const first = await iterator.next();
    if (first.done) return;
    const { runId } = first.value;
    const active = this.#active;
    if (active === undefined || active.file.run_id !== runId) {
      throw new RpcError(Code.NOT_FOUND, `Run ${runId} is not being trained here`);
    }
    const watcher = new Watcher();
    watcher.grant(first.value.credits);
    if (active.outcome !== undefined) watcher.end(active.outcome);
    active.watchers.add(watcher);
    const listen = (async () => {
      for (;;) {
        const next = await iterator.next();
        if (next.done) return;
        watcher.grant(next.value.credits);
      }
    })();
    listen.catch(() => {}); // A broken stream ends the iteration below through `signal`.
    try {
      let sequence = 0n;
      for await (const event of watcher.events(signal)) {
        yield { runId, sequence: sequence++, event };
      }
    } finally {
      active.watchers.delete(watcher);
    }
  }

  async #stopRun(runId: string) {
    const active = this.#active;
    if (active === undefined || active.file.run_id !== runId) {
      throw new RpcError(Code.NOT_FOUND, `Run ${runId} is not being trained here`);
    }
    active.stop.abort();
    const outcome = await active.ended;
    if ("failed" in outcome) throw new RpcError(Code.ABORTED, outcome.failed);
    return { epoch: BigInt(outcome.done.epochs), checkpoint: outcome.done.checkpoint ?? "" };
  }

  // ------------------------------------------------------------------------------ what there is

  async #listTasks() {
    const tasks = [];
    for (const name of listTasks()) {
      const { summary, actionSize, privilegedSize, actorSize, episodeLength } = await loadTask(
        name,
      );
      const options = Object.entries(await taskOptions(name)).map(([option, declared]) => ({
        name: option,
        meaning: declared.meaning,
        defaultValue: String(declared.default),
        choices: "choices" in declared ? [...declared.choices] : [],
      }));
      tasks.push({ name, summary, actionSize, privilegedSize, actorSize, episodeLength, options });
    }
    return { tasks };
  }

  // ---------------------------------------------------------------------------------------- helpers

  #newRunId(task: string, seed: bigint): string {
    const stamp = new Date(this.options.now()).toISOString().replace(/[-:]/g, "").slice(0, 15);
    return `${task}-${seed}-${stamp.toLowerCase()}`.slice(0, 64);
  }

  #readRun(runId: string): RunFile {
    if (!isRunId(runId)) {
      throw new RpcError(Code.INVALID_ARGUMENT, `"${runId}" is not the name of a run`);
    }
    const path = join(runDirectory(this.options.home, runId), "run.json");
    let json: unknown;
    try {
      json = JSON.parse(Deno.readTextFileSync(path));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) {
        throw new RpcError(Code.NOT_FOUND, `There is no run ${runId}; ./sdpg runs lists them`);
      }
      throw new RpcError(Code.DATA_LOSS, `Cannot read ${path}: it is damaged; start a new run`);
    }
    const file = json as RunFile;
    return { ...file, configuration: readConfiguration(trainingTree, file.configuration) };
  }

  /** Maps the expected errors of plain functions to status codes. */
  async #refusals<T>(handle: () => Promise<T>): Promise<T> {
    try {
      return await handle();
    } catch (error) {
      if (error instanceof ConfigurationError || error instanceof TaskError) {
        throw new RpcError(Code.INVALID_ARGUMENT, error.message);
      }
      if (error instanceof CheckpointError) throw new RpcError(Code.DATA_LOSS, error.message);
      if (error instanceof SimulationError) throw new RpcError(error.code, error.message);
      throw error;
    }
  }
}

/** One event into the store. */
function record(recorder: Recorder, file: RunFile, event: RunEvent) {
  const runId = file.run_id;
  if (event.kind === "warning") {
    recorder.fault({
      runId,
      service: "learner",
      kind: "checkpoint_failed",
      message: event.message,
    });
  }
  if (event.kind !== "epoch" && event.kind !== "evaluation") return;
  const axes = {
    runId,
    iteration: event.epoch,
    envStepsNominal: event.envStepsNominal,
    envStepsTotal: event.envStepsTotal,
    imagesRendered: event.imagesRendered,
    wallTimeS: event.wallTimeS,
    gpuSeconds: event.gpuSeconds,
  };
  if (event.kind === "evaluation") {
    const { returns, lengths } = event;
    recorder.evaluation({ ...axes, returns: [...returns], lengths: [...lengths] });
    return;
  }
  recordSpans(recorder, file, event);
  const phases = Object.entries(secondsByName(event.phases))
    .map(([name, seconds]) => [`phase/${name}`, seconds] as const);
  recorder.iteration({ ...axes, scalars: { ...event.scalars, ...Object.fromEntries(phases) } });
  for (const [kind, count] of Object.entries(event.faults)) {
    if (count > 0) {
      recorder.fault({ runId, service: "gpu-sim", kind, iteration: event.epoch, count });
    }
  }
}

/** The trace of an epoch: its root, and a span for every phase under that which it is a part of. */
function recordSpans(recorder: Recorder, file: RunFile, event: EpochEvent) {
  const root = iterationTrace(file.run_id, event.epoch);
  recorder.span({
    ...{ traceId: root.traceId, spanId: root.spanId, name: iterationSpan },
    ...{ runId: file.run_id, iteration: event.epoch, startMs: event.startMs },
    seconds: (event.endMs - event.startMs) / 1e3,
    attributes: {
      "rl.task": file.task,
      "rl.agent": file.algorithm,
      "rl.preset": file.preset,
      "rl.observation": file.observation,
      "rl.seed": BigInt(file.seed),
      "rl.env_steps.nominal": BigInt(event.envStepsNominal),
      "rl.env_steps.total": BigInt(event.envStepsTotal),
      "rl.images": BigInt(event.imagesRendered),
    },
  });
  recorder.phases(root, event.epoch, event.phases);
}

/** Resolves when somebody watches, when `ms` have passed, or when the run is stopped. */
function firstWatcher(watchers: Set<Watcher>, ms: number, signal: AbortSignal): Promise<void> {
  const until = performance.now() + ms;
  return new Promise((resolve) => {
    const look = () => {
      if (watchers.size > 0 || signal.aborted || performance.now() >= until) resolve();
      else setTimeout(look, 5);
    };
    look();
  });
}

function oneOf(what: string, name: string, known: readonly string[]): string {
  if (known.includes(name)) return name;
  throw new RpcError(
    Code.INVALID_ARGUMENT,
    `Unknown ${what} "${name}"${didYouMean(name, known)}; there is ${known.join(", ")}`,
  );
}

/** What is recorded of a run's settings: the configuration, and the task's options if it has any. */
function recorded({ configuration, task_options = {} }: RunFile) {
  return Object.keys(task_options).length > 0
    ? { ...configuration, task: task_options }
    : configuration;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function describeSdpg() {
  return {
    name: "sdpg",
    summary:
      "Stochastic decoupled policy gradient: nominal and auxiliary environments, one actor " +
      "step onto moved actions, λ-return critic",
    keys: [...leaves(trainingTree)].map(([path, field]) => ({
      path,
      meaning: `${field.meaning} (${field.expected})`,
      defaultValue: format(field.default),
    })),
    presets: Object.entries(presets).flatMap(([preset, tasks]) =>
      Object.keys(tasks).map((task) => `${preset}/${task}`)
    ),
  };
}
