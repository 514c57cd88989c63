// How a run is told to its reader: JSON lines for programs, a dashboard on a terminal, one line per
// epoch everywhere else, and the same lines always in the run's run.log. The caller feeds events;
// what is shown where is decided here.

import { join } from "node:path";
import type { Done, Epoch, Evaluation } from "@proto/sdpg/learner/v1/learner_pb.ts";
import { Dashboard } from "./dashboard.ts";
import { duration, metric, number } from "./format.ts";
import { Progress, type RunFacts } from "./progress.ts";

export interface Report {
  run(facts: RunFacts, configuration: unknown, resumedFrom?: number): Progress;
  epoch(epoch: Epoch): void;
  evaluation(evaluation: Evaluation): void;
  done(done: Done): void;
  /** Something the person should know that is no event of the run. Goes to stderr where there is no dashboard. */
  note(text: string): void;
  /** Puts the terminal back; called on every way out. */
  close(): void;
}

export function openReport(json: boolean): Report {
  if (json) return new JsonReport();
  const terminal = Deno.stdout.isTerminal() && Deno.env.get("TERM") !== "dumb";
  return new TextReport(terminal);
}

function emit(event: Record<string, unknown>): void {
  writeOut(JSON.stringify(event));
}

/** Writes a whole line to stdout; a reader that went away is no failure of the run. */
export function writeOut(line: string): void {
  const bytes = new TextEncoder().encode(line + "\n");
  try {
    for (let sent = 0; sent < bytes.length;) sent += Deno.stdout.writeSync(bytes.subarray(sent));
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

class JsonReport implements Report {
  #progress: Progress | undefined;

  run(facts: RunFacts, configuration: unknown, resumedFrom?: number): Progress {
    emit({
      event: "run",
      run_id: facts.runId,
      task: facts.task,
      algorithm: facts.algorithm,
      preset: facts.preset,
      seed: Number.isSafeInteger(Number(facts.seed)) ? Number(facts.seed) : facts.seed,
      home: facts.home,
      ...(resumedFrom === undefined ? {} : { resumed_from: resumedFrom }),
      configuration,
    });
    return this.#progress = new Progress(facts);
  }

  epoch(epoch: Epoch): void {
    this.#progress?.addEpoch(epoch);
    emit({
      event: "epoch",
      epoch: Number(epoch.epoch),
      return: epoch.return ?? null,
      episode_length: epoch.episodeLength ?? null,
      env_steps_nominal: Number(epoch.envStepsNominal),
      env_steps_total: Number(epoch.envStepsTotal),
      images_rendered: Number(epoch.imagesRendered),
      wall_time_s: epoch.wallTimeS,
      phases: epoch.phases,
    });
  }

  evaluation(evaluation: Evaluation): void {
    emit({
      event: "evaluation",
      epoch: Number(evaluation.epoch),
      return: evaluation.returnMean,
      return_std: evaluation.returnStd,
      episode_length: evaluation.lengthMean,
      episodes: evaluation.episodes,
    });
  }

  done(done: Done): void {
    emit({
      event: "done",
      run_id: this.#progress?.facts.runId,
      epochs: Number(done.epochs),
      return: done.return ?? null,
      state_hash: done.stateHash,
      checkpoint: done.checkpoint,
    });
  }

  note(text: string): void {
    console.error(text);
  }

  close(): void {}
}

class TextReport implements Report {
  #progress: Progress | undefined;
  #dashboard: Dashboard | undefined;
  #terminal: boolean;

  constructor(terminal: boolean) {
    this.#terminal = terminal;
  }

  run(facts: RunFacts, _configuration: unknown, resumedFrom?: number): Progress {
    const progress = this.#progress = new Progress(facts);
    const from = resumedFrom === undefined ? "" : `, resumed after epoch ${resumedFrom}`;
    writeOut(
      `run ${facts.runId}: ${facts.task}, ${facts.algorithm}, preset ${facts.preset}, seed ${facts.seed}${from}`,
    );
    if (this.#terminal) this.#dashboard = new Dashboard(progress);
    return progress;
  }

  epoch(epoch: Epoch): void {
    const progress = this.#progress!;
    progress.addEpoch(epoch);
    if (this.#dashboard) return;
    writeOut(epochLine(progress, epoch));
  }

  evaluation(evaluation: Evaluation): void {
    this.#progress!.addEvaluation(evaluation);
    if (!this.#dashboard) writeOut(evaluationLine(evaluation));
  }

  done(done: Done): void {
    const progress = this.#progress!;
    progress.done = done;
    const wasShown = this.#dashboard !== undefined;
    this.close();
    if (wasShown && progress.evaluation) writeOut(evaluationLine(progress.evaluation));
    const speed = progress.throughput();
    const best = progress.bestReturn === undefined ? "" : `, best ${number(progress.bestReturn)}`;
    writeOut(
      `done: ${done.epochs} epochs` +
        (progress.epoch ? ` in ${duration(progress.epoch.wallTimeS)}` : "") +
        `, return ${done.return === undefined ? "-" : number(done.return)}${best}` +
        (speed ? `, ${metric(speed.update)} env steps/s` : ""),
    );
    writeOut(`checkpoint ${done.checkpoint}`);
  }

  note(text: string): void {
    if (this.#dashboard) this.#dashboard.note(text);
    else console.error(text);
  }

  close(): void {
    this.#dashboard?.close();
    this.#dashboard = undefined;
  }
}

/** What the terminal shows line by line, kept in the run's folder. */
export class RunLog {
  #file: Deno.FsFile;
  #progress: Progress;

  constructor(directory: string, progress: Progress) {
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#file = Deno.openSync(join(directory, "run.log"), {
      create: true,
      append: true,
      mode: 0o600,
    });
    this.#progress = progress;
  }

  begin(resumedFrom: number | undefined): void {
    this.#line(resumedFrom === undefined ? "started" : `resumed after epoch ${resumedFrom}`);
  }

  /** After the report has taken the epoch into the progress. */
  epoch(epoch: Epoch): void {
    this.#line(epochLine(this.#progress, epoch));
  }

  evaluation(evaluation: Evaluation): void {
    this.#line(evaluationLine(evaluation));
  }

  done(done: Done): void {
    this.#line(`done: ${done.epochs} epochs, state ${done.stateHash}`);
  }

  failed(reason: string): void {
    this.#line(`failed: ${reason}`);
  }

  #line(text: string): void {
    const bytes = new TextEncoder().encode(`${new Date().toISOString()} ${text}\n`);
    try {
      for (let sent = 0; sent < bytes.length;) sent += this.#file.writeSync(bytes.subarray(sent));
    } catch {
      // A full disk costs the log, not the run; the checkpoint writer says so by itself.
    }
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

function epochLine(progress: Progress, epoch: Epoch): string {
  const speed = progress.throughput()!;
  const left = progress.secondsLeft();
  return [
    `epoch ${epoch.epoch}`,
    `return ${epoch.return === undefined ? "-" : number(epoch.return)}`,
    `length ${epoch.episodeLength === undefined ? "-" : number(epoch.episodeLength)}`,
    `steps/s ${metric(speed.physics)} physics, ${metric(speed.inference)} + inference, ${
      metric(speed.update)
    } + update`,
    `time ${duration(epoch.wallTimeS)}` + (left === undefined ? "" : `, left ${duration(left)}`),
  ].join("  ");
}

function evaluationLine(evaluation: Evaluation): string {
  return `evaluation at epoch ${evaluation.epoch}: return ${number(evaluation.returnMean)} ± ${
    number(evaluation.returnStd)
  } over ${evaluation.episodes} episodes, length ${number(evaluation.lengthMean)}`;
}
