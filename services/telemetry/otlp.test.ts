// OTLP in, rows of the otel_* tables out: sent by OpenTelemetry's own exporters and by hand, to the
// real service.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { gzipSync } from "node:zlib";
import { fromBinary } from "@bufbuild/protobuf";
import { SimpleSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";
import { LoggerProvider, SimpleLogRecordProcessor } from "@opentelemetry/sdk-logs";
import {
  AggregationType,
  MeterProvider,
  PeriodicExportingMetricReader,
} from "@opentelemetry/sdk-metrics";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-proto";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-proto";
import { ExportTraceServiceResponseSchema } from "@proto/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
import { testSeed } from "@sdpg/common/seed_for_tests.ts";
import { startTestService, type TestService } from "./service_for_tests.ts";

let home: string;
let service: TestService;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-otlp-" });
  service = await startTestService(home);
});
afterAll(async () => {
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

const row = async (sql: string) =>
  JSON.parse((await service.ask(`${sql} FORMAT JSONCompactEachRow`)) || "null");
const resource = resourceFromAttributes({ "service.name": "tester", "rl.run.id": "otlp-1" });
const now = () => BigInt(Date.now()) * 1_000_000n;

describe("OpenTelemetry's exporters, as they come", () => {
  test("spans with attributes, events, links and a status", async () => {
    const exporter = new OTLPTraceExporter({ url: `${service.url}/v1/traces` });
    const provider = new TracerProvider({
      resource,
      spanProcessors: [new SimpleSpanProcessor({ exporter })],
    });
    const tracer = provider.getTracer("scope", "1.2");
    const other = tracer.startSpan("other");
    const span = tracer.startSpan("phase", {
      kind: 2, // client
      attributes: { text: "ü'", count: 3, share: 0.25, on: true, list: [1, 2] },
      links: [{ context: other.spanContext(), attributes: { why: "before" } }],
    });
    span.addEvent("happened", { n: 1 });
    span.setStatus({ code: 2, message: "broke" });
    span.end();
    other.end();
    await provider.shutdown();
    const { traceId, spanId } = span.spanContext();
    expect(
      await row(
        "SELECT TraceId, SpanName, SpanKind, ServiceName, ResourceAttributes['rl.run.id'], ScopeName, " +
          "ScopeVersion, SpanAttributes, length(mapKeys(SpanAttributes)), Duration > 0, StatusCode, StatusMessage, Events.Name, " +
          "Events.Attributes, Links.SpanId, Links.Attributes, " +
          `abs(dateDiff('second', Timestamp, now64())) < 60 FROM otel_traces WHERE SpanId = '${spanId}'`,
      ),
    ).toEqual([
      traceId,
      "phase",
      "Client",
      "tester",
      "otlp-1",
      "scope",
      "1.2",
      { text: "ü'", count: "3", share: "0.25", on: "true", list: "[1,2]" },
      5,
      1,
      "Error",
      "broke",
      ["happened"],
      [{ n: "1" }],
      [other.spanContext().spanId],
      [{ why: "before" }],
      1,
    ]);
    // Grafana finds a trace through this table.
    expect(
      await row(
        "SELECT min(Start) <= max(End) FROM otel_traces_trace_id_ts " +
          `WHERE TraceId = '${traceId}'`,
      ),
    ).toEqual([1]);
  });

  test("log records", async () => {
    const exporter = new OTLPLogExporter({ url: `${service.url}/v1/logs` });
    const provider = new LoggerProvider({
      resource,
      processors: [new SimpleLogRecordProcessor({ exporter })],
    });
    provider.getLogger("scope").emit({
      severityNumber: 13,
      severityText: "WARN",
      eventName: "something.else",
      body: { said: "it's", n: 1 },
      attributes: { epoch: 7 },
    });
    await provider.shutdown();
    expect(
      await row(
        "SELECT ServiceName, SeverityNumber, SeverityText, EventName, Body, LogAttributes, ScopeName " +
          "FROM otel_logs WHERE EventName = 'something.else'",
      ),
    ).toEqual([
      "tester",
      13,
      "WARN",
      "something.else",
      '{"said":"it\'s","n":1}',
      { epoch: "7" },
      "scope",
    ]);
  });

  test("counters, gauges, histograms and exponential histograms", async () => {
    const exporter = new OTLPMetricExporter({ url: `${service.url}/v1/metrics` });
    const provider = new MeterProvider({
      resource,
      readers: [new PeriodicExportingMetricReader({ exporter, exportIntervalMillis: 3_600_000 })],
      views: [{
        instrumentName: "wide",
        aggregation: { type: AggregationType.EXPONENTIAL_HISTOGRAM },
      }],
    });
    const meter = provider.getMeter("scope");
    meter.createCounter("calls", { unit: "{call}" }).add(3, { method: "a" });
    meter.createGauge("depth").record(2.5);
    const bounds = { advice: { explicitBucketBoundaries: [1, 10] } };
    const histogram = meter.createHistogram("seconds", bounds);
    for (const value of [0.5, 5, 7]) histogram.record(value);
    meter.createHistogram("wide").record(4);
    await provider.shutdown();
    expect(
      await row(
        "SELECT MetricName, MetricUnit, Attributes, Value, AggregationTemporality, IsMonotonic, " +
          "StartTimeUnix <= TimeUnix FROM otel_metrics_sum WHERE ServiceName = 'tester'",
      ),
    ).toEqual(["calls", "{call}", { method: "a" }, 3, 2, true, 1]);
    expect(await row("SELECT MetricName, Value FROM otel_metrics_gauge")).toEqual(["depth", 2.5]);
    expect(
      await row(
        "SELECT MetricName, Count, Sum, BucketCounts, ExplicitBounds, Min, Max " +
          "FROM otel_metrics_histogram",
      ),
    ).toEqual(["seconds", 3, 12.5, [1, 2, 0], [1, 10], 0.5, 7]);
    expect(
      await row(
        "SELECT MetricName, Count, Sum, arraySum(PositiveBucketCounts) " +
          "FROM otel_metrics_exp_histogram",
      ),
    ).toEqual(["wide", 1, 4, 1]);
  });
});

describe("requests by hand", () => {
  const post = (
    signal: string,
    body: unknown,
    headers: Record<string, string> = {},
  ): Promise<Response> =>
    fetch(`${service.url}/v1/${signal}`, {
      method: "POST",
      body: body instanceof Uint8Array ? body as Uint8Array<ArrayBuffer> : JSON.stringify(body),
      headers: { "content-type": "application/json", ...headers },
    });
  const span = (name: string, more: Record<string, unknown> = {}) => ({
    traceId: "0af7651916cd43dd8448eb211c80319c",
    spanId: "b7ad6b7169203331",
    name,
    kind: 1,
    startTimeUnixNano: String(now()),
    endTimeUnixNano: String(now() + 1_500_000_000n),
    ...more,
  });
  const traces = (...spans: unknown[]) => ({ resourceSpans: [{ scopeSpans: [{ spans }] }] });
  const stored = async (name: string) =>
    (await row(`SELECT count() FROM otel_traces WHERE SpanName = '${name}'`))[0];

  test("JSON, plain and gzip, with ids in hex and integers as texts or numbers", async () => {
    expect(await (await post("traces", traces(span("json")))).json()).toEqual({});
    const packed = gzipSync(JSON.stringify(traces(span("json", { kind: 3 }))));
    expect((await post("traces", packed, { "content-encoding": "gzip" })).status).toBe(200);
    expect(
      await row(
        "SELECT groupArray(TraceId), groupArray(SpanId), groupArray(Duration >= 1500000000), " +
          "arraySort(groupArray(SpanKind)) FROM otel_traces WHERE SpanName = 'json'",
      ),
    ).toEqual([
      ["0af7651916cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319c"],
      ["b7ad6b7169203331", "b7ad6b7169203331"],
      [1, 1],
      ["Client", "Internal"],
    ]);
  });

  test("the same request again, also after a kill, is stored once", async () => {
    const body = traces(span("again"), span("again"));
    const answers = await Promise.all([post("traces", body), post("traces", body)]);
    expect(answers.map(({ status }) => status)).toEqual([200, 200]);
    await service.kill("SIGKILL");
    service = await startTestService(home, service.address);
    expect((await post("traces", body)).status).toBe(200);
    expect(await stored("again")).toBe(2);
  });

  test.each([
    ["a short trace id", { traceId: "0af7" }, /trace id of 16 bytes, came 2/],
    ["an id that is no hex", { spanId: "zz" }, /span id of 8 bytes, came 1/],
    ["a trace id of zeros", { traceId: "0".repeat(32) }, /not all zero/],
    ["an end before the start", { endTimeUnixNano: "1" }, /ends before it starts/],
    ["no time", { startTimeUnixNano: "0" }, /last 30 days.*came 0 ns/],
    [
      "a time beyond what is kept",
      { startTimeUnixNano: "9000000000000000000", endTimeUnixNano: "9000000000000000001" },
      /at most one day ahead/,
    ],
  ])("%s is told in partial_success, and the others are stored", async (what, wrong, reason) => {
    const body = traces(span(what, wrong), span(what), span(what, wrong));
    const response = await post("traces", body);
    expect(response.status).toBe(200);
    const { partialSuccess } = await response.json();
    expect(partialSuccess.rejectedSpans).toBe("2");
    expect(partialSuccess.errorMessage).toMatch(reason);
    expect(await stored(what)).toBe(1);
  });

  test("partial_success of metrics and logs", async () => {
    const time = { timeUnixNano: String(now()) };
    const metrics = [
      { name: "nothing" },
      { name: "good", gauge: { dataPoints: [{ ...time, asInt: "4" }] } },
      {
        name: "bad",
        histogram: { dataPoints: [{ ...time, bucketCounts: ["1"], explicitBounds: [1] }] },
      },
      {
        name: "words",
        gauge: { dataPoints: [{ ...time, asDouble: "NaN" }, { ...time, asDouble: "-Infinity" }] },
      },
      {
        name: "quantiles",
        summary: {
          dataPoints: [{ ...time, count: 2, sum: 3, quantileValues: [{ quantile: 1, value: 2 }] }],
        },
      },
    ];
    const body = { resourceMetrics: [{ scopeMetrics: [{ metrics }] }] };
    expect(await (await post("metrics", body)).json()).toEqual({
      partialSuccess: {
        rejectedDataPoints: "2",
        errorMessage: expect.stringMatching(/metric "nothing": expected gauge/),
      },
    });
    expect(
      await row(
        "SELECT groupArray(toString(Value)) FROM (SELECT Value FROM otel_metrics_gauge " +
          "WHERE MetricName IN ('good', 'words') ORDER BY toString(Value))",
      ),
    ).toEqual([["-inf", "4", "nan"]]);
    expect(
      await row(
        "SELECT Count, Sum, ValueAtQuantiles.Quantile, ValueAtQuantiles.Value FROM otel_metrics_summary",
      ),
    ).toEqual([2, 3, [1], [2]]);
    const logRecords = [{ severityNumber: 25 }, { body: { stringValue: "kept" } }];
    const logs = { resourceLogs: [{ scopeLogs: [{ logRecords }] }] };
    expect((await (await post("logs", logs)).json()).partialSuccess.rejectedLogRecords).toBe("1");
    expect(await row("SELECT count() FROM otel_logs WHERE Body = 'kept'")).toEqual([1]);
  });

  test("events of the record and log records in one request go to their tables", async () => {
    const run = {
      eventName: "rl.fault",
      timeUnixNano: String(now()),
      attributes: Object.entries({
        "rl.run.id": { stringValue: "mixed" },
        "rl.sequence": { intValue: "1" },
        "rl.service": { stringValue: "s" },
        "rl.fault.kind": { stringValue: "k" },
        "rl.fault.count": { intValue: "1" },
        "rl.iteration": { intValue: "1" },
      }).map(([key, value]) => ({ key, value })),
    };
    const body = (...logRecords: unknown[]) => ({
      resourceLogs: [{
        resource: { attributes: [{ key: "service.instance.id", value: { stringValue: "i" } }] },
        scopeLogs: [{ logRecords }],
      }],
    });
    const plain = { body: { stringValue: "mixed" } };
    expect((await post("logs", body(run, plain))).status).toBe(200);
    expect(await row("SELECT count() FROM faults WHERE run_id = 'mixed'")).toEqual([1]);
    expect(await row("SELECT count() FROM otel_logs WHERE Body = 'mixed'")).toEqual([1]);
    // A wrong event of the record refuses the request: nothing of it is stored.
    const wrong = { ...run, attributes: run.attributes.slice(1) };
    expect((await post("logs", body({ body: { stringValue: "not" } }, wrong))).status).toBe(400);
    expect(await row("SELECT count() FROM otel_logs WHERE Body = 'not'")).toEqual([0]);
  });

  test("what is no OTLP is 400 with the reason, in the sender's encoding", async () => {
    const cases: [string, unknown, Record<string, string>, RegExp][] = [
      ["traces", { resourceSpans: 3 }, {}, /cannot be read as OTLP/],
      ["traces", traces(span("x", { kind: [] })), {}, /cannot be read as OTLP/],
      ["metrics", new TextEncoder().encode("{"), {}, /no JSON/],
      ["traces", new Uint8Array([0xff]), { "content-type": "application/x-protobuf" }, /./],
      ["traces", new Uint8Array([1, 2]), { "content-encoding": "gzip" }, /no gzip/],
    ];
    for (const [signal, body, headers, reason] of cases) {
      const response = await post(signal, body, headers);
      expect(response.status).toBe(400);
      expect(await response.text()).toMatch(reason);
    }
    const empty = await post("traces", new Uint8Array(), {
      "content-type": "application/x-protobuf",
    });
    expect(empty.status).toBe(200);
    expect(empty.headers.get("content-type")).toBe("application/x-protobuf");
    expect(fromBinary(ExportTraceServiceResponseSchema, await empty.bytes()).partialSuccess)
      .toBeUndefined();
  });

  test("gzip that unpacks to too much is refused before it is all unpacked", async () => {
    const bomb = gzipSync(new Uint8Array(64 << 20));
    const response = await post("traces", bomb, { "content-encoding": "gzip" });
    expect(response.status).toBe(413);
  });

  test("random bytes never end the service", async () => {
    const seed = testSeed;
    let state = seed || 1;
    const random = () => ((state ^= state << 13, state ^= state >>> 17, state ^= state << 5) >>> 0);
    for (let i = 0; i < 300; i++) {
      const bytes = Uint8Array.from({ length: random() % 200 }, () => random() & 255);
      const headers = { "content-type": "application/x-protobuf" };
      const signal = ["traces", "metrics", "logs"][i % 3];
      const { status } = await post(signal, bytes, headers);
      expect([200, 400], `seed ${seed}, request ${i}`).toContain(status);
    }
    expect((await fetch(`${service.url}/ping`)).status).toBe(200);
  });
});
