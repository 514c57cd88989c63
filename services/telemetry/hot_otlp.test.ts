// Requests read by hand against the same requests read with the protocol's schemas: random messages and
// mutations of their bytes. The engine reads both blocks, so what is compared is what would be stored.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { Session } from "chdb";
import { ExportLogsServiceRequestSchema } from "@proto/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts";
import { ExportTraceServiceRequestSchema } from "@proto/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
import { MalformedOtlp } from "@sdpg/common/otlp.ts";
import { testSeed } from "@sdpg/common/seed_for_tests.ts";
import { ScalarBlock, SpanBlock, structures } from "./blocks.ts";
import type { Block } from "./columns.ts";
import { putIterations, putJsonSpans, putSpans } from "./hot_otlp.ts";
import { decodeLogsRequest, decodeTraces } from "./otlp.ts";
import { putTraces, rowsOfLogs } from "./otel_rows.ts";
import { rowsOf } from "./rows.ts";

const nowMs = 1_750_000_000_000;
const now = BigInt(nowMs) * 1_000_000n;

let directory: string;
let session: Session;
beforeAll(() => {
  directory = Deno.makeTempDirSync({ prefix: "sdpg-hot-" });
  session = new Session(`${directory}/store`);
});
afterAll(() => {
  session.close();
  Deno.removeSync(directory, { recursive: true });
});

/** Rows of a block as the engine reads them. */
async function rows(block: Block): Promise<unknown[]> {
  if (block.rows === 0) return [];
  const path = `${directory}/block.native`;
  Deno.writeFileSync(path, block.bytes());
  const structure = block.structure.replaceAll("'", "\\'");
  const answer = await session.queryAsync(
    `SELECT * FROM file('${path}', Native, '${structure}') ` +
      "SETTINGS output_format_json_quote_denormals = 1, output_format_json_quote_64bit_integers = 1",
    { format: "JSONCompactEachRow" },
  );
  return new TextDecoder().decode(answer.bytes()).trimEnd().split("\n").map((l) => JSON.parse(l));
}

class Random {
  #state: number;
  constructor(readonly seed: number) {
    this.#state = seed || 1;
  }
  next = (below: number): number => {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % below;
  };
  of = <T>(items: readonly T[]): T => items[this.next(items.length)];
  bytes = (length: number) => Uint8Array.from({ length }, () => this.next(256) | 1);
  some = <T>(most: number, make: (i: number) => T) =>
    Array.from({ length: this.next(most + 1) }, (_, i) => make(i));
}

const texts = [
  "",
  "a",
  "phase",
  "ü'\\",
  "𝄞",
  "x".repeat(63),
  "y".repeat(130),
  "__proto__",
  "7",
  "service.name",
];

/** Values that are plain, and now and then one that is not. */
function anyValue({ next, of }: Random): unknown {
  switch (next(12)) {
    case 0:
      return undefined;
    case 1:
      return {};
    case 2:
      return { value: { case: "boolValue", value: next(2) === 0 } };
    case 3:
    case 4: {
      const value = of([0n, 1n, -1n, 255n, 1n << 31n, 1n << 53n, -(1n << 63n), (1n << 63n) - 1n]);
      return { value: { case: "intValue", value } };
    }
    case 5:
    case 6: {
      const value = of([0, -0, 0.1, 1e300, 5e-324, NaN, Infinity, -Infinity, 12345]);
      return { value: { case: "doubleValue", value } };
    }
    case 7:
      if (next(20) === 0) {
        const values = [{ value: { case: "intValue", value: 3n } }];
        return { value: { case: "arrayValue", value: { values } } };
      }
      return { value: { case: "stringValue", value: "plain" } };
    default:
      return { value: { case: "stringValue", value: of(texts) } };
  }
}

