// A video of one episode of a policy: what the policy's own cameras see, and beside it a larger picture
// from a camera that sees more, with the step and the return so far.

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

export interface FilmOptions {
  readonly task: Task;
  readonly config: TrainingConfiguration;
  readonly policy: DeterministicPolicy;
  readonly simulate: (batch: BatchOptions) => Promise<Simulation> | Simulation;
  /** Key of the start: the first episode of an evaluation with the same seed. */
  readonly seed: bigint;
  /** Where the video goes; the ending says what kind (see VideoWriter). */
  readonly path: string;
  /** Camera of the larger picture, as `filmCamera` chooses it. */
  readonly camera: string;
  /** Of the larger picture, pixels. */
  readonly height: number;
}

const filmName = "film";

/**
 * Plays an episode to its end and writes the video, in real time at 50 frames a second at most (.mp4)
 * or 25.
 *
 * @throws VideoError when the file cannot be written
 */
export async function film(options: FilmOptions): Promise<WrittenVideo> {
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
  const perSecond = extname(options.path) === ".mp4" ? 50 : 25;
  const stride = Math.max(1, Math.round(1 / (perSecond * task.controlSeconds)));
  const writer = new VideoWriter(
    options.path,
    Math.round(100 / (stride * task.controlSeconds)) / 100,
  );
  try {
    const { tensors, sizes: { horizon } } = simulation;
    const seen = withoutFilm(tensors);
    const frame = (slot: number, step: number, sum: number) => {
      using _scope = scope();
      const pictures = [...seen.images.values()].map((x) => newest(x, slot));
      const large = newest(tensors.images.get(filmName)!, slot);
      drawText(large, [`${task.name}  step ${step}  return ${sum.toFixed(0)}`], {
        scale: Math.max(1, Math.round(height / 240)),
      });
      return sideBySide([...pictures, large]);
    };
    let [step, sum, over] = [0, 0, false];
    for (let segment = 0; !over; segment++) {
      await simulation.begin(segment, segment === 0);
      for (let t = 0; t < horizon; t++) await simulation.step(t, policy.act(seen, t), null);
      await simulation.end();
      const rewards = tensors.reward.toArray(); // [T, 1]
      const [terminated, truncated] = [tensors.terminated.toArray(), tensors.truncated.toArray()];
      for (let t = 0; t < horizon && !over; t++, step++) {
        if (step % stride === 0) await writer.write(frame(t, step, sum));
        sum += Number(rewards[t]);
        over = Boolean(terminated[t]) || Boolean(truncated[t]);
      }
    }
    return await writer.close();
  } catch (error) {
    await writer.abort();
    throw error;
  } finally {
    await simulation.close();
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
