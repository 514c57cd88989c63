// Native for clients that name their protocol version, against what the engine writes for each column
// alone: the cut between columns has to be where the engine makes it.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Buffer } from "node:buffer";
import { Session } from "chdb";
import { nativeFor, parseType } from "./native.ts";

const directory = Deno.makeTempDirSync({ prefix: "sdpg-native-" });
let session: Session;
beforeAll(() => session = new Session(directory, { connectionArgs: ["--max_threads=1"] }));
afterAll(() => {
  session.close();
  Deno.removeSync(directory, { recursive: true });
});

const native = async (sql: string) =>
  Buffer.from((await session.queryAsync(sql, { format: "Native" })).bytes());

const columns = [
  "number",
  "toString(number)",
  "toFloat64(number) / 3",
  "toNullable(if(number % 2 = 0, NULL, toString(number)))",
  "range(number)",
  "arrayMap(x -> [toString(x), ''], range(number % 3))",
  "map('a', number, toString(number), 2)",
  "CAST(map('k', toString(number)), 'Map(LowCardinality(String), String)')",
  "CAST(range(number % 2), 'Array(LowCardinality(String))')",
  "toLowCardinality(toString(number % 3))",
  "CAST(if(number = 1, NULL, toString(number)), 'LowCardinality(Nullable(String))')",
  "CAST((number, 'x'), 'Tuple(a UInt64, `b c` LowCardinality(String))')",
  "(number, [toString(number)])",
  "toDateTime64('2024-01-01 00:00:00', 9, 'UTC') + number",
  "toDateTime('2024-01-01 00:00:00', 'Europe/Berlin')",
  "toDate('2024-01-01') + number",
  "toDecimal64(number, 3)",
  "toDecimal256(number, 3)",
  "toFixedString('abc', 5)",
  "toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0')",
  "CAST('a', 'Enum8(\\'a\\' = 1, \\'b, (c\\' = 2)')",
  "toIPv6('::1')",
  "number = 1",
];

/** A block of one column: its information, 1 column, n rows, name, type, no custom serialisation, data. */
const information = [1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0];

describe("nativeFor()", () => {
  test.each([1, 5, 300])("cuts columns where they end, %i rows", async (rows) => {
    // From a table: what stands below a NULL is then the same in both questions.
    const stored = columns.map((column, i) => `${column} AS c${i}`);
    await session.queryAsync(
      `CREATE OR REPLACE TABLE stored ENGINE = Memory AS SELECT ${stored} FROM numbers(${rows})`,
    );
    const expressions = [...columns.map((_, i) => `c${i}`), "NULL", "[]", "INTERVAL 1 DAY"];
    const from = "FROM stored";
    const whole = await native(`SELECT ${expressions.join(", ")} ${from}`);
    const alone: Buffer[] = [];
    for (const expression of expressions) {
      const one = await native(`SELECT ${expression} ${from}`);
      let at = rows < 128 ? 2 : 3; // one column, the rows
      for (let text = 0; text < 2; text++) at += 1 + one[at]; // name and type are short
      alone.push(
        Buffer.concat([one.subarray(rows < 128 ? 2 : 3, at), Buffer.of(0), one.subarray(at)]),
      );
    }
    const rowsAsVarint = rows < 128 ? [rows] : [rows & 127 | 128, rows >> 7];
    expect(
      Buffer.from(nativeFor(54460, whole)).equals(
        Buffer.concat([
          Buffer.from([...information, expressions.length, ...rowsAsVarint]),
          ...alone,
        ]),
      ),
    ).toBe(true);
    const old = Buffer.from(nativeFor(54000, whole)); // block information only
    expect(old.equals(Buffer.concat([Buffer.from(information), whole]))).toBe(true);
    expect(nativeFor(0, whole)).toBe(whole);
  });

  test("every block of a long answer", async () => {
    const whole = await native("SELECT number, toString(number) AS t FROM numbers(200000)");
    const blocks = Math.ceil((nativeFor(54000, whole).length - whole.length) / information.length);
    expect(blocks).toBeGreaterThan(1);
    expect(nativeFor(54460, whole).length - whole.length).toBe(blocks * (information.length + 2));
  });

  test("refuses a type it cannot measure", async () => {
    const json = await native(`SELECT CAST('{"a":1}', 'JSON') AS j`);
    expect(() => nativeFor(54460, json)).toThrow("type JSON cannot be sent in Native");
  });

  test("parseType() keeps commas of inner types and of names", () => {
    expect(parseType("Map(String, Tuple(a UInt8, b Enum8('x,)' = 1)))")).toEqual({
      name: "Map",
      arguments: ["String", "Tuple(a UInt8, b Enum8('x,)' = 1))"],
    });
  });
});
