// Entry of the command line: finds the verb, reads its arguments, runs it, and turns every way of
// failing into one line and an exit code: 0 done, 1 failed, 2 wrong usage.

import { join } from "node:path";
import { checkoutDirectory } from "@sdpg/common/home.ts";
import { withoutTelemetry } from "@sdpg/common/record.ts";
import { RpcError } from "@sdpg/common/rpc.ts";
import { UsageError } from "@sdpg/common/service.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { helpText, parse, type Verb } from "./flags.ts";
import { CliError } from "./process.ts";
import { writeOut } from "./report.ts";

const requiredDeno = "2.9.3";

/** Each verb is loaded only when it is typed: starting is what a person waits for most often. */
// deno-lint-ignore no-explicit-any
const verbs: Record<string, () => Promise<Verb<any>>> = {
  train: async () => (await import("./verbs/train.ts")).train,
  resume: async () => (await import("./verbs/resume.ts")).resume,
  eval: async () => (await import("./verbs/eval.ts")).evaluate,
  watch: async () => (await import("./verbs/watch.ts")).watch,
  render: async () => (await import("./verbs/render.ts")).render,
  runs: async () => (await import("./verbs/runs.ts")).runs,
  show: async () => (await import("./verbs/show.ts")).show,
  compare: async () => (await import("./verbs/compare.ts")).compare,
  export: async () => (await import("./verbs/export.ts")).exportRuns,
  tag: async () => (await import("./verbs/tag.ts")).tag,
  note: async () => (await import("./verbs/note.ts")).note,
  sql: async () => (await import("./verbs/sql.ts")).sql,
  plot: async () => (await import("./verbs/plot.ts")).plot,
  ui: async () => (await import("./verbs/ui.ts")).ui,
  tasks: async () => (await import("./verbs/tasks.ts")).tasks,
  algorithms: async () => (await import("./verbs/algorithms.ts")).algorithms,
  up: async () => (await import("./verbs/up.ts")).up,
  down: async () => (await import("./verbs/down.ts")).down,
  doctor: async () => (await import("./verbs/doctor.ts")).doctor,
  test: async () => (await import("./verbs/test.ts")).test,
  bench: async () => (await import("./verbs/bench.ts")).bench,
};

async function main(args: string[]): Promise<number> {
  if (Deno.version.deno !== requiredDeno) {
    throw new CliError(
      `Expected Deno ${requiredDeno}, found ${Deno.version.deno}: start through ./sdpg, which brings it`,
    );
  }
  const bench = Deno.env.get(withoutTelemetry);
  if (bench !== undefined && bench !== String(Deno.ppid)) {
    throw new UsageError(
      `Cannot use ${withoutTelemetry}: only ./sdpg bench telemetry --training may set it; unset it`,
    );
  }
  const [name, ...rest] = args;
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    writeOut(Deno.readTextFileSync(join(checkoutDirectory, "services/cli/help.txt")).trimEnd());
    return name === undefined ? 2 : 0;
  }
  if (!Object.hasOwn(verbs, name)) {
    throw new UsageError(
      `Cannot find the command "${name}"${
        didYouMean(name, Object.keys(verbs)) || "; see ./sdpg --help"
      }`,
    );
  }
  const verb = await verbs[name]();
  if (rest.includes("--help") || rest.includes("-h")) {
    writeOut(helpText(verb));
    return 0;
  }
  return await verb.run(parse(verb, rest));
}

let code: number;
try {
  code = await main(Deno.args);
} catch (error) {
  code = error instanceof UsageError ? 2 : 1;
  console.error(`sdpg: ${oneLine(error)}`);
  if (Deno.env.get("SDPG_LOG") === "debug" && error instanceof Error) console.error(error.stack);
}
Deno.exit(code);

function oneLine(error: unknown): string {
  if (error instanceof CliError || error instanceof UsageError || error instanceof RpcError) {
    return error.message.split("\n")[0];
  }
  // Not foreseen: still one line; SDPG_LOG=debug shows where.
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return `${text.split("\n")[0]} (not expected; SDPG_LOG=debug shows where)`;
}
