// How many rows the telemetry service takes and how soon it says so, on a store of its own in a scratch
// directory: an offered rate of scalars, each request acknowledged before its sender goes on, every
// twentieth sent twice. Afterwards the rows are counted, and a curve of a thousand points is asked for.

import { CliError } from "./process.ts";
import { leaseTelemetry } from "./mesh.ts";
import { sampleProcesses } from "./procfs.ts";
import { rowsFrom } from "./store.ts";

const rowsPerEvent = 100; // names of an iteration
const eventsPerRequest = 20;
const rowsPerRequest = rowsPerEvent * eventsPerRequest;
const senders = 8;
const repeatEvery = 20;

export type TelemetryFigures = Record<string, number>;

/** Offers `rowsPerSecond` for `minutes`. Throws CliError when a row was lost or doubled. */
export async function measureTelemetry(
  { minutes, rowsPerSecond }: { minutes: number; rowsPerSecond: number },
): Promise<TelemetryFigures> {
  const home = await Deno.makeTempDir({ prefix: "sdpg-bench-telemetry-" });
  const telemetry = await leaseTelemetry(home);
  try {
    const { pid } = telemetry.entry;
    const [before] = await sampleProcesses([pid]);
    const taken = await offer(telemetry.url, minutes * 60, rowsPerSecond);
    const [after] = await sampleProcesses([pid]);
    const [{ rows, distinct, sum }] = await rowsFrom<Record<string, number>>(
      telemetry.url,
      "SELECT count() AS rows, uniqCombined64(20)(run_id, iteration, name) AS distinct, " +
        "sum(value) AS sum FROM scalars",
    );
    const requests = taken.latenciesMs.length;
    const expected = requests * rowsPerRequest;
    // Sender s counts its iterations from 1; a value is its iteration.
    const expectedSum = taken.iterations.reduce((total, n) => total + n * (n + 1) / 2, 0) *
      rowsPerEvent;
    if (rows !== expected || sum !== expectedSum) {
      throw new CliError(
        `Rows were lost or doubled: expected ${expected} with sum ${expectedSum}, the store has ` +
          `${rows} with sum ${sum}`,
      );
    }
    const sorted = taken.latenciesMs.toSorted((a, b) => a - b);
    return {
      offered_rows_per_s: rowsPerSecond,
      rows_per_s: rows / taken.seconds,
      rows,
      distinct_estimate: distinct,
      accept_p50_ms: sorted[Math.floor(requests * 0.5)],
      accept_p99_ms: sorted[Math.floor(requests * 0.99)],
      cpu_s_per_million_rows: (after.cpuSeconds - before.cpuSeconds) / rows * 1e6,
      peak_pss_mb: after.proportionalBytes / 1e6,
      ...await askForCurve(telemetry.url),
    };
  } finally {
    await telemetry.release();
    await Deno.remove(home, { recursive: true });
  }
}

/** Sends until the time is over; what was begun is ended. */
async function offer(url: string, seconds: number, rowsPerSecond: number) {
  const startMs = performance.now();
  const latenciesMs: number[] = [];
  const iterations = Array.from({ length: senders }, () => 0);
  let due = 0; // requests that were begun
  const send = async (sender: number) => {
    while (performance.now() - startMs < seconds * 1000) {
      const waitMs = startMs + due++ * rowsPerRequest / rowsPerSecond * 1000 - performance.now();
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
      const body = request(sender, iterations[sender] + 1);
      iterations[sender] += eventsPerRequest;
      const sentMs = performance.now();
      await post(url, body);
      latenciesMs.push(performance.now() - sentMs);
      if (latenciesMs.length % repeatEvery === 0) await post(url, body);
    }
  };
  await Promise.all(iterations.map((_, sender) => send(sender)));
  return { latenciesMs, iterations, seconds: (performance.now() - startMs) / 1000 };
}

async function post(url: string, body: string): Promise<void> {
  while (true) {
    const headers = { "content-type": "application/json" };
    const response = await fetch(`${url}/v1/logs`, { method: "POST", body, headers });
    const text = await response.text();
    if (response.ok) return;
    if (response.status !== 429) throw new CliError(`The telemetry service refused: ${text}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Iterations of one sender's run, with what every one has written once. */
function request(sender: number, from: number): string {
  const record = (iteration: number) =>
    `{"timeUnixNano":"${
      BigInt(Date.now()) * 1_000_000n
    }","eventName":"rl.iteration","attributes":[` +
    `{"key":"rl.run.id","value":{"stringValue":"bench-${sender}"}},` +
    ["rl.iteration", "rl.env_steps.nominal", "rl.env_steps.total", "rl.images"].map((key) =>
      `{"key":"${key}","value":{"intValue":"${iteration}"}},`
    ).join("") +
    ["rl.wall_time", "rl.gpu_seconds"].map((key) =>
      `{"key":"${key}","value":{"doubleValue":${iteration}}},`
    ).join("") +
    `{"key":"rl.scalars","value":{"kvlistValue":{"values":[${
      names.map((key) => `{"key":"${key}","value":{"doubleValue":${iteration}}}`).join(",")
    }]}}}]}`;
  const records = Array.from({ length: eventsPerRequest }, (_, i) => record(from + i));
  return `{"resourceLogs":[{"scopeLogs":[{"logRecords":[${records.join(",")}]}]}]}`;
}

const names = Array.from({ length: rowsPerEvent }, (_, k) => `group_${k % 10}/name_${k}`);

/** At most a thousand points of one run's curve, out of all scalars; warm: the first answer is not counted. */
async function askForCurve(url: string): Promise<TelemetryFigures> {
  const sql = "SELECT intDiv(iteration, greatest(1, intDiv((SELECT max(iteration) FROM scalars " +
    "WHERE run_id = 'bench-0' AND name = 'group_3/name_3'), 1000))) AS bin, avg(wall_time_s) AS x, " +
    "avg(value) AS y, min(value), max(value) FROM scalars WHERE run_id = 'bench-0' " +
    "AND name = 'group_3/name_3' GROUP BY bin ORDER BY bin";
  const timesMs: number[] = [];
  let points = 0;
  for (let i = 0; i < 11; i++) {
    const startMs = performance.now();
    points = (await rowsFrom(url, sql)).length;
    if (i > 0) timesMs.push(performance.now() - startMs);
  }
  timesMs.sort((a, b) => a - b);
  return { curve_points: points, curve_median_ms: timesMs[5], curve_max_ms: timesMs[9] };
}
