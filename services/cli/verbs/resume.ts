// ./sdpg resume: goes on with a run from its newest valid checkpoint.

import { sdpgHome } from "@sdpg/common/home.ts";
import { read, verb } from "../flags.ts";
import { readRunFile } from "../runfile.ts";
import { runTraining } from "../training.ts";

export const resume = verb({
  name: "resume",
  summary: "goes on with a stopped, failed or interrupted run, as if it had never stopped",
  positionals: [{ name: "run", meaning: "name of the run; ./sdpg runs", required: true }],
  options: {
    epochs: {
      value: "N",
      meaning: "stops after so many epochs, counted from the run's beginning",
      read: read.count,
      aliases: ["max_iterations"],
      fallback: "the preset's number",
    },
    minutes: {
      value: "M",
      meaning: "stops after so many minutes of training, counted from the run's beginning",
      read: read.positive,
    },
    threads: {
      value: "N",
      meaning: "threads of the simulator and of the learner, which work by turns",
      read: read.count,
      fallback: "the number of cores",
    },
    json: { meaning: "one JSON object a line instead of the dashboard" },
  },
  details: "The result is the same to the last bit as that of a run that was never stopped.",
  examples: ["./sdpg resume my-hopper", "./sdpg resume my-hopper --epochs 4000"],
  async run({ positionals: [runId], options }) {
    const home = sdpgHome();
    const file = readRunFile(home, runId);
    return await runTraining({
      home,
      threads: options.threads ?? navigator.hardwareConcurrency,
      renderer: file.configuration.simulation?.render === "apart",
      json: options.json,
      async begin({ learner }) {
        const { epoch, configurationJson, skipped } = await learner.resumeRun({
          runId,
          epochs: BigInt(options.epochs ?? 0),
          seconds: (options.minutes ?? 0) * 60,
        }, { deadlineMs: 60_000 });
        const configuration = JSON.parse(configurationJson);
        return {
          configuration,
          resumedFrom: Number(epoch),
          notes: skipped.map((reason) => `passed over a damaged checkpoint: ${reason}`),
          facts: {
            runId,
            task: file.task,
            algorithm: file.algorithm,
            preset: file.preset,
            seed: file.seed,
            epochs: options.epochs ?? configuration.epochs,
            seconds: options.minutes && options.minutes * 60,
            home,
          },
        };
      },
    });
  },
});
