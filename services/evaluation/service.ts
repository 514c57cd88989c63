// EvaluationService (proto/sdpg/evaluation/v1): plays episodes of a checkpoint's deterministic policy
// in a batch of its own and answers with their statistics. The handler checks its request and plays; one
// evaluation at a time.

import { extname, isAbsolute, relative, resolve } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import {
  type EvaluateRequest,
  type EvaluateResponseSchema,
  EvaluationService,
  type ResultSchema,
  type Video,
  type WatchRequest,
  type WatchResponseSchema,
} from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import { checkpointsDirectory, isRunId } from "@sdpg/common/home.ts";
import type { Recorder } from "@sdpg/common/record.ts";
import { Code, implement, RpcError, type ServiceImplementation } from "@sdpg/common/rpc.ts";
import { type TraceContext, unixMs } from "@sdpg/common/trace.ts";
import { loadTask, type Task, TaskError } from "@sdpg/tasks/mod.ts";
import { loadPolicy, policyGroups } from "../learner/algorithms/sdpg.ts";
import { viewsOf } from "../learner/cameras.ts";
import {
  CheckpointError,
  Checkpoints,
  openGroups,
  type Storage,
  type StoredGroups,
} from "../learner/checkpoint.ts";
import { ConfigurationError, readConfiguration } from "../learner/configuration.ts";
import { evaluationBatch, type TrainingConfiguration, trainingTree } from "../learner/run.ts";
import { Phases } from "../learner/phases.ts";
import { type BatchOptions, type Simulation, SimulationError } from "../learner/simulation.ts";
import { scope } from "../learner/torch/mod.ts";
import { type EvaluationResult, playEpisodes } from "./evaluate.ts";
import { film, filmCamera, type FilmOptions, showEpisode } from "./film.ts";
import { videoEndings, VideoError } from "./video.ts";

export interface EvaluationServiceOptions {
  /** SDPG_HOME: only what lies below it is read and written. */
  readonly home: string;
  readonly simulate: (
    batch: BatchOptions,
    how: TrainingConfiguration["simulation"],
  ) => Promise<Simulation>;
  /** Takes how long the evaluation of an epoch took. */
  readonly recorder?: Recorder;
}

type VideoOptions = Pick<FilmOptions, "path" | "camera" | "height" | "part">;

const mostEpisodes = 4096;
/** Milliseconds between two words about progress. */
const progressEveryMs = 500;

export class EvaluationServer {
  #busy = false;

  constructor(private readonly options: EvaluationServiceOptions) {}

  implementation(): ServiceImplementation {
    return implement(EvaluationService, {
      evaluate: (request, { signal, trace }) => this.#evaluate(request, signal, trace),
      watch: (requests, { signal }) => this.#watch(requests, signal),
    });
  }

