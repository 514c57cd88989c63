// The learner service's process: flags, the parts, and their end in reverse order.

import { logger } from "@sdpg/common/log.ts";
import { exportMetrics } from "@sdpg/common/metrics.ts";
import { Nvml } from "@sdpg/common/nvml.ts";
import { Recorder } from "@sdpg/common/record.ts";
import { Code, serve } from "@sdpg/common/rpc.ts";
import { flag, runService } from "@sdpg/common/service.ts";
import { codeVersion, hardware } from "@sdpg/common/machine.ts";
import { evaluateOverGrpc } from "../evaluation/remote.ts";
import { Learner } from "./service.ts";
import { SimulationError } from "./simulation.ts";
import { simulateOverGrpc } from "./simulation_grpc.ts";
import { setNumThreads, version } from "./torch/mod.ts";

await runService({
  name: "learner",
  summary: "trains policies against gpu-sim and records what it measures",
  flags: {
    simulation: flag.address("address of gpu-sim"),
    renderer: flag.optional(
      flag.address(
        "address of gpu-sim --serve render on gpu-sim's machine, which draws the pictures of runs " +
          "with simulation.render=apart",
      ),
    ),
    evaluation: flag.optional(
      flag.address(
        "address of the evaluation service; without it training stands still to evaluate",
      ),
    ),
    telemetry: flag.url("address of the telemetry service"),
    home: flag.path("directory of runs and checkpoints"),
    threads: flag.integer("threads of tensor operations", { min: 1, max: 1024 }, 1),
  },
  async start(flags, { log }) {
    setNumThreads(flags.threads);
    const libraries = version();
    log.info("libraries", { ...libraries, threads: flags.threads });
    const recorder = new Recorder({ url: flags.telemetry, service: "learner" });
    const nvml = Nvml.open();
    const metrics = exportMetrics(recorder, () => nvml?.measure() ?? []);
    const learner = new Learner({
      home: flags.home,
      simulate(batch, { transport, doorbell, render }) {
        if (render === "apart" && flags.renderer === undefined) {
          throw new SimulationError(
            "Cannot set simulation.render=apart: this learner was started without --renderer",
            Code.INVALID_ARGUMENT,
          );
        }
        const renderer = render === "apart" ? flags.renderer : undefined;
        return simulateOverGrpc(batch, {
          address: flags.simulation,
          transport,
          doorbell,
          renderer,
        });
      },
      evaluate: flags.evaluation === undefined ? undefined : evaluateOverGrpc(flags.evaluation),
      recorder,
      log: logger("learner"),
      build: { codeVersion: codeVersion(), hardware: hardware(libraries) },
      now: Date.now,
    });
    const server = await serve({ listen: flags.listen, services: [learner.implementation()] });
    return {
      address: server.address,
      async stop() {
        await learner.stop();
        await server.stop();
        metrics.stop();
        await recorder.close();
      },
    };
  },
});
