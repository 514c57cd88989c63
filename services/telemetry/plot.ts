// Learning curves from the store as an SVG file: one row of panels per task, one panel per axis, one
// colour per algorithm and preset. Runs of one colour are seeds of the same experiment: each is a thin
// line, their mean a thick one where all of them have data. The picture carries a style for light and
// for dark surroundings and needs nothing beside itself.

import { didYouMean } from "@sdpg/common/suggest.ts";

/** What a curve can be drawn against. */
export const plotAxes = {
  wall_time_s: { label: "wall clock", unit: "min", divisor: 60 },
  env_steps_total: {
    label: "environment steps, auxiliaries included",
    unit: "million",
    divisor: 1e6,
  },
  env_steps_nominal: { label: "nominal environment steps", unit: "million", divisor: 1e6 },
  images_rendered: { label: "images rendered", unit: "million", divisor: 1e6 },
  gpu_seconds: { label: "GPU time", unit: "min", divisor: 60 },
  iteration: { label: "epochs", unit: "", divisor: 1 },
} as const;
export type PlotAxis = keyof typeof plotAxes;

/** What is drawn: evaluations of the deterministic policy, or any scalar by its name. */
export interface PlotOptions {
  /** Address of the telemetry service. */
  url: string;
  runs: string[];
  /** File to write; it ends in .svg. */
  out: string;
  axes?: PlotAxis[];
  /** "evaluation" (default) or the name of a scalar such as "rewards". */
  metric?: string;
  fetch?: typeof fetch;
}

/** Draws the runs and returns the number of curves. Throws with one line for what cannot be drawn. */
export async function plotRuns(options: PlotOptions): Promise<number> {
  const { out, axes = ["wall_time_s", "env_steps_total"], metric = "evaluation" } = options;
  if (!out.endsWith(".svg")) throw new Error(`Cannot draw ${out}: expected a name ending in .svg`);
  const curves = await readCurves({ ...options, metric });
  Deno.writeTextFileSync(out, drawCurves(curves, axes, metric));
  return curves.length;
}

/** One run's curve: a value for each point, and the point on every axis. */
export interface Curve {
  runId: string;
  task: string;
  /** Algorithm and preset: runs that share it (and the task) are seeds of one experiment. */
  group: string;
  points: ({ value: number } & Record<PlotAxis, number>)[];
}

export async function readCurves(
  { url, runs, metric, fetch: get = fetch }: {
    url: string;
    runs: string[];
    metric: string;
    fetch?: typeof fetch;
  },
): Promise<Curve[]> {
  const ask = async <T>(sql: string, parameters: Record<string, string> = {}): Promise<T[]> => {
    const search = new URLSearchParams({ default_format: "JSONEachRow" });
    for (const [name, value] of Object.entries(parameters)) search.set(`param_${name}`, value);
    const response = await get(`${url}/?${search}`, { method: "POST", body: sql });
    const body = await response.text();
    if (!response.ok) throw new Error(`Cannot read the store: ${body.split("\n")[0]}`);
    return body.split("\n").filter(Boolean).map((line) => JSON.parse(line) as T);
  };
  const known = await ask<{ run_id: string; task: string; group: string }>(
    "SELECT run_id, ifNull(task, 'unknown task') AS task, " +
      "concat(ifNull(algorithm, '?'), ' (', ifNull(preset, '?'), ')') AS group FROM runs",
  );
  const byId = new Map(known.map((run) => [run.run_id, run]));
  return await Promise.all(runs.map(async (runId) => {
    const run = byId.get(runId);
    if (!run) {
      const hint = didYouMean(runId, byId.keys());
      throw new Error(`Cannot draw run "${runId}": the store has no such run${hint}`);
    }
    const axisColumns = Object.keys(plotAxes).join(", ");
    const points = metric === "evaluation"
      ? await ask<Curve["points"][number]>(
        `SELECT return_mean AS value, ${axisColumns} FROM evaluations ` +
          "WHERE run_id = {run:String} ORDER BY iteration",
        { run: runId },
      )
      : await ask<Curve["points"][number]>(
        `SELECT value, ${axisColumns} FROM scalars ` +
          "WHERE run_id = {run:String} AND name = {name:String} AND isFinite(value) " +
          "ORDER BY iteration",
        { run: runId, name: metric },
      );
    if (points.length === 0) {
      throw new Error(`Cannot draw run "${runId}": it has no ${metric} yet`);
    }
    return { runId, task: run.task, group: run.group, points };
  }));
}

// --------------------------------------------------------------------------------------- drawing

