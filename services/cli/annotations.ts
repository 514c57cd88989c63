// Tags and notes from the command line: what the verbs tag and note send and show.

import { type Annotation, annotationEvents } from "@sdpg/common/annotation.ts";
import { Recorder } from "@sdpg/common/record.ts";
import { CliError } from "./process.ts";
import { rowsFrom, runList } from "./store.ts";

export interface Annotated {
  run_id: string;
  tags: string[];
  note: string;
}

/** Sends the same change for some runs and waits until it is stored. */
export async function annotateRuns(
  url: string,
  runs: readonly string[],
  annotation: Annotation,
): Promise<void> {
  const recorder = new Recorder({ url, service: "cli" });
  for (const run of runs) recorder.annotation(run, annotation);
  const { sent, dropped } = await recorder.flush(15_000);
  await recorder.close();
  if (dropped > 0 || sent < runs.length * annotationEvents(annotation).length) {
    throw new CliError(
      "Cannot write to the store: the telemetry service did not take it; try again",
    );
  }
}

/** What is said of some runs, in their order. */
export async function readAnnotations(url: string, runs: readonly string[]): Promise<Annotated[]> {
  return await rowsFrom<Annotated>(
    url,
    `SELECT run_id, tags, note FROM runs WHERE run_id IN {runs:Array(String)}
     ORDER BY indexOf({runs:Array(String)}, toString(run_id))`,
    { runs: runList(runs) },
  );
}
