// A training through the whole mesh, as a program sees it, and what the store then holds.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ask, events, type Finished, sdpg, small, start, temporaryHome, tiny } from "./command.ts";

const home = temporaryHome();
let trained: Finished;
beforeAll(async () => {
  const args = ["--epochs", "3", "--seed", "7", "--run", "first", "--json", ...small];
  const settings = ["evaluation.every=2", "task.height_cap=0.5"];
  trained = await sdpg(home.path, "train", "hopper", ...args, ...settings);
});
afterAll(() => home[Symbol.asyncDispose]());

describe("train --json", () => {
  test("tells the run, every epoch and the end, with all fields", () => {
    expect(trained.stderr).not.toMatch(/error/i);
    expect(trained.code).toBe(0);
    const told = events(trained.stdout);
    expect(told.map(({ event }) => event).filter((event) => event !== "evaluation"))
      .toEqual(["run", "epoch", "epoch", "epoch", "done"]);
    expect(told[0]).toMatchObject({ run_id: "first", task: "hopper", algorithm: "sdpg", seed: 7 });
    expect(told[0].configuration).toMatchObject({
      ...{ nominals: 4, auxiliaries: 3, horizon: 8 },
      task: { height_cap: 0.5 },
    });

    const epochs = told.filter(({ event }) => event === "epoch");
    epochs.forEach((epoch, i) => {
      expect(epoch).toMatchObject({
        epoch: i + 1,
        env_steps_nominal: (i + 1) * 4 * 8,
        env_steps_total: (i + 1) * 16 * 8,
        images_rendered: 0,
        wall_time_s: expect.any(Number),
      });
      for (const name of ["return", "episode_length"]) {
        expect(epoch[name] === null || Number.isFinite(epoch[name])).toBe(true);
      }
      const tops = Object.entries<number>(epoch.phases).filter(([name]) => !name.includes("/"));
      expect(tops.map(([name]) => name)).toContain("rollout");
      expect(Math.min(...Object.values<number>(epoch.phases))).toBeGreaterThanOrEqual(0);
    });
    const times = epochs.map(({ wall_time_s }) => wall_time_s);
    expect(times).toEqual([...times].sort((a, b) => a - b));

    const done = told.at(-1);
    expect(done).toMatchObject({ run_id: "first", epochs: 3 });
    expect(done.state_hash).toMatch(/^[0-9a-f]{64}$/);
    expect(Deno.statSync(done.checkpoint).isDirectory).toBe(true);
    expect(done.checkpoint.startsWith(`${home.path}/runs/first/checkpoints/`)).toBe(true);
  });

  test("tells an evaluation where one is due", () => {
    const evaluations = events(trained.stdout).filter(({ event }) => event === "evaluation");
    expect(evaluations.map(({ epoch, episodes }) => [epoch, episodes])).toEqual([[2, 16]]);
  });

  test("sees pixels unless told to see the state", async () => {
    await using other = temporaryHome();
    const size = ["nominals=2", "auxiliaries=1", "horizon=4", "evaluation.every=0"];
    const seen = await sdpg(other.path, "train", "hopper", "--epochs=1", "--json", ...size);
    expect(seen.code, seen.stderr).toBe(0);
    const [run, epoch] = events(seen.stdout);
    expect(run.configuration.observation).toBe("pixels");
    expect(epoch.images_rendered).toBe(2 * 4);
    expect(events(trained.stdout)[0].configuration.observation).toBe("state");
  });

  test("leaves no process, no shared memory and no list of services", () => {
    expect(() => Deno.statSync(`${home.path}/services.json`)).toThrow(Deno.errors.NotFound);
    expect(Deno.readTextFileSync(`${home.path}/runs/first/run.log`)).toMatch(/epoch 3/);
  });
});

