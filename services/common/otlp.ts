// The part of OpenTelemetry's protocol (OTLP/HTTP, JSON encoding, opentelemetry-proto 1.x) that our
// services speak: log records with an event name and typed attributes in both directions; spans,
// metrics and lines of logs outwards.
// Names of our own events and attributes (`rl.*`) are listed in docs/telemetry.md.

/** A value of an attribute before encoding. Numbers become doubles, bigints 64-bit integers. */
export type AttributeValue =
  | string
  | number
  | bigint
  | boolean
  | AttributeValue[]
  | { [key: string]: AttributeValue };
export type Attributes = Record<string, AttributeValue | undefined>;

/** One log record: what happened, when, with which attributes. */
export interface LogEvent {
  eventName: string;
  timeUnixNano: bigint;
  attributes: Attributes;
}

type AnyValue = Record<string, unknown>;

/** What a request carries; POST /v1/<signal> takes it. */
export type Signal = keyof typeof envelopes;
const envelopes = {
  logs: ["resourceLogs", "scopeLogs", "logRecords"],
  traces: ["resourceSpans", "scopeSpans", "spans"],
  metrics: ["resourceMetrics", "scopeMetrics", "metrics"],
} as const;

/** JSON body of POST /v1/<signal> for encoded records, each group of one service. */
export function joinEncoded(
  signal: Signal,
  groups: readonly { resource: Attributes; records: readonly string[] }[],
): string {
  const [resources, scopes, items] = envelopes[signal];
  const bodies = groups.map(({ resource, records }) =>
    `{"resource":{"attributes":${JSON.stringify(encodeAttributes(resource))}},` +
    `"${scopes}":[{"scope":{"name":"sdpg"},"${items}":[${records.join(",")}]}]}`
  );
  return `{"${resources}":[${bodies.join(",")}]}`;
}

/** JSON body of POST /v1/logs for records of one service instance. */
export function encodeLogs(resource: Attributes, events: LogEvent[]): string {
  return joinEncoded("logs", [{ resource, records: events.map(encodeEvent) }]);
}

/** One span: a piece of work with a beginning and a length. */
export interface Span {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  /** Milliseconds since 1970. */
  startMs: number;
  seconds: number;
  attributes: Attributes;
}

/** JSON of one span. */
export function encodeSpan({ startMs, seconds, attributes, ...span }: Span): string {
  const start = BigInt(nanoseconds(startMs));
  return JSON.stringify({
    ...span,
    kind: 1, // internal: what is measured is work, not calls
    startTimeUnixNano: String(start),
    endTimeUnixNano: String(start + BigInt(Math.round(seconds * 1e9))),
    attributes: encodeAttributes(attributes),
  });
}

/** JSON of one record, so that a sender can encode when the event happens and join bodies later. */
export function encodeEvent({ eventName, timeUnixNano, attributes }: LogEvent): string {
  return JSON.stringify({
    timeUnixNano: timeUnixNano.toString(),
    eventName,
    attributes: encodeAttributes(attributes),
  });
}

/** One value, or the distributions of one histogram. */
export type Metric =
  & { name: string; unit: string; startMs: number; timeMs: number }
  & (
    | { kind: "gauge" | "sum"; value: number; attributes?: Attributes }
    | {
      kind: "histogram";
      bounds: readonly number[];
      distributions: readonly {
        attributes: Attributes;
        counts: readonly number[];
        count: number;
        sum: number;
        min: number;
        max: number;
      }[];
    }
  );

/** JSON of one metric. Sums and histograms are cumulative since `startMs`. */
export function encodeMetric(metric: Metric): string {
  const { name, unit, startMs, timeMs } = metric;
  const times = { startTimeUnixNano: nanoseconds(startMs), timeUnixNano: nanoseconds(timeMs) };
  const cumulative = { aggregationTemporality: 2 };
  if (metric.kind === "histogram") {
    const dataPoints = metric.distributions.map(({ attributes, counts, count, ...rest }) => ({
      ...times,
      attributes: encodeAttributes(attributes),
      count: String(count),
      bucketCounts: counts.map(String),
      explicitBounds: metric.bounds,
      ...rest,
    }));
    return JSON.stringify({ name, unit, histogram: { ...cumulative, dataPoints } });
  }
  const { attributes = {}, value } = metric;
  const point = { ...times, asDouble: value, attributes: encodeAttributes(attributes) };
  const dataPoints = [point];
  return JSON.stringify(
    metric.kind === "gauge"
      ? { name, unit, gauge: { dataPoints } }
      : { name, unit, sum: { ...cumulative, isMonotonic: true, dataPoints } },
  );
}

