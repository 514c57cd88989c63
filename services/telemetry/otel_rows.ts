// From OTLP messages to rows of the otel_* tables (migrations/002): spans into the columns of a block,
// logs and metrics as lines of JSONCompactEachRow. A span, data point or log record that cannot be kept is
// left out, counted, and its reason told: the others of the request are stored.

import { Buffer } from "node:buffer";
import type { ExportLogsServiceRequest } from "@proto/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts";
import type { ExportMetricsServiceRequest } from "@proto/opentelemetry/proto/collector/metrics/v1/metrics_service_pb.ts";
import type { ExportTraceServiceRequest } from "@proto/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
import type {
  AnyValue,
  InstrumentationScope,
  KeyValue,
} from "@proto/opentelemetry/proto/common/v1/common_pb.ts";
import type { Resource } from "@proto/opentelemetry/proto/resource/v1/resource_pb.ts";
import type { Span } from "@proto/opentelemetry/proto/trace/v1/trace_pb.ts";
import type { LogRecord } from "@proto/opentelemetry/proto/logs/v1/logs_pb.ts";
import type {
  Exemplar,
  Metric,
  NumberDataPoint,
} from "@proto/opentelemetry/proto/metrics/v1/metrics_pb.ts";
import { type SpanBlock, spanKinds, statusCodes } from "./blocks.ts";
import type { Maps } from "./columns.ts";
import type { Rejected } from "./otlp.ts";
import { floatCell } from "./store.ts";

const resourceColumns = ["ServiceName", "ResourceAttributes", "ScopeName", "ScopeVersion"] as const;
const metricColumns = [
  ...resourceColumns,
  "ResourceSchemaUrl",
  "ScopeSchemaUrl",
  "ScopeAttributes",
  "ScopeDroppedAttrCount",
  "MetricName",
  "MetricDescription",
  "MetricUnit",
  "Attributes",
  "StartTimeUnix",
  "TimeUnix",
  "Flags",
] as const;
const exemplarColumns = [
  "Exemplars.FilteredAttributes",
  "Exemplars.TimeUnix",
  "Exemplars.Value",
  "Exemplars.SpanId",
  "Exemplars.TraceId",
] as const;

/** Columns in the order of a line's cells. */
export const otelColumns = {
  otel_traces: [
    ...resourceColumns,
    "Timestamp",
    "TraceId",
    "SpanId",
    "ParentSpanId",
    "TraceState",
    "SpanName",
    "SpanKind",
    "SpanAttributes",
    "Duration",
    "StatusCode",
    "StatusMessage",
    "Events.Timestamp",
    "Events.Name",
    "Events.Attributes",
    "Links.TraceId",
    "Links.SpanId",
    "Links.TraceState",
    "Links.Attributes",
  ],
  otel_logs: [
    ...resourceColumns,
    "ResourceSchemaUrl",
    "ScopeSchemaUrl",
    "ScopeAttributes",
    "Timestamp",
    "TraceId",
    "SpanId",
    "TraceFlags",
    "SeverityText",
    "SeverityNumber",
    "Body",
    "LogAttributes",
    "EventName",
  ],
  otel_metrics_gauge: [...metricColumns, "Value", ...exemplarColumns],
  otel_metrics_sum: [
    ...metricColumns,
    "Value",
    ...exemplarColumns,
    "AggregationTemporality",
    "IsMonotonic",
  ],
  otel_metrics_histogram: [
    ...metricColumns,
    "Count",
    "Sum",
    "BucketCounts",
    "ExplicitBounds",
    ...exemplarColumns,
    "Min",
    "Max",
    "AggregationTemporality",
  ],
  otel_metrics_exponential_histogram: [
    ...metricColumns,
    "Count",
    "Sum",
    "Scale",
    "ZeroCount",
    "PositiveOffset",
    "PositiveBucketCounts",
    "NegativeOffset",
    "NegativeBucketCounts",
    ...exemplarColumns,
    "Min",
    "Max",
    "AggregationTemporality",
  ],
  otel_metrics_summary: [
    ...metricColumns,
    "Count",
    "Sum",
    "ValueAtQuantiles.Quantile",
    "ValueAtQuantiles.Value",
  ],
} as const;

export type OtelTable = keyof typeof otelColumns;
export const otelTables = Object.keys(otelColumns) as OtelTable[];

/** Lines by table; tables without any are absent. */
export type OtelRows = Partial<Record<OtelTable, string[]>>;

export interface OtelRequest {
  rows: OtelRows;
  rejected: Rejected;
}

/** Days for which the tables of migrations/002 keep their rows. */
export const keptDays = { traces: 30, logs: 30, metrics: 90 };

