// ./sdpg show: one run on a page. The numbers come from the store's views, what the command line set
// from the run's folder, where there is one in this home.

import { join } from "node:path";
import { differences } from "@sdpg/common/differences.ts";
import { runDirectory, sdpgHome } from "@sdpg/common/home.ts";
import { verb } from "../flags.ts";
import { duration, megabytes, metric, number, table } from "../format.ts";
import { markInterrupted } from "../owners.ts";
import { writeOut } from "../report.ts";
import { readRunFile } from "../runfile.ts";
import { requireRuns, rowsFrom, withTelemetry } from "../store.ts";
import { listRunDirectories } from "../sweep.ts";

interface Run {
  run_id: string;
  task: string;
  algorithm: string;
  preset: string;
  observation: string;
  seed: string;
  state: string;
  reason: string;
  configuration: Record<string, unknown>;
  code_version: string | null;
  hardware: Record<string, string | number> | null;
  checkpoint: string | null;
  started_at: string;
  updated_at: string;
  tags: string[];
  note: string;
}

interface Evaluation {
  iteration: number;
  wall_time_s: number;
  env_steps_total: number;
  episodes: number;
  return_mean: number;
  return_ci95: number | null;
  return_min: number;
  return_max: number;
  length_mean: number;
}

interface Shown {
  run: Run;
  /** Settings that the command line changed; undefined where the run's folder does not say. */
  changed?: { path: string; values: (string | undefined)[] }[];
  progress: {
    epochs: number;
    wall_time_s: number;
    env_steps_nominal_per_s: number;
    env_steps_total_per_s: number;
    images_per_s: number;
    return: number | null;
  };
  best?: { best: number; best_iteration: number; evaluations: number };
  /** Newest first. */
  evaluations: Evaluation[];
  phases: { phase: string; depth: number; seconds: number; share: number }[];
  memory: { service: string; peak_bytes: number; peak_at: string }[];
  faults: { service: string; kind: string; times: number; first: number; message: string }[];
  files?: string;
}

export const show = verb({
  name: "show",
  summary: "shows one run: settings, progress, evaluations, time, memory, faults, files",
  positionals: [{ name: "run", meaning: "name of the run; ./sdpg runs", required: true }],
  options: { json: { meaning: "one JSON object" } },
  details: "Shares below half a percent of the time are left out of the page, not of the JSON.",
  examples: ["./sdpg show my-hopper", "./sdpg show my-hopper --json"],
  async run({ positionals: [runId], options }) {
    const home = sdpgHome();
    const shown = await withTelemetry(home, async (url) => {
      await requireRuns(url, [runId]);
      await markInterrupted(home, url);
      return await readShown(url, home, runId);
    });
    writeOut(options.json ? JSON.stringify(shown) : page(shown));
    return 0;
  },
});

async function readShown(url: string, home: string, runId: string): Promise<Shown> {
  const of = <Row>(sql: string) => rowsFrom<Row>(url, sql, { run: runId });
  type Row = Record<Exclude<keyof Run, "tags">, string> & Pick<Run, "tags">;
  const [run] = await of<Row>(
    "SELECT *, toString(seed) AS seed FROM runs WHERE run_id = {run:String}",
  );
  const [progress] = await of<Shown["progress"]>(
    `SELECT p.epochs AS epochs, p.wall_time_s AS wall_time_s, p.return AS return,
            t.env_steps_nominal_per_s AS env_steps_nominal_per_s,
            t.env_steps_total_per_s AS env_steps_total_per_s, t.images_per_s AS images_per_s
     FROM run_progress AS p LEFT JOIN throughput AS t ON t.run_id = p.run_id
     WHERE p.run_id = {run:String}`,
  );
  const [best] = await of<NonNullable<Shown["best"]>>(
    `SELECT best, best_iteration, evaluations FROM evaluation_summary(last = 1)
     WHERE run_id = {run:String}`,
  );
  const folder = listRunDirectories(home).includes(runId) ? readRunFile(home, runId) : undefined;
  return {
    run: {
      ...run,
      configuration: JSON.parse(run.configuration ?? "{}"),
      hardware: JSON.parse(run.hardware ?? "null"),
    },
    changed: folder?.preset_configuration === undefined
      ? undefined
      : differences([folder.preset_configuration, folder.configuration]),
    progress,
    best,
    evaluations: await of<Evaluation>(
      `SELECT iteration, wall_time_s, env_steps_total, episodes, return_mean, return_ci95,
              return_min, return_max, length_mean
       FROM evaluations WHERE run_id = {run:String} ORDER BY iteration DESC LIMIT 5`,
    ),
    phases: await of(
      `SELECT phase, depth, seconds, share FROM phase_shares WHERE run_id = {run:String}
       ORDER BY phase = '(other)', phase`,
    ),
    memory: await of(
      `SELECT service, peak_bytes, peak_at FROM peak_memory WHERE run_id = {run:String}
       ORDER BY service = 'all', peak_bytes DESC`,
    ),
    faults: await of(
      `SELECT service, kind, sum(count) AS times, min(iteration) AS first, any(message) AS message
       FROM faults WHERE run_id = {run:String} GROUP BY service, kind ORDER BY service, kind`,
    ),
    files: folder && runDirectory(home, runId),
  };
}

