// Every query of every panel and variable, as Grafana sends it, through the telemetry service's HTTP endpoint on
// runs and metrics whose numbers can be worked out by hand: the answer has the columns that its panel needs,
// and the right numbers. Alert rules fire on what they are for, and on nothing else: alerts.test.ts.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Panel } from "@grafana/grafana-foundation-sdk/dashboard";
import {
  epochs,
  evaluatedReturn,
  memoryOf,
  seededRuns,
  trainingReturn,
} from "../services/telemetry/seeded_for_tests.ts";
import { startTestService, type TestService } from "../services/telemetry/service_for_tests.ts";
import type { ClickHouseQuery } from "./clickhouse.ts";
import { opened, sentBy, type Values } from "./grafana_for_tests.ts";
import { dashboards } from "./all.ts";
import { callsPerSample, failuresPerSample, fresh, method, seedMesh } from "./seeded_for_tests.ts";

const nowS = Math.floor(Date.now() / 10_000) * 10;
let home: string;
let service: TestService;
let experiment: string;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-dashboards-" });
  service = await startTestService(home);
  await seedMesh(service.url, nowS);
  experiment = await service.ask("SELECT experiment FROM experiments WHERE run_id = 'hopper-0'");
});
afterAll(async () => {
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

/** The newest first, as the list has them. */
const runNames = ["ant-now", "ant-live", ...seededRuns.map(({ runId }) => runId)];
const range: [number, number] = [(nowS - 700) * 1000, (nowS + 10) * 1000];
const asked = (dashboard: string, values: Values = {}) =>
  opened(dashboard, runNames, range, { experiment, side: "server", ...values });

interface Answer {
  names: string[];
  types: string[];
  rows: unknown[][];
}

async function ask(sql: string): Promise<Answer> {
  const text = await service.ask(`${sql}\nFORMAT JSONCompactEachRowWithNamesAndTypes`);
  const [names, types, ...rows] = text.split("\n").map((line) => JSON.parse(line));
  return { names, types, rows };
}

/** The same as clickhouse-go asks for it: every type of an answer has to go through Native. */
async function asGrafana(sql: string): Promise<void> {
  const settings = new URLSearchParams({
    database: "sdpg",
    default_format: "Native",
    client_protocol_version: "54460",
    enable_http_compression: "1",
    limit: "1000000",
    max_execution_time: "60",
  });
  const response = await fetch(`${service.url}/?${settings}`, {
    method: "POST",
    body: sql,
    headers: { "accept-encoding": "gzip", authorization: `Basic ${btoa("default:")}` },
  });
  const bytes = await response.bytes();
  expect(response.status, new TextDecoder().decode(bytes)).toBe(200);
}

const plain = (type: string) =>
  type.replace(/^LowCardinality\((.*)\)$/, "$1").replace(/^Nullable\((.*)\)$/, "$1");
const isNumber = (type: string) => /^(U?Int\d+|Float\d+)$/.test(plain(type));
const isText = (type: string) => plain(type) === "String";
const isTime = (type: string) => /^DateTime/.test(plain(type));

/** What each kind of panel needs of an answer. */
const shapes: Record<string, (answer: Answer, panel: Panel) => void> = {
  timeseries({ names, types, rows }) {
    expect([isTime(types[0]), names[1], isText(types[1]), names[2], isNumber(types[2])])
      .toEqual([true, "series", true, "value", true]);
    inOrder(rows.map(([time]) => Date.parse(`${time}Z`)));
    once(rows);
  },
  trend({ names, types, rows }, panel) {
    expect(names).toEqual(["x", "series", "value"]);
    expect([isNumber(types[0]), isText(types[1]), isNumber(types[2])]).toEqual([true, true, true]);
    inOrder(rows.map(([x]) => x as number));
    once(rows);
    expect(panel.transformations![0]).toMatchObject({
      id: "groupingToMatrix",
      options: { columnField: "series", rowField: "x", valueField: "value" },
    });
    expect(panel.options.xField).toBe("x\\series");
  },
  table({ names }, panel) {
    const titled = panel.fieldConfig!.overrides.map(({ matcher }) => matcher.options);
    expect(names.toSorted()).toEqual(titled.toSorted());
  },
  stat({ types, rows }, panel) {
    expect([types.length, rows.length]).toEqual([1, 1]);
    const showsText = panel.options.reduceOptions.fields !== "";
    expect(showsText ? isText(types[0]) : isNumber(types[0]), types[0]).toBe(true);
  },
  barchart({ names, types }, panel) {
    expect(names[0]).toBe(panel.options.xField);
    expect([isText(types[0]), ...types.slice(1).map(isNumber)]).not.toContain(false);
  },
  logs({ names, types }) {
    expect(names).toEqual(["timestamp", "body", "level", "labels", "traceID"]);
    expect([isTime(types[0]), isText(types[1]), isText(types[2]), /^Map\(/.test(types[3])])
      .toEqual([true, true, true, true]);
  },
  traces({ names, types, rows }) {
    const needed = ["traceID", "spanID", "parentSpanID", "serviceName", "operationName"];
    expect(names).toEqual([...needed, "startTime", "duration", "tags", "serviceTags"]);
    expect(types.slice(0, 5).map(isText)).not.toContain(false);
    expect(types.slice(5, 7).map(isNumber)).not.toContain(false);
    for (const row of rows) {
      for (const tags of row.slice(7) as { key: string; value: string }[][]) {
        expect(tags.map((tag) => Object.keys(tag))).toEqual(tags.map(() => ["key", "value"]));
      }
    }
  },
};

const inOrder = (values: number[]) => {
  expect(values.every((value) => Number.isFinite(value))).toBe(true);
  expect(values).toEqual(values.toSorted((a, b) => a - b));
};
const once = (rows: unknown[][]) => {
  const keys = rows.map(([x, series]) => `${x} ${series}`);
  expect(new Set(keys).size).toBe(keys.length);
};

// ------------------------------------------------------------------------------- right numbers

const hoppers = seededRuns.filter(({ task }) => task === "hopper");
const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;
const of = (answer: Answer, series: string) =>
  answer.rows.filter((row) => row[1] === series).map((row) => [row[0], row[2]] as [number, number]);
const near = (came: unknown, wanted: number) => expect(came).toBeCloseTo(wanted, 6);
const time = (s: number) => new Date(s * 1000).toISOString().replace("T", " ").slice(0, 19);
/** A value of a series in the interval that begins so many seconds after the metrics do. */
const after = (answer: Answer, seconds: number, series?: string) =>
  answer.rows.find((row) =>
    row[0] === time(nowS - 600 + seconds) && (series === undefined || row[1] === series)
  )![2];
const step = "SimulationService/Step";

/** Numbers of each panel, by dashboard and title. What is not here has no number but what is there. */
const numbers: Record<string, (answer: Answer) => void | Promise<void>> = {
  // The chosen step is a two-hundredth of the longest run, 400 s: every evaluation lies on a multiple of 2 s.
  "learning ${curve}: mean over seeds, by experiment": (answer) => {
    const points = new Map(of(answer, experiment));
    for (const seconds of [30, 46, 80]) {
      near(
        points.get(seconds),
        mean(hoppers.map((run) => evaluatedReturn(run, seconds / run.pace))),
      );
    }
  },
  "learning ${experiment}: ${curve} with interval and seeds": (answer) => {
    const values = hoppers.map((run) => evaluatedReturn(run, 60 / run.pace));
    const deviation = Math.sqrt(
      values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / 2,
    );
    const half = 4.302653 * deviation / Math.sqrt(3); // Student's t, two degrees of freedom
    near(new Map(of(answer, "mean")).get(60), mean(values));
    near(new Map(of(answer, "low")).get(60), mean(values) - half);
    near(new Map(of(answer, "high")).get(60), mean(values) + half);
    // Each evaluation has an interval of the axis to itself, so a seed's points are its evaluations.
    expect(of(answer, "seed 1 (hopper-1)")).toEqual(
      [10, 20, 30, 40].map((epoch) => [epoch * 2.5, evaluatedReturn(hoppers[1], epoch)]),
    );
  },
  "learning Time to reach a return of ${threshold}": ({ rows }) => {
    expect(rows.find(([name]) => name === experiment))
      .toEqual([experiment, 3, 3, 75, 60, 90, 30 * 32768, 30]);
    expect(rows.find(([name]) => String(name).startsWith("walker"))!.slice(1))
      .toEqual([1, 0, null, null, null, null, null]);
  },
  "learning Evaluations by seed": ({ rows }) => {
    expect(rows.length).toBe(runNames.length);
    expect(rows.find(([, run]) => run === "hopper-2")).toEqual(
      [experiment, "hopper-2", 2, "done", 40, 4200, 4200 - 1500, 4200, 40, 120],
    );
  },
  // Of the experiment of the test's own runs, which has no terms; asked again for the one that has.
  "learning ${experiment}: reward by term": async ({ rows }) => {
    expect(rows).toEqual([]);
    const ants = await service.ask("SELECT experiment FROM experiments WHERE run_id = 'ant-now'");
    const answer = await ask(
      sentBy(queryOf("learning", "${experiment}: reward by term"), asked("", { experiment: ants })),
    );
    shapes.trend(answer, panelOf("learning", "${experiment}: reward by term"));
    // A step of 2 s: each epoch of 10 s has an interval to itself, and both seeds say the same.
    expect(of(answer, "control")).toEqual(
      Array.from({ length: epochs }, (_, i) => [10 * (i + 1), -0.5 * (i + 1)]),
    );
  },
  "run State": ({ rows }) => expect(rows).toEqual([["done"]]),
  "run Epochs": ({ rows }) => expect(rows).toEqual([[40]]),
  "run Training return": ({ rows }) => expect(rows).toEqual([[trainingReturn(fresh(0), 40)]]),
  "run Best evaluation": ({ rows }) => expect(rows).toEqual([[evaluatedReturn(fresh(0), 40)]]),
  "run Training time": ({ rows }) => expect(rows).toEqual([[400]]),
  "run Steps/s (total)": ({ rows }) => expect(rows).toEqual([[3276.8]]),
  "run Peak memory": ({ rows }) =>
    expect(rows).toEqual([[
      memoryOf("learner", 1) + memoryOf("gpu-sim", 1) + memoryOf("telemetry", 1),
    ]]),
  "run Faults": ({ rows }) => expect(rows).toEqual([[0]]),
  "run ${run}: return": (answer) => {
    const evaluations = [10, 20, 30, 40].map((epoch) =>
      [10 * epoch, evaluatedReturn(fresh(0), epoch)] as const
    );
    expect(of(answer, "evaluation")).toEqual(evaluations);
    expect(of(answer, "lowest episode")).toEqual(evaluations.map(([x, value]) => [x, value - 5]));
    expect(of(answer, "highest episode")).toEqual(evaluations.map(([x, value]) => [x, value + 5]));
    expect(of(answer, "training")[12]).toEqual([130, trainingReturn(fresh(0), 13)]);
  },
  "run ${run}: ${curve}": (answer) =>
    expect(of(answer, "critic_loss").slice(0, 2)).toEqual([[10, 1], [20, 0.5]]),
  "run Reward by term": (answer) => expect(of(answer, "forward")[6]).toEqual([70, 7]),
  "run Throughput": (answer) => {
    expect(of(answer, "steps/s (total)").length).toBe(40);
    for (const [, value] of of(answer, "steps/s (total)")) near(value, 3276.8);
    for (const [, value] of of(answer, "images/s")) near(value, 6.4);
  },
  "run Seconds of an epoch by phase": (answer) => {
    expect(new Set(answer.rows.map(([, series]) => series))).toEqual(
      new Set(["rollout", "actor", "critic"]),
    );
    for (const [, value] of of(answer, "rollout")) near(value, 5);
  },
  "run Phase shares": ({ rows }) =>
    expect(rows.map(([phase, depth, , share]) => [phase, depth, Math.round(Number(share) * 1e6)]))
      .toEqual([
        ["rollout", 1, 500_000],
        ["rollout/simulation", 2, 375_000],
        ["actor", 1, 250_000],
        ["critic", 1, 230_000],
        ["(other)", 1, 20_000],
      ]),
  // Samples half a second before the end of each epoch; a step of 390 / 300 s.
  "run Memory by service": (answer) => {
    const learner = of(answer, "learner");
    expect([learner[0], learner.length]).toEqual([[0, memoryOf("learner", 1)], 40]);
    expect(learner.at(-1)![1]).toBe(memoryOf("learner", 40));
  },
  "run Faults by kind": async ({ rows }) => {
    expect(rows).toEqual([]);
    const answer = await ask(
      sentBy(queryOf("run", "Faults by kind"), asked("run", { run: "ant-live" })),
    );
    expect(answer.rows.map((row) => row.slice(0, 5))).toEqual([["non_finite", "gpu-sim", 3, 7, 9]]);
  },
  "run Log": ({ rows }) =>
    expect(rows.map(([, body, level, labels]) => [body, level, labels])).toEqual([
      ["gone", "info", { "rl.run.id": "ant-now", step: "2", service: "learner" }],
      ["a slow epoch", "warn", { "rl.run.id": "ant-now", step: "1", service: "learner" }],
      ["started", "info", { "rl.run.id": "ant-now", step: "0", service: "learner" }],
    ]),
  "run Slowest epochs": ({ rows }) =>
    expect(rows.map(([epoch, , seconds]) => [epoch, seconds])[0]).toEqual(["39", 20]),
  "run Spans of epoch ${epoch}": async (newest) => {
    const spans = (seconds: number) => [
      ["(epoch)", "learner", 0, 1000 * seconds, 1, ""],
      ["rollout", "learner", 0, 5000, 5 / seconds, "32"],
      ["rollout/simulation/physics", "gpu-sim", 1000, 2500, 2.5 / seconds, "32"],
    ];
    expect(newest.rows).toEqual(spans(10));
    const sql = sentBy(queryOf("run", "Spans of epoch ${epoch}"), asked("run", { epoch: "39" }));
    expect((await ask(sql)).rows).toEqual(spans(20));
  },
  "run Trace of epoch ${epoch}": ({ rows }) => {
    expect(rows.map((row) => row.slice(1, 5))).toEqual([
      ["1", "", "learner", "rl.iteration"],
      ["2", "1", "learner", "rollout"],
      ["3", "2", "gpu-sim", "physics"],
    ].map(([id, parent, ...rest]) => [
      id.padStart(16, "0"),
      parent && parent.padStart(16, "0"),
      ...rest,
    ]));
    const began = (nowS - 600 + 390) * 1000; // of the newest, the 40th
    expect(rows.map(([, , , , , start, duration]) => [start, duration]))
      .toEqual([[began, 10_000], [began, 5000], [began + 1000, 2500]]);
  },
  "resources Cost by task and algorithm": ({ rows }) => {
    const [ant, hopper, walker] = rows;
    // Of two runs one is done. The GPU's memory grew by 10 MB/s while both lasted: 400 s.
    expect(ant).toEqual(["ant", "sdpg", "cpu", "state", 2, 1, 400, 400, 40, 514e6, 4e9, 0]);
    expect(hopper)
      .toEqual(["hopper", "sdpg", "cpu", "state", 3, 3, 100, 120, 40, 514e6, null, 0]);
    expect(walker[6]).toBe(160);
  },
  "resources Peak memory of each service": ({ names, rows }) => {
    expect(names.slice(1, 3)).toEqual(["learner", "gpu-sim"]);
    expect(rows[1]).toEqual(["hopper sdpg state", 240e6, 15e6, 0, 0, 298e6, 0]);
  },
  "resources Wall-clock and speed by run": ({ rows }) =>
    expect(rows.find(([run]) => run === "hopper-0"))
      .toEqual(["hopper-0", "done", 80, 40, 0.5, 16384, 32, 514e6]),
  "resources Memory by service": (answer) => {
    // Samples at 9.5 s, 19.5 s, … after the beginning: one in each interval.
    expect(after(answer, 0, "ant-now learner")).toBe(memoryOf("learner", 1));
    expect(after(answer, 90, "ant-now telemetry")).toBe(memoryOf("telemetry", 10));
  },
  "resources Memory of all services over a run's time": (answer) =>
    expect(of(answer, "walker-0")[0]).toEqual([0, 514e6]),
  "mesh Runs in progress": ({ rows }) => {
    expect(rows.map(([run, task, done]) => [run, task, done])).toEqual([["ant-live", "ant", 40]]);
    // Its last epoch ended 400 s after it began: 200 s before the runs were made, and the question came then.
    for (const came of rows[0].slice(3)) {
      expect(Number(came)).toBeGreaterThanOrEqual(200);
      expect(Number(came)).toBeLessThanOrEqual(Date.now() / 1000 - (nowS - 200) + 1);
    }
  },
  "mesh Calls per second": (answer) => {
    expect(after(answer, 10)).toBe((callsPerSample + failuresPerSample) / 10);
    expect(after(answer, 600)).toBe((callsPerSample + failuresPerSample) / 10);
  },
  "mesh Calls that failed, per second": (answer) =>
    expect(after(answer, 300, `gpu-sim ${step} INTERNAL`)).toBe(failuresPerSample / 10),
  // 18 calls up to 5 ms, 2 failed ones up to 10 ms, 2 between 75 and 100 ms: the 20.9th of 22.
  "mesh Length of a call, 95 of 100 are shorter": (answer) =>
    near(after(answer, 300, `gpu-sim ${step}`), 0.075 + 0.025 * (20.9 - 20) / 2),
  // All of them between 0 and 1024.
  "mesh Size of a message, 95 of 100 are smaller": (answer) => near(after(answer, 300), 972.8),
  "mesh Methods": ({ rows }) => {
    const [calls, failed] = [(callsPerSample + failuresPerSample) * 60, failuresPerSample * 60];
    expect(rows).toHaveLength(1);
    expect(rows[0].slice(0, 4)).toEqual(["gpu-sim", method, calls, failed]);
    near(rows[0][4], failed / calls);
    near(rows[0][5], 0.01);
    expect(rows[0].slice(6)).toEqual([1000, 5000]);
  },
  "mesh Processor time": (answer) => expect(after(answer, 300, "learner")).toBe(0.5),
  "mesh Resident memory": (answer) => expect(after(answer, 300, "gpu-sim")).toBe(2e7),
  "mesh Threads": (answer) => expect(after(answer, 300, "learner")).toBe(9),
  "mesh Rows that wait for the telemetry service": (answer) =>
    expect(after(answer, 300, "learner")).toBe(130),
  "mesh Bytes that wait for the telemetry service": (answer) =>
    expect(after(answer, 300, "learner")).toBe(130_000),
  "mesh Rows dropped, per second": (answer) => {
    expect(after(answer, 300, "learner")).toBe(3);
    expect(after(answer, 300, "gpu-sim")).toBe(0);
  },
  "mesh Faults by kind": (answer) =>
    expect(answer.rows).toEqual([[time(nowS - 600 + 20), "non_finite", 3]]),
  "mesh Newest faults": ({ rows }) =>
    expect(rows.map((row) => row.slice(1, 6)).toSorted()).toEqual([
      ["ant-live", "gpu-sim", "non_finite", 7, 2],
      ["ant-live", "gpu-sim", "non_finite", 9, 1],
    ]),
  "gpu Devices": ({ rows }) =>
    expect(rows.map((row) => row.slice(0, 6)))
      .toEqual([["Made up abcdef", 0.75, 0.75, 10e9, 10e9, 16e9]]),
  "gpu Busy": (answer) => expect(after(answer, 300)).toBe(0.75),
  "gpu Memory in use, share": (answer) => expect(after(answer, 300)).toBe(7 / 16),
  "gpu Memory in use": (answer) => expect(after(answer, 300)).toBe(7e9),
  "gpu Memory left": (answer) => expect(after(answer, 300)).toBe(9e9),
};

const panelOf = (dashboard: string, title: string) =>
  dashboards[dashboard].panels!.find((panel) => panel.title === title) as Panel;
const queryOf = (dashboard: string, title: string) =>
  (panelOf(dashboard, title).targets![0] as ClickHouseQuery).rawSql;

const panels = Object.entries(dashboards).flatMap(([name, { panels }]) =>
  panels!.filter(({ type }) => type !== "row").map((panel) => ({
    name,
    title: `${name} ${panel.title}`,
    panel: panel as Panel,
  }))
);

test("every panel has its numbers here", () => {
  expect(panels.map(({ title }) => title).toSorted()).toEqual(Object.keys(numbers).toSorted());
});

describe("panels", () => {
  test.each(panels)("$title", async ({ name, title, panel }) => {
    const sql = sentBy((panel.targets![0] as ClickHouseQuery).rawSql, asked(name));
    await asGrafana(sql);
    const answer = await ask(sql);
    shapes[panel.type](answer, panel);
    await numbers[title](answer);
  });
});

describe("variables", () => {
  const values: Record<string, string[]> = {
    task: ["ant", "hopper", "walker"],
    algorithm: ["sdpg"],
    preset: ["cpu"],
    seed: ["0", "1", "2", "7"],
    run: runNames.toSorted(),
    service: ["gpu-sim", "learner"],
    gpu: ["GPU-0123456789abcdef"],
  };
  const variables = Object.entries(dashboards).flatMap(([name, { templating }]) =>
    templating.list!.filter(({ type }) => type === "query").map((variable) => ({
      name,
      variable,
      title: `${name} ${variable.name}`,
    }))
  );
  const sqlOf = ({ variable }: typeof variables[number]) =>
    (variable.query as { rawSql: string }).rawSql;

  test.each(variables)("$title", async (one) => {
    const sql = sentBy(sqlOf(one), asked(one.name));
    await asGrafana(sql);
    const { types, rows } = await ask(sql);
    expect(types.map(isText)).not.toContain(false);
    expect(types.length).toBe(one.variable.name === "gpu" ? 2 : 1); // value, and what is shown
    const came = rows.map(([value]) => value);
    switch (one.variable.name) {
      case "curve":
        return expect(came.slice(0, 2)).toEqual(["evaluation", "critic_loss"]);
      case "experiment":
        return expect(came).toContain(experiment);
      case "run": // the newest first
        expect(came[0]).toMatch(/^ant-/);
        return expect(came.toSorted()).toEqual(values.run);
      default:
        expect(came).toEqual(values[one.variable.name]);
    }
  });
  test("those chosen before narrow the ones after", async () => {
    const run = variables.find(({ title }) => title === "learning run")!;
    const chosen = async (values: Values) => {
      const { rows } = await ask(sentBy(sqlOf(run), asked("learning", values)));
      return rows.map(([name]) => name).toSorted();
    };
    expect(await chosen({ task: ["hopper"] })).toEqual(["hopper-0", "hopper-1", "hopper-2"]);
    expect(await chosen({ task: ["hopper", "walker"], seed: ["0"] })).toEqual([
      "hopper-0",
      "walker-0",
    ]);
    expect(await chosen({ task: ["hopper"], algorithm: "ppo" })).toEqual([]);
  });
});

describe("the axis", () => {
  const sql = queryOf("learning", "${curve}: mean over seeds, by experiment");
  test.each([
    ["env_steps_total", 32768],
    ["env_steps_nominal", 2048],
    ["images_rendered", 64],
    ["iteration", 1],
    ["wall_time_s", 2],
  ])("%s", async (axis, perEpoch) => {
    const run = ["hopper-0"];
    const { rows } = await ask(sentBy(sql, asked("learning", { axis, run })));
    expect([rows[0][0], rows[0][2]]).toEqual([10 * perEpoch, 1000]);
    expect(Math.abs(Number(rows.at(-1)![0]) / (40 * perEpoch) - 1)).toBeLessThan(1e-9);
  });
  test("that no GPU moved has one point", async () => {
    const { rows } = await ask(
      sentBy(sql, asked("learning", { axis: "gpu_seconds", run: ["hopper-0"] })),
    );
    expect(rows).toEqual([[0, experiment, 4000]]);
  });
});
