// LearnerService (proto/sdpg/learner/v1): starts, watches, stops, resumes and evaluates runs, one run
// being trained at a time. Handlers check their request, call plain functions and map the result; the
// run itself is a loop over TrainingRun.events(), each event going to the watchers and to the recorder.

import { join } from "node:path";
import {
  type Epoch,
  LearnerService,
  type WatchRunResponse,
} from "@proto/sdpg/learner/v1/learner_pb.ts";
import type { WatchRunRequest } from "@proto/sdpg/learner/v1/learner_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WatchRunResponseSchema } from "@proto/sdpg/learner/v1/learner_pb.ts";
import { checkpointsDirectory, isRunId, runDirectory, writeFileAtomic } from "@sdpg/common/home.ts";
import type { Logger } from "@sdpg/common/log.ts";
import type { Recorder } from "@sdpg/common/record.ts";
import { Code, implement, RpcError, type ServiceImplementation } from "@sdpg/common/rpc.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { listTasks, loadTask, TaskError } from "@sdpg/tasks/mod.ts";
import { evaluate } from "../evaluation/evaluate.ts";
import { loadPolicy, TrainingError } from "./algorithms/sdpg.ts";
import { CheckpointError, Checkpoints, readCheckpoint } from "./checkpoint.ts";
import { ConfigurationError, format, leaves, readConfiguration } from "./configuration.ts";
import { estimateBytes } from "./memory.ts";
import { type PresetName, presets } from "./presets.ts";
import {
  configureTraining,
  evaluationBatch,
  type RunEvent,
  type Task,
  type TrainingConfiguration,
  TrainingRun,
  trainingTree,
} from "./run.ts";
import { type BatchOptions, type Simulation, SimulationError } from "./simulation.ts";
import { scope, TorchError } from "./torch/mod.ts";

export interface LearnerOptions {
  /** SDPG_HOME: runs and their checkpoints. */
  readonly home: string;
  readonly simulate: (options: BatchOptions, transport: Transport) => Promise<Simulation>;
  readonly recorder: Recorder;
  readonly log: Logger;
  /** Milliseconds since 1970. */
  readonly now: () => number;
}

type Transport = TrainingConfiguration["simulation"]["transport"];

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
  configuration: TrainingConfiguration;
}

