// runs/<run_id>/run.json: what the learner wrote down when a run began. Read here to know what a
// resumed run is before its learner says so, and to name the nearest run when one does not exist.

import { join } from "node:path";
import { isRunId, runDirectory } from "@sdpg/common/home.ts";
import { UsageError } from "@sdpg/common/service.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { listRunDirectories } from "./sweep.ts";

export interface RunFile {
  run_id: string;
  task: string;
  algorithm: string;
  preset: string;
  observation: string;
  configuration: { simulation?: { render?: string } };
  /** What the preset alone would have given; absent in runs of earlier versions. */
  preset_configuration?: unknown;
  /** Options of the task; absent in runs of earlier versions. */
  task_options?: Record<string, number | string>;
  seed: string;
  epochs: number;
  seconds: number;
}

/** Throws UsageError when there is no such run. */
export function readRunFile(home: string, runId: string): RunFile {
  if (!isRunId(runId)) {
    throw new UsageError(
      `Cannot use "${runId}" as a run's name: expected a-z, 0-9 and -, up to 64`,
    );
  }
  let text: string;
  try {
    text = Deno.readTextFileSync(join(runDirectory(home, runId), "run.json"));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    const known = listRunDirectories(home);
    throw new UsageError(
      `Cannot find run "${runId}" in ${home}${
        didYouMean(runId, known) ||
        (known.length > 0 ? "; ./sdpg runs lists them" : ", which has none")
      }`,
    );
  }
  return JSON.parse(text);
}
