// One episode of a policy to look at: what the policy's own cameras see, and beside it a larger picture
// from a camera that sees more. `showEpisode` plays it; `film` makes a video of that, with the step and the
// return so far.

import { evaluationBatch, type TrainingConfiguration } from "../learner/run.ts";
import type { BatchOptions, RolloutTensors, Simulation, View } from "../learner/simulation.ts";
import type { DeterministicPolicy } from "../learner/algorithms/sdpg.ts";
import { scope, type Tensor } from "../learner/torch/mod.ts";
import type { Task } from "@sdpg/tasks/mod.ts";
import { extname } from "node:path";
import {
  drawText,
  fromPlanes,
  type Picture,
  sideBySide,
  VideoError,
  VideoWriter,
  type WrittenVideo,
} from "./video.ts";

export interface ShowOptions {
  readonly task: Task;
  readonly config: TrainingConfiguration;
  readonly policy: DeterministicPolicy;
  readonly simulate: (batch: BatchOptions) => Promise<Simulation> | Simulation;
  /** Key of the start: the first episode of an evaluation with the same seed. */
  readonly seed: bigint;
  /** Camera of the larger picture, as `filmCamera` chooses it. */
  readonly camera: string;
  /** Of the larger picture, pixels. */
  readonly height: number;
  /** Of simulated time, at most. */
  readonly framesPerSecond: number;
}

export interface Shown {
  /** Control steps before this frame, and the return of these. */
  readonly step: number;
  readonly sum: number;
  /** What the policy sees, a picture a camera, and last the larger one; drawn when asked for. */
  pictures(): Picture[];
}

export interface EpisodeEnd {
  readonly steps: number;
  readonly sum: number;
  /** It lasted until the task's time limit. */
  readonly lasted: boolean;
}

export interface FilmOptions extends Omit<ShowOptions, "framesPerSecond"> {
  /** Where the video goes; the ending says what kind (see VideoWriter). */
  readonly path: string;
  /** The part that is filmed, in s from the episode's start. */
  readonly part?: { readonly from: number; readonly to: number };
}

const filmName = "film";

/** Control steps from one frame to the next. */
export function stepsOfFrame(task: Task, framesPerSecond: number): number {
  return Math.max(1, Math.round(1 / (framesPerSecond * task.controlSeconds)));
}

/** Plays an episode: its frames, `stepsOfFrame` apart, and then how it ended. */
export async function* showEpisode(options: ShowOptions): AsyncGenerator<Shown | EpisodeEnd> {
  const { task, config, policy, camera, height } = options;
  const width = Math.round(height * 4 / 3 / 2) * 2;
  const own = evaluationBatch(task, config, 1, options.seed);
  const larger: View = { name: filmName, camera, width, height, frames: 1, shadows: true };
  const simulation = await options.simulate({
    ...own,
    // Few slots: their pictures are large.
    horizon: Math.min(8, own.horizon),
    views: [...own.views ?? [], larger],
  });
  const stride = stepsOfFrame(task, options.framesPerSecond);
  try {
    const { tensors, sizes: { horizon } } = simulation;
    const seen = withoutFilm(tensors);
    let [step, sum] = [0, 0];
    for (let segment = 0;; segment++) {
      await simulation.begin(segment, segment === 0);
      for (let t = 0; t < horizon; t++) await simulation.step(t, policy.act(seen, t), null);
      await simulation.end();
      const rewards = tensors.reward.toArray(); // [T, 1]
      const [terminated, truncated] = [tensors.terminated.toArray(), tensors.truncated.toArray()];
      for (let t = 0; t < horizon; t++, step++) {
        if (step % stride === 0) {
          const pictures = () => {
            using _scope = scope();
            return [...seen.images.values(), tensors.images.get(filmName)!]
              .map((images) => newest(images, t));
          };
          yield { step, sum, pictures };
        }
        sum += Number(rewards[t]);
        if (!terminated[t] && !truncated[t]) continue;
        yield { steps: step + 1, sum, lasted: Boolean(truncated[t]) };
        return;
      }
    }
  } finally {
    await simulation.close();
  }
}

/**
 * Plays an episode to the end of what is filmed and writes the video, in real time at 50 frames a second
 * at most (.mp4) or 25.
 *
 * @throws VideoError when the file cannot be written, or the episode ends before the part begins
 */
export async function film(options: FilmOptions): Promise<WrittenVideo> {
  const { task, height, path, part = { from: 0, to: Infinity } } = options;
  const framesPerSecond = extname(path) === ".mp4" ? 50 : 25;
  const frameSeconds = stepsOfFrame(task, framesPerSecond) * task.controlSeconds;
  const writer = new VideoWriter(path, Math.round(100 / frameSeconds) / 100);
  let frames = 0;
  try {
    for await (const shown of showEpisode({ ...options, framesPerSecond })) {
      if (!("pictures" in shown)) {
        if (frames > 0) break;
        throw new VideoError(
          `Cannot film from second ${part.from} on: the episode ends after ` +
            `${(shown.steps * task.controlSeconds).toFixed(2)} s`,
        );
      }
      const { step, sum } = shown;
      const seconds = step * task.controlSeconds;
      if (seconds < part.from) continue;
      if (seconds >= part.to) break;
      const pictures = shown.pictures();
      drawText(pictures.at(-1)!, [`${task.name}  step ${step}  return ${sum.toFixed(0)}`], {
        scale: Math.max(1, Math.round(height / 240)),
      });
      await writer.write(sideBySide(pictures));
      frames++;
    }
    return await writer.close();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

/**
 * Camera of the larger picture: the one asked for (empty for none), else "wide" where the model has it,
 * else what the policy looks through, else the model's first.
 *
 * @throws VideoError for an unknown camera
 */
export function filmCamera({ name, model, cameras }: Task, asked: string): string {
  const known = model.cameras.map((camera) => camera.name);
  const chosen = asked || [...["wide"].filter((x) => known.includes(x)), ...cameras, ...known][0];
  if (chosen === undefined) throw new VideoError(`Cannot film ${name}: its model has no camera`);
  if (!known.includes(chosen)) {
    throw new VideoError(`Cannot film ${name} by camera "${chosen}": it has ${known.join(", ")}`);
  }
  return chosen;
}

/** What the policy may see. */
function withoutFilm(tensors: RolloutTensors): RolloutTensors {
  const images = new Map(tensors.images);
  images.delete(filmName);
  return { ...tensors, images };
}

/** The newest frame of a stack, uint8 [T, 1, frames * 3, height, width]. */
function newest(images: Tensor, slot: number): Picture {
  const [, , channels, height, width] = images.shape;
  const stack = images.select(0, slot).select(0, 0);
  const planes = stack.slice(0, channels - 3, channels).contiguous().toArray() as Uint8Array;
  return fromPlanes(planes, width, height);
}
