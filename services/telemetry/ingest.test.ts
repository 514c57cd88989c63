// Exactly one row, whatever is sent again: against the real engine, in this process.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodeLogs, encodeLogs, type LogEvent, MalformedOtlp } from "@sdpg/common/otlp.ts";
import { logger } from "@sdpg/common/log.ts";
import { Busy, Ingest, type IngestLimits } from "./ingest.ts";
import { migrate, type Migration, readMigrations, splitStatements } from "./migrate.ts";
import { studentT975, summary } from "@sdpg/common/student.ts";
import { type Rows, rowsOf } from "./rows.ts";
import { type Part, Spool } from "./spool.ts";
import { EngineError, linesOf, type Store } from "./store.ts";
import { openTestStore } from "./store_for_tests.ts";

let directory: string;
let store: Store;
beforeAll(async () => {
  directory = Deno.makeTempDirSync({ prefix: "sdpg-ingest-" });
  store = await openTestStore(directory);
  await migrate(store, readMigrations());
});
afterAll(async () => {
  await store.close();
  Deno.removeSync(directory, { recursive: true });
});

let clock = 1_700_000_000_000_000_000n;
const iteration = (runId: string, n: number, scalars: Record<string, number>): LogEvent => ({
  eventName: "rl.iteration",
  timeUnixNano: clock++,
  attributes: {
    "rl.run.id": runId,
    "rl.iteration": BigInt(n),
    "rl.env_steps.nominal": BigInt(n * 64),
    "rl.env_steps.total": BigInt(n * 4096),
    "rl.images": 0n,
    "rl.wall_time": n / 2,
    "rl.gpu_seconds": 0,
    "rl.scalars": scalars,
  },
});
const state = (runId: string, sequence: number, name: string, more = {}): LogEvent => ({
  eventName: "rl.run",
  timeUnixNano: clock++,
  attributes: {
    "rl.run.id": runId,
    "rl.sequence": BigInt(sequence),
    "rl.run.state": name,
    ...more,
  },
});
const annotation = (runId: string, sequence: number, of: LogEvent["attributes"]): LogEvent => ({
  eventName: "rl.annotation",
  timeUnixNano: clock++,
  attributes: { "rl.run.id": runId, "rl.sequence": BigInt(sequence), ...of },
});
const rows = (events: LogEvent[], source = "sender-1") =>
  rowsOf(decodeLogs(JSON.parse(encodeLogs({ "service.instance.id": source }, events))));
const one = async (sql: string) => (await store.rows<Record<string, unknown>>(sql))[0];
/** An ingest that puts rows of events into a store and says when they are there. */
class TestIngest extends Ingest {
  constructor(limits: Partial<IngestLimits> = {}, behind = store, spool = newSpool()) {
    const log = logger("test", {}, () => {});
    super(behind, spool, log, { intervalMs: 0, insertIntervalMs: 0, ...limits });
  }
  async put(rows: Rows): Promise<void> {
    await this.add(() => ({ rows }));
    await this.settled();
  }
}
let spools = 0;
const newSpool = () => Spool.open(`${directory}/spool-${spools++}`).spool;
const ingest = (limits: Partial<IngestLimits> = {}) => new TestIngest(limits);

