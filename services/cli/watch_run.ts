// The events of a run from now to its end, as the learner streams them: one credit more for every event
// that was read.

import type { LearnerService, WatchRunResponse } from "@proto/sdpg/learner/v1/learner_pb.ts";
import type { Client } from "@sdpg/common/rpc.ts";
import { CliError } from "./process.ts";

export type RunEvent = WatchRunResponse["event"];

/** Events the learner may send ahead of what was read. */
const credits = 16;

/** Throws CliError when the run failed, or its events ended before it did. */
export async function* watchRun(
  learner: Client<typeof LearnerService>,
  runId: string,
): AsyncGenerator<RunEvent> {
  const stream = learner.watchRun();
  try {
    await stream.send({ runId, credits });
    let done = false;
    for await (const { event } of stream.responses) {
      // The learner closes the stream once the end of the run is recorded.
      if (event.case === "failed") throw new CliError(event.value.reason);
      done ||= event.case === "done";
      yield event;
      // After the last event the learner ends the call: a credit would meet its end.
      if (!done) await stream.send({ runId, credits: 1 });
    }
    if (!done) {
      throw new CliError(`The learner closed its events of run ${runId} before the run ended`);
    }
  } finally {
    stream.cancel();
  }
}
