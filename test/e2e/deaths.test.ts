// Ctrl-C, and SIGKILL of every process in turn: a clear line, nothing left behind, nothing lost.

import { afterAll, describe, expect, test } from "vitest";
import {
  ask,
  events,
  isRunning,
  processesOf,
  type Running,
  sdpg,
  sharedMemoryOf,
  start,
  temporaryHome,
  tiny,
  until,
} from "./command.ts";

const home = temporaryHome();
afterAll(async () => {
  await sdpg(home.path, "down"); // where a test between up and down has failed
  await home[Symbol.asyncDispose]();
});

/** A training without end that has finished two epochs. */
async function training(run: string, ...more: string[]): Promise<Running> {
  const running = start(home.path, ["train", "hopper", "--run", run, "--json", ...tiny, ...more]);
  await running.event(({ event, epoch }) => event === "epoch" && epoch === 2);
  return running;
}

async function nothingLeft(services: Record<string, number>): Promise<void> {
  const pids = Object.values(services);
  expect(pids.length).toBe(4);
  await until("services end", () => !pids.some(isRunning));
  expect(processesOf(home.path)).toEqual([]);
}

const stateOf = async (run: string) =>
  (await ask(home.path, `SELECT state FROM runs WHERE run_id = '${run}'`))[0]?.state;

describe("a training that is asked to stop", () => {
  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("by %s", async (signal) => {
    const run = `asked-${signal.toLowerCase()}`;
    const running = await training(run);
    const services = running.services();
    running.signal(signal);
    const { code, stdout, stderr } = await running.finished;
    expect(code).toBe(0);
    expect(stderr).toContain(`./sdpg resume ${run}`);
    const told = events(stdout);
    const epochs = told.filter(({ event }) => event === "epoch").length;
    expect(told.at(-1)).toMatchObject({ event: "done", epochs });
    await nothingLeft(services);
    expect(sharedMemoryOf(Object.values(services))).toEqual([]);
    expect(await stateOf(run)).toBe("stopped");
  });
});

describe("SIGKILL", () => {
  test.each(["gpu-sim", "learner"])("of %s ends the training with its name", async (service) => {
    const run = `killed-${service}`;
    const running = await training(run, "checkpoint.every=1");
    const services = running.services();
    Deno.kill(services[service], "SIGKILL");
    const { code, stderr } = await running.finished;
    expect(code).toBe(1);
    const last = stderr.trimEnd().split("\n").at(-1)!;
    expect(last).toContain(`${service} ended while it was needed (signal SIGKILL)`);
    expect(last).toContain(`./sdpg resume ${run}`);
    await nothingLeft(services);
    // What the killed simulator left is removed by the next command, which goes on with the run.
    const epoch = Number(
      events((await sdpg(home.path, "runs", "--json")).stdout)
        .find(({ run_id }) => run_id === run).iteration,
    );
    const resumed = await sdpg(home.path, "resume", run, "--epochs", String(epoch + 2), "--json");
    expect(resumed.code).toBe(0);
    expect(sharedMemoryOf(Object.values(services))).toEqual([]);
    expect(await stateOf(run)).toBe("done");
    const [{ once }] = await ask(
      home.path,
      `SELECT count() = uniqExact(iteration, name) AS once FROM scalars WHERE run_id = '${run}'`,
    );
    expect(once).toBe(1);
  });

  test("of telemetry is made good: the training goes on and no row is missing", async () => {
    const running = await training("killed-telemetry", "--epochs=400");
    const { telemetry } = running.services();
    Deno.kill(telemetry, "SIGKILL");
    const { code, stdout, stderr } = await running.finished;
    expect(stderr).toContain("telemetry ended while it was needed (signal SIGKILL)");
    expect(code).toBe(0);
    expect(events(stdout).at(-1)).toMatchObject({ event: "done", epochs: 400 });
    const [row] = await ask(
      home.path,
      `SELECT count() AS n, uniqExact(iteration) AS distinct, max(iteration) AS last
       FROM scalars WHERE run_id = 'killed-telemetry' AND name = 'rollout_reward'`,
    );
    expect(row).toEqual({ n: 400, distinct: 400, last: 400 });
  });

  test("of evaluation is told, and the training goes on without", async () => {
    const running = await training("killed-evaluation", "--epochs=60");
    Deno.kill(running.services().evaluation, "SIGKILL");
    const { code, stdout, stderr } = await running.finished;
    expect(stderr).toContain("evaluation ended while it was needed (signal SIGKILL)");
    expect(stderr).toContain("training goes on without evaluations");
    expect(code).toBe(0);
    expect(events(stdout).at(-1)).toMatchObject({ event: "done", epochs: 60 });
  });

  test(
    "of the command leaves no process; its learner has taken a checkpoint first",
    async () => {
      const running = await training("killed-command");
      const services = running.services();
      running.signal("SIGKILL");
      await running.finished;
      await nothingLeft(services);
      const listed = events((await sdpg(home.path, "runs", "--json")).stdout);
      const { state } = listed.find(({ run_id }) => run_id === "killed-command");
      expect(["interrupted", "stopped"]).toContain(state);
      expect(sharedMemoryOf(Object.values(services))).toEqual([]);
    },
  );

  test("of everything at once is swept by the next start", async () => {
    const running = await training("killed-all");
    const services = running.services();
    for (const pid of Object.values(services)) Deno.kill(pid, "SIGKILL");
    running.signal("SIGKILL");
    await running.finished;
    await nothingLeft(services);
    const next = await sdpg(home.path, "train", "hopper", "--run=after", "--epochs=1", ...tiny);
    expect(next.code).toBe(0);
    expect(sharedMemoryOf(Object.values(services))).toEqual([]);
    expect(await stateOf("killed-all")).toBe("interrupted");
  });
});

describe("up and down", () => {
  test("leave services that several commands use, and end them", async () => {
    const up = await sdpg(home.path, "up", "--threads=1", "--json");
    expect(up.code).toBe(0);
    const services = events(up.stdout);
    expect(services.map(({ service }) => service)).toEqual([
      "telemetry",
      "gpu-sim",
      "render",
      "evaluation",
      "learner",
    ]);
    const again = await sdpg(home.path, "up");
    expect([again.code, again.stderr]).toEqual([1, expect.stringContaining("./sdpg down")]);
    const running = await training("with-up");
    expect(running.services()).toEqual({});
    // A second run at the same time gets a simulator and learner of its own.
    const second = await sdpg(home.path, "train", "hopper", "--run=second", "--epochs=2", ...tiny);
    expect([second.code, second.stderr]).toEqual([0, expect.stringContaining("busy")]);
    running.signal("SIGINT");
    expect((await running.finished).code).toBe(0);
    for (const { pid } of services) expect(isRunning(pid)).toBe(true);
    const down = await sdpg(home.path, "down");
    expect(down.stdout.match(/^stopped /gm)?.length).toBe(5);
    for (const { pid } of services) expect(isRunning(pid)).toBe(false);
  });
});
