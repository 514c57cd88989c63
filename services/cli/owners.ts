// Which process trains a run: runs/<run_id>/learner.json says so while it does. Where the file remains
// and the process does not, a later command sees that the run was cut off and records it.

import { join } from "node:path";
import { runDirectory, type ServiceEntry, withLock, writeFileAtomic } from "@sdpg/common/home.ts";
import { Recorder } from "@sdpg/common/record.ts";
import { CliError, isAlive } from "./process.ts";
import { readRunFile } from "./runfile.ts";
import { rowsFrom } from "./store.ts";
import { listRunDirectories } from "./sweep.ts";

const markOf = (home: string, runId: string) => join(runDirectory(home, runId), "learner.json");

/** Runs `begin` and notes its run's learner, so that no sweep sees the one without the other. */
export async function owned<T>(
  home: string,
  learner: ServiceEntry,
  begin: () => Promise<T & { facts: { runId: string } }>,
): Promise<T> {
  return await withLock(home, "runs.start", async () => {
    const started = await begin();
    const { pid, startTicks } = learner;
    writeFileAtomic(markOf(home, started.facts.runId), JSON.stringify({ pid, startTicks }) + "\n");
    return started;
  });
}

/** The run has ended and its learner recorded how. */
export function disown(home: string, runId: string): void {
  try {
    Deno.removeSync(markOf(home, runId));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/** Whether a process trains it now. */
export function isTrained(home: string, runId: string): boolean {
  const owner = ownerOf(home, runId);
  return owner !== undefined && isAlive(owner);
}

/** Records runs as interrupted whose learner is gone without having recorded an end. */
export async function markInterrupted(home: string, telemetryUrl: string): Promise<string[]> {
  return await withLock(home, "runs.start", async () => {
    const orphans = listRunDirectories(home).filter((runId) => isOrphan(home, runId));
    if (orphans.length === 0) return [];
    const states = new Map((await rowsFrom<{ run_id: string; state: string }>(
      telemetryUrl,
      "SELECT run_id, state FROM runs",
    )).map(({ run_id, state }) => [run_id, state]));
    // A run killed in its first second is not in the store at all: run.json says what it was.
    const cut = orphans.filter((runId) =>
      ["started", "running"].includes(states.get(runId) ?? "started")
    );
    const recorder = new Recorder({ url: telemetryUrl, service: "cli" });
    for (const runId of cut) {
      const file = readRunFile(home, runId);
      const { task, algorithm, preset, observation, seed, task_options } = file;
      const configuration = task_options && Object.keys(task_options).length > 0
        ? { ...file.configuration, task: task_options }
        : file.configuration;
      recorder.run({
        runId,
        state: "interrupted",
        reason: "its learner was killed",
        task,
        algorithm,
        preset,
        observation,
        seed: BigInt(seed),
        configuration,
      });
    }
    const { dropped } = await recorder.flush(5000);
    await recorder.close();
    if (dropped > 0) {
      throw new CliError(`Cannot record that runs were interrupted: ${cut.join(", ")}`);
    }
    for (const runId of orphans) disown(home, runId);
    return cut;
  });
}

/** Whether a run was left by a process that no longer exists. */
function isOrphan(home: string, runId: string): boolean {
  const owner = ownerOf(home, runId);
  return owner !== undefined && !isAlive(owner);
}

/** The process that was last said to train a run and has not said its end. */
function ownerOf(home: string, runId: string): { pid: number; startTicks: number } | undefined {
  try {
    return JSON.parse(Deno.readTextFileSync(markOf(home, runId)));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