/** Puts the spans of a request into a block. */
export function putTraces(
  request: ExportTraceServiceRequest,
  nowMs: number,
  block: SpanBlock,
): Rejected {
  const kept = keptTimes(nowMs, keptDays.traces);
  const rejected = noneRejected();
  for (const { resource, scopeSpans } of request.resourceSpans) {
    const attributes = mapOf(resource?.attributes ?? []);
    for (const { scope, spans } of scopeSpans) {
      for (const span of spans) {
        const reason = wrongSpan(span) ?? kept.wrong(span.startTimeUnixNano);
        if (reason !== undefined) {
          reject(rejected, `span "${short(span.name)}": ${reason}`);
          continue;
        }
        block.service.putText(attributes["service.name"] ?? "");
        putMap(block.resource, attributes);
        block.scopeName.putText(scope?.name ?? "");
        block.scopeVersion.putText(scope?.version ?? "");
        putSpan(block, span);
      }
    }
  }
  return rejected;
}

function wrongSpan(span: Span): string | undefined {
  return wrongId("trace id", span.traceId, 16) ?? wrongId("span id", span.spanId, 8) ??
    wrongOptionalId("parent span id", span.parentSpanId, 8) ??
    (span.endTimeUnixNano < span.startTimeUnixNano ? "it ends before it starts" : undefined);
}

function putSpan(block: SpanBlock, span: Span): void {
  block.time.putBigint(nanoseconds(span.startTimeUnixNano));
  block.traceId.putText(hex(span.traceId));
  block.spanId.putText(hex(span.spanId));
  block.parentSpanId.putText(hex(span.parentSpanId));
  block.traceState.putText(span.traceState);
  block.name.putText(span.name);
  block.kind.putText(spanKinds[span.kind] ?? spanKinds[0]);
  putMap(block.attributes, mapOf(span.attributes));
  block.duration.putBigint(span.endTimeUnixNano - span.startTimeUnixNano);
  block.status.putText(statusCodes[span.status?.code ?? 0] ?? statusCodes[0]);
  block.statusMessage.putText(span.status?.message ?? "");
  for (const { timeUnixNano, name, attributes } of span.events) {
    block.eventTime.items.putBigint(nanoseconds(timeUnixNano));
    block.eventName.items.putText(name);
    putMap(block.eventAttributes.items, mapOf(attributes));
  }
  for (const { traceId, spanId, traceState, attributes } of span.links) {
    block.linkTraceId.items.putText(hex(traceId));
    block.linkSpanId.items.putText(hex(spanId));
    block.linkTraceState.items.putText(traceState);
    putMap(block.linkAttributes.items, mapOf(attributes));
  }
  block.endLists();
}

function putMap(column: Maps, pairs: Record<string, string>): void {
  for (const key in pairs) {
    column.keys.putText(key);
    column.values.putText(pairs[key]);
  }
  column.end();
}

/** A record without any time gets that of its arrival. */
export function rowsOfLogs(request: ExportLogsServiceRequest, nowMs: number): OtelRequest {
  const lines: string[] = [];
  const kept = keptTimes(nowMs, keptDays.logs);
  const rejected = noneRejected();
  for (const { resource, scopeLogs, schemaUrl } of request.resourceLogs) {
    for (const { scope, logRecords, schemaUrl: scopeSchemaUrl } of scopeLogs) {
      const head = `${resourceHead(resource, scope)},${
        cells([schemaUrl, scopeSchemaUrl, mapOf(scope?.attributes ?? [])])
      }`;
      for (const record of logRecords) {
        const time = record.timeUnixNano || record.observedTimeUnixNano ||
          BigInt(nowMs) * 1_000_000n;
        const reason = wrongLog(record) ?? kept.wrong(time);
        if (reason !== undefined) reject(rejected, `log record: ${reason}`);
        else lines.push(`[${head},${logCells(record, time)}]`);
      }
    }
  }
  return { rows: lines.length > 0 ? { otel_logs: lines } : {}, rejected };
}

function wrongLog(record: LogRecord): string | undefined {
  const { severityNumber } = record;
  return wrongOptionalId("trace id", record.traceId, 16) ??
    wrongOptionalId("span id", record.spanId, 8) ??
    (severityNumber < 0 || severityNumber > 24
      ? `expected a severity number from 0 to 24, came ${severityNumber}`
      : undefined);
}

function logCells(record: LogRecord, time: bigint): string {
  return cells([
    dateTime(time),
    hex(record.traceId),
    hex(record.spanId),
    record.flags & 0xff,
    record.severityText,
    record.severityNumber,
    textOf(record.body),
    mapOf(record.attributes),
    record.eventName,
  ]);
}

