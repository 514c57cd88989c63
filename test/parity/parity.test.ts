// The core against MuJoCo, whose solver is run to convergence, for hopper and walker.
//
// An error is relative to the size of the vector it belongs to: max |a − b| / max(max |b|, floor),
// where b is MuJoCo's and the floor is what the robot meets by itself: gravity for accelerations,
// the weight for forces, 1 for positions (m, rad) and velocities (m/s, rad/s), so that a component
// that happens to be near 0 is not asked for more digits than its vector has.
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { compileModel, sealModel } from "@sdpg/common/model/compile.ts";
import { type Contact, Core, type Forward, instructionSets } from "./core.ts";
import { Oracle } from "./oracle.ts";
import { generator, kinds, randomStates, type State } from "./states.ts";

const SEED = Number(process.env.SDPG_PARITY_SEED ?? 2026);
const COUNT = 200;
const GRAVITY = 9.81;

const path = (name: string) =>
  fileURLToPath(new URL(`../../tasks/${name}/model.xml`, import.meta.url));

/** The model with the core's solver also run to convergence. */
async function convergedModel(name: string): Promise<Model> {
  const model = await compileModel(path(name));
  Object.assign(model.option!, { tolerance: 0, iterations: 200, lsIterations: 200 });
  return sealModel(model);
}

function relative(a: number[], b: number[], floor: number): number {
  const size = Math.max(floor, ...b.map(Math.abs));
  const error = Math.max(...a.map((value, i) => Math.abs(value - b[i]))) / size;
  return Number.isNaN(error) ? Infinity : error;
}

/** Worst error of each quantity over all states, with the state it came from. */
class Worst {
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
  above(tolerance: number): string[] {
    return [...this.errors].filter(([, { error }]) => !(error <= tolerance))
      .map(([quantity, { error, state }]) => `${quantity}: ${error} at state ${state}`);
  }
}