function traces(random: Random): Uint8Array {
  const { next, of, bytes, some } = random;
  const attributes = () =>
    some(
      6,
      (i) => ({ key: next(30) === 0 ? "twice" : `${of(texts)}${i}`, value: anyValue(random) }),
    );
  const span = () => {
    const start = now - BigInt(next(1 << 30)) * BigInt(next(1000));
    return {
      traceId: next(60) === 0 ? bytes(3) : bytes(16),
      spanId: next(60) === 0 ? new Uint8Array(8) : bytes(8),
      parentSpanId: of([new Uint8Array(), bytes(8)]),
      traceState: of(["", "k=v"]),
      name: of(texts),
      kind: of([0, 1, 2, 3, 4, 5, 9, -1]),
      flags: next(3),
      startTimeUnixNano: next(60) === 0 ? 5n : start,
      endTimeUnixNano: start + BigInt(next(1 << 30)) * BigInt(next(8)) - (next(40) === 0 ? 1n : 0n),
      attributes: attributes(),
      droppedAttributesCount: next(2),
      events: next(40) === 0 ? [{ timeUnixNano: now, name: "e", attributes: attributes() }] : [],
      links: next(40) === 0 ? [{ traceId: bytes(16), spanId: bytes(8) }] : [],
      status: of([undefined, {}, { code: next(4), message: of(texts) }]),
    };
  };
  const request = {
    resourceSpans: some(2, () => ({
      resource: of([undefined, {
        attributes: [{ key: "service.name", value: anyValue(random) }, ...attributes()],
      }]),
      schemaUrl: of(["", "url"]),
      scopeSpans: some(3, () => ({
        scope: of([undefined, {}, { name: of(texts), version: "1" }]),
        spans: some(5, span),
      })),
    })),
  };
  const shape = request as MessageInitShape<typeof ExportTraceServiceRequestSchema>;
  return toBinary(ExportTraceServiceRequestSchema, create(ExportTraceServiceRequestSchema, shape));
}

/** As our own services write them (otlp.ts of common), with now and then what they do not write. */
function jsonTraces(random: Random): Uint8Array {
  const { next, of, some } = random;
  const hex = (digits: number) =>
    Array.from({ length: digits }, () => next(16).toString(16)).join("");
  const value = () =>
    of<unknown>([
      { stringValue: of(texts) },
      { intValue: of(["0", "-3", "12345678901", next(20) ? "7" : "007"]) },
      { doubleValue: of([0, -0, 0.1, 1e300, 12]) },
      { boolValue: next(2) === 0 },
      next(40)
        ? { stringValue: "x" }
        : of<unknown>([{}, { arrayValue: {} }, { doubleValue: "NaN" }, null]),
    ]);
  const attributes = () =>
    some(5, (i) => ({ key: next(60) ? `${of(texts)}${i}` : "twice", value: value() }));
  const span = () => {
    const start = now - BigInt(next(1 << 30)) * 1000n;
    return {
      traceId: next(60) ? hex(32) : of(["", "zz", hex(32).toUpperCase(), "0".repeat(32)]),
      spanId: next(60) ? hex(16) : "ab",
      ...(next(2) ? { parentSpanId: of(["", hex(16)]) } : {}),
      name: of(texts),
      kind: next(80) ? next(6) : of<unknown>([9, -1, "SPAN_KIND_SERVER"]),
      startTimeUnixNano: next(60) ? String(start) : of<unknown>(["5", 17, "x"]),
      endTimeUnixNano: String(start + BigInt(next(1 << 30)) - (next(60) ? 0n : 1n << 40n)),
      attributes: attributes(),
      ...(next(60) ? {} : { events: [{ name: "e", timeUnixNano: String(now) }] }),
      ...(next(80) ? {} : { status: { code: 2 }, unknown: 1 }),
    };
  };
  const resourceSpans = some(2, () => ({
    resource: { attributes: [{ key: "service.name", value: value() }, ...attributes()] },
    scopeSpans: some(2, () => ({ scope: { name: "sdpg" }, spans: some(4, span) })),
  }));
  return new TextEncoder().encode(JSON.stringify({ resourceSpans }));
}

