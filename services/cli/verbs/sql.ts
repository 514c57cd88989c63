// ./sdpg sql: asks the store.

import { sdpgHome } from "@sdpg/common/home.ts";
import { read, verb } from "../flags.ts";
import { ask, withTelemetry } from "../store.ts";

export const sql = verb({
  name: "sql",
  summary: "asks the store in ClickHouse's SQL, also while a run goes on",
  positionals: [{
    name: "query",
    meaning: "one SELECT, SHOW, DESCRIBE or EXPLAIN",
    required: true,
  }],
  options: {
    format: {
      value: "NAME",
      meaning: "a ClickHouse output format: PrettyCompact, TSV, CSVWithNames, JSONEachRow, …",
      read: read.text,
      fallback: "PrettyCompactMonoBlock on a terminal, TabSeparated elsewhere",
    },
  },
  details: [
    "Tables: runs, scalars, evaluations, resources, faults; see docs/telemetry.md. The store is only",
    "read: statements that write are refused.",
  ].join("\n"),
  examples: [
    `./sdpg sql "SELECT run_id, max(iteration) FROM scalars GROUP BY run_id"`,
    `./sdpg sql "SELECT iteration, value FROM scalars WHERE name = 'rewards'" --format CSVWithNames`,
  ],
  async run({ positionals: [query], options }) {
    const terminal = Deno.stdout.isTerminal();
    const format = options.format ?? (terminal ? "PrettyCompactMonoBlock" : "TabSeparated");
    return await withTelemetry(sdpgHome(), async (url) => {
      const body = await ask(url, query, format);
      await body.pipeTo(Deno.stdout.writable, { preventClose: true });
      return 0;
    });
  },
});
