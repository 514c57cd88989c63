// ./sdpg compare: runs side by side, a table a task; seeds of one experiment also as mean and interval;
// and where the settings of the experiments differ. The numbers come from the store's views.

import { differences } from "@sdpg/common/differences.ts";
import { sdpgHome } from "@sdpg/common/home.ts";
import { summary } from "@sdpg/common/student.ts";
import { plotAxes, type PlotAxis } from "../../telemetry/plot.ts";
import { oneOf, read, UsageError, verb } from "../flags.ts";
import { duration, megabytes, metric, number, table } from "../format.ts";
import { writeOut } from "../report.ts";
import { requireRuns, rowsFrom, runList, withTelemetry } from "../store.ts";

const axisNames = Object.keys(plotAxes) as PlotAxis[];
const readAxis = oneOf(...axisNames);

function readThresholds(text: string): number[] {
  const values = text.split(",").map(Number);
  if (text.trim() === "" || !values.every(Number.isFinite)) {
    throw new Error("returns like 1000,3000");
  }
  return values.sort((a, b) => a - b);
}

/** A run with everything that is compared. */
interface Compared {
  run_id: string;
  experiment: string;
  task: string;
  seed: string;
  state: string;
  epochs: number;
  wall_time_s: number;
  newest: number | null;
  best: number | null;
  mean_last: number | null;
  env_steps_total_per_s: number | null;
  images_per_s: number | null;
  peak_bytes: number | null;
  /** Where each threshold was first reached on the axis; null where it was not. */
  reached: (number | null)[];
  settings: Record<string, unknown>;
}

export const compare = verb({
  name: "compare",
  summary: "compares runs: returns, time to reach them, speed, memory, settings",
  positionals: [{
    name: "run",
    meaning: "runs to compare; those that differ only in the seed also get a mean and an interval",
    required: true,
    many: true,
  }],
  options: {
    axis: {
      value: "AXIS",
      meaning: `what it took to reach a return: ${axisNames.join(", ")}`,
      read: readAxis,
      fallback: "wall_time_s",
    },
    thresholds: {
      value: "A,B",
      meaning: "the returns to reach",
      read: readThresholds,
      fallback: "a quarter, half and three quarters of the best return of the task",
    },
    last: {
      value: "K",
      meaning: "evaluations that `mean of last` averages",
      read: read.count,
      fallback: "4",
    },
    json: { meaning: "one JSON object a run" },
  },
  details: [
    "Returns are those of evaluations: the deterministic policy. No single axis is fair to methods that",
    "simulate many steps per rendered one and to those that do not; choose it with --axis.",
  ].join("\n"),
  examples: [
    "./sdpg compare hopper-a hopper-b hopper-c",
    "./sdpg compare hopper-a walker-a --axis env_steps_total --thresholds 1000,3000",
  ],
  async run({ positionals, options }) {
    const axis = options.axis ?? "wall_time_s";
    const last = options.last ?? 4;
    const twice = positionals.find((run, i) => positionals.indexOf(run) < i);
    if (twice !== undefined) throw new UsageError(`Cannot compare run "${twice}" with itself`);
    const tasks = await withTelemetry(sdpgHome(), async (url) => {
      await requireRuns(url, positionals);
      return await readCompared(url, positionals, axis, last, options.thresholds);
    });
    tasks.forEach(({ task, thresholds, runs }, i) => {
      if (options.json) {
        for (const { reached, ...run } of runs) {
          const at = Object.fromEntries(thresholds.map((value, k) => [value, reached[k]]));
          writeOut(JSON.stringify({ ...run, axis, reached: at }));
        }
      } else writeOut((i > 0 ? "\n" : "") + page(task, runs, thresholds, axis, last));
    });
    return 0;
  },
});

interface TaskRuns {
  task: string;
  thresholds: number[];
  runs: Compared[];
}

async function readCompared(
  url: string,
  names: string[],
  axis: PlotAxis,
  last: number,
  chosen: number[] | undefined,
): Promise<TaskRuns[]> {
  const parameters = { runs: runList(names), last: String(last) };
  type Row = Omit<Compared, "reached" | "settings"> & Record<string, string | null>;
  const rows = await rowsFrom<Row>(
    url,
    `SELECT x.run_id AS run_id, x.experiment AS experiment, ifNull(x.task, '?') AS task,
            toString(x.seed) AS seed, p.state AS state, p.epochs AS epochs, p.wall_time_s AS wall_time_s,
            e.newest AS newest, e.best AS best, e.mean_last AS mean_last,
            t.env_steps_total_per_s AS env_steps_total_per_s, t.images_per_s AS images_per_s,
            m.peak_bytes AS peak_bytes,
            r.configuration AS configuration, r.preset AS preset, r.observation AS observation,
            r.algorithm AS algorithm, r.code_version AS code_version, r.hardware AS hardware
     FROM experiments AS x
     INNER JOIN runs AS r ON r.run_id = x.run_id
     INNER JOIN run_progress AS p ON p.run_id = x.run_id
     LEFT JOIN (SELECT run_id, toNullable(newest) AS newest, toNullable(best) AS best,
                       toNullable(mean_last) AS mean_last
                FROM evaluation_summary(last = {last:UInt32})) AS e ON e.run_id = x.run_id
     LEFT JOIN (SELECT run_id, toNullable(env_steps_total_per_s) AS env_steps_total_per_s,
                       toNullable(images_per_s) AS images_per_s
                FROM throughput WHERE run_id IN {runs:Array(String)}) AS t ON t.run_id = x.run_id
     LEFT JOIN (SELECT run_id, toNullable(peak_bytes) AS peak_bytes FROM peak_memory
                WHERE service = 'all' AND run_id IN {runs:Array(String)}) AS m ON m.run_id = x.run_id
     WHERE x.run_id IN {runs:Array(String)}
     ORDER BY indexOf({runs:Array(String)}, toString(x.run_id))`,
    parameters,
  );
  const tasks = [...new Set(rows.map(({ task }) => task))];
  return await Promise.all(tasks.map(async (task) => {
    const own = rows.filter((row) => row.task === task);
    const thresholds = chosen ?? quarters(own.map(({ best }) => best ?? 0));
    const reached = await Promise.all(thresholds.map(async (threshold) =>
      new Map(
        (await rowsFrom<{ run_id: string; at: number | null }>(
          url,
          `SELECT run_id, ${axis} AS at FROM time_to_return(threshold = {threshold:Float64})
           WHERE run_id IN {runs:Array(String)}`,
          { runs: parameters.runs, threshold: String(threshold) },
        )).map(({ run_id, at }) => [run_id, at]),
      )
    ));
    const runs = own.map((row) => {
      const { configuration, preset, observation, algorithm, code_version, hardware, ...rest } =
        row;
      return {
        ...rest,
        reached: reached.map((of) => of.get(row.run_id) ?? null),
        settings: {
          algorithm,
          preset,
          observation,
          ...JSON.parse(configuration ?? "{}"),
          code: code_version,
          machine: JSON.parse(hardware ?? "{}"),
        },
      };
    });
    return { task, thresholds, runs };
  }));
}

