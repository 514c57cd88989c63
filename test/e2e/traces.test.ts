// What a training leaves in OpenTelemetry's tables: one whole trace per epoch over all services, metrics
// and logs, under the names of docs/registry.md and no others.

import { afterAll, beforeAll, expect, test } from "vitest";
import { join } from "node:path";
import { iterationTrace } from "@sdpg/common/trace.ts";
import { ask, root, sdpg, temporaryHome } from "./command.ts";

const epochs = 6;
const home = temporaryHome();
beforeAll(async () => {
  const args = ["--epochs", String(epochs), "--run", "traced", "--json", "--threads=1"];
  const size = ["--obs=pixels", "nominals=4", "auxiliaries=3", "horizon=8"];
  const settings = ["evaluation.every=2", "evaluation.episodes=2", "simulation.render=apart"];
  const { code, stderr } = await sdpg(home.path, "train", "hopper", ...args, ...size, ...settings);
  expect(stderr).not.toMatch(/error/i);
  expect(code).toBe(0);
});
afterAll(() => home[Symbol.asyncDispose]());

interface SpanRow {
  TraceId: string;
  SpanId: string;
  ParentSpanId: string;
  SpanName: string;
  ServiceName: string;
  Duration: number;
  SpanAttributes: Record<string, string>;
}

const spansOf = () =>
  ask<SpanRow>(
    home.path,
    "SELECT TraceId, SpanId, ParentSpanId, SpanName, ServiceName, toFloat64(Duration) AS Duration, " +
      "SpanAttributes FROM otel_traces",
  );

test("every epoch is one trace, whole, whose phases explain its time", async () => {
  const spans = await spansOf();
  const traces = Map.groupBy(spans, ({ TraceId }) => TraceId);
  expect(traces.size).toBe(epochs);
  const explained: number[] = [];
  for (let epoch = 1; epoch <= epochs; epoch++) {
    const { traceId, spanId } = iterationTrace("traced", epoch);
    const own = traces.get(traceId)!;
    const ids = new Set(own.map(({ SpanId }) => SpanId));
    expect(ids.size).toBe(own.length);
    const roots = own.filter(({ ParentSpanId }) => !ids.has(ParentSpanId));
    expect(roots.map(({ SpanName, SpanId }) => [SpanName, SpanId]))
      .toEqual([["rl.iteration", spanId]]);
    expect(new Set(own.map(({ SpanAttributes }) => SpanAttributes["rl.iteration"])))
      .toEqual(new Set([String(epoch)]));
    const services = new Set(own.map(({ ServiceName }) => ServiceName));
    for (const service of ["cli", "learner", "gpu-sim", "render"]) {
      expect(services).toContain(service);
    }
    expect(services.has("evaluation")).toBe(epoch % 2 === 0);
    const top = own.filter(({ ParentSpanId, ServiceName }) =>
      ParentSpanId === spanId && ServiceName === "learner"
    );
    explained.push(top.reduce((sum, { Duration }) => sum + Duration, 0) / roots[0].Duration);
  }
  // Of the middle one: a busy machine may stop any single epoch between two phases.
  explained.sort((a, b) => a - b);
  expect(explained[Math.floor(explained.length / 2)]).toBeGreaterThan(0.95);
  expect(explained.at(-1)).toBeLessThan(1.001);
});

test("scalars find their trace by run and iteration in SQL", async () => {
  const rows = await ask(
    home.path,
    "SELECT s.iteration AS iteration, s.value AS seconds, t.Duration / 1e9 AS traced FROM scalars AS s " +
      "JOIN otel_traces AS t ON t.SpanName = 'critic' AND " +
      "t.TraceId = lower(hex(substring(SHA256(s.run_id || ' ' || toString(s.iteration)), 1, 16))) " +
      "WHERE s.name = 'phase/critic' ORDER BY s.iteration",
  );
  expect(rows.map(({ iteration }) => iteration)).toEqual([1, 2, 3, 4, 5, 6]);
  for (const { seconds, traced } of rows) expect(traced).toBeCloseTo(seconds, 6);
});

test("services' logs are there, with run and trace", async () => {
  const rows = await ask(
    home.path,
    "SELECT ServiceName, Body, TraceId FROM otel_logs WHERE LogAttributes['rl.run.id'] = 'traced'",
  );
  const said = (service: string, body: string) =>
    rows.find(({ ServiceName, Body }) => ServiceName === service && Body === body);
  expect(said("gpu-sim", "batch created")?.TraceId).toBe(iterationTrace("traced", 0).traceId);
  for (const service of ["learner", "evaluation"]) expect(said(service, "listening")).toBeDefined();
});

test("a run emits what docs/registry.md says, and nothing else", async () => {
  const spans = await spansOf();
  const names = spans.map(({ ServiceName, SpanName, SpanAttributes }) =>
    `${ServiceName} ${SpanAttributes["rl.phase"] ?? SpanName}`
  );
  expect(sorted(names)).toEqual(registered("Spans"));
  expect(sorted(spans.flatMap(({ SpanAttributes }) => Object.keys(SpanAttributes))))
    .toEqual(registered("Span attributes"));
  const metrics = await ask<{ name: string }>(
    home.path,
    ["gauge", "sum", "histogram"].map((kind) =>
      `SELECT DISTINCT MetricName AS name FROM otel_metrics_${kind}`
    ).join(" UNION ALL "),
  );
  const emitted = sorted(metrics.map(({ name }) => name));
  const hasGpu = emitted.some((name) => name.startsWith("hw.gpu."));
  expect(emitted).toEqual(
    registered("Metrics").filter((name) => hasGpu || !name.startsWith("hw.gpu.")),
  );
});

/** First cells of the table below a heading. */
function registered(heading: string): string[] {
  const page = Deno.readTextFileSync(join(root, "docs/registry.md"));
  const section = page.split(/^## /m).find((part) => part.startsWith(`${heading}\n`))!;
  return sorted([...section.matchAll(/^\| `([^`]+)`/gm)].map(([, name]) => name));
}

const sorted = (names: string[]) => [...new Set(names)].sort();
