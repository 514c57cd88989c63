// ./sdpg test: everything that must hold before a change lands, in the order in which a mistake is
// found soonest. Each suite says how many of its checks passed; the last lines add them up and name
// what failed.

import { join, relative } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { checkoutDirectory } from "@sdpg/common/home.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { UsageError, verb } from "../flags.ts";
import { writeOut } from "../report.ts";

interface Outcome {
  passed: number;
  /** What failed, by name, each with the beginning of its reason where there is one. */
  failed: string[];
}

interface Suite {
  name: string;
  what: string;
  /** Part of a plain `./sdpg test`. */
  always: boolean;
  run(): Promise<Outcome>;
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
    const total: Outcome = { passed: 0, failed: [] };
    for (const suite of chosen) {
      const started = performance.now();
      writeOut(`\n== ${suite.name}: ${suite.what}`);
      const { passed, failed } = await suite.run();
      total.passed += passed;
      total.failed.push(...failed.map((failure) => `${suite.name}: ${failure}`));
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      writeOut(`== ${suite.name}: ${passed} ok, ${failed.length} not, ${seconds} s`);
    }
    // Said again where a reader of a long log looks first.
    if (total.failed.length > 0) writeOut("");
    for (const failure of total.failed) writeOut(`FAIL  ${failure}`);
    writeOut(`\n${total.passed} passed, ${total.failed.length} failed`);
    return total.failed.length === 0 && total.passed > 0 ? 0 : 1;
  },
});

/** Programs that check and say so by their exit code, each counting as one. */
async function checks(
  ...list: [name: string, command: string, args: string[]][]
): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failed: [] };
  for (const [name, command, args] of list) {
    const success = await runHere(command, args, { quiet: true });
    writeOut(`${success ? "ok  " : "FAIL"}  ${name}`);
    if (success) outcome.passed++;
    else outcome.failed.push(name);
  }
  return outcome;
}

/** Builds gpu-sim once more, watched by the sanitizers, and runs what tests it natively and by parity. */
async function sanitized(): Promise<Outcome> {
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
  if (!built) return { passed: 0, failed: ["the build"] };
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
  return {
    passed: native.passed + parity.passed,
    failed: [...native.failed, ...parity.failed],
  };
}

async function googleTest(
  binary = join(checkoutDirectory, "build/gpu-sim/gpu-sim-tests"),
): Promise<Outcome> {
  const report = join(await reportFolder(), "gtest.json");
  const success = await runHere(binary, ["--gtest_brief=1", `--gtest_output=json:${report}`]);
  const result = await readReport<{
    testsuites: {
      testsuite: {
        name: string;
        classname: string;
        result: string;
        failures?: { failure: string }[];
      }[];
    }[];
  }>(report);
  const tests = result?.testsuites.flatMap(({ testsuite }) => testsuite)
    .filter(({ result }) => result !== "SKIPPED") ?? [];
  return outcomeOf(
    tests.map(({ classname, name, failures }) => ({
      name: `${classname}.${name}`,
      failed: failures !== undefined,
      reason: failures?.[0]?.failure,
    })),
    success,
  );
}

async function vitest(
  name: string,
  folders: string[],
  options: { serial?: boolean; env?: Record<string, string> } = {},
): Promise<Outcome> {
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
    testResults: {
      name: string;
      status: string;
      message: string;
      assertionResults: { fullName: string; status: string; failureMessages: string[] }[];
    }[];
  }>(report);
  const tests = (result?.testResults ?? []).flatMap(
    ({ name, status, message, assertionResults }) => {
      const file = relative(checkoutDirectory, name);
      const tests = assertionResults
        .filter(({ status }) => status === "passed" || status === "failed")
        .map(({ fullName, status, failureMessages }) => ({
          name: `${file}: ${fullName}`,
          failed: status === "failed",
          reason: failureMessages[0],
        }));
      // A file that does not load has no test to fail.
      const loaded = status !== "failed" || tests.some(({ failed }) => failed);
      return loaded ? tests : [...tests, { name: file, failed: true, reason: message }];
    },
  );
  return outcomeOf(tests, success);
}

/** What a runner's report and its exit say together. */
function outcomeOf(
  tests: { name: string; failed: boolean; reason?: string }[],
  success: boolean,
): Outcome {
  const failed = tests.filter(({ failed }) => failed).map(({ name, reason }) => {
    const why = stripVTControlCharacters(reason ?? "").trim().replace(/\s+/g, " ").slice(0, 200);
    return why ? `${name}: ${why}` : name;
  });
  // A crash leaves no report; a run of nothing is no success.
  if (tests.length === 0) failed.push("no test ran to its end");
  else if (!success && failed.length === 0) failed.push("ended in an error outside its tests");
  return { passed: tests.filter(({ failed }) => !failed).length, failed };
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
