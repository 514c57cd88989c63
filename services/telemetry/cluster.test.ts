// Statements of migrations as a cluster gets them. No cluster is at hand: the engine parses every one of
// them, and what it writes down again is what is looked at.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Session } from "chdb";
import { logger } from "@sdpg/common/log.ts";
import { EngineBehindHttp } from "./engine_for_tests.ts";
import { type Cluster, clusterFrom, onCluster } from "./cluster.ts";
import { Ingest } from "./ingest.ts";
import { migrate, readMigrations, schemaVersion } from "./migrate.ts";
import { Spool } from "./spool.ts";
import { openServer } from "./store.ts";

let directory: string;
let session: Session;
beforeAll(() => {
  directory = Deno.makeTempDirSync({ prefix: "sdpg-cluster-" });
  session = new Session(`${directory}/store`);
});
afterAll(() => {
  session.close();
  Deno.removeSync(directory, { recursive: true });
});

/** The statement as the engine understood it; throws its syntax error. */
async function parsed(sql: string): Promise<string> {
  const text = sql.replace(/[\\']/g, "\\$&");
  const answer = await session.queryAsync(`SELECT formatQuerySingleLine('${text}')`, {
    format: "TSVRaw",
  });
  return new TextDecoder().decode(answer.bytes()).trim();
}

const statements = [
  ["database", "CREATE DATABASE IF NOT EXISTS sdpg"],
  ["schema_version", schemaVersion],
  ...readMigrations().flatMap(({ name, statements }) =>
    statements.map((statement) => [`${name}: ${statement.split("\n")[0]}`, statement])
  ),
] as [string, string][];

describe.each<[string, Cluster]>([
  ["on a cluster", { name: "main-1", replicated: false }],
  ["on a replicated cluster", { name: "main-1", replicated: true }],
])("%s", (_, cluster) => {
  test.each(statements)("%s", async (_, statement) => {
    const plain = await parsed(statement);
    const there = await parsed(onCluster(statement, cluster));
    if (/^(INSERT|SYSTEM)/.test(statement)) return expect(there).toBe(plain);
    // Taken back piece by piece, nothing but what was wanted has changed.
    expect(there).toMatch(/^(CREATE|ALTER|DROP) .*? ON CLUSTER `main-1`/);
    let back = there.replace(" ON CLUSTER `main-1`", "");
    const engines = plain.match(/ENGINE = \w*MergeTree/g) ?? [];
    if (cluster.replicated) {
      const places =
        /Replicated(\w*MergeTree)\('\/clickhouse\/tables\/\{shard\}\/\{database\}\/\{table\}\/\{uuid\}', '\{replica\}'\)/g;
      expect([...there.matchAll(places)].map(([, engine]) => `ENGINE = ${engine}`)).toEqual(
        engines,
      );
      back = back.replace(places, "$1");
      if (plain.includes("deduplication_window")) {
        const windows =
          "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800";
        expect(there).toContain(` ${windows}`);
        back = back.replace(windows, "non_replicated_deduplication_window = 10000");
      }
    } else {
      expect(there).not.toContain("Replicated");
    }
    expect(back).toBe(plain);
  });
});

describe("what has no form on a cluster is refused", () => {
  test.each([
    ["RENAME TABLE a TO b", /expected CREATE DATABASE, TABLE, .*came "RENAME TABLE a TO b"/],
    ["CREATE TABLE a (x UInt8) ENGINE = Log", /"CREATE TABLE a" has an engine or a setting/],
    [
      "ALTER TABLE a MODIFY SETTING non_replicated_deduplication_window = 1, non_replicated_x = 2",
      /has an engine or a setting/,
    ],
  ])("%s", (statement, reason) => {
    expect(() => onCluster(statement, { name: "c", replicated: true })).toThrow(reason);
  });
});

describe("clusterFrom()", () => {
  const from = (values: Record<string, string>) => clusterFrom(new Map(Object.entries(values)));
  const url = { SDPG_CLICKHOUSE_URL: "http://h" };
  test("reads name and replication", () => {
    expect(from({})).toBeUndefined();
    expect(from({ SDPG_CLICKHOUSE_REPLICATED: "0" })).toBeUndefined();
    expect(from({ ...url, SDPG_CLICKHOUSE_CLUSTER: "a-1" })).toEqual({
      name: "a-1",
      replicated: false,
    });
    expect(from({ ...url, SDPG_CLICKHOUSE_CLUSTER: "a", SDPG_CLICKHOUSE_REPLICATED: "1" }))
      .toEqual({ name: "a", replicated: true });
  });
  test.each([
    [{ SDPG_CLICKHOUSE_REPLICATED: "1" }, /alone: set SDPG_CLICKHOUSE_CLUSTER/],
    [{ SDPG_CLICKHOUSE_REPLICATED: "yes" }, /"yes": expected 0 or 1/],
    [{ SDPG_CLICKHOUSE_CLUSTER: "a" }, /without SDPG_CLICKHOUSE_URL/],
    [{ ...url, SDPG_CLICKHOUSE_CLUSTER: "a`; DROP" }, /expected the name of a cluster/],
  ])("refuses %o in one line", (values, reason) => {
    expect(() => from(values as Record<string, string>)).toThrow(reason);
  });
});

test("a replicated cluster is migrated, and asked for a quorum and for what all replicas have", async () => {
  const engine = new EngineBehindHttp(`${directory}/store`); // a process has one directory;
  const cluster = { name: "c", replicated: true };
  const store = await openServer(engine.url, cluster);
  await migrate(store, readMigrations(), cluster);
  const { spool } = Spool.open(`${directory}/spool`);
  for (let i = 0; i < 2; i++) { // the second time it looks for what is there
    const ingest = new Ingest(store, spool, logger("test"));
    await ingest.add(({ scalars }) => {
      scalars.put(["run", 1, "a", 1, 1, 1, 0, 1, 0, "1700000000.000000001"]);
      return {};
    });
    await ingest.stop();
  }
  expect(await store.rows("SELECT toUInt32(count()) AS n FROM scalars")).toEqual([{ n: 1 }]);
  const sent = engine.seen.map(({ searchParams }) => searchParams);
  const inserts = sent.filter((at) => at.get("query")?.startsWith("INSERT"));
  expect(inserts.length).toBeGreaterThan(1);
  for (const at of inserts) {
    expect([at.get("insert_quorum"), at.get("insert_quorum_parallel")]).toEqual(["auto", "0"]);
  }
  expect(sent.filter((at) => at.get("select_sequential_consistency") === "1").length)
    .toBeGreaterThan(1);
  await store.close();
  await engine.close();
});