// ------------------------------------------------------------------------------------- the page

function page(shown: Shown): string {
  const { run, progress } = shown;
  const sections: [heading: string, body: string][] = [
    ["", facts(shown)],
    ["settings that the command line changed", settings(shown)],
    ["newest evaluations", evaluationTable(shown)],
    [`time: ${duration(progress.wall_time_s)} of training`, phaseTable(shown)],
    ["peak memory (proportional set size)", memoryTable(shown)],
    ["faults", faultTable(shown)],
  ];
  return [
    `${run.run_id}: ${run.task} by ${run.algorithm} from ${run.observation}, preset ${run.preset}, ` +
    `seed ${run.seed}`,
    ...sections.map(([heading, body]) => heading === "" ? body : `\n${heading}\n${indent(body)}`),
  ].join("\n");
}

function facts({ run, progress, best, files }: Shown): string {
  const planned = run.configuration.epochs;
  const images = progress.images_per_s > 0 ? `, ${metric(progress.images_per_s)} images/s` : "";
  const { processor, cores, memory_bytes, ...other } = run.hardware ?? {};
  const rows: [string, string][] = [
    ["state", run.state + (run.reason ? `: ${run.reason}` : "")],
    ["from, to", `${minute(run.started_at)}, ${minute(run.updated_at)} UTC`],
    ["epochs", `${progress.epochs}${planned === undefined ? "" : ` of ${planned}`}`],
  ];
  if (progress.epochs > 0) {
    rows.push([
      "speed",
      `${metric(progress.env_steps_nominal_per_s)} nominal, ` +
      `${metric(progress.env_steps_total_per_s)} total env steps/s${images}`,
    ]);
  }
  rows.push(["return", progress.return === null ? "-" : number(progress.return)]);
  if (best) {
    rows.push([
      "best",
      `${number(best.best)} at epoch ${best.best_iteration}, of ${best.evaluations} evaluations`,
    ]);
  }
  if (run.tags.length > 0) rows.push(["tags", run.tags.join(" ")]);
  if (run.note !== "") rows.push(["note", run.note]);
  rows.push(["code", run.code_version ?? "not recorded"]);
  rows.push([
    "machine",
    run.hardware === null ? "not recorded" : [
      `${processor}, ${cores} cores, ${metric(Number(memory_bytes))}B`,
      ...Object.entries(other).map(([name, value]) => `${name} ${value}`),
    ].join("; "),
  ]);
  if (run.checkpoint) rows.push(["checkpoint", run.checkpoint]);
  rows.push(["files", files === undefined ? "not in this home" : `${files}/`]);
  if (files !== undefined) rows.push(["logs", `${join(files, "*.log")}`]);
  const width = Math.max(...rows.map(([name]) => name.length));
  const line = ([name, value]: [string, string]) =>
    `${name.padEnd(width)}  ${value.replaceAll("\n", "\n".padEnd(width + 3))}`;
  return rows.map(line).join("\n");
}

function settings({ changed, run, files }: Shown): string {
  if (changed === undefined) {
    return files === undefined
      ? "not known: the run's folder is not in this home"
      : `not known: an earlier version trained it; its configuration is in ${files}/run.json`;
  }
  if (changed.length === 0) return `none: preset ${run.preset} as it is`;
  return table(
    ["key", "preset", "this run"],
    changed.map(({ path, values }) => [path, ...values.map((text) => text ?? "-")]),
  );
}

function evaluationTable({ evaluations }: Shown): string {
  if (evaluations.length === 0) return "none";
  return table(
    ["epoch", "time", "env steps", "return", "± 95 %", "lowest", "highest", "length", "episodes"],
    evaluations.map((row) => [
      String(row.iteration),
      duration(row.wall_time_s),
      metric(row.env_steps_total),
      number(row.return_mean),
      row.return_ci95 === null ? "-" : number(row.return_ci95),
      number(row.return_min),
      number(row.return_max),
      number(row.length_mean),
      String(row.episodes),
    ]),
  );
}

function phaseTable({ phases, progress }: Shown): string {
  const rows = phases.filter(({ share }) => share >= 0.005);
  if (rows.length === 0) return "nothing recorded";
  return table(
    ["phase", "share", "ms an epoch"],
    rows.map(({ phase, depth, seconds, share }) => [
      "  ".repeat(depth - 1) + phase.split("/").at(-1),
      `${(100 * share).toFixed(1)} %`,
      number(1000 * seconds / progress.epochs),
    ]),
  );
}

function memoryTable({ memory }: Shown): string {
  if (memory.length === 0) return "nothing recorded";
  return table(
    ["service", "peak", "at"],
    memory.map(({ service, peak_bytes, peak_at }) => [
      service,
      megabytes(peak_bytes),
      minute(peak_at),
    ]),
  );
}

function faultTable({ faults }: Shown): string {
  if (faults.length === 0) return "none";
  return table(
    ["service", "kind", "times", "first at epoch", "message"],
    faults.map(({ service, kind, times, first, message }) => [
      service,
      kind,
      String(times),
      String(first),
      message,
    ]),
  );
}

const indent = (text: string) => text.split("\n").map((line) => `  ${line}`).join("\n");
/** "2026-11-22 19:54:27" of ClickHouse's text with its nine decimals. */
const minute = (time: string) => time.slice(0, 19);
