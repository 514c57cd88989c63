// ./sdpg note: what a person wants to remember about a run.

import { longestNote } from "@sdpg/common/annotation.ts";
import { sdpgHome } from "@sdpg/common/home.ts";
import { annotateRuns, readAnnotations } from "../annotations.ts";
import { UsageError, verb } from "../flags.ts";
import { writeOut } from "../report.ts";
import { requireRuns, withTelemetry } from "../store.ts";

export const note = verb({
  name: "note",
  summary: "writes a note about a run, or shows it",
  positionals: [
    { name: "run", meaning: "name of the run; ./sdpg runs", required: true },
    { name: "text", meaning: 'the whole note; "" takes it away', required: false },
  ],
  options: { json: { meaning: "one JSON object" } },
  examples: [`./sdpg note hopper-a "fell over until the floor was less slippery"`],
  async run({ positionals: [runId, text], options }) {
    if (text !== undefined && text.length > longestNote) {
      throw new UsageError(
        `Cannot use a note of ${text.length} characters: expected at most ${longestNote}`,
      );
    }
    const [found] = await withTelemetry(sdpgHome(), async (url) => {
      await requireRuns(url, [runId]);
      if (text !== undefined) await annotateRuns(url, [runId], { note: text });
      return await readAnnotations(url, [runId]);
    });
    if (options.json) writeOut(JSON.stringify({ run_id: runId, note: found.note }));
    else if (found.note !== "") writeOut(found.note);
    else console.error(`there is no note about ${runId}`);
    return 0;
  },
});
