// What ./sdpg bench telemetry sends: OTLP requests that are encoded once and then changed in place, so
// that the sender costs little of the processors it shares with the service. Iterations begin at 2^21,
// where a varint has four bytes for a long time. JSON, which is what our own services send, is written
// anew for every request.

export type Encoding = "protobuf" | "json";

/** Requests of one kind. */
export interface Load {
  what: string;
  path: string;
  contentType: string;
  rowsPerRequest: number;
  /** Bodies of one sender by number from 0; a body is good until the next one is asked for. */
  sender(sender: number): (request: number) => Uint8Array<ArrayBuffer>;
  /** Rows, distinct rows (estimated) and a sum that is known. */
  check: string;
  /** That sum for so many requests of a sender. */
  sumOf(requests: number): number;
}

const firstIteration = 1 << 21;
/** Sum of so many iterations from the first. */
const iterationSum = (count: number) => count * firstIteration + count * (count - 1) / 2;

const namesPerIteration = 100;
const iterationsPerRequest = 20;
const names = Array.from({ length: namesPerIteration }, (_, k) => `group_${k % 10}/name_${k}`);

/** Iterations with a hundred values each: the iteration's number. */
export function scalarLoad(encoding: Encoding): Load {
  return {
    what: "scalars",
    path: "/v1/logs",
    contentType: contentTypes[encoding],
    rowsPerRequest: namesPerIteration * iterationsPerRequest,
    sender: encoding === "protobuf" ? protobufIterations : jsonIterations,
    check: "SELECT count() AS rows, uniqCombined64(20)(run_id, iteration, name) AS distinct, " +
      "sum(value) AS sum FROM scalars",
    sumOf: (requests) => iterationSum(requests * iterationsPerRequest) * namesPerIteration,
  };
}

const spansPerIteration = 20;
const spanIterationsPerRequest = 25;

/** The spans of epochs, as our services' phases are. */
export function spanLoad(encoding: Encoding): Load {
  return {
    what: "spans",
    path: "/v1/traces",
    contentType: contentTypes[encoding],
    rowsPerRequest: spansPerIteration * spanIterationsPerRequest,
    sender: encoding === "protobuf" ? protobufSpans : jsonSpans,
    check: "SELECT count() AS rows, uniqCombined64(20)(SpanId) AS distinct, " +
      "sum(toUInt64(SpanAttributes['rl.iteration'])) AS sum FROM otel_traces",
    sumOf: (requests) => iterationSum(requests * spanIterationsPerRequest) * spansPerIteration,
  };
}

const contentTypes = { protobuf: "application/x-protobuf", json: "application/json" };

// -------------------------------------------------------------------------------- protobuf bodies

/** Encoded bytes, and where in them something is changed later. */
interface Encoded {
  bytes: number[];
  holes: number[];
}

function join(...parts: Encoded[]): Encoded {
  const bytes: number[] = [];
  const holes: number[] = [];
  for (const part of parts) {
    for (const hole of part.holes) holes.push(bytes.length + hole);
    for (const byte of part.bytes) bytes.push(byte);
  }
  return { bytes, holes };
}
const plain = (...bytes: number[]): Encoded => ({ bytes, holes: [] });
function varint(value: number): number[] {
  return value < 128 ? [value] : [value % 128 + 128, ...varint(Math.floor(value / 128))];
}
const bytesField = (field: number, content: Encoded): Encoded =>
  join(plain(...varint(field << 3 | 2), ...varint(content.bytes.length)), content);
const textField = (field: number, text: string): Encoded =>
  bytesField(field, plain(...new TextEncoder().encode(text)));
/** Eight bytes that are changed later: a double, a time, an id. */
const hole64 = (field: number): Encoded => ({
  bytes: [field << 3 | 1, ...new Array(8).fill(0)],
  holes: [1],
});
const holeBytes = (field: number, length: number): Encoded => ({
  bytes: [field << 3 | 2, length, ...new Array(length).fill(0)],
  holes: [2],
});
/** An iteration that is changed later. */
const holeIteration = (field: number): Encoded => ({
  bytes: [field << 3, ...varint(firstIteration)],
  holes: [1],
});
const pair = (key: string, value: Encoded): Encoded =>
  join(textField(1, key), bytesField(2, value));
const text = (value: string): Encoded => textField(1, value);

function putIteration(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value & 127 | 128;
  bytes[at + 1] = value >>> 7 & 127 | 128;
  bytes[at + 2] = value >>> 14 & 127 | 128;
  bytes[at + 3] = value >>> 21;
}

function resourceOf(sender: number): Encoded {
  return bytesField(
    1,
    join(
      bytesField(1, pair("service.name", text("learner"))),
      bytesField(1, pair("service.instance.id", text(`bench-sender-${sender}`))),
    ),
  );
}
const scope = bytesField(1, textField(1, "sdpg"));

function protobufIterations(sender: number) {
  const integers = ["rl.iteration", "rl.env_steps.nominal", "rl.env_steps.total", "rl.images"];
  const doubles = ["rl.wall_time", "rl.gpu_seconds"];
  const record = join(
    hole64(1),
    bytesField(6, pair("rl.run.id", text(`bench-${sender}`))),
    ...integers.map((key) => bytesField(6, pair(key, holeIteration(3)))),
    ...doubles.map((key) => bytesField(6, pair(key, hole64(4)))),
    bytesField(
      6,
      pair(
        "rl.scalars",
        bytesField(6, join(...names.map((name) => bytesField(1, pair(name, hole64(4)))))),
      ),
    ),
    textField(12, "rl.iteration"),
  );
  const records = Array.from({ length: iterationsPerRequest }, () => bytesField(2, record));
  const { bytes, holes } = bytesField(
    1,
    join(resourceOf(sender), bytesField(2, join(scope, ...records))),
  );
  const body = Uint8Array.from(bytes);
  const view = new DataView(body.buffer);
  return (request: number) => {
    const now = BigInt(Date.now()) * 1_000_000n;
    let hole = 0;
    for (let i = 0; i < iterationsPerRequest; i++) {
      const iteration = firstIteration + request * iterationsPerRequest + i;
      view.setBigUint64(holes[hole++], now, true);
      for (const _ of integers) putIteration(body, holes[hole++], iteration);
      for (let k = 0; k < doubles.length + namesPerIteration; k++) {
        view.setFloat64(holes[hole++], iteration, true);
      }
    }
    return body;
  };
}

