/// <reference lib="dom" />
// A chart: lines with bands, or areas on top of each other, drawn by uPlot on a canvas. What a canvas
// cannot say is beside it in words: a caption, the values under the cursor (also moved by the arrow
// keys), a legend of buttons, and the values as a table.

import uPlot from "uplot";
import { type BandPoint, type Point, valueAt } from "./bands.ts";
import { h, markShown, number, shown, table } from "./dom.ts";

export interface Line {
  name: string;
  /** Lines of one key share a colour and an entry of the legend. */
  key: string;
  points: readonly (Point | BandPoint)[];
  /** Drawn thin and faint, such as one seed beside the mean of all. */
  thin?: boolean;
}

export interface ChartOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  lines: readonly Line[];
  /** Areas on top of each other instead of lines. */
  stacked?: boolean;
  /** Shows a value, "12.3 MB"; plain numbers otherwise. */
  format?: (value: number) => string;
  /** Shown instead of an empty chart. */
  empty?: string;
  heightPx?: number;
}

const colourCount = 8;

/** Entries switched off by chart title, kept over refreshes. */
const hidden = new Map<string, Set<string>>();

export function chart(options: ChartOptions, signal: AbortSignal): HTMLElement {
  const { title, xLabel, yLabel, lines, format = shown } = options;
  const figure = h("figure", { class: "chart" }, h("figcaption", {}, title));
  if (lines.every(({ points }) => points.length === 0)) {
    figure.append(h("p", { class: "quiet" }, options.empty ?? "There are no values yet."));
    return figure;
  }
  const keys = [...new Set(lines.map(({ key }) => key))];
  const off = hidden.get(title) ?? new Set<string>();
  hidden.set(title, off);
  const named = keys.map((key) =>
    lines.find((line) => line.key === key && !line.thin) ??
      lines.find((line) => line.key === key)!
  );

  const readout = h("p", { class: "readout", "aria-live": "polite" });
  const plot = h("div", {
    class: "plot",
    tabindex: 0,
    role: "group",
    "aria-label": `${title}: ${yLabel} over ${xLabel}. Arrow keys read values; a table follows.`,
  });
  let drawn: uPlot | undefined;
  const draw = () => {
    drawn?.destroy();
    drawn = plotLines(plot, options, keys, off, read);
  };
  /** Puts the values at x into words. */
  function read(x: number | undefined): void {
    if (x === undefined) {
      readout.replaceChildren(h("span", { class: "quiet" }, `${yLabel} over ${xLabel}`));
      return;
    }
    const values = named.filter(({ key }) => !off.has(key)).flatMap((line) => {
      const y = valueAt(line.points, x);
      if (y === undefined) return [];
      return [
        h("span", {}, swatch(keys.indexOf(line.key)), `${line.name} `, h("b", {}, format(y))),
      ];
    });
    readout.replaceChildren(
      h("span", {}, `${xLabel} `, h("b", {}, number(x))),
      ...values.slice(0, 12),
    );
  }
  read(undefined);

  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (step === undefined || !drawn) return;
    event.preventDefault();
    const width = drawn.over.clientWidth;
    const at = Math.min(width, Math.max(0, (drawn.cursor.left ?? -1) + step * width / 50));
    drawn.setCursor({ left: at, top: drawn.over.clientHeight / 2 });
  });
  const legend = keys.length < 2 ? undefined : h(
    "ul",
    { class: "legend", "aria-label": "Shown in the chart" },
    ...named.map((line) => {
      const button = h(
        "button",
        {
          type: "button",
          "aria-pressed": String(!off.has(line.key)),
          onclick: () => {
            if (!off.delete(line.key)) off.add(line.key);
            button.setAttribute("aria-pressed", String(!off.has(line.key)));
            draw();
          },
        },
        swatch(keys.indexOf(line.key)),
        line.name,
      );
      return h("li", {}, button);
    }),
  );
  const values = h("details", {
    ontoggle: () => {
      if (values.open && values.childElementCount === 1) values.append(valueTable(options, named));
    },
  }, h("summary", {}, "Values as a table"));
  figure.append(readout, plot, ...(legend ? [legend] : []), values);

  // The width is known once the figure is in the page; colours follow light and dark.
  const sized = new ResizeObserver(() => {
    if (plot.clientWidth === 0) return;
    if (drawn) drawn.setSize({ width: plot.clientWidth, height: options.heightPx ?? 280 });
    else {
      draw();
      markShown(`chart ${title}`);
    }
  });
  sized.observe(plot);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", draw, { signal });
  signal.addEventListener("abort", () => {
    sized.disconnect();
    drawn?.destroy();
  });
  return figure;
}