describe("the store after a training", () => {
  test("has exactly one row per iteration and name, on all axes", async () => {
    const [counts] = await ask(
      home.path,
      `SELECT count() AS n, uniqExact(iteration, name) AS distinct, uniqExact(iteration) AS epochs,
         max(env_steps_total) AS steps, max(env_steps_nominal) AS nominal
       FROM scalars WHERE run_id = 'first'`,
    );
    expect(counts.n).toBe(counts.distinct);
    expect(counts).toMatchObject({ epochs: 3, steps: 3 * 16 * 8, nominal: 3 * 4 * 8 });
  });

  test("has reward terms that sum to the reward", async () => {
    const rows = await ask(
      home.path,
      `SELECT iteration, sumIf(value, startsWith(name, 'reward_term/')) AS terms,
         anyIf(value, name = 'rollout_reward') AS reward
       FROM scalars WHERE run_id = 'first' GROUP BY iteration ORDER BY iteration`,
    );
    expect(rows.length).toBe(3);
    for (const { terms, reward } of rows) {
      expect(Math.abs(terms - reward)).toBeLessThanOrEqual(1e-4 * Math.max(1, Math.abs(reward)));
    }
  });

  test("knows the run, its end, its evaluation and its services", async () => {
    const [run] = await ask(home.path, "SELECT * FROM runs WHERE run_id = 'first'");
    expect(run).toMatchObject({ task: "hopper", state: "done", seed: 7, epochs: 3 });
    expect(JSON.parse(run.configuration).task).toEqual({ height_cap: 0.5 });
    const [evaluation] = await ask(home.path, "SELECT iteration, episodes FROM evaluations");
    expect(evaluation).toEqual({ iteration: 2, episodes: 16 });
    const services = await ask(
      home.path,
      "SELECT service, max(proportional_bytes) AS pss FROM resources GROUP BY service ORDER BY service",
    );
    expect(services.map(({ service }) => service)).toEqual([
      "cli",
      "evaluation",
      "gpu-sim",
      "learner",
      "telemetry",
    ]);
    for (const { pss } of services) expect(pss).toBeGreaterThan(1e6);
  });

  test("is listed by runs, and evaluated by eval", async () => {
    const listed = events((await sdpg(home.path, "runs", "--json")).stdout);
    expect(listed).toMatchObject([{ run_id: "first", state: "done", iteration: 3 }]);
    const { code, stdout, stderr } = await sdpg(
      home.path,
      "eval",
      "first",
      "--episodes=3",
      "--json",
      `--video=${home.path}/first.gif`,
      "--height=64",
    );
    expect(stderr).not.toMatch(/Internal/);
    expect(code).toBe(0);
    const [result] = events(stdout);
    expect(result).toMatchObject({ run_id: "first", epoch: 3, episodes: 3 });
    const mean = result.returns.reduce((a: number, b: number) => a + b) / 3;
    expect(result.return).toBeCloseTo(mean, 6);
    const terms = Object.values<number>(result.reward_terms).reduce((a, b) => a + b, 0);
    expect(terms).toBeCloseTo(mean, 2);
    // Without ffmpeg it is a folder of frames; either has the episode in it.
    const filmed = Deno.statSync(result.video);
    expect(filmed.isFile ? filmed.size : [...Deno.readDirSync(result.video)].length)
      .toBeGreaterThan(filmed.isFile ? 1000 : result.lengths[0] / 10);
  });
});

describe("beside a running training", () => {
  test("sql answers, and a second training shares the store", async () => {
    await using other = temporaryHome();
    const one = start(other.path, ["train", "hopper", "--run", "one", "--json", ...tiny]);
    await one.event(({ event, epoch }) => event === "epoch" && epoch === 3);
    const two = sdpg(other.path, "train", "walker", "--run=two", "--epochs=3", "--json", ...tiny);
    // Rows travel in batches: the first arrive within seconds, not at once.
    let seen = 0;
    for (let i = 0; i < 20 && seen === 0; i++) {
      const query = "SELECT max(iteration) AS n FROM scalars WHERE run_id = 'one'";
      seen = (await ask(other.path, query))[0].n;
    }
    expect(seen).toBeGreaterThanOrEqual(1);
    expect((await two).code).toBe(0);
    // The first goes on: the second did not take the store down with it.
    const before = events((await sdpg(other.path, "runs", "--json")).stdout);
    expect(before.map(({ run_id, state }) => [run_id, state])).toEqual([
      ["one", "running"],
      ["two", "done"],
    ]);
    one.signal("SIGINT");
    expect((await one.finished).code).toBe(0);
    const rows = await ask(
      other.path,
      "SELECT run_id, count() = uniqExact(iteration, name) AS once FROM scalars GROUP BY run_id ORDER BY run_id",
    );
    expect(rows).toEqual([{ run_id: "one", once: 1 }, { run_id: "two", once: 1 }]);
  });
});
