// What overlapping simulation and inference could win in a rollout from pixels: the processor time of
// both for all nominals at once and for two halves in turn, which an overlap would need, interleaved
// in one run on one thread.
//
//   deno run -A services/learner/bench_overlap.ts --preset cpu
//
// Flags: --task hopper|..., --preset cpu|paper, --rounds n, --steps n (of a round). Prints medians with
// quartiles, in milliseconds a control step. docs/decisions.md draws the conclusion.

import process from "node:process";
import { parseArgs } from "node:util";
import { loadTask } from "@sdpg/tasks/mod.ts";
import { cameraOf, viewsOf } from "./cameras.ts";
import { GaussianPolicy } from "./networks/policy.ts";
import { presetLayers, type PresetName } from "./presets.ts";
import { configureTraining } from "./run.ts";
import { simulateInProcess } from "./simulation_in_process.ts";
import { Generator, scope, setNumThreads } from "./torch/mod.ts";

const { values: flags } = parseArgs({
  options: {
    task: { type: "string", default: "hopper" },
    preset: { type: "string", default: "cpu" },
    rounds: { type: "string", default: "10" },
    steps: { type: "string", default: "32" },
  },
});
const layers = presetLayers(flags.preset as PresetName, flags.task, "pixels");
if (layers === undefined) {
  throw new TypeError(`No preset "${flags.preset}" from pixels for task "${flags.task}"`);
}
const task = await loadTask(flags.task);
const steps = Number(flags.steps);
const config = configureTraining(layers, { horizon: flags.steps });
const views = viewsOf(task, config);
setNumThreads(1);

const batchOf = (nominals: number) =>
  simulateInProcess({
    model: task.model,
    program: task.program,
    nominals,
    auxiliaries: config.auxiliaries,
    horizon: steps,
    seed: 1n,
    meanBounds: config.actor.mean_bounds,
    logStdBounds: config.actor.log_std_bounds,
    label: "bench",
    views,
  }, 1);
const half = config.nominals / 2;
const ways = { whole: [batchOf(config.nominals)], halves: [batchOf(half), batchOf(half)] };
using generator = new Generator(1n);
using policy = new GaussianPolicy({
  input: { cameras: views.map(cameraOf), vector: 0, ...config.encoder },
  hidden: config.actor.hidden,
  actions: task.program.actionSize,
  generator,
});
const logStd = new Float32Array(task.program.actionSize).fill(-1);

/** Milliseconds of processor time of this process so far. */
function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

const measured = new Map<string, number[]>();
function note(name: string, ms: number) {
  measured.set(name, [...measured.get(name) ?? [], ms / steps]);
}

const rounds = 1 + Number(flags.rounds); // the first warms up
for (let round = 0; round < rounds; round++) {
  for (const [way, batches] of Object.entries(ways)) {
    let inference = 0;
    let simulation = 0;
    for (const batch of batches) await batch.begin(round, round === 0);
    for (let t = 0; t < steps; t++) {
      for (const { step, tensors } of batches) {
        const started = processorMs();
        let mean: Float32Array;
        {
          using _scope = scope();
          const pictures = [...tensors.images.values()].map((x) => x.select(0, t));
          mean = policy.infer({ pictures }).mean.toArray() as Float32Array;
        }
        const inferred = processorMs();
        await step(t, mean, logStd);
        inference += inferred - started;
        simulation += processorMs() - inferred;
      }
    }
    for (const batch of batches) await batch.end();
    if (round === 0) continue;
    note(`${way}, inference`, inference);
    note(`${way}, simulation`, simulation);
  }
}
for (const [name, ms] of measured) {
  const sorted = ms.toSorted((a, b) => a - b);
  const [low, median, high] = [0.25, 0.5, 0.75].map((share) =>
    sorted[Math.round((sorted.length - 1) * share)].toFixed(2)
  );
  console.log(`${name.padEnd(20)} ${median} ms (${low} to ${high})`);
}
for (const batch of Object.values(ways).flat()) await batch.close();
