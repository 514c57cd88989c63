/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
// Elements made by calls, tables, and values as a person reads them. No text ever becomes markup: what
// comes from the store is put in as text nodes only.

import { duration, number } from "../../cli/format.ts";

export { duration, number };

type Child = Node | string | number | null | undefined | false;
type Props = Record<string, string | number | boolean | undefined | ((event: never) => void)>;

/** An element; `on…` properties are listeners, false and undefined leave an attribute out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") {
      element.addEventListener(name.slice(2), value as (event: Event) => void);
    } else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(
    ...children.filter(present).map((child) => child instanceof Node ? child : `${child}`),
  );
  return element;
}

const present = (child: Child): child is Node | string | number =>
  child !== null && child !== undefined && child !== false;

/** A column of a table: its heading, and what a row shows in it. */
export interface Column<Row> {
  head: string;
  cell(row: Row): Child;
  /** Numbers stand to the right. */
  numeric?: boolean;
  /** The heading of its row. */
  heading?: boolean;
}

/** A table with a caption, in a region that scrolls sideways where it must and can be focused then. */
export function table<Row>(
  caption: string,
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  options: { captionHidden?: boolean; head?: (column: Column<Row>) => HTMLElement | undefined } =
    {},
): HTMLElement {
  const kind = (column: Column<Row>) => column.numeric ? "numeric" : undefined;
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: options.captionHidden ? "hidden" : undefined }, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ...columns.map((column) =>
            options.head?.(column) ?? h("th", { scope: "col", class: kind(column) }, column.head)
          ),
        ),
      ),
      h(
        "tbody",
        {},
        ...rows.map((row) =>
          h(
            "tr",
            {},
            ...columns.map((column) =>
              column.heading
                ? h("th", { scope: "row" }, column.cell(row))
                : h("td", { class: kind(column) }, column.cell(row))
            ),
          )
        ),
      ),
    ),
  );
}

/** A labelled choice; `options` are values with what is shown. */
export function choice(
  label: string,
  value: string,
  options: readonly (readonly [value: string, text: string])[],
  change: (value: string) => void,
): HTMLLabelElement {
  const select = h(
    "select",
    { onchange: () => change(select.value) },
    ...options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
  );
  return h("label", { class: "field" }, h("span", {}, label), select);
}

/** Seconds since 1970 as the time passed since: "3 min ago". */
export function ago(unixSeconds: number): HTMLElement {
  const date = new Date(unixSeconds * 1000);
  const seconds = Math.max(0, (Date.now() - date.getTime()) / 1000);
  const text = seconds < 90
    ? `${Math.round(seconds)} s ago`
    : seconds < 5400
    ? `${Math.round(seconds / 60)} min ago`
    : seconds < 129_600
    ? `${Math.round(seconds / 3600)} h ago`
    : date.toISOString().slice(0, 10);
  return h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, text);
}

/** A value that may be missing. */
export const shown = (value: number | null | undefined): string =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : number(value);

export const bytes = (value: number): string =>
  value >= 1e9 ? `${(value / 1e9).toFixed(2)} GB` : `${(value / 1e6).toFixed(0)} MB`;

/** The state of a run, told by word, sign and colour. */
export function stateBadge(state: string): HTMLElement {
  return h("span", { class: `state state-${state}` }, state);
}

/** An error in the place where its content would be. */
export function errorBox(error: unknown): HTMLElement {
  return h(
    "pre",
    { class: "error", role: "alert" },
    error instanceof Error ? error.message : `${error}`,
  );
}

/** Notes in the browser's timeline when what was just put into the page has been painted. */
export function markShown(name: string): void {
  requestAnimationFrame(() => setTimeout(() => performance.mark(`shown ${name}`)));
}
