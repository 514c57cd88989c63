// Which process trains a run: runs/<run_id>/learner.json holds it while it does. From that and the
// store's "running" a later command sees that a run was cut off, and says so in the store.

import { join } from "node:path";
import { runDirectory, type ServiceEntry, withLock, writeFileAtomic } from "@sdpg/common/home.ts";
import { Recorder } from "@sdpg/common/record.ts";
import { CliError, isAlive } from "./process.ts";
import { rowsFrom } from "./store.ts";

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

/** Marks runs as interrupted that the store has as running and no living process trains. */
export async function markInterrupted(home: string, telemetryUrl: string): Promise<string[]> {
  return await withLock(home, "runs.start", async () => {
    const running = await rowsFrom<{ run_id: string }>(
      telemetryUrl,
      "SELECT run_id FROM runs WHERE state IN ('started', 'running')",
    );
    const cut = running.map(({ run_id }) => run_id).filter((runId) => !isTrained(home, runId));
    if (cut.length === 0) return [];
    const recorder = new Recorder({ url: telemetryUrl, service: "cli" });
    for (const runId of cut) {
      recorder.run({ runId, state: "interrupted", reason: "its learner is gone" });
    }
    const { dropped } = await recorder.flush(5000);
    await recorder.close();
    if (dropped > 0) {
      throw new CliError(`Cannot record that runs were interrupted: ${cut.join(", ")}`);
    }
    return cut;
  });
}

function isTrained(home: string, runId: string): boolean {
  try {
    return isAlive(JSON.parse(Deno.readTextFileSync(markOf(home, runId))));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof SyntaxError) return false;
    throw error;
  }
}
