// Every statement of docs/queries.md, asked of the real service over HTTP on runs whose numbers can be
// worked out by hand (seeded_for_tests.ts), and what the views do at their edges.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  beginS,
  epochs,
  evaluatedReturn,
  memoryOf,
  seededRuns,
  seedRuns,
  trainingReturn,
} from "./seeded_for_tests.ts";
import { startTestService, type TestService } from "./service_for_tests.ts";

// Numbers are what is tested here; a busy machine may take its time.
let home: string;
let service: TestService;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-queries-" });
  service = await startTestService(home);
  await seedRuns(service.url);
});
afterAll(async () => {
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

/** Rows as arrays of cells. */
async function ask(sql: string): Promise<unknown[][]> {
  const text = await service.ask(`${sql}\nFORMAT JSONCompactEachRow`);
  return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

const hoppers = seededRuns.filter(({ task }) => task === "hopper");
const [hopper0] = hoppers;
const experimentOf = async (runId: string) =>
  (await ask(`SELECT experiment FROM experiments WHERE run_id = '${runId}'`))[0][0];
/** Half the width of the 95 % interval of the mean of three values; 4.302653 is t of a table. */
const interval3 = (values: number[]) => {
  const mean = values.reduce((a, b) => a + b) / 3;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / 2;
  return { mean, half: 4.302653 * Math.sqrt(variance / 3) };
};

/** What each statement of the page must answer, by its heading. */
const expected: Record<string, () => Promise<unknown[][]>> = {
  // Evaluations every ten epochs, so from 10 × the slowest pace (30 s) to 40 × the quickest (80 s).
  // They lie on a straight line in the epoch, and so does what is read between them.
  "Mean and interval over seeds": async () => {
    const experiment = await experimentOf("hopper-0");
    return [30, 45, 60, 75].map((seconds) => {
      const { mean, half } = interval3(
        hoppers.map((run) => evaluatedReturn(run, seconds / run.pace)),
      );
      return [experiment, seconds / 60, mean, mean - half, mean + half];
    });
  },
  // 20480 is less than one epoch's 32768 steps: the training return between epochs is linear.
  "Two experiments at the same number of steps": () => {
    const stepsOfEpoch = 64 * 16 * 32;
    const rows: unknown[][] = [];
    for (let steps = 20480; steps <= stepsOfEpoch * epochs; steps += 20480) {
      const epoch = steps / stepsOfEpoch;
      if (epoch < 1) continue;
      const [from, to] = [Math.floor(epoch), Math.ceil(epoch)];
      const squares = from ** 2 + (to ** 2 - from ** 2) * (epoch - from);
      rows.push([steps, squares + 10, squares, (squares + 10) / squares]);
    }
    return Promise.resolve(rows);
  },
  // Hopper passes 3000 at epoch 30 (seeds 0 and 1) and at epoch 30 with seed 2, which had 2200 before:
  // 60, 75 and 90 s. Walker ends at 2400.
  "Time to reach a return": async () => [
    [await experimentOf("hopper-0"), 3, 3, 75, 30 * 32768],
    [await experimentOf("walker-0"), 1, 0, null, null],
  ],
  "Final and best evaluations by seed": async () =>
    await Promise.all(seededRuns.map(async (run) => [
      await experimentOf(run.runId),
      run.runId,
      run.seed,
      4,
      evaluatedReturn(run, 40),
      evaluatedReturn(run, 40),
      40,
      (evaluatedReturn(run, 30) + evaluatedReturn(run, 40)) / 2,
    ])),
  // The learner grows by 1 MB an epoch and telemetry shrinks by 2: all of them are most at the first.
  "Peak memory of each service": () =>
    Promise.resolve([
      ["telemetry", 298, second(1)],
      ["learner", 240, second(79)],
      ["gpu-sim", 15, second(1)],
      ["all", 514, second(1)],
    ]),
  "Where the time goes": () =>
    Promise.resolve([
      ["rollout", 1, 50],
      ["actor", 0.5, 25],
      ["critic", 0.46, 23],
      ["(other)", 0.04, 2],
    ]),
  Throughput: () =>
    Promise.resolve(
      seededRuns.map((
        { runId, pace },
      ) => [runId, 2048 / pace, 32768 / pace, 64 / pace, 1 / pace]),
    ),
  "Curve, phase times and memory of a run in one statement": () =>
    Promise.resolve(Array.from({ length: epochs }, (_, i) => {
      const epoch = i + 1;
      const bytes = ["gpu-sim", "learner", "telemetry"]
        .reduce((sum, name) => sum + memoryOf(name, epoch), 0);
      const evaluated = epoch % 10 === 0 ? evaluatedReturn(hopper0, epoch) : null;
      return [
        epoch,
        2 * epoch,
        trainingReturn(hopper0, epoch),
        evaluated,
        1,
        0.5,
        0.46,
        bytes / 1e6,
      ];
    })),
  // The curve is a parabola: both ends stay, and between them one point of each of three buckets, the
  // one with the largest triangle (found by looking at every candidate).
  "A long curve in a few points": () =>
    Promise.resolve(
      largestTriangles(
        Array.from({ length: epochs }, (_, i) => [
          2 * (i + 1) / 60,
          trainingReturn(hopper0, i + 1),
        ]),
        5,
      ),
    ),
  // The mean of a run's four evaluations is that at epoch 25.
  "Results by a value of the configuration": () =>
    Promise.resolve([
      [0.001, "walker", 1, evaluatedReturn(seededRuns[3], 25)],
      [0.002, "hopper", 3, interval3(hoppers.map((run) => evaluatedReturn(run, 25))).mean],
    ]),
  Faults: () => Promise.resolve([["hopper-1", "gpu-sim", "non_finite", 3, 7]]),
  // Half a core in the pace of the epochs; samples lie on half seconds, within one of each epoch's end.
  "Processor time of the services": () =>
    Promise.resolve(
      seededRuns.flatMap(({ runId, pace }) =>
        ["gpu-sim", "learner", "telemetry"].map((name) => [
          runId,
          name,
          (epochs - 1) * pace / 2 / (Math.floor(epochs * pace) - Math.floor(pace)),
        ])
      ),
    ),
};

const second = (s: number) =>
  new Date((beginS + s) * 1000).toISOString().replace("T", " ").replace("Z", "000000");

/** Largest triangle, three buckets, as Steinarsson (2013) describes it. */
function largestTriangles(points: number[][], n: number): number[][] {
  const bucket = (points.length - 2) / (n - 2);
  const chosen = [points[0]];
  for (let i = 0; i < n - 2; i++) {
    const from = Math.floor(i * bucket) + 1;
    const to = Math.floor((i + 1) * bucket) + 1;
    const next = points.slice(to, Math.min(Math.floor((i + 2) * bucket) + 1, points.length));
    const [cx, cy] = [0, 1].map((k) => next.reduce((sum, p) => sum + p[k], 0) / next.length);
    const [ax, ay] = chosen.at(-1)!;
    const area = ([x, y]: number[]) => Math.abs((ax - cx) * (y - ay) - (ax - x) * (cy - ay));
    chosen.push(points.slice(from, to).reduce((a, b) => area(b) > area(a) ? b : a));
  }
  return [...chosen, points.at(-1)!];
}

describe("docs/queries.md", () => {
  const page = Deno.readTextFileSync(new URL("../../docs/queries.md", import.meta.url));
  const statements = page.split(/^## /m).slice(1).flatMap((section) => {
    const heading = section.split("\n", 1)[0];
    return [...section.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => [heading, sql] as const);
  });

  test("has one statement under each heading that is checked here", () => {
    expect(statements.map(([heading]) => heading)).toEqual(Object.keys(expected));
  });
  test("has the statement that the README shows", () => {
    const readme = Deno.readTextFileSync(new URL("../../README.md", import.meta.url));
    const shown = [...readme.matchAll(/```sql\n(.*?)```/gs)].map(([, sql]) => sql);
    expect(shown).toEqual([
      Object.fromEntries(statements)["Curve, phase times and memory of a run in one statement"],
    ]);
  });
  test.each(statements)("%s", async (heading, sql) => {
    expectCells(await ask(sql), await expected[heading]());
  });
});

/** Cell by cell: texts exactly, numbers to 1e-9 of their size (1e-6 where Student's t is in them). */
function expectCells(actual: unknown[][], wanted: unknown[][]): void {
  expect(actual.length).toBe(wanted.length);
  wanted.forEach((row, i) => {
    expect(actual[i].length).toBe(row.length);
    row.forEach((cell, k) => {
      const came = actual[i][k];
      if (typeof cell !== "number") return expect(came, `row ${i}, column ${k}`).toEqual(cell);
      const size = Math.max(1, Math.abs(cell));
      expect(Math.abs((came as number) - cell) / size, `row ${i}, column ${k}: ${came}, ${cell}`)
        .toBeLessThan(1e-6);
    });
  });
}

describe("learning_curves", () => {
  const curves = (more: string) =>
    ask(
      `SELECT x, seeds, mean, ci95 FROM learning_curves(name = 'evaluation', ${more}) ORDER BY x`,
    );

  test("reads every axis", async () => {
    for (
      const [axis, perEpoch] of [
        ["iteration", 1],
        ["env_steps_nominal", 2048],
        ["env_steps_total", 32768],
        ["images_rendered", 64],
        ["wall_time_s", 2],
      ] as const
    ) {
      const rows = await curves(`runs = ['hopper-0'], axis = '${axis}', step = ${15 * perEpoch}`);
      expect(rows.map(([x]) => x), axis).toEqual([15 * perEpoch, 30 * perEpoch]);
      expect(rows.map(([, , mean]) => mean), axis).toEqual([1500, 3000]);
    }
  });
  test("has a point where a run ends on the grid, and one only where an axis stands still", async () => {
    expect(await curves("runs = ['hopper-0'], axis = 'iteration', step = 10"))
      .toEqual([[10, 1, 1000, null], [20, 1, 2000, null], [30, 1, 3000, null], [
        40,
        1,
        4000,
        null,
      ]]);
    expect(await curves("runs = ['hopper-0'], axis = 'gpu_seconds', step = 1"))
      .toEqual([[0, 1, 4000, null]]);
    expect(await curves("runs = ['nobody'], axis = 'iteration', step = 1")).toEqual([]);
  });
  test("counts the seeds behind each mean where some end earlier", async () => {
    const rows = await curves("runs = ['hopper-0', 'hopper-2'], axis = 'wall_time_s', step = 20");
    // hopper-0 evaluates from 20 to 80 s, hopper-2 from 30 to 120 s.
    expect(rows.map(([x, seeds]) => [x, seeds]))
      .toEqual([[20, 1], [40, 2], [60, 2], [80, 2], [100, 1], [120, 1]]);
    // Student's t for one degree of freedom is 12.7062; the half difference of two is their deviation.
    const difference = evaluatedReturn(hoppers[2], 40 / 3) - evaluatedReturn(hopper0, 20);
    expect(rows[1][3]).toBeCloseTo(12.706205 * Math.abs(difference) / 2, 6);
  });
  test.each([
    ["axis = 'time', step = 1", "axis: expected iteration, env_steps_nominal"],
    ["axis = 'iteration', step = 0", "step: expected a number above 0"],
    ["axis = 'iteration', step = nan", "step: expected a number above 0"],
    ["axis = 'env_steps_total', step = 1e-3", "step: too small for this axis"],
    ["axis = 'iteration'", "Substitution `step` is not set"],
  ])("refuses %s", async (wrong, reason) => {
    await expect(curves(`runs = ['hopper-0'], ${wrong}`)).rejects.toThrow(reason);
  });
});

describe("the other views", () => {
  test("take their parameters from the request too", async () => {
    const response = await fetch(`${service.url}/?param_t=2500&param_r=hopper-0`, {
      method: "POST",
      body:
        "SELECT iteration FROM time_to_return(threshold = {t:Float64}) WHERE run_id = {r:String}",
    });
    expect(await response.text()).toBe("30\n");
  });
  test("evaluation_summary averages what there is, and refuses to average nothing", async () => {
    expect(
      await ask(
        "SELECT averaged, mean_last FROM evaluation_summary(last = 9) WHERE run_id = 'walker-0'",
      ),
    ).toEqual([[4, 1500]]);
    await expect(ask("SELECT * FROM evaluation_summary(last = 0)"))
      .rejects.toThrow("last: expected a whole number, 1 or more");
  });
  test("phase_shares of depth 1 add up to the run's time", async () => {
    expect(
      await ask(
        "SELECT run_id, round(sum(seconds), 6), round(sum(share), 9) FROM phase_shares " +
          "WHERE depth = 1 GROUP BY run_id ORDER BY run_id",
      ),
    ).toEqual(seededRuns.map(({ runId, pace }) => [runId, 40 * pace, 1]));
  });
  test("run_progress has a run without any number too", async () => {
    await seedRuns(service.url, [{ ...seededRuns[3], runId: "idle-0", epochs: 0 }]);
    expect(
      await ask(
        "SELECT run_id, state, epochs, return, evaluation FROM run_progress ORDER BY run_id",
      ),
    ).toEqual([
      ...hoppers.map((run) => [
        run.runId,
        "done",
        40,
        trainingReturn(run, 40),
        evaluatedReturn(run, 40),
      ]),
      ["idle-0", "done", 0, null, null],
      ["walker-0", "done", 40, trainingReturn(seededRuns[3], 40), 2400],
    ]);
  });
});
