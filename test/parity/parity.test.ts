// The core against MuJoCo, whose solver is run to convergence, for the robots of
// our tasks.
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { compileModel, sealModel } from "@sdpg/common/model/compile.ts";
import { type Answer, answerOf, compare, judge } from "./answers.ts";
import { GRAVITY, relative, Worst } from "./compare.ts";
import { Core, type Forward, instructionSets, type Next } from "./core.ts";
import { Oracle } from "./oracle.ts";
import { generator, kinds, randomStates, type State } from "./states.ts";

const SEED = Number(process.env.SDPG_PARITY_SEED ?? 2026);
const COUNT = 1000;

const path = (name: string) =>
  fileURLToPath(new URL(`../../tasks/${name}/model.xml`, import.meta.url));

/** The model with the core's solver also run to convergence. */
async function convergedModel(name: string): Promise<Model> {
  const model = await compileModel(path(name));
  Object.assign(model.option!, { tolerance: 0, iterations: 200, lsIterations: 200 });
  return sealModel(model);
}

const title = `%s against MuJoCo (seed ${SEED})`;
describe.each(["hopper", "walker", "ant", "humanoid"])(title, (name) => {
  let model: Model;
  let oracle: Oracle;
  let states: State[];
  let answers: Answer[];
  let forwards: Forward[];
  let limits: string[][];
  let weight: number;

  beforeAll(async () => {
    model = await convergedModel(name);
    oracle = await Oracle.load(path(name));
    states = randomStates(oracle, model, COUNT, SEED);
    weight = model.totalMass * GRAVITY;
    answers = states.map((state) => answerOf(oracle, state));
    forwards = answers.map(({ forward }) => forward);
    limits = answers.map((answer) => answer.limits);
  });
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
    expect(situations.free).toBeGreaterThan(50);
    expect(situations.ground).toBeGreaterThan(300);
    expect(situations.severalContacts).toBeGreaterThan(10);
    expect(situations.deep).toBeGreaterThan(100);
    expect(situations.limits).toBeGreaterThan(150);
    if (["hopper", "humanoid"].includes(name)) expect(situations.self).toBeGreaterThan(25);
    else expect(situations.self).toBe(0);
  });

  /** Compares one build of the core on all states; returns what is out of tolerance. */
  function differences(precision: "float32" | "float64", isa: string, compared = model): string[] {
    using core = new Core(compared, COUNT, precision, isa);
    const setStates = () =>
      core.set(states.map((s) => s.qpos), states.map((s) => s.qvel), states.map((s) => s.ctrl));
    setStates();
    const ours = core.forward();
    setStates();
    core.step(1);
    const after = core.get();
    const all = new Worst();
    const failures: string[] = [];
    let sensitive = 0;
    states.forEach((state, i) => {
      const worst = compare(i, ours[i], after[i], answers[i], weight);
      const judged = judge(precision, worst, oracle, state, answers[i], weight);
      if (judged.sensitive) sensitive++;
      else all.merge(worst);
      failures.push(...judged.failures);
    });
    const statuses = core.status();
    expect(statuses.filter((bits) => bits & 3), "environments with faults").toEqual([]);
    const { tolerance } = compared.option!;
    console.log(
      JSON.stringify({ name, precision, isa, tolerance, sensitive, worst: all.table() }),
    );
    expect(sensitive).toBeLessThan(0.02 * COUNT);
    return failures;
  }

  test("double agrees to 1e-10 with every instruction set", () => {
    const sets = instructionSets(model);
    expect(sets).toContain("generic");
    for (const isa of sets) {
      expect(differences("float64", isa), isa).toEqual([]);
    }
  });

  test("float32 agrees to 1e-4 with every instruction set", () => {
    for (const isa of instructionSets(model)) {
      expect(differences("float32", isa), isa).toEqual([]);
    }
  });

  test("float32 agrees to 1e-4 with the solver settings the model is trained with", async () => {
    const shipped = await compileModel(path(name));
    expect(shipped.option!.tolerance).toBeGreaterThan(0);
    expect(differences("float32", "", shipped)).toEqual([]);
  });

  // A free robot rarely comes to rest, and then on many contacts that go on and off.
  const planar = ["hopper", "walker"].includes(name);
  test.runIf(planar)(
    "float32 trajectories of 100 steps agree to 1e-2 in a steady set of contacts",
    () => {
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
    },
  );
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
