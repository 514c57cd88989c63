// The commands that read the store, on runs whose numbers can be worked out by hand: what they print,
// what they write, what they refuse.

import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { seededRuns, seedRuns } from "../../services/telemetry/seeded_for_tests.ts";
import { startTestService } from "../../services/telemetry/service_for_tests.ts";
import { events, sdpg, temporaryHome } from "./command.ts";

const home = temporaryHome();
beforeAll(async () => {
  const service = await startTestService(home.path);
  // A second hopper experiment: half the learning rate.
  const other = { nominals: 64, auxiliaries: 15, actor: { lr: 0.001 }, epochs: 40 };
  const slow = { ...seededRuns[0], runId: "hopper-slow", pace: 8, configuration: other };
  await seedRuns(service.url, [...seededRuns, slow]);
  await service.kill();
});
afterAll(() => home[Symbol.asyncDispose]());

/** Output of a command that has to succeed. */
async function out(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await sdpg(home.path, ...args);
  expect(code, stderr).toBe(0);
  return stdout;
}
/** Lines with single spaces between their cells. */
const lines = (text: string) => text.trim().split("\n").map((line) => line.trim().split(/\s{2,}/));

describe("runs", () => {
  test("lists what passes all filters", async () => {
    const names = async (...filters: string[]) =>
      events(await out("runs", "--json", ...filters)).map(({ run_id }) => run_id);
    expect(await names("--task=walker")).toEqual(["walker-0"]);
    expect(await names("--task=hopper", "--state=done", "--algo=sdpg", "--preset=cpu"))
      .toEqual(["hopper-0", "hopper-1", "hopper-2", "hopper-slow"]);
    expect(await names("--state=failed")).toEqual([]);
  });
});

describe("tag and note", () => {
  test("write what runs, show and export then have", async () => {
    const tagged = lines(await out("tag", "hopper-1", "hopper-2", "+sweep", "+lr/0.002", "-none"));
    expect(tagged.slice(-2)).toEqual([
      ["hopper-1", "lr/0.002 sweep"],
      ["hopper-2", "lr/0.002 sweep"],
    ]);
    await out("tag", "hopper-2", "-sweep");
    const [other] = events(await out("tag", "hopper-2", "--json"));
    expect(other).toEqual({ run_id: "hopper-2", tags: ["lr/0.002"] });
    expect(await out("note", "hopper-1", "fell over,\ntwice")).toBe("fell over,\ntwice\n");
    const found = events(await out("runs", "--tag=sweep", "--json"));
    expect(found.map(({ run_id, tags }) => [run_id, tags])).toEqual([
      ["hopper-1", ["lr/0.002", "sweep"]],
    ]);
    const page = lines(await out("show", "hopper-1"));
    for (const row of [["tags", "lr/0.002 sweep"], ["note", "fell over,"], ["twice"]]) {
      expect(page).toContainEqual(row);
    }
    const [shown] = events(await out("show", "hopper-1", "--json"));
    expect(shown.run).toMatchObject({ tags: ["lr/0.002", "sweep"], note: "fell over,\ntwice" });
    const path = join(home.path, "runs.csv");
    await out("export", "hopper-1", "--format=csv", "--table=runs", `--out=${path}`);
    const [header, row] = Deno.readTextFileSync(path).split("\n");
    expect(header).toMatch(/"tags","note"$/);
    expect(row).toContain(`"['lr/0.002','sweep']"`);
    // Taken away again, and said so.
    expect(await out("note", "hopper-1", "")).toBe("");
    expect(events(await out("note", "hopper-1", "--json"))).toEqual([
      { run_id: "hopper-1", note: "" },
    ]);
    await out("tag", "hopper-1", "hopper-2", "-sweep", "-lr/0.002");
  });
});

describe("show", () => {
  test("is a page about one run", async () => {
    const page = lines(await out("show", "hopper-0"));
    expect(page[0]).toEqual(["hopper-0: hopper by sdpg from state, preset cpu, seed 0"]);
    for (
      const row of [
        ["epochs", "40 of 40"],
        ["speed", "1.02 k nominal, 16.4 k total env steps/s, 32 images/s"],
        ["best", "4000 at epoch 40, of 4 evaluations"],
        ["40", "1:20", "1.31 M", "4000", "63.53", "3995", "4005", "150.0", "2"],
        ["rollout", "50.0 %", "1000"],
        ["simulation", "37.5 %", "750.0"],
        ["(other)", "2.0 %", "40.00"],
        ["learner", "240 MB", "2026-01-01 00:01:19"],
        ["all", "514 MB", "2026-01-01 00:00:01"],
      ]
    ) expect(page).toContainEqual(row);
  });
  test("gives the same as JSON", async () => {
    const [shown] = events(await out("show", "hopper-1", "--json"));
    expect(shown.run).toMatchObject({ run_id: "hopper-1", seed: "1", state: "done" });
    expect(shown.run.configuration.actor).toEqual({ lr: 0.002 });
    expect(shown.evaluations[0]).toMatchObject({ iteration: 40, return_mean: 4050 });
    expect(shown.faults).toEqual([
      { service: "gpu-sim", kind: "non_finite", times: 3, first: 7, message: "" },
    ]);
  });
});