/** A quarter, half and three quarters of the best, in two significant digits. */
function quarters(best: number[]): number[] {
  const highest = Math.max(...best);
  if (!(highest > 0)) return [];
  return [0.25, 0.5, 0.75].map((share) => Number((share * highest).toPrecision(2)));
}

// ------------------------------------------------------------------------------------- the page

/** A column of the table of runs and of that of experiments. */
interface Column {
  name: string;
  of(run: Compared): number | null;
  show(value: number): string;
}

function page(
  task: string,
  runs: Compared[],
  thresholds: number[],
  axis: PlotAxis,
  last: number,
): string {
  const onAxis = axis === "wall_time_s" || axis === "gpu_seconds"
    ? duration
    : axis === "iteration"
    ? String
    : metric;
  const all: Column[] = [
    { name: "newest", of: (run) => run.newest, show: number },
    { name: "best", of: (run) => run.best, show: number },
    { name: `mean of last ${last}`, of: (run) => run.mean_last, show: number },
    ...thresholds.map((threshold, k) => ({
      name: `to ${threshold}`,
      of: (run: Compared) => run.reached[k],
      show: onAxis,
    })),
    { name: "env steps/s", of: (run) => run.env_steps_total_per_s, show: metric },
    { name: "images/s", of: (run) => run.images_per_s || null, show: metric },
    { name: "memory", of: (run) => run.peak_bytes, show: megabytes },
  ];
  const columns = all.filter(({ of }) => runs.some((run) => of(run) !== null));
  const experiments = [...new Set(runs.map(({ experiment }) => experiment))];
  const letter = (experiment: string) => letters(experiments.indexOf(experiment));

  const parts = [
    `${task}: evaluated returns; "to N" is the ${
      plotAxes[axis].label
    } at the first evaluation of N`,
    table(
      ["run", "experiment", "seed", "state", "epochs", "time", ...columns.map(({ name }) => name)],
      runs.map((run) => [
        run.run_id,
        letter(run.experiment),
        run.seed,
        run.state,
        String(run.epochs),
        duration(run.wall_time_s),
        ...columns.map(({ of, show }) => cell(of(run), show)),
      ]),
    ),
  ];
  const grouped = experiments.map((experiment) =>
    runs.filter((run) => run.experiment === experiment)
  ).filter((seeds) => seeds.length > 1);
  if (grouped.length > 0) {
    parts.push(
      "",
      'mean over the seeds ± half of Student\'s 95 % interval; "n of m": of those that have it',
      table(
        ["experiment", "seeds", ...columns.map(({ name }) => name)],
        grouped.map((seeds) => [
          letter(seeds[0].experiment),
          String(seeds.length),
          ...columns.map(({ of, show }) => meanCell(seeds.map(of), show)),
        ]),
      ),
    );
  }
  if (experiments.length > 1) parts.push("", differenceTable(runs, experiments));
  return parts.join("\n");
}

const cell = (value: number | null, show: (value: number) => string) =>
  value === null ? "-" : show(value);

function meanCell(values: (number | null)[], show: (value: number) => string): string {
  const there = values.filter((value) => value !== null);
  if (there.length === 0) return "-";
  const { mean, ci95 } = summary(there);
  const share = there.length < values.length ? ` (${there.length} of ${values.length})` : "";
  return (there.length === 1 ? show(mean) : `${show(mean)} ± ${show(ci95)}`) + share;
}

/** Settings that are not the same in all experiments, code and machine included. */
function differenceTable(runs: Compared[], experiments: string[]): string {
  const rows = differences(runs.map(({ settings }) => settings)).map(({ path, values }) => [
    path,
    ...experiments.map((experiment) => {
      const own = values.filter((_, i) => runs[i].experiment === experiment);
      return [...new Set(own.map((text) => text ?? "-"))].join(" | ");
    }),
  ]);
  return `settings that differ\n${table(["key", ...experiments.map((_, i) => letters(i))], rows)}`;
}

/** A, B, …, Z, AA, AB, … */
function letters(index: number): string {
  const letter = String.fromCharCode(65 + index % 26);
  return index < 26 ? letter : letters(Math.floor(index / 26) - 1) + letter;
}
