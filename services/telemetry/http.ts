// The telemetry service's HTTP side: OTLP logs in (POST /v1/logs), ClickHouse's HTTP interface out
// (GET or POST /?query=…, read-only), /ping, /health and the page (/ui/).

import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import { deflate, gzip, zstdCompress } from "node:zlib";
import { MalformedOtlp } from "@sdpg/common/otlp.ts";
import type { Logger } from "@sdpg/common/log.ts";
import { parseAddress } from "@sdpg/common/service.ts";
import { type Credentials, credentialsFor, hostAllowed, mayEnter } from "./access.ts";
import { checkReadOnly } from "./guard.ts";
import type { Blocks } from "./blocks.ts";
import { putIterations, putJsonSpans, putSpans } from "./hot_otlp.ts";
import { Busy, type Ingest, type Taken } from "./ingest.ts";
import {
  decodeLogsRequest,
  decodeMetrics,
  decodeTraces,
  type Encoding,
  exportResponse,
  type Signal,
  statusBody,
} from "./otlp.ts";
import { putTraces, rowsOfLogs, rowsOfMetrics } from "./otel_rows.ts";
import type { Page } from "./page.ts";
import { rowsOf } from "./rows.ts";
import { nativeFor } from "./native.ts";
import { settingsOf } from "./settings.ts";
import { databaseName, EngineError, type Store } from "./store.ts";

export interface HttpParts {
  store: Store;
  ingest: Ingest;
  /** Table functions the engine knows, lower case. */
  tableFunctions: ReadonlySet<string>;
  /** Settings the engine knows. */
  settings: ReadonlySet<string>;
  /** Of DateTime columns without one of their own. */
  timezone: string;
  page: Page;
  log: Logger;
  /** Milliseconds since 1970. */
  now: () => number;
}

const limits = { otlpBytes: 16 << 20, queryBytes: 1 << 20, runningQuestions: 8 };

/** Serves until `stop`; port 0 takes a free one. Rejects with one line when the address is in use. */
export function serveHttp(
  listen: string,
  parts: HttpParts,
): { address: string; stop(): Promise<void> } {
  const { host, port } = parseAddress(listen);
  const handle = handler(parts, host, credentialsFor(host, Deno.env));
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = Deno.serve({ hostname: host, port, onListen: () => {} }, handle);
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      throw new Error(
        `Cannot listen on ${listen}: the address is in use; stop the other process or choose ` +
          `another port with --listen`,
      );
    }
    throw new Error(
      `Cannot listen on ${listen}: ${error instanceof Error ? error.message : error}; choose ` +
        `another address with --listen`,
    );
  }
  const shown = host.includes(":") ? `[${host}]` : host;
  return { address: `${shown}:${server.addr.port}`, stop: () => server.shutdown() };
}

function handler(
  parts: HttpParts,
  host: string,
  credentials: Credentials | undefined,
): (request: Request) => Promise<Response> {
  let running = 0; // questions the engine works on
  return async (request) => {
    const url = new URL(request.url);
    try {
      if (!hostAllowed(request, host)) return text(403, "This name is not served here");
      if (url.pathname === "/ping") return text(200, "Ok.\n");
      if (!mayEnter(request, url, credentials)) {
        throw new EngineError(
          516,
          "Code: 516. DB::Exception: Authentication failed: password is incorrect, or there is no " +
            "user with such name. (AUTHENTICATION_FAILED)",
        );
      }
      if (Object.hasOwn(signals, url.pathname)) {
        if (request.method !== "POST") return methodNotAllowed("POST");
        return await takeOtlp(request, signals[url.pathname], parts);
      }
      if (url.pathname === "/health") {
        const { counts, waitingRows, spooledRows, away } = parts.ingest;
        const status = away ? "spooling" : "serving";
        return json(200, { status, waitingRows, spooledRows, ...counts });
      }
      if (/^\/ui(\/|$)/.test(url.pathname)) return await parts.page(request, url);
      if (url.pathname !== "/") return text(404, `There is no ${url.pathname} here\n`);
      if (request.method !== "GET" && request.method !== "POST") {
        return methodNotAllowed("GET, POST");
      }
      if (running >= limits.runningQuestions) {
        throw new EngineError(
          202,
          `Code: 202. DB::Exception: Too many simultaneous queries. Maximum: ` +
            `${limits.runningQuestions}. (TOO_MANY_SIMULTANEOUS_QUERIES)`,
        );
      }
      running++;
      try {
        return await answer(request, url, parts);
      } finally {
        running--;
      }
    } catch (error) {
      if (error instanceof EngineError) return engineError(error, parts.store.version);
      if (error instanceof TooLarge) return text(413, error.message + "\n");
      if (error instanceof MalformedOtlp) return text(400, error.message + "\n");
      parts.log.error("Unexpected error in a request", {
        path: url.pathname,
        error: error instanceof Error ? error.stack : String(error),
      });
      return text(500, "Internal error; the telemetry service's log has the cause\n");
    }
  };
}

