// The same training over both gRPC transports and with the core called in this process, with one and
// two threads on either side: the same bits.

import { afterAll, beforeAll, expect, test } from "vitest";
import { type Observation, presetLayers } from "../../services/learner/presets.ts";
import { configureTraining, TrainingRun } from "../../services/learner/run.ts";
import type { BatchOptions, Simulation } from "../../services/learner/simulation.ts";
import { simulateOverGrpc } from "../../services/learner/simulation_grpc.ts";
import { simulateInProcess } from "../../services/learner/simulation_in_process.ts";
import { liveTensors, scope, setNumThreads } from "../../services/learner/torch/mod.ts";
import { loadTask, type Task } from "@sdpg/tasks/mod.ts";
import { type Service, startRenderer, startSimulator } from "./resume_processes.ts";

const settings = {
  nominals: "6",
  auxiliaries: "7",
  horizon: "16",
  "actor.warmup_epochs": "4",
  "critic.batch": "256",
  "evaluation.every": "3",
  "evaluation.episodes": "5",
};

const servers: Service[] = [];
const tasks = new Map<string, Task>();
beforeAll(async () => {
  servers.push(await startSimulator(1), await startSimulator(2));
  for (const name of ["hopper", "walker"]) tasks.set(name, await loadTask(name));
});
afterAll(() => Promise.all(servers.map((server) => server.stop())));

/** Hash and timeless events of six epochs. */
async function train(
  task: string,
  threads: number,
  simulate: (batch: BatchOptions) => Simulation | Promise<Simulation>,
  observation: Observation = "state",
) {
  setNumThreads(threads);
  const before = liveTensors();
  const run = await TrainingRun.start({
    task: tasks.get(task)!,
    config: configureTraining(presetLayers("cpu", task, observation)!, settings),
    seed: 7n,
    simulate,
    epochs: 6,
    seconds: 0,
  });
  const values: unknown[] = [];
  let hash = "";
  for await (const event of run.events()) {
    if (event.kind === "done") hash = event.stateHash;
    if (event.kind === "epoch") {
      values.push({ ...event.scalars, live_tensors: 0 }, event.imagesRendered);
    }
    if (event.kind === "evaluation") values.push(event.returns, event.rewardTerms);
  }
  await run.close();
  expect(liveTensors()).toBe(before);
  return { hash, values };
}

const grpc =
  (server: number, how: "doorbell" | "shared_memory" | "inline") => (batch: BatchOptions) =>
    simulateOverGrpc(batch, {
      address: servers[server].address,
      transport: how === "inline" ? "inline" : "shared_memory",
      doorbell: how === "doorbell",
    });

test.each(["hopper", "walker"])(
  "%s: doorbell, shared memory, inline chunks and in-process agree bit for bit, with 1 and 2 threads",
  async (task) => {
    const reference = await train(task, 1, (batch) => simulateInProcess(batch, 1));
    expect(reference.hash).toMatch(/^[0-9a-f]{64}$/);
    expect(await train(task, 2, (batch) => simulateInProcess(batch, 2))).toEqual(reference);
    expect(await train(task, 1, grpc(0, "doorbell"))).toEqual(reference);
    expect(await train(task, 2, grpc(1, "doorbell"))).toEqual(reference);
    expect(await train(task, 1, grpc(0, "shared_memory"))).toEqual(reference);
    expect(await train(task, 2, grpc(1, "shared_memory"))).toEqual(reference);
    expect(await train(task, 1, grpc(0, "inline"))).toEqual(reference);
    expect(await train(task, 2, grpc(1, "inline"))).toEqual(reference);
  },
);

test("hopper from pixels: the same bits over every way, and every picture drawn once", async () => {
  const pixels = (threads: number, simulate: Parameters<typeof train>[2]) =>
    train("hopper", threads, simulate, "pixels");
  const reference = await pixels(1, (batch) => simulateInProcess(batch, 1));
  expect(reference.values.filter((value) => typeof value === "number"))
    .toEqual([1, 2, 3, 4, 5, 6].map((epochs) => epochs * 6 * 16));
  expect(await pixels(2, (batch) => simulateInProcess(batch, 2))).toEqual(reference);
  expect(await pixels(1, grpc(0, "doorbell"))).toEqual(reference);
  expect(await pixels(2, grpc(1, "shared_memory"))).toEqual(reference);
  expect(await pixels(2, grpc(1, "inline"))).toEqual(reference);
});

