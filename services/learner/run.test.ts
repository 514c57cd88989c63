// A whole run over the toy simulator: schedule of evaluations and checkpoints, stopping and resuming.

import { afterEach, beforeEach, expect, test } from "vitest";
import { create } from "@bufbuild/protobuf";
import { ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import { Checkpoints, disk } from "./checkpoint.ts";
import { configureTraining, type RunEvent, type RunOptions, TrainingRun } from "./run.ts";
import { liveTensors } from "./torch/mod.ts";
import { simulateToy, type ToyOptions, toyProgram } from "./toy_simulation.ts";

const toy: ToyOptions = {
  nominals: 3,
  auxiliaries: 5,
  horizon: 6,
  seed: 3n,
  episodeLength: 20,
  limit: 0.5,
};

const config = configureTraining([], {
  nominals: "3",
  auxiliaries: "5",
  horizon: "6",
  "actor.hidden": "5,4",
  "actor.average": "0.9",
  "critic.hidden": "6",
  "evaluation.every": "4",
  "evaluation.episodes": "2",
  "checkpoint.every": "5",
});

function options(overrides: Partial<RunOptions> = {}): RunOptions {
  return {
    task: {
      name: "toy",
      model: create(ModelSchema, { contentHash: "toy-model" }),
      program: toyProgram(toy),
    },
    config,
    seed: 1n,
    simulate: (batch) =>
      simulateToy({
        ...toy,
        nominals: batch.nominals,
        auxiliaries: batch.auxiliaries,
        horizon: batch.horizon,
        seed: batch.seed,
        views: batch.views,
      }),
    epochs: 12,
    seconds: 0,
    ...overrides,
  };
}

async function train(overrides: Partial<RunOptions> = {}): Promise<RunEvent[]> {
  const run = await TrainingRun.start(options(overrides));
  const events: RunEvent[] = [];
  try {
    for await (const event of run.events()) events.push(event);
  } finally {
    await run.close();
  }
  return events;
}
const done = (events: RunEvent[]) => {
  const last = events.at(-1)!;
  if (last.kind !== "done") throw new Error(`expected done, got ${last.kind}`);
  return last;
};
/** What must be the same in two runs of the same seed: everything but times. */
const timeless = (events: RunEvent[]) =>
  events.filter((e) => e.kind === "epoch" || e.kind === "evaluation").map((e) => ({
    ...e,
    wallTimeS: 0,
    ...{ startMs: 0, endMs: 0, phases: [] },
    scalars: "scalars" in e ? { ...e.scalars, live_tensors: 0 } : {},
  }));

let directory: string;
beforeEach(() => directory = Deno.makeTempDirSync());
afterEach(() => Deno.removeSync(directory, { recursive: true }));

test("a run yields every epoch once, evaluations on schedule, done last, and frees its tensors", async () => {
  const before = liveTensors();
  const events = await train();
  expect(events.filter((e) => e.kind === "epoch").map((e) => e.epoch))
    .toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  expect(events.filter((e) => e.kind === "evaluation").map((e) => e.epoch)).toEqual([4, 8, 12]);
  expect(done(events).epochs).toBe(12);
  expect(liveTensors()).toBe(before);
});

test("stopped at 7 and resumed to 12 equals 12 at once, events and hash", async () => {
  const whole = await train();
  const checkpoints = () => new Checkpoints(directory);
  const first = await train({ epochs: 7, checkpoints: checkpoints() });
  expect(done(first).checkpoint).toBe(`${directory}/00000007`);
  const second = await train({ checkpoints: checkpoints(), resume: true });
  expect(timeless([...first, ...second])).toEqual(timeless(whole));
  expect(done(second).stateHash).toBe(done(whole).stateHash);
});

test("killed after 7, resumed from the checkpoint of 5: epochs 6 and 7 come again, identical", async () => {
  const whole = await train();
  const run = await TrainingRun.start(options({ checkpoints: new Checkpoints(directory) }));
  const seen: RunEvent[] = [];
  for await (const event of run.events()) {
    seen.push(event);
    // Leaving the loop here is the process dying: nothing is saved on the way out.
    if (event.kind === "epoch" && event.epoch === 7) break;
  }
  await run.close();
  const resumed = await train({ checkpoints: new Checkpoints(directory), resume: true });
  expect(resumed[0]).toMatchObject({ kind: "epoch", epoch: 6 });
  expect(timeless([...seen.filter((e) => "epoch" in e && e.epoch <= 5), ...resumed]))
    .toEqual(timeless(whole));
  expect(done(resumed).stateHash).toBe(done(whole).stateHash);
});

test("rows that were not stored at a checkpoint come back with it, not those of a later one", async () => {
  const unrecorded = ["one", "two"];
  const run = await TrainingRun.start(options({
    ...{ checkpoints: new Checkpoints(directory), unrecorded: () => unrecorded },
  }));
  for await (const event of run.events()) {
    if (event.kind === "epoch" && event.epoch === 7) break; // the newest checkpoint is of 5
    if (event.kind === "epoch" && event.epoch === 6) unrecorded.push("three");
  }
  await run.close();
  const resumed = await TrainingRun.start(options({
    ...{ checkpoints: new Checkpoints(directory), resume: true },
  }));
  expect(resumed.unrecorded).toEqual(["one", "two"]);
  await resumed.close();
});

const seeing: Partial<RunOptions> = {
  config: configureTraining([], {
    observation: "pixels",
    "camera.width": "14",
    "camera.height": "12",
    "encoder.kind": "small",
    "encoder.features": "6",
    "encoder.centre": "first_rollout",
    nominals: "3",
    auxiliaries: "5",
    horizon: "6",
    "actor.hidden": "5,4",
    "actor.average": "0.9",
    "critic.hidden": "6",
    "evaluation.every": "4",
    "evaluation.episodes": "2",
    "checkpoint.every": "5",
  }),
  task: { ...options().task, cameras: ["side"] },
};

test("from pixels: every picture counts once, and a resumed run ends in the same bits", async () => {
  const before = liveTensors();
  const whole = await train(seeing);
  const checkpoints = new Checkpoints(directory);
  const first = await train({ ...seeing, epochs: 7, checkpoints });
  const second = await train({ ...seeing, checkpoints, resume: true });
  expect(timeless([...first, ...second])).toEqual(timeless(whole));
  expect(done(second).stateHash).toBe(done(whole).stateHash);
  const epochs = whole.filter((e) => e.kind === "epoch");
  expect(epochs.map((e) => e.imagesRendered)).toEqual(
    Array.from({ length: 12 }, (_, i) => (i + 1) * 3 * 6),
  );
  expect(liveTensors()).toBe(before);
});

test("pixels without a camera, or too small for the encoder, are refused before anything starts", async () => {
  await expect(train({ ...seeing, task: options().task })).rejects.toThrow(
    "Cannot train toy from pixels: it declares no camera",
  );
  const config = { ...seeing.config!, camera: { ...seeing.config!.camera, height: 11 } };
  await expect(train({ ...seeing, config })).rejects.toThrow(
    "Cannot set camera.height: encoder small needs at least 12, got 11",
  );
});

test("wall time and the best evaluation go on after a resume", async () => {
  const checkpoints = new Checkpoints(directory);
  const first = await train({ epochs: 8, checkpoints });
  const second = await train({ checkpoints, resume: true });
  const lastOf = (events: RunEvent[]) => events.filter((e) => e.kind === "epoch").at(-1)!;
  const firstOf = (events: RunEvent[]) => events.filter((e) => e.kind === "epoch")[0];
  expect(firstOf(second).wallTimeS).toBeGreaterThan(lastOf(first).wallTimeS);
  const evaluations = [...first, ...second].filter((e) => e.kind === "evaluation");
  expect(lastOf(second).scalars.best_policy)
    .toBe(Math.max(...evaluations.map((e) => e.returnMean)));
});

test("an abort ends the run after its epoch, with a checkpoint", async () => {
  const stop = new AbortController();
  const run = await TrainingRun.start(
    options({ checkpoints: new Checkpoints(directory), signal: stop.signal }),
  );
  const events: RunEvent[] = [];
  for await (const event of run.events()) {
    events.push(event);
    if (event.kind === "epoch" && event.epoch === 3) stop.abort();
  }
  await run.close();
  expect(done(events).epochs).toBe(3);
  expect(done(events).checkpoint).toBe(`${directory}/00000003`);
});

test("a time limit ends the run", async () => {
  const events = await train({ epochs: 1e9, seconds: 0.2 });
  expect(done(events).epochs).toBeGreaterThan(0);
});

test("a full disk warns and training goes on", async () => {
  const full = {
    ...disk,
    writeSynced: () => {
      throw new Error("No space left on device (os error 28)");
    },
  };
  const events = await train({ checkpoints: new Checkpoints(directory, full) });
  expect(events.filter((e) => e.kind === "epoch")).toHaveLength(12);
  const warnings = events.filter((e) => e.kind === "warning");
  expect(warnings.length).toBeGreaterThan(1);
  expect(warnings[0].message).toContain("No space left on device");
  expect(done(events).checkpoint).toBeUndefined();
});

test("a checkpoint of another configuration, seed or task is refused by name", async () => {
  const checkpoints = new Checkpoints(directory);
  await train({ epochs: 1, checkpoints });
  const attempt = (overrides: Partial<RunOptions>) =>
    TrainingRun.start(options({ checkpoints, resume: true, ...overrides }));
  await expect(attempt({ seed: 2n })).rejects.toThrow("its seed was 1, now it is 2");
  await expect(attempt({ config: { ...config, discount: 0.9 } })).rejects.toThrow("configuration");
  const program = { ...toyProgram(toy), contentHash: "changed" };
  await expect(attempt({ task: { ...options().task, program } })).rejects.toThrow(
    "task program was toy-program, now it is changed",
  );
});
