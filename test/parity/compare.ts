// How results of the core are compared with MuJoCo's.
//
// An error is relative to the size of the vector it belongs to: max |a − b| / max(max |b|, floor),
// where b is MuJoCo's and the floor is what the robot meets by itself: gravity for accelerations,
// the weight for forces, 1 for positions (m, rad) and velocities (m/s, rad/s), so that a component
// that happens to be near 0 is not asked for more digits than its vector has.
import type { Contact, Forward, Next } from "./core.ts";

export const GRAVITY = 9.81;

export function relative(a: number[], b: number[], floor: number): number {
  if (a.length !== b.length) return Infinity;
  const size = Math.max(floor, ...b.map(Math.abs));
  const error = Math.max(0, ...a.map((value, i) => Math.abs(value - b[i]))) / size;
  return Number.isNaN(error) ? Infinity : error;
}

/** Worst error of each quantity over all states, with the state it came from. */
export class Worst {
  private readonly errors = new Map<string, { error: number; state: number }>();
  add(quantity: string, error: number, state: number): void {
    const worst = this.errors.get(quantity);
    if (!worst || !(error <= worst.error)) this.errors.set(quantity, { error, state });
  }
  /** quantity -> error, for the log. */
  table(): Record<string, string> {
    return Object.fromEntries(
      [...this.errors].map((
        [quantity, { error, state }],
      ) => [quantity, `${error.toExponential(2)} at state ${state}`]),
    );
  }
  /** Lines for what exceeds `tolerance`, or `slack` times what `sensitivity` says of the quantity. */
  above(tolerance: number, sensitivity?: Worst, slack = 0): string[] {
    return [...this.errors].flatMap(([quantity, { error, state }]) => {
      const moves = sensitivity?.errors.get(quantity)?.error;
      if (error <= Math.max(tolerance, slack * (moves ?? 0))) return [];
      const beside = moves === undefined
        ? ""
        : `, where MuJoCo's moves by ${moves.toExponential(1)}`;
      return [`${quantity}: ${error.toExponential(2)} at state ${state}${beside}`];
    });
  }
  merge(other: Worst): void {
    other.errors.forEach(({ error, state }, quantity) => this.add(quantity, error, state));
  }
  get largest(): number {
    return Math.max(0, ...[...this.errors.values()].map(({ error }) => error));
  }
}

/** Pairs contacts of the two sides: same geoms, nearest position. */
export function paired(ours: Contact[], theirs: Contact[]): [Contact, Contact][] | undefined {
  if (ours.length !== theirs.length) return undefined;
  const left = [...theirs];
  const pairs: [Contact, Contact][] = [];
  for (const a of ours) {
    const distance = (b: Contact) => Math.hypot(...a.pos.map((v, k) => v - b.pos[k]));
    const same = left.filter((b) => b.geoms[0] === a.geoms[0] && b.geoms[1] === a.geoms[1]);
    if (same.length === 0) return undefined;
    const nearest = same.reduce((x, y) => distance(x) <= distance(y) ? x : y);
    left.splice(left.indexOf(nearest), 1);
    pairs.push([a, nearest]);
  }
  return pairs;
}

/** Adds the errors of one state to `worst`; `weight` in N, `terms` as Oracle.terms() gives them. */
export function compareForward(
  worst: Worst,
  state: number,
  ours: Forward,
  theirs: Forward,
  weight: number,
  terms = 0,
): void {
  worst.add("qacc", relative(ours.qacc, theirs.qacc, GRAVITY), state);
  worst.add("qacc_smooth", relative(ours.qaccSmooth, theirs.qaccSmooth, GRAVITY), state);
  worst.add(
    "qfrc_constraint",
    relative(ours.qfrcConstraint, theirs.qfrcConstraint, Math.max(weight, terms)),
    state,
  );
  const pairs = paired(ours.contacts, theirs.contacts);
  worst.add("number of contacts", pairs ? 0 : Infinity, state);
  if (!pairs || pairs.length === 0) return;
  for (const [x, y] of pairs) {
    worst.add("contact distance", Math.abs(x.dist - y.dist), state);
    worst.add("contact position", relative(x.pos, y.pos, 1), state);
    worst.add("contact frame", relative(x.frame, y.frame, 1), state);
  }
  // All forces of a state share one scale: a small one beside a large one is only as exact.
  const forces = (contacts: Contact[]) => contacts.flatMap((c) => c.force);
  worst.add(
    "contact force",
    relative(forces(pairs.map(([x]) => x)), forces(pairs.map(([, y]) => y)), weight),
    state,
  );
}

/** The state after one step, in which speeds may have changed by up to `change`. */
export function compareNext(
  worst: Worst,
  state: number,
  ours: Next,
  theirs: Next,
  change = 0,
): void {
  worst.add("next qpos", relative(ours.qpos, theirs.qpos, 1), state);
  worst.add("next qvel", relative(ours.qvel, theirs.qvel, Math.max(1, change)), state);
  worst.add("next act", relative(ours.act, theirs.act, 1), state);
}
