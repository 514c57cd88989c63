/// <reference lib="dom" />
// A box for SQL: the answer as a table, and as a chart where it can be one. Errors are ClickHouse's own.

import { askText } from "./ask.ts";
import { chart, type Line } from "./chart.ts";
import { choice, errorBox, h, number, table } from "./dom.ts";
import type { View } from "./view.ts";

const shownRows = 1000;

const examples: readonly (readonly [name: string, sql: string])[] = [
  [
    "runs with their best return",
    `SELECT run_id, max(return_mean) AS best, max(wall_time_s) / 60 AS minutes
FROM evaluations GROUP BY run_id ORDER BY best DESC LIMIT 20`,
  ],
  [
    "one curve of the newest run",
    `SELECT iteration, return_mean, return_min, return_max
FROM evaluations
WHERE run_id = (SELECT argMax(run_id, time) FROM evaluations)
ORDER BY iteration`,
  ],
  [
    "peak memory of a run by service",
    `SELECT service, max(proportional_bytes) / 1e6 AS peak_mb
FROM resources
WHERE run_id = (SELECT argMax(run_id, time) FROM resources)
GROUP BY service ORDER BY peak_mb DESC`,
  ],
  [
    "time of each phase",
    `SELECT name, sum(value) AS seconds FROM scalars
WHERE name LIKE 'phase/%' AND run_id = (SELECT argMax(run_id, time) FROM evaluations)
GROUP BY name ORDER BY seconds DESC`,
  ],
  [
    "tables and views",
    "SELECT name, engine, total_rows FROM system.tables WHERE database = 'sdpg'",
  ],
];

type Cell = string | number | boolean | null | object;

interface Answer {
  meta: { name: string; type: string }[];
  data: Cell[][];
  rows: number;
  statistics?: { elapsed: number; rows_read: number };
}

export const sql: View = async ({ content, parameters, signal, title, remember }) => {
  title("SQL");
  const box = h("textarea", {
    rows: 8,
    spellcheck: "false",
    autocapitalize: "off",
    onkeydown: (event: KeyboardEvent) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      return answer();
    },
  });
  box.value = parameters.get("q") ?? examples[0][1];
  const button = h("button", { type: "button", class: "button", onclick: () => answer() }, "Run");
  const result = h("div", { "aria-live": "polite" });
  content.append(
    h("label", { class: "field wide" }, h("span", {}, "statement (Ctrl+Enter runs it)"), box),
    h(
      "div",
      { class: "fields" },
      button,
      choice(
        "examples",
        "",
        [["", "choose…"], ...examples.map(([name]) => [name, name] as const)],
        (name) => {
          const example = examples.find(([each]) => each === name);
          if (!example) return;
          box.value = example[1];
          return answer();
        },
      ),
    ),
    result,
  );
  if (parameters.has("q")) await answer();

  async function answer(): Promise<void> {
    remember({ q: box.value });
    result.setAttribute("aria-busy", "true");
    button.disabled = true;
    try {
      const text = await askText({ sql: box.value }, "JSONCompact", signal);
      result.replaceChildren(...shownAnswer(text));
    } catch (error) {
      if (!signal.aborted) result.replaceChildren(errorBox(error));
    } finally {
      button.disabled = false;
      result.removeAttribute("aria-busy");
    }
  }

  function shownAnswer(text: string): Node[] {
    let parsed: Answer;
    try {
      parsed = JSON.parse(text);
      if (!Array.isArray(parsed.meta) || !Array.isArray(parsed.data)) {
        throw new Error("another format");
      }
    } catch {
      // The statement chose a format of its own.
      return [h("pre", { tabindex: 0 }, text.slice(0, 200_000))];
    }
    const { meta, data, statistics } = parsed;
    const words = `${data.length} ${data.length === 1 ? "row" : "rows"}` +
      (data.length > shownRows ? `, the first ${shownRows} shown` : "") +
      (statistics ? ` in ${number(statistics.elapsed * 1000)} ms` : "");
    const lines = linesOf(parsed);
    return [
      h("p", { class: "quiet" }, words),
      ...(lines.length > 0
        ? [chart({
          title: "The answer as a chart",
          xLabel: meta[0].name,
          yLabel: lines.length === 1 ? lines[0].name : "value",
          lines,
        }, signal)]
        : []),
      table(
        "Answer",
        meta.map(({ name, type }, i) => ({
          head: name,
          numeric: isNumber(type),
          cell: (row: Cell[]) => cellText(row[i]),
        })),
        data.slice(0, shownRows),
        { captionHidden: true },
      ),
    ];
  }
};

const isNumber = (type: string) => /^(Nullable\()?(U?Int|Float|Decimal)/.test(type);

function cellText(cell: Cell): string {
  if (cell === null) return "NULL";
  return typeof cell === "object" ? JSON.stringify(cell) : String(cell);
}

/**
 * An answer can be drawn when its first column is a number that tells rows apart: the other numbers are
 * lines over it, one for each value of a text among the columns if there is one.
 */
export function linesOf({ meta, data }: Answer): Line[] {
  if (meta.length < 2 || data.length < 2 || !isNumber(meta[0].type)) return [];
  const texts = meta.flatMap(({ type }, i) => /String/.test(type) ? [i] : []);
  const numbers = meta.flatMap(({ type }, i) => i > 0 && isNumber(type) ? [i] : []);
  if (texts.length > 1 || numbers.length === 0) return [];
  const groups = Map.groupBy(data, (row) => texts.length === 1 ? String(row[texts[0]]) : "");
  if (groups.size > 40) return [];
  return [...groups].flatMap(([group, rows]) =>
    numbers.map((i) => {
      const name = [group, numbers.length > 1 || group === "" ? meta[i].name : ""].filter(Boolean)
        .join(" ");
      const points = rows.filter((row) => row[0] !== null && row[i] !== null)
        .map((row) => ({ x: Number(row[0]), y: Number(row[i]) }))
        .sort((a, b) => a.x - b.x);
      return { name, key: name, points };
    })
  );
}
