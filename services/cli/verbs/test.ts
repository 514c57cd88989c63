// ./sdpg test: everything that must hold before a change lands, in the order in which a mistake is
// found soonest. Each suite says how many of its checks passed; the last line adds them up.

import { join } from "node:path";
import { checkoutDirectory } from "@sdpg/common/home.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { UsageError, verb } from "../flags.ts";
import { writeOut } from "../report.ts";

interface Count {
  passed: number;
  failed: number;
}

interface Suite {
  name: string;
  what: string;
  /** Part of a plain `./sdpg test`. */
  always: boolean;
  run(): Promise<Count>;
}

const nativeFolders = ["gpu-sim", "services/learner/torch/native"];

const suites: Suite[] = [
  {
    name: "format",
    what: "deno fmt, clang-format",
    always: true,
    run: () =>
      checks(
        ["deno fmt", Deno.execPath(), ["fmt", "--check"]],
        ["clang-format", "clang-format", ["--dry-run", "-Werror", ...nativeSources()]],
      ),
  },
  {
    name: "lint",
    what: "deno lint, deno check, shellcheck",
    always: true,
    run: () =>
      checks(
        ["deno lint", Deno.execPath(), ["lint"]],
        ["deno check", Deno.execPath(), ["check", "services", "tasks", "dashboards", "test"]],
        ["shellcheck", "shellcheck", ["sdpg", ".ci/run"]],
      ),
  },
  { name: "native", what: "GoogleTest of gpu-sim", always: true, run: () => googleTest() },
  {
    name: "unit",
    what: "vitest beside the sources",
    always: true,
    run: () => vitest("unit", ["services", "tasks", "dashboards", "gpu-sim/tests"]),
  },
  {
    name: "contract",
    what: "proto/: lint, breaking changes, golden bytes, a client in another language",
    always: true,
    run: () => vitest("contract", ["test/contract"]),
  },
  {
    name: "parity",
    what: "physics against MuJoCo",
    always: true,
    run: () => vitest("parity", ["test/parity"]),
  },
  {
    name: "e2e",
    what: "the whole mesh: trainings, kills, resumes, transports",
    always: true,
    run: () => vitest("e2e", ["test/e2e"]),
  },
  {
    name: "page",
    what: "the web page in Chromium: every view, keyboard, accessibility",
    always: true,
    run: () => vitest("page", ["test/page"]),
  },
  {
    name: "sanitize",
    what: "native tests and parity under ASan and UBSan: baseline and emulated CUDA mapping",
    always: false,
    run: sanitized,
  },
  {
    name: "soak",
    what: "long: connection churn and memory over time, telemetry through kills",
    always: false,
    run: () => vitest("soak", ["test/soak"], { serial: true }),
  },
];

export const test = verb({
  name: "test",
  summary: "runs the tests: all that CI runs, or the suites named",
  positionals: [{ name: "suite", meaning: "suites to run", required: false, many: true }],
  options: {},
  details: [
    "suites:",
    ...suites.map(({ name, what, always }) =>
      `  ${name.padEnd(10)} ${what}${always ? "" : " (only when named)"}`
    ),
  ].join("\n"),
  examples: ["./sdpg test", "./sdpg test format lint", "./sdpg test soak"],
  async run({ positionals }) {
    const chosen = positionals.length === 0
      ? suites.filter(({ always }) => always)
      : positionals.map((name) => {
        const suite = suites.find((each) => each.name === name);
        if (suite) return suite;
        const names = suites.map((each) => each.name);
        throw new UsageError(
          `Cannot find the suite "${name}"${
            didYouMean(name, names) || `: expected ${names.join(", ")}`
          }`,
        );
      });
    const total = { passed: 0, failed: 0 };
    for (const suite of chosen) {
      const started = performance.now();
      writeOut(`\n== ${suite.name}: ${suite.what}`);
      const { passed, failed } = await suite.run();
      total.passed += passed;
      total.failed += failed;
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      writeOut(`== ${suite.name}: ${passed} ok, ${failed} not, ${seconds} s`);
    }
    writeOut(`\n${total.passed} passed, ${total.failed} failed`);
    return total.failed === 0 && total.passed > 0 ? 0 : 1;
  },
});

/** Programs that check and say so by their exit code, each counting as one. */
async function checks(...list: [name: string, command: string, args: string[]][]): Promise<Count> {
  const count = { passed: 0, failed: 0 };
  for (const [name, command, args] of list) {
    const success = await runHere(command, args, { quiet: true });
    writeOut(`${success ? "ok  " : "FAIL"}  ${name}`);
    if (success) count.passed++;
    else count.failed++;
  }
  return count;
}