describe("compare", () => {
  test(
    "has a row for each run, a mean for each experiment, and the settings that differ",
    async () => {
      const page = lines(
        await out(
          "compare",
          "hopper-0",
          "hopper-1",
          "hopper-2",
          "hopper-slow",
          "--thresholds=3000",
        ),
      );
      const speed = (pace: number) => `${(32.768 / pace).toPrecision(3)} k`;
      const row = (
        name: string,
        group: string,
        seed: string,
        time: string,
        of: string[],
      ) => [name, group, seed, "done", "40", time, ...of];
      const images = ["32", "26", "21", "8"];
      expect(page[2]).toEqual(
        row("hopper-0", "A", "0", "1:20", [
          "4000",
          "4000",
          "2500",
          "1:00",
          speed(2),
          images[0],
          "514 MB",
        ]),
      );
      expect(page[4].slice(0, 10)).toEqual(
        row("hopper-2", "A", "2", "2:00", ["4200", "4200", "2700", "1:30"]),
      );
      expect(page[5][1]).toBe("B");
      const mean = page.find(([name, seeds]) => name === "A" && seeds === "3")!;
      // 4000, 4050, 4200: their deviation is 104.08, times 4.3027 / √3; 60, 75 and 90 s.
      expect(mean.slice(2, 3)).toEqual(["4083 ± 258.6"]);
      expect(mean[5]).toBe("1:15 ± 0:37");
      expect(page.slice(-2)).toEqual([["key", "A", "B"], ["actor.lr", "0.002", "0.001"]]);
    },
  );
  test("takes any axis, and says what no run reached", async () => {
    const rows = events(
      await out(
        ...["compare", "hopper-0", "walker-0", "--axis=env_steps_total", "--last=2", "--json"],
        "--thresholds=2000,9000",
      ),
    );
    expect(rows).toMatchObject([
      { run_id: "hopper-0", mean_last: 3500, reached: { 2000: 20 * 32768, 9000: null } },
      { run_id: "walker-0", mean_last: 2100, reached: { 2000: 40 * 32768, 9000: null } },
    ]);
  });
});

describe("export", () => {
  const path = (name: string) => join(home.path, "out", name);
  test("writes CSV and Parquet", async () => {
    await out("export", "hopper-1", "walker-0", "--format=csv", `--out=${path("a.csv")}`);
    const rows = Deno.readTextFileSync(path("a.csv")).trim().split("\n");
    expect(rows[0]).toMatch(/^"run_id","name","iteration","value","env_steps_nominal"/);
    expect(rows.length).toBe(1 + 2 * (40 * 5 + 4)); // four phases and the return, four evaluations
    expect(rows[4]).toMatch(/^"hopper-1","evaluation",40,4050,81920,1310720,2560,100,0,/);
    await out(
      ...["export", "hopper-1", "--format=parquet", "--table=episodes"],
      `--out=${path("a.parquet")}`,
    );
    const parquet = Deno.readFileSync(path("a.parquet"));
    for (const at of [0, parquet.length - 4]) {
      expect(new TextDecoder().decode(parquet.subarray(at, at + 4))).toBe("PAR1");
    }
  });
  test("writes event files, a folder a run, the same bytes each time", async () => {
    const write = async (folder: string) => {
      await out("export", "hopper-0", "--format=tensorboard", `--out=${path(folder)}`);
      return Deno.readFileSync(path(`${folder}/hopper-0/events.out.tfevents.1767225600.sdpg`));
    };
    const bytes = await write("one");
    let records = 0;
    for (let at = 0; at < bytes.length; records++) {
      at += 16 + Number(new DataView(bytes.buffer, at).getBigUint64(0, true));
      expect(at).toBeLessThanOrEqual(bytes.length);
    }
    expect(records).toBe(1 + 40 + 4);
    expect(await write("two")).toEqual(bytes);
  });
});

describe("refusals", () => {
  test.each([
    ["runs --task hoper", `did you mean "hopper"?`],
    ["runs --preset cup", `expected cpu; did you mean "cpu"?`],
    ["show hopper-3", `Cannot find run "hopper-3" in the store; did you mean "hopper-0"?`],
    ["compare hopper-0 walker-00", `did you mean "walker-0"?`],
    ["tag hopper-0 sweep", `Cannot find run "sweep"`],
    ["note hopper-00", `did you mean "hopper-0"?`],
    ["runs --tag sweep", `Cannot use --tag "sweep": expected nothing yet`],
    ["export nobody --format csv --out x", "./sdpg runs lists them"],
  ])("sdpg %s", async (args, hint) => {
    const { code, stdout, stderr } = await sdpg(home.path, ...args.split(" "));
    expect(stderr).toContain(hint);
    expect(stderr.trimEnd().split("\n").length).toBe(1);
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });
});
