// Senders against the telemetry service in front of a ClickHouse server that can be taken away: rows
// flow at a rate, the service is killed twice, the store is away for a while, and afterwards every row
// is there exactly once. What is sent is known by its numbers, so counts and sums say whether it is.

import { Recorder } from "@sdpg/common/record.ts";
import { freePort, startTestService } from "../../services/telemetry/service_for_tests.ts";
import { EngineBehindHttp } from "../../services/telemetry/engine_for_tests.ts";

export interface Hardship {
  seconds: number;
  rowsPerSecond: number;
  /** How long the store is away in all, in two parts with a kill between them. */
  awaySeconds: number;
}

export interface Outcome {
  sentScalars: number;
  sentSpans: number;
  /** count, distinct, sum of the values in the store. */
  scalars: number[];
  spans: number[];
  /** Most rows that were in the spool only. */
  spooledMost: number;
  dropped: number;
}

const namesPerIteration = 50;
const spansPerRequest = 1000;

export async function endure({ seconds, rowsPerSecond, awaySeconds }: Hardship): Promise<Outcome> {
  const home = Deno.makeTempDirSync({ prefix: "sdpg-endure-" });
  const engine = new EngineBehindHttp(`${home}/engine`);
  const listen = `127.0.0.1:${freePort()}`;
  const environment = { SDPG_CLICKHOUSE_URL: engine.url };
  let service = await startTestService(home, listen, environment);
  const recorder = new Recorder({ url: service.url, service: "learner", intervalMs: 200 });
  let going = true; // until the trouble is over, whatever the machine's pace
  let iterations = 0;
  let spans = 0;
  let spooledMost = 0;

  // Half of the rows are scalars through the recorder, half spans as an exporter sends them: the same
  // request again until it is acknowledged.
  const record = async () => {
    const startMs = performance.now();
    while (going) {
      const due = (performance.now() - startMs) / 1000 * rowsPerSecond / 2 / namesPerIteration;
      while (iterations < due) {
        const iteration = ++iterations;
        recorder.iteration({
          runId: "endured",
          iteration,
          envStepsNominal: iteration,
          envStepsTotal: iteration,
          imagesRendered: 0,
          wallTimeS: iteration,
          gpuSeconds: 0,
          scalars: Object.fromEntries(
            Array.from({ length: namesPerIteration }, (_, k) => [`n${k}`, iteration * 100 + k]),
          ),
        });
      }
      await pause(20);
    }
  };
  const trace = async () => {
    const startMs = performance.now();
    while (going) {
      const due = (performance.now() - startMs) / 1000 * rowsPerSecond / 2;
      if (spans + spansPerRequest > due) {
        await pause(10);
        continue;
      }
      const body = spansFrom(spans + 1, spansPerRequest);
      while (!await taken(`http://${listen}/v1/traces`, body)) await pause(100);
      spans += spansPerRequest;
    }
  };
  const trouble = async () => {
    await pause(seconds * 200);
    await service.kill("SIGKILL"); // while the store takes rows
    service = await startTestService(home, listen, environment);
    await pause(seconds * 200);
    engine.away = true;
    await pause(awaySeconds * 500);
    await until(async () => (spooledMost = (await health(listen)).spooledRows) > 0);
    engine.away = false; // the service opens only a store that is there
    await service.kill("SIGKILL"); // with rows in the spool
    service = await startTestService(home, listen, environment);
    engine.away = true;
    await pause(awaySeconds * 500);
    engine.away = false;
    await pause(Math.max(0, seconds * 600 - awaySeconds * 1000));
    going = false;
  };
  await Promise.all([record(), trace(), trouble()]);
  const { dropped } = await recorder.flush(120_000);
  await recorder.close();
  await until(async () => (await health(listen)).spooledRows === 0);
  const numbers = async (sql: string) => (await service.ask(sql)).split("\t").map(Number);
  const outcome = {
    sentScalars: iterations * namesPerIteration,
    sentSpans: spans,
    scalars: await numbers(
      "SELECT count(), uniqExact(iteration, name), sum(toInt64(value)) FROM scalars",
    ),
    spans: await numbers(
      "SELECT count(), uniqExact(SpanId), sum(toInt64(SpanAttributes['n'])) FROM otel_traces",
    ),
    spooledMost,
    dropped,
  };
  await service.kill();
  await engine.close();
  Deno.removeSync(home, { recursive: true });
  return outcome;
}

/** What `endure` has to find: every row that was sent, once. */
export function expected({ sentScalars, sentSpans }: Outcome) {
  const iterations = sentScalars / namesPerIteration;
  const sum = namesPerIteration * 100 * iterations * (iterations + 1) / 2 +
    iterations * namesPerIteration * (namesPerIteration - 1) / 2;
  return {
    scalars: [sentScalars, sentScalars, sum],
    spans: [sentSpans, sentSpans, sentSpans * (sentSpans + 1) / 2],
    dropped: 0,
  };
}

function spansFrom(first: number, count: number): string {
  const now = BigInt(Date.now()) * 1_000_000n;
  const hex = (n: number, length: number) => n.toString(16).padStart(length, "0");
  const spans = Array.from({ length: count }, (_, i) => ({
    traceId: hex(1 + Math.floor(first / 1000), 32),
    spanId: hex(first + i, 16),
    name: "phase",
    kind: 1,
    startTimeUnixNano: String(now),
    endTimeUnixNano: String(now + 1000n),
    attributes: [{ key: "n", value: { intValue: String(first + i) } }],
  }));
  return JSON.stringify({ resourceSpans: [{ scopeSpans: [{ spans }] }] });
}

/** Whether the service has acknowledged the request. Anything else is sent again. */
async function taken(url: string, body: string): Promise<boolean> {
  try {
    const response = await fetch(url, {
      method: "POST",
      body,
      headers: { "content-type": "application/json" },
      signal: AbortSignal.timeout(15_000),
    });
    await response.body?.cancel();
    return response.status === 200;
  } catch {
    return false; // refused, cut off, too slow
  }
}

async function health(address: string): Promise<{ spooledRows: number }> {
  return await (await fetch(`http://${address}/health`)).json();
}

/** Waits for at most two minutes; what was waited for is then checked by the caller. */
async function until(done: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 120_000;
  while (!await done() && performance.now() < deadline) await pause(100);
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