/** Builds gpu-sim once more, watched by the sanitizers, and runs what tests it natively and by parity. */
async function sanitized(): Promise<Count> {
  const folder = join(checkoutDirectory, "build/gpu-sim-sanitize");
  const built = await runHere("cmake", [
    "-S",
    "gpu-sim",
    "-B",
    folder,
    "-G",
    "Ninja",
    "-DSDPG_SANITIZE=ON",
  ], { quiet: true }) && await runHere("ninja", ["-C", folder, "gpu-sim-tests", "gpu_sim"]);
  if (!built) return { passed: 0, failed: 1 };
  const native = await googleTest(join(folder, "gpu-sim-tests"));
  // The library is loaded by a process without the sanitizers' runtime, which wants to find C++'s.
  const runtimes = await Promise.all(["libasan.so", "libstdc++.so.6"].map(async (name) => {
    const { stdout } = await new Deno.Command("g++", { args: [`-print-file-name=${name}`] })
      .output();
    return new TextDecoder().decode(stdout).trim();
  }));
  const parity = await vitest("parity-sanitized", ["test/parity"], {
    env: {
      SDPG_GPU_SIM_LIBRARY: join(folder, "libgpu_sim.so"),
      LD_PRELOAD: runtimes.join(" "),
      ASAN_OPTIONS: "detect_leaks=0",
    },
  });
  return { passed: native.passed + parity.passed, failed: native.failed + parity.failed };
}

async function googleTest(
  binary = join(checkoutDirectory, "build/gpu-sim/gpu-sim-tests"),
): Promise<Count> {
  const report = join(await reportFolder(), "gtest.json");
  const success = await runHere(binary, ["--gtest_brief=1", `--gtest_output=json:${report}`]);
  const { tests, failures } = await readReport<{ tests: number; failures: number }>(report) ??
    { tests: 0, failures: 0 };
  // A crash leaves no report; a run of nothing is no success.
  const broken = (!success && failures === 0) || tests === 0;
  return { passed: tests - failures, failed: failures + (broken ? 1 : 0) };
}

async function vitest(
  name: string,
  folders: string[],
  options: { serial?: boolean; env?: Record<string, string> } = {},
): Promise<Count> {
  const report = join(await reportFolder(), `vitest-${name}.json`);
  const success = await runHere(Deno.execPath(), [
    "run",
    "-A",
    "-q",
    vitestPackage(),
    "run",
    "--root",
    ".",
    "--reporter=default",
    "--reporter=json",
    `--outputFile=${report}`,
    // Vitest itself would leave a core free: half of a small machine.
    ...(options.serial ? ["--no-file-parallelism"] : ["--maxWorkers=100%"]),
    ...folders.map((folder) => `${folder}/`),
  ], { env: options.env });
  const result = await readReport<{
    numPassedTests: number;
    numFailedTests: number;
    numFailedTestSuites: number;
  }>(report);
  const passed = result?.numPassedTests ?? 0;
  const failed = result?.numFailedTests ?? 0;
  // A file that does not load has no tests to fail, and a crash leaves no report.
  const broken = (!success && failed === 0) || passed + failed === 0;
  return { passed, failed: failed + (broken ? 1 : 0) };
}

/** The pinned version, as deno.json has it. */
function vitestPackage(): string {
  const { imports } = JSON.parse(Deno.readTextFileSync(join(checkoutDirectory, "deno.json")));
  return imports.vitest;
}

/**
 * Runs a program in the checkout; false when it fails or does not exist. A quiet one is shown only when
 * it fails.
 */
async function runHere(
  command: string,
  args: string[],
  options: { quiet?: boolean; env?: Record<string, string> } = {},
): Promise<boolean> {
  const output = options.quiet ? "piped" : "inherit";
  try {
    const result = await new Deno.Command(command, {
      args,
      env: options.env,
      cwd: checkoutDirectory,
      stdin: "null",
      stdout: output,
      stderr: output,
    }).output();
    if (options.quiet && !result.success) {
      for (const bytes of [result.stdout, result.stderr]) {
        writeOut(new TextDecoder().decode(bytes).trimEnd());
      }
    }
    return result.success;
  } catch (error) {
    writeOut(
      `${command} cannot be run: ${error instanceof Error ? error.message : error}; ./sdpg doctor`,
    );
    return false;
  }
}

async function reportFolder(): Promise<string> {
  const folder = join(checkoutDirectory, "build/test-reports");
  await Deno.mkdir(folder, { recursive: true });
  return folder;
}

/** A report is read once and removed, so that an old one is never taken for this run's. */
async function readReport<T>(path: string): Promise<T | undefined> {
  try {
    const text = await Deno.readTextFile(path);
    await Deno.remove(path);
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function nativeSources(): string[] {
  const found: string[] = [];
  const visit = (folder: string) => {
    for (const entry of Deno.readDirSync(join(checkoutDirectory, folder))) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory) visit(path);
      else if (/\.(cc|h)$/.test(entry.name)) found.push(path);
    }
  };
  for (const folder of nativeFolders) visit(folder);
  return found;
}