function iterations(random: Random): Uint8Array {
  const { next, of, some } = random;
  const whole = (value: number) => ({ value: { case: "intValue", value: BigInt(value) } });
  const double = (value: number) => ({ value: { case: "doubleValue", value } });
  const record = () => {
    const scalars = some(20, (i) => ({
      key: next(200) === 0 ? "" : next(100) === 0 ? "twice" : `${of(texts)}/${i}`,
      value: next(60) === 0
        ? anyValue(random)
        : next(3) === 0
        ? whole(next(1000))
        : double(of([0, -0, 0.5, NaN, -Infinity, 5e-324])),
    }));
    const attributes = [
      {
        key: "rl.run.id",
        value: {
          value: {
            case: "stringValue",
            value: of(["a", "run-2", "run-2", next(50) ? "b" : "../x"]),
          },
        },
      },
      {
        key: "rl.iteration",
        value: next(60) === 0 ? double(3) : whole(of([0, 1, 77, 2 ** 33, 2 ** 53 - 1])),
      },
      ...["rl.env_steps.nominal", "rl.env_steps.total", "rl.images"].map((key) => ({
        key,
        value: whole(next(1e9)),
      })),
      ...["rl.wall_time", "rl.gpu_seconds"].map((key) => ({
        key,
        value: double(next(80) === 0 ? of([NaN, -1, Infinity]) : next(1e6) / 8),
      })),
      { key: "rl.scalars", value: { value: { case: "kvlistValue", value: { values: scalars } } } },
      ...(next(3) === 0 ? [{ key: "rl.sequence", value: whole(9) }] : []),
      ...(next(50) === 0 ? [{ key: "other", value: anyValue(random) }] : []),
    ];
    if (next(80) === 0) attributes.splice(next(attributes.length), 1);
    return {
      eventName: next(40) === 0 ? of(["rl.iteratoin", "rl.fault", "other", ""]) : "rl.iteration",
      timeUnixNano: of([now, 1n, (1n << 63n) - 1n]),
      observedTimeUnixNano: of([0n, now]),
      attributes,
    };
  };
  const request = {
    resourceLogs: some(2, () => ({
      resource: of([undefined, {
        attributes: [{
          key: "service.name",
          value: { value: { case: "stringValue", value: "learner" } },
        }],
      }]),
      scopeLogs: some(
        2,
        () => ({ scope: of([undefined, { name: "sdpg" }]), logRecords: some(4, record) }),
      ),
    })),
  };
  const shape = request as MessageInitShape<typeof ExportLogsServiceRequestSchema>;
  return toBinary(ExportLogsServiceRequestSchema, create(ExportLogsServiceRequestSchema, shape));
}

/** The same with a byte changed, put in or taken out, or cut. */
function mutated(bytes: Uint8Array, { next }: Random): Uint8Array {
  const copy = [...bytes];
  for (let i = 0; i <= next(2); i++) {
    const at = next(copy.length + 1);
    const how = next(4);
    if (how === 0) copy.splice(at, 1);
    else if (how === 1) copy.splice(at, 0, next(256));
    else if (how === 2 && at < copy.length) copy[at] = next(256);
    else if (next(4) === 0) copy.length = at;
  }
  return Uint8Array.from(copy);
}

function readSpans(body: Uint8Array, block: SpanBlock): boolean {
  return putTraces(decodeTraces("protobuf", body), nowMs, block).count === 0;
}

function readJsonSpans(body: Uint8Array, block: SpanBlock): boolean {
  return putTraces(decodeTraces("json", body), nowMs, block).count === 0;
}

function readIterations(body: Uint8Array, block: ScalarBlock): boolean {
  const { events, logs } = decodeLogsRequest("protobuf", body);
  if (logs.resourceLogs.some(({ scopeLogs }) => scopeLogs.some((s) => s.logRecords.length > 0))) {
    return false;
  }
  expect(rowsOfLogs(logs, nowMs).rejected.count).toBe(0);
  const { scalars, ...others } = rowsOf(events);
  for (const { cells } of scalars) block.put(cells);
  return Object.values(others).every((list) => list.length === 0);
}

