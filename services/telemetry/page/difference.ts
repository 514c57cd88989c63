/// <reference lib="dom" />
// What differs between two runs: their settings key by key, and what they ran with and on.

import { ask } from "./ask.ts";
import { type Difference, differences, flat } from "./configuration.ts";
import { errorBox, h, table } from "./dom.ts";
import { configurationsOf } from "./queries.ts";
import type { View } from "./view.ts";

interface Row extends Record<string, string> {
  run_id: string;
  configuration: string;
  hardware: string;
}

export const difference: View = async ({ content, parameters, signal, title }) => {
  const [a, b] = [parameters.get("a") ?? "", parameters.get("b") ?? ""];
  title(b ? `${a} and ${b}` : "Difference of two runs");
  const [left, right] = ["a", "b"].map((name) =>
    h("input", { name, value: parameters.get(name) ?? "", required: true, autocomplete: "off" })
  );
  content.append(h(
    "form",
    {
      class: "fields",
      onsubmit: (event: SubmitEvent) => {
        event.preventDefault();
        const query = new URLSearchParams({ a: left.value.trim(), b: right.value.trim() });
        location.hash = `#/difference?${query}`;
      },
    },
    h("label", { class: "field wide" }, h("span", {}, "run"), left),
    h("label", { class: "field wide" }, h("span", {}, "other run"), right),
    h("button", {}, "Show what differs"),
  ));
  if (!a || !b) return;
  const found = await ask<Row>(configurationsOf([a, b]), signal);
  const rows = [a, b].map((name) => found.find(({ run_id }) => run_id === name));
  for (const [i, name] of [a, b].entries()) {
    if (!rows[i]) {
      content.append(errorBox(`There is no run "${name}" in the store.`));
      return;
    }
  }
  const [one, other] = rows as [Row, Row];
  const facts = ({ configuration: _c, hardware: _h, run_id: _r, ...rest }: Row) =>
    new Map(Object.entries(rest));
  show("Run", differences(facts(one), facts(other)));
  show("Configuration", differences(flat(one.configuration), flat(other.configuration)));
  show("Hardware", differences(flat(one.hardware), flat(other.hardware)));

  function show(what: string, differing: Difference[]): void {
    content.append(
      h("h2", {}, what),
      differing.length === 0 ? h("p", { class: "quiet" }, "The same.") : table(
        `What differs: ${what.toLowerCase()}`,
        [
          {
            head: "key",
            heading: true,
            cell: (row) => row.key,
          },
          { head: a, cell: (row) => h("code", {}, row.a ?? "–") },
          { head: b, cell: (row) => h("code", {}, row.b ?? "–") },
        ],
        differing,
        { captionHidden: true },
      ),
    );
  }
};
