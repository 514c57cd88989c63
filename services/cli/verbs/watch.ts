// ./sdpg watch: the newest policy of a run at play, on the terminal, also while the run trains. Every
// episode is played by an evaluation service of this command's own with the checkpoint that is the newest
// when it begins; frames come at the pace of the episode's own time.

import { join } from "node:path";
import type { EpisodeEnd, Frame, WatchResponse } from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import { Code, RpcError } from "@sdpg/common/rpc.ts";
import { sdpgHome } from "@sdpg/common/home.ts";
import { terminalSize, write } from "../dashboard.ts";
import { type EvaluationMesh, openEvaluation } from "../evaluation.ts";
import { read, UsageError, verb } from "../flags.ts";
import { number } from "../format.ts";
import { besideEachOther, fitted } from "../half_blocks.ts";
import { isTrained } from "../owners.ts";
import { delay } from "../process.ts";
import { writeOut } from "../report.ts";
import { readRunFile } from "../runfile.ts";
import { plainly } from "../training.ts";

const escape = "\x1b[";
/** Of simulated time; terminals far away are slow. */
const framesPerSecond = 20;
/** Frames that may be on their way. */
const ahead = 4;
/** A frame this late is the new beginning of real time. */
const lateMs = 100;

export const watch = verb({
  name: "watch",
  summary: "shows the newest policy of a run at play, in this terminal, also while it trains",
  positionals: [{ name: "run", meaning: "name of the run; ./sdpg runs", required: true }],
  options: {
    once: { meaning: "ends after one episode" },
    best: { meaning: "the checkpoint with the best evaluation instead of the newest" },
    seed: {
      value: "N",
      meaning: "seed of the first start; each later episode has the next",
      read: read.seed,
      fallback: "0",
    },
    camera: {
      value: "NAME",
      meaning: "camera of the right picture; left is what the policy sees",
      read: read.text,
      fallback: "wide",
    },
  },
  details: [
    "Every episode is played with the checkpoint that is then the newest, until Ctrl-C. A terminal that",
    "says COLORTERM=truecolor gets all colours, another 256. For a file: ./sdpg eval <run> --video FILE.",
  ].join("\n"),
  examples: ["./sdpg watch my-hopper", "./sdpg watch my-hopper --once --camera side"],
  async run({ positionals: [run], options }) {
    if (!Deno.stdout.isTerminal() || Deno.env.get("TERM") === "dumb") {
      throw new UsageError(
        `Cannot show pictures: this is not a terminal; film it with ./sdpg eval ${run} --video FILE.mp4`,
      );
    }
    const home = sdpgHome();
    readRunFile(home, run); // or says that there is no such run
    const policy = { case: options.best ? "bestOfRunId" : "runId", value: run } as const;
    const stopping = new AbortController();
    const stop = () => stopping.abort();
    for (const signal of signals) Deno.addSignalListener(signal, stop);
    console.error("starting gpu-sim and evaluation");
    // One thread: the run that is watched may be training.
    const mesh = await openEvaluation(home, 1);
    const screen = new Screen();
    let seed = options.seed ?? 0n;
    let last: Ended | undefined;
    try {
      while (!stopping.signal.aborted) {
        const what = { policy, seed, camera: options.camera };
        const playing = play(mesh, what, screen, run, stopping.signal);
        try {
          last = await Promise.race([playing, mesh.dead]) ?? last;
        } catch (error) {
          // A run that has just begun has none yet.
          const none = error instanceof RpcError && error.code === Code.NOT_FOUND;
          if (!none || !isTrained(home, run)) throw error;
          screen.show([`waiting for the first checkpoint of ${run}; Ctrl-C ends`]);
          await delay(1000, stopping.signal);
          continue;
        }
        if (options.once) break;
        seed = BigInt.asUintN(64, seed + 1n);
        await delay(1000, stopping.signal); // the end of the episode can be read
      }
    } catch (error) {
      throw plainly(error, join(home, "logs"));
    } finally {
      screen.close();
      await mesh.close();
      for (const signal of signals) Deno.removeSignalListener(signal, stop);
    }
    if (last) writeOut(summary(run, last));
    return 0;
  },
});

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

type Ended = EpisodeEnd & { epoch: bigint; seed: bigint };

/** Shows one episode; undefined when it was stopped before its end. */
async function play(
  mesh: EvaluationMesh,
  what: Parameters<ReturnType<EvaluationMesh["evaluation"]["watch"]>["send"]>[0] & { seed: bigint },
  screen: Screen,
  run: string,
  signal: AbortSignal,
): Promise<Ended | undefined> {
  const stream = mesh.evaluation.watch();
  const stop = () => stream.cancel();
  signal.addEventListener("abort", stop);
  try {
    await stream.send({ ...what, height: 240, framesPerSecond, credits: ahead });
    let began: number | undefined;
    for await (const { epoch, event } of stream.responses as AsyncIterable<WatchResponse>) {
      if (event.case === "end") {
        const ended = { ...event.value, epoch, seed: what.seed };
        screen.note(`${summary(run, ended)}; Ctrl-C ends`);
        return ended;
      }
      if (event.case !== "frame") continue;
      const frame = event.value;
      began ??= performance.now() - frame.seconds * 1e3;
      const wait = began + frame.seconds * 1e3 - performance.now();
      if (wait > 0) await delay(wait, signal);
      else if (wait < -lateMs) began -= wait; // slower than real time here: then no catching up
      screen.frame(frame, `${run}  epoch ${epoch}  seed ${what.seed}`);
      await stream.send({ credits: 1 });
    }
    return undefined;
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
    stream.cancel();
  }
}

function summary(run: string, { epoch, seed, steps, return: sum, lasted }: Ended): string {
  return `${run} at epoch ${epoch}, start ${seed}: return ${number(sum)} in ${steps} steps` +
    (lasted ? ", to the time limit" : "");
}

/** The terminal's second screen, drawn whole for every frame at the size it has then. */
class Screen {
  #lines: string[] = [];
  #open = false;
  readonly #trueColour = /truecolor|24bit/.test(Deno.env.get("COLORTERM") ?? "");

  frame({ step, return: sum, pictures }: Frame, text: string) {
    const { columns, rows } = terminalSize();
    // A line for the text.
    const fitting = fitted(pictures, columns, 2 * (rows - 1));
    const words = `${text}  step ${step}  return ${sum.toFixed(0)}`;
    this.show([words.slice(0, columns), ...besideEachOther(fitting, this.#trueColour)]);
  }

  /** Replaces the text above the pictures. */
  note(text: string) {
    this.show([text.slice(0, terminalSize().columns), ...this.#lines.slice(1)]);
  }

  show(lines: string[]) {
    if (!this.#open) write(`${escape}?1049h${escape}?25l`); // second screen, no cursor
    this.#open = true;
    this.#lines = lines;
    write(`${escape}H${lines.map((line) => `${line}${escape}K`).join("\r\n")}${escape}J`);
  }

  close() {
    if (this.#open) write(`${escape}?25h${escape}?1049l`);
    this.#open = false;
  }
}
