/// <reference lib="dom" />
// One run: what it is and how far, its returns, reward terms, where its time and memory went, faults,
// films, the trace of an epoch, and every setting.

import { annotationEditor } from "./annotations.ts";
import { ask } from "./ask.ts";
import { chart, type Line } from "./chart.ts";
import { flat } from "./configuration.ts";
import { ago, bytes, choice, duration, errorBox, h, number, stateBadge, table } from "./dom.ts";
import { type Film, filmOf, inOrder } from "./films.ts";
import { phaseShares } from "./phases.ts";
import {
  type AnnotationRow,
  annotationsOf,
  axes,
  type Axis,
  curves,
  type EvaluationRow,
  evaluationsOf,
  family,
  type FaultRow,
  faultsOf,
  memoryOf,
  type MemoryRow,
  type NamedPointRow,
  type PointRow,
  progressOf,
  type ProgressRow,
  runSummary,
  scalarNames,
  type SummaryRow,
} from "./queries.ts";
import { selection } from "./selection.ts";
import { waterfall } from "./trace.ts";
import { part, type View } from "./view.ts";

export const run: View = async (
  { content, argument, parameters, signal, title, remember, onGrowth },
) => {
  const id = argument;
  title(id);
  let axis =
    (Object.hasOwn(axes, parameters.get("axis") ?? "")
      ? parameters.get("axis")
      : "iteration") as Axis;
  let scalar = parameters.get("scalar") ?? "rewards";
  const save = () =>
    remember({
      axis: axis === "iteration" ? "" : axis,
      scalar: scalar === "rewards" ? "" : scalar,
    });

  const section = (label: string, className?: string) =>
    h("section", { "aria-label": label, "aria-busy": "true", class: className });
  const summary = section("Summary");
  const charts = {
    evaluations: section("Evaluated return"),
    rewards: section("Reward terms"),
    scalar: section("A scalar"),
    phases: section("Phases"),
    memory: section("Memory"),
    films: section("Films"),
  };
  const faults = section("Faults");
  const trace = section("Trace of an epoch");
  const settings = section("Settings", "settings");
  const scalarField = h("span");
  const annotations = annotationEditor(id);
  content.append(
    summary,
    annotations.element,
    h(
      "div",
      { class: "fields" },
      choice(
        "against",
        axis,
        Object.entries(axes).map(([name, { label }]) => [name, label]),
        (value) => {
          axis = value as Axis;
          save();
          return drawCurves();
        },
      ),
      scalarField,
    ),
    h("div", { class: "charts" }, ...Object.values(charts)),
    h("h2", {}, "Faults"),
    faults,
    h("h2", {}, "Trace of an epoch"),
    trace,
    h("h2", {}, "Settings"),
    settings,
  );

  const xLabel = () =>
    axes[axis].unit ? `${axes[axis].label} (${axes[axis].unit})` : axes[axis].label;
  const scaled = (x: number) => x / axes[axis].divisor;

  /** Returns what is known of the run; nothing where the store does not have it. */
  async function drawSummary(): Promise<SummaryRow | undefined> {
    let row: SummaryRow | undefined;
    await part(summary, signal, async () => {
      const [[found], [annotation], [progress]] = await Promise.all([
        ask<SummaryRow>(runSummary(id), signal),
        ask<AnnotationRow>(annotationsOf([id]), signal),
        ask<ProgressRow>(progressOf(id), signal),
      ]);
      row = found;
      annotations.update(annotation?.tags ?? [], annotation?.note ?? "");
      return row ? [facts(row, progress)] : [];
    });
    return row;
  }

  function facts(row: SummaryRow, progress: ProgressRow | undefined): HTMLElement {
    const million = (value: number) => `${number(value / 1e6)} million`;
    const entries: [string, Node | string][] = [
      ["state", stateBadge(row.state)],
      ...(row.reason ? [["reason", row.reason] as [string, string]] : []),
      ["task", row.task || "–"],
      ["algorithm", row.algorithm || "–"],
      ["preset", row.preset || "–"],
      ["sees", row.observation || "–"],
      ["seed", row.seed || "–"],
      ["epochs", String(Math.max(row.epochs, progress?.iteration ?? 0))],
      ...(progress
        ? [
          ["trained", duration(progress.wall_time_s)],
          ["steps, nominal", million(progress.env_steps_nominal)],
          ["steps, all", million(progress.env_steps_total)],
          ["images", million(progress.images_rendered)],
        ] as [string, string][]
        : []),
      ["started", ago(row.started_at)],
      ["last news", ago(row.updated_at)],
      ["code", h("code", {}, row.code_version || "–")],
    ];
    return h(
      "dl",
      { class: "facts" },
      ...entries.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
  }

  async function drawReturns(): Promise<void> {
    await part(charts.evaluations, signal, async () => {
      const rows = await ask<EvaluationRow>(evaluationsOf(id, axis), signal);
      const points = rows.map(({ x, mean, ci95 }) => ({
        x: scaled(x),
        y: mean,
        low: mean - (ci95 ?? 0),
        high: mean + (ci95 ?? 0),
      }));
      return [chart({
        title: "Evaluated return with the 95 % interval of its episodes",
        xLabel: xLabel(),
        yLabel: "return",
        lines: [{ name: "evaluated return", key: "evaluated return", points }],
        empty: "This run has not been evaluated yet.",
      }, signal)];
    });
  }

  async function drawScalar(): Promise<void> {
    await part(charts.scalar, signal, async () => {
      const rows = await ask<PointRow>(curves([id], scalar, axis), signal);
      const points = rows.map(({ x, y, low, high }) => ({ x: scaled(x), y, low, high }));
      return [chart({
        title: `${scalar}: mean and range`,
        xLabel: xLabel(),
        yLabel: scalar,
        lines: [{ name: scalar, key: scalar, points }],
        empty: `This run has no ${scalar} yet.`,
      }, signal)];
    });
  }

  async function drawPhases(): Promise<void> {
    await part(charts.phases, signal, async () => {
      const rows = await ask<NamedPointRow>(family(id, "phase/", axis, "sum"), signal);
      return [chart({
        title: "Where the time of an epoch goes",
        xLabel: xLabel(),
        yLabel: "share of the epoch (%)",
        stacked: true,
        format: (value) => `${Math.round(value)} %`,
        lines: [...phaseShares(rows)].map(([name, points]) => ({
          name: rows.some((row) => row.name.startsWith(`phase/${name}/`)) ? `${name} (rest)` : name,
          key: name,
          points: points.map(({ x, y }) => ({ x: scaled(x), y })),
        })),
        empty: "This run recorded no phases.",
      }, signal)];
    });
  }

  const drawRewards = () =>
    drawFamily(charts.rewards, "reward_term/", {
      title: "Reward by term",
      yLabel: "reward of a rollout",
      empty: "This run recorded no reward terms.",
    });

  /** What lies on the chosen axis, the first to be seen first. */
  async function drawCurves(): Promise<void> {
    await Promise.all([drawReturns(), drawRewards(), drawScalar(), drawPhases()]);
  }

  async function drawFamily(
    place: HTMLElement,
    prefix: string,
    words: { title: string; yLabel: string; empty: string },
  ): Promise<void> {
    await part(place, signal, async () => {
      const rows = await ask<NamedPointRow>(family(id, prefix, axis, "avg"), signal);
      const lines: Line[] = [...Map.groupBy(rows, ({ name }) => name.slice(prefix.length))]
        .map(([name, points]) => ({
          name,
          key: name,
          points: points.map(({ x, y }) => ({ x: scaled(x), y })),
        }));
      return [chart({ ...words, xLabel: xLabel(), lines }, signal)];
    });
  }

  async function drawMemory(): Promise<void> {
    await part(charts.memory, signal, async () => {
      const rows = await ask<MemoryRow>(memoryOf(id), signal);
      const services = [...Map.groupBy(rows, ({ service }) => service)];
      return [chart({
        title: "Memory by service (proportional set size)",
        xLabel: "time since the first sample (min)",
        yLabel: "memory",
        stacked: true,
        format: bytes,
        lines: services.map(([name, points]) => ({
          name,
          key: name,
          points: points.map(({ x, y }) => ({ x: x / 60, y })),
        })),
        empty: "There are no samples of this run's processes.",
      }, signal)];
    });
  }

  async function drawFaults(): Promise<void> {
    await part(faults, signal, async () => {
      const rows = await ask<FaultRow>(faultsOf(id), signal);
      if (rows.length === 0) return [h("p", { class: "quiet" }, "None.")];
      return [table(
        "Faults by service and kind",
        [
          { head: "kind", heading: true, cell: (row) => row.kind },
          { head: "service", cell: (row) => row.service },
          { head: "count", numeric: true, cell: (row) => row.count },
          { head: "first epoch", numeric: true, cell: (row) => row.first },
          { head: "last epoch", numeric: true, cell: (row) => row.last },
          { head: "newest message", cell: (row) => row.message || "–" },
        ],
        rows,
        { captionHidden: true },
      )];
    });
  }

  async function filmNames(): Promise<string[]> {
    const response = await fetch(`/ui/videos/${encodeURIComponent(id)}`, { signal });
    return response.ok ? await response.json() as string[] : [];
  }

  let filmsShown = "";
  async function drawFilms(): Promise<void> {
    await part(charts.films, signal, async () => {
      const names = await filmNames();
      filmsShown = names.join("/");
      if (names.length === 0) {
        const text = `There are no films of this run. ./sdpg eval ${id} --film makes one.`;
        return [h("figure", {}, h("figcaption", {}, "Films"), h("p", { class: "quiet" }, text))];
      }
      return names.map(filmOf).sort(inOrder).map((film) =>
        h("figure", {}, h("figcaption", {}, ...caption(film)), player(film))
      );
    });
  }

  function caption({ file, epoch, details, return: sum }: Film): (Node | string)[] {
    if (epoch === undefined) return [file];
    return [
      `Epoch ${epoch}: return ${number(sum!)} `,
      h("span", { class: "quiet" }, details!),
    ];
  }

  function player({ file, epoch }: Film): HTMLElement {
    const src = `/ui/videos/${id}/${encodeURIComponent(file)}`;
    const words = epoch === undefined ? `Film ${file} of ${id}` : `Film of ${id} at epoch ${epoch}`;
    return /\.(webp|gif)$/.test(file)
      ? h("img", { src, alt: words, loading: "lazy" })
      : h("video", {
        src,
        controls: true,
        loop: true,
        muted: true,
        preload: "metadata",
        "aria-label": words,
      });
  }

  async function drawTrace(iteration: number | undefined): Promise<void> {
    const epoch = h("input", { type: "number", min: 1, step: 1, value: iteration ?? "" });
    const form = h(
      "form",
      {
        class: "fields",
        onsubmit: (event: SubmitEvent) => {
          event.preventDefault();
          return drawTrace(epoch.value === "" ? undefined : Number(epoch.value));
        },
      },
      h("label", { class: "field" }, h("span", {}, "epoch (empty: the newest)"), epoch),
      h("button", {}, "Show"),
    );
    await part(trace, signal, async () => [form, ...await waterfall(id, iteration, signal)]);
  }

  function drawSettings(found: SummaryRow): void {
    const of = (json: string) => [...flat(json)].map(([key, value]) => ({ key, value }));
    const list = (caption: string, json: string) =>
      of(json).length === 0
        ? h(
          "figure",
          {},
          h("figcaption", {}, caption),
          h("p", { class: "quiet" }, "This run has not recorded it."),
        )
        : table(caption, [
          { head: "key", heading: true, cell: (row) => row.key },
          { head: "value", cell: (row) => h("code", {}, row.value) },
        ], of(json));
    settings.removeAttribute("aria-busy");
    settings.append(
      h(
        "p",
        {},
        h("a", { href: `#/difference?a=${id}` }, "Compare the settings with those of another run"),
        " · ",
        h("a", {
          href: `#/compare?runs=${[...new Set([id, ...selection.names()])].join(",")}`,
        }, "Compare the curves"),
      ),
      h(
        "div",
        { class: "charts" },
        list("Configuration", found.configuration),
        list("Hardware", found.hardware),
      ),
    );
  }

  // Questions are answered in this order, two at a time: what is seen first is asked first.
  const drawn = [
    drawReturns(),
    drawSummary().then((found) => {
      if (signal.aborted) return;
      if (found) drawSettings(found);
      else {
        const heading = content.querySelector("h1")!;
        content.replaceChildren(heading, errorBox(`There is no run "${id}" in the store.`));
      }
    }),
    drawRewards(),
    drawScalar(),
    drawPhases(),
    drawMemory(),
    drawFilms(),
    drawFaults(),
    drawTrace(undefined),
    drawScalarNames(),
  ];
  await Promise.all(drawn);
  onGrowth(async () => {
    const again: Promise<unknown>[] = [drawSummary(), drawCurves(), drawMemory(), drawFaults()];
    // Only when there is a new one: drawn anew, a film begins anew.
    if ((await filmNames()).join("/") !== filmsShown) again.push(drawFilms());
    await Promise.all(again);
  });

  async function drawScalarNames(): Promise<void> {
    const names = (await ask<{ name: string }>(scalarNames([id]), signal)).map(({ name }) => name);
    scalarField.replaceChildren(
      choice(
        "scalar",
        scalar,
        [...new Set([scalar, ...names])].map((name) => [name, name]),
        (value) => {
          scalar = value;
          save();
          return drawScalar();
        },
      ),
    );
  }
};