describe("scalars", () => {
  test("the same request twice is stored once", async () => {
    const service = ingest();
    const events = [1, 2, 3].map((n) => iteration("twice", n, { a: n, b: -n }));
    await service.put(rows(events));
    await service.put(rows(events));
    await service.stop();
    expect(service.counts).toMatchObject({ stored: 6, repeated: 6 });
    expect(await one("SELECT count() AS n, sum(value) AS s FROM scalars WHERE run_id = 'twice'"))
      .toEqual({ n: 6, s: 0 });
  });
  test("a replay after a resume keeps the first rows and adds only what is new", async () => {
    const first = ingest();
    await first.put(rows([1, 2, 3, 4, 5].map((n) => iteration("replay", n, { a: n }))));
    await first.stop();
    const second = ingest(); // another process: nothing remembered but the store
    const again = [3, 4, 5, 6].map((n) => iteration("replay", n, { a: n + 100, late: n }));
    await second.put(rows(again));
    await second.put(rows(again.slice(2)));
    await second.stop();
    expect(
      await one(
        "SELECT groupArray(value) AS v FROM (SELECT value FROM scalars WHERE run_id = 'replay' " +
          "AND name = 'a' ORDER BY iteration)",
      ),
    ).toEqual({ v: [1, 2, 3, 4, 5, 106] });
    expect(await one("SELECT count() AS n FROM scalars WHERE run_id = 'replay' AND name = 'late'"))
      .toEqual({ n: 4 });
  });
  test("a list of runs reads their newest numbers, not all scalars, and finds the same", async () => {
    const service = ingest();
    for (const run of ["newest-a", "newest-b"]) {
      for (let n = 1; n <= 3; n++) {
        await service.put(rows([iteration(run, n, { "rewards": n * n, "a": -n })]));
      }
    }
    await service.put(rows([iteration("newest-b", 4, { a: 0 })])); // an epoch without a return
    await service.stop();
    const ask = (settings: string) =>
      store.rows(
        "SELECT run_id, max(iteration) AS epochs, max(wall_time_s) AS s, max(env_steps_total) AS n, " +
          "max(images_rendered) AS i, argMaxOrNullIf(value, iteration, name = 'rewards') AS r " +
          `FROM scalars WHERE run_id LIKE 'newest-%' GROUP BY run_id ORDER BY run_id SETTINGS ${settings}`,
      );
    const newest = await ask("force_optimize_projection_name = 'newest'");
    expect(newest).toEqual([
      { run_id: "newest-a", epochs: 3, s: 1.5, n: 12288, i: 0, r: 9 },
      { run_id: "newest-b", epochs: 4, s: 2, n: 16384, i: 0, r: 9 },
    ]);
    expect(await ask("optimize_use_projections = 0")).toEqual(newest);
    for (const view of ["run_progress", "throughput"]) {
      await one(
        `SELECT count() FROM ${view} WHERE epochs > 0 SETTINGS force_optimize_projection_name = 'newest'`,
      );
    }
  });
  test("names with quotes and backslashes are told apart", async () => {
    const names = { "it's": 1, "back\\slash": 2, 'say "x"': 3, "back": 4, "tab\t": 5 };
    for (let i = 0; i < 2; i++) {
      const service = ingest();
      await service.put(rows([iteration("names", 1, names)]));
      await service.stop();
      expect(service.counts).toMatchObject(i === 0 ? { stored: 5 } : { stored: 0, repeated: 5 });
    }
  });
  test("repetitions within one request and across requests that wait together are stored once", async () => {
    const service = ingest({ intervalMs: 50 });
    await service.put(rows([iteration("warm", 1, { a: 0 })]));
    const same = iteration("together", 1, { a: 1 });
    await Promise.all([service.put(rows([same, same])), service.put(rows([same]))]);
    await service.stop();
    expect(await one("SELECT count() AS n FROM scalars WHERE run_id = 'together'"))
      .toEqual({ n: 1 });
  });
  test("late iterations are welcome and keep their place", async () => {
    const service = ingest();
    await service.put(rows([iteration("late", 10, { a: 10 })]));
    await service.put(rows([iteration("late", 3, { a: 3 })]));
    await service.stop();
    expect(
      await one(
        "SELECT groupArray(iteration) AS i FROM (SELECT iteration FROM scalars " +
          "WHERE run_id = 'late' ORDER BY iteration)",
      ),
    ).toEqual({ i: [3, 10] });
  });
  test("an insert whose answer is lost is neither lost nor doubled", async () => {
    let lost = 0;
    const losing = behind("insertBlock", async (insert) => {
      await insert();
      if (lost++ < 2) throw new Error("connection reset"); // after the commit
    });
    const service = new TestIngest({ awayMs: { first: 10, last: 10 } }, losing);
    const events = [iteration("ambiguous", 1, { a: 1 }), iteration("ambiguous", 2, { a: 2 })];
    await service.put(rows(events));
    await service.put(rows([...events, iteration("ambiguous", 3, { a: 3 })]));
    await service.stop();
    expect(lost).toBe(2);
    expect(
      await one("SELECT count() AS n, sum(value) AS s FROM scalars WHERE run_id = 'ambiguous'"),
    )
      .toEqual({ n: 3, s: 6 });
  });
  test("values that JSON cannot hold arrive as they are", async () => {
    const service = ingest();
    await service.put(
      rows([iteration("words", 1, { a: NaN, b: Infinity, c: -Infinity, d: 5e-324, e: 0.1 })]),
    );
    await service.stop();
    expect(
      await one(
        "SELECT groupArray(toString(value)) AS v FROM (SELECT value FROM scalars " +
          "WHERE run_id = 'words' ORDER BY name)",
      ),
    ).toEqual({ v: ["nan", "inf", "-inf", "5e-324", "0.1"] });
  });
});

