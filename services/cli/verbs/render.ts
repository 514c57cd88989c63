// ./sdpg render: what the cameras of a task see, as a picture or a video.

import { extname } from "node:path";
import { ImageKind } from "@proto/sdpg/view/v1/view_pb.ts";
import { ModelError } from "@sdpg/common/model/compile.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { loadTask, TaskError } from "@sdpg/tasks/mod.ts";
import {
  encodePng,
  fromDepth,
  fromPlanes,
  fromSegmentation,
  type Picture,
  sideBySide,
  videoEndings,
  VideoError,
  VideoWriter,
} from "../../evaluation/video.ts";
import { drawnSteps } from "../drawn.ts";
import { oneOf, read, UsageError, verb } from "../flags.ts";
import { CliError } from "../process.ts";
import { writeOut } from "../report.ts";

const kinds = {
  rgb: ImageKind.RGB,
  depth: ImageKind.DEPTH,
  segmentation: ImageKind.SEGMENTATION,
};

const readKind = oneOf("rgb", "depth", "segmentation");

/** Where depth is drawn black, m. */
const darkDepth = 10;
/** Control steps of a video, when nobody says how many. */
const videoSteps = 300;

export const render = verb({
  name: "render",
  summary: "draws a task as its cameras see it: the start of an episode, or random actions",
  positionals: [{ name: "task", meaning: "see ./sdpg tasks", required: true }],
  options: {
    out: {
      value: "FILE",
      meaning: `.png, or a video: ${videoEndings.join(", ")}`,
      read: read.text,
    },
    camera: {
      value: "NAME,…",
      meaning: "cameras of the model; several are drawn side by side",
      read: read.text,
      fallback: "the one the policy looks through",
    },
    size: {
      value: "WxH",
      meaning: "pixels of each camera's picture",
      read: size,
      fallback: "640x480",
    },
    kind: {
      value: "rgb|depth|segmentation",
      meaning: "what a pixel shows",
      read: readKind,
      fallback: "rgb",
    },
    steps: {
      value: "N",
      meaning: "control steps of random actions; a .png shows what comes after them",
      read: read.natural,
      fallback: `0 for a .png, ${videoSteps} for a video`,
    },
    seed: {
      value: "N",
      meaning: "seed of the start and of the actions",
      read: read.seed,
      fallback: "0",
    },
    shadows: { meaning: "every light casts shadows that the model lets cast them" },
  },
  details:
    `Depth is white at the camera and black from ${darkDepth} m on. Segmentation gives every ` +
    "geom a colour.\nVideos run in real time at 50 frames a second at most (.mp4), or 25. Without " +
    "ffmpeg the frames are kept.",
  examples: [
    "./sdpg render hopper --out hopper.png",
    "./sdpg render ant --camera side,wide --steps 200 --shadows --out ant.mp4",
  ],
  async run({ positionals: [name], options }) {
    const { out, kind = "rgb", shadows } = options;
    if (out === undefined) {
      throw new UsageError("Cannot render without --out FILE; see ./sdpg render --help");
    }
    const ending = extname(out);
    if (ending !== ".png" && !videoEndings.includes(ending)) {
      throw new UsageError(
        `Cannot write "${out}": expected a name that ends with .png, ${videoEndings.join(", ")}`,
      );
    }
    const task = await loadTask(name).catch((error) => {
      if (error instanceof TaskError) throw new UsageError(error.message);
      if (error instanceof ModelError) throw new CliError(error.message);
      throw error;
    });
    const cameras = chosenCameras(task, options.camera);
    const [width, height] = options.size ?? [640, 480];
    const steps = options.steps ?? (ending === ".png" ? 0 : videoSteps);
    const seed = options.seed ?? 0n;

    const picture = (frame: Uint8Array): Picture => {
      if (kind === "rgb") return fromPlanes(frame, width, height);
      const bytes = frame.slice().buffer;
      return kind === "depth"
        ? fromDepth(new Float32Array(bytes), width, height, darkDepth)
        : fromSegmentation(new Int32Array(bytes), width, height);
    };
    const uniform = generator(seed);
    const drawn = drawnSteps({
      task,
      // Names of cameras may hold what names of arrays may not.
      views: cameras.map((camera, i) => ({
        name: `camera_${i}`,
        camera,
        width,
        height,
        kind: kinds[kind],
        shadows,
      })),
      seed,
      steps,
      // After the tanh uniform in (-1, 1).
      act: () =>
        Float32Array.from({ length: task.actionSize }, () => Math.atanh(1.98 * uniform() - 0.99)),
    });

    const perSecond = ending === ".mp4" ? 50 : 25;
    const stride = Math.max(1, Math.round(1 / (perSecond * task.controlSeconds)));
    const video = ending === ".png"
      ? undefined
      : new VideoWriter(out, Math.round(100 / (stride * task.controlSeconds)) / 100);
    try {
      let step = 0;
      for await (const frames of drawn) {
        if (video ? step % stride === 0 : step === steps) {
          const shown = sideBySide(frames.map(picture));
          if (video) await video.write(shown);
          else await writeFile(out, encodePng(shown));
        }
        step++;
      }
      if (!video) {
        writeOut(out);
      } else {
        const { path, frames, note } = await video.close();
        writeOut(`${path}: ${frames} frames`);
        if (note) console.error(`sdpg: ${note}`);
      }
      return 0;
    } catch (error) {
      await video?.abort();
      throw error instanceof VideoError ? new CliError(error.message) : error;
    }
  },
});

function size(text: string): [number, number] {
  const match = /^(\d{1,5})x(\d{1,5})$/.exec(text);
  const pixels = match ? [Number(match[1]), Number(match[2])] : [];
  if (pixels.length === 0 || pixels.some((n) => n < 1 || n > 4096)) {
    throw new Error("WIDTHxHEIGHT in pixels, 1 to 4096 each, as in 640x480");
  }
  return pixels as [number, number];
}

function chosenCameras(
  task: { name: string; model: { cameras: { name: string }[] }; cameras: string[] },
  list: string | undefined,
): string[] {
  const names = task.model.cameras.map((camera) => camera.name).filter((name) => name !== "");
  const chosen = list?.split(",") ?? task.cameras.slice(0, 1);
  if (chosen.length === 0) {
    throw new UsageError(
      `Cannot render ${task.name}: its task.ts names no cameras` +
        (names.length > 0 ? `; use --camera ${names.join(" or ")}` : ", and its model has none"),
    );
  }
  for (const camera of chosen) {
    if (names.includes(camera)) continue;
    throw new UsageError(
      `Cannot use --camera "${camera}": expected ${names.join(" or ") || "a model with cameras"}` +
        didYouMean(camera, names),
    );
  }
  return chosen;
}

async function writeFile(path: string, bytes: Uint8Array): Promise<void> {
  try {
    await Deno.writeFile(path, bytes);
  } catch (error) {
    throw new CliError(`Cannot write ${path}: ${error instanceof Error ? error.message : error}`);
  }
}

/** Deterministic uniforms in [0, 1) (splitmix64). */
function generator(seed: bigint): () => number {
  const mask = (1n << 64n) - 1n;
  let state = seed;
  return () => {
    let z = state = (state + 0x9e3779b97f4a7c15n) & mask;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
    return Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53;
  };
}
