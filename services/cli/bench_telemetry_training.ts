// What telemetry takes from a training: the command `train` itself with everything recorded (scalars,
// traces, metrics, logs, memory of the services), and with nothing, in pairs one after the other in the
// order A B B A, the same task and seed, so the same arithmetic. The ratio of the times their epochs took
// together is the cost; a pair's runs follow each other, so what else the machine does touches both.

import { join } from "node:path";
import { checkoutDirectory } from "@sdpg/common/home.ts";
import { quantile } from "@sdpg/common/quantile.ts";
import { withoutTelemetry } from "@sdpg/common/record.ts";
import { CliError } from "./process.ts";

/**
 * Epochs at the start of a run that are not counted: memory is touched, and both the training's and the
 * telemetry service's code is compiled, for about ten seconds. A training lasts minutes at least.
 */
const warmUp = 100;

export interface TrainingBench {
  pairs: number;
  epochs: number;
  observation: string;
  progress(line: string): void;
}

/** Ratios of epoch times with and without telemetry, with their quartiles. */
export async function measureTraining(
  { pairs, epochs, observation, progress }: TrainingBench,
): Promise<Record<string, number | string>> {
  const home = await Deno.makeTempDir({ prefix: "sdpg-bench-telemetry-" });
  const train = (recorded: boolean) => trainOnce(home, epochs + warmUp, observation, recorded);
  const withIt: number[] = [];
  const without: number[] = [];
  const ratios: number[] = [];
  try {
    for (let pair = 0; pair < pairs; pair++) {
      const first = pair % 2 === 0;
      const a = await train(first);
      const b = await train(!first);
      withIt.push(first ? a : b);
      without.push(first ? b : a);
      ratios.push(withIt[pair] / without[pair]);
      progress(`pair ${pair + 1} of ${pairs}: ${ratios[pair].toFixed(4)}`);
    }
  } finally {
    await Deno.remove(home, { recursive: true });
  }
  return {
    regime: "training",
    observation,
    pairs,
    epochs,
    epoch_ms: 1000 * quantile(withIt, 0.5),
    epoch_ms_without: 1000 * quantile(without, 0.5),
    ratio: quantile(ratios, 0.5),
    ratio_low_quartile: quantile(ratios, 0.25),
    ratio_high_quartile: quantile(ratios, 0.75),
  };
}

/** Seconds per epoch after the first ones. */
async function trainOnce(
  home: string,
  epochs: number,
  observation: string,
  recorded: boolean,
): Promise<number> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "-q", "--config", join(checkoutDirectory, "deno.json"), "-P=cli"],
      join(checkoutDirectory, "services/cli/main.ts"),
      ...["train", "hopper", "--obs", observation, "--epochs", String(epochs), "--json"],
    ],
    stdin: "null",
    env: {
      SDPG_HOME: home,
      ...(recorded ? {} : { [withoutTelemetry]: String(Deno.pid) }),
    },
  }).output();
  if (!success) throw new CliError(new TextDecoder().decode(stderr).trim().split("\n").at(-1)!);
  // A watcher that is slow misses epochs: those that came say how many there were between them.
  const seen = new TextDecoder().decode(stdout).split("\n")
    .filter((line) => line.startsWith('{"event":"epoch"'))
    .map((line) => JSON.parse(line) as { epoch: number; wall_time_s: number })
    .filter(({ epoch }) => epoch >= warmUp);
  const [first, last] = [seen[0], seen.at(-1)];
  if (!first || !last || last.epoch - first.epoch < (epochs - warmUp) / 2) {
    throw new CliError(
      `Expected ${epochs} epochs of a training, came ${seen.length} after warming up`,
    );
  }
  return (last.wall_time_s - first.wall_time_s) / (last.epoch - first.epoch);
}
