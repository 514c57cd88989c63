// A training from the person's side: services up, run started or resumed, events shown, Ctrl-C turned
// into a stop with a checkpoint, a service that dies turned into one line, services down again.

import { Code, RpcError } from "@sdpg/common/rpc.ts";
import { exportMetrics } from "@sdpg/common/metrics.ts";
import { Recorder } from "@sdpg/common/record.ts";
import { iterationTrace, unixMs } from "@sdpg/common/trace.ts";
import { UsageError } from "@sdpg/common/service.ts";
import { runDirectory } from "@sdpg/common/home.ts";
import type { Done } from "@proto/sdpg/learner/v1/learner_pb.ts";
import {
  type DeadService,
  describeDeath,
  doWithout,
  type Mesh,
  openMesh,
  restartTelemetry,
} from "./mesh.ts";
import { disown, markInterrupted, owned } from "./owners.ts";
import { CliError, delay } from "./process.ts";
import type { Progress, RunFacts } from "./progress.ts";
import { openReport, type Report, RunLog } from "./report.ts";
import { watchResources } from "./resources.ts";
import { ServiceLogs } from "./service_logs.ts";
import { watchRun } from "./watch_run.ts";

export interface Started {
  facts: RunFacts;
  configuration: unknown;
  resumedFrom?: number;
  notes?: string[];
}

export interface TrainingOptions {
  home: string;
  threads: number;
  /** Whether the run has its pictures drawn by a process of their own. */
  renderer: boolean;
  json: boolean;
  /** Starts the run on a learner and says what it is. */
  begin(mesh: Mesh): Promise<Started>;
}

/** How long the learner may take to finish an epoch and write its checkpoint. */
const stopDeadlineMs = 120_000;
const telemetryRestarts = 3;

/** Trains to the end (or to Ctrl-C) and returns the exit code. */
export async function runTraining(options: TrainingOptions): Promise<number> {
  const report = openReport(options.json);
  const interrupts = listenForInterrupts();
  let mesh: Mesh | undefined;
  try {
    const starting = start(options, (text) => report.note(text));
    const first = await Promise.race([
      starting,
      interrupts.next().then(() => "interrupted" as const),
    ]);
    if (first === "interrupted") {
      // The services are told as soon as they exist; until then there is nothing to stop.
      const late = await starting.catch(() => undefined);
      mesh = late?.mesh;
      if (late) await stopRun(late.mesh, late.started.facts.runId);
      throw new CliError("stopped before the first epoch");
    }
    mesh = first.mesh;
    return await follow(first.mesh, first.started, report, interrupts, options);
  } finally {
    report.close();
    mesh?.learner.$close();
    await mesh?.close();
    interrupts.close();
  }
}

async function start(
  options: TrainingOptions,
  note: (text: string) => void,
): Promise<{ mesh: Mesh; started: Started }> {
  const { home, threads, renderer } = options;
  let mesh = await openMesh({ home, threads, renderer, progress: note });
  const begin = () => owned(home, mesh.services.at(-1)!, () => options.begin(mesh));
  try {
    await markInterrupted(home, mesh.telemetry.url);
    try {
      return { mesh, started: await begin() };
    } catch (error) {
      // The learner of `sdpg up` trains one run at a time: a second one gets services of its own.
      if (mesh.owned || !(error instanceof RpcError) || error.code !== Code.RESOURCE_EXHAUSTED) {
        throw error;
      }
      note("the services of ./sdpg up are busy with another run");
      mesh.learner.$close();
      await mesh.close();
      mesh = await openMesh({ home, threads, renderer, progress: note, ownServices: true });
      return { mesh, started: await begin() };
    }
  } catch (error) {
    mesh.learner.$close();
    await mesh.close();
    throw plainly(error, mesh.logs);
  }
}

/** A refusal of the learner as wrong usage or as a failure, by its status code. */
export function plainly(error: unknown, logs: string): unknown {
  if (!(error instanceof RpcError)) return error;
  if (error.code === Code.INTERNAL) return new CliError(`${error.message}: ${logs}`);
  const usage = [Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS] as number[];
  return usage.includes(error.code) ? new UsageError(error.message) : new CliError(error.message);
}