// ------------------------------------------------------------------------------------------ OTLP

const signals: Record<string, Signal> = {
  "/v1/traces": "traces",
  "/v1/metrics": "metrics",
  "/v1/logs": "logs",
};

async function takeOtlp(
  request: Request,
  signal: Signal,
  { ingest, log, now }: HttpParts,
): Promise<Response> {
  const type = request.headers.get("content-type")?.split(";")[0].trim().toLowerCase();
  const encoding = type === "application/json"
    ? "json"
    : type === "application/x-protobuf"
    ? "protobuf"
    : undefined;
  if (encoding === undefined) {
    return otlpStatus(
      "json",
      415,
      3,
      `Expected content-type application/x-protobuf or application/json, came ${type ?? "none"}`,
    );
  }
  const compression = request.headers.get("content-encoding") ?? "identity";
  if (compression !== "identity" && compression !== "gzip") {
    return otlpStatus(
      encoding,
      415,
      3,
      `Expected content-encoding gzip or identity, came ${compression}`,
    );
  }
  try {
    const body = await bodyBytes(request, limits.otlpBytes, compression === "gzip");
    const id = createHash("sha256").update(signal).update(body).digest("hex").slice(0, 32);
    const rejected = await ingest.add(
      (blocks) => readOtlp(signal, encoding, body, now(), blocks),
      id,
    );
    return new Response(exportResponse(signal, encoding, rejected), {
      headers: { "content-type": mediaType(encoding) },
    });
  } catch (error) {
    if (error instanceof MalformedOtlp) return otlpStatus(encoding, 400, 3, error.message);
    if (error instanceof TooLarge) throw error;
    const later = { "retry-after": "1" };
    if (error instanceof Busy) return otlpStatus(encoding, 429, 8, error.message, later);
    log.error("Cannot store rows", {
      error: error instanceof Error ? error.message : String(error),
    });
    return otlpStatus(
      encoding,
      503,
      14,
      "The store did not take the rows; send them again",
      later,
    );
  }
}

function readOtlp(
  signal: Signal,
  encoding: Encoding,
  body: Uint8Array,
  nowMs: number,
  blocks: Blocks,
): Taken {
  const binary = encoding === "protobuf";
  switch (signal) {
    case "traces": {
      const put = binary ? putSpans : putJsonSpans;
      if (put(body, blocks.otel_traces, nowMs)) return {};
      const request = decodeTraces(encoding, body);
      return { rejected: putTraces(request, nowMs, blocks.otel_traces) };
    }
    case "metrics": {
      const { rows: otel, rejected } = rowsOfMetrics(decodeMetrics(encoding, body), nowMs);
      return { otel, rejected };
    }
    case "logs": {
      if (binary && putIterations(body, blocks.scalars)) return {};
      const { events, logs } = decodeLogsRequest(encoding, body);
      const { rows: otel, rejected } = rowsOfLogs(logs, nowMs);
      return { rows: rowsOf(events), otel, rejected };
    }
  }
}

const mediaType = (encoding: Encoding) =>
  encoding === "json" ? "application/json" : "application/x-protobuf";

/** OTLP's error body is a google.rpc.Status. */
function otlpStatus(
  encoding: Encoding,
  http: number,
  code: number,
  message: string,
  headers: Record<string, string> = {},
): Response {
  return new Response(statusBody(encoding, code, message), {
    status: http,
    headers: { "content-type": mediaType(encoding), ...headers },
  });
}

