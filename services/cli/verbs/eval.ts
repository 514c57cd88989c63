// ./sdpg eval: episodes with the deterministic policy of a run or checkpoint.

import { cpSync, existsSync, mkdirSync, rmSync } from "node:fs";
import { dirname, extname, join, resolve } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { EvaluateRequestSchema, Result } from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import { createHome, isRunId, runDirectory, sdpgHome } from "@sdpg/common/home.ts";
import { videoEndings } from "../../evaluation/video.ts";
import { type EvaluationMesh, openEvaluation } from "../evaluation.ts";
import { read, UsageError, verb } from "../flags.ts";
import { number, table } from "../format.ts";
import { CliError } from "../process.ts";
import { writeOut } from "../report.ts";
import { readRunFile } from "../runfile.ts";
import { plainly } from "../training.ts";

export const evaluate = verb({
  name: "eval",
  summary: "plays episodes with the deterministic policy, one per seed",
  positionals: [{
    name: "run|checkpoint",
    meaning: "a run (its newest checkpoint) or the path of a checkpoint folder",
    required: true,
  }],
  options: {
    best: { meaning: "the checkpoint with the best evaluation instead of the newest" },
    episodes: { value: "N", meaning: "episodes to play", read: read.count, fallback: "16" },
    seed: { value: "N", meaning: "seed of the starts", read: read.seed, fallback: "0" },
    video: {
      value: "FILE",
      meaning: `films the first episode: ${
        videoEndings.join(", ")
      }; a run's film is also on its page`,
      read: read.text,
    },
    film: { meaning: "films the first episode for the run's page only" },
    camera: {
      value: "NAME",
      meaning: "camera of the video's larger picture",
      read: read.text,
      fallback: "wide",
    },
    height: {
      value: "N",
      meaning: "height of the video in pixels, 64 to 2160",
      read: read.count,
      fallback: "480",
    },
    seconds: {
      value: "A-B",
      meaning: "films only this part of the episode, in its own time",
      read: part,
      fallback: "all of it",
    },
    threads: {
      value: "N",
      meaning: "threads of the simulator and of the policy",
      read: read.count,
      fallback: "the number of cores",
    },
    json: { meaning: "one JSON object instead of a table" },
  },
  details: "The interval of the mean is Student's at 95 %.",
  examples: [
    "./sdpg eval my-hopper",
    "./sdpg eval my-hopper --best --video hopper.mp4",
    "./sdpg eval my-hopper --best --film",
    "./sdpg eval my-hopper --best --video hopper.webp --seconds 1-3.5 --height 180",
    "./sdpg eval .sdpg/runs/my-hopper/checkpoints/400 --json",
  ],
  async run({ positionals: [target], options }) {
    const home = sdpgHome();
    const policy = policyOf(target, options.best ?? false);
    if (policy.case !== "checkpoint") readRunFile(home, target); // or says that there is no such run
    for (const name of ["camera", "height", "seconds"] as const) {
      if (options[name] === undefined || options.video !== undefined || options.film) continue;
      throw new UsageError(
        `Cannot use --${name} without --video FILE or --film: it is about the video`,
      );
    }
    if (options.film && policy.case === "checkpoint") {
      throw new UsageError("Cannot use --film with a checkpoint: it is for a run's page");
    }
    const threads = options.threads ?? navigator.hardwareConcurrency;
    const film = filmPath(home, options.video ?? (options.film ? "film.mp4" : undefined));
    console.error("starting gpu-sim and evaluation");
    const mesh = await openEvaluation(home, threads);
    try {
      const request = {
        policy,
        episodes: options.episodes ?? 16,
        seed: options.seed ?? 0n,
        video: film === undefined ? undefined : {
          path: film,
          camera: options.camera,
          height: options.height,
          fromSeconds: options.seconds?.[0],
          toSeconds: options.seconds?.[1],
        },
      };
      const result = await Promise.race([play(mesh, request), mesh.dead]);
      if (film) {
        const kept = policy.case === "checkpoint"
          ? undefined
          : keptFilm(home, target, result, request, extname(film));
        takeVideo(result, film, [kept, options.video].filter((path) => path !== undefined));
      }
      if (options.json) writeOut(JSON.stringify(asJson(target, result)));
      else writeResult(target, result);
      if (result.videoNote) console.error(`sdpg: ${result.videoNote}`);
      return 0;
    } catch (error) {
      throw plainly(error, join(home, "logs"));
    } finally {
      await mesh.close();
    }
  },
});

interface FilmRequest {
  camera?: string;
  height?: number;
  fromSeconds?: number;
  toSeconds?: number;
}

function part(text: string): [number, number] {
  const ends = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/.exec(text)?.slice(1).map(Number);
  if (ends === undefined || ends[0] >= ends[1]) {
    throw new Error("two seconds of the episode, the first before the second, as in 1-3.5");
  }
  return ends as [number, number];
}

