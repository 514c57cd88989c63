/// <reference lib="dom" />
// Curves of chosen runs on one axis. Runs that differ in nothing but the seed share a colour: each is a
// thin line, their mean a thick one with its 95 % band. The evaluated return comes first; any scalar can
// be chosen by its name.

import { ask } from "./ask.ts";
import { meanBand, type Point } from "./bands.ts";
import { chart, type Line, swatch } from "./chart.ts";
import { choice, h, shown, stateBadge, table } from "./dom.ts";
import {
  axes,
  type Axis,
  curves,
  evaluatedReturn,
  factsOf,
  type FactsRow,
  newestRuns,
  type PointRow,
  runsPerChart,
  scalarNames,
} from "./queries.ts";
import { selection } from "./selection.ts";
import { part, type View } from "./view.ts";

export const compare: View = async (place) => {
  const { content, parameters, signal, title, remember, onGrowth } = place;
  let names = (parameters.get("runs") ?? "").split(",").filter(Boolean);
  let metric = parameters.get("metric") ?? evaluatedReturn;
  let axis =
    (Object.hasOwn(axes, parameters.get("axis") ?? "")
      ? parameters.get("axis")
      : "wall_time_s") as Axis;
  title("Compare runs");
  const given = names.length > 0;
  if (!given) names = selection.names();
  if (names.length === 0) {
    names = (await ask<{ run_id: string }>(newestRuns(6), signal)).map(({ run_id }) => run_id);
  }
  if (names.length === 0) {
    content.append(
      h("p", {}, "No run has been evaluated yet; ", h("a", { href: "#/runs" }, "see all")),
    );
    return;
  }
  const controls = h("div", { class: "fields" });
  const picture = h("section", { "aria-label": "Curves", "aria-busy": "true" });
  const legend = h("div");
  content.append(controls, picture, legend);
  if (!given && selection.size === 0) {
    controls.before(
      h("p", { class: "quiet" }, "The newest runs; choose others in the list of runs."),
    );
  }

  const save = () =>
    remember({
      runs: names.join(","),
      metric: metric === evaluatedReturn ? "" : metric,
      axis: axis === "wall_time_s" ? "" : axis,
    });

  async function drawControls(scalars: string[]): Promise<void> {
    const labels: [string, string][] = [
      [evaluatedReturn, "evaluated return"],
      ...scalars.map((name): [string, string] => [name, name]),
    ];
    if (!labels.some(([name]) => name === metric)) labels.push([metric, metric]);
    controls.replaceChildren(
      choice("curve", metric, labels, (value) => {
        metric = value;
        save();
        return draw();
      }),
      choice(
        "against",
        axis,
        Object.entries(axes).map(([name, { label }]) => [name, label]),
        (value) => {
          axis = value as Axis;
          save();
          return draw();
        },
      ),
    );
    await Promise.resolve();
  }

  async function draw(): Promise<void> {
    await part(picture, signal, async () => {
      const [facts, points] = await Promise.all([
        ask<FactsRow>(factsOf(names), signal),
        ask<PointRow>(curves(names, metric, axis), signal),
      ]);
      const byRun = Map.groupBy(points, ({ run_id }) => run_id);
      const { divisor, label, unit } = axes[axis];
      const pointsOf = (run: string): Point[] =>
        (byRun.get(run) ?? []).map(({ x, y }) => ({ x: x / divisor, y }));
      const experiments = experimentsOf(facts);
      const lines: Line[] = experiments.flatMap(({ name, runs }) => {
        const seeds = runs.map(({ run_id, seed }) => ({
          name: `${name}, seed ${seed}`,
          key: name,
          points: pointsOf(run_id),
        })).filter(({ points }) => points.length > 0);
        if (seeds.length < 2) return seeds.map((seed) => ({ ...seed, name }));
        const mean = meanBand(seeds.map(({ points }) => points));
        return [
          ...seeds.map((seed) => ({ ...seed, thin: true })),
          ...(mean.length > 0 ? [{ name, key: name, points: mean }] : []),
        ];
      });
      const keys = [...new Set(lines.map(({ key }) => key))];
      legend.replaceChildren(...runTable(experiments, pointsOf, keys));
      const what = metric === evaluatedReturn ? "evaluated return" : metric;
      const absent = names.filter((name) => !facts.some(({ run_id }) => run_id === name));
      return [
        chart({
          title: `${what} against ${label}`,
          xLabel: unit ? `${label} (${unit})` : label,
          yLabel: what,
          lines,
          empty: `None of these runs has ${what} yet.`,
          heightPx: 380,
        }, signal),
        note(absent, experiments.some(({ runs }) => runs.length > 1)),
      ];
    });
  }

  function note(absent: string[], seeds: boolean): HTMLElement {
    return h(
      "p",
      { class: "quiet" },
      seeds
        ? "Thin: one seed. Thick: mean of the seeds where all have data, with the 95 % interval of the " +
          "mean (Student's t). "
        : "",
      names.length > runsPerChart ? `Only the first ${runsPerChart} of ${names.length} runs. ` : "",
      absent.length > 0 ? `Not in the store: ${absent.slice(0, 10).join(", ")}. ` : "",
    );
  }

  function runTable(
    experiments: Experiment[],
    pointsOf: (run: string) => Point[],
    keys: string[],
  ): Node[] {
    const rows = experiments.flatMap(({ name, runs }) => runs.map((run) => ({ name, run })));
    const [first, second] = [rows[0], rows.find(({ name }) => name !== rows[0].name) ?? rows[1]];
    return [
      table(
        "Compared runs",
        [
          {
            head: "experiment",
            cell: ({ name }) => h("span", {}, swatch(Math.max(0, keys.indexOf(name))), name),
          },
          {
            head: "run",
            heading: true,
            cell: ({ run }) => h("a", { href: `#/run/${run.run_id}` }, run.run_id),
          },
          { head: "seed", numeric: true, cell: ({ run }) => run.seed },
          { head: "state", cell: ({ run }) => stateBadge(run.state) },
          {
            head: "newest",
            numeric: true,
            cell: ({ run }) => shown(pointsOf(run.run_id).at(-1)?.y),
          },
          {
            head: "",
            cell: ({ run }) =>
              h("button", {
                type: "button",
                "aria-label": `Remove ${run.run_id}`,
                onclick: () => {
                  names = names.filter((name) => name !== run.run_id);
                  selection.set([run.run_id], false);
                  save();
                  return draw();
                },
              }, "remove"),
          },
        ],
        rows,
        { head: (column) => column.head === "" ? h("td") : undefined },
      ),
      ...(second
        ? [
          h(
            "p",
            {},
            h(
              "a",
              { href: `#/difference?a=${first.run.run_id}&b=${second.run.run_id}` },
              `What differs between ${first.run.run_id} and ${second.run.run_id}`,
            ),
          ),
        ]
        : []),
    ];
  }

  await drawControls([]);
  await draw();
  onGrowth(draw);
  // Not before the curves: it reads the names of all their scalars.
  const scalars = await ask<{ name: string }>(scalarNames(names), signal);
  await drawControls(scalars.map(({ name }) => name));
};

interface Experiment {
  name: string;
  runs: FactsRow[];
}

/** Runs by what they share besides the seed, named by what tells the experiments apart. */
export function experimentsOf(facts: readonly FactsRow[]): Experiment[] {
  const parts = ["task", "algorithm", "preset", "observation"] as const;
  const differing = parts.filter((name) => new Set(facts.map((run) => run[name])).size > 1);
  const told = differing.length > 0 ? differing : ["task", "algorithm"] as const;
  const plainName = (run: FactsRow) => told.map((name) => run[name] || "?").join(" · ");
  const key = (run: FactsRow) => [...parts.map((name) => run[name]), run.configuration].join(" ");
  const groups = [...Map.groupBy(facts, key).values()].sort((a, b) =>
    a[0].started_at - b[0].started_at
  );
  const repeated = (name: string) => groups.filter(([run]) => plainName(run) === name).length > 1;
  return groups.map((runs) => {
    const name = plainName(runs[0]);
    return {
      name: repeated(name) ? `${name} · configuration ${runs[0].configuration}` : name,
      runs: runs.toSorted((a, b) => Number(a.seed) - Number(b.seed) || a.started_at - b.started_at),
    };
  });
}
