// What the mesh costs: the same training epochs through gpu-sim over gRPC with shared memory and with
// the core called in this process, interleaved in one run. Both do the same arithmetic to the same
// bits; the difference is the transport.
//
//   deno run -A services/learner/bench_mesh.ts --json
//
// Flags: --task hopper|walker, --threads n, --rounds n (pairs measured), --json, and key.path=value as
// for training; the size is the paper's (64 nominals, 63 auxiliaries, horizon 32) unless overridden.
// Prints the median epoch of either way, the median of the pairs' ratios with quartiles, and the
// phases of an epoch, in-process in brackets.

import { parseArgs } from "node:util";
import { loadTask, type Task } from "@sdpg/tasks/mod.ts";
import { checkoutDirectory } from "@sdpg/common/home.ts";
import { quantile } from "@sdpg/common/quantile.ts";
import { Sdpg } from "./algorithms/sdpg.ts";
import { presets } from "./presets.ts";
import { configureTraining } from "./run.ts";
import type { BatchOptions, Simulation } from "./simulation.ts";
import { simulateOverGrpc } from "./simulation_grpc.ts";
import { simulateInProcess } from "./simulation_in_process.ts";
import { setNumThreads } from "./torch/mod.ts";

const { values: flags, positionals } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    task: { type: "string", default: "hopper" },
    threads: { type: "string", default: String(navigator.hardwareConcurrency) },
    rounds: { type: "string", default: "30" },
    json: { type: "boolean", default: false },
  },
});
const threads = Number(flags.threads);
const overrides = {
  nominals: "64",
  auxiliaries: "63",
  horizon: "32",
  ...Object.fromEntries(positionals.map((setting) => {
    const at = setting.indexOf("=");
    return [setting.slice(0, at), setting.slice(at + 1)];
  })),
};

interface Contender {
  readonly name: string;
  readonly learner: Sdpg;
  readonly simulation: Simulation;
  readonly seconds: number[];
  readonly phases: Map<string, number[]>;
}

async function contender(
  name: string,
  task: Task,
  simulate: (batch: BatchOptions) => Simulation | Promise<Simulation>,
): Promise<Contender> {
  const config = configureTraining(presets.cpu[task.name], overrides);
  const simulation = await simulate({
    model: task.model,
    program: task.program,
    nominals: config.nominals,
    auxiliaries: config.auxiliaries,
    horizon: config.horizon,
    seed: 1n,
    meanBounds: config.actor.mean_bounds,
    logStdBounds: config.actor.log_std_bounds,
    label: "bench",
  });
  const learner = new Sdpg(config, task.program, simulation, 1n);
  return { name, learner, simulation, seconds: [], phases: new Map() };
}

async function epoch(contender: Contender, measured: boolean) {
  const start = performance.now();
  const { phases } = await contender.learner.train();
  if (!measured) return;
  contender.seconds.push((performance.now() - start) / 1e3);
  for (const { name, seconds } of phases) {
    if (!contender.phases.has(name)) contender.phases.set(name, []);
    contender.phases.get(name)!.push(seconds);
  }
}

/** Median seconds of each phase. */
function medians(contender: Contender): Record<string, number> {
  return Object.fromEntries(
    [...contender.phases].map(([phase, seconds]) => [phase, quantile(seconds, 0.5)]),
  );
}

/** A gpu-sim of our own on a free port. */
async function startSimulator() {
  const child = new Deno.Command(`${checkoutDirectory}/build/gpu-sim/gpu-sim`, {
    args: [
      ...["--serve", "sim", "--listen", "127.0.0.1:0", "--exit-with-parent"],
      ...["--threads", String(threads)],
    ],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const { value } = await child.stdout.pipeThrough(new TextDecoderStream()).getReader().read();
  return {
    address: JSON.parse(value ?? "{}").address as string,
    async stop() {
      await child.stdin.close();
      await child.status;
    },
  };
}

setNumThreads(threads);
const task = await loadTask(flags.task);
const server = await startSimulator();
const mesh = await contender(
  "mesh",
  task,
  (batch) => simulateOverGrpc(batch, { address: server.address, transport: "shared_memory" }),
);
const inProcess = await contender(
  "in-process",
  task,
  (batch) => simulateInProcess(batch, threads),
);
for (let round = 0; round < 3 + Number(flags.rounds); round++) {
  // Alternating who goes first keeps a drift of the machine out of the ratio.
  const order = round % 2 === 0 ? [mesh, inProcess] : [inProcess, mesh];
  for (const one of order) await epoch(one, round >= 3);
}

const ratios = mesh.seconds.map((seconds, i) => seconds / inProcess.seconds[i]);
const result = {
  bench: "mesh",
  task: flags.task,
  threads,
  environments: mesh.simulation.sizes.environments,
  horizon: mesh.simulation.sizes.horizon,
  rounds: ratios.length,
  mesh_epoch_s: quantile(mesh.seconds, 0.5),
  in_process_epoch_s: quantile(inProcess.seconds, 0.5),
  ratio: quantile(ratios, 0.5),
  ratio_quartiles: [quantile(ratios, 0.25), quantile(ratios, 0.75)],
  phases: medians(mesh),
  in_process_phases: medians(inProcess),
};
if (flags.json) console.log(JSON.stringify(result));
else {
  const ms = (seconds: number) => `${(seconds * 1e3).toFixed(1)} ms`;
  console.log(
    `${result.task}, ${result.environments} environments x ${result.horizon} steps, ` +
      `${threads} threads, ${result.rounds} pairs of epochs`,
  );
  console.log(`  through the mesh  ${ms(result.mesh_epoch_s)} an epoch (median)`);
  console.log(`  core in-process   ${ms(result.in_process_epoch_s)}`);
  const [low, high] = result.ratio_quartiles;
  console.log(
    `  ratio             ${result.ratio.toFixed(3)} (quartiles ${low.toFixed(3)} to ${
      high.toFixed(3)
    })`,
  );
  for (const [phase, seconds] of Object.entries(result.phases)) {
    const alone = result.in_process_phases[phase];
    console.log(
      `    ${phase.padEnd(30)} ${ms(seconds)}${alone === undefined ? "" : `   (${ms(alone)})`}`,
    );
  }
}
for (const one of [mesh, inProcess]) {
  one.learner[Symbol.dispose]();
  await one.simulation.close();
}
await server.stop();
