// Developer's entry: trains in this one process, simulator included, and prints a JSON line for every
// epoch and evaluation. No service, no store, no checkpoint; for trying settings.
//
//   deno run -A services/learner/local.ts hopper --epochs 20 actor.log_std_init=-1
//
// Flags: --preset cpu|paper, --obs state|pixels, --seed n, --epochs n, --minutes m, --threads n, --every n (print each
// n-th epoch), --quiet (evaluations and the last line only).

import { parseArgs } from "node:util";
import { loadTask } from "@sdpg/tasks/mod.ts";
import { ConfigurationError } from "./configuration.ts";
import { secondsByName } from "./phases.ts";
import { type Observation, presetLayers, type PresetName, presets } from "./presets.ts";
import { configureTraining, partOverrides, TrainingRun } from "./run.ts";
import { simulateInProcess } from "./simulation_in_process.ts";
import { setNumThreads } from "./torch/mod.ts";

async function main(args: string[]) {
  const { values: flags, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      preset: { type: "string", default: "cpu" },
      obs: { type: "string", default: "state" },
      seed: { type: "string", default: "0" },
      epochs: { type: "string" },
      minutes: { type: "string", default: "0" },
      threads: { type: "string", default: String(navigator.hardwareConcurrency) },
      every: { type: "string", default: "1" },
      quiet: { type: "boolean", default: false },
    },
  });
  const [name, ...settings] = positionals;
  const overrides = Object.fromEntries(settings.map((setting) => {
    const at = setting.indexOf("=");
    if (at < 1) throw new ConfigurationError(`Cannot use "${setting}": expected key.path=value`);
    return [setting.slice(0, at), setting.slice(at + 1)];
  }));
  const layers = flags.preset in presets && ["state", "pixels"].includes(flags.obs)
    ? presetLayers(flags.preset as PresetName, name ?? "", flags.obs as Observation)
    : undefined;
  if (layers === undefined) {
    throw new ConfigurationError(
      `No preset "${flags.preset}" from ${flags.obs} for task "${name ?? ""}"`,
    );
  }
  const settled = partOverrides(overrides);
  const config = configureTraining(layers, settled.configuration);
  const task = await loadTask(name, settled.task);
  const threads = Number(flags.threads);
  setNumThreads(threads);

  const print = (line: Record<string, unknown>) => console.log(JSON.stringify(line, rounded));
  print({
    event: "configuration",
    task: name,
    seed: flags.seed,
    threads,
    ...config,
    options: task.options,
  });
  const run = await TrainingRun.start({
    task,
    config,
    seed: BigInt(flags.seed),
    simulate: (batch) => simulateInProcess(batch, threads),
    epochs: Number(flags.epochs ?? config.epochs),
    seconds: 60 * Number(flags.minutes),
  });
  for await (const event of run.events()) {
    if (event.kind === "epoch") {
      if (flags.quiet || event.epoch % Number(flags.every) !== 0) continue;
      const { kind, startMs: _, endMs: __, phases, ...rest } = event;
      print({ event: kind, ...rest, phases: secondsByName(phases) });
    } else {
      const { kind, ...rest } = event;
      print({ event: kind, ...rest });
    }
  }
  await run.close();
}

/** Four significant digits are enough to read. */
function rounded(_key: string, value: unknown) {
  return typeof value === "number" && !Number.isInteger(value)
    ? Number(value.toPrecision(4))
    : value;
}

if (import.meta.main) {
  try {
    await main(Deno.args);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    console.error(Deno.env.get("SDPG_LOG") === "debug" ? error.stack : error.message);
    Deno.exit(error instanceof ConfigurationError || error instanceof TypeError ? 2 : 1);
  }
}
