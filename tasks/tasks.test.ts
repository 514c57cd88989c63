// The tasks as published: rewards, terminations, observations and resets against formulas written
// out here in plain numbers from the tables, on states drawn at random and on the edges.
import { describe, expect, test } from "vitest";
import { type Environment, Interpreter } from "@sdpg/common/task/interpret.ts";
import { listTasks, loadTask, type Task, TaskError } from "./mod.ts";

const SEED = 20260;

/** Small deterministic generator: values in [0, 1). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function environment(task: Task, qpos: number[], qvel: number[], action: number[]): Environment {
  return {
    qpos: Float32Array.from(qpos),
    qvel: Float32Array.from(qvel),
    ctrl: new Float32Array(action.length).fill(NaN),
    action: Float32Array.from(action),
    xpos: new Float32Array(3 * task.model.bodies!.name.length),
    xquat: new Float32Array(4 * task.model.bodies!.name.length),
    xipos: new Float32Array(3 * task.model.bodies!.name.length),
    progress: 0,
    uniforms: new Float32Array(64),
  };
}

const zeros = (n: number) => Array<number>(n).fill(0);
const sumOfSquares = (values: ArrayLike<number>) =>
  Array.from(values).reduce((sum, v) => sum + v * v, 0);
const wrapped = (angle: number) => Math.atan2(Math.sin(angle), Math.cos(angle));
const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);

/** Published Hopper reward; q = x, z, pitch, 3 joints. */
function hopperReward(q: ArrayLike<number>, v: ArrayLike<number>, u: ArrayLike<number>, cap = 3) {
  const delta = Math.min(Math.max(q[1] - (-0.45 + 0.15), -1), cap);
  return {
    height: delta < 0 ? -200 * delta ** 2 : delta,
    upright: 1 - wrapped(q[2]) ** 2 / (Math.PI / 6) ** 2,
    forward: v[0],
    control: -0.1 * sumOfSquares(u),
  };
}

function walkerReward(_: ArrayLike<number>, v: ArrayLike<number>, u: ArrayLike<number>) {
  return { forward: v[0], control: -0.01 * sumOfSquares(u), alive: 0.1 };
}

const cases = [
  {
    name: "hopper",
    n: 6,
    actions: 3,
    formula: hopperReward,
    observed: [1, 2, 3, 4, 5],
    vObserved: [0, 1, 2, 3, 4, 5],
  },
  {
    name: "walker",
    n: 9,
    actions: 6,
    formula: walkerReward,
    observed: [2, 1, 3, 4, 5, 6, 7, 8],
    vObserved: [0, 2, 1, 3, 4, 5, 6, 7, 8],
  },
];

describe.each(cases)("$name", ({ name, n, actions, formula, observed, vObserved }) => {
  test(`pays what the table says on random states (seed ${SEED})`, async () => {
    const task = await loadTask(name);
    const interpreter = new Interpreter(task.program);
    const next = generator(SEED);
    for (let k = 0; k < 500; k++) {
      const q = Array.from({ length: n }, () => 8 * next() - 4);
      const v = Array.from({ length: n }, () => 20 * next() - 10);
      const u = Array.from({ length: actions }, () => 2 * next() - 1);
      const state = environment(task, q, v, u);
      const { rewards, reward } = interpreter.step(state);
      // The program sees float32, so the formula gets the same numbers.
      const expected = formula(state.qpos, state.qvel, state.action);
      expect(Object.keys(rewards)).toEqual(Object.keys(expected));
      for (const [term, value] of Object.entries(expected)) {
        expect(Math.abs(rewards[term] - value)).toBeLessThan(1e-5 * (1 + Math.abs(value)));
      }
      expect(Math.abs(reward - sum(Object.values(expected)))).toBeLessThan(1e-3);
    }
  });

  test("shows the published layout to both networks", async () => {
    const task = await loadTask(name);
    const q = Array.from({ length: n }, (_, i) => 0.1 * (i + 1));
    const v = Array.from({ length: n }, (_, i) => 10 + i);
    const state = environment(task, q, v, zeros(actions));
    const seen = new Interpreter(task.program).observe(state);
    expect([...seen.state]).toEqual(
      [...observed.map((i) => state.qpos[i]), ...vObserved.map((i) => state.qvel[i])],
    );
    expect([task.privilegedSize, task.actorSize]).toEqual([2 * n - 1, 2 * n - 1]);
    expect(task.program.observations).toMatchObject([{
      actor: true,
      privileged: true,
      normalise: true,
    }]);
  });

  test("passes the action on as control", async () => {
    const task = await loadTask(name);
    const u = Array.from({ length: actions }, (_, i) => 0.25 * (i - 1));
    const state = environment(task, zeros(n), zeros(n), u);
    new Interpreter(task.program).control(state);
    expect([...state.ctrl]).toEqual(u);
  });

  test("starts within 0.05 of standing, at rest", async () => {
    const task = await loadTask(name);
    const interpreter = new Interpreter(task.program);
    for (const [uniform, offset] of [[0, -0.05], [0.5, 0], [0.75, 0.025]]) {
      const state = environment(task, zeros(n), zeros(n), zeros(actions));
      state.uniforms.fill(uniform);
      interpreter.reset(state);
      for (const coordinate of state.qpos) expect(coordinate).toBeCloseTo(offset, 7);
      expect([...state.qvel]).toEqual(zeros(n));
    }
    // Every coordinate has a draw of its own.
    const state = environment(task, zeros(n), zeros(n), zeros(actions));
    state.uniforms.forEach((_, i) => state.uniforms[i] = i / 64);
    interpreter.reset(state);
    expect(new Set(state.qpos).size).toBe(n);
  });

  test("runs 1000 control steps of two 5 ms physics steps", async () => {
    const task = await loadTask(name);
    expect(task.episodeLength).toBe(1000);
    expect(task.program.substeps).toBe(2);
    expect(task.controlSeconds).toBeCloseTo(0.01, 12);
    expect(task.actionSize).toBe(actions);
  });
});