describe("other tables", () => {
  test("an evaluation is one row with its episodes, however often it is sent", async () => {
    const service = ingest();
    const evaluation: LogEvent = {
      ...iteration("evaluated", 7, {}),
      eventName: "rl.evaluation",
    };
    evaluation.attributes["rl.scalars"] = undefined;
    evaluation.attributes["rl.returns"] = [10, 20, 30];
    evaluation.attributes["rl.lengths"] = [1n, 2n, 3n];
    await service.put(rows([evaluation]));
    await service.put(rows([evaluation]));
    await service.stop();
    expect(
      await one(
        "SELECT count() AS n, any(episodes) AS e, any(return_mean) AS m, any(return_std) AS s, " +
          "any(length_mean) AS l FROM evaluations WHERE run_id = 'evaluated'",
      ),
    ).toEqual({ n: 1, e: 3, m: 20, s: 10, l: 2 });
    expect(
      await one("SELECT count() AS n, sum(return) AS r FROM episodes WHERE run_id = 'evaluated'"),
    ).toEqual({ n: 3, r: 60 });
  });
  test("states keep their order of arrival; a run shows its newest and what was known before", async () => {
    const service = ingest();
    await service.put(rows([
      state("states", 1, "started", { "rl.task": "hopper", "rl.seed": (1n << 64n) - 1n }),
      state("states", 2, "running"),
    ]));
    const again = ingest(); // after a restart
    const failed = state("states", 3, "failed", { "rl.reason": "gpu-sim is gone" });
    await again.put(rows([state("states", 2, "running"), failed]));
    await again.put(rows([state("states", 1, "running")], "sender-2")); // resumed by a new process
    await Promise.all([service.stop(), again.stop()]);
    expect(
      await one(
        "SELECT groupArray(state) AS s FROM (SELECT state FROM run_states " +
          "WHERE run_id = 'states' ORDER BY position)",
      ),
    ).toEqual({ s: ["started", "running", "failed", "running"] });
    expect(
      await one(
        "SELECT task, toString(seed) AS seed, state, reason FROM runs WHERE run_id = 'states'",
      ),
    ).toEqual({ task: "hopper", seed: "18446744073709551615", state: "running", reason: "" });
  });
});

/** The store with one of its methods in other hands. */
function behind(
  name: "insert" | "insertBlock",
  work: (call: () => Promise<void>) => Promise<void>,
): Store {
  return new Proxy(store, {
    get(target, member) {
      const found = Reflect.get(target, member);
      if (typeof found !== "function") return found;
      return (...args: unknown[]) => {
        const call = () => found.apply(target, args);
        return member === name ? work(call) : call();
      };
    },
  });
}

