/// <reference lib="dom" />
// How soon the web page shows something, in Chromium: the list of runs, one run's first chart, a
// comparison's. Against a store of made-up runs in a scratch directory, or one that is there.
//
// Times are the browser's own: from the start of the navigation to the frame in which it stands. Cold is
// a browser that has seen nothing of the page, warm one that comes back to it. The service's processor
// time is beside them, since a busy machine makes times, not work.
//
//   deno run -A services/cli/bench_page.ts [runs] [scalars]     prints them as one JSON object

import { join } from "node:path";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { checkoutDirectory } from "@sdpg/common/home.ts";
import { quantile } from "@sdpg/common/quantile.ts";
import { leaseTelemetry } from "./mesh.ts";
import { CliError } from "./process.ts";
import { sampleProcesses } from "./procfs.ts";
import { rowsFrom } from "./store.ts";

export type PageFigures = Record<string, number>;

export interface PageOptions {
  /** A home with a store; without one a store is made. */
  home?: string;
  /** Runs and scalars of the store that is made. */
  runs: number;
  scalars: number;
  /** Times each view is opened cold, and again warm. */
  loads?: number;
}

const namesPerEpoch = 15; // of seed_for_tests.ts
const deadlineMs = 120_000;

/** Opens each view several times; medians in ms, and what the service's processor did for one load. */
export async function measurePage(
  { home, runs, scalars, loads = 5 }: PageOptions,
): Promise<PageFigures> {
  const { chromium } = await import("playwright-core");
  const executablePath = Deno.env.get("SDPG_CHROMIUM") ?? "/usr/bin/chromium";
  try {
    Deno.statSync(executablePath);
  } catch {
    throw new CliError(
      `Cannot find ${executablePath}: install the package chromium, or set SDPG_CHROMIUM`,
    );
  }
  const scratch = home ?? await Deno.makeTempDir({ prefix: "sdpg-bench-page-" });
  try {
    if (home === undefined) await makeStore(scratch, runs, scalars);
    const telemetry = await leaseTelemetry(scratch);
    // Root (containers) cannot have the browser's sandbox; only our own page is opened.
    const args = ["--disable-dev-shm-usage"].concat(Deno.uid() === 0 ? ["--no-sandbox"] : []);
    const browser = await chromium.launch({ executablePath, args });
    try {
      return await measureViews(browser, telemetry.url, telemetry.entry.pid, loads);
    } finally {
      await browser.close();
      await telemetry.release();
    }
  } finally {
    if (home === undefined) await Deno.remove(scratch, { recursive: true });
  }
}

/** The engine fills the store in a process of its own, with the permissions that it needs. */
async function makeStore(home: string, runs: number, scalars: number): Promise<void> {
  const epochs = Math.max(10, Math.round(scalars / runs / namesPerEpoch));
  console.error(`making a store of ${runs} runs with ${epochs} epochs of ${namesPerEpoch} scalars`);
  const seed = join(checkoutDirectory, "services/telemetry/seed_for_tests.ts");
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "-A", seed, home, String(runs), String(epochs)],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).output();
  if (!success) throw new CliError("Cannot make the store that is to be measured; see above");
}

interface View {
  name: string;
  /** Of its address. */
  hash: string;
  /** Performance mark that says it stands. */
  mark: string;
}

async function measureViews(
  browser: Browser,
  url: string,
  pid: number,
  loads: number,
): Promise<PageFigures> {
  const [store] = await rowsFrom<{ runs: number; scalars: number; evaluations: number }>(
    url,
    "SELECT (SELECT uniqExact(run_id) FROM run_states) AS runs, (SELECT count() FROM scalars) AS " +
      "scalars, (SELECT count() FROM evaluations) AS evaluations",
  );
  const ends = await rowsFrom<{ run_id: string }>(
    url,
    "SELECT run_id FROM run_states GROUP BY run_id ORDER BY cityHash64(run_id) LIMIT 6",
  );
  if (ends.length === 0) throw new CliError("Cannot measure the page: the store has no runs");
  const names = ends.map(({ run_id }) => run_id);
  const views: View[] = [
    { name: "list", hash: "#/runs", mark: "shown list of runs" },
    { name: "list_by_best", hash: "#/runs?sort=best", mark: "shown list of runs" },
    { name: "groups", hash: "#/runs?by=experiment", mark: "shown list of runs" },
    { name: "run", hash: `#/run/${names[0]}`, mark: "shown chart" },
    { name: "compare", hash: `#/compare?runs=${names.join(",")}`, mark: "shown chart" },
    {
      name: "compare_scalar",
      hash: `#/compare?runs=${names.join(",")}&metric=rewards&axis=env_steps_total`,
      mark: "shown chart",
    },
  ];
  const figures: PageFigures = { ...store };
  const questions = new Map<string, number[]>();
  const open = async (context: BrowserContext, { hash, mark }: View) => {
    const page = await context.newPage();
    watch(page, questions);
    await page.goto(`${url}/ui/${hash}`);
    const ms = await shownAfter(page, mark);
    await page.waitForFunction(
      () => document.querySelector("[data-loading], [aria-busy]") === null,
      undefined,
      { timeout: deadlineMs },
    );
    await page.close();
    return ms;
  };
  for (const [i, view] of views.entries()) {
    const times = { cold: [] as number[], warm: [] as number[] };
    const [before] = await sampleProcesses([pid]);
    for (let load = 0; load < loads; load++) {
      const context = await browser.newContext();
      times.cold.push(await open(context, view));
      times.warm.push(await open(context, view));
      await context.close();
    }
    const [after] = await sampleProcesses([pid]);
    // The first view of all is the first thing that the service is asked.
    if (i === 0) figures.first_of_service_ms = times.cold.shift()!;
    figures[`${view.name}_cold_ms`] = quantile(times.cold, 0.5);
    figures[`${view.name}_warm_ms`] = quantile(times.warm, 0.5);
    figures[`${view.name}_service_cpu_ms`] = (after.cpuSeconds - before.cpuSeconds) * 1000 /
      (2 * loads);
  }
  const slowest = [...questions].map(([name, times]) => [name, quantile(times, 0.5)] as const)
    .sort(([, a], [, b]) => b - a);
  for (const [name, ms] of slowest.slice(0, 8)) figures[`question_${name}_ms`] = ms;
  return figures;
}

/** Ms from the start of the navigation to the first mark whose name begins so. */
async function shownAfter(page: Page, mark: string): Promise<number> {
  const handle = await page.waitForFunction(
    (mark) =>
      performance.getEntriesByType("mark").find(({ name }) => name.startsWith(mark))?.startTime,
    mark,
    { timeout: deadlineMs, polling: 20 },
  );
  return await handle.jsonValue() as number;
}

/** Takes down how long the engine worked on each question, by the name that the page gives it. */
function watch(page: Page, questions: Map<string, number[]>): void {
  page.on("response", (response) => {
    const name = new URL(response.url()).searchParams.get("log_comment");
    const summary = response.headers()["x-clickhouse-summary"];
    if (name === null || summary === undefined) return;
    const times = questions.get(name) ?? [];
    times.push(Number(JSON.parse(summary).elapsed_ns) / 1e6);
    questions.set(name, times);
  });
}

if (import.meta.main) {
  const [runs = "10000", scalars = "100000000"] = Deno.args;
  console.log(JSON.stringify(await measurePage({ runs: Number(runs), scalars: Number(scalars) })));
}
