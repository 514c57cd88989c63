// ./sdpg bench: measurements on this machine. Each compares side by side in one run, because a shared
// machine differs more between minutes than engines do. The results are kept in the store like a run:
// `algorithm` is "bench", the scalars are named by what tells the rows apart.

import { join } from "node:path";
import { toBinary } from "@bufbuild/protobuf";
import { ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import { checkoutDirectory, createHome, sdpgHome } from "@sdpg/common/home.ts";
import { codeVersion, hardware } from "@sdpg/common/machine.ts";
import { Recorder } from "@sdpg/common/record.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { loadTask } from "@sdpg/tasks/mod.ts";
import { listTaskNames } from "../catalogue.ts";
import { measureEvaluation } from "../bench_evaluation.ts";
import { measureTelemetry } from "../bench_telemetry.ts";
import { measureTraining } from "../bench_telemetry_training.ts";
import { oneOf, read, UsageError, verb } from "../flags.ts";
import { megabytes, table } from "../format.ts";
import { openMesh } from "../mesh.ts";
import { CliError, delay } from "../process.ts";
import { sampleProcesses } from "../procfs.ts";
import { writeOut } from "../report.ts";
import { withTelemetry } from "../store.ts";
import { watchRun } from "../watch_run.ts";

interface Options {
  json: boolean;
  epochs: number;
  stretches: number;
  observation: string;
  preset: string;
  minutes: number;
  rate: number;
  encoding: "protobuf" | "json";
  rows: "scalars" | "spans" | "both";
  scalars: number | undefined;
  training: boolean;
  pairs: number;
  runs: number;
}

interface Bench {
  name: string;
  what: string;
  run(options: Options): Promise<number>;
}

const benches: Bench[] = [
  { name: "physics", what: "the core against MuJoCo C, steps per second and core", run: physics },
  {
    name: "render",
    what: "pictures against MuJoCo's through OSMesa, frames per second",
    run: render,
  },
  { name: "mesh", what: "an epoch through gRPC and shared memory against in-process", run: mesh },
  { name: "memory", what: "PSS of all services during a run, and its estimate", run: memory },
  {
    name: "evaluation",
    what: "what scheduled evaluations cost a training with one thread, on a second core",
    run: evaluation,
  },
  {
    name: "telemetry",
    what: "rows the store takes, curves out of many; --training: what it costs an epoch",
    run: telemetry,
  },
  { name: "page", what: "how soon the web page shows runs and curves, in Chromium", run: page },
];

const readObservation = oneOf("pixels", "state");
const readPreset = oneOf("cpu", "paper");
const readRows = oneOf("scalars", "spans", "both");
const readEncoding = oneOf("protobuf", "json");

export const bench = verb({
  name: "bench",
  summary: "measures this machine",
  positionals: [{
    name: "name",
    meaning: benches.map(({ name }) => name).join(", "),
    required: true,
  }],
  options: {
    json: { meaning: "JSON lines instead of tables" },
    epochs: {
      value: "N",
      meaning: "epochs of memory, and of each run of telemetry --training",
      read: read.count,
      fallback: "30",
    },
    obs: {
      value: "pixels|state",
      meaning: "what the policy of memory, evaluation and telemetry --training sees",
      read: readObservation,
      fallback: "state",
    },
    preset: {
      value: "cpu|paper",
      meaning: "memory's preset",
      read: readPreset,
      fallback: "paper",
    },
    stretches: {
      value: "N",
      meaning: "evaluations that evaluation counts",
      read: read.count,
      fallback: "20",
    },
    minutes: {
      value: "M",
      meaning: "how long telemetry is offered rows",
      read: read.positive,
      fallback: "0.25",
    },
    rate: {
      value: "N",
      meaning: "rows per second that telemetry is offered",
      read: read.count,
      fallback: "50000",
    },
    rows: {
      value: "scalars|spans|both",
      meaning: "what telemetry is offered",
      read: readRows,
      fallback: "both",
    },
    encoding: {
      value: "protobuf|json",
      meaning: "how telemetry's rows are sent",
      read: readEncoding,
      fallback: "protobuf",
    },
    training: { meaning: "telemetry: what recording takes from a training, instead" },
    pairs: {
      value: "N",
      meaning: "pairs of trainings with and without telemetry",
      read: read.count,
      fallback: "10",
    },
    runs: { value: "N", meaning: "runs of page's store", read: read.count, fallback: "10000" },
    scalars: {
      value: "N",
      meaning:
        "scalars the store is filled up to: telemetry's (2e6 if not said), page's (1e8: minutes)",
      read: read.positive,
    },
  },
  details: benches.map(({ name, what }) => `  ${name.padEnd(10)} ${what}`).join("\n"),
  examples: ["./sdpg bench physics", "./sdpg bench memory --obs pixels --json"],
  async run({ positionals: [name], options }) {
    const found = benches.find((each) => each.name === name);
    if (!found) {
      const names = benches.map((each) => each.name);
      throw new UsageError(
        `Cannot find the bench "${name}"${
          didYouMean(name, names) || `: expected ${names.join(", ")}`
        }`,
      );
    }
    return await found.run({
      json: options.json,
      epochs: options.epochs ?? 30,
      stretches: options.stretches ?? 20,
      observation: options.obs ?? "state",
      preset: options.preset ?? "paper",
      minutes: options.minutes ?? 0.25,
      rate: options.rate ?? 50_000,
      encoding: options.encoding ?? "protobuf",
      rows: options.rows ?? "both",
      scalars: options.scalars,
      training: options.training,
      pairs: options.pairs ?? 10,
      runs: options.runs ?? 10_000,
    });
  },
});

async function physics({ json }: { json: boolean }): Promise<number> {
  return await report("physics", await measureTasks("bench_physics", () => []), json);
}

/** The first camera that the task's policy looks through, at the size of the paper's pictures. */
async function render({ json }: { json: boolean }): Promise<number> {
  const rows = await measureTasks("bench_render", (task) => ["--camera", task.cameras[0]]);
  return await report("render", rows, json);
}

/** A native program measures each task; it is handed the MJCF and our compiled model of it. */
async function measureTasks(
  program: string,
  more: (task: Awaited<ReturnType<typeof loadTask>>) => string[],
): Promise<Row[]> {
  const scratch = await Deno.makeTempDir({ prefix: "sdpg-bench-" });
  const lines: string[] = [];
  try {
    for (const name of listTaskNames()) {
      const task = await loadTask(name);
      const compiled = join(scratch, `${name}.binpb`);
      await Deno.writeFile(compiled, toBinary(ModelSchema, task.model));
      const mjcf = join(checkoutDirectory, "tasks", name, "model.xml");
      console.error(`measuring ${name}`);
      const path = join(checkoutDirectory, "build/gpu-sim", program);
      lines.push(...await run(path, ["--model", compiled, "--mjcf", mjcf, ...more(task)]));
    }
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
  return parse(lines);
}

async function mesh({ json }: { json: boolean }): Promise<number> {
  const program = join(checkoutDirectory, "services/learner/bench_mesh.ts");
  const lines = await run(Deno.execPath(), ["run", "-q", "-P=bench", program, "--json"]);
  return await report("mesh", parse(lines), json);
}

/** Starts services, trains Hopper and samples every service four times a second. */
async function memory({ json, epochs, observation, preset }: Options): Promise<number> {
  const opened = await openMesh({
    home: sdpgHome(),
    threads: navigator.hardwareConcurrency,
    ownServices: true,
    progress: (line) => console.error(line),
  });
  const peak = new Map<string, number>();
  let peakTogether = 0;
  let estimated = 0;
  const liveTensors = new Set<number>();
  try {
    const { runId, estimatedBytes } = await opened.learner.startRun({
      task: "hopper",
      preset,
      observation,
      runId: `bench-memory-${Date.now()}`,
      epochs: BigInt(epochs),
    }, { deadlineMs: 60_000 });
    estimated = Number(estimatedBytes);
    let over = false;
    const sampling = (async () => {
      while (!over) {
        const samples = await sampleProcesses(opened.services.map(({ pid }) => pid));
        let together = 0;
        for (const { pid, proportionalBytes } of samples) {
          const { service } = opened.services.find((each) => each.pid === pid)!;
          peak.set(service, Math.max(peak.get(service) ?? 0, proportionalBytes));
          together += proportionalBytes;
        }
        peakTogether = Math.max(peakTogether, together);
        await delay(250);
      }
    })();
    try {
      for await (const event of watchRun(opened.learner, runId)) {
        if (event.case === "epoch" && event.value.epoch > 2n) {
          liveTensors.add(event.value.scalars.live_tensors);
        }
      }
    } finally {
      over = true;
      await sampling;
    }
  } finally {
    opened.learner.$close();
    await opened.close();
  }
  // The published size from state has a budget of its own; anything else must keep to its estimate.
  const limit = observation === "state" && preset === "paper" ? 1.2e9 : 1.2 * estimated;
  const steady = liveTensors.size === 1;
  await remember("memory", [{
    ...Object.fromEntries(
      [...peak].map(([service, bytes]) => [`${service}_peak_pss_bytes`, bytes]),
    ),
    together_peak_pss_bytes: peakTogether,
  }]);
  if (json) {
    writeOut(JSON.stringify({
      bench: "memory",
      peak_pss_bytes: Object.fromEntries(peak),
      peak_pss_together_bytes: peakTogether,
      estimated_bytes: estimated,
      limit_bytes: limit,
      live_tensors: [...liveTensors],
    }));
  } else {
    writeOut(table(
      ["service", "peak PSS"],
      [...peak, ["together, at one moment", peakTogether] as const].map((
        [name, bytes],
      ) => [name, megabytes(bytes)]),
    ));
    writeOut(
      `estimated before the run ${megabytes(estimated)}; limit ${megabytes(limit)}; live tensors ${
        steady ? `constant at ${[...liveTensors][0]}` : `vary: ${[...liveTensors].join(", ")}`
      }`,
    );
  }
  return peakTogether <= limit && steady ? 0 : 1;
}

/** Fails where training lost more than the share of a core that the evaluations took. */
async function evaluation({ json, stretches, observation }: Options): Promise<number> {
  const figures = await measureEvaluation({
    stretches,
    observation,
    progress: (line) => console.error(line),
  });
  const code = await report("evaluation", [figures], json);
  const [, throughput] = figures.throughput_with_evaluations as number[];
  const [, share] = figures.share_of_a_core_for_evaluations as number[];
  return 1 - throughput <= share ? code : 1;
}

/** The offered rate with none lost or doubled; whether it is reached, the figures say. */
async function telemetry(options: Options): Promise<number> {
  const { json, minutes, rate, encoding, rows, scalars = 2e6 } = options;
  const progress = (line: string) => console.error(line);
  if (options.training) {
    const { pairs, epochs, observation } = options;
    const figures = await measureTraining({ pairs, epochs, observation, progress });
    return await report("telemetry-training", [figures], json);
  }
  const bench = {
    minutes,
    rowsPerSecond: rate,
    encoding,
    rows,
    scalars: Math.round(scalars),
    progress,
  };
  return await report("telemetry", await measureTelemetry(bench), json);
}

/** A program of its own: what drives the browser reads /proc, which Deno opens to full permissions only. */
async function page({ json, runs, scalars = 1e8 }: Options): Promise<number> {
  const program = join(checkoutDirectory, "services/cli/bench_page.ts");
  const size = [runs, Math.round(scalars)].map(String);
  const figures = parse(await run(Deno.execPath(), ["run", "-q", "-A", program, ...size]));
  if (json) return await report("page", figures, json);
  // Too many for columns.
  await remember("page", figures);
  writeOut(table(["figure", ""], Object.entries(figures[0]).map((row) => row.map(cell))));
  return 0;
}

type Row = Record<string, unknown>;

function parse(lines: string[]): Row[] {
  return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Row);
}

/** Keeps rows in the store and shows them: JSON lines as they are, or one table. */
async function report(bench: string, objects: Row[], json: boolean): Promise<number> {
  await remember(bench, objects);
  if (json) {
    for (const object of objects) writeOut(JSON.stringify(object));
  } else {
    // Trees (an epoch's phases) have no place in a table; --json has them.
    const isTree = (value: unknown) => typeof value === "object" && !Array.isArray(value);
    const names = objects.flatMap((object) => Object.keys(object));
    const header = [...new Set(names)].filter((name) =>
      !objects.some((object) => isTree(object[name]))
    );
    writeOut(table(
      header,
      objects.map((object) => header.map((name) => cell(object[name]))),
    ));
  }
  return objects.length > 0 ? 0 : 1;
}

/**
 * Writes the numbers of `rows` as the only iteration of a run named bench-<name>-<time>. A scalar is
 * named by the row's texts and whole-number settings: `ratio/hopper/settled/threads=2`.
 */
async function remember(bench: string, rows: Row[]): Promise<void> {
  if (rows.length === 0) return;
  const home = sdpgHome();
  createHome(home);
  const started = new Date();
  const runId = `bench-${bench}-${started.toISOString().replace(/[-:]|\.\d+/g, "").toLowerCase()}`;
  const scalars: Record<string, number> = {};
  for (const row of rows) {
    const settings = ["model", "regime"].flatMap((name) => name in row ? [String(row[name])] : []);
    if ("threads" in row) settings.push(`threads=${row.threads}`);
    for (const [name, value] of Object.entries(row)) {
      if (typeof value === "number") scalars[[name, ...settings].join("/")] = value;
    }
  }
  await withTelemetry(home, async (url) => {
    const recorder = new Recorder({ url, service: "bench" });
    recorder.run({
      runId,
      state: "running",
      algorithm: "bench",
      task: bench,
      codeVersion: codeVersion(),
      hardware: hardware({}),
      configuration: rows[0],
    });
    recorder.iteration({
      runId,
      iteration: 1,
      envStepsNominal: 0,
      envStepsTotal: 0,
      imagesRendered: 0,
      wallTimeS: 0,
      gpuSeconds: 0,
      scalars,
    });
    recorder.run({ runId, state: "done", epochs: 1 });
    const { sent, dropped } = await recorder.flush(15_000);
    await recorder.close();
    if (dropped > 0 || sent < 3) {
      throw new CliError(
        "Cannot write the results to the store: the telemetry service did not take them",
      );
    }
  });
  console.error(`kept in the store as ${runId}`);
}

function cell(value: unknown): string {
  if (value === undefined || value === null) return "-";
  if (typeof value === "number") return String(Number(value.toPrecision(5)));
  return Array.isArray(value) ? value.map(cell).join(" … ") : String(value);
}

/** Output lines of a program run in the checkout; its stderr is ours. */
async function run(command: string, args: string[]): Promise<string[]> {
  const { success, code, stdout } = await new Deno.Command(command, {
    args,
    cwd: checkoutDirectory,
    stdin: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new CliError(`${command} failed with exit code ${code}`);
  return new TextDecoder().decode(stdout).trim().split("\n");
}
