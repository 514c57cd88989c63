// Values of variables come from the address of a page (?var-run=…), so each may be anything. Here every
// variable of every statement gets hostile ones, through the same steps as in Grafana, and the telemetry
// service answers what it answers to the same value as a plain text: no row more, no statement more, nothing
// written, and nothing told but ClickHouse's word for a wrong value.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Panel } from "@grafana/grafana-foundation-sdk/dashboard";
import { encodeMetric } from "@sdpg/common/otlp.ts";
import { checkReadOnly } from "../services/telemetry/guard.ts";
import { seededRuns, seedRuns } from "../services/telemetry/seeded_for_tests.ts";
import { startTestService, type TestService } from "../services/telemetry/service_for_tests.ts";
import {
  type Asked,
  interpolate,
  opened,
  sentBy,
  type Value,
  type Values,
} from "./grafana_for_tests.ts";
import { dashboards } from "./all.ts";
import { fresh, seedMesh, send } from "./seeded_for_tests.ts";

const payloads = [
  "' OR 1=1 --",
  "' OR '1'='1",
  "') OR 1=1 --",
  "')) OR 1=1 --",
  "'))) OR 1=1 --",
  "' OR 1=1 #",
  "' OR 1=1 /*",
  "\\' OR 1=1 --",
  "\\') OR 1=1 --",
  "\\')) OR 1=1 --",
  "\\\\' OR 1=1 --",
  "\\",
  "\\\\",
  "'",
  "''",
  "'''",
  '"',
  "`",
  "`; DROP TABLE scalars",
  "'; DROP TABLE scalars; --",
  "}; DROP TABLE scalars; --",
  "; DROP TABLE scalars",
  "';\nDROP TABLE scalars;\n--",
  "'; INSERT INTO scalars SELECT * FROM scalars --",
  "'; ALTER TABLE runs DELETE WHERE 1 --",
  "'; SET readonly = 0; --",
  "' INTO OUTFILE '/tmp/x' --",
  "' UNION ALL SELECT run_id FROM runs --",
  "') UNION ALL SELECT name FROM system.tables --",
  "' UNION SELECT password FROM system.users --",
  "' FORMAT Native --",
  "' SETTINGS readonly = 0 --",
  "' LIMIT 0 --",
  "' AND (SELECT throwIf(1)) --",
  "' || (SELECT version()) || '",
  "file('/etc/passwd')",
  "' OR run_id IN (SELECT * FROM file('/etc/passwd')) --",
  "url('http://127.0.0.1/')",
  "{run:String}",
  "{x:Identifier}",
  "$__all'",
  "$__toTime",
  "$__fromTime",
  "$__timeFilter(time)",
  "$__timeInterval(time)",
  "$__interval_s",
  "$__conditionalAll(1=1, $run)",
  "$__unknown(",
  "${task}",
  "${run:raw}",
  "${datasource}",
  "$run",
  "[[run]]",
  "[[task:raw]]",
  "%27 OR 1=1 --",
  "%2527 OR 1=1 --",
  "%",
  "%zz",
  "‘ OR 1=1 --",
  "’ OR 1=1 --",
  "ʼ OR 1=1 --",
  "＇ OR 1=1 --",
  "“ OR 1=1 --",
  "\u0000' OR 1=1 --",
  "\n' OR 1=1 --",
  "\r\n' OR 1=1",
  "/* */ OR 1=1",
  "--",
  "-- \n OR 1=1",
  "1 OR 1=1",
  "0x27204f52",
  "wall_time_s) OR (1=1",
  "iteration, sleep(3)",
  "nan",
  "1e999",
  "é😀",
  " ",
  "a".repeat(5000) + "'",
];

/** Names that attack by being chosen, of tasks and services: a run's name is checked when it is stored. */
const named = [
  "\\' OR 1=1 --",
  "' OR 1=1 --",
  "'; DROP TABLE scalars; --",
  "$__toTime",
  "${task}x",
];

