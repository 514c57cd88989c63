// How many rows the telemetry service takes, how soon it says so and what that costs, on a store of its own
// in a scratch directory: an offered rate of scalars, then of spans, each request acknowledged before its
// sender goes on, every twentieth sent twice; afterwards what is stored is compared with what was sent.
// Then the store is filled up to a number of scalars, and a curve is asked for as the page asks.

import { join } from "node:path";
import { checkoutDirectory } from "@sdpg/common/home.ts";
import { CliError } from "./process.ts";
import { leaseTelemetry, type TelemetryLease } from "./mesh.ts";
import { sampleProcesses } from "./procfs.ts";
import { rowsFrom, runList } from "./store.ts";
import { type Encoding, type Load, scalarLoad, spanLoad } from "./bench_telemetry_load.ts";
import { curves } from "../telemetry/page/queries.ts";

const senders = 8;
const repeatEvery = 20;

export type TelemetryFigures = Record<string, number | string>;

export interface TelemetryBench {
  minutes: number;
  rowsPerSecond: number;
  encoding: Encoding;
  rows: "scalars" | "spans" | "both";
  /** Scalars the store has when curves are asked for. */
  scalars: number;
  progress(line: string): void;
}

/** One row of figures for scalars, spans and curves each. Throws CliError when a row was lost or doubled. */
export async function measureTelemetry(bench: TelemetryBench): Promise<TelemetryFigures[]> {
  const home = await Deno.makeTempDir({ prefix: "sdpg-bench-telemetry-" });
  let telemetry = await leaseTelemetry(home);
  const figures: TelemetryFigures[] = [];
  try {
    const loads = {
      scalars: [scalarLoad(bench.encoding)],
      spans: [spanLoad(bench.encoding)],
      both: [scalarLoad(bench.encoding), spanLoad(bench.encoding)],
    };
    for (const load of loads[bench.rows]) {
      bench.progress(`offering ${bench.rowsPerSecond} ${load.what}/s for ${bench.minutes} min`);
      figures.push(await measureIntake(telemetry, load, bench));
    }
    const [{ rows }] = await rowsFrom<{ rows: number }>(
      telemetry.url,
      "SELECT count() AS rows FROM scalars",
    );
    await telemetry.release();
    if (bench.scalars > rows) {
      bench.progress(`filling the store up to ${bench.scalars} scalars`);
      await fill(home, bench.scalars - rows);
    }
    telemetry = await leaseTelemetry(home);
    figures.push(await measureCurves(telemetry.url));
    return figures;
  } finally {
    await telemetry.release();
    await Deno.remove(home, { recursive: true });
  }
}

async function measureIntake(
  { url, entry: { pid } }: TelemetryLease,
  load: Load,
  { minutes, rowsPerSecond }: TelemetryBench,
): Promise<TelemetryFigures> {
  const sample = () => sampleProcesses([pid, Deno.pid]);
  const [before, ownBefore] = await sample();
  const taken = await offer(url, load, minutes * 60, rowsPerSecond);
  // Asked at the end, so the time until all is stored belongs to it.
  const [{ rows, distinct, sum }] = await rowsFrom<Record<string, number>>(url, load.check);
  const [after, ownAfter] = await sample();
  const requests = taken.latenciesMs.length;
  const expected = requests * load.rowsPerRequest;
  const expectedSum = taken.counts.reduce((total, n) => total + load.sumOf(n), 0);
  if (rows !== expected || sum !== expectedSum) {
    throw new CliError(
      `Rows were lost or doubled: expected ${expected} with sum ${expectedSum}, the store has ` +
        `${rows} with sum ${sum}`,
    );
  }
  const sorted = taken.latenciesMs.toSorted((a, b) => a - b);
  return {
    regime: load.what,
    offered_rows_per_s: rowsPerSecond,
    rows_per_s: rows / taken.seconds,
    rows,
    distinct_estimate: distinct,
    accept_p50_ms: sorted[Math.floor(requests * 0.5)],
    accept_p99_ms: sorted[Math.floor(requests * 0.99)],
    cpu_s_per_million_rows: (after.cpuSeconds - before.cpuSeconds) / rows * 1e6,
    sender_cpu_s_per_million_rows: (ownAfter.cpuSeconds - ownBefore.cpuSeconds) / rows * 1e6,
    pss_mb: after.proportionalBytes / 1e6,
  };
}

