// The store on a ClickHouse server (SDPG_CLICKHOUSE_URL). With SDPG_TEST_CLICKHOUSE_URL the server is a
// real one; without it, the engine in this process is put behind the part of ClickHouse's HTTP
// interface that the client uses, so that what we send is still parsed and executed by the engine.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeLogs, encodeLogs } from "@sdpg/common/otlp.ts";
import { logger } from "@sdpg/common/log.ts";
import { EngineBehindHttp } from "./engine_for_tests.ts";
import { Ingest } from "./ingest.ts";
import { migrate, readMigrations } from "./migrate.ts";
import { rowsOf } from "./rows.ts";
import { Spool } from "./spool.ts";
import { EngineError, openServer, type Store } from "./store.ts";

const real = Deno.env.get("SDPG_TEST_CLICKHOUSE_URL");
const directory = Deno.makeTempDirSync({ prefix: "sdpg-server-store-" });
const runId = `server-${crypto.randomUUID().slice(0, 8)}`;
let url = real ?? "";
let engine: EngineBehindHttp | undefined;
let store: Store;

beforeAll(async () => {
  if (!real) {
    engine = new EngineBehindHttp(directory);
    url = engine.url;
  }
  store = await openServer(url);
  await migrate(store, readMigrations());
});
afterAll(async () => {
  await store.close();
  await engine?.close();
  Deno.removeSync(directory, { recursive: true });
});

const iterations = (from: number, to: number) =>
  rowsOf(decodeLogs(JSON.parse(encodeLogs(
    { "service.instance.id": "s" },
    Array.from({ length: to - from + 1 }, (_, i) => ({
      eventName: "rl.iteration",
      timeUnixNano: 1_700_000_000_000_000_000n + BigInt(i),
      attributes: {
        "rl.run.id": runId,
        "rl.iteration": BigInt(from + i),
        "rl.env_steps.nominal": 1n,
        "rl.env_steps.total": 2n,
        "rl.images": 0n,
        "rl.wall_time": 0.5,
        "rl.gpu_seconds": 0,
        "rl.scalars": { "it's": from + i, bad: NaN },
      },
    })),
  ))));

describe("a ClickHouse server", () => {
  test("takes rows exactly once, as the embedded store does", async () => {
    const { spool } = Spool.open(`${directory}/spool`);
    for (const rows of [iterations(1, 5), iterations(3, 8)]) {
      const ingest = new Ingest(store, spool, logger("test"));
      await ingest.add(() => ({ rows }));
      await ingest.stop();
    }
    const [row] = await store.rows<Record<string, unknown>>(
      "SELECT toUInt32(count()) AS n, toUInt32(uniqExact(iteration, name)) AS u, " +
        "sumIf(value, name = 'it''s') AS s FROM scalars WHERE run_id = {run:String}",
      { run: runId },
    );
    expect(row).toEqual({ n: 16, u: 16, s: 36 });
  });
  test("answers questions in a read-only session with limits", async () => {
    const answer = await store.ask({
      sql: "SELECT {t:String} AS t, {l:Array(String)} AS l, count() > 0 AS some FROM scalars",
      format: "JSONCompactEachRow",
      parameters: { t: "it\\'s", l: "['it\\'s','b']" },
    });
    expect(JSON.parse(new TextDecoder().decode(answer.bytes))).toEqual(["it's", ["it's", "b"], 1]);
    await expect(store.ask({ sql: "DROP TABLE scalars", format: "TSV", parameters: {} }))
      .rejects.toMatchObject({ name: "EngineError", code: 164 });
    if (engine) {
      const settings = engine.seen.findLast((at) =>
        at.searchParams.get("readonly") === "1"
      )!.searchParams;
      expect(settings.get("max_execution_time")).toBe("60");
      expect(settings.get("default_format")).toBe("TSV");
    }
  });
  test("its errors keep their code, and its address hides the password", async () => {
    await expect(store.command("SELECT * FROM nothing")).rejects.toBeInstanceOf(EngineError);
    await expect(store.command("SELECT * FROM nothing")).rejects.toMatchObject({ code: 60 });
    expect(store.place).not.toContain("secret");
    await expect(openServer("http://user:secret@127.0.0.1:1")).rejects.toThrow(
      /^Cannot reach ClickHouse at 127\.0\.0\.1:1 \(SDPG_CLICKHOUSE_URL\): (?!.*secret)/,
    );
    await expect(openServer("postgres://x")).rejects.toThrow("Cannot use SDPG_CLICKHOUSE_URL");
  });
});