async function follow(
  mesh: Mesh,
  started: Started,
  report: Report,
  interrupts: Interrupts,
  options: TrainingOptions,
): Promise<number> {
  const { facts } = started;
  const { runId } = facts;
  const progress = report.run(facts, started.configuration, started.resumedFrom);
  for (const note of started.notes ?? []) report.note(note);
  mesh.keepLogs(runDirectory(options.home, runId));
  using log = new RunLog(runDirectory(options.home, runId), progress);
  log.begin(started.resumedFrom);
  const recorder = new Recorder({ url: mesh.telemetry.url, service: "cli" });
  const metrics = exportMetrics(recorder);
  const logs = new ServiceLogs(runId, recorder);
  const resources = watchResources({
    runId,
    recorder,
    processes: () => recorder.off ? [] : [...mesh.services, { service: "cli", pid: Deno.pid }],
    seen: (samples) => {
      progress.memory = samples;
      logs.follow(mesh.services);
    },
  });
  // Those that die leave the mesh, and their last words are wanted.
  const services = mesh.services;
  const resumeCommand = `./sdpg resume ${runId}`;
  let stopped = false;
  let done: Done | undefined;
  let outcome: Done | Error | undefined;
  const watching = (async () => {
    for await (const event of watchRun(mesh.learner, runId)) {
      if (event.case === "epoch") {
        const startMs = unixMs();
        report.epoch(event.value);
        log.epoch(event.value);
        const epoch = Number(event.value.epoch);
        const seconds = (unixMs() - startMs) / 1e3;
        const shown = { name: "report", service: "cli", startMs, seconds, count: 1 };
        recorder.phases(iterationTrace(runId, epoch), epoch, [shown]);
      } else if (event.case === "evaluation") {
        report.evaluation(event.value);
        log.evaluation(event.value);
      } else if (event.case === "done") {
        done = event.value;
      }
    }
  })().then(() => outcome = done, (error) => outcome = error as Error);
  try {
    let restarts = 0;
    while (outcome === undefined) {
      const what = await Promise.race([
        watching.then(() => "ended" as const),
        interrupts.next().then(() => "interrupt" as const),
        mesh.dead.then((dead) => dead),
      ]);
      if (what === "ended") {
        // A learner that was killed breaks its stream a moment before its end is known.
        const broken = (outcome as unknown) instanceof RpcError;
        const dead = broken ? await Promise.race([mesh.dead, delay(2000)]) : undefined;
        if (dead) throw await deadService(dead, mesh, watching, runId);
        break;
      }
      if (what === "interrupt") {
        if (stopped) {
          mesh.kill();
          throw new CliError(`killed; go on from the last checkpoint with: ${resumeCommand}`);
        }
        stopped = true;
        report.note("stopping after this epoch with a checkpoint; Ctrl-C again kills");
        stopRun(mesh, runId).catch((error) => {
          if (!mesh.closing.aborted) report.note(`the learner did not stop: ${error.message}`);
        });
        continue;
      }
      if (what.service === "telemetry" && restarts < telemetryRestarts) {
        restarts++;
        report.note(`${describeDeath(what)}; starting it again at the same address`);
        await restartTelemetry(mesh, options.home);
        report.note("telemetry runs again; what the services held back is being recorded");
        continue;
      }
      if (what.service === "evaluation") {
        report.note(`${describeDeath(what)}; training goes on without evaluations`);
        doWithout(mesh, "evaluation");
        continue;
      }
      throw await deadService(what, mesh, watching, runId);
    }
  } finally {
    await resources.stop();
    logs.follow(services);
    metrics.stop();
    await recorder.close();
  }
  if (outcome instanceof Error) {
    throw outcome instanceof RpcError ? plainly(outcome, mesh.logs) : outcome;
  }
  disown(options.home, runId);
  report.done(outcome!);
  log.done(outcome!);
  if (stopped) report.note(`stopped; go on with: ${resumeCommand}`);
  return 0;
}

/** The failure to report when a service died: its own last words, and what can be done. */
async function deadService(
  dead: DeadService,
  mesh: Mesh,
  watching: Promise<unknown>,
  runId: string,
): Promise<CliError> {
  const line = describeDeath(dead);
  // A learner that lost its simulator or store closes the run by itself; let it.
  if (dead.service !== "learner") {
    if (dead.service === "telemetry") stopRun(mesh, runId).catch(() => {});
    await Promise.race([watching, delay(dead.service === "telemetry" ? stopDeadlineMs : 5000)]);
  }
  return new CliError(`${line}; go on from the last checkpoint with: ./sdpg resume ${runId}`);
}

async function stopRun(mesh: Mesh, runId: string): Promise<void> {
  await mesh.learner.stopRun({ runId }, { deadlineMs: stopDeadlineMs });
}

// ------------------------------------------------------------------------------------- interrupts

interface Interrupts {
  /** Resolves at the next SIGINT, SIGTERM or SIGHUP. */
  next(): Promise<void>;
  close(): void;
}

function listenForInterrupts(): Interrupts {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  let pending = 0;
  let waiting: (() => void)[] = [];
  const handler = () => {
    if (waiting.length === 0) pending++;
    for (const resolve of waiting) resolve();
    waiting = [];
  };
  for (const signal of signals) Deno.addSignalListener(signal, handler);
  return {
    next() {
      if (pending > 0) {
        pending--;
        return Promise.resolve();
      }
      return new Promise((resolve) => waiting.push(resolve));
    },
    close() {
      for (const signal of signals) Deno.removeSignalListener(signal, handler);
    },
  };
}

export type { Progress };