describe("the way through the spool", () => {
  test("what came within a while is one insert, and a question does not wait for the while", async () => {
    const service = new TestIngest({ insertIntervalMs: 3_600_000 });
    for (let n = 1; n <= 20; n++) {
      await service.add(() => ({ rows: rows([iteration("group", n, { a: n })]) }));
    }
    expect(service.spooledRows).toBe(20);
    await service.settled(); // an hour, if it waited for the while
    expect(service.counts).toMatchObject({ stored: 20, commits: 1 });
    await service.stop();
  });
  test("what a service left in its spool is stored by the next one, once", async () => {
    const spool = newSpool();
    const events = [iteration("left", 1, { a: 1 }), iteration("left", 2, { a: 2, b: 3 })];
    const lost = new TestIngest(
      { awayMs: { first: 3_600_000, last: 3_600_000 } },
      behind("insertBlock", async (insert) => {
        await insert();
        throw new Error("killed");
      }),
      spool,
    );
    await lost.put(rows(events));
    expect(lost.away).toBe(true);
    const next = new TestIngest({}, store, spool);
    await next.settled();
    await Promise.all([next.stop(), lost.stop()]);
    expect(await one("SELECT count() AS n, sum(value) AS s FROM scalars WHERE run_id = 'left'"))
      .toEqual({ n: 3, s: 6 });
  });
  test("rows that the store refuses for ever are set aside, and the others are stored", async () => {
    const spool = newSpool();
    let refused = 0;
    const refusing = behind("insert", () => {
      refused++;
      return Promise.reject(new EngineError(117, "Code: 117. DB::Exception: no. (INCORRECT_DATA)"));
    });
    const service = new TestIngest({}, refusing, spool);
    await service.put(
      rows([iteration("aside", 1, { a: 1 }), state("aside", 1, "started")], "sender-3"),
    );
    await service.stop();
    expect([refused, spool.pendingRows]).toEqual([1, 0]);
    expect(await one("SELECT count() AS n FROM scalars WHERE run_id = 'aside'")).toEqual({ n: 1 });
    const [file] = [...Deno.readDirSync(`${directory}/spool-${spools - 1}`)]
      .map(({ name }) => name).filter((name) => name.endsWith(".refused"));
    expect(file).toMatch(/^run_states-/);
    expect(Deno.readTextFileSync(`${directory}/spool-${spools - 1}/${file}`)).toContain(
      '"started"',
    );
  });
  test("lines of JSON in the spool of an earlier checkout are stored", async () => {
    const spool = newSpool();
    const scalars = rows([iteration("earlier", 1, { a: NaN, b: 2 })]).scalars;
    const parts: Part[] = [
      {
        table: "scalars",
        rows: 2,
        format: "JSONCompactEachRow",
        bytes: linesOf(scalars.map(({ cells }) => cells)),
      },
    ];
    await spool.append(["a"], parts);
    await spool.append(["b"], parts);
    const service = new TestIngest({}, store, spool);
    await service.settled();
    await service.stop();
    expect(
      await one(
        "SELECT count() AS n, sumIf(value, isFinite(value)) AS s FROM scalars WHERE run_id = 'earlier'",
      ),
    ).toEqual({ n: 2, s: 2 });
  });
});

describe("annotations", () => {
  test("are stored once, and the latest of the same thing holds, whenever it comes", async () => {
    const service = ingest();
    const said = [
      annotation("said", 1, { "rl.tag": "old" }),
      annotation("said", 2, { "rl.tag": "sweep" }),
      annotation("said", 3, { "rl.note": "first" }),
      annotation("said", 4, { "rl.tag": "old", "rl.tag.removed": true }),
      annotation("said", 5, { "rl.note": "second" }),
    ];
    const late = annotation("said", 1, { "rl.tag": "sweep", "rl.tag.removed": true });
    late.timeUnixNano = said[0].timeUnixNano;
    await service.put(rows([state("said", 1, "done")], "trainer"));
    await service.put(rows(said.slice(0, 3)));
    await service.put(rows(said));
    const restarted = ingest();
    await restarted.put(rows(said));
    await restarted.stop();
    await service.put(rows([late], "sender-2"));
    await service.stop();
    expect(await one("SELECT count() AS n FROM annotations WHERE run_id = 'said'"))
      .toEqual({ n: 6 });
    expect(await one("SELECT state, tags, note FROM runs WHERE run_id = 'said'"))
      .toEqual({ state: "done", tags: ["sweep"], note: "second" });
  });
});

describe("limits", () => {
  test("a full queue refuses with Busy and takes rows again when there is room", async () => {
    const service = ingest({ maxWaitingRows: 3, intervalMs: 20 });
    const events = (n: number) => rows([iteration(`full-${n}`, 1, { a: 1, b: 2 })]);
    const first = service.put(events(1));
    await expect(service.put(events(2))).rejects.toBeInstanceOf(Busy);
    await first;
    await service.put(events(2));
    await service.stop();
    await expect(service.put(events(3))).rejects.toBeInstanceOf(Busy);
    expect(await one("SELECT count() AS n FROM scalars WHERE run_id LIKE 'full-%'"))
      .toEqual({ n: 4 });
  });
});

