// ./sdpg plot: learning curves from the store.

import { sdpgHome } from "@sdpg/common/home.ts";
import { read, verb } from "../flags.ts";
import { withTelemetry } from "../store.ts";
import { plotRuns } from "../../telemetry/plot.ts";

export const plot = verb({
  name: "plot",
  summary: "draws learning curves of runs as an SVG file",
  positionals: [{
    name: "run",
    meaning: "runs to draw; those of one task become one curve",
    required: true,
    many: true,
  }],
  options: {
    out: { value: "FILE", meaning: "the file to write", read: read.text, fallback: "curve.svg" },
  },
  examples: ["./sdpg plot hopper-a hopper-b hopper-c --out docs/figures/hopper.svg"],
  async run({ positionals, options }) {
    const out = options.out ?? "curve.svg";
    await withTelemetry(sdpgHome(), (url) => plotRuns({ url, runs: positionals, out }));
    console.error(`wrote ${out}`);
    return 0;
  },
});
