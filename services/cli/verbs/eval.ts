// ./sdpg eval: episodes with the deterministic policy of a run or checkpoint.

import { isRunId, sdpgHome } from "@sdpg/common/home.ts";
import { read, verb } from "../flags.ts";
import { number, table } from "../format.ts";
import { openMesh } from "../mesh.ts";
import { writeOut } from "../report.ts";
import { readRunFile } from "../runfile.ts";
import { plainly } from "../training.ts";
import { resolve } from "node:path";

export const evaluate = verb({
  name: "eval",
  summary: "plays episodes with the deterministic policy, one per seed",
  positionals: [{
    name: "run|checkpoint",
    meaning: "a run (its newest checkpoint) or the path of a checkpoint folder",
    required: true,
  }],
  options: {
    episodes: { value: "N", meaning: "episodes to play", read: read.count, fallback: "16" },
    seed: { value: "N", meaning: "seed of the starts", read: read.seed, fallback: "0" },
    threads: {
      value: "N",
      meaning: "threads of the simulator",
      read: read.count,
      fallback: "the number of cores",
    },
    json: { meaning: "one JSON object instead of a table" },
  },
  details: "The interval of the mean is Student's at 95 %.",
  examples: ["./sdpg eval my-hopper", "./sdpg eval .sdpg/runs/my-hopper/checkpoints/400 --json"],
  async run({ positionals: [target], options }) {
    const home = sdpgHome();
    const isPath = target.includes("/");
    if (!isPath && isRunId(target)) readRunFile(home, target);
    const mesh = await openMesh({
      home,
      threads: options.threads ?? navigator.hardwareConcurrency,
      progress: (line) => console.error(line),
    });
    try {
      const result = await mesh.learner.evaluateRun({
        runOrCheckpoint: isPath ? resolve(target) : target,
        episodes: options.episodes ?? 16,
        seed: options.seed ?? 0n,
      }, { deadlineMs: 600_000 });
      if (options.json) {
        writeOut(JSON.stringify({
          event: "evaluation",
          run_id: result.runId,
          epoch: Number(result.epoch),
          episodes: result.returns.length,
          return: result.returnMean,
          return_std: result.returnStd,
          return_ci95: result.returnCi95,
          episode_length: result.lengthMean,
          returns: result.returns,
          lengths: result.lengths,
          reward_terms: result.rewardTerms,
        }));
      } else {
        writeOut(
          `${result.runId || target} at epoch ${result.epoch}: return ${
            number(result.returnMean)
          } ± ${number(result.returnCi95)} (95 %), standard deviation ${
            number(result.returnStd)
          }, length ${number(result.lengthMean)}, ${result.returns.length} episodes\n`,
        );
        writeOut(table(
          ["reward term", "mean sum"],
          Object.entries(result.rewardTerms).map(([name, value]) => [name, number(value)]),
        ));
        writeOut("");
        writeOut(table(
          ["episode", "return", "length"],
          result.returns.map((value, i) => [String(i), number(value), String(result.lengths[i])]),
        ));
      }
      return 0;
    } catch (error) {
      throw plainly(error, mesh);
    } finally {
      mesh.learner.$close();
      await mesh.close();
    }
  },
});