describe("rowsOf() refuses", () => {
  const good = () => iteration("good", 1, { a: 1 });
  const cases: [string, LogEvent, RegExp][] = [
    ["an unknown event", { ...good(), eventName: "rl.iteratoin" }, /unknown event.*"rl.iteration"/],
    [
      "a run name that is a path",
      withAttribute("rl.run.id", "../etc"),
      /rl\.run\.id, came \.\.\/etc/,
    ],
    ["a missing axis", withAttribute("rl.wall_time", undefined), /rl\.wall_time, came nothing/],
    ["a negative iteration", withAttribute("rl.iteration", -1n), /rl\.iteration, came -1/],
    ["a fraction of a step", withAttribute("rl.env_steps.total", 1.5), /came 1\.5/],
    ["a wall time that is no number", withAttribute("rl.wall_time", NaN), /finite number/],
    ["scalars that are no map", withAttribute("rl.scalars", 3), /kvlistValue/],
    ["no scalars", withAttribute("rl.scalars", {}), /1 to 2000 values/],
    ["a scalar that is a text", withAttribute("rl.scalars", { a: "1" }), /a number for "a"/],
    ["an unknown state", state("good", 1, "paused"), /one of started, running/],
    ["a state without sequence", state("good", 0, "done"), /rl\.sequence/],
    [
      "a tag of two words",
      annotation("good", 1, { "rl.tag": "a b" }),
      /letters.*rl\.tag, came a b/,
    ],
    ["nothing said of a run", annotation("good", 1, {}), /either a tag or rl\.note/],
    [
      "a tag and a note in one",
      annotation("good", 1, { "rl.tag": "a", "rl.note": "b" }),
      /either a tag or rl\.note/,
    ],
    [
      "a tag removed by a text",
      annotation("good", 1, { "rl.tag": "a", "rl.tag.removed": "yes" }),
      /true or false in rl\.tag\.removed/,
    ],
    [
      "a note without end",
      annotation("good", 1, { "rl.note": "x".repeat(4001) }),
      /at most 4000 characters/,
    ],
  ];
  function withAttribute(name: string, value: LogEvent["attributes"][string]): LogEvent {
    const event = good();
    return { ...event, attributes: { ...event.attributes, [name]: value } };
  }
  test.each(cases)("%s", (_, event, reason) => {
    expect(() => rows([good(), event])).toThrow(reason);
    expect(() => rows([good(), event])).toThrow(MalformedOtlp);
  });
  test.each([
    ["a list", []],
    ["no lists inside", { resourceLogs: 3 }],
    ["a record without time", logs([{ eventName: "rl.run" }])],
    ["a time that is a fraction", logs([{ eventName: "rl.run", timeUnixNano: "1.5" }])],
    [
      "an attribute twice",
      logs([record([pair("a", { intValue: 1 }), pair("a", { intValue: 1 })])]),
    ],
    ["two types in one value", logs([record([pair("a", { intValue: 1, stringValue: "" })])])],
    ["an integer that is none", logs([record([pair("a", { intValue: "1e3" })])])],
    ["a double that is a word", logs([record([pair("a", { doubleValue: "nan?" })])])],
  ])("%s", (_, body) => {
    expect(() => decodeLogs(body)).toThrow(MalformedOtlp);
  });
  function logs(logRecords: unknown[]) {
    return { resourceLogs: [{ scopeLogs: [{ logRecords }] }] };
  }
  function record(attributes: unknown[]) {
    return { eventName: "rl.run", timeUnixNano: "1", attributes };
  }
  function pair(key: string, value: unknown) {
    return { key, value };
  }
  test("a name such as __proto__ is only a name", () => {
    const decoded = decodeLogs(logs([record([pair("__proto__", { stringValue: "x" })])]));
    expect(Object.keys(decoded[0].attributes)).toEqual(["__proto__"]);
    expect(({} as Record<string, unknown>).x).toBeUndefined();
  });
});