/** Which policy is meant by what was typed. */
function policyOf(target: string, best: boolean) {
  if (target.includes("/")) {
    if (best) throw new UsageError("Cannot use --best with a checkpoint: it is for runs");
    return { case: "checkpoint", value: resolve(target) } as const;
  }
  return { case: best ? "bestOfRunId" : "runId", value: target } as const;
}

/** The service writes below the home only; from there the video is moved to where it is wanted. */
function filmPath(home: string, wanted: string | undefined): string | undefined {
  if (wanted === undefined) return undefined;
  if (!videoEndings.includes(extname(wanted))) {
    throw new UsageError(
      `Cannot write "${wanted}": expected a name that ends with ${videoEndings.join(", ")}`,
    );
  }
  const folder = dirname(resolve(wanted));
  if (!existsSync(folder)) throw new UsageError(`Cannot write "${wanted}": there is no ${folder}`);
  createHome(home);
  return join(home, `film-${Deno.pid}${extname(wanted)}`);
}

/**
 * Where a run's page finds the film. The name says what it shows: the epoch, the seed, what else was
 * asked for, and the return of the episode, as page/films.ts reads them.
 */
function keptFilm(
  home: string,
  run: string,
  { epoch, returns }: Result,
  { seed, video }: { seed: bigint; video?: FilmRequest },
  ending: string,
): string {
  const { camera, height, fromSeconds = 0, toSeconds } = video ?? {};
  const parts = [
    `epoch-${epoch}-seed-${seed}`,
    ...(camera === undefined ? [] : [`camera-${camera.replaceAll(/[^\w.]/g, "_")}`]),
    ...(height === undefined ? [] : [`height-${height}`]),
    ...(toSeconds === undefined ? [] : [`seconds-${fromSeconds}-${toSeconds}`]),
    `return-${returns[0].toFixed(1)}`,
  ];
  const folder = join(runDirectory(home, run), "videos");
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return join(folder, parts.join("-") + ending);
}

/**
 * Brings the video, or the folder of its frames, to where it is wanted; the last place is what the result
 * says. Without ffmpeg there is nothing that the page could show, so the frames go to one place only.
 */
function takeVideo(result: Result, film: string, wanted: string[]) {
  const stem = (path: string) => path.slice(0, -extname(path).length);
  const isVideo = extname(result.video) === extname(film);
  let target = "";
  for (const path of isVideo ? wanted : wanted.slice(-1)) {
    target = result.video.replace(stem(film), stem(path));
    cpSync(result.video, target, { recursive: true }); // It may be on another disk.
  }
  rmSync(result.video, { recursive: true });
  result.video = target;
  result.videoNote = result.videoNote.replaceAll(stem(film), stem(wanted.at(-1)!));
}

async function play(
  mesh: EvaluationMesh,
  request: MessageInitShape<typeof EvaluateRequestSchema>,
): Promise<Result> {
  for await (const { event } of mesh.evaluation.evaluate(request)) {
    if (event.case === "result") return event.value;
    if (event.case === "progress" && Deno.stderr.isTerminal()) {
      console.error(`${event.value.finished} of ${event.value.episodes} episodes have ended`);
    }
  }
  throw new CliError("The evaluation ended without a result");
}

function asJson(target: string, result: Result) {
  return {
    event: "evaluation",
    run_id: isRunId(target) ? target : "",
    epoch: Number(result.epoch),
    episodes: result.returns.length,
    return: result.returnMean,
    return_std: result.returnStd,
    return_ci95: result.returnCi95,
    episode_length: result.lengthMean,
    lasted: result.lasted,
    faulted: result.faulted,
    returns: result.returns,
    lengths: result.lengths,
    reward_terms: result.rewardTerms,
    video: result.video || undefined,
  };
}

function writeResult(target: string, result: Result) {
  const { epoch, returnMean, returnCi95, returnStd, lengthMean, returns, lengths } = result;
  writeOut(
    `${target} at epoch ${epoch}: return ${number(returnMean)} ± ${number(returnCi95)} (95 %), ` +
      `standard deviation ${number(returnStd)}, length ${number(lengthMean)}, ` +
      `${returns.length} episodes, ${result.lasted} to the time limit\n`,
  );
  writeOut(table(
    ["reward term", "mean sum"],
    Object.entries(result.rewardTerms).map(([name, value]) => [name, number(value)]),
  ));
  writeOut("");
  writeOut(table(
    ["episode", "return", "length"],
    returns.map((value, i) => [String(i), number(value), String(lengths[i])]),
  ));
  if (result.video) writeOut(`\nvideo of episode 0: ${result.video}`);
}
