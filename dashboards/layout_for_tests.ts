// A dashboard's grid as text, a line for each row of the grid and a column for each of its 24: for a look at the
// layout without Grafana, and to find panels that overlap.
//
//   deno run -A dashboards/layout_for_tests.ts

import type { Dashboard, Panel, RowPanel } from "@grafana/grafana-foundation-sdk/dashboard";
import { dashboards } from "./all.ts";

/** Panels as letters in the order of the list; "#" where two lie on each other, "." where nothing is. */
export function layout(dashboard: Dashboard): string {
  const panels = dashboard.panels ?? [];
  const height = Math.max(...panels.map(({ gridPos }) => gridPos!.y + gridPos!.h));
  const cells = Array.from({ length: height }, () => new Array<string>(24).fill("."));
  panels.forEach(({ gridPos, type }, i) => {
    const { x, y, w, h } = gridPos!;
    for (let at = y; at < y + h; at++) {
      for (let column = x; column < x + w; column++) {
        const taken = column >= 24 || cells[at][column] !== ".";
        cells[at][Math.min(column, 23)] = taken ? "#" : type === "row" ? "=" : letter(i);
      }
    }
  });
  return cells.map((line) => line.join("")).join("\n");
}

const letter = (i: number) => String.fromCharCode((i < 26 ? 97 : 65 - 26) + i);

const line = ({ title, type, gridPos }: Panel | RowPanel, i: number) =>
  `${type === "row" ? "=" : letter(i)} ${type.padEnd(10)} ${gridPos!.w} × ${gridPos!.h}  ${title}`;

if (import.meta.main) {
  for (const dashboard of Object.values(dashboards)) {
    console.log(`\n${dashboard.title}\n${layout(dashboard)}`);
    console.log(dashboard.panels!.map(line).join("\n"));
  }
}
