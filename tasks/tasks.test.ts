// The tasks as published: rewards, terminations, observations and resets against formulas written
// out here in plain numbers from the tables, on states drawn at random and on the edges.
import { describe, expect, test } from "vitest";
import { taskCameras } from "@sdpg/common/task/declare.ts";
import { type Environment, Interpreter } from "@sdpg/common/task/interpret.ts";
import { declaration, listTasks, loadTask, type Task, TaskError } from "./mod.ts";

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

describe("taskCameras()", () => {
  test("gives every task the camera its policy looks through", async () => {
    const cameras = await Promise.all(
      listTasks().map(async (name) => [name, (await loadTask(name)).cameras]),
    );
    expect(Object.fromEntries(cameras)).toMatchObject({
      ant: ["side"],
      hopper: ["side"],
      humanoid: ["back"],
      walker: ["side"],
    });
  });

  test("refuses a camera that the model lacks", async () => {
    const { model } = await loadTask("hopper");
    const declared = { ...await declaration("hopper"), cameras: ["sied"] };
    expect(() => taskCameras(declared, model)).toThrow(
      `task 'hopper': the model has no camera 'sied'; did you mean "side"? Its cameras: side, wide`,
    );
  });
});

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

// ---- the robots that are free in space ---------------------------------------------------------

