// The core against MuJoCo, whose solver is run to convergence, for hopper and walker.
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { compileModel, sealModel } from "@sdpg/common/model/compile.ts";
import { compareForward, compareNext, GRAVITY, relative, Worst } from "./compare.ts";
import { Core, type Forward, instructionSets, type Next } from "./core.ts";
import { Oracle } from "./oracle.ts";
import { generator, kinds, randomStates, type State } from "./states.ts";

const SEED = Number(process.env.SDPG_PARITY_SEED ?? 2026);
const COUNT = 200;

const path = (name: string) =>
  fileURLToPath(new URL(`../../tasks/${name}/model.xml`, import.meta.url));

/** The model with the core's solver also run to convergence. */
async function convergedModel(name: string): Promise<Model> {
  const model = await compileModel(path(name));
  Object.assign(model.option!, { tolerance: 0, iterations: 200, lsIterations: 200 });
  return sealModel(model);
}

const title = `%s against MuJoCo (seed ${SEED})`;
describe.each(["hopper", "walker"])(title, { timeout: 180_000 }, (name) => {
  let model: Model;
  let oracle: Oracle;
  let states: State[];
  let forwards: Forward[];
  let limits: string[][];
  let nexts: Next[];
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
      compareForward(worst, i, ours[i], forwards[i], weight);
      compareNext(worst, i, after[i], nexts[i]);
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
      worst.add("qpos", relative(after[i].qpos, start.end.qpos, 1), i);
      worst.add("qvel", relative(after[i].qvel, start.end.qvel, 1), i);
    });
    console.log(
      JSON.stringify({ name, trajectories: starts.length, resting, worst: worst.table() }),
    );
    expect(worst.above(1e-2)).toEqual([]);
  });
});

interface Start extends State {
  contacts: number;
  end: Next;
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
