// ./sdpg plot: learning curves from the store.

import { sdpgHome } from "@sdpg/common/home.ts";
import { plotAxes, type PlotAxis, plotRuns } from "../../telemetry/plot.ts";
import { oneOf, read, verb } from "../flags.ts";
import { CliError } from "../process.ts";
import { withTelemetry } from "../store.ts";

const axisNames = Object.keys(plotAxes) as PlotAxis[];
const readAxis = oneOf(...axisNames);
const readAxes = (text: string): PlotAxis[] => text.split(",").map(readAxis);

export const plot = verb({
  name: "plot",
  summary: "draws learning curves of runs as an SVG file",
  positionals: [{
    name: "run",
    meaning: "runs to draw; those that differ only in the seed share a colour and get a mean",
    required: true,
    many: true,
  }],
  options: {
    out: { value: "FILE", meaning: "the file to write", read: read.text, fallback: "curve.svg" },
    metric: {
      value: "NAME",
      meaning: "what to draw: evaluation, or a scalar such as rewards",
      read: read.text,
      fallback: "evaluation",
    },
    axes: {
      value: "A,B",
      meaning: `what to draw it against, a panel each: ${axisNames.join(", ")}`,
      read: readAxes,
      fallback: "wall_time_s,env_steps_total",
    },
  },
  examples: ["./sdpg plot hopper-a hopper-b hopper-c --out docs/figures/hopper.svg"],
  async run({ positionals, options }) {
    const out = options.out ?? "curve.svg";
    await withTelemetry(sdpgHome(), async (url) => {
      try {
        const { axes, metric } = options;
        await plotRuns({ url, runs: positionals, out, axes, metric });
      } catch (error) {
        throw new CliError(error instanceof Error ? error.message : String(error));
      }
    });
    console.error(`wrote ${out}`);
    return 0;
  },
});