  async *#evaluate(
    request: EvaluateRequest,
    signal: AbortSignal,
    trace: TraceContext | undefined,
  ): AsyncIterable<MessageInitShape<typeof EvaluateResponseSchema>> {
    this.#begin();
    const startMs = unixMs();
    const phases = new Phases("evaluation");
    let answer: MessageInitShape<typeof ResultSchema> | undefined;
    try {
      const episodes = request.episodes || 16;
      if (episodes > mostEpisodes) {
        throw new RpcError(
          Code.INVALID_ARGUMENT,
          `Cannot play ${episodes} episodes: expected 1 to ${mostEpisodes}`,
        );
      }
      const checkpoint = phases.time("evaluate/load", () => this.#open(request.policy));
      let said = performance.now();
      const video = this.#videoOf(request.video);
      const { seed } = request;
      for await (const event of this.#play(checkpoint, { episodes, seed, video, trace, phases })) {
        if (signal.aborted) return;
        if ("returns" in event) {
          answer = { ...event, epoch: BigInt(checkpoint.epoch) };
          if (trace !== undefined) {
            phases.add("evaluate", (unixMs() - startMs) / 1e3, { startMs });
            this.options.recorder?.phases(trace, checkpoint.epoch, [...phases]);
          }
        } else if (performance.now() - said > progressEveryMs) {
          said = performance.now();
          yield { event: { case: "progress", value: { finished: event.finished, episodes } } };
        }
      }
    } catch (error) {
      throw refusal(error);
    } finally {
      this.#busy = false;
    }
    // Only now: whoever has the answer may ask for the next evaluation.
    yield { event: { case: "result", value: answer! } };
  }

  /** One episode's frames, each for a credit, and its end. */
  async *#watch(
    requests: AsyncIterable<WatchRequest>,
    signal: AbortSignal,
  ): AsyncIterable<MessageInitShape<typeof WatchResponseSchema>> {
    const iterator = requests[Symbol.asyncIterator]();
    const { value: first, done } = await iterator.next();
    if (done) return;
    this.#begin();
    let sequence = 0n;
    let end: MessageInitShape<typeof WatchResponseSchema> | undefined;
    try {
      const checkpoint = this.#open(first.policy);
      const { config, task } = await trained(checkpoint);
      const camera = filmCamera(task, first.camera);
      const framesPerSecond = first.framesPerSecond || 25;
      if (framesPerSecond > 100) {
        throw new RpcError(
          Code.INVALID_ARGUMENT,
          `Cannot send ${framesPerSecond} frames a second: expected 1 to 100`,
        );
      }
      const height = filmHeight(first.height) || 240;
      using policy = policyOf(checkpoint, config, task);
      const simulate = (batch: BatchOptions) => this.options.simulate(batch, config.simulation);
      const epoch = BigInt(checkpoint.epoch);
      let { credits } = first;
      const { seed } = first;
      const playing = { task, config, policy, simulate, seed, camera, height, framesPerSecond };
      for await (const shown of showEpisode(playing)) {
        if (!("pictures" in shown)) {
          const { steps, sum, lasted } = shown;
          end = { epoch, event: { case: "end", value: { steps, return: sum, lasted } } };
          break;
        }
        while (credits === 0) {
          const more = await iterator.next();
          if (more.done || signal.aborted) return;
          credits += more.value.credits;
        }
        if (signal.aborted) return;
        credits--;
        const { step, sum } = shown;
        const seconds = step * task.controlSeconds;
        const frame = { step, return: sum, seconds, pictures: shown.pictures() };
        yield { sequence: sequence++, epoch, event: { case: "frame", value: frame } };
      }
    } catch (error) {
      throw refusal(error);
    } finally {
      this.#busy = false;
    }
    if (end) yield { sequence, ...end };
  }

  #begin() {
    if (this.#busy) {
      throw new RpcError(Code.RESOURCE_EXHAUSTED, "An evaluation is under way; wait for its end");
    }
    this.#busy = true;
  }

  /** Plays, then films if asked to; frees the batches and the policy however it ends. */
  async *#play(
    checkpoint: StoredGroups,
    { episodes, seed, video, trace, phases }: {
      episodes: number;
      seed: bigint;
      video: VideoOptions | undefined;
      trace: TraceContext | undefined;
      phases: Phases;
    },
  ) {
    const { config, task } = await trained(checkpoint);
    // Refuses an unknown camera before anything is played.
    const filming = video && { ...video, camera: filmCamera(task, video.camera) };
    using policy = phases.time("evaluate/load", () => policyOf(checkpoint, config, task));
    const simulate = (batch: BatchOptions) =>
      this.options.simulate({ ...batch, trace }, config.simulation);
    const simulation = await simulate(evaluationBatch(task, config, episodes, seed));
    let result: EvaluationResult | undefined;
    try {
      const playing = playEpisodes({
        simulation,
        start: await simulation.snapshot(),
        act: (tensors, t) => phases.time("evaluate/policy", () => policy.act(tensors, t)),
        episodeLength: task.program.episodeLength,
        rewardTerms: task.program.rewards.map((term) => term.name),
      });
      for await (const event of playing) {
        if ("returns" in event) result = event;
        else yield event;
      }
    } finally {
      await simulation.close();
    }
    phases.addAll(simulation.timings, "evaluate");
    const imagesRendered = BigInt(simulation.imagesDrawn);
    const filmed = filming && await film({ task, config, policy, simulate, seed, ...filming });
    yield { ...result!, imagesRendered, video: filmed?.path, videoNote: filmed?.note };
  }

  /** Checked before anything is played. */
  #videoOf(video: Video | undefined): VideoOptions | undefined {
    if (video === undefined) return undefined;
    const { path, camera, height, fromSeconds: from, toSeconds } = video;
    if (!videoEndings.includes(extname(path))) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `Cannot write "${path}": expected a name that ends with ${videoEndings.join(", ")}`,
      );
    }
    const to = toSeconds || Infinity;
    if (!(from >= 0 && from < to)) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `Cannot film from second ${from} to ${toSeconds}: expected 0 or more, and an end behind it`,
      );
    }
    return {
      path: this.#belowHome(path),
      camera,
      height: filmHeight(height) || 480,
      part: { from, to },
    };
  }

  #open(policy: EvaluateRequest["policy"]): StoredGroups {
    const open = (path: string, storage?: Storage) => openGroups(path, policyGroups, storage);
    if (policy.case === "checkpoint") return open(this.#belowHome(policy.value));
    const runId = policy.value ?? "";
    if (!isRunId(runId)) {
      throw new RpcError(Code.INVALID_ARGUMENT, `"${runId}" is not the name of a run`);
    }
    const checkpoints = new Checkpoints(checkpointsDirectory(this.options.home, runId));
    const path = policy.case === "runId" ? checkpoints.newestPath() : checkpoints.bestPath();
    if (path === undefined) {
      throw new RpcError(
        Code.NOT_FOUND,
        policy.case === "runId"
          ? `Run ${runId} has no checkpoint; ./sdpg runs lists the runs`
          : `Run ${runId} has no best checkpoint: no evaluation of it has ended`,
      );
    }
    return policy.case === "runId" ? checkpoints.newest(open).checkpoint : open(path);
  }

  #belowHome(path: string): string {
    const full = resolve(this.options.home, path);
    const from = relative(resolve(this.options.home), full);
    if (from === "" || from.startsWith("..") || isAbsolute(from)) {
      throw new RpcError(
        Code.INVALID_ARGUMENT,
        `Cannot use "${path}": expected a path below ${this.options.home}`,
      );
    }
    return full;
  }
}

