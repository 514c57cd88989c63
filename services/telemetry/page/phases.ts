// Phase times as they are recorded, "a/b" being a part of "a", and as they can be put on top of each
// other: each with what its parts leave over. Plain numbers; tested without a browser.

import type { Point } from "./bands.ts";
import type { NamedPointRow } from "./queries.ts";

/**
 * Share of each phase in the time of all, in percent, at every x that has any. One that is not in every
 * epoch (a checkpoint) takes nothing in the others: a line from one of its epochs to the next would add up
 * with the rest to more than there is.
 */
export function phaseShares(rows: readonly NamedPointRow[]): Map<string, Point[]> {
  const names = new Set(rows.map(({ name }) => name.replace(/^phase\//, "")));
  const shares = new Map<string, Point[]>([...names].map((name) => [name, []]));
  for (const [x, here] of Map.groupBy(rows, (row) => row.x)) {
    const seconds = new Map(here.map(({ name, y }) => [name.replace(/^phase\//, ""), y]));
    const own = new Map(seconds);
    for (const [name, value] of seconds) {
      const parent = parentOf(name, seconds);
      if (parent !== undefined) own.set(parent, own.get(parent)! - value);
    }
    // Parts are measured by other clocks than the whole: together they may be a hair longer.
    for (const [name, value] of own) own.set(name, Math.max(0, value));
    const sum = [...own.values()].reduce((a, b) => a + b, 0);
    for (const [name, line] of shares) {
      line.push({ x, y: sum > 0 ? 100 * (own.get(name) ?? 0) / sum : 0 });
    }
  }
  const weight = (line: Point[]) => line.reduce((total, { y }) => total + y, 0);
  return new Map([...shares].sort(([, a], [, b]) => weight(b) - weight(a)));
}

/** The nearest phase that this one is a part of and that was recorded too. */
function parentOf(name: string, known: ReadonlyMap<string, number>): string | undefined {
  for (let at = name.lastIndexOf("/"); at > 0; at = name.lastIndexOf("/", at - 1)) {
    if (known.has(name.slice(0, at))) return name.slice(0, at);
  }
  return undefined;
}
