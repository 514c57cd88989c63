// Bodies of OTLP/HTTP requests (protobuf and JSON) as messages, and the answers to them. The record's
// own events (rl.*) in a JSON request of logs are read by @sdpg/common/otlp.ts, which is what every
// service of a run sends and several times as fast; all else is read here with the protocol's own
// schemas.

import { Buffer } from "node:buffer";
import { fromBinary, fromJson, type JsonValue, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import {
  type ExportTraceServiceRequest,
  ExportTraceServiceRequestSchema,
  ExportTraceServiceResponseSchema,
} from "@proto/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
import {
  type ExportMetricsServiceRequest,
  ExportMetricsServiceRequestSchema,
  ExportMetricsServiceResponseSchema,
} from "@proto/opentelemetry/proto/collector/metrics/v1/metrics_service_pb.ts";
import {
  type ExportLogsServiceRequest,
  ExportLogsServiceRequestSchema,
  ExportLogsServiceResponseSchema,
} from "@proto/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts";
import type { AnyValue, KeyValue } from "@proto/opentelemetry/proto/common/v1/common_pb.ts";
import {
  type Attributes,
  type AttributeValue,
  type DecodedLog,
  decodeLogs,
  MalformedOtlp,
} from "@sdpg/common/otlp.ts";

export type Encoding = "json" | "protobuf";

/** A request for logs: the record's own events, and everybody's log records. */
export interface LogsRequest {
  events: DecodedLog[];
  logs: ExportLogsServiceRequest;
}

/** Names that are events of the record (docs/telemetry.md) and not log records. */
export const isOwnEvent = (eventName: unknown): boolean =>
  typeof eventName === "string" &&
  (eventName.startsWith("rl.") || eventName === "process.resources");

export function decodeTraces(encoding: Encoding, body: Uint8Array): ExportTraceServiceRequest {
  return decoded(() => {
    if (encoding === "protobuf") return fromBinary(ExportTraceServiceRequestSchema, body);
    const request = parseJson(body);
    for (const scope of each(each([request], "resourceSpans"), "scopeSpans")) {
      for (const span of each([scope], "spans")) {
        idsFromHex(span);
        for (const link of each([span], "links")) idsFromHex(link);
      }
    }
    return fromJson(ExportTraceServiceRequestSchema, request, lenient);
  });
}

export function decodeMetrics(encoding: Encoding, body: Uint8Array): ExportMetricsServiceRequest {
  return decoded(() => {
    if (encoding === "protobuf") return fromBinary(ExportMetricsServiceRequestSchema, body);
    const request = parseJson(body);
    for (const scope of each(each([request], "resourceMetrics"), "scopeMetrics")) {
      for (const metric of each([scope], "metrics")) {
        for (const kind of ["gauge", "sum", "histogram", "exponentialHistogram"]) {
          for (const point of each([metric[kind]], "dataPoints")) {
            for (const exemplar of each([point], "exemplars")) idsFromHex(exemplar);
          }
        }
      }
    }
    return fromJson(ExportMetricsServiceRequestSchema, request, lenient);
  });
}

export function decodeLogsRequest(encoding: Encoding, body: Uint8Array): LogsRequest {
  return decoded(() => {
    if (encoding === "protobuf") {
      return splitLogs(fromBinary(ExportLogsServiceRequestSchema, body));
    }
    const request = parseJson(body);
    const events = decodeLogs(request, isOwnEvent);
    let others = 0;
    for (const scope of each(each([request], "resourceLogs"), "scopeLogs")) {
      const records = each([scope], "logRecords").filter(({ eventName }) => !isOwnEvent(eventName));
      records.forEach(idsFromHex);
      others += records.length;
      scope.logRecords = records;
    }
    const logs = fromJson(ExportLogsServiceRequestSchema, others > 0 ? request : {}, lenient);
    return { events, logs };
  });
}

/** Takes the record's own events out of a request. */
function splitLogs(logs: ExportLogsServiceRequest): LogsRequest {
  const events: DecodedLog[] = [];
  logs.resourceLogs.forEach((resourceLogs, r) => {
    resourceLogs.scopeLogs.forEach((scopeLogs, s) => {
      scopeLogs.logRecords = scopeLogs.logRecords.filter((record, i) => {
        if (!isOwnEvent(record.eventName)) return true;
        const path = `resourceLogs[${r}].scopeLogs[${s}].logRecords[${i}]`;
        events.push({
          eventName: record.eventName,
          timeUnixNano: record.timeUnixNano,
          attributes: attributesOf(record.attributes, path),
          resource: attributesOf(resourceLogs.resource?.attributes ?? [], `resourceLogs[${r}]`),
          path,
        });
        return false;
      });
    });
  });
  return { events, logs };
}

function attributesOf(pairs: KeyValue[], path: string): Attributes {
  const attributes: Attributes = {};
  for (const { key, value } of pairs) {
    if (key === "" || Object.hasOwn(attributes, key)) {
      throw new MalformedOtlp(`${path}.attributes: expected a new name, came "${key}"`);
    }
    Object.defineProperty(attributes, key, { value: valueOf(value, path), enumerable: true });
  }
  return attributes;
}

function valueOf(value: AnyValue | undefined, path: string): AttributeValue {
  const inner = value?.value;
  switch (inner?.case) {
    case "stringValue":
    case "boolValue":
    case "intValue":
    case "doubleValue":
      return inner.value;
    case "arrayValue":
      return inner.value.values.map((item) => valueOf(item, path));
    case "kvlistValue":
      return attributesOf(inner.value.values, path) as { [key: string]: AttributeValue };
    default:
      throw new MalformedOtlp(`${path}: expected a typed value, came ${inner?.case ?? "none"}`);
  }
}

// ------------------------------------------------------------------------------------- answers

/** What of a request was not taken, and why (the first reason). */
export interface Rejected {
  count: number;
  reason: string;
}

const responses = {
  traces: [ExportTraceServiceResponseSchema, "rejectedSpans"],
  metrics: [ExportMetricsServiceResponseSchema, "rejectedDataPoints"],
  logs: [ExportLogsServiceResponseSchema, "rejectedLogRecords"],
} as const;
export type Signal = keyof typeof responses;

/** Body of a 200: without partial_success everything was taken. */
export function exportResponse(
  signal: Signal,
  encoding: Encoding,
  rejected: Rejected | undefined,
): Uint8Array<ArrayBuffer> {
  const [schema, field] = responses[signal];
  const body: JsonValue = rejected === undefined || rejected.count === 0 ? {} : {
    partialSuccess: { [field]: String(rejected.count), errorMessage: rejected.reason },
  };
  if (encoding === "json") return new TextEncoder().encode(JSON.stringify(body));
  return toBinary(schema, fromJson(schema, body)) as Uint8Array<ArrayBuffer>;
}

/** Body of an error: a google.rpc.Status {int32 code = 1; string message = 2}. */
export function statusBody(
  encoding: Encoding,
  code: number,
  message: string,
): Uint8Array<ArrayBuffer> {
  if (encoding === "json") return new TextEncoder().encode(JSON.stringify({ code, message }));
  return new BinaryWriter().uint32(1 << 3).int32(code).uint32(2 << 3 | 2).string(message)
    .finish() as Uint8Array<ArrayBuffer>;
}

// ------------------------------------------------------------------------------------ plumbing

const lenient = { ignoreUnknownFields: true };

/** What the decoders throw about a body is the sender's fault: MalformedOtlp with the first line. */
function decoded<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (error instanceof MalformedOtlp) throw error;
    const line = (error as Error).message.split("\n")[0].slice(0, 300);
    throw new MalformedOtlp(`The request cannot be read as OTLP: ${line}`, { cause: error });
  }
}

type JsonObject = Record<string, JsonValue>;

function parseJson(body: Uint8Array): JsonObject {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    throw new MalformedOtlp(`The request is no JSON: ${(error as Error).message}`);
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new MalformedOtlp("the request: expected an object");
  }
  return parsed as JsonObject;
}

/** Objects in the lists `name` of the holders; what has another shape is left to the schema's check. */
function each(holders: JsonValue[], name: string): JsonObject[] {
  return holders.flatMap((holder) => {
    const list = (holder as JsonObject | null | undefined)?.[name];
    if (!Array.isArray(list)) return [];
    return list.filter((item) => typeof item === "object" && item !== null) as JsonObject[];
  });
}

/** OTLP writes ids in hex where protobuf's JSON has base64. One that is no hex keeps a wrong length. */
function idsFromHex(holder: JsonObject): void {
  for (const name of ["traceId", "spanId", "parentSpanId"]) {
    const text = holder[name];
    if (typeof text !== "string" || text === "") continue;
    const hex = /^([0-9a-fA-F]{2})*$/.test(text) ? text : "00";
    holder[name] = Buffer.from(hex, "hex").toString("base64");
  }
}
