// ./sdpg eval: episodes with the deterministic policy of a run or checkpoint.

import { join, resolve } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { EvaluateRequestSchema, Result } from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import { isRunId, sdpgHome } from "@sdpg/common/home.ts";
import { type EvaluationMesh, openEvaluation } from "../evaluation.ts";
import { read, UsageError, verb } from "../flags.ts";
import { number, table } from "../format.ts";
import { CliError } from "../process.ts";
import { writeOut } from "../report.ts";
import { readRunFile } from "../runfile.ts";
import { plainly } from "../training.ts";

export const evaluate = verb({
  name: "eval",
  summary: "plays episodes with the deterministic policy, one per seed",
  positionals: [{
    name: "run|checkpoint",
    meaning: "a run (its newest checkpoint) or the path of a checkpoint folder",
    required: true,
  }],
  options: {
    best: { meaning: "the checkpoint with the best evaluation instead of the newest" },
    episodes: { value: "N", meaning: "episodes to play", read: read.count, fallback: "16" },
    seed: { value: "N", meaning: "seed of the starts", read: read.seed, fallback: "0" },
    threads: {
      value: "N",
      meaning: "threads of the simulator and of the policy",
      read: read.count,
      fallback: "the number of cores",
    },
    json: { meaning: "one JSON object instead of a table" },
  },
  details: "The interval of the mean is Student's at 95 %.",
  examples: ["./sdpg eval my-hopper", "./sdpg eval .sdpg/runs/my-hopper/checkpoints/400 --json"],
  async run({ positionals: [target], options }) {
    const home = sdpgHome();
    const policy = policyOf(target, options.best ?? false);
    if (policy.case !== "checkpoint") readRunFile(home, target); // or says that there is no such run
    const threads = options.threads ?? navigator.hardwareConcurrency;
    console.error("starting gpu-sim and evaluation");
    const mesh = await openEvaluation(home, threads);
    try {
      const request = {
        policy,
        episodes: options.episodes ?? 16,
        seed: options.seed ?? 0n,
      };
      const result = await Promise.race([play(mesh, request), mesh.dead]);
      if (options.json) writeOut(JSON.stringify(asJson(target, result)));
      else writeResult(target, result);
      return 0;
    } catch (error) {
      throw plainly(error, join(home, "logs"));
    } finally {
      await mesh.close();
    }
  },
});

/** Which policy is meant by what was typed. */
function policyOf(target: string, best: boolean) {
  if (target.includes("/")) {
    if (best) throw new UsageError("Cannot use --best with a checkpoint: it is for runs");
    return { case: "checkpoint", value: resolve(target) } as const;
  }
  return { case: best ? "bestOfRunId" : "runId", value: target } as const;
}

async function play(
  mesh: EvaluationMesh,
  request: MessageInitShape<typeof EvaluateRequestSchema>,
): Promise<Result> {
  for await (const { event } of mesh.evaluation.evaluate(request)) {
    if (event.case === "result") return event.value;
    if (event.case === "progress" && Deno.stderr.isTerminal()) {
      console.error(`${event.value.finished} of ${event.value.episodes} episodes have ended`);
    }
  }
  throw new CliError("The evaluation ended without a result");
}

function asJson(target: string, result: Result) {
  return {
    event: "evaluation",
    run_id: isRunId(target) ? target : "",
    epoch: Number(result.epoch),
    episodes: result.returns.length,
    return: result.returnMean,
    return_std: result.returnStd,
    return_ci95: result.returnCi95,
    episode_length: result.lengthMean,
    lasted: result.lasted,
    faulted: result.faulted,
    returns: result.returns,
    lengths: result.lengths,
    reward_terms: result.rewardTerms,
  };
}

function writeResult(target: string, result: Result) {
  const { epoch, returnMean, returnCi95, returnStd, lengthMean, returns, lengths } = result;
  writeOut(
    `${target} at epoch ${epoch}: return ${number(returnMean)} ± ${number(returnCi95)} (95 %), ` +
      `standard deviation ${number(returnStd)}, length ${number(lengthMean)}, ` +
      `${returns.length} episodes, ${result.lasted} to the time limit\n`,
  );
  writeOut(table(
    ["reward term", "mean sum"],
    Object.entries(result.rewardTerms).map(([name, value]) => [name, number(value)]),
  ));
  writeOut("");
  writeOut(table(
    ["episode", "return", "length"],
    returns.map((value, i) => [String(i), number(value), String(lengths[i])]),
  ));
}