type Outcome = { done: Extract<RunEvent, { kind: "done" }> } | { failed: string };

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
      evaluateRun: (request) =>
        this.#refusals(() =>
          this.#evaluateRun(request.runOrCheckpoint, request.episodes || 16, request.seed)
        ),
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
    const observation = oneOf("observation", request.observation || "state", ["state"]);
    const preset = oneOf("preset", request.preset || "cpu", Object.keys(presets)) as PresetName;
    const name = oneOf("task", request.task, listTasks());
    const layers = presets[preset][name];
    if (layers === undefined) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `No preset "${preset}" for task "${name}"; there is one for ` +
          Object.keys(presets[preset]).join(", "),
      );
    }
    const configuration = configureTraining(layers, request.overrides);
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
      const task = await loadTask(name);
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
        configuration,
      };
      const active = await this.#open(file, task, false);
      Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
      writeFileAtomic(join(directory, "run.json"), JSON.stringify(file, null, 2) + "\n");
      this.#launch(active);
      return {
        runId,
        configurationJson: JSON.stringify(configuration),
        estimatedBytes: BigInt(estimateBytes(active.run)),
      };
    });
  }

  async #resumeRun(request: { runId: string; epochs: bigint; seconds: number }) {
    const before = this.#readRun(request.runId);
    return await this.#exclusively(async () => {
      const task = await loadTask(before.task);
      const file: RunFile = {
        ...before,
        epochs: Number(request.epochs) || before.configuration.epochs,
        seconds: request.seconds,
      };
      const active = await this.#open(file, task, true);
      this.#launch(active);
      return {
        epoch: BigInt(active.run.algorithm.epoch),
        configurationJson: JSON.stringify(file.configuration),
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
    const run = await TrainingRun.start({
      task,
      config: file.configuration,
      seed: BigInt(file.seed),
      simulate: (batch) => this.options.simulate(batch, file.configuration.simulation.transport),
      checkpoints: new Checkpoints(checkpointsDirectory(this.options.home, file.run_id)),
      resume,
      epochs: file.epochs,
      seconds: file.seconds,
      signal: stop.signal,
    });
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
    try {
      // Whoever started the run means to watch it from its first epoch.
      await firstWatcher(active.watchers, 1000, active.stop.signal);
      for await (const event of run.events()) {
        record(recorder, runId, event);
        for (const watcher of active.watchers) watcher.offer(event);
        if (event.kind === "warning") log.warn(event.message, { run: runId });
        if (event.kind === "done") outcome = { done: event };
      }
    } catch (error) {
      outcome = { failed: this.#reasonOfFailure(error, runId) };
      log.error(outcome.failed, {
        run: runId,
        error: error instanceof Error ? error.stack : String(error),
      });
    }
    await run.close().catch((error) => log.warn("closing the run", { error }));
    const stopped = "done" in outcome && active.stop.signal.aborted;
    this.#recordRun(
      active,
      "failed" in outcome ? "failed" : stopped ? "stopped" : "done",
      "failed" in outcome ? outcome.failed : undefined,
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

  #recordRun(active: ActiveRun, state: "running" | "stopped" | "done" | "failed", reason?: string) {
    const { file, run } = active;
    this.options.recorder.run({
      runId: file.run_id,
      task: file.task,
      algorithm: file.algorithm,
      observation: file.observation,
      preset: file.preset,
      seed: file.seed,
      configurationJson: JSON.stringify(file.configuration),
      modelHash: file.model_hash,
      taskHash: file.task_hash,
      state,
      reason: reason ?? "",
      epoch: run.algorithm.epoch,
      wallTimeS: run.wallTimeS,
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

  // ------------------------------------------------------------------------------ evaluate and list

  async #evaluateRun(runOrCheckpoint: string, episodes: number, seed: bigint) {
    if (episodes > 4096) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `Cannot play ${episodes} episodes: expected 1 to 4096`,
      );
    }
    const path = isRunId(runOrCheckpoint)
      ? new Checkpoints(
        checkpointsDirectory(this.options.home, this.#readRun(runOrCheckpoint).run_id),
      ).newest().path
      : runOrCheckpoint;
    const loaded = scope();
    const { epoch, meta, policy, config } = (() => {
      try {
        const { epoch, meta, groups } = readCheckpoint(path);
        const config = readConfiguration(trainingTree, meta.configuration);
        return { epoch, meta, config, policy: undefined as never, groups };
      } finally {
        loaded[Symbol.dispose]();
      }
    })();
    void policy;
    const task = await loadTask(String(meta.task));
    const simulation = await this.options.simulate(
      evaluationBatch(task, config, episodes, seed),
      config.simulation.transport,
    );
    try {
      const rewardTerms = task.program.rewards.map((term) => term.name);
      using actor = loadPolicy(config, task.program, simulation.sizes, readGroups(path));
      const result = await evaluate({
        simulation,
        start: await simulation.snapshot(),
        act: (observation) => actor.act(observation),
        episodeLength: task.program.episodeLength,
        rewardTerms,
      });
      return {
        runId: isRunId(runOrCheckpoint) ? runOrCheckpoint : "",
        epoch: BigInt(epoch),
        returns: result.returns,
        lengths: result.lengths,
        returnMean: result.returnMean,
        returnStd: result.returnStd,
        returnCi95: result.returnCi95,
        lengthMean: result.lengthMean,
        rewardTerms: result.rewardTerms,
      };
    } finally {
      await simulation.close();
    }
  }
}
