// Evaluations played by the evaluation service, for the learner: its scheduled ones go there, so that
// training goes on meanwhile.

import { EvaluationService } from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import { client } from "@sdpg/common/rpc.ts";
import type { TraceContext } from "@sdpg/common/trace.ts";
import type { EvaluationResult } from "./evaluate.ts";

export interface RemoteEvaluation {
  /** Folder of a checkpoint below the service's home. */
  readonly checkpoint: string;
  readonly episodes: number;
  /** Key of the starts. */
  readonly seed: bigint;
  /** The epoch that is evaluated. */
  readonly trace?: TraceContext;
}

/** @returns a function that plays one evaluation; it rejects with RpcError */
export function evaluateOverGrpc(
  address: string,
): (what: RemoteEvaluation) => Promise<EvaluationResult> {
  const service = client(EvaluationService, address);
  return async ({ checkpoint, episodes, seed, trace }) => {
    const policy = { case: "checkpoint", value: checkpoint } as const;
    for await (const { event } of service.evaluate({ policy, episodes, seed }, { trace })) {
      if (event.case !== "result") continue;
      const { returnMean, returnStd, returnCi95, lengthMean, lasted, faulted } = event.value;
      return {
        returns: event.value.returns,
        lengths: event.value.lengths,
        rewardTerms: event.value.rewardTerms,
        ...{ returnMean, returnStd, returnCi95, lengthMean, lasted, faulted },
      };
    }
    throw new Error(`the evaluation service at ${address} ended without a result`);
  };
}