describe.each(
  [
    ["putSpans()", traces, putSpans, readSpans, () => new SpanBlock()],
    ["putJsonSpans()", jsonTraces, putJsonSpans, readJsonSpans, () => new SpanBlock()],
    ["putIterations()", iterations, putIterations, readIterations, () => new ScalarBlock()],
  ] as const,
)("%s", (_, make, byHand, bySchema, empty) => {
  test.each([["random messages", 1500, false], ["mutated bytes", 6000, true]])(
    "reads %s as the schemas do, or gives up",
    async (_, count, mutates) => {
      const random = new Random(testSeed);
      const hand = empty();
      const schema = empty();
      let taken = 0;
      for (let i = 0; i < count; i++) {
        const body = mutates ? mutated(make(random), random) : make(random);
        const place = `seed ${random.seed}, request ${i}`;
        // deno-lint-ignore no-explicit-any
        if (!byHand(body, hand as any, nowMs)) continue;
        taken++;
        let whole: boolean | string;
        try {
          // deno-lint-ignore no-explicit-any
          whole = bySchema(body, schema as any);
        } catch (error) {
          if (!(error instanceof MalformedOtlp)) throw error;
          whole = error.message;
        }
        expect(whole, place).toBe(true);
        expect(schema.rows, place).toBe(hand.rows);
      }
      // Neither is empty talk: much is read, and much is left to the schemas.
      expect(taken).toBeGreaterThan(count / 20);
      expect(taken).toBeLessThan(count);
      expect(await rows(hand), `seed ${random.seed}`).toEqual(await rows(schema));
    },
  );
});

test("putJsonSpans() leaves a number that no double holds to the schemas, which refuse it", () => {
  const request = (double: string) => {
    const at = `"startTimeUnixNano":"${now}","endTimeUnixNano":"${now}"`;
    const ids = `"traceId":"${"1".repeat(32)}","spanId":"${"2".repeat(16)}"`;
    const attributes = `"attributes":[{"key":"k","value":{"doubleValue":${double}}}]`;
    return new TextEncoder().encode(
      `{"resourceSpans":[{"scopeSpans":[{"spans":[{${ids},"name":"a",${at},${attributes}}]}]}]}`,
    );
  };
  const block = new SpanBlock();
  expect(putJsonSpans(request("1e308"), block, nowMs)).toBe(true);
  expect(putJsonSpans(request("1e309"), block, nowMs)).toBe(false);
  expect(block.rows).toBe(1);
  expect(() => decodeTraces("json", request("1e309"))).toThrow(MalformedOtlp);
});

describe("a block", () => {
  test("keeps its rows when a request is taken back", async () => {
    const random = new Random(7);
    const block = new SpanBlock();
    const alone = new SpanBlock();
    for (let i = 0; i < 100; i++) {
      const body = traces(random);
      block.mark();
      putTraces(decodeTraces("protobuf", body), nowMs, block);
      if (i % 2 === 0) block.reset();
      else putTraces(decodeTraces("protobuf", body), nowMs, alone);
    }
    expect(block.rows).toBe(alone.rows);
    expect(await rows(block)).toEqual(await rows(alone));
  });
  test("with more than 256 and more than 65536 texts in a dictionary is read as it was written", async () => {
    for (const count of [257, 65537]) {
      const block = new ScalarBlock();
      for (let i = 0; i < count; i++) {
        block.put(["run", i, `n${i}`, "-inf", i, 2 ** 53 - 1, 0, i / 3, 0, "1700000000.000000001"]);
      }
      const read = await rows(block);
      expect(read.length).toBe(count);
      expect(read.at(-1)).toEqual([
        "run",
        String(count - 1),
        `n${count - 1}`,
        "-inf",
        String(count - 1),
        "9007199254740991",
        "0",
        (count - 1) / 3,
        0,
        "2023-11-14 22:13:20.000000001",
      ]);
    }
  });
  test("says its structure", () => {
    expect(structures.scalars).toContain("`time` DateTime64(9, 'UTC')");
    expect(structures.otel_traces).toContain("`Links.Attributes` Array(Map(");
  });
});
