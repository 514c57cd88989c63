// ./sdpg train: starts a run and follows it to its end.

import { sdpgHome } from "@sdpg/common/home.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { oneOf, read, UsageError, verb } from "../flags.ts";
import { listAlgorithmNames, listTaskNames } from "../catalogue.ts";
import { runTraining } from "../training.ts";

const readObservation = oneOf("pixels", "state");
const readPreset = oneOf("cpu", "paper");
const readTransport = oneOf("shared-memory", "inline");

export const train = verb({
  name: "train",
  summary: "trains a policy on a task",
  positionals: [{ name: "task", meaning: "a folder of tasks/; ./sdpg tasks", required: false }],
  options: {
    task: { value: "NAME", meaning: "the task, instead of the first argument", read: read.text },
    algo: {
      value: "NAME",
      meaning: "the algorithm",
      read: read.text,
      aliases: ["algorithm", "agent"],
      fallback: "sdpg",
    },
    obs: {
      value: "pixels|state",
      meaning: "what the policy sees: pictures of the task's cameras, or the state",
      read: readObservation,
      fallback: "pixels",
    },
    preset: {
      value: "cpu|paper",
      meaning: "the settings to start from: made for two cores, or as published",
      read: readPreset,
      fallback: "cpu",
    },
    seed: { value: "N", meaning: "key of every random number", read: read.seed, fallback: "0" },
    epochs: {
      value: "N",
      meaning: "stops after so many epochs",
      read: read.count,
      aliases: ["max_iterations"],
      fallback: "the preset's number",
    },
    minutes: {
      value: "M",
      meaning: "stops after so many minutes of training",
      read: read.positive,
    },
    run: {
      value: "NAME",
      meaning: "name of the run: a-z, 0-9 and -, up to 64",
      read: read.runName,
      aliases: ["run_name"],
      fallback: "task, date and time",
    },
    transport: {
      value: "shared-memory|inline",
      meaning: "how rollouts reach the learner; the results are the same",
      read: readTransport,
      fallback: "shared-memory",
    },
    threads: {
      value: "N",
      meaning: "threads of the simulator and of the learner, which work by turns",
      read: read.count,
      fallback: "the number of cores",
    },
    json: { meaning: "one JSON object a line instead of the dashboard" },
  },
  overrides: true,
  hints: {
    num_envs: "environments are nominals × (1 + auxiliaries): set nominals=N auxiliaries=M",
    num_base_envs: "it is called nominals here: nominals=N",
    num_action_perturbations: "it is called auxiliaries here: auxiliaries=M",
    headless: "there is no window to hide; without a terminal one line per epoch is printed",
    logdir: "all state lives under SDPG_HOME: set that variable",
    track: "every run is recorded in the store; ./sdpg sql reads it",
    checkpoint: "to go on with a run, ./sdpg resume <run>",
  },
  details: [
    "The services run on this machine's loopback for the time of the training, unless ./sdpg up left",
    "some running. Ctrl-C stops after the present epoch with a checkpoint; a second one kills.",
    "Without a terminal one line per epoch is printed. Exit code: 0 done or stopped, 1 failed, 2 wrong",
    "usage.",
  ].join("\n"),
  examples: [
    "./sdpg train hopper",
    "./sdpg train hopper --minutes 10 --seed 1 --run my-hopper",
    "./sdpg train walker --preset paper --epochs 100 --json",
    "./sdpg train hopper --obs state nominals=16 actor.lr=1e-3",
    "./sdpg train ant --obs state task.variant=published",
  ],
  async run({ positionals, options, overrides }) {
    const task = taskName(positionals[0], options.task);
    const algorithm = checked("algorithm", options.algo ?? "sdpg", listAlgorithmNames());
    if (options.transport) {
      overrides["simulation.transport"] = options.transport.replace("-", "_");
    }
    const seed = options.seed ?? 0n;
    const preset = options.preset ?? "cpu";
    const home = sdpgHome();
    return await runTraining({
      home,
      threads: options.threads ?? navigator.hardwareConcurrency,
      renderer: overrides["simulation.render"] === "apart",
      json: options.json,
      async begin({ learner }) {
        const { runId, configurationJson } = await learner.startRun({
          task,
          algorithm,
          observation: options.obs ?? "pixels",
          preset,
          seed,
          runId: options.run ?? "",
          overrides,
          epochs: BigInt(options.epochs ?? 0),
          seconds: (options.minutes ?? 0) * 60,
        }, { deadlineMs: 60_000 });
        const configuration = JSON.parse(configurationJson);
        return {
          configuration,
          facts: {
            runId,
            task,
            algorithm,
            preset,
            seed: String(seed),
            epochs: options.epochs ?? configuration.epochs,
            seconds: options.minutes && options.minutes * 60,
            home,
          },
        };
      },
    });
  },
});

function taskName(positional: string | undefined, option: string | undefined): string {
  if (positional !== undefined && option !== undefined) {
    throw new UsageError(`Cannot train two tasks: "${positional}" and "${option}"`);
  }
  const task = positional ?? option;
  if (task === undefined) {
    throw new UsageError(`Cannot train without a task: expected ${listTaskNames().join(" or ")}`);
  }
  const backend = /^(genesis|mujoco)\/(.+)$/.exec(task);
  if (backend) {
    throw new UsageError(
      `Cannot use backend "${backend[1]}": there is one simulator here; write ${backend[2]}`,
    );
  }
  return checked("task", task, listTaskNames());
}

function checked(what: string, name: string, known: readonly string[]): string {
  if (known.includes(name)) return name;
  throw new UsageError(
    `Cannot find ${what} "${name}"${didYouMean(name, known) || `: expected ${known.join(" or ")}`}`,
  );
}
