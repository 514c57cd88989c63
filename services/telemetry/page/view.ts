/// <reference lib="dom" />
// What a view of the page is: it fills the content, and while it is shown it may look again whenever
// the store has grown.

import { ask } from "./ask.ts";
import { errorBox } from "./dom.ts";

export interface Place {
  /** Element to fill; empty at first. */
  content: HTMLElement;
  /** What the address names: run for #/run/<id>. */
  argument: string;
  parameters: URLSearchParams;
  /** Aborts when another view takes over. */
  signal: AbortSignal;
  /** Name of the view for the window and for those who cannot see it. */
  title(text: string): void;
  /** Changes the address to these parameters without beginning anew; empty values are left out. */
  remember(parameters: Record<string, string>): void;
  /** Calls back every few seconds when the store has grown and the page is being looked at. */
  onGrowth(reload: () => Promise<void>): void;
}

export type View = (place: Place) => Promise<void>;

/** How much the store holds: cheap to ask (counts of parts, no reading). */
export async function sizeOfStore(signal: AbortSignal): Promise<string> {
  const [row] = await ask<Record<string, number>>({
    name: "sizeOfStore",
    sql: "SELECT (SELECT count() FROM run_states) AS states, (SELECT count() FROM scalars) AS " +
      "scalars, (SELECT count() FROM evaluations) AS evaluations, " +
      "(SELECT count() FROM annotations) AS annotations",
  }, signal);
  return JSON.stringify(row);
}

/** What was begun last for a place: an answer that comes after a later question is not shown. */
const newest = new WeakMap<HTMLElement, object>();

/** Runs one part of a view; what goes wrong is said in the part's own place. */
export async function part(
  place: HTMLElement,
  signal: AbortSignal,
  fill: () => Promise<(Node | string)[]>,
): Promise<void> {
  const turn = {};
  newest.set(place, turn);
  const current = () => !signal.aborted && newest.get(place) === turn;
  try {
    const content = await fill();
    if (current()) place.replaceChildren(...content);
  } catch (error) {
    if (current()) place.replaceChildren(errorBox(error));
  } finally {
    if (current()) place.removeAttribute("aria-busy");
  }
}