/** Names of the terminations that hold when coordinate `i` of q or v has a value. */
async function ended(name: string, where: "qpos" | "qvel", i: number, value: number) {
  const task = await loadTask(name);
  const n = task.model.qpos0.length;
  const state = environment(task, zeros(n), zeros(n), zeros(task.actionSize));
  state[where][i] = value;
  const { terminations, terminated } = new Interpreter(task.program).step(state);
  const names = Object.keys(terminations).filter((term) => terminations[term]);
  expect(terminated).toBe(names.length > 0);
  return names;
}

describe("terminations", () => {
  const table: [string, "qpos" | "qvel", number, number, string[]][] = [
    ["hopper", "qpos", 1, -0.46, ["fallen"]],
    ["hopper", "qpos", 1, -0.44, []],
    ["hopper", "qpos", 1, 15.1, ["flown_off"]],
    ["hopper", "qpos", 1, 14.9, []],
    ["hopper", "qpos", 2, 3, []], // no rule about the angle
    ["hopper", "qvel", 0, -101, ["too_fast"]],
    ["hopper", "qvel", 5, 101, ["too_fast"]],
    ["hopper", "qvel", 5, 99, []],
    ["hopper", "qpos", 1, NaN, []], // the simulator's own containment catches it
    ["walker", "qpos", 1, -0.51, ["fallen"]],
    ["walker", "qpos", 1, -0.49, []],
    ["walker", "qpos", 1, 0.71, ["too_high"]],
    ["walker", "qpos", 1, 0.69, []],
    ["walker", "qpos", 2, -1.01, ["tipped"]],
    ["walker", "qpos", 2, 0.99, []],
    ["walker", "qvel", 8, -101, ["too_fast"]],
  ];
  test.each(table)("%s with %s[%i] = %d ends by %j", async (name, where, i, value, expected) => {
    expect(await ended(name, where, i, value)).toEqual(expected);
  });
});

describe("hopper's options", () => {
  test("height_cap 0.3 is SHAC's reward and another program", async () => {
    const [sdpg, shac] = [await loadTask("hopper"), await loadTask("hopper", { height_cap: 0.3 })];
    const state = environment(sdpg, [0, 2, 0, 0, 0, 0], zeros(6), zeros(3));
    expect(new Interpreter(sdpg.program).step(state).rewards.height).toBeCloseTo(2.3, 6);
    expect(new Interpreter(shac.program).step(state).rewards.height).toBeCloseTo(0.3, 6);
    expect(shac.program.contentHash).not.toBe(sdpg.program.contentHash);
    expect(shac.options).toEqual({ height_cap: 0.3 });
    expect(sdpg.options).toEqual({ height_cap: 3 });
  });
});

describe("loadTask()", () => {
  test("lists the tasks and compiles every one of them", async () => {
    expect(listTasks()).toEqual(expect.arrayContaining(["hopper", "walker"]));
    for (const name of listTasks()) {
      const task = await loadTask(name);
      expect(task.program.modelHash).toBe(task.model.contentHash);
      expect(task.summary).toMatch(/\.$/);
    }
  });

  test("names the nearest task to one that does not exist", async () => {
    await expect(loadTask("hoper")).rejects.toThrow(
      /task 'hoper' does not exist; did you mean "hopper"\? Tasks: hopper, walker/,
    );
    await expect(loadTask("../tasks/hopper")).rejects.toThrow(TaskError);
  });
});