const nowS = Math.floor(Date.now() / 10_000) * 10;
let home: string;
let service: TestService;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-injection-" });
  service = await startTestService(home);
  await seedMesh(service.url, nowS);
  await seedRuns(
    service.url,
    named.map((task, i) => ({
      ...fresh(nowS),
      runId: `hostile-${i}`,
      task,
      seed: 100 + i,
      epochs: 10,
    })),
  );
  const startMs = (nowS - 600) * 1000;
  const threads = (value: number) =>
    encodeMetric({
      name: "process.thread.count",
      unit: "{thread}",
      kind: "gauge",
      value,
      startMs,
      timeMs: startMs + 300_000,
    });
  await send(
    service.url,
    "metrics",
    Object.fromEntries(named.map((name, i) => [name, [threads(100 + i)]])),
  );
});
afterAll(async () => {
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

const range: [number, number] = [(nowS - 700) * 1000, (nowS + 10) * 1000];
const asked = (dashboard: string, values: Values = {}) =>
  opened(dashboard, ["ant-now", "hopper-0", "walker-0"], range, {
    curve: "rewards",
    side: "server",
    ...values,
  });

/** A text as a literal of ClickHouse, escaped by hand: what the encoded value is compared with. */
const literal = (text: string) => `'${text.replace(/[\\']/g, "\\$&").replaceAll("\0", "\\0")}'`;

/** The same statement with the variable's value as an escaped literal instead of an encoded one. */
function reference(rawSql: string, variable: string, value: Value, rest: Asked): string {
  const text = Array.isArray(value) ? `{${value.join(",")}}` : value;
  const marker = "placeholder0of0the0value"; // survives the other steps as it is
  const marked = rawSql.replaceAll(
    `decodeURLComponent('\${${variable}:percentencode}')`,
    () => marker,
  );
  expect(marked).not.toContain(`\${${variable}:`);
  return sentBy(marked, rest).replaceAll(marker, () => literal(text));
}

async function outcome(sql: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`${service.url}/?default_format=JSONCompactEachRow`, {
    method: "POST",
    body: sql,
  });
  return { status: response.status, text: await response.text() };
}

/** Every statement with a variable in it, and the variable. */
const cases = Object.entries(dashboards).flatMap(([name, { panels, templating }]) => {
  const statements = [
    ...templating.list!.filter(({ type }) => type === "query").map((variable) => ({
      title: `$${variable.name}`,
      sql: (variable.query as { rawSql: string }).rawSql,
    })),
    ...(panels!.filter(({ type }) => type !== "row") as Panel[]).map((panel) => ({
      title: panel.title!,
      sql: (panel.targets![0] as unknown as { rawSql: string }).rawSql,
    })),
  ];
  return statements.flatMap(({ title, sql }) =>
    [...new Set([...sql.matchAll(/\$\{(\w+):percentencode\}/g)].map(([, variable]) => variable))]
      .map((variable) => ({ name, title: `${name} ${title}`, sql, variable }))
  );
});

/** Whether a variable has many values, which Grafana writes differently. */
const isMany = (dashboard: string, variable: string) =>
  dashboards[dashboard].templating.list!.find(({ name }) => name === variable)!.multi === true;

/** Code of a statement, with every literal emptied. */
const skeleton = (sql: string) => sql.replace(/'(?:[^'\\]|\\.|'')*'/gs, "''");

test("there is something to attack, and with enough", () => {
  expect(new Set(payloads).size).toBeGreaterThanOrEqual(50);
  expect(cases.length).toBeGreaterThan(60);
  expect(new Set(cases.map(({ variable }) => variable)).size).toBeGreaterThanOrEqual(12);
});

describe("the statement that is sent", () => {
  test.each(cases)("$title: $variable", ({ name, sql, variable }) => {
    const harmless = skeleton(sentBy(sql, asked(name, { [variable]: "harmless" })));
    for (const payload of payloads) {
      const values: Value[] = isMany(name, variable)
        ? [payload, [payload], [payload, "x"], ["x", payload]]
        : [payload];
      for (const value of values) {
        const sent = sentBy(sql, asked(name, { [variable]: value }));
        // Nothing but the content of literals differs, which hold no character that means anything.
        expect(skeleton(sent), payload).toBe(harmless);
        checkReadOnly(sent, new Set(["file", "url", "remote"])); // one statement, and it reads
      }
    }
  });
});

/** What a wrong value may be answered with: ClickHouse's word for it, about the value alone. */
const refusals = [
  /^Code: 6\. DB::Exception: Cannot parse string '.*' as Float64/s,
  /^Code: (32|72)\. DB::Exception: .*(Cannot parse|Attempt to read after eof)/s,
  /^Code: 395\. DB::Exception: axis: expected iteration, env_steps_nominal/,
  /^Code: 395\. DB::Exception: step: expected a number above 0/,
];

