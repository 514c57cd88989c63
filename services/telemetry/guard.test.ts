// What the read-only endpoint lets through, asked of the real service: the guard and the engine
// together have to refuse, and nothing may have changed or been read afterwards.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestService, type TestService } from "./service_for_tests.ts";

const secret = "SDPG-SECRET-7c1e";
let home: string;
let service: TestService;
const countTables = () => service.ask("SELECT count() FROM system.tables WHERE database = 'sdpg'");
let tablesBefore: string;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-guard-" });
  Deno.writeTextFileSync(`${home}/secret.txt`, secret + "\n");
  service = await startTestService(home);
  tablesBefore = await countTables();
});
afterAll(async () => {
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

const refused = [
  "INSERT INTO scalars (run_id) VALUES ('x')",
  "DROP TABLE scalars",
  "DROP DATABASE sdpg",
  "TRUNCATE TABLE scalars",
  "ALTER TABLE scalars DELETE WHERE 1",
  "DELETE FROM scalars WHERE 1",
  "CREATE TABLE t (a Int8) ENGINE = Memory",
  "CREATE TEMPORARY TABLE t (a Int8)",
  "CREATE VIEW v AS SELECT 1",
  "CREATE FUNCTION f AS x -> x",
  "RENAME TABLE scalars TO s",
  "OPTIMIZE TABLE scalars",
  "SYSTEM SHUTDOWN",
  "SYSTEM FLUSH LOGS",
  "KILL QUERY WHERE 1",
  "SET readonly = 0",
  "USE system",
  "GRANT ALL ON *.* TO default",
  "BACKUP TABLE scalars TO File('b')",
  "ATTACH TABLE x",
  "EXCHANGE TABLES a AND b",
  "(DROP TABLE scalars)",
  "SELECT 1; DROP TABLE scalars",
  "SELECT 1;; SELECT 2",
  "SELECT 1 SETTINGS readonly = 0",
  "SELECT 1 SETTINGS max_execution_time = 0",
  "/* SELECT */ DROP TABLE scalars",
  "-- SELECT\nDROP TABLE scalars",
  "SELECT 1 /* open",
  "SELECT 'open",
  "SELECT 1 INTO OUTFILE '$HOME/written.txt'",
  "SELECT 1 into/**/outfile '$HOME/written.txt'",
  "SHOW TABLES INTO OUTFILE '$HOME/written.txt'",
  "SELECT 1 UNION ALL SELECT 2 INTO\nOUTFILE '$HOME/written.txt' TRUNCATE",
  "SELECT file('$HOME/secret.txt')",
  "SELECT FILE('$HOME/secret.txt')",
  "SELECT `file`('$HOME/secret.txt')",
  "SELECT \"file\"('$HOME/secret.txt')",
  "SELECT file/**/('$HOME/secret.txt')",
  "SELECT * APPLY(file) FROM values('a String', '$HOME/secret.txt')",
  "SELECT * APPLY file FROM values('a String', '$HOME/secret.txt')",
  "SELECT ‘'’, file('$HOME/secret.txt'), ‘'’",
  "SELECT $$'$$, file('$HOME/secret.txt'), $$'$$",
  "SELECT 1 # '\n, file('$HOME/secret.txt') # '",
  "WITH file('$HOME/secret.txt') AS x SELECT x",
  "SELECT * FROM file('$HOME/secret.txt', 'LineAsString')",
  "DESCRIBE TABLE file('$HOME/secret.txt')",
  "DESC file('$HOME/secret.txt')",
  "SELECT * FROM '$HOME/secret.txt'",
  "SELECT * FROM `$HOME/secret.txt`",
  "SELECT * FROM default.`$HOME/secret.txt`",
  "FROM `$HOME/secret.txt` SELECT *",
  "EXPLAIN SELECT * FROM file('$HOME/secret.txt', 'LineAsString')",
  "SELECT * FROM eval('SELECT file(''$HOME/secret.txt'')')",
  "SELECT * FROM view(SELECT file('$HOME/secret.txt'))",
  "SELECT (SELECT file('$HOME/secret.txt'))",
  "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
  "SELECT * FROM s3('http://127.0.0.1:1/x', 'CSV', 'a String')",
  "SELECT * FROM remote('127.0.0.1:1', system.one)",
  "SELECT * FROM cluster('default', system.one)",
  "SELECT * FROM mysql('127.0.0.1:1', 'a', 'b', 'c', 'd')",
  "SELECT * FROM sqlite('$HOME/secret.txt', 't')",
  "SELECT * FROM executable('id', 'TSV', 'a String')",
  "SELECT catboostEvaluate('$HOME/secret.txt', 1)",
  "SELECT aiGenerate('x')",
  "SELECT count() FROM no_such_table",
  "SELECT sleep(10)",
  "",
  "   ",
  ";",
  "' OR 1=1 --",
  "}; DROP TABLE scalars; --",
];

describe("refused", () => {
  test.each(refused)("%s", async (pattern) => {
    const sql = pattern.replaceAll("$HOME", home);
    const response = await fetch(`${service.url}/`, { method: "POST", body: sql });
    const text = await response.text();
    expect(response.status, text).toBeGreaterThanOrEqual(400);
    expect(text).toMatch(/^Code: \d+\. DB::Exception: .*\([A-Z_0-9]+\) \(version [\d.]+\)\n$/s);
    expect(response.headers.get("x-clickhouse-exception-code")).toMatch(/^\d+$/);
    expect(text).not.toContain(secret);
  });
  test("nothing was written or changed by any of them", async () => {
    expect([...Deno.readDirSync(home)].map(({ name }) => name).sort()).toEqual([
      "locks",
      "runs",
      "secret.txt",
      "spool",
      "store",
    ]);
    expect(await countTables()).toBe(tablesBefore);
    expect(await service.ask("SELECT currentDatabase(), getSetting('readonly')")).toBe("sdpg\t1");
  });
});

const allowed: [string, string][] = [
  ["SELECT 1", "1"],
  ["select 1;", "1"],
  ["  -- why\nSELECT /* here */ 1 ; ", "1"],
  ["(SELECT 1)", "1"],
  ["WITH 2 AS x SELECT x * 3", "6"],
  ["SELECT 'it''s; DROP TABLE x --', \"a\" FROM (SELECT 1 AS a)", "it\\'s; DROP TABLE x --\t1"],
  ["SELECT 'file(1)', 'ü'", "file(1)\tü"],
  ["SELECT sum(number) FROM numbers(10)", "45"],
  ["SELECT count() FROM scalars", "0"],
  ["SELECT count() FROM sdpg.scalars AS s LEFT JOIN runs AS r ON s.run_id = r.run_id", "0"],
  ["SELECT format('{} {}', 'a', 'b')", "a b"],
  ["EXISTS TABLE scalars", "1"],
  ["SELECT 1 AS a FORMAT JSONEachRow", '{"a":1}'],
  ["SELECT toUInt64(5) AS a FORMAT JSONEachRow", '{"a":5}'],
];
describe("allowed", () => {
  test.each(allowed)("%s", async (sql, answer) => {
    expect(await service.ask(sql)).toBe(answer);
  });
  test("SHOW, DESCRIBE and EXPLAIN", async () => {
    expect(await service.ask("SHOW TABLES")).toContain("scalars");
    expect(await service.ask("DESCRIBE TABLE scalars")).toContain("wall_time_s\tFloat64");
    expect(await service.ask("EXPLAIN SELECT 1")).toContain("ReadFrom");
  });
});

describe("ClickHouse's HTTP interface", () => {
  const get = (query: Record<string, string>, init: RequestInit = {}) =>
    fetch(`${service.url}/?${new URLSearchParams(query)}`, init);

  test("/ping and /health answer", async () => {
    expect(await (await fetch(`${service.url}/ping`)).text()).toBe("Ok.\n");
    expect(await (await fetch(`${service.url}/health`)).json()).toMatchObject({
      status: "serving",
    });
  });
  test("GET with default_format names the format and its type", async () => {
    const response = await get({ query: "SELECT 1 AS a", default_format: "JSONEachRow" });
    expect(await response.text()).toBe('{"a":1}\n');
    expect(response.headers.get("x-clickhouse-format")).toBe("JSONEachRow");
    expect(response.headers.get("content-type")).toMatch(/^application\/x-ndjson/);
    expect(JSON.parse(response.headers.get("x-clickhouse-summary")!)).toHaveProperty("read_rows");
  });
  test("parameters are bound as values", async () => {
    const evil = "x'; DROP TABLE scalars --";
    const response = await get({
      query: "SELECT {s:String}, {n:UInt8} + 1",
      param_s: evil,
      param_n: "4",
    });
    expect(await response.text()).toBe("x\\'; DROP TABLE scalars --\t5\n");
  });
  test("a format the engine does not know, a setting and another database are refused", async () => {
    expect((await get({ query: "SELECT 1", default_format: "Nope" })).status).toBe(404);
    const setting = await get({ query: "SELECT 1", max_insert_threads: "1" });
    expect(await setting.text()).toMatch(/^Code: 164.*'max_insert_threads'/);
    expect((await get({ query: "SELECT 1", database: "other" })).status).toBe(404);
  });
  test("a question that takes too long or returns too much is ended by the engine", async () => {
    const response = await get({
      query: "SELECT number, toString(number) FROM numbers(100000000)",
    });
    expect(await response.text()).toMatch(/Limit for result exceeded.*TOO_MANY_ROWS_OR_BYTES/);
    expect(response.status).toBe(413);
  });
  test("a failed question leaves nothing in the answers of the next ones", async () => {
    const failing = "SELECT throwIf(number = 100000) FROM numbers(1000000)";
    for (let i = 0; i < 4; i++) {
      await expect(service.ask(failing)).rejects.toThrow(/^Code: 395/);
      const answers = Array.from({ length: 4 }, (_, n) => service.ask(`SELECT 'answer ${n}'`));
      expect(await Promise.all(answers)).toEqual([0, 1, 2, 3].map((n) => `answer ${n}`));
    }
  });
  test("@clickhouse/client reads rows, binds parameters and sees the engine's errors", async () => {
    const { createClient } = await import("@clickhouse/client");
    const client = createClient({ url: service.url, database: "sdpg" });
    try {
      expect((await client.ping()).success).toBe(true);
      const result = await client.query({
        query: "SELECT {a:UInt8} AS a, {t:String} AS t",
        query_params: { a: 3, t: "ü'" },
        format: "JSONEachRow",
      });
      expect(await result.json()).toEqual([{ a: 3, t: "ü'" }]);
      const hard = ["it's", "back\\slash", "tab\t", "line\n", '"', "", "ü"];
      for (const text of hard) {
        const same = await client.query({
          query: "SELECT {t:String} AS t, {l:Array(String)} AS l",
          query_params: { t: text, l: [text, ...hard] },
          format: "JSONEachRow",
        });
        expect(await same.json()).toEqual([{ t: text, l: [text, ...hard] }]);
      }
      await expect(client.query({ query: "SELECT * FROM nothing" })).rejects.toMatchObject({
        code: "60",
        type: "UNKNOWN_TABLE",
      });
    } finally {
      await client.close();
    }
  });
  test("other paths, methods and names of the host are refused", async () => {
    expect((await fetch(`${service.url}/etc/passwd`)).status).toBe(404);
    expect((await fetch(`${service.url}/`, { method: "DELETE" })).status).toBe(405);
    const [host, port] = service.address.split(":");
    const connection = await Deno.connect({ hostname: host, port: Number(port) });
    await connection.write(
      new TextEncoder().encode("GET /?query=SELECT+1 HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    );
    const buffer = new Uint8Array(200);
    const length = await connection.read(buffer);
    expect(new TextDecoder().decode(buffer.subarray(0, length!))).toMatch(/^HTTP\/1\.1 403/);
    connection.close();
  });
});
