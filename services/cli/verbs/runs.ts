// ./sdpg runs: what was trained in this home, and how far.

import { sdpgHome } from "@sdpg/common/home.ts";
import { runStates } from "@sdpg/common/record.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { listAlgorithmNames, listTaskNames } from "../catalogue.ts";
import { oneOf, read, UsageError, verb } from "../flags.ts";
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
  tags: string[];
}

const filters = ["task", "algo", "preset", "state", "tag"] as const;
type Filters = Partial<Record<typeof filters[number], string>>;
/** What a filter asks of run_progress. */
const conditionOf = {
  task: "task = {task:String}",
  algo: "algorithm = {algo:String}",
  preset: "preset = {preset:String}",
  state: "state = {state:String}",
  tag: "has(tags, {tag:String})",
} as const;

const readState = oneOf(...runStates);

export const runs = verb({
  name: "runs",
  summary: "lists the runs of this home, newest last",
  positionals: [],
  options: {
    task: { value: "NAME", meaning: "only runs of this task", read: read.text },
    algo: {
      value: "NAME",
      meaning: "only runs of this algorithm",
      read: read.text,
      aliases: ["algorithm", "agent"],
    },
    preset: { value: "NAME", meaning: "only runs of this preset", read: read.text },
    state: { value: runStates.join("|"), meaning: "only runs in this state", read: readState },
    tag: { value: "TAG", meaning: "only runs with this tag; ./sdpg tag", read: read.text },
    json: { meaning: "one JSON object a run" },
  },
  details: [
    "return: mean of the last 100 training episodes; evaluation: the newest mean of the deterministic",
    "policy.",
  ].join("\n"),
  examples: [
    "./sdpg runs",
    "./sdpg runs --task hopper --state done",
    "./sdpg runs --tag sweep --json",
  ],
  async run({ options }) {
    const home = sdpgHome();
    const found = await withTelemetry(home, async (url) => {
      await markInterrupted(home, url);
      return await findRuns(url, options);
    });
    if (options.json) {
      for (const row of found) writeOut(JSON.stringify(row));
    } else if (found.length === 0) {
      const asked = filters.some((name) => options[name] !== undefined);
      console.error(asked ? "no such runs" : "no runs yet; ./sdpg train hopper starts one");
    } else {
      const tagged = found.some(({ tags }) => tags.length > 0);
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
          ...(tagged ? ["tags"] : []),
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
          ...(tagged ? [row.tags.join(" ")] : []),
        ]),
      ));
    }
    return 0;
  },
});

/** Runs that pass the filters. Refuses a name that neither the store nor the checkout knows. */
async function findRuns(url: string, wanted: Filters): Promise<Row[]> {
  const conditions = filters.map((name) => `({${name}:String} = '' OR ${conditionOf[name]})`);
  const found = await rowsFrom<Row>(
    url,
    `SELECT run_id, task, algorithm, preset, toString(seed) AS seed, state,
            toUInt32(epochs) AS iteration, wall_time_s, return, evaluation, tags
     FROM run_progress WHERE ${conditions.join(" AND ")} ORDER BY started_at, run_id`,
    Object.fromEntries(filters.map((name) => [name, wanted[name] ?? ""])),
  );
  if (found.length > 0) return found;
  const [inStore] = await rowsFrom<Record<typeof filters[number], string[]>>(
    url,
    "SELECT groupUniqArray(task) AS task, groupUniqArray(algorithm) AS algo, " +
      "groupUniqArray(preset) AS preset, groupUniqArrayArray(tags) AS tag FROM runs",
  );
  const known: Record<typeof filters[number], string[]> = {
    task: [...inStore.task, ...listTaskNames()],
    algo: [...inStore.algo, ...listAlgorithmNames()],
    preset: inStore.preset,
    tag: inStore.tag,
    state: [...runStates],
  };
  for (const name of filters) {
    const value = wanted[name];
    if (value === undefined || known[name].includes(value)) continue;
    const there = [...new Set(known[name])].sort().join(" or ") || "nothing yet";
    throw new UsageError(
      `Cannot use --${name} "${value}": expected ${there}${didYouMean(value, known[name])}`,
    );
  }
  return [];
}
