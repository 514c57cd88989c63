// ./sdpg runs: what was trained in this home, and how far.

import { sdpgHome } from "@sdpg/common/home.ts";
import { verb } from "../flags.ts";
import { duration, number, table } from "../format.ts";
import { writeOut } from "../report.ts";
import { markInterrupted } from "../owners.ts";
import { rowsFrom, withTelemetry } from "../store.ts";

interface Row {
  run_id: string;
  task: string;
  algorithm: string;
  preset: string;
  seed: string;
  state: string;
  iteration: number;
  wall_time_s: number;
  return: number | null;
  evaluation: number | null;
}

export const runs = verb({
  name: "runs",
  summary: "lists the runs of this home, newest last",
  positionals: [],
  options: { json: { meaning: "one JSON object a run" } },
  details: [
    "return: mean of the last 100 training episodes; evaluation: the newest mean of the deterministic",
    "policy.",
  ].join("\n"),
  examples: ["./sdpg runs", "./sdpg runs --json"],
  async run({ options }) {
    const home = sdpgHome();
    const found = await withTelemetry(home, async (url) => {
      await markInterrupted(home, url);
      return await rowsFrom<Row>(url, query);
    });
    if (options.json) {
      for (const row of found) writeOut(JSON.stringify(row));
    } else if (found.length === 0) {
      console.error("no runs yet; ./sdpg train hopper starts one");
    } else {
      writeOut(table(
        [
          "run",
          "task",
          "algorithm",
          "preset",
          "seed",
          "state",
          "epochs",
          "time",
          "return",
          "evaluation",
        ],
        found.map((row) => [
          row.run_id,
          row.task,
          row.algorithm,
          row.preset,
          row.seed,
          row.state,
          String(row.iteration),
          duration(row.wall_time_s),
          row.return === null ? "-" : number(row.return),
          row.evaluation === null ? "-" : number(row.evaluation),
        ]),
      ));
    }
    return 0;
  },
});

const query = `
SELECT
    r.run_id AS run_id, r.task AS task, r.algorithm AS algorithm, r.preset AS preset,
    toString(r.seed) AS seed, r.state AS state,
    toUInt32(s.last) AS iteration, s.wall_time AS wall_time_s, s.return AS return,
    e.newest AS evaluation
FROM runs AS r
LEFT JOIN (
    SELECT run_id, max(iteration) AS last, max(wall_time_s) AS wall_time,
           argMaxOrNullIf(value, iteration, name = 'rewards') AS return
    FROM scalars GROUP BY run_id
) AS s ON s.run_id = r.run_id
LEFT JOIN (
    SELECT run_id, toNullable(argMax(return_mean, iteration)) AS newest
    FROM evaluations GROUP BY run_id
) AS e ON e.run_id = r.run_id
ORDER BY r.started_at`;