/** A line of a service's log. */
export interface LogLine {
  timeMs: number;
  severity: keyof typeof severities;
  body: string;
  traceId?: string;
  spanId?: string;
  attributes: Attributes;
}
export const severities = { debug: 5, info: 9, warn: 13, error: 17 };

/** JSON of one line. */
export function encodeLogLine({ timeMs, severity, body, attributes, ...trace }: LogLine): string {
  return JSON.stringify({
    timeUnixNano: nanoseconds(timeMs),
    severityNumber: severities[severity],
    severityText: severity.toUpperCase(),
    body: { stringValue: body },
    attributes: encodeAttributes(attributes),
    ...trace,
  });
}

/** In parts: a double holds the nanoseconds of today to 256 only. */
function nanoseconds(ms: number): string {
  const whole = BigInt(Math.floor(ms)) * 1_000_000n;
  return (whole + BigInt(Math.round(ms % 1 * 1e6))).toString();
}

function encodeAttributes(attributes: Attributes): { key: string; value: AnyValue }[] {
  const pairs: { key: string; value: AnyValue }[] = [];
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined) pairs.push({ key, value: encodeValue(value) });
  }
  return pairs;
}

function encodeValue(value: AttributeValue): AnyValue {
  switch (typeof value) {
    case "string":
      return { stringValue: value };
    case "boolean":
      return { boolValue: value };
    case "bigint":
      return { intValue: value.toString() };
    case "number":
      // protobuf's JSON has words for what JSON has no number for
      return { doubleValue: Number.isFinite(value) ? value : wordOf(value) };
    default:
      return Array.isArray(value)
        ? { arrayValue: { values: value.map(encodeValue) } }
        : { kvlistValue: { values: encodeAttributes(value) } };
  }
}