export function rowsOfMetrics(request: ExportMetricsServiceRequest, nowMs: number): OtelRequest {
  const rows: OtelRows = {};
  const kept = keptTimes(nowMs, keptDays.metrics);
  const rejected = noneRejected();
  for (const { resource, scopeMetrics, schemaUrl } of request.resourceMetrics) {
    for (const { scope, metrics, schemaUrl: scopeSchemaUrl } of scopeMetrics) {
      const head = `${resourceHead(resource, scope)},${
        cells([
          schemaUrl,
          scopeSchemaUrl,
          mapOf(scope?.attributes ?? []),
          scope?.droppedAttributesCount ?? 0,
        ])
      }`;
      for (const metric of metrics) {
        const name = cells([metric.name, metric.description, metric.unit]);
        for (const point of pointsOf(metric)) {
          const { attributes, startTimeUnixNano: start, timeUnixNano: time, flags } = point.common;
          const reason = point.wrong ?? kept.wrong(time) ??
            (start > time ? "it starts after its time" : undefined);
          if (reason !== undefined) {
            reject(rejected, `metric "${short(metric.name)}": ${reason}`);
          } else {
            const common = cells([mapOf(attributes), dateTime(start), dateTime(time), flags]);
            (rows[point.table] ??= []).push(
              `[${head},${name},${common},${cells(point.cells())}]`,
            );
          }
        }
      }
    }
  }
  return { rows, rejected };
}

interface Point {
  table: OtelTable;
  common: {
    attributes: KeyValue[];
    startTimeUnixNano: bigint;
    timeUnixNano: bigint;
    flags: number;
  };
  /** Reason why it cannot be kept. */
  wrong?: string;
  cells(): unknown[];
}

/** The data points of a metric, whatever its kind. One without data counts as one bad point. */
function pointsOf({ data }: Metric): Point[] {
  switch (data.case) {
    case "gauge":
      return data.value.dataPoints.map((common) => ({
        table: "otel_metrics_gauge",
        common,
        cells: () => [numberOf(common), ...exemplarCells(common.exemplars)],
      }));
    case "sum": {
      const { dataPoints, aggregationTemporality, isMonotonic } = data.value;
      return dataPoints.map((common) => ({
        table: "otel_metrics_sum",
        common,
        cells: () => [
          numberOf(common),
          ...exemplarCells(common.exemplars),
          aggregationTemporality,
          isMonotonic,
        ],
      }));
    }
    case "histogram": {
      const { dataPoints, aggregationTemporality } = data.value;
      return dataPoints.map((common) => {
        const { bucketCounts, explicitBounds, count, sum, min, max, exemplars } = common;
        const fits = bucketCounts.length === explicitBounds.length + 1 ||
          (bucketCounts.length === 0 && explicitBounds.length === 0);
        return {
          table: "otel_metrics_histogram",
          common,
          wrong: fits
            ? undefined
            : `expected a bucket more than bounds, came ${bucketCounts.length} and ${explicitBounds.length}`,
          cells: () => [
            String(count),
            floatCell(sum ?? 0),
            bucketCounts.map(String),
            explicitBounds.map(floatCell),
            ...exemplarCells(exemplars),
            floatCell(min ?? 0),
            floatCell(max ?? 0),
            aggregationTemporality,
          ],
        };
      });
    }
    case "exponentialHistogram": {
      const { dataPoints, aggregationTemporality } = data.value;
      return dataPoints.map((common) => ({
        table: "otel_metrics_exponential_histogram",
        common,
        cells: () => [
          String(common.count),
          floatCell(common.sum ?? 0),
          common.scale,
          String(common.zeroCount),
          common.positive?.offset ?? 0,
          (common.positive?.bucketCounts ?? []).map(String),
          common.negative?.offset ?? 0,
          (common.negative?.bucketCounts ?? []).map(String),
          ...exemplarCells(common.exemplars),
          floatCell(common.min ?? 0),
          floatCell(common.max ?? 0),
          aggregationTemporality,
        ],
      }));
    }
    case "summary":
      return data.value.dataPoints.map((common) => ({
        table: "otel_metrics_summary",
        common,
        cells: () => [
          String(common.count),
          floatCell(common.sum),
          common.quantileValues.map(({ quantile }) => floatCell(quantile)),
          common.quantileValues.map(({ value }) => floatCell(value)),
        ],
      }));
    default:
      return [{
        table: "otel_metrics_gauge",
        common: { attributes: [], startTimeUnixNano: 0n, timeUnixNano: 0n, flags: 0 },
        wrong: "expected gauge, sum, histogram, exponentialHistogram or summary, came none",
        cells: () => [],
      }];
  }
}