// ----------------------------------------------------------------------------------- ClickHouse

/** Parameters of the interface that are no settings. */
const ownParameters = new Set([
  "query",
  "database",
  "default_format",
  "user",
  "password",
  "compress",
]);

async function answer(request: Request, url: URL, parts: HttpParts): Promise<Response> {
  const startMs = performance.now();
  const { store } = parts;
  const asked = url.searchParams;
  let sql = asked.get("query") ?? "";
  if (request.method === "POST") {
    const packed = request.headers.get("content-encoding") ?? "identity";
    if (packed !== "identity" && packed !== "gzip") {
      throw exception(89, "UNKNOWN_COMPRESSION_METHOD", `Unknown content-encoding ${packed}`);
    }
    const body = await bodyText(request, limits.queryBytes, packed === "gzip");
    sql += sql && body ? "\n" + body : body;
  }
  const format = asked.get("default_format") ?? request.headers.get("x-clickhouse-format") ??
    "TabSeparated";
  const database = asked.get("database") || request.headers.get("x-clickhouse-database") ||
    store.database;
  if (![store.database, databaseName, "default"].includes(database)) {
    throw exception(
      81,
      "UNKNOWN_DATABASE",
      `Database ${database} does not exist: expected ${store.database}`,
    );
  }
  if (!/^\w+$/.test(format)) throw exception(73, "UNKNOWN_FORMAT", `Unknown format ${format}`);
  if (asked.get("compress") === "1") {
    throw exception(
      48,
      "NOT_IMPLEMENTED",
      "compress=1 is not supported: ask with Accept-Encoding and enable_http_compression=1",
    );
  }
  const parameters: Record<string, string> = {};
  const settings: [string, string][] = [];
  for (const [name, value] of asked) {
    if (name.startsWith("param_")) parameters[name.slice("param_".length)] = value;
    else if (!ownParameters.has(name)) settings.push([name, value]);
  }
  const checked = checkReadOnly(sql, parts.tableFunctions);
  await parts.ingest.settled();
  const { bytes, rowsRead, bytesRead, elapsedS } = await store.ask({
    sql: checked.sql,
    format,
    parameters,
    settings: settingsOf(settings, parts.settings),
  });
  const used = checked.format ?? format;
  const body = used === "Native"
    ? nativeAnswer(asked.get("client_protocol_version"), bytes)
    : bytes;
  const encoding = asked.get("enable_http_compression") === "1"
    ? encodingFor(request.headers.get("accept-encoding") ?? "")
    : undefined;
  return new Response(
    (encoding ? await encodings[encoding](body) : body) as Uint8Array<ArrayBuffer>,
    {
      headers: {
        "content-type": contentType(used),
        ...(encoding ? { "content-encoding": encoding, vary: "Accept-Encoding" } : {}),
        "x-clickhouse-format": used,
        "x-clickhouse-query-id": asked.get("query_id") || crypto.randomUUID(),
        "x-clickhouse-timezone": parts.timezone,
        "x-clickhouse-server-display-name": "sdpg",
        "x-clickhouse-summary": JSON.stringify({
          read_rows: String(rowsRead),
          read_bytes: String(bytesRead),
          written_rows: "0",
          written_bytes: "0",
          total_rows_to_read: String(rowsRead),
          result_bytes: String(bytes.length),
          elapsed_ns: String(Math.round(elapsedS * 1e9)),
          total_ns: String(Math.round((performance.now() - startMs) * 1e6)),
        }),
      },
    },
  );
}

/** Native for the protocol version a client names; without one, as the engine writes it. */
function nativeAnswer(version: string | null, bytes: Uint8Array): Uint8Array {
  if (version === null) return bytes;
  try {
    return nativeFor(Number(version) || 0, bytes);
  } catch (error) {
    throw exception(48, "NOT_IMPLEMENTED", (error as Error).message);
  }
}

/** Content-Encodings of answers, in the order in which they are chosen. */
const encodings: Record<string, (bytes: Uint8Array) => Promise<Uint8Array>> = {
  zstd: promisify(zstdCompress),
  // LZ4 frames; the package is loaded when the first client asks for them.
  lz4: async (bytes) => await (await import("lz4-napi")).compressFrame(bytes),
  gzip: promisify(gzip),
  deflate: promisify(deflate),
};