describe("migrate()", () => {
  test("is done once and leaves a migrated store alone", async () => {
    expect(await migrate(store, readMigrations())).toBe(readMigrations().at(-1)!.version);
    expect(await one("SELECT count() AS n FROM schema_version"))
      .toEqual({ n: readMigrations().length });
  });
  test("applies a new migration, again after a cut, and refuses a store that is newer", async () => {
    const known = readMigrations();
    const next: Migration = {
      version: known.at(-1)!.version + 3,
      name: "later",
      statements: ["CREATE TABLE IF NOT EXISTS later (a UInt8) ENGINE = MergeTree ORDER BY a"],
    };
    const cut: Migration = { ...next, statements: [...next.statements, "SELECT throwIf(1)"] };
    await expect(migrate(store, [...known, cut])).rejects.toThrow(/FUNCTION_THROW_IF/);
    expect(await migrate(store, [...known, next])).toBe(next.version);
    await expect(migrate(store, known)).rejects.toThrow(
      `it has schema version ${next.version}, which this checkout does not know; update the checkout`,
    );
    // One that another branch brings later, into a gap.
    const between: Migration = { ...next, version: next.version - 1, name: "between" };
    expect(await migrate(store, [...known, between, next])).toBe(next.version);
    expect(await one(`SELECT groupArray(name) AS n FROM schema_version WHERE name = 'between'`))
      .toEqual({ n: ["between"] });
    await store.command("DROP TABLE later");
    await store.command("DELETE FROM schema_version WHERE name IN ('later', 'between')");
  });
  test("a store from before annotations keeps its runs, with nothing said of them", async () => {
    // One engine has one store: this one is taken back to what it was then.
    await store.command("DROP VIEW run_annotations");
    await store.command("DROP TABLE annotations");
    for (const { version, statements } of readMigrations()) {
      if (version < 20) { for (const statement of statements) await store.command(statement); }
    }
    await store.command("DELETE FROM schema_version WHERE version >= 20");
    const service = ingest();
    await service.put(
      rows([state("before", 1, "done", { "rl.task": "hopper" })], "trainer-before"),
    );
    await service.stop();
    await migrate(store, readMigrations());
    expect(await one("SELECT task, state, tags, note FROM runs WHERE run_id = 'before'"))
      .toEqual({ task: "hopper", state: "done", tags: [], note: "" });
    expect(await one("SELECT tags, wall_time_s FROM run_progress WHERE run_id = 'before'"))
      .toEqual({ tags: [], wall_time_s: 0 });
  });
  test("readMigrations() refuses a number that is there twice and a name that is no migration", () => {
    const folder = Deno.makeTempDirSync({ prefix: "sdpg-migrations-" });
    const read = () => readMigrations(new URL(`file://${folder}/`));
    Deno.writeTextFileSync(`${folder}/001_a.sql`, "SELECT 1;");
    Deno.writeTextFileSync(`${folder}/003_b.sql`, "SELECT 1;");
    expect(read().map(({ version }) => version)).toEqual([1, 3]);
    Deno.writeTextFileSync(`${folder}/003_c.sql`, "SELECT 1;");
    expect(read).toThrow("Cannot use migrations b and c: both have the number 3");
    Deno.writeTextFileSync(`${folder}/4_d.sql`, "SELECT 1;");
    expect(read).toThrow("Cannot use migration 4_d.sql: expected NNN_name.sql");
    Deno.removeSync(folder, { recursive: true });
  });
  test("splitStatements() drops comments and keeps semicolons inside a line", () => {
    expect(splitStatements("-- a; b\nSELECT ';x';\n  -- c\nSELECT\n 2;\n")).toEqual([
      "SELECT ';x'",
      "SELECT\n 2",
    ]);
  });
});

describe("summary()", () => {
  test("agrees with a table of Student's t", () => {
    const table: [number, number][] = [
      [1, 12.706],
      [2, 4.303],
      [3, 3.182],
      [4, 2.776],
      [7, 2.365],
      [
        15,
        2.131,
      ],
      [30, 2.042],
      [100, 1.984],
    ];
    for (const [df, t] of table) expect(studentT975(df) / t).toBeCloseTo(1, 2);
  });
  test("a single value has no spread", () => {
    expect(summary([4])).toEqual({ mean: 4, std: NaN, ci95: NaN });
  });
});