/** A point may be there to say that there is no value (its flags tell): 0 then, as the exporter has it. */
function numberOf({ value }: NumberDataPoint | Exemplar): unknown {
  return floatCell(Number(value.value ?? 0));
}

function exemplarCells(exemplars: Exemplar[]): unknown[] {
  return [
    exemplars.map(({ filteredAttributes }) => mapOf(filteredAttributes)),
    exemplars.map(({ timeUnixNano }) => dateTime(timeUnixNano)),
    exemplars.map(numberOf),
    exemplars.map(({ spanId }) => hex(spanId)),
    exemplars.map(({ traceId }) => hex(traceId)),
  ];
}

// --------------------------------------------------------------------------------------- cells

/** JSON of the cells without the brackets, so that what many rows share is written once. */
const cells = (values: unknown[]): string => JSON.stringify(values).slice(1, -1);

/** The first four columns of every table. */
function resourceHead(
  resource: Resource | undefined,
  scope: InstrumentationScope | undefined,
): string {
  const attributes = mapOf(resource?.attributes ?? []);
  return cells([
    attributes["service.name"] ?? "",
    attributes,
    scope?.name ?? "",
    scope?.version ?? "",
  ]);
}

function mapOf(pairs: KeyValue[]): Record<string, string> {
  const map: Record<string, string> = Object.create(null); // "__proto__" is a name like any other
  for (const { key, value } of pairs) map[key] = textOf(value);
  return map;
}

/** Every value is a text in these tables; lists and maps are JSON, bytes base64. */
function textOf(value: AnyValue | undefined): string {
  const plain = plainOf(value);
  return typeof plain === "string" ? plain : plain === null ? "" : JSON.stringify(plain);
}

function plainOf(value: AnyValue | undefined): unknown {
  const inner = value?.value;
  switch (inner?.case) {
    case "stringValue":
    case "boolValue":
      return inner.value;
    case "doubleValue":
      return Number.isFinite(inner.value) ? inner.value : String(inner.value);
    case "intValue":
      return Number.isSafeInteger(Number(inner.value)) ? Number(inner.value) : String(inner.value);
    case "bytesValue":
      return Buffer.from(inner.value).toString("base64");
    case "arrayValue":
      return inner.value.values.map(plainOf);
    case "kvlistValue":
      return Object.fromEntries(inner.value.values.map(({ key, value }) => [key, plainOf(value)]));
    default:
      return null;
  }
}

const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");

/** What a DateTime64(9) cannot hold becomes 0. */
const nanoseconds = (ns: bigint): bigint => ns < 1n << 63n ? ns : 0n;

/**
 * Nanoseconds since 1970 as ClickHouse reads a DateTime64(9): seconds with ten digits, or it would look
 * for a year in front.
 */
function dateTime(ns: bigint): string {
  const text = nanoseconds(ns).toString().padStart(19, "0");
  return `${text.slice(0, -9)}.${text.slice(-9)}`;
}

// ------------------------------------------------------------------------------------ refusals

const noneRejected = (): Rejected => ({ count: 0, reason: "" });

function reject(rejected: Rejected, reason: string): void {
  if (rejected.count++ === 0) rejected.reason = reason;
}

/**
 * Times that can be kept: not older than the table keeps them, at most a day ahead. It bounds the days,
 * which are the tables' partitions, that one insert can touch.
 */
function keptTimes(nowMs: number, days: number): { wrong(ns: bigint): string | undefined } {
  const earliest = BigInt(nowMs - days * 86_400_000) * 1_000_000n;
  const latest = BigInt(nowMs + 86_400_000) * 1_000_000n;
  return {
    wrong(ns) {
      if (ns >= earliest && ns <= latest) return undefined;
      return `expected a time in the last ${days} days or at most one day ahead, came ${ns} ns`;
    },
  };
}

function wrongId(what: string, id: Uint8Array, bytes: number): string | undefined {
  if (id.length !== bytes) return `expected a ${what} of ${bytes} bytes, came ${id.length}`;
  return id.every((byte) => byte === 0) ? `expected a ${what} that is not all zero` : undefined;
}

const wrongOptionalId = (what: string, id: Uint8Array, bytes: number): string | undefined =>
  id.length === 0 || id.length === bytes
    ? undefined
    : `expected a ${what} of ${bytes} bytes or none, came ${id.length}`;

const short = (name: string): string => name.length > 60 ? `${name.slice(0, 60)}…` : name;