/** Sends until the time is over; what was begun is ended. `counts` are the requests of each sender. */
async function offer(url: string, load: Load, seconds: number, rowsPerSecond: number) {
  const startMs = performance.now();
  const latenciesMs: number[] = [];
  const counts = Array.from({ length: senders }, () => 0);
  let due = 0; // requests that were begun
  const send = async (sender: number) => {
    const bodyOf = load.sender(sender);
    while (performance.now() - startMs < seconds * 1000) {
      const dueMs = startMs + due++ * load.rowsPerRequest / rowsPerSecond * 1000;
      const waitMs = dueMs - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
      const body = bodyOf(counts[sender]++);
      const sentMs = performance.now();
      await post(url, load, body);
      latenciesMs.push(performance.now() - sentMs);
      if (latenciesMs.length % repeatEvery === 0) await post(url, load, body);
    }
  };
  await Promise.all(counts.map((_, sender) => send(sender)));
  return { latenciesMs, counts, seconds: (performance.now() - startMs) / 1000 };
}

async function post(url: string, load: Load, body: Uint8Array<ArrayBuffer>): Promise<void> {
  while (true) {
    const headers = { "content-type": load.contentType };
    const response = await fetch(`${url}${load.path}`, { method: "POST", body, headers });
    const text = await response.text();
    if (response.ok) return;
    if (response.status !== 429) throw new CliError(`The telemetry service refused: ${text}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Has the engine make scalars of many runs, while no service has the store. */
async function fill(home: string, scalars: number): Promise<void> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-q", "-P=telemetry"],
      ...[`--allow-read=${checkoutDirectory},${home}`, `--allow-write=${home}`],
      join(checkoutDirectory, "services/telemetry/fill_for_bench.ts"),
      ...["--home", home, "--scalars", String(scalars)],
    ],
    cwd: checkoutDirectory,
    stdin: "null",
    stdout: "null",
  }).output();
  if (!success) throw new CliError(`Cannot fill the store: ${new TextDecoder().decode(stderr)}`);
}

/** Curves of one run out of the middle, and of ten; the first answers are not counted. */
async function measureCurves(url: string): Promise<TelemetryFigures> {
  const [{ scalars, runs }] = await rowsFrom<{ scalars: number; runs: number }>(
    url,
    "SELECT count() AS scalars, uniq(run_id) AS runs FROM scalars",
  );
  const found = await rowsFrom<{ run_id: string }>(
    url,
    "SELECT DISTINCT run_id FROM scalars WHERE name = 'rewards' ORDER BY sipHash64(run_id) LIMIT 10",
  );
  const names = found.map(({ run_id }) => run_id);
  const figures: TelemetryFigures = { regime: "curve", rows: scalars, runs };
  for (const chosen of [names.slice(0, 1), names]) {
    const { sql } = curves(chosen, "rewards", "env_steps_total");
    const timesMs: number[] = [];
    let points = 0;
    for (let i = 0; i < 12; i++) {
      const startMs = performance.now();
      points = (await rowsFrom(url, sql, { runs: runList(chosen), name: "rewards" })).length;
      if (i > 1) timesMs.push(performance.now() - startMs);
    }
    timesMs.sort((a, b) => a - b);
    const suffix = chosen.length === 1 ? "" : `_${chosen.length}_runs`;
    figures[`curve_points${suffix}`] = points;
    figures[`curve_median_ms${suffix}`] = timesMs[5];
    figures[`curve_max_ms${suffix}`] = timesMs[9];
  }
  return figures;
}
