// ClickHouse's own clients against the read-only endpoint: @clickhouse/client with its types, streams,
// parameters, formats, compression and errors, curl, and what Grafana's data source sends.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Buffer } from "node:buffer";
import { gunzipSync, gzipSync, inflateSync, zstdDecompressSync } from "node:zlib";
import { createClient } from "@clickhouse/client";
import { decompressFrameSync } from "lz4-napi";
import { startTestService, type TestService } from "./service_for_tests.ts";
import { settingsOf } from "./settings.ts";
import { credentialsFor, mayEnter } from "./access.ts";

let home: string;
let service: TestService;
let client: ReturnType<typeof createClient>;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-clients-" });
  service = await startTestService(home);
  client = createClient({
    url: service.url,
    database: "sdpg",
    username: "somebody",
    password: "none is needed here",
    compression: { response: true },
    clickhouse_settings: { output_format_json_quote_64bit_integers: 1 },
    log: { level: 127 }, // off
  });
});
afterAll(async () => {
  await client.close();
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

const get = (query: Record<string, string>, init: RequestInit = {}) =>
  fetch(`${service.url}/?${new URLSearchParams(query)}`, init);

describe("@clickhouse/client", () => {
  test("types arrive as they are, with the settings it sends", async () => {
    const result = await client.query({
      query:
        "SELECT 18446744073709551615 AS u, toFloat64(0.1) AS f, [1, 2] AS a, map('k', 'v') AS m, " +
        "CAST(NULL, 'Nullable(String)') AS n, true AS b, toDateTime64('2024-01-01', 9, 'UTC') AS t",
      format: "JSONEachRow",
    });
    expect(await result.json()).toEqual([{
      u: "18446744073709551615",
      f: 0.1,
      a: [1, 2],
      m: { k: "v" },
      n: null,
      b: true,
      t: "2024-01-01 00:00:00.000000000",
    }]);
    expect(result.response_headers["x-clickhouse-format"]).toBe("JSONEachRow");
  });
  test("streams rows", async () => {
    const result = await client.query({
      query: "SELECT number FROM numbers({n:UInt32})",
      query_params: { n: 50_000 },
      format: "JSONCompactEachRow",
    });
    let sum = 0;
    for await (const rows of result.stream()) {
      for (const row of rows) sum += Number(row.json<[string]>()[0]);
    }
    expect(sum).toBe(50_000 * 49_999 / 2);
  });
  test.each(
    ["JSON", "JSONCompact", "CSVWithNames", "TabSeparatedWithNamesAndTypes", "Parquet"] as const,
  )(
    "format %s",
    async (format) => {
      const result = await client.query({ query: "SELECT 7 AS a, 'x' AS b", format });
      const text = await result.text();
      expect(text).toMatch(
        {
          JSON: /"data":\s*\[\s*\{\s*"a": 7,\s*"b": "x"/,
          JSONCompact: /"data":\s*\[\s*\[7, "x"\]/,
          CSVWithNames: /^"a","b"\n7,"x"\n$/,
          TabSeparatedWithNamesAndTypes: /^a\tb\nUInt8\tString\n7\tx\n$/,
          Parquet: /^PAR1/,
        }[format],
      );
    },
  );
  test("errors have the engine's code and type", async () => {
    await expect(client.query({ query: "SELECT nope FROM scalars" }))
      .rejects.toMatchObject({ code: "47", type: "UNKNOWN_IDENTIFIER" });
    await expect(client.command({ query: "DROP TABLE scalars" }))
      .rejects.toMatchObject({ code: "164", type: "READONLY" });
    await expect(
      client.insert({ table: "scalars", values: [{ run_id: "x" }], format: "JSONEachRow" }),
    ).rejects.toMatchObject({ code: "164" });
    await expect(client.query({ query: "SELECT 1", clickhouse_settings: { max_result_rows: "x" } }))
      .rejects.toMatchObject({ code: "72" });
  });
});

describe("Grafana's data source (HTTP)", () => {
  // clickhouse-go: Native, its protocol version, gzip, the settings of the data source, the body a POST.
  const asGrafana = async (sql: string) => {
    const response = await get({
      database: "default",
      default_format: "Native",
      client_protocol_version: "54460",
      enable_http_compression: "1",
      limit: "1000000",
      max_execution_time: "60",
    }, {
      method: "POST",
      body: sql,
      headers: { "accept-encoding": "gzip", "authorization": `Basic ${btoa("default:")}` },
    });
    expect(response.status, await response.clone().text()).toBe(200);
    expect(response.headers.get("x-clickhouse-format")).toBe("Native");
    return await response.bytes(); // fetch unpacks
  };
  test("its handshake", async () => {
    const bytes = await asGrafana("SELECT displayName(), version(), revision(), timezone()");
    const text = new TextDecoder("latin1").decode(bytes);
    expect([...bytes.subarray(0, 10)]).toEqual([1, 0, 2, 255, 255, 255, 255, 0, 4, 1]);
    expect(text).toContain("version()\x06String\x00"); // no custom serialisation
    expect(text).toContain("revision()\x06UInt32\x00");
  });
  test.each([
    "SELECT 1",
    "SELECT version()",
    "SELECT timezone()",
    "SHOW DATABASES",
    "SHOW TABLES",
    "SELECT name FROM system.tables WHERE database = 'sdpg'",
    "DESC TABLE sdpg.otel_traces",
    "SELECT name, value FROM system.settings WHERE name = 'max_execution_time'",
    "SELECT toStartOfInterval(time, INTERVAL 10 second) AS t, avg(value) FROM scalars " +
    "WHERE time >= toDateTime64(1700000000, 3) GROUP BY t ORDER BY t",
    "SELECT TraceId AS traceID, ServiceName, SpanAttributes, Events.Attributes FROM otel_traces",
    "SELECT DISTINCT arrayJoin(mapKeys(ResourceAttributes)) FROM otel_logs LIMIT 1000",
  ])("%s", async (sql) => {
    await asGrafana(sql);
  });
});

describe("HTTP", () => {
  test("curl, with a query in the URL and in the body", async () => {
    const curl = async (...args: string[]) => {
      const { stdout } = await new Deno.Command("curl", { args: ["-sS", ...args] }).output();
      return new TextDecoder().decode(stdout);
    };
    expect(await curl(`${service.url}/?query=SELECT+1+FORMAT+CSV`)).toBe("1\n");
    expect(await curl(`${service.url}/`, "--data-binary", "SELECT 2")).toBe("2\n");
    expect(await curl("--compressed", `${service.url}/?enable_http_compression=1&query=SELECT+3`))
      .toBe("3\n");
    expect(await curl("-I", "-X", "GET", `${service.url}/?query=SELECT+4&query_id=mine`))
      .toMatch(/x-clickhouse-query-id: mine\r\n/i);
  });
  test("answers are packed as the client takes them, and only when it asks", async () => {
    const unpack = {
      zstd: zstdDecompressSync,
      lz4: decompressFrameSync,
      gzip: gunzipSync,
      deflate: inflateSync,
    };
    const [host, port] = service.address.split(":");
    // By hand: fetch unpacks by itself.
    const ask = async (accept: string, more = "&enable_http_compression=1") => {
      const connection = await Deno.connect({ hostname: host, port: Number(port) });
      const path = `/?query=SELECT+repeat('a',1000)${more}`;
      await connection.write(new TextEncoder().encode(
        `GET ${path} HTTP/1.1\r\nHost: ${service.address}\r\nAccept-Encoding: ${accept}\r\n` +
          "Connection: close\r\n\r\n",
      ));
      const all = await new Response(connection.readable).bytes();
      const end = new TextDecoder("latin1").decode(all).indexOf("\r\n\r\n");
      const head = new TextDecoder().decode(all.subarray(0, end));
      const encoding = /content-encoding: (\w+)/i.exec(head)?.[1];
      return { encoding, body: all.subarray(end + 4) };
    };
    for (const [name, inflate] of Object.entries(unpack)) {
      const { encoding, body } = await ask(`br;q=0.5, ${name}`);
      expect(encoding).toBe(name);
      expect(inflate(Buffer.from(body)).toString()).toBe("a".repeat(1000) + "\n");
    }
    expect((await ask("gzip, zstd")).encoding).toBe("zstd");
    expect((await ask("gzip;q=0, br")).encoding).toBeUndefined();
    expect((await ask("gzip", "")).encoding).toBeUndefined();
    const packed = gzipSync("SELECT 5");
    const headers = { "content-encoding": "gzip" };
    expect(await (await get({}, { method: "POST", body: packed, headers })).text()).toBe("5\n");
    expect((await get({}, { method: "POST", body: "x", headers })).status).toBe(400);
    expect((await get({ query: "SELECT 1", compress: "1" })).status).toBe(501);
  });
  test("settings that lower a limit or shape the answer are applied", async () => {
    expect(await (await get({ query: "SELECT number FROM numbers(10)", limit: "2" })).text())
      .toBe("0\n1\n");
    const over = await get({ query: "SELECT number FROM numbers(10)", max_result_rows: "5" });
    expect([over.status, over.headers.get("x-clickhouse-exception-code")]).toEqual([413, "396"]);
    const read = await get({
      query: "SELECT sum(number) FROM numbers(1000000)",
      max_rows_to_read: "1000",
    });
    expect(await read.text()).toMatch(/^Code: 158\. DB::Exception: .*\(TOO_MANY_ROWS\)/);
    const memory = await get({
      query: "SELECT uniqExact(number) FROM numbers(3000000)",
      max_memory_usage: "10000000",
    });
    expect(await memory.text()).toMatch(/^Code: 241\. .*MEMORY_LIMIT_EXCEEDED/);
    const slow = await get({
      query: "SELECT sum(sleepEachRow(0.1)) FROM numbers(100)",
      max_execution_time: "1",
      max_block_size: "1",
    });
    expect([slow.status, await slow.text()]).toEqual([
      408,
      expect.stringMatching(/^Code: 159\. .*TIMEOUT_EXCEEDED/),
    ]);
    // More than ours is not to be had.
    const known = new Set(["max_result_rows", "max_insert_block_size"]);
    expect(settingsOf([["max_result_rows", "99999999999"], ["max_result_rows", "0"]], known))
      .toEqual({});
    expect(() => settingsOf([["max_insert_block_size", "1"]], known)).toThrow(/Code: 164/);
    expect(() => settingsOf([["no_such", "1"]], known)).toThrow(/Code: 115/);
    expect(() => settingsOf([["limit", "1 --readonly=0;"]], new Set(["limit"]))).toThrow(
      /Code: 36/,
    );
  });
  test("beyond the loopback a user and a password are needed", () => {
    const environment = (values: Record<string, string>) => ({
      get: (name: string) => values[name],
    });
    expect(credentialsFor("127.0.0.1", environment({}))).toBeUndefined();
    expect(() => credentialsFor("0.0.0.0", environment({}))).toThrow(
      /^Cannot listen on 0\.0\.0\.0: .*SDPG_CLICKHOUSE_USER/,
    );
    const expected = credentialsFor(
      "0.0.0.0",
      environment({ SDPG_CLICKHOUSE_USER: "ü", SDPG_CLICKHOUSE_PASSWORD: "p:q" }),
    )!;
    const may = (headers: Record<string, string>, query = "") => {
      const url = new URL(`http://host/?${query}`);
      return mayEnter(new Request(url, { headers }), url, expected);
    };
    const basic = (text: string) => ({
      authorization: `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(text)))}`,
    });
    expect(may(basic("ü:p:q"))).toBe(true);
    expect(may({ "x-clickhouse-key": "p:q" }, "user=%C3%BC")).toBe(true);
    expect(may({}, "user=%C3%BC&password=p:q")).toBe(true);
    expect(may({})).toBe(false);
    expect(may(basic("ü:p"))).toBe(false);
    expect(may(basic("u:p:q"))).toBe(false);
    expect(may({ authorization: "Basic !" }, "user=%C3%BC")).toBe(false);
  });
});
