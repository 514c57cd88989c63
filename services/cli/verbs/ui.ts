// ./sdpg ui: the web page of the store, for as long as the command runs.

import { readServices, sdpgHome } from "@sdpg/common/home.ts";
import { read, verb } from "../flags.ts";
import { leaseTelemetry } from "../mesh.ts";
import { markInterrupted } from "../owners.ts";
import { CliError, delay } from "../process.ts";
import { writeOut } from "../report.ts";
import { sweep } from "../sweep.ts";

function readPort(text: string): number {
  const port = read.natural(text);
  if (port > 65535) throw new Error("a port, 0 to 65535");
  return port;
}

export const ui = verb({
  name: "ui",
  summary: "serves the web page of the store: runs, curves, memory, traces, SQL",
  positionals: [],
  options: {
    port: { value: "N", meaning: "port on the loopback", read: readPort, fallback: "a free one" },
    json: { meaning: "the address as a JSON object" },
  },
  details: [
    "The telemetry service serves it; a training's is used while there is one. The page needs no network",
    "and writes nothing but tags and notes. From another machine: ssh -L PORT:127.0.0.1:PORT.",
  ].join("\n"),
  examples: ["./sdpg ui", "./sdpg ui --port 8200"],
  async run({ options }) {
    const home = sdpgHome();
    await sweep(home);
    const ended = new AbortController();
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
    const end = () => ended.abort();
    for (const signal of signals) Deno.addSignalListener(signal, end);
    const telemetry = await leaseTelemetry(home, `127.0.0.1:${options.port ?? 0}`);
    try {
      if (options.port && !telemetry.url.endsWith(`:${options.port}`)) {
        throw new CliError(
          `Cannot serve on port ${options.port}: the telemetry service of ${home} already serves the ` +
            `page at ${telemetry.url}/ui/`,
        );
      }
      await markInterrupted(home, telemetry.url);
      const url = `${telemetry.url}/ui/`;
      writeOut(options.json ? JSON.stringify({ event: "ui", url }) : url);
      if (Deno.stdout.isTerminal()) console.error("open it in a browser; Ctrl-C ends");
      // A training that lost its telemetry service starts another at the same address: a moment is fine.
      for (let away = 0; away < 2 && !ended.signal.aborted;) {
        await delay(5000, ended.signal);
        const there = readServices(home).some(({ service }) => service === "telemetry");
        away = there ? 0 : away + 1;
      }
      if (!ended.signal.aborted) {
        throw new CliError(
          `The telemetry service has ended; ${home}/logs/telemetry.log may say why, ./sdpg ui starts ` +
            `it again`,
        );
      }
    } finally {
      await telemetry.release();
      for (const signal of signals) Deno.removeSignalListener(signal, end);
    }
    return 0;
  },
});