const size = {
  panelWidth: 420,
  panelHeight: 250,
  left: 70,
  right: 20,
  top: 44,
  bottom: 54,
  legend: 22,
};
/** Colours of Okabe and Ito that keep a contrast of 3:1 on white and on near-black. */
const colours = ["#0072b2", "#d55e00", "#009e73", "#b3589a", "#8a7a00", "#5a8fc2"];
const maxPoints = 600;

/** The picture as SVG text. Curves keep their order; so the same store gives the same bytes. */
export function drawCurves(curves: Curve[], axes: PlotAxis[], metric: string): string {
  const tasks = [...new Set(curves.map(({ task }) => task))];
  const groups = [...new Set(curves.map(({ group }) => group))];
  const rowHeight = size.top + size.panelHeight + size.bottom + size.legend;
  const columnWidth = size.left + size.panelWidth + size.right;
  const width = columnWidth * axes.length;
  const height = rowHeight * tasks.length;
  const what = metric === "evaluation" ? "evaluated return" : metric;

  const panels = tasks.flatMap((task, row) => {
    const own = curves.filter((curve) => curve.task === task);
    return axes.map((axis, column) =>
      `<g transform="translate(${column * columnWidth + size.left} ${
        row * rowHeight + size.top
      })">\n` +
      panel(own, axis, what, `${task}: ${what}`, groups) + "</g>\n"
    );
  });
  const legends = tasks.map((task, row) => {
    const own = groups.filter((group) => curves.some((c) => c.task === task && c.group === group));
    const y = row * rowHeight + size.top + size.panelHeight + size.bottom + 6;
    let x = size.left;
    return own.map((group) => {
      const seeds = curves.filter((c) => c.task === task && c.group === group).length;
      const label = `${group}, ${seeds} ${seeds === 1 ? "run" : "runs"}`;
      const at = x;
      x += 40 + label.length * 7;
      return `<line class="mean" stroke="${colourOf(group, groups)}" x1="${at}" y1="${y}" ` +
        `x2="${at + 22}" y2="${y}"/><text class="label" x="${at + 28}" y="${y + 4}">` +
        `${escapeXml(label)}</text>\n`;
    }).join("");
  });
  const names = curves.map(({ runId }) => runId).join(", ");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" ` +
    `height="${height}" role="img" aria-labelledby="title about">\n` +
    `<title id="title">${escapeXml(`Learning curves: ${tasks.join(", ")}`)}</title>\n` +
    `<desc id="about">${escapeXml(`${what} of runs ${names}. ${spoken(curves)}`)}</desc>\n` +
    `<style>${style}</style>\n<rect class="paper" width="${width}" height="${height}"/>\n${
      panels.join("")
    }${legends.join("")}</svg>\n`;
}

// The picture brings its own paper: a page may be light where the reader's system is dark.
const style = `
  .paper { fill: #ffffff }
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .heading { font-size: 14px; font-weight: 600 }
  .grid { stroke: #24292f; stroke-opacity: .15 }
  .frame { stroke: #24292f; stroke-opacity: .6; fill: none }
  .seed { fill: none; stroke-width: 1.2; stroke-opacity: .55 }
  .mean { fill: none; stroke-width: 2.6 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 }
    text { fill: #e6edf3 }
    .grid, .frame { stroke: #e6edf3 }
    .seed, .mean { filter: brightness(1.35) }
  }
`;