/** Column `j` of the rotation matrix of a unit quaternion (w, x, y, z). */
function column(q: number[], j: number): number[] {
  const [w, x, y, z] = q;
  return [
    [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
    [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
    [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
  ][j];
}

const HUMANOID_ACTIONS = [
  ...["abdomen_y", "abdomen_z", "abdomen_x"],
  ...["right", "left"].flatMap((side) =>
    ["hip_x", "hip_z", "hip_y", "knee", "ankle_x", "ankle_y"].map((joint) => `${side}_${joint}`)
  ),
  ...["right", "left"].flatMap((side) =>
    ["shoulder1", "shoulder2", "elbow"].map((joint) => `${side}_${joint}`)
  ),
];
/** N m at an action of 1, in the order of the actions. */
const HUMANOID_TORQUES = [
  ...[67.5, 67.5, 67.5],
  ...[45, 45, 135, 90, 22.5, 22.5],
  ...[45, 45, 135, 90, 22.5, 22.5],
  ...[67.5, 67.5, 45],
  ...[67.5, 67.5, 45],
];

function humanoidHeight(z: number): number {
  const delta = Math.min(Math.max(z - 0.84, -1), 0.1);
  return delta < 0 ? -200 * delta ** 2 : 10 * delta;
}

const free = [
  {
    name: "ant",
    actions: 8,
    target: 10_000,
    joints: [1, 2, 3, 4].flatMap((leg) => [`hip_${leg}`, `ankle_${leg}`]),
    start: [0, 0, 0.75, 1, 0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 1],
    torques: Array<number>(8).fill(200),
    terms: (z: number, vx: number, up: number, heading: number, _u: number[]) => ({
      forward: vx,
      upright: 0.1 * up,
      heading,
      height: z - 0.27,
    }),
  },
  {
    name: "humanoid",
    actions: 21,
    target: 200,
    joints: HUMANOID_ACTIONS,
    start: [0, 0, 1.35, 1, 0, 0, 0, ...zeros(21)],
    torques: HUMANOID_TORQUES,
    terms: (z: number, vx: number, up: number, heading: number, u: number[]) => ({
      height: humanoidHeight(z),
      forward: vx,
      upright: 0.1 * up,
      heading,
      control: -0.002 * sumOfSquares(u),
    }),
  },
];

describe.each(free)("$name", ({ name, actions, target, joints, start, torques, terms }) => {
  /** A state at random: somewhere, turned anyhow. */
  function randomState(task: Task, next: () => number) {
    const turn = Array.from({ length: 4 }, () => 2 * next() - 1);
    const length = Math.sqrt(sumOfSquares(turn));
    const q = [
      ...[20 * next(), 8 * next() - 4, 3 * next()],
      ...turn.map((x) => x / length),
      ...Array.from({ length: actions }, () => 2 * next() - 1),
    ];
    const v = Array.from({ length: 6 + actions }, () => 20 * next() - 10);
    const u = Array.from({ length: actions }, () => 2 * next() - 1);
    return environment(task, q, v, u);
  }
  /** Uprightness and heading of a state, from their definitions. */
  function posture(state: Environment, variant: string) {
    const turn = [...state.qpos.slice(3, 7)];
    const away = [target - state.qpos[0], -state.qpos[1]];
    const distance = Math.hypot(...away);
    const x = column(turn, 0);
    return {
      up: variant === "published" ? column(turn, 1)[1] : column(turn, 2)[2],
      heading: (x[0] * away[0] + x[1] * away[1]) / distance,
    };
  }

  test.each(["corrected", "published"])(
    `pays and shows what the table says, %s (seed ${SEED})`,
    async (variant) => {
      const task = await loadTask(name, { variant });
      const { joints: modelJoints } = task.model;
      const position = joints.map((joint) =>
        modelJoints!.qposadr[modelJoints!.name.indexOf(joint)]
      );
      const velocity = joints.map((joint) => modelJoints!.dofadr[modelJoints!.name.indexOf(joint)]);
      const interpreter = new Interpreter(task.program);
      const next = generator(SEED);
      let previous = zeros(actions);
      for (let k = 0; k < 200; k++) {
        const state = randomState(task, next);
        const { up, heading } = posture(state, variant);
        const z = state.qpos[2];

        const seen = [...interpreter.observe(state).state];
        const expectedSeen = [
          z,
          ...state.qpos.slice(3, 7),
          ...state.qvel.slice(0, 6),
          ...position.map((at) => state.qpos[at]),
          ...velocity.map((at) => 0.1 * state.qvel[at]),
          up,
          heading,
          ...previous.map((u, i) => variant === "published" ? torques[i] * u : u),
        ];
        expect(seen.length).toBe(expectedSeen.length);
        for (const [i, value] of expectedSeen.entries()) {
          expect(Math.abs(seen[i] - value), `value ${i}, state ${k}`)
            .toBeLessThan(2e-6 * (1 + Math.abs(value)));
        }

        const { rewards } = interpreter.step(state);
        const expected = terms(z, state.qvel[0], up, heading, [...state.action]);
        expect(Object.keys(rewards)).toEqual(Object.keys(expected));
        for (const [term, value] of Object.entries(expected)) {
          expect(Math.abs(rewards[term] - value), `${term}, state ${k}`)
            .toBeLessThan(1e-5 * (1 + Math.abs(value)));
        }
        previous = [...state.action];
      }
    },
  );

  test("has the published sizes", async () => {
    const task = await loadTask(name);
    const size = 1 + 4 + 6 + 2 * actions + 2 + actions;
    expect([task.privilegedSize, task.actorSize, task.actionSize]).toEqual([size, size, actions]);
    expect(size).toBe(name === "ant" ? 37 : 76);
    expect([task.episodeLength, task.controlSeconds]).toEqual([1000, 0.01]);
  });

  test("knows upright from upside down, which the published term does not for pitch", async () => {
    const level = [1, 0, 0, 0], pitchedOver = [0, 0, 1, 0], yawed = [0, 0, 0, 1];
    const uprightness = async (variant: string, turn: number[]) => {
      const task = await loadTask(name, { variant });
      const q = [...start];
      q.splice(3, 4, ...turn);
      const state = environment(task, q, zeros(6 + actions), zeros(actions));
      return new Interpreter(task.program).step(state).rewards.upright / 0.1;
    };
    for (
      const [turn, corrected, published] of [
        [level, 1, 1],
        [pitchedOver, -1, 1],
        [yawed, 1, -1],
      ] as const
    ) {
      expect(await uprightness("corrected", turn)).toBeCloseTo(corrected, 6);
      expect(await uprightness("published", turn)).toBeCloseTo(published, 6);
    }
  });

  test(`starts near its pose, turned a little about any axis (seed ${SEED})`, async () => {
    const task = await loadTask(name);
    const interpreter = new Interpreter(task.program);
    const next = generator(SEED);
    const axes = zeros(3);
    for (let k = 0; k < 300; k++) {
      const state = environment(
        task,
        [...task.model.qpos0],
        zeros(6 + actions),
        Array(actions).fill(NaN),
      );
      for (let i = 0; i < state.uniforms.length; i++) state.uniforms[i] = next();
      interpreter.reset(state);
      const turn = [...state.qpos.slice(3, 7)];
      expect(Math.abs(Math.sqrt(sumOfSquares(turn)) - 1)).toBeLessThan(1e-6);
      expect(2 * Math.acos(Math.min(1, Math.abs(turn[0])))).toBeLessThan(Math.PI / 24 + 1e-3);
      for (const i of [0, 1, 2]) axes[i] = Math.max(axes[i], Math.abs(turn[i + 1]));
      for (const [i, value] of start.entries()) {
        if (i >= 3 && i < 7) continue;
        expect(Math.abs(state.qpos[i] - value), `coordinate ${i}`).toBeLessThan(0.05 + 1e-6);
      }
      expect([...state.qvel]).toEqual(zeros(6 + actions));
    }
    // sin(pi / 48) is the most that an axis can have; 300 starts come near it on each.
    for (const largest of axes) expect(largest).toBeGreaterThan(0.05);
  });

  test("ends below and above its heights", async () => {
    const [low, high] = name === "ant" ? [0.27, 1.3] : [0.74, 2];
    const end = async (z: number) => {
      const task = await loadTask(name);
      const q = [...start];
      q[2] = z;
      const state = environment(task, q, zeros(6 + actions), zeros(actions));
      const { terminations } = new Interpreter(task.program).step(state);
      return Object.keys(terminations).filter((term) => terminations[term]);
    };
    expect(await end(low - 0.001)).toEqual(["fallen"]);
    expect(await end(low + 0.001)).toEqual([]);
    expect(await end(high - 0.001)).toEqual([]);
    expect(await end(high + 0.001)).toEqual(["flown_off"]);
  });
});

test("ant's motors give 150 N m both ways, as published 200 one way", async () => {
  const torque = async (variant: string, action: number) => {
    const task = await loadTask("ant", { variant });
    const state = environment(task, zeros(15), zeros(14), Array(8).fill(action));
    new Interpreter(task.program).control(state);
    const gear = task.model.actuators!.gear;
    return [...state.ctrl].map((control, i) => control * gear[6 * i]);
  };
  expect(await torque("corrected", 1)).toEqual(Array(8).fill(150));
  expect(await torque("corrected", -1)).toEqual(Array(8).fill(-150));
  expect(await torque("corrected", 0.5)).toEqual(Array(8).fill(75));
  expect(await torque("published", 1)).toEqual(Array(8).fill(150));
  expect(await torque("published", -1)).toEqual(Array(8).fill(-200));
  expect(await torque("published", 0.5)).toEqual(Array(8).fill(100));
});

test("humanoid's motors have the published strengths in the published order", async () => {
  const { model } = await loadTask("humanoid");
  expect(model.actuators!.name).toEqual(HUMANOID_ACTIONS);
  expect(HUMANOID_ACTIONS.map((_, i) => model.actuators!.gear[6 * i])).toEqual(HUMANOID_TORQUES);
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

describe("options", () => {
  test("a word that is not one of the choices is refused with the choices", async () => {
    await expect(loadTask("ant", { variant: "publishd" })).rejects.toThrow(
      /option 'variant': expected corrected or published, got publishd; did you mean "published"\?/,
    );
  });
  test("a number may come as text and has to be one", async () => {
    expect((await loadTask("hopper", { height_cap: "0.3" })).options).toEqual({ height_cap: 0.3 });
    for (const text of ["", "high", "Infinity"]) {
      await expect(loadTask("hopper", { height_cap: text })).rejects.toThrow(
        /option 'height_cap': expected a finite number/,
      );
    }
    await expect(loadTask("hopper", { constructor: 1 })).rejects.toThrow(/is not one of its/);
  });
});

describe("loadTask()", () => {
  test("lists the tasks and compiles every one of them", async () => {
    expect(listTasks()).toEqual(expect.arrayContaining(["ant", "hopper", "humanoid", "walker"]));
    for (const name of listTasks()) {
      const task = await loadTask(name);
      expect(task.program.modelHash).toBe(task.model.contentHash);
      expect(task.summary).toMatch(/\.$/);
    }
  });

  test("names the nearest task to one that does not exist", async () => {
    await expect(loadTask("hoper")).rejects.toThrow(
      /task 'hoper' does not exist; did you mean "hopper"\? Tasks: ant, hopper, humanoid, walker/,
    );
    await expect(loadTask("../tasks/hopper")).rejects.toThrow(TaskError);
  });
});
