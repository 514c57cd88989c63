// ./sdpg up: services that outlive the command.

import { sdpgHome } from "@sdpg/common/home.ts";
import { read, verb } from "../flags.ts";
import { up as start } from "../mesh.ts";
import { writeOut } from "../report.ts";

export const up = verb({
  name: "up",
  summary: "starts telemetry, gpu-sim, render, evaluation and learner and leaves them running",
  positionals: [],
  options: {
    threads: {
      value: "N",
      meaning: "threads of the simulator and of the learner",
      read: read.count,
      fallback: "the number of cores",
    },
    json: { meaning: "one JSON object a service" },
  },
  details: [
    "Commands of the same SDPG_HOME then use these services instead of starting their own. They listen",
    "on the loopback. ./sdpg down stops them.",
  ].join("\n"),
  examples: ["./sdpg up", "./sdpg train hopper && ./sdpg eval hopper-1 && ./sdpg down"],
  async run({ options }) {
    const services = await start({
      home: sdpgHome(),
      threads: options.threads ?? navigator.hardwareConcurrency,
      progress: (line) => console.error(line),
    });
    for (const { service, address, pid } of services) {
      writeOut(
        options.json
          ? JSON.stringify({ event: "up", service, address, pid })
          : `${service.padEnd(10)} ${address}  pid ${pid}`,
      );
    }
    return 0;
  },
});
