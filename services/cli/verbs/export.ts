// ./sdpg export: what the store holds of some runs, as files that other tools read.

import { dirname, join } from "node:path";
import { sdpgHome } from "@sdpg/common/home.ts";
import { oneOf, read, UsageError, verb } from "../flags.ts";
import { CliError } from "../process.ts";
import { ask, requireRuns, rowsFrom, runList, withTelemetry } from "../store.ts";
import { stepRecord, versionRecord } from "../tensorboard.ts";

const readFormat = oneOf("csv", "parquet", "tensorboard");
const readTable = oneOf("curves", "evaluations", "episodes", "resources", "faults", "runs");
const steps = ["iteration", "env_steps_total", "env_steps_nominal", "images_rendered"] as const;
const readStep = oneOf(...steps);

export const exportRuns = verb({
  name: "export",
  summary: "writes runs to files: CSV, Parquet, or event files of TensorBoard",
  positionals: [{ name: "run", meaning: "runs to write", required: true, many: true }],
  options: {
    format: { value: "csv|parquet|tensorboard", meaning: "what to write", read: readFormat },
    out: {
      value: "PATH",
      meaning: "the file to write; for tensorboard a folder, with one of its own for each run",
      read: read.text,
    },
    table: {
      value: "TABLE",
      meaning: "csv, parquet: which rows: curves (all scalars, and the evaluations' means), " +
        "evaluations, episodes, resources, faults, runs (settings, state, tags, note)",
      read: readTable,
      fallback: "curves",
    },
    axis: {
      value: "AXIS",
      meaning: `tensorboard: what its steps count: ${steps.join(", ")}`,
      read: readStep,
      fallback: "iteration",
    },
  },
  examples: [
    "./sdpg export hopper-a hopper-b --format parquet --out hopper.parquet",
    "./sdpg export hopper-a --format tensorboard --out logs && tensorboard --logdir logs",
  ],
  async run({ positionals: runs, options: { format, out, table, axis } }) {
    if (format === undefined) {
      throw new UsageError("Cannot export without --format: csv, parquet or tensorboard");
    }
    if (out === undefined) throw new UsageError("Cannot export without --out PATH");
    if (table !== undefined && format === "tensorboard") {
      throw new UsageError("Cannot use --table with tensorboard: it takes curves only");
    }
    if (axis !== undefined && format !== "tensorboard") {
      throw new UsageError(`Cannot use --axis with ${format}: its rows have every axis`);
    }
    await withTelemetry(sdpgHome(), async (url) => {
      await requireRuns(url, runs);
      if (format === "tensorboard") {
        for (const run of runs) await writeEvents(url, run, join(out, run), axis ?? "iteration");
      } else await writeTable(url, runs, format, out, table ?? "curves");
    });
    return 0;
  },
});

/** Columns that put a table's rows in an order that does not depend on how they were stored. */
const orders = {
  curves: "name, iteration",
  evaluations: "iteration",
  episodes: "iteration, episode",
  resources: "time, service, pid",
  faults: "time, source, sequence",
  runs: "run_id",
} as const;

async function writeTable(
  url: string,
  runs: string[],
  format: "csv" | "parquet",
  out: string,
  table: keyof typeof orders,
): Promise<void> {
  const body = await ask(
    url,
    `SELECT * FROM ${table} WHERE run_id IN {runs:Array(String)}
     ORDER BY indexOf({runs:Array(String)}, toString(run_id)), ${orders[table]}`,
    format === "csv" ? "CSVWithNames" : "Parquet",
    { runs: runList(runs) },
  );
  using file = create(out);
  for await (const chunk of body) writeAll(file, chunk);
  said(out);
}

/** One event file; the same store gives the same bytes. */
async function writeEvents(
  url: string,
  run: string,
  folder: string,
  axis: typeof steps[number],
): Promise<void> {
  const [{ began }] = await rowsFrom<{ began: number }>(
    url,
    "SELECT toUnixTimestamp(started_at) AS began FROM runs WHERE run_id = {run:String}",
    { run },
  );
  // One row for each record: the scalars of an epoch share their step and time.
  const rows = await rowsFrom<{ at: number; step: number; scalars: [string, string][] }>(
    url,
    `SELECT toUnixTimestamp64Micro(any(time)) / 1e6 AS at, any(${axis}) AS step,
            arraySort(groupArray((toString(name), toString(value)))) AS scalars
     FROM curves WHERE run_id = {run:String}
     GROUP BY iteration, name = 'evaluation' AS evaluated
     ORDER BY iteration, evaluated`,
    { run },
  );
  const path = join(folder, `events.out.tfevents.${began}.sdpg`);
  using file = create(path);
  writeAll(file, versionRecord(began));
  for (const { at, step, scalars } of rows) {
    const values = scalars.map(([tag, text]) => [tag, numberOf(text)] as [string, number]);
    writeAll(file, stepRecord({ timeS: at, step, scalars: values }));
  }
  said(path);
}

/** A number in ClickHouse's text: JSON would have none for the last three. */
function numberOf(text: string): number {
  const special: Record<string, number> = { nan: NaN, inf: Infinity, "-inf": -Infinity };
  return special[text] ?? Number(text);
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let sent = 0; sent < bytes.length;) sent += file.writeSync(bytes.subarray(sent));
}

function create(path: string): Deno.FsFile {
  try {
    Deno.mkdirSync(dirname(path), { recursive: true });
    return Deno.openSync(path, { create: true, write: true, truncate: true });
  } catch (error) {
    throw new CliError(`Cannot write ${path}: ${error instanceof Error ? error.message : error}`);
  }
}

const said = (path: string) => console.error(`wrote ${path}`);