function panel(
  curves: Curve[],
  axis: PlotAxis,
  what: string,
  heading: string,
  groups: string[],
): string {
  const { label, unit, divisor } = plotAxes[axis];
  const xs = curves.flatMap(({ points }) => points.map((point) => Number(point[axis]) / divisor));
  const ys = curves.flatMap(({ points }) => points.map(({ value }) => value));
  const x = scale(0, largest(xs), 0, size.panelWidth);
  const y = scale(Math.min(0, smallest(ys)), largest(ys), size.panelHeight, 0);

  let svg = "";
  for (const tick of x.ticks) {
    const at = round(x.map(tick));
    svg += `<line class="grid" x1="${at}" y1="0" x2="${at}" y2="${size.panelHeight}"/>` +
      `<text x="${at}" y="${size.panelHeight + 18}" text-anchor="middle">${show(tick)}</text>\n`;
  }
  for (const tick of y.ticks) {
    const at = round(y.map(tick));
    svg += `<line class="grid" x1="0" y1="${at}" x2="${size.panelWidth}" y2="${at}"/>` +
      `<text x="-8" y="${at + 4}" text-anchor="end">${show(tick)}</text>\n`;
  }
  svg += `<rect class="frame" width="${size.panelWidth}" height="${size.panelHeight}"/>\n` +
    `<text class="heading" x="0" y="-14">${escapeXml(heading)}</text>\n` +
    `<text x="${size.panelWidth / 2}" y="${size.panelHeight + 40}" text-anchor="middle">` +
    `${escapeXml(unit ? `${label} (${unit})` : label)}</text>\n` +
    `<text transform="translate(-52 ${size.panelHeight / 2}) rotate(-90)" text-anchor="middle">` +
    `${escapeXml(what)}</text>\n`;

  for (const group of groups) {
    const seeds = curves.filter((curve) => curve.group === group).map(({ points }) =>
      points.map((point) => ({ x: Number(point[axis]) / divisor, y: point.value }))
    );
    const colour = colourOf(group, groups);
    if (seeds.length > 1) {
      for (const line of seeds) svg += path("seed", colour, thin(line), x, y);
      svg += path("mean", colour, meanOf(seeds), x, y);
    } else if (seeds.length === 1) svg += path("mean", colour, thin(seeds[0]), x, y);
  }
  return svg;
}

interface Point {
  x: number;
  y: number;
}

function path(kind: string, colour: string, line: Point[], x: Scale, y: Scale): string {
  if (line.length === 0) return "";
  const d = line.map((p, i) => `${i === 0 ? "M" : "L"}${round(x.map(p.x))} ${round(y.map(p.y))}`);
  return `<path class="${kind}" stroke="${colour}" d="${d.join("")}"/>\n`;
}

/** At most `maxPoints` points, each the mean of its neighbours. */
function thin(line: Point[]): Point[] {
  const per = Math.ceil(line.length / maxPoints);
  if (per <= 1) return line;
  return Array.from({ length: Math.ceil(line.length / per) }, (_, i) => {
    const some = line.slice(i * per, (i + 1) * per);
    return {
      x: some.reduce((sum, p) => sum + p.x, 0) / some.length,
      y: some.reduce((sum, p) => sum + p.y, 0) / some.length,
    };
  });
}

/** Mean over the lines where all of them have data, linear between their points. */
export function meanOf(lines: Point[][], steps = 200): Point[] {
  const from = Math.max(...lines.map((line) => line[0].x));
  const to = Math.min(...lines.map((line) => line[line.length - 1].x));
  if (!(to > from)) return [];
  return Array.from({ length: steps + 1 }, (_, i) => {
    const x = from + (to - from) * i / steps;
    return { x, y: lines.reduce((sum, line) => sum + valueAt(line, x), 0) / lines.length };
  });
}

function valueAt(line: Point[], x: number): number {
  let i = 1;
  while (i < line.length - 1 && line[i].x < x) i++;
  const [a, b] = [line[i - 1], line[i] ?? line[i - 1]];
  const share = b.x > a.x ? Math.min(1, Math.max(0, (x - a.x) / (b.x - a.x))) : 0;
  return a.y + (b.y - a.y) * share;
}

interface Scale {
  map(value: number): number;
  ticks: number[];
}

/** Linear scale over a range widened to round numbers, with four to eight ticks. */
export function scale(low: number, high: number, from: number, to: number): Scale {
  const span = high > low ? high - low : 1;
  const rough = span / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough)!;
  const first = Math.floor(low / step);
  const last = Math.ceil((low + span) / step - 1e-9);
  const start = first * step;
  const end = last * step;
  return {
    map: (value) => from + (value - start) / (end - start) * (to - from),
    ticks: Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step),
  };
}

function spoken(curves: Curve[]): string {
  return curves.map(({ runId, points }) => {
    const last = points[points.length - 1];
    return `${runId} ends at ${show(last.value)} after ${show(last.wall_time_s / 60)} minutes`;
  }).join("; ") + ".";
}

const colourOf = (group: string, groups: string[]) =>
  colours[groups.indexOf(group) % colours.length];
// Not Math.max(...values): a curve may have more points than a call may have arguments.
const largest = (values: number[]) => values.reduce((a, b) => Math.max(a, b), -Infinity);
const smallest = (values: number[]) => values.reduce((a, b) => Math.min(a, b), Infinity);
const round = (value: number) => Math.round(value * 100) / 100;
const show = (value: number) => String(Number(value.toPrecision(4)));
const escapeXml = (text: string) => text.replace(/[<>&"']/g, (char) => `&#${char.charCodeAt(0)};`);
