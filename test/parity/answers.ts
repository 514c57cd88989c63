// MuJoCo's answers for a state, the comparison of the core's with them, and what rounding to float32
// does to MuJoCo's own answer, which is what a float32 answer can be held to.
import { compareForward, compareNext, Worst } from "./compare.ts";
import type { Forward, Next } from "./core.ts";
import type { Oracle } from "./oracle.ts";
import { generator } from "./states.ts";

/** State and input to compare on. */
export interface Situation {
  qpos: number[];
  qvel: number[];
  act?: number[];
  ctrl: number[];
}

export interface Answer {
  forward: Forward;
  next: Next;
  /** See Oracle.terms(). */
  terms: number;
  /** See Oracle.largestForce(). */
  force: number;
  /** Size of the change of qvel in one step. */
  change: number;
  /** See Oracle.activeLimits(). */
  limits: string[];
}

/** MuJoCo's answer; throws where its own solver has not converged. */
export function answerOf(
  oracle: Oracle,
  { qpos, qvel, act, ctrl }: Situation,
  push: number[] = [],
): Answer {
  const set = () => {
    oracle.set(qpos, qvel, ctrl, act);
    oracle.push(push);
  };
  set();
  const forward = oracle.forward();
  // Otherwise a difference could be the oracle's.
  const residual = oracle.residual();
  if (!(residual < 1e-11)) throw new Error(`MuJoCo's own solver has not converged: ${residual}`);
  const answer = {
    forward,
    terms: oracle.terms(),
    force: oracle.largestForce(),
    change: oracle.timestep * Math.max(...forward.qacc.map(Math.abs)),
    limits: oracle.activeLimits(),
  };
  set();
  oracle.step();
  return { ...answer, next: oracle.get() };
}

/** Errors of one state; `weight` in N. */
export function compare(
  state: number,
  ours: Forward,
  after: Next,
  theirs: Answer,
  weight: number,
): Worst {
  const worst = new Worst();
  compareForward(worst, state, ours, theirs.forward, weight, theirs.terms);
  compareNext(worst, state, after, theirs.next, theirs.change);
  return worst;
}

/** Tolerances of every quantity, see compare.ts. */
export const TOLERANCE = { float64: 1e-10, float32: 1e-4 };

/**
 * Some states ask what float32 cannot answer to 1e-4, such as the torque of a force that passes
 * close to its hinge. There a float32 result may be off by this many times as much as MuJoCo's own
 * result (in double) moves when every number of state, model and forces moves by one unit in the
 * last place of float32. A computation rounds a few hundred times.
 */
export const SLACK = 64;

/** What is out of tolerance; `sensitive` where only SLACK made it pass. */
export function judge(
  precision: "float32" | "float64",
  worst: Worst,
  oracle: Oracle,
  situation: Situation,
  answer: Answer,
  weight: number,
): { failures: string[]; sensitive: boolean } {
  const failures = worst.above(TOLERANCE[precision]);
  if (precision === "float64" || failures.length === 0) return { failures, sensitive: false };
  const moves = sensitivity(oracle, situation, answer, weight);
  const left = worst.above(TOLERANCE.float32, moves, SLACK);
  return { failures: left, sensitive: left.length === 0 };
}

/** How far MuJoCo's answer moves under roundings of one unit of float32: the worst of four. */
function sensitivity(
  oracle: Oracle,
  situation: Situation,
  answer: Answer,
  weight: number,
): Worst {
  const worst = new Worst();
  const unit = 2 ** -23;
  for (let k = 0; k < 4; k++) {
    const next = generator(k);
    const sign = () => next() < 0.5 ? -1 : 1;
    const moved = (x: number) => x + unit * Math.max(1, Math.abs(x)) * sign();
    const other = {
      qpos: situation.qpos.map(moved),
      qvel: situation.qvel.map(moved),
      act: situation.act?.map(moved),
      ctrl: situation.ctrl.map(moved),
    };
    const push = situation.qvel.map(() => unit * answer.force * sign());
    const shifted = oracle.disturbed(unit, sign, () => answerOf(oracle, other, push));
    worst.merge(compare(0, shifted.forward, shifted.next, answer, weight));
  }
  return worst;
}