test("hopper from pixels: a renderer in another process draws the same bits, also after a resume", async () => {
  const renderer = await startRenderer(2);
  const apart = (how: { doorbell: boolean }) => (batch: BatchOptions) =>
    simulateOverGrpc(batch, {
      address: servers[1].address,
      transport: "shared_memory",
      renderer: renderer.address,
      ...how,
    });
  const { values } = await train("hopper", 1, grpc(0, "doorbell"), "pixels");
  const first = await train("hopper", 1, apart({ doorbell: true }), "pixels");
  expect(first.values).toEqual(values);
  expect(await train("hopper", 2, apart({ doorbell: false }), "pixels")).toEqual(first);

  // A batch that goes on from a snapshot in another batch and scene draws what the first draws.
  const task = tasks.get("hopper")!;
  const batch = {
    model: task.model,
    program: task.program,
    nominals: 3,
    auxiliaries: 1,
    horizon: 5,
    seed: 2n,
    meanBounds: [-2, 2],
    logStdBounds: [-5, 2],
    label: "apart",
    views: [{ camera: "side", width: 20, height: 16, frames: 3 }],
  } as const;
  const segment = async (simulation: Simulation, epoch: number, steps: number) => {
    await simulation.begin(epoch, epoch === 0);
    for (let t = 0; t < steps; t++) {
      await simulation.step(t, new Float32Array(9).fill(0.3 * t - 0.5), new Float32Array(3));
    }
    await simulation.end();
    const shown = simulation.tensors.images.get("side")!.slice(0, 0, steps);
    const bytes = shown.contiguous().toArray();
    return [...bytes as Uint8Array].join();
  };
  for (const steps of [5, 3]) { // whole, and ended early
    using _scope = scope();
    const inside = await simulateOverGrpc(batch, {
      address: servers[0].address,
      transport: "shared_memory",
    });
    const [one, two] = [
      await apart({ doorbell: true })(batch),
      await apart({ doorbell: true })(batch),
    ];
    for (let epoch = 0; epoch < 2; epoch++) {
      expect(await segment(one, epoch, steps)).toBe(await segment(inside, epoch, steps));
    }
    await two.restore(await one.snapshot());
    const next = await segment(inside, 2, 5);
    expect(await segment(one, 2, 5)).toBe(next);
    expect(await segment(two, 2, 5)).toBe(next);
    expect(one.imagesDrawn).toBe(inside.imagesDrawn);
    for (const simulation of [inside, one, two]) await simulation.close();
  }
  expect(await renderer.stop()).toBe(0);
  await expect(apart({ doorbell: true })(batch)).rejects.toThrow(
    `Lost the renderer at ${renderer.address}`,
  );
});

test("a batch that the server refuses is refused with its reason", async () => {
  const task = tasks.get("hopper")!;
  const attempt = simulateOverGrpc({
    model: task.model,
    program: task.program,
    nominals: 0,
    auxiliaries: 1,
    horizon: 1,
    seed: 1n,
    meanBounds: null,
    logStdBounds: null,
    label: "training",
  }, { address: servers[0].address, transport: "shared_memory" });
  await expect(attempt).rejects.toThrow(/refused: .*nominals/);
});

test.each([true, false])("a simulator that dies is named (doorbell %s)", async (doorbell) => {
  const server = await startSimulator(1);
  const task = tasks.get("hopper")!;
  const simulation = await simulateOverGrpc({
    model: task.model,
    program: task.program,
    nominals: 2,
    auxiliaries: 1,
    horizon: 4,
    seed: 1n,
    meanBounds: [-2, 2],
    logStdBounds: [-5, 2],
    label: "training",
  }, { address: server.address, transport: "shared_memory", doorbell });
  await simulation.begin(0, true);
  await server.kill();
  const step = async () => await simulation.step(0, new Float32Array(6), new Float32Array(3));
  await expect(step()).rejects.toThrow(`Lost gpu-sim at ${server.address}`);
  await expect(simulation.snapshot()).rejects.toThrow(`Lost gpu-sim at ${server.address}`);
  await simulation.close();
});
