// Starts the real services for end-to-end tests of the learner: each as its own process on a free
// port of 127.0.0.1, ended by the end of its stdin.

import { checkoutDirectory } from "@sdpg/common/home.ts";

export interface Service {
  readonly address: string;
  readonly pid: number;
  /** Kills with SIGKILL and waits until the process is gone. */
  kill(): Promise<void>;
  /** Ends it by the end of its stdin and waits; answers with its exit code. */
  stop(): Promise<number>;
  /** What it wrote to stderr so far. */
  log(): string;
}

export async function start(
  command: string,
  args: string[],
  env: Record<string, string> = {},
): Promise<Service> {
  const child = new Deno.Command(command, {
    args: [...args, "--listen", "127.0.0.1:0", "--exit-with-parent"],
    cwd: checkoutDirectory,
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let ended = false;
  void child.status.then(() => ended = true);
  let log = "";
  const reading = (async () => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) log += text;
  })();
  let line = "";
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  while (!line.includes("\n")) {
    const { value, done } = await reader.read();
    if (done) {
      await reading;
      throw new Error(`${command} ${args.join(" ")} ended before it was ready: ${log}`);
    }
    line += value;
  }
  void reader.cancel();
  return {
    address: JSON.parse(line).address,
    pid: child.pid,
    log: () => log,
    async kill() {
      if (!ended) child.kill("SIGKILL");
      await child.status;
    },
    async stop() {
      await child.stdin.close();
      return (await child.status).code;
    },
  };
}

export const startSimulator = (threads = 1) =>
  start(`${checkoutDirectory}/build/gpu-sim/gpu-sim`, [
    "--serve",
    "sim",
    "--threads",
    String(threads),
  ]);

/** Draws what a batch elsewhere simulates. */
export const startRenderer = (threads = 1) =>
  start(`${checkoutDirectory}/build/gpu-sim/gpu-sim`, [
    "--serve",
    "render",
    "--threads",
    String(threads),
  ]);

export const startTelemetry = (home: string) =>
  start(Deno.execPath(), ["run", "-A", "services/telemetry/main.ts", "--home", home]);

export const startLearner = (
  options: {
    home: string;
    simulation: string;
    telemetry: string;
    /** Absent: it stands still and evaluates itself. */
    evaluation?: string;
    threads?: number;
  },
) =>
  start(Deno.execPath(), [
    "run",
    "-A",
    "services/learner/main.ts",
    "--home",
    options.home,
    "--simulation",
    options.simulation,
    "--telemetry",
    `http://${options.telemetry}`,
    "--threads",
    String(options.threads ?? 1),
    ...(options.evaluation === undefined ? [] : ["--evaluation", options.evaluation]),
  ]);

export const startEvaluation = (options: { home: string; simulation: string }) =>
  start(Deno.execPath(), [
    "run",
    "-A",
    "services/evaluation/main.ts",
    "--home",
    options.home,
    "--simulation",
    options.simulation,
  ]);