/** The first of ours that the client takes (RFC 9110: a weight of 0 excludes). */
function encodingFor(accepted: string): string | undefined {
  const names = accepted.toLowerCase().split(",").map((item) => item.trim())
    .filter((item) => !/;\s*q=0(\.0*)?$/.test(item)).map((item) => item.split(";")[0].trim());
  return Object.keys(encodings).find((name) => names.includes(name));
}

const exception = (code: number, name: string, message: string) =>
  new EngineError(code, `Code: ${code}. DB::Exception: ${message}. (${name})`);

function engineError({ code, message }: EngineError, version: string): Response {
  const body = /\(version /.test(message) ? message : `${message} (version ${version})`;
  return text(httpStatus(code), body.trimEnd() + "\n", {
    "x-clickhouse-exception-code": String(code),
  });
}

/** ClickHouse's own mapping of error codes to statuses, as far as a reader can meet them. */
function httpStatus(code: number): number {
  const groups: [number, number[]][] = [
    // syntax, types, values and arguments
    [400, [6, 26, 27, 36, 38, 41, 42, 43, 53, 62, 69, 70, 72, 117, 153, 158, 306, 407, 456, 457]],
    // table, function, identifier, type, storage, aggregate function, format, database, setting
    [404, [46, 47, 50, 56, 60, 63, 73, 81, 115, 511]],
    [403, [291, 497, 516]],
    [408, [159]],
    [413, [55, 396]],
    [415, [89]],
    [501, [48]],
    [503, [202, 209]],
  ];
  return groups.find(([, codes]) => codes.includes(code))?.[0] ?? 500;
}

function contentType(format: string): string {
  if (/^JSON(EachRow|CompactEachRow|StringsEachRow)/.test(format)) {
    return "application/x-ndjson; charset=UTF-8";
  }
  if (/^JSON/.test(format)) return "application/json; charset=UTF-8";
  if (/^CSV/.test(format)) return "text/csv; charset=UTF-8; header=" + present(format);
  if (/^(TSV|TabSeparated)/.test(format)) {
    return "text/tab-separated-values; charset=UTF-8";
  }
  if (/^(Native|RowBinary|Parquet|Arrow|ORC|Avro|MsgPack|Protobuf)/.test(format)) {
    return "application/octet-stream";
  }
  return "text/plain; charset=UTF-8";
}

const present = (format: string) => /WithNames/.test(format) ? "present" : "absent";

// -------------------------------------------------------------------------------------- plumbing

class TooLarge extends Error {}

/** Body, unpacked when it is gzip; refused as soon as it passes the limit, packed or not. */
async function bodyBytes(request: Request, maxBytes: number, gzip = false): Promise<Uint8Array> {
  const tooLarge = () => new TooLarge(`The request is too large: at most ${maxBytes} bytes`);
  const length = Number(request.headers.get("content-length") ?? NaN);
  if (length > maxBytes) throw tooLarge();
  if (length <= maxBytes && !gzip && !request.headers.has("transfer-encoding")) {
    return await request.bytes(); // no more than it says
  }
  const stream = gzip ? request.body?.pipeThrough(new DecompressionStream("gzip")) : request.body;
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of stream ?? []) {
      bytes += chunk.length;
      if (bytes > maxBytes) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (error) {
    if (gzip && error instanceof TypeError) throw new MalformedOtlp("The request is no gzip");
    throw error;
  }
  return chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
}

const bodyText = async (request: Request, maxBytes: number, gzip: boolean): Promise<string> =>
  new TextDecoder().decode(await bodyBytes(request, maxBytes, gzip));

const text = (code: number, body: string, headers: Record<string, string> = {}) =>
  new Response(body, {
    status: code,
    headers: { "content-type": "text/plain; charset=UTF-8", ...headers },
  });

const json = (code: number, body: unknown) => Response.json(body, { status: code });

const methodNotAllowed = (allowed: string) =>
  text(405, `Expected ${allowed}\n`, { allow: allowed });