describe("what is answered", () => {
  const counts = () =>
    service.ask(
      "SELECT (SELECT count() FROM scalars), (SELECT count() FROM run_states), " +
        "(SELECT count() FROM evaluations), (SELECT count() FROM otel_traces)",
    );
  // Statements and payloads take turns, so that each of both is asked a few times; all of them with all of
  // them are the tests above.
  const perCase = 2;

  test("is what the same value as a plain text is answered", async () => {
    const before = await counts();
    let turn = 0;
    let refused = 0;
    for (const { name, title, sql, variable } of cases) {
      for (let i = 0; i < perCase; i++, turn++) {
        const payload = payloads[turn % payloads.length];
        const value = isMany(name, variable) && i % 2 === 0 ? [payload] : payload;
        const rest = asked(name, { [variable]: value });
        const [came, wanted] = await Promise.all([
          outcome(sentBy(sql, rest)),
          outcome(reference(sql, variable, value, rest)),
        ]);
        const about = `${title}, ${variable} = ${JSON.stringify(payload.slice(0, 80))}`;
        expect(came.status, `${about}: ${came.text}`).toBe(wanted.status);
        if (came.status === 200) expect(came.text, about).toBe(wanted.text);
        else {
          refused++;
          expect(refusals.some((pattern) => pattern.test(came.text)), `${about}: ${came.text}`)
            .toBe(true);
          // The statement that was sent may stand in it, and nothing of the service.
          expect(came.text, about).not.toContain(home);
          expect(came.text, about).not.toMatch(/\.(ts|cpp|h):\d|0x[0-9a-f]{8}|Stack trace/);
        }
      }
    }
    expect(turn).toBeGreaterThan(payloads.length * 2);
    expect(refused).toBeGreaterThan(0); // a return that is no number, an axis that is none
    expect(await counts()).toBe(before);
  });

  test("of what has a hostile name are its own rows", async () => {
    const of = (wanted: string, by: string) =>
      cases.find(({ title, variable }) => title === wanted && variable === by)!.sql;
    const rows = async (sql: string) => {
      const { status, text } = await outcome(sql);
      expect(status, text).toBe(200);
      return text.trim().split("\n").map((line) => JSON.parse(line));
    };
    for (const [i, name] of named.entries()) {
      const tasks = { task: i % 2 === 0 ? [name] : name };
      expect(await rows(sentBy(of("learning $run", "task"), asked("learning", tasks))), name)
        .toEqual([[`hostile-${i}`]]);
      const services = { service: [name, "gpu-sim"] };
      const came = await rows(sentBy(of("mesh Threads", "service"), asked("mesh", services)));
      expect(new Set(came.map(([, series]) => series)), name).toEqual(new Set([name, "gpu-sim"]));
      expect(came.find(([, series]) => series === name)![2]).toBe(100 + i);
    }
  });
});

describe("why percent-encoded", () => {
  test("quotes of Grafana let a backslash end the literal", async () => {
    const ask = async (format: string) => {
      const sql = `SELECT run_id FROM runs WHERE run_id = \${run:${format}}`;
      const { text } = await outcome(interpolate(sql, asked("run", { run: "\\' OR 1=1 -- " })));
      return text.trim().split("\n").length;
    };
    const everyRun = seededRuns.length + 2 + named.length;
    expect([await ask("singlequote"), await ask("sqlstring")]).toEqual([everyRun, everyRun]);
  });
  // What @grafana/scenes 8.19.0, which formats values in Grafana, made of the same ones.
  test.each([
    ["a", "a", "'a'", "'a'"],
    ["' OR 1=1 --", "%27%20OR%201%3D1%20--", "'\\' OR 1=1 --'", "''' OR 1=1 --'"],
    ["\\' OR 1=1 --", "%5C%27%20OR%201%3D1%20--", "'\\\\' OR 1=1 --'", "'\\'' OR 1=1 --'"],
    ["$__toTime", "%24__toTime", "'$__toTime'", "'$__toTime'"],
    ["${task}", "%24%7Btask%7D", "'${task}'", "'${task}'"],
    [
      'é’`"{};!*()',
      "%C3%A9%E2%80%99%60%22%7B%7D%3B%21%2A%28%29",
      "'é’`\"{};!*()'",
      "'é’`\\\"{};!*()'",
    ],
    [["a", "b'c"], "%7Ba%2Cb%27c%7D", "'a','b\\'c'", "'a','b''c'"],
    [["x"], "%7Bx%7D", "'x'", "'x'"],
    ["", "", "''", "''"],
    [[], "%7B%7D", "", ""],
  ] as [Value, string, string, string][])("%j is formatted as Grafana does", (value, ...wanted) => {
    const formats = ["percentencode", "singlequote", "sqlstring"];
    expect(formats.map((format) => interpolate(`\${run:${format}}`, asked("run", { run: value }))))
      .toEqual(wanted);
  });
});
