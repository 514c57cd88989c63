// Runs through the real services: a run that was stopped, or whose services were all killed, and is
// resumed ends with the same bits as one that never stopped, and is stored once.

import { afterEach, beforeEach, expect, test } from "vitest";
import { join } from "node:path";
import {
  type Done,
  type Epoch,
  type Evaluation,
  type Failed,
  LearnerService,
} from "@proto/sdpg/learner/v1/learner_pb.ts";
import { type Client, client, Code } from "@sdpg/common/rpc.ts";
import {
  type EvaluateRequest,
  EvaluationService,
  type Result,
} from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import {
  type Service,
  startEvaluation,
  startLearner,
  startSimulator,
  startTelemetry,
} from "./resume_processes.ts";

const settings = {
  nominals: "6",
  auxiliaries: "7",
  horizon: "16",
  "actor.warmup_epochs": "4",
  "critic.batch": "256",
  "checkpoint.every": "3",
  "evaluation.every": "4",
  "evaluation.episodes": "4",
};
const request = {
  task: "hopper",
  observation: "state",
  seed: 5n,
  overrides: settings as Record<string, string>,
  epochs: 12n,
};

let home: string;
let services: Service[] = [];
let learner: Client<typeof LearnerService>;

async function startAll() {
  const [simulation, telemetry] = await Promise.all([startSimulator(), startTelemetry(home)]);
  const evaluation = await startEvaluation({ home, simulation: simulation.address });
  const process = await startLearner({
    home,
    simulation: simulation.address,
    telemetry: telemetry.address,
    evaluation: evaluation.address,
  });
  services = [process, simulation, telemetry, evaluation];
  learner = client(LearnerService, process.address);
}
async function stopAll() {
  learner.$close();
  for (const service of services) expect(await service.stop(), service.log()).toBe(0);
  services = [];
}
async function killAll() {
  learner.$close();
  await Promise.all(services.map((service) => service.kill()));
  services = [];
}
beforeEach(async () => {
  home = Deno.makeTempDirSync();
  await startAll();
});
afterEach(async ({ task }) => {
  if (task.result?.state === "fail") services.forEach((service) => console.log(service.log()));
  await killAll();
  Deno.removeSync(home, { recursive: true });
});

/** Watches to the end; `onEpoch` may act on the way. */
async function watch(runId: string, onEpoch: (epoch: Epoch) => unknown = () => {}) {
  const stream = learner.watchRun();
  await stream.send({ runId, credits: 1000 });
  const epochs: Epoch[] = [];
  const evaluations: Evaluation[] = [];
  let done: Done | undefined;
  let failed: Failed | undefined;
  for await (const { event } of stream.responses) {
    if (event.case === "epoch") {
      epochs.push(event.value);
      await onEpoch(event.value);
    }
    if (event.case === "evaluation") evaluations.push(event.value);
    if (event.case === "done") done = event.value;
    if (event.case === "failed") failed = event.value;
  }
  stream.close();
  return { epochs, evaluations, done, failed };
}

/** What two equal runs have in common, epoch by epoch. */
const course = (epochs: Epoch[]) =>
  epochs.map(({ epoch, return: value, scalars }) => ({
    epoch,
    value,
    loss: scalars.critic_loss,
    gradient: scalars.actor_grad_norm,
  }));

async function query(sql: string): Promise<string> {
  const url = `http://${services[2].address}/?query=${encodeURIComponent(sql)}`;
  const response = await fetch(url);
  const text = await response.text();
  expect(response.ok, text).toBe(true);
  return text.trim();
}