function protobufSpans(sender: number) {
  const span = (k: number) =>
    join(
      holeBytes(1, 16),
      holeBytes(2, 8),
      holeBytes(4, 8),
      textField(5, `phase_${k}`),
      plain(6 << 3, 1),
      hole64(7),
      hole64(8),
      bytesField(9, pair("rl.run.id", text(`bench-${sender}`))),
      bytesField(9, pair("rl.iteration", holeIteration(3))),
      bytesField(9, pair("rl.phase", text(`rollout/phase_${k}`))),
      bytesField(9, pair("rl.phase.count", plain(3 << 3, 32))),
    );
  const epoch = Array.from({ length: spansPerIteration }, (_, k) => bytesField(2, span(k)));
  const epochs = Array.from({ length: spanIterationsPerRequest }, () => join(...epoch));
  const { bytes, holes } = bytesField(
    1,
    join(resourceOf(sender), bytesField(2, join(scope, ...epochs))),
  );
  const body = Uint8Array.from(bytes);
  const view = new DataView(body.buffer);
  return (request: number) => {
    const now = BigInt(Date.now()) * 1_000_000n;
    let hole = 0;
    for (let i = 0; i < spanIterationsPerRequest; i++) {
      const iteration = firstIteration + request * spanIterationsPerRequest + i;
      for (let k = 0; k < spansPerIteration; k++) {
        view.setUint32(holes[hole], sender + 1);
        view.setUint32(holes[hole++] + 12, iteration);
        view.setUint32(holes[hole], sender + 1);
        view.setUint32(holes[hole++] + 4, iteration * spansPerIteration + k);
        view.setUint32(holes[hole], sender + 1);
        view.setUint32(holes[hole++] + 4, iteration * spansPerIteration);
        view.setBigUint64(holes[hole++], now, true);
        view.setBigUint64(holes[hole++], now + 1_500_000n + BigInt(k), true);
        putIteration(body, holes[hole++], iteration);
      }
    }
    return body;
  };
}

// ------------------------------------------------------------------------------------ JSON bodies

type Json = Record<string, unknown>;
const pairs = (values: Json) =>
  Object.entries(values).map(([key, value]) => ({ key, value: valueOf(value) }));
function valueOf(value: unknown): Json {
  if (typeof value === "string") return { stringValue: value };
  if (typeof value === "bigint") return { intValue: String(value) };
  if (typeof value === "number") return { doubleValue: value };
  return { kvlistValue: { values: pairs(value as Json) } };
}
const encoded = (body: Json) => new TextEncoder().encode(JSON.stringify(body));
const resource = (sender: number) => ({
  attributes: pairs({
    "service.name": "learner",
    "service.instance.id": `bench-sender-${sender}`,
  }),
});

const jsonIterations = (sender: number) => (request: number) =>
  encoded({
    resourceLogs: [{
      resource: resource(sender),
      scopeLogs: [{
        logRecords: Array.from({ length: iterationsPerRequest }, (_, i) => {
          const iteration = firstIteration + request * iterationsPerRequest + i;
          const whole = BigInt(iteration);
          return {
            timeUnixNano: `${Date.now()}000000`,
            eventName: "rl.iteration",
            attributes: pairs({
              "rl.run.id": `bench-${sender}`,
              "rl.iteration": whole,
              "rl.env_steps.nominal": whole,
              "rl.env_steps.total": whole,
              "rl.images": whole,
              "rl.wall_time": iteration,
              "rl.gpu_seconds": iteration,
              "rl.scalars": Object.fromEntries(names.map((name) => [name, iteration])),
            }),
          };
        }),
      }],
    }],
  });

const jsonSpans = (sender: number) => (request: number) => {
  const hex = (n: number, digits: number) => n.toString(16).padStart(digits, "0");
  const own = hex(sender + 1, 8);
  const spans = Array.from({ length: spanIterationsPerRequest * spansPerIteration }, (_, i) => {
    const k = i % spansPerIteration;
    const iteration = firstIteration + request * spanIterationsPerRequest +
      Math.floor(i / spansPerIteration);
    const start = BigInt(Date.now()) * 1_000_000n;
    return {
      traceId: own + hex(iteration, 24),
      spanId: own + hex(iteration * spansPerIteration + k, 8),
      parentSpanId: own + hex(iteration * spansPerIteration, 8),
      name: `phase_${k}`,
      kind: 1,
      startTimeUnixNano: String(start),
      endTimeUnixNano: String(start + 1_500_000n + BigInt(k)),
      attributes: pairs({
        "rl.run.id": `bench-${sender}`,
        "rl.iteration": BigInt(iteration),
        "rl.phase": `rollout/phase_${k}`,
        "rl.phase.count": 32n,
      }),
    };
  });
  return encoded({
    resourceSpans: [{ resource: resource(sender), scopeSpans: [{ spans }] }],
  });
};