const wordOf = (value: number) =>
  Number.isNaN(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";

/** A record with the attributes of the resource it came from. */
export interface DecodedLog extends LogEvent {
  resource: Attributes;
  /** Where the record stands in the request, for error messages. */
  path: string;
}

/** A request that is no valid OTLP: `message` names the place, what was expected and what came. */
export class MalformedOtlp extends Error {
  override name = "MalformedOtlp";
}

/**
 * Records of an ExportLogsServiceRequest in JSON whose event name is `wanted`. Throws MalformedOtlp for
 * anything else.
 */
export function decodeLogs(
  body: unknown,
  wanted: (eventName: unknown) => boolean = () => true,
): DecodedLog[] {
  const logs: DecodedLog[] = [];
  list(field(body, "resourceLogs", "the request"), "resourceLogs").forEach((resourceLog, r) => {
    const at = `resourceLogs[${r}]`;
    const holder = field(resourceLog, "resource", at) ?? {};
    const resource = decodeAttributes(field(holder, "attributes", `${at}.resource`), at);
    list(field(resourceLog, "scopeLogs", at), `${at}.scopeLogs`).forEach((scopeLog, s) => {
      const within = `${at}.scopeLogs[${s}]`;
      list(field(scopeLog, "logRecords", within), `${within}.logRecords`).forEach((record, i) => {
        const path = `${within}.logRecords[${i}]`;
        if (wanted(field(record, "eventName", path))) {
          logs.push({ ...decodeRecord(record, path), resource });
        }
      });
    });
  });
  return logs;
}

function decodeRecord(record: unknown, path: string): LogEvent & { path: string } {
  const eventName = field(record, "eventName", path);
  if (typeof eventName !== "string") {
    throw new MalformedOtlp(`${path}.eventName: expected a string, came ${show(eventName)}`);
  }
  const time = field(record, "timeUnixNano", path);
  if (!isUint64(time)) {
    throw new MalformedOtlp(
      `${path}.timeUnixNano: expected nanoseconds since 1970 as digits, came ${show(time)}`,
    );
  }
  return {
    eventName,
    timeUnixNano: BigInt(time),
    attributes: decodeAttributes(field(record, "attributes", path), path),
    path,
  };
}

function decodeAttributes(value: unknown, path: string): Attributes {
  const attributes: Attributes = {};
  list(value, `${path}.attributes`).forEach((pair, i) => {
    const at = `${path}.attributes[${i}]`;
    const key = field(pair, "key", at);
    if (typeof key !== "string" || key === "") {
      throw new MalformedOtlp(`${at}.key: expected a name, came ${show(key)}`);
    }
    if (Object.hasOwn(attributes, key)) {
      throw new MalformedOtlp(`${at}.key: "${key}" comes twice`);
    }
    // Not `attributes[key] =`: "__proto__" is a name like any other.
    Object.defineProperty(attributes, key, {
      value: decodeValue(field(pair, "value", at), `${at}.value`),
      enumerable: true,
    });
  });
  return attributes;
}

function decodeValue(value: unknown, path: string, depth = 0): AttributeValue {
  if (depth > 8) throw new MalformedOtlp(`${path}: nested more than 8 deep`);
  const entries = typeof value === "object" && value !== null ? Object.entries(value) : [];
  if (entries.length !== 1) {
    throw new MalformedOtlp(`${path}: expected one typed value, came ${show(value)}`);
  }
  const [kind, inner] = entries[0];
  switch (kind) {
    case "stringValue":
      if (typeof inner === "string") return inner;
      break;
    case "boolValue":
      if (typeof inner === "boolean") return inner;
      break;
    case "intValue":
      if (typeof inner === "number" && Number.isSafeInteger(inner)) return BigInt(inner);
      if (typeof inner === "string" && /^-?\d{1,20}$/.test(inner)) return BigInt(inner);
      break;
    case "doubleValue": {
      if (typeof inner === "number") return inner;
      const words: Record<string, number> = { NaN, Infinity, "-Infinity": -Infinity };
      if (typeof inner === "string" && Object.hasOwn(words, inner)) return words[inner];
      break;
    }
    case "arrayValue":
      return list(field(inner, "values", path), `${path}.arrayValue.values`)
        .map((item, i) => decodeValue(item, `${path}[${i}]`, depth + 1));
    case "kvlistValue": {
      const result: { [key: string]: AttributeValue } = {};
      list(field(inner, "values", path), `${path}.kvlistValue.values`).forEach((pair, i) => {
        const at = `${path}.values[${i}]`;
        const key = field(pair, "key", at);
        if (typeof key !== "string" || key === "" || Object.hasOwn(result, key)) {
          throw new MalformedOtlp(`${at}.key: expected a new name, came ${show(key)}`);
        }
        Object.defineProperty(result, key, {
          value: decodeValue(field(pair, "value", at), `${at}.value`, depth + 1),
          enumerable: true,
        });
      });
      return result;
    }
  }
  throw new MalformedOtlp(
    `${path}: expected a typed value such as doubleValue, came ${show(value)}`,
  );
}

function field(holder: unknown, name: string, path: string): unknown {
  if (typeof holder !== "object" || holder === null || Array.isArray(holder)) {
    throw new MalformedOtlp(`${path}: expected an object, came ${show(holder)}`);
  }
  return (holder as Record<string, unknown>)[name];
}

/** Absent lists are empty, as in protobuf. */
function list(value: unknown, path: string): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) {
    throw new MalformedOtlp(`${path}: expected a list, came ${show(value)}`);
  }
  return value;
}

const isUint64 = (value: unknown): value is string | number =>
  (typeof value === "string" && /^\d{1,19}$/.test(value)) ||
  (typeof value === "number" && Number.isSafeInteger(value) && value >= 0);

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