test("stopped at epoch 7 or killed there, and resumed: epoch 12 is bit-identical", async () => {
  // Never stopped.
  await learner.startRun({ ...request, runId: "whole" });
  const whole = await watch("whole");
  expect(whole.epochs.map((e) => Number(e.epoch))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  expect(whole.evaluations.map(({ epoch }) => epoch)).toEqual([4n, 8n, 12n]);

  // By a learner that stands still and evaluates itself: the same, in everything but the time.
  const { address } = services[1];
  const alone = await startLearner({ home, simulation: address, telemetry: services[2].address });
  services.push(alone);
  learner.$close();
  learner = client(LearnerService, alone.address);
  await learner.startRun({ ...request, runId: "alone" });
  const same = await watch("alone");
  const timeless = (evaluations: Evaluation[]) =>
    evaluations.map((evaluation) => ({ ...evaluation, wallTimeS: 0 }));
  expect(timeless(same.evaluations)).toEqual(timeless(whole.evaluations));
  expect(same.done?.stateHash).toBe(whole.done?.stateHash);

  // Stopped at epoch 7 by its limit, resumed by fresh services.
  await learner.startRun({ ...request, runId: "stopped", epochs: 7n });
  const first = await watch("stopped");
  expect(first.done?.epochs).toBe(7n);
  await stopAll();
  await startAll();
  const resumed = await learner.resumeRun({ runId: "stopped", epochs: 12n });
  expect(resumed).toMatchObject({ epoch: 7n, skipped: [] });
  const second = await watch("stopped");
  expect(course([...first.epochs, ...second.epochs])).toEqual(course(whole.epochs));
  expect(second.done?.stateHash).toBe(whole.done?.stateHash);

  // Every service killed in epoch 8: the newest checkpoint is that of epoch 6.
  await learner.startRun({ ...request, runId: "killed" });
  await watch("killed", async ({ epoch }) => {
    if (epoch === 7n) await killAll();
  }).catch(() => {}); // The stream breaks with its server.
  await startAll();
  const again = await learner.resumeRun({ runId: "killed", epochs: 12n });
  expect(Number(again.epoch)).toBeGreaterThanOrEqual(6);
  const third = await watch("killed");
  expect(third.done?.stateHash).toBe(whole.done?.stateHash);
  expect(course(third.epochs)).toEqual(course(whole.epochs.slice(Number(again.epoch))));

  // Epochs that came again are stored once.
  for (const run of ["whole", "stopped", "killed"]) {
    await expect.poll(() =>
      query(
        `SELECT count(), uniqExact(iteration), min(iteration), max(iteration) FROM scalars ` +
          `WHERE run_id = '${run}' AND name = 'critic_loss' FORMAT TSV`,
      )
    ).toBe("12\t12\t1\t12");
  }
  const gap = "abs(sumIf(value, startsWith(name, 'reward_term/')) - " +
    "sumIf(value, name = 'rollout_reward'))";
  const worst = await query(
    `SELECT max(gap) FROM (SELECT ${gap} AS gap FROM scalars GROUP BY run_id, iteration) FORMAT TSV`,
  );
  expect(Number(worst)).toBeLessThan(1e-3);
});

test("from pixels: stopped at epoch 4 and resumed by fresh services, epoch 6 is bit-identical", async () => {
  const pixels = { ...request, observation: "pixels", epochs: 6n };
  await learner.startRun({ ...pixels, runId: "whole" });
  const whole = await watch("whole");
  // Every nominal was drawn once a step, and nothing else was for the policy.
  expect(whole.epochs.map((e) => Number(e.imagesRendered)))
    .toEqual([1, 2, 3, 4, 5, 6].map((epochs) => epochs * 6 * 16));
  expect(whole.evaluations.map(({ epoch }) => epoch)).toEqual([4n]);

  await learner.startRun({ ...pixels, runId: "stopped", epochs: 4n });
  const first = await watch("stopped");
  await stopAll();
  await startAll();
  await learner.resumeRun({ runId: "stopped", epochs: 6n });
  const second = await watch("stopped");
  expect(course([...first.epochs, ...second.epochs])).toEqual(course(whole.epochs));
  expect(second.epochs.at(-1)!.imagesRendered).toBe(576n);
  expect(second.done?.stateHash).toBe(whole.done?.stateHash);
});

test("pixels are refused by name where they cannot be: size, stack, encoder, camera", async () => {
  const attempt = (overrides: Record<string, string>) =>
    learner.startRun({ ...request, observation: "pixels", runId: "wrong", overrides });
  for (
    const [overrides, message] of [
      [{ "camera.width": "0" }, "Cannot set camera.width: expected a whole number at least 1"],
      [{ "camera.frames": "17" }, "Cannot set camera.frames: expected a whole number"],
      [{ "camera.height": "8" }, "Cannot set camera.height: encoder small needs at least 12"],
      [{ observation: "state" }, "choose it with --obs state"],
    ] as const
  ) {
    await expect(attempt(overrides)).rejects.toMatchObject({
      code: Code.INVALID_ARGUMENT,
      message: expect.stringContaining(message),
    });
  }
});

test(
  "a damaged newest checkpoint is passed over by name and the run still ends alike",
  async () => {
    await learner.startRun({ ...request, runId: "whole" });
    const whole = await watch("whole");
    await learner.startRun({ ...request, runId: "damaged", epochs: 7n });
    await watch("damaged");
    const file = join(home, "runs/damaged/checkpoints/00000007/critic.safetensors");
    const bytes = Deno.readFileSync(file);
    bytes[bytes.length >> 1] ^= 4;
    Deno.writeFileSync(file, bytes);
    const resumed = await learner.resumeRun({ runId: "damaged", epochs: 12n });
    expect(resumed.skipped).toHaveLength(1);
    expect(resumed.skipped[0]).toContain("critic.safetensors does not match its SHA-256");
    expect(Number(resumed.epoch)).toBeLessThan(7);
    const end = await watch("damaged");
    expect(end.done?.stateHash).toBe(whole.done?.stateHash);
  },
);

test("a simulator that dies fails the run by name; the run can be resumed", async () => {
  await learner.startRun({ ...request, runId: "orphan", epochs: 100_000n });
  const { failed } = await watch("orphan", async ({ epoch }) => {
    if (epoch === 7n) await services[1].kill();
  });
  expect(failed?.reason).toMatch(
    /^Lost gpu-sim at 127\.0\.0\.1:\d+: .*; then go on with \.\/sdpg resume orphan$/,
  );
  await killAll();
  await startAll();
  const { epoch } = await learner.resumeRun({ runId: "orphan", epochs: 9n });
  expect(Number(epoch)).toBeGreaterThanOrEqual(6);
  const { done } = await watch("orphan");
  expect(done?.epochs).toBe(9n);
});

test(
  "stopping writes a checkpoint, which can be evaluated; wrong requests are refused with what is valid",
  async () => {
    const refusal = (work: Promise<unknown>) => work.then(() => "no refusal", (error) => error);
    expect(await refusal(learner.startRun({ task: "hoper" }))).toMatchObject({
      code: Code.INVALID_ARGUMENT,
      message: expect.stringContaining('did you mean "hopper"'),
    });
    expect(await refusal(learner.startRun({ ...request, overrides: { "actor.lrr": "1" } })))
      .toMatchObject({
        code: Code.INVALID_ARGUMENT,
        message: expect.stringContaining('nearest is "actor.lr"'),
      });
    expect(await refusal(learner.startRun({ ...request, preset: "papre" }))).toMatchObject({
      code: Code.INVALID_ARGUMENT,
    });
    expect(await refusal(learner.startRun({ ...request, runId: "../x" }))).toMatchObject({
      code: Code.INVALID_ARGUMENT,
    });
    expect(await refusal(learner.resumeRun({ runId: "nobody" }))).toMatchObject({
      code: Code.NOT_FOUND,
    });

    const { runId, estimatedBytes } = await learner.startRun({ ...request, epochs: 100_000n });
    expect(Number(estimatedBytes)).toBeGreaterThan(1e8);
    expect(await refusal(learner.startRun({ ...request, runId: "second" }))).toMatchObject({
      code: Code.RESOURCE_EXHAUSTED,
      message: expect.stringContaining(runId),
    });
    let stopped: { epoch: bigint; checkpoint: string } | undefined;
    const { done } = await watch(runId, async ({ epoch }) => {
      if (epoch === 5n) stopped = await learner.stopRun({ runId });
    });
    expect(done?.epochs).toBe(stopped?.epoch);
    expect(Deno.statSync(join(stopped!.checkpoint, "manifest.json")).isFile).toBe(true);

    const evaluation = client(EvaluationService, services[3].address);
    const play = async (policy: EvaluateRequest["policy"], episodes = 3): Promise<Result> => {
      for await (const { event } of evaluation.evaluate({ policy, episodes, seed: 9n })) {
        if (event.case === "result") return event.value;
      }
      throw new Error("the evaluation ended without a result");
    };
    const first = await play({ case: "runId", value: runId });
    expect(first.returns).toHaveLength(3);
    expect(first.epoch).toBe(stopped?.epoch);
    const sum = Object.values(first.rewardTerms).reduce((a, b) => a + b, 0);
    expect(sum).toBeCloseTo(first.returnMean, 2);
    const second = await play({ case: "checkpoint", value: stopped!.checkpoint });
    expect(second.returns).toEqual(first.returns);
    // An episode is its seed's and its number's, however many are played beside it.
    const alone = await play({ case: "runId", value: runId }, 1);
    expect(alone.returns).toEqual(first.returns.slice(0, 1));
    const best = await play({ case: "bestOfRunId", value: runId });
    expect(best.epoch).toBe(4n);

    const refused = (policy: EvaluateRequest["policy"], episodes?: number) =>
      refusal(play(policy, episodes));
    expect(await refused({ case: "runId", value: runId }, 4097)).toMatchObject({
      code: Code.INVALID_ARGUMENT,
      message: expect.stringContaining("1 to 4096"),
    });
    expect(await refused({ case: "checkpoint", value: "/etc" })).toMatchObject({
      code: Code.INVALID_ARGUMENT,
      message: expect.stringContaining(`below ${home}`),
    });
    expect(await refused({ case: "checkpoint", value: home + "/nothing" })).toMatchObject({
      code: Code.DATA_LOSS,
      message: expect.stringContaining("manifest.json is missing"),
    });
    expect(await refused({ case: "runId", value: "nobody" })).toMatchObject({
      code: Code.NOT_FOUND,
    });
    evaluation.$close();

    const { algorithms } = await learner.listAlgorithms({});
    expect(algorithms[0].keys.find((k) => k.path === "actor.lr")?.defaultValue).toBe("0.002");
    const { tasks } = await learner.listTasks({});
    expect(tasks.find((t) => t.name === "hopper")).toMatchObject({
      actionSize: 3,
      privilegedSize: 11,
    });
  },
);
