// The evaluation service's process: flags, the parts, and their end in reverse order.

import { exportMetrics } from "@sdpg/common/metrics.ts";
import { Recorder } from "@sdpg/common/record.ts";
import { serve } from "@sdpg/common/rpc.ts";
import { flag, runService } from "@sdpg/common/service.ts";
import { simulateOverGrpc } from "../learner/simulation_grpc.ts";
import { setNumThreads } from "../learner/torch/mod.ts";
import { EvaluationServer } from "./service.ts";

await runService({
  name: "evaluation",
  summary: "plays episodes of trained policies",
  flags: {
    simulation: flag.address("address of gpu-sim"),
    telemetry: flag.optional(flag.url("address of the telemetry service, for traces and metrics")),
    home: flag.path("directory of runs and checkpoints"),
    threads: flag.integer("threads of tensor operations", { min: 1, max: 1024 }, 1),
  },
  async start(flags) {
    setNumThreads(flags.threads);
    const recorder = flags.telemetry === undefined
      ? undefined
      : new Recorder({ url: flags.telemetry, service: "evaluation" });
    const metrics = recorder && exportMetrics(recorder);
    const evaluation = new EvaluationServer({
      home: flags.home,
      recorder,
      simulate: (batch, { transport, doorbell }) =>
        simulateOverGrpc(batch, { address: flags.simulation, transport, doorbell }),
    });
    const server = await serve({ listen: flags.listen, services: [evaluation.implementation()] });
    return {
      address: server.address,
      async stop() {
        await server.stop();
        metrics?.stop();
        await recorder?.close();
      },
    };
  },
});
