/// <reference lib="dom" />
// The trace of one epoch as a waterfall: a row per span under the span it belongs to, a bar where it
// lies in time.

import { ask } from "./ask.ts";
import { h, number, table } from "./dom.ts";
import { type SpanRow, traceOf } from "./queries.ts";

export async function waterfall(
  run: string,
  iteration: number | undefined,
  signal: AbortSignal,
): Promise<Node[]> {
  const spans = await ask<SpanRow>(traceOf(run, iteration), signal);
  if (spans.length === 0) {
    const which = iteration === undefined ? "this run" : `epoch ${iteration}`;
    return [h("p", { class: "quiet" }, `There are no spans of ${which} in the store.`)];
  }
  const end = spans.reduce((last, span) => Math.max(last, span.start_ms + span.duration_ms), 0);
  const services = [...new Set(spans.map(({ service }) => service))];
  return [table(
    "Spans of the epoch in order of their start",
    [
      {
        head: "span",
        heading: true,
        cell: ({ span, depth }) => {
          const name = h("span", { class: "indent" }, span.name);
          name.style.setProperty("--depth", String(depth));
          return name;
        },
      },
      { head: "service", cell: ({ span }) => span.service },
      { head: "starts at (ms)", numeric: true, cell: ({ span }) => number(span.start_ms) },
      { head: "takes (ms)", numeric: true, cell: ({ span }) => number(span.duration_ms) },
      {
        head: "in time",
        cell: ({ span }) => {
          const colour = `c${services.indexOf(span.service) % 8}`;
          const failed = span.status === "Error" ? " failed" : "";
          const bar = h("i", { class: `bar ${colour}${failed}` });
          bar.style.marginInlineStart = `${100 * span.start_ms / end}%`;
          bar.style.inlineSize = `${Math.max(0.3, 100 * span.duration_ms / end)}%`;
          return h("div", { class: "lane", "aria-hidden": "true" }, bar);
        },
      },
    ],
    nested(spans),
    { captionHidden: true },
  )];
}

/** Spans in the order of a tree, children by their start; one whose parent is not here is a root. */
export function nested(spans: readonly SpanRow[]): { span: SpanRow; depth: number }[] {
  const known = new Set(spans.map(({ id }) => id));
  const children = Map.groupBy(spans, ({ parent }) => known.has(parent) ? parent : "");
  const rows: { span: SpanRow; depth: number }[] = [];
  const visit = (parent: string, depth: number) => {
    for (const span of children.get(parent) ?? []) {
      rows.push({ span, depth });
      visit(span.id, depth + 1);
    }
  };
  visit("", 0);
  return rows;
}
