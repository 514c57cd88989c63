import { afterEach, expect, test, vi } from "vitest";
import { Recorder } from "./record.ts";
import { iterationTrace, spanId } from "./trace.ts";

afterEach(() => void vi.useRealTimers());

/** A telemetry service that answers as it is told and keeps what it took. */
function receiver(status: (path: string) => number = () => 200) {
  const requests: { path: string; body: Record<string, unknown> }[] = [];
  const take = (input: string | URL | Request, init?: RequestInit) => {
    const path = new URL(String(input)).pathname;
    requests.push({ path, body: JSON.parse(String(init!.body)) });
    return Promise.resolve(new Response("", { status: status(path) }));
  };
  return { requests, fetch: take as typeof fetch };
}

const record = (fetch: typeof globalThis.fetch, more = {}) =>
  new Recorder({ url: "http://127.0.0.1:4318", service: "learner", fetch, ...more });

const axes = {
  envStepsNominal: 1,
  envStepsTotal: 2,
  imagesRendered: 0,
  wallTimeS: 1,
  gpuSeconds: 0,
};
const iteration = (n: number) => ({ runId: "r", iteration: n, ...axes, scalars: { x: n } });
const phase = (name: string, service: string, startMs: number) =>
  ({ name, service, seconds: 0.25, startMs, count: 3 }) as const;

test("Recorder.phases() sends OTLP spans, a resource per service, parents by name", async () => {
  const { requests, fetch } = receiver();
  const recorder = record(fetch);
  const trace = iterationTrace("hopper-1", 4);
  recorder.phases(trace, 4, [
    phase("rollout", "learner", 1_700_000_000_000.5),
    phase("rollout/render", "render", 1_700_000_000_001),
    phase("rollout/physics", "gpu-sim", 1_700_000_000_001),
  ]);
  await recorder.close();
  expect(requests.map(({ path }) => path)).toEqual(["/v1/traces"]);
  const { resourceSpans } = requests[0].body as { resourceSpans: Json[] };
  const services = resourceSpans.map(({ resource }) =>
    valueOf(resource.attributes, "service.name")
  );
  expect(services).toEqual(
    ["learner", "render", "gpu-sim"].map((stringValue) => ({ stringValue })),
  );
  const [rollout, render, physics] = resourceSpans.map(({ scopeSpans }) => scopeSpans[0].spans[0]);
  expect(rollout).toMatchObject({
    traceId: trace.traceId,
    spanId: spanId(trace.traceId, "learner", "rollout"),
    parentSpanId: trace.spanId,
    name: "rollout",
    kind: 1,
    startTimeUnixNano: "1700000000000500000",
    endTimeUnixNano: "1700000000250500000",
  });
  expect(valueOf(rollout.attributes, "rl.run.id")).toEqual({ stringValue: "hopper-1" });
  expect(valueOf(rollout.attributes, "rl.iteration")).toEqual({ intValue: "4" });
  expect(render).toMatchObject({ parentSpanId: rollout.spanId, name: "render" });
  expect(valueOf(render.attributes, "rl.phase")).toEqual({ stringValue: "rollout/render" });
  expect(valueOf(physics.attributes, "rl.phase.count")).toEqual({ intValue: "3" });
});

/** A service that is away, busy or there, as `now.is` says, and the rows it has. */
function fickle() {
  const now: { is: "away" | "busy" | "there" } = { is: "away" };
  const { requests, fetch } = receiver(() => now.is === "busy" ? 503 : 200);
  const take = (input: string | URL | Request, init?: RequestInit) =>
    now.is === "away" ? Promise.reject(new TypeError("refused")) : fetch(input, init);
  return { now, requests, fetch: take as typeof globalThis.fetch };
}

test("the end does not sit out the wait of a service that was long away", async () => {
  vi.useFakeTimers();
  const { now, requests, fetch } = fickle();
  const recorder = record(fetch, { random: () => 1 });
  recorder.iteration(iteration(1));
  await vi.advanceTimersByTimeAsync(60_000); // six seconds between its tries by now
  now.is = "there";
  let closed = false;
  void recorder.close().then(() => closed = true);
  await vi.advanceTimersByTimeAsync(1000);
  expect(closed).toBe(true);
  expect(requests).toHaveLength(1);
  expect(recorder.dropped).toBe(0);
});

test.each(
  [
    ["busy", 20_000, 25_000, 0],
    ["busy", 100_000, 35_000, 1],
    ["away", 4000, 5000, 0],
    ["away", 100_000, 6000, 1],
  ] as const,
)("a service that is %s for %i ms is waited for: done after %i ms, %i lost", async (...args) => {
  vi.useFakeTimers();
  const [how, forMs, closedMs, lost] = args;
  const { now, fetch } = fickle();
  now.is = how;
  const recorder = record(fetch, { random: () => 1 });
  recorder.iteration(iteration(1));
  let closed = false;
  void recorder.close().then(() => closed = true);
  setTimeout(() => now.is = "there", forMs);
  await vi.advanceTimersByTimeAsync(closedMs);
  expect(closed).toBe(true);
  expect(recorder.dropped).toBe(lost);
});
test("a collector without traces gets them no more, and every row", async () => {
  const { requests, fetch } = receiver((path) => path === "/v1/traces" ? 404 : 200);
  const recorder = record(fetch);
  for (const n of [1, 2]) {
    recorder.phases(iterationTrace("r", n), n, [phase("rollout", "learner", 1e12)]);
    recorder.iteration(iteration(n));
    await recorder.flush(60_000);
  }
  await recorder.close();
  expect(requests.map(({ path }) => path)).toEqual(["/v1/logs", "/v1/traces", "/v1/logs"]);
});

test("spans leave half of the queue to the numbers of a run", async () => {
  let up = false;
  const { requests, fetch } = receiver(() => up ? 200 : 503);
  const recorder = record(fetch, { maxQueuedBytes: 20_000, intervalMs: 1 });
  for (let n = 1; n <= 100; n++) {
    recorder.phases(iterationTrace("r", n), n, [phase("rollout", "learner", 1e12)]);
  }
  const spans = recorder.queued;
  expect(spans).toBeLessThan(40);
  recorder.iteration(iteration(1));
  expect(recorder.queued).toBe(spans + 1);
  up = true;
  await recorder.close();
  const taken = requests.filter(({ path }) => path === "/v1/traces").at(-1)!.body;
  expect((taken.resourceSpans as Json[])[0].scopeSpans[0].spans).toHaveLength(spans);
});

// deno-lint-ignore no-explicit-any
type Json = any;

const valueOf = (attributes: { key: string; value: unknown }[], name: string) =>
  attributes.find(({ key }) => key === name)?.value;

test("a request without an answer is sent again as it was, whatever came since", async () => {
  const statuses = [503, 503, 200, 200];
  const bodies: string[] = [];
  const take = (_: unknown, init?: RequestInit) => {
    bodies.push(String(init!.body));
    if (bodies.length === 1) recorder.phases(iterationTrace("r", 2), 2, [phase("b", "learner", 2)]);
    return Promise.resolve(new Response("", { status: statuses.shift() }));
  };
  const recorder = record(take as typeof fetch, { intervalMs: 1, random: () => 0 });
  recorder.phases(iterationTrace("r", 1), 1, [phase("a", "learner", 1)]);
  await recorder.close();
  expect(bodies).toHaveLength(4);
  expect(new Set(bodies.slice(0, 3)).size).toBe(1);
  expect(bodies[3]).not.toBe(bodies[0]);
});