/** Pairs contacts of the two sides: same geoms, nearest position. */
function paired(ours: Contact[], theirs: Contact[]): [Contact, Contact][] | undefined {
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

const title = `%s against MuJoCo (seed ${SEED})`;
describe.each(["hopper", "walker"])(title, { timeout: 180_000 }, (name) => {
  let model: Model;
  let oracle: Oracle;
  let states: State[];
  let forwards: Forward[];
  let limits: string[][];
  let nexts: { qpos: number[]; qvel: number[] }[];
  let weight: number;

  beforeAll(async () => {
    model = await convergedModel(name);
    oracle = await Oracle.load(path(name));
    const ranges = model.joints!.limited.flatMap((limited, i) =>
      limited ? [model.joints!.range.slice(2 * i, 2 * i + 2) as [number, number]] : []
    );
    states = randomStates(oracle, ranges, COUNT, SEED);
    weight = model.totalMass * GRAVITY;
    forwards = [];
    limits = [];
    nexts = [];
    let residual = 0;
    for (const state of states) {
      oracle.set(state.qpos, state.qvel, state.ctrl);
      forwards.push(oracle.forward());
      limits.push(oracle.activeLimits());
      residual = Math.max(residual, oracle.residual());
      oracle.set(state.qpos, state.qvel, state.ctrl);
      oracle.step();
      nexts.push(oracle.get());
    }
    // Otherwise a difference could be the oracle's.
    expect(residual, "MuJoCo's own solver has not converged").toBeLessThan(1e-12);
  }, 180_000);
  afterAll(() => oracle?.[Symbol.dispose]());

  test("the states contain every kind of situation", () => {
    const count = (holds: (i: number) => boolean) => states.filter((_, i) => holds(i)).length;
    const floor = model.geoms!.name.indexOf("floor");
    const situations = {
      free: count((i) => forwards[i].contacts.length === 0 && limits[i].length === 0),
      ground: count((i) => forwards[i].contacts.some((c) => c.geoms.includes(floor))),
      severalContacts: count((i) => forwards[i].contacts.length >= 2),
      deep: count((i) => forwards[i].contacts.some((c) => c.dist < -0.02)),
      limits: count((i) => limits[i].length > 0),
      self: count((i) => forwards[i].contacts.some((c) => !c.geoms.includes(floor))),
    };
    console.log(JSON.stringify({ name, kinds: kinds.length, situations }));
    expect(situations.free).toBeGreaterThan(10);
    expect(situations.ground).toBeGreaterThan(60);
    expect(situations.severalContacts).toBeGreaterThan(5);
    expect(situations.deep).toBeGreaterThan(20);
    expect(situations.limits).toBeGreaterThan(30);
    if (name === "hopper") expect(situations.self).toBeGreaterThan(5);
    else expect(situations.self).toBe(0);
  });

  /** Compares one build of the core on all states; returns the worst errors. */
  function compare(precision: "float32" | "float64", isa: string, compared = model): Worst {
    const worst = new Worst();
    using core = new Core(compared, COUNT, precision, isa);
    const setStates = () =>
      core.set(states.map((s) => s.qpos), states.map((s) => s.qvel), states.map((s) => s.ctrl));
    setStates();
    const ours = core.forward();
    setStates();
    core.step(1);
    const after = core.get();
    for (let i = 0; i < COUNT; i++) {
      const [a, b] = [ours[i], forwards[i]];
      worst.add("qacc", relative(a.qacc, b.qacc, GRAVITY), i);
      worst.add("qacc_smooth", relative(a.qaccSmooth, b.qaccSmooth, GRAVITY), i);
      worst.add("qfrc_constraint", relative(a.qfrcConstraint, b.qfrcConstraint, weight), i);
      worst.add("next qpos", relative(after.qpos[i], nexts[i].qpos, 1), i);
      worst.add("next qvel", relative(after.qvel[i], nexts[i].qvel, 1), i);

      const pairs = paired(a.contacts, b.contacts);
      worst.add("number of contacts", pairs ? 0 : Infinity, i);
      // All forces of a state share one scale: a small one beside a large one is only as exact.
      const forces = (contacts: Contact[]) => contacts.flatMap((c) => c.force);
      for (const [x, y] of pairs ?? []) {
        worst.add("contact distance", Math.abs(x.dist - y.dist), i);
        worst.add("contact position", relative(x.pos, y.pos, 1), i);
        worst.add("contact frame", relative(x.frame, y.frame, 1), i);
      }
      if (pairs && pairs.length > 0) {
        worst.add(
          "contact force",
          relative(forces(pairs.map(([x]) => x)), forces(pairs.map(([, y]) => y)), weight),
          i,
        );
      }
    }
    const statuses = core.status();
    expect(statuses.filter((bits) => bits & 3), "environments with faults").toEqual([]);
    const { tolerance } = compared.option!;
    console.log(JSON.stringify({ name, precision, isa, tolerance, worst: worst.table() }));
    return worst;
  }

  test("double agrees to 1e-10 with every instruction set", () => {
    const sets = instructionSets(model);
    expect(sets).toContain("generic");
    for (const isa of sets) {
      expect(compare("float64", isa).above(1e-10), isa).toEqual([]);
    }
  });

  test("float32 agrees to 1e-4 with every instruction set", () => {
    for (const isa of instructionSets(model)) {
      expect(compare("float32", isa).above(1e-4), isa).toEqual([]);
    }
  });

  test("float32 agrees to 1e-4 with the solver settings the model is trained with", async () => {
    const shipped = await compileModel(path(name));
    expect(shipped.option!.tolerance).toBeGreaterThan(0);
    expect(compare("float32", "", shipped).above(1e-4)).toEqual([]);
  });

  test("float32 trajectories of 100 steps agree to 1e-2 where no contact switches", () => {
    const starts = steadyStarts(oracle, states, 30);
    const resting = starts.filter((start) => start.contacts > 0).length;
    expect(starts.length).toBe(30);
    expect(resting).toBe(15);
    using core = new Core(model, starts.length, "float32");
    core.set(starts.map((s) => s.qpos), starts.map((s) => s.qvel), starts.map((s) => s.ctrl));
    core.step(100);
    const after = core.get();
    const worst = new Worst();
    starts.forEach((start, i) => {
      worst.add("qpos", relative(after.qpos[i], start.end.qpos, 1), i);
      worst.add("qvel", relative(after.qvel[i], start.end.qvel, 1), i);
    });
    console.log(
      JSON.stringify({ name, trajectories: starts.length, resting, worst: worst.table() }),
    );
    expect(worst.above(1e-2)).toEqual([]);
  });
});

interface Start extends State {
  contacts: number;
  end: { qpos: number[]; qvel: number[] };
}

/**
 * States from which MuJoCo's set of contacts and active limits stays the same for 100 steps: half in
 * flight, half at rest on the ground under small controls (found by letting a random pose fall).
 */
function steadyStarts(oracle: Oracle, states: State[], count: number): Start[] {
  const next = generator(SEED + 1);
  const starts: Start[] = [];
  for (let attempt = 0; starts.length < count && attempt < 40 * count; attempt++) {
    const wantsRest = 2 * starts.filter((start) => start.contacts > 0).length < count &&
      attempt % 2 === 0;
    const state = states[attempt % states.length];
    const nothing = state.ctrl.map(() => 0);
    if (wantsRest) {
      oracle.set(state.qpos, state.qvel.map(() => 0), nothing);
      oracle.settle(600);
    } else {
      const raised = state.qpos.map((q, i) => i === 1 ? q + 3 : q);
      oracle.set(raised, state.qvel.map((v) => 0.1 * v), nothing);
    }
    const { qpos, qvel } = oracle.get();
    const start = {
      kind: state.kind,
      qpos: qpos.map(Math.fround),
      qvel: qvel.map(Math.fround),
      // In flight little already swings a joint to its limit within the half second.
      ctrl: nothing.map(() => Math.fround((wantsRest ? 0.02 : 0.002) * (2 * next() - 1))),
    };
    const touching = () =>
      [
        ...oracle.forward().contacts.map((c) => c.geoms.join("-")),
        ...oracle.activeLimits(),
      ].join(" ");
    oracle.set(start.qpos, start.qvel, start.ctrl);
    const contacts = oracle.forward().contacts.length;
    const first = touching();
    let steady = wantsRest === contacts > 0;
    for (let t = 0; t < 100 && steady; t++) {
      oracle.step();
      steady = touching() === first;
    }
    if (steady) starts.push({ ...start, contacts, end: oracle.get() });
  }
  return starts;
}