/** The colour of an entry as a small square; meaning is in the word beside it. */
export function swatch(index: number): HTMLElement {
  return h("i", { class: `swatch c${index % colourCount}`, "aria-hidden": "true" });
}

// ------------------------------------------------------------------------------------------ uPlot

function plotLines(
  parent: HTMLElement,
  options: ChartOptions,
  keys: readonly string[],
  off: ReadonlySet<string>,
  read: (x: number | undefined) => void,
): uPlot {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const colourOf = (key: string) => colour(`--c${keys.indexOf(key) % colourCount}`);
  const lines = options.lines.filter(({ key }) => !off.has(key));
  const xs = [...new Set(lines.flatMap(({ points }) => points.map(({ x }) => x)))]
    .sort((a, b) => a - b);
  const series: uPlot.Series[] = [{}];
  const bands: uPlot.Band[] = [];
  const data: (number | null)[][] = [xs];
  const add = (values: (number | null)[], of: uPlot.Series) => {
    data.push(values);
    series.push({ spanGaps: true, points: { show: xs.length < 40 }, ...of });
  };
  const sample = (points: readonly Point[]) => xs.map((x) => valueAt(points, x) ?? null);
  if (options.stacked) {
    let below = xs.map(() => 0);
    const layers = lines.map(({ points, key }) => {
      below = sample(points).map((value, i) => below[i] + (value ?? 0));
      return { top: below, key };
    });
    // The greatest first: each later one covers what is below it.
    for (const { top, key } of layers.toReversed()) {
      add(top, {
        stroke: colourOf(key),
        width: 1,
        fill: colourOf(key),
        points: { show: false },
      });
    }
  } else {
    for (const { points, key, thin } of lines) {
      const stroke = colourOf(key);
      add(sample(points), { stroke, width: thin ? 1 : 2, alpha: thin ? 0.45 : 1 });
      if (points.length === 0 || !("low" in points[0])) continue;
      const edge = (name: "low" | "high") =>
        sample((points as BandPoint[]).map((point) => ({ x: point.x, y: point[name] })));
      add(edge("high"), { width: 0, points: { show: false } });
      add(edge("low"), { width: 0, points: { show: false } });
      bands.push({ series: [series.length - 2, series.length - 1], fill: stroke + "33" });
    }
  }
  const axis = {
    stroke: colour("--quiet"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
    labelSize: 18,
    labelGap: 0,
  };
  return new uPlot(
    {
      width: Math.max(200, parent.clientWidth),
      height: options.heightPx ?? 280,
      scales: {
        x: { time: false },
        ...(options.stacked ? { y: { range: (_u, _min, max) => [0, max > 0 ? max : 1] } } : {}),
      },
      axes: [
        { ...axis, label: options.xLabel, size: 30 },
        {
          ...axis,
          size: 64,
          label: options.yLabel,
          values: (_u, ticks) =>
            ticks.map(options.format ?? ((value) => value.toLocaleString("en"))),
        },
      ],
      series,
      bands,
      legend: { show: false },
      cursor: { drag: { x: true, y: false }, points: { show: false } },
      hooks: {
        setCursor: [(u) => {
          const left = u.cursor.left ?? -1;
          read(left < 0 ? undefined : u.posToVal(left, "x"));
        }],
      },
    },
    data as uPlot.AlignedData,
    parent,
  );
}

/** Values at some places of the axis, a column per entry of the legend. */
function valueTable(
  { title, xLabel, lines, format = shown }: ChartOptions,
  named: Line[],
): HTMLElement {
  const all = lines.flatMap(({ points }) => points.map(({ x }) => x));
  const from = all.reduce((a, b) => Math.min(a, b));
  const to = all.reduce((a, b) => Math.max(a, b));
  const places = to > from
    ? Array.from({ length: 11 }, (_, i) => from + (to - from) * i / 10)
    : [from];
  return table(
    `Values of: ${title}`,
    [
      { head: xLabel, heading: true, cell: (x) => number(x) },
      ...named.map((line) => ({
        head: line.name,
        numeric: true,
        cell: (x: number) => {
          const y = valueAt(line.points, x);
          if (y === undefined) return "–";
          const band = line.points.length > 0 && "low" in line.points[0];
          if (!band) return format(y);
          const low = valueAt((line.points as BandPoint[]).map((p) => ({ x: p.x, y: p.low })), x)!;
          return `${format(y)} ± ${format(y - low)}`;
        },
      })),
    ],
    places,
    { captionHidden: true },
  );
}