function filmHeight(height: number): number {
  if (height === 0 || height >= 64 && height <= 2160) return height;
  throw new RpcError(
    Code.INVALID_ARGUMENT,
    `Cannot film ${height} pixels high: expected 64 to 2160`,
  );
}

/** What a checkpoint's policy was trained with, and on. */
async function trained(checkpoint: StoredGroups) {
  const { meta } = checkpoint;
  const config = readConfiguration(trainingTree, meta.configuration);
  const task = await loadTask(
    String(meta.task),
    meta.task_options as Record<string, number | string> | undefined,
  );
  checkSameTask(checkpoint, task);
  return { config, task };
}

/** A policy knows the task it was trained on and no other, whatever has the same name now. */
function checkSameTask({ path, meta }: StoredGroups, { name, model, program }: Task) {
  const compared: [what: string, now: string, then: unknown][] = [
    ["model", model.contentHash, meta.model_hash],
    ["task program", program.contentHash, meta.task_hash],
  ];
  for (const [what, now, then] of compared) {
    if (now === then) continue;
    throw new RpcError(
      Code.FAILED_PRECONDITION,
      `Cannot evaluate ${path}: expected the ${what} of ${name} it was trained on, ${then}, but it ` +
        `is ${now} now; go back to the version that wrote it, or train again`,
    );
  }
}

function policyOf(checkpoint: StoredGroups, config: TrainingConfiguration, task: Task) {
  using _loading = scope();
  return loadPolicy(config, task.program, viewsOf(task, config), checkpoint.groups());
}

/** The expected errors of plain functions with their status codes. */
function refusal(error: unknown): unknown {
  if (error instanceof CheckpointError) return new RpcError(Code.DATA_LOSS, error.message);
  const wrong = [ConfigurationError, TaskError, VideoError];
  if (wrong.some((kind) => error instanceof kind)) {
    return new RpcError(Code.INVALID_ARGUMENT, (error as Error).message);
  }
  if (error instanceof SimulationError) return new RpcError(error.code, error.message);
  return error;
}
