// compileTask(): whatever expressions a task is made of, its program computes what they say.
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { Opcode, ParameterField, SensorKind } from "@proto/sdpg/task/v1/task_pb.ts";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { compileModel } from "../model/compile.ts";
import { evaluateElementwise } from "./arithmetic.ts";
import { becomes, defineTask, observed, reward, type TaskTerms, type World } from "./declare.ts";
import {
  concat,
  constant,
  type ElementwiseOp,
  Expression,
  type Kept,
  type ReductionOp,
} from "./expression.ts";
import {
  cross,
  multiplyQuaternions,
  normalised,
  rotate,
  rotateBack,
  turn,
  xAxis,
  yAxis,
  zAxis,
} from "./geometry.ts";
import { type Environment, Interpreter } from "./interpret.ts";
import { compileTask } from "./program.ts";

let model: Model;
beforeAll(async () => {
  model = await compileModel(
    fileURLToPath(new URL("../../../tasks/hopper/model.xml", import.meta.url)),
  );
});

/** A task of the hopper's model with the given terms on top of harmless ones. */
function task(terms: (world: World) => Partial<TaskTerms>, name = "example") {
  return defineTask({
    name,
    summary: "For tests.",
    model: new URL("file:///unused.xml"),
    substeps: 1,
    episodeLength: 10,
    terms: (world) => ({
      control: world.action,
      observations: { state: observed(world.qpos) },
      rewards: { alive: reward(1, constant(1)) },
      terminations: {},
      reset: { qpos: world.qpos },
      ...terms(world),
    }),
  });
}

/** Small deterministic generator: values in [0, 1). */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function randomEnvironment(next: () => number): Environment {
  const values = (length: number) => Float32Array.from({ length }, () => 4 * next() - 2);
  return {
    qpos: values(6),
    qvel: values(6),
    ctrl: values(3),
    action: values(3),
    xpos: values(15),
    xquat: values(20),
    xipos: values(15),
    progress: Math.floor(10 * next()),
    uniforms: values(64),
  };
}

/** What an expression means, straight from its definition and without a program. */
function evaluate(
  value: Expression,
  environment: Environment,
  kept: Map<Kept, number[]>,
): number[] {
  const { node, length } = value;
  const at = (values: number[], i: number) => values.length === 1 ? values[0] : values[i];
  const each = (f: (i: number) => number) => Array.from({ length }, (_, i) => f(i));
  switch (node.kind) {
    case "constant":
      return each(() => node.value);
    case "kept":
      return kept.get(node.register)!;
    case "slice":
      return evaluate(node.of, environment, kept).slice(node.start, node.start + length);
    case "concat":
      return node.parts.flatMap((part) => evaluate(part, environment, kept));
    case "load": {
      if (node.op === "LOAD_PROGRESS") return each(() => environment.progress);
      const source = {
        LOAD_QPOS: environment.qpos,
        LOAD_QVEL: environment.qvel,
        LOAD_CTRL: environment.ctrl,
        LOAD_ACTION: environment.action,
        LOAD_XPOS: environment.xpos,
        LOAD_XQUAT: environment.xquat,
        LOAD_XIPOS: environment.xipos,
        LOAD_SENSOR: environment.sensors!,
        LOAD_PARAMETER: environment.parameters!,
        LOAD_ACT: environment.act!,
        RANDOM_UNIFORM: environment.uniforms,
      }[node.op];
      return each((i) => source[node.index + i]);
    }
    case "elementwise": {
      const operands = node.operands.map((operand) => evaluate(operand, environment, kept));
      return each((i) => {
        const [a, b, c] = operands.map((values) => at(values, i));
        return evaluateElementwise(node.op, a, b ?? 0, c ?? 0);
      });
    }
    case "reduction": {
      const [a, b] = node.operands.map((operand) => evaluate(operand, environment, kept));
      if (node.op === "SUM") return [a.reduce((s, v) => Math.fround(s + v), 0)];
      if (node.op === "DOT") return [a.reduce((s, v, i) => Math.fround(v * b[i] + s), 0)];
      const op = node.op === "REDUCE_MAX" ? "MAX" : "MIN";
      return [a.reduce((s, v) => evaluateElementwise(op, s, v, 0))];
    }
  }
}

const unary: ElementwiseOp[] = [
  "NEG",
  "ABS",
  "SQRT",
  "SIN",
  "COS",
  "TANH",
  "FLOOR",
  "WRAP_ANGLE",
  "NOT",
  "EXP",
];
const binary: ElementwiseOp[] = [
  "ADD",
  "SUB",
  "MUL",
  "DIV",
  "MIN",
  "MAX",
  "ATAN2",
  "LESS",
  "LESS_EQUAL",
  "EQUAL",
  "AND",
  "OR",
];
const ternary: ElementwiseOp[] = ["SELECT", "MULADD"];

/** Expressions over the world that share, slice, join, reduce and broadcast at random. */
function randomExpressions(world: World, next: () => number, registers: Kept[]): Expression[] {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)];
  const pool: Expression[] = [
    world.qpos,
    world.qvel,
    world.action,
    world.progress,
    world.body("foot").position,
    constant(0.5),
    constant(-2, 3),
    constant(1),
    ...registers.map((register) => register.value),
  ];
  const withLength = (length: number) => {
    const fitting = pool.filter((e) => e.length === length || e.length === 1);
    return fitting.length > 0 ? pick(fitting) : pool[5];
  };
  for (let n = 0; n < 60; n++) {
    const a = pick(pool);
    const kind = next();
    if (kind < 0.15) {
      const start = Math.floor(next() * a.length);
      pool.push(a.slice(start, start + 1 + Math.floor(next() * (a.length - start))));
    } else if (kind < 0.3) {
      if (a.length < 12) pool.push(concat(a, pick(pool.filter((e) => e.length < 12))));
    } else if (kind < 0.4) {
      const op = pick<ReductionOp>(["SUM", "REDUCE_MAX", "REDUCE_MIN", "DOT"]);
      pool.push(
        new Expression({ kind: "reduction", op, operands: op === "DOT" ? [a, a] : [a] }, 1),
      );
    } else {
      const op = pick(kind < 0.55 ? unary : kind < 0.9 ? binary : ternary);
      const count = unary.includes(op) ? 1 : binary.includes(op) ? 2 : 3;
      const operands = [a];
      while (operands.length < count) operands.push(withLength(a.length));
      const length = Math.max(...operands.map((e) => e.length));
      if (operands.every((e) => e.length === 1 || e.length === length)) {
        pool.push(new Expression({ kind: "elementwise", op, operands }, length));
      }
    }
  }
  return pool;
}

describe("compileTask()", () => {
  test("programs compute what random expressions say, over steps that keep registers", () => {
    for (let seed = 1; seed <= 60; seed++) {
      const next = generator(seed);
      let registers: Kept[] = [];
      let terms: TaskTerms;
      const declaration = task((world) => {
        registers = [world.keep("one", 1, 0.25), world.keep("three", 3, -1), world.keep("two", 2)];
        const pool = randomExpressions(world, next, registers);
        const pick = (length: number) => {
          const fitting = pool.filter((e) => e.length === length);
          return fitting[Math.floor(next() * fitting.length)];
        };
        const scalars = Array.from({ length: 6 }, () => pick(1));
        const observable = pool.filter((e) => !mentions(e, "LOAD_ACTION"));
        return terms = {
          control: pool.filter((e) => e.length === 3).at(-1)!,
          observations: Object.fromEntries(
            observable.slice(-5).map((e, i) => [`seen_${i}`, observed(e)]),
          ),
          rewards: Object.fromEntries(
            scalars.slice(0, 3).map((e, i) => [`term_${i}`, reward(i - 1, e)]),
          ),
          terminations: Object.fromEntries(scalars.slice(3).map((e, i) => [`end_${i}`, e])),
          reset: { qpos: world.qpos },
          // Registers swap their values too, so the order of the updates must not matter.
          keep: [
            becomes(registers[0], pick(1)),
            becomes(registers[1], pick(3)),
            becomes(registers[2], concat(registers[0].value, registers[1].value.at(2))),
          ],
        };
      });
      const program = compileTask(declaration, model);
      const interpreter = new Interpreter(program);
      const kept = new Map(
        registers.map((r) => [r, Array(r.value.length).fill(r.initial) as number[]]),
      );
      for (let t = 0; t < 3; t++) {
        const environment = randomEnvironment(next);
        const expected = (e: Expression) => evaluate(e, environment, kept);
        const at = `seed ${seed}, step ${t}`;

        const control = expected(terms!.control as Expression);
        interpreter.control(environment);
        expect([...environment.ctrl], `${at}, control`).toEqual(control);

        const wanted = Object.entries(terms!.rewards).map(([name, term]) => [
          name,
          Math.fround(expected(term.value)[0] * Math.fround(term.weight)),
        ]);
        const ends = Object.entries(terms!.terminations).map(([name, value]) => [
          name,
          expected(value as Expression)[0] !== 0,
        ]);
        const updates = terms!.keep!.map(({ register, next }) =>
          [register, expected(next as Expression)] as const
        );
        const result = interpreter.step(environment);
        expect(result.rewards, `${at}, rewards`).toEqual(Object.fromEntries(wanted));
        expect(result.terminations, `${at}, terminations`).toEqual(Object.fromEntries(ends));
        for (const [register, values] of updates) kept.set(register, values);

        const seen = interpreter.observe(environment);
        for (const [name, { value }] of Object.entries(terms!.observations)) {
          expect([...seen[name]], `${at}, ${name}`).toEqual(expected(value as Expression));
        }
      }
    }
  });

  test("computes equal parts once and does arithmetic on constants beforehand", () => {
    const twice = (world: World) => world.qvel.square().sum().mul(constant(2).mul(3).add(1));
    const program = compileTask(
      task((world) => ({
        rewards: { one: reward(1, twice(world)), other: reward(-1, twice(world)) },
      })),
      model,
    );
    const count = (op: Opcode) => program.step.filter((i) => i.op === op).length;
    expect(count(Opcode.LOAD_QVEL)).toBe(1);
    expect(count(Opcode.SUM)).toBe(1);
    expect(program.step.filter((i) => i.op === Opcode.CONSTANT).map((i) => i.immediate))
      .toEqual([7, -1]);
  });

  test("puts observations in place without moving them", () => {
    const program = compileTask(
      task((world) => ({
        observations: { state: observed(concat(world.qpos.slice(1), world.qvel)) },
      })),
      model,
    );
    expect(program.observe.map((i) => [i.op, i.dst, i.index, i.length])).toEqual([
      [Opcode.LOAD_QPOS, 0, 1, 5],
      [Opcode.LOAD_QVEL, 5, 0, 6],
    ]);
    expect(program.observations).toMatchObject([{ name: "state", start: 0, length: 11 }]);
  });

  test("reuses registers that nothing reads any more", () => {
    const program = compileTask(
      task((world) => {
        let value = world.qvel;
        for (let i = 0; i < 100; i++) value = value.sin().add(i);
        return { rewards: { long: reward(1, value.sum()) } };
      }),
      model,
    );
    expect(program.registerCount).toBeLessThan(24);
  });

  test("draws uniforms once a call, into the given interval", () => {
    const program = compileTask(
      task((world) => ({
        reset: {
          qpos: concat(world.uniform(-1, 1, 4), world.uniform(2, 3, 2)),
          qvel: world.uniform(0, 10, 6),
        },
      })),
      model,
    );
    const draws = program.reset.filter((i) => i.op === Opcode.RANDOM_UNIFORM);
    expect(draws.map((i) => [i.index, i.length])).toEqual([[0, 4], [4, 2], [6, 6]]);
    const environment = randomEnvironment(generator(1));
    environment.uniforms.fill(0.75);
    new Interpreter(program).reset(environment);
    expect([...environment.qpos]).toEqual([0.5, 0.5, 0.5, 0.5, 2.75, 2.75]);
    expect([...environment.qvel]).toEqual(Array(6).fill(7.5));
  });

  test("registers that swap their values both get the old one", () => {
    const program = compileTask(
      task((world) => {
        const [a, b] = [world.keep("a", 1, 1), world.keep("b", 1, 2)];
        return {
          rewards: { a: reward(1, a.value), b: reward(1, b.value) },
          keep: [becomes(a, b.value), becomes(b, a.value)],
        };
      }),
      model,
    );
    const interpreter = new Interpreter(program);
    const environment = randomEnvironment(generator(1));
    expect(interpreter.step(environment).rewards).toEqual({ a: 1, b: 2 });
    expect(interpreter.step(environment).rewards).toEqual({ a: 2, b: 1 });
    expect(interpreter.step(environment).rewards).toEqual({ a: 1, b: 2 });
  });

  test("the hash changes with a weight and with nothing else", () => {
    const weighted = (weight: number) =>
      compileTask(task((world) => ({ rewards: { r: reward(weight, world.qvel.at(0)) } })), model);
    expect(weighted(2).contentHash).toBe(weighted(2).contentHash);
    expect(weighted(2).contentHash).not.toBe(weighted(3).contentHash);
    expect(weighted(2).modelHash).toBe(model.contentHash);
  });

  test("normal, log-uniform and directional draws have their distributions (seed 3)", () => {
    const program = compileTask(
      task((world) => ({
        reset: {
          qpos: concat(world.normal(1, 2, 3), world.direction()),
          qvel: concat(world.logUniform(0.1, 10), world.normal(0, 1, 4), 0),
        },
      })),
      model,
    );
    const interpreter = new Interpreter(program);
    const next = generator(3);
    const count = 4000;
    const rows = Array.from({ length: count }, () => {
      const environment = randomEnvironment(next);
      environment.uniforms.forEach((_, i) => environment.uniforms[i] = next());
      interpreter.reset(environment);
      return [...environment.qpos, ...environment.qvel];
    });
    const column = (i: number) => rows.map((row) => row[i]);
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
    const deviation = (values: number[]) => {
      const centre = mean(values);
      return Math.sqrt(mean(values.map((v) => (v - centre) ** 2)));
    };
    const error = 4 / Math.sqrt(count);
    for (const i of [0, 1, 2]) {
      expect(Math.abs(mean(column(i)) - 1)).toBeLessThan(2 * error);
      expect(Math.abs(deviation(column(i)) - 2)).toBeLessThan(2 * error);
    }
    // Draws of one call are independent of each other, those that share a pair of uniforms too.
    for (const [i, j] of [[0, 1], [0, 2], [7, 8], [7, 9], [8, 10]]) {
      const centres = [mean(column(i)), mean(column(j))];
      const product = rows.map((row) => (row[i] - centres[0]) * (row[j] - centres[1]));
      const scale = deviation(column(i)) * deviation(column(j));
      expect(Math.abs(mean(product) / scale), `columns ${i}, ${j}`).toBeLessThan(error);
    }
    for (const row of rows) {
      expect(Math.abs(Math.hypot(row[3], row[4], row[5]) - 1)).toBeLessThan(1e-6);
      expect(row[6]).toBeGreaterThanOrEqual(0.1 - 1e-6);
      expect(row[6]).toBeLessThan(10 + 1e-4);
    }
    for (const i of [3, 4, 5]) {
      expect(Math.abs(mean(column(i)))).toBeLessThan(error);
      expect(Math.abs(deviation(column(i)) - Math.sqrt(1 / 3))).toBeLessThan(error);
    }
    expect(Math.abs(mean(column(6).map(Math.log)))).toBeLessThan(2 * error);
  });

  test("quaternions turn vectors as their matrices do (seed 5)", () => {
    const program = compileTask(
      task((world) => {
        const [q, p] = [
          world.qpos.slice(0, 4),
          concat(world.qpos.slice(4), world.qvel.slice(0, 2)),
        ];
        const v = world.qvel.slice(3);
        return {
          observations: Object.fromEntries(
            Object.entries({
              rotate: rotate(q, v),
              back: rotateBack(q, rotate(q, v)),
              product: rotate(multiplyQuaternions(q, p), v),
              twice: rotate(q, rotate(p, v)),
              x: xAxis(q),
              y: yAxis(q),
              z: zAxis(q),
              cross: cross(v, xAxis(q)),
              turn: rotate(turn(zAxis(q), 0.7), xAxis(q)),
              unit: normalised(v),
            }).map(([name, value]) => [name, observed(value)]),
          ),
        };
      }),
      model,
    );
    const interpreter = new Interpreter(program);
    const next = generator(5);
    const unit = () => {
      const values = Array.from({ length: 4 }, () => 2 * next() - 1);
      return values.map((x) => x / Math.hypot(...values));
    };
    for (let k = 0; k < 50; k++) {
      const environment = randomEnvironment(next);
      const [q, p] = [unit(), unit()];
      environment.qpos.set([...q, ...p.slice(0, 2)]);
      environment.qvel.set(p.slice(2));
      const v = [...environment.qvel.slice(3)];
      const seen = interpreter.observe(environment);
      const [w, x, y, z] = q;
      const matrix = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
      ];
      const column = (j: number) => matrix.map((row) => row[j]);
      const crossed = (a: number[], b: number[]) => [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
      ];
      const near = (name: string, expected: ArrayLike<number>) => {
        for (const i of [0, 1, 2]) {
          expect(Math.abs(seen[name][i] - expected[i]), `${name}, state ${k}`).toBeLessThan(3e-6);
        }
      };
      near("rotate", matrix.map((row) => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]));
      near("back", v);
      near("product", seen.twice);
      near("x", column(0));
      near("y", column(1));
      near("z", column(2));
      near("cross", crossed(v, column(0)));
      near("turn", column(0).map((c, i) => c * Math.cos(0.7) + column(1)[i] * Math.sin(0.7)));
      near("unit", v.map((c) => c / Math.hypot(...v)));
    }
  });

  test("randomised constants are stored at the start and can be seen", () => {
    const program = compileTask(
      task((world) => {
        const scale = world.uniform(0.5, 1.5);
        const mass = world.randomise({
          field: "body_mass",
          of: ["leg", "thigh"],
          value: (v) => v.mul(scale),
        });
        const own = world.randomise({
          field: "geom_friction",
          of: ["floor"],
          element: 0,
          value: (v) => v.add(world.uniform(-1, 1, v.length)),
          per: "environment",
        });
        const inertia = world.randomise({
          field: "body_inertia",
          of: ["leg", "thigh"],
          value: (v) => v.mul(scale),
        });
        return {
          observations: {
            state: observed(world.qpos),
            constants: observed(concat(mass, own, inertia), { actor: false }),
          },
        };
      }),
      model,
    );
    const [thigh, leg] = ["thigh", "leg"].map((name) => model.bodies!.name.indexOf(name));
    const [masses, inertias] = [model.bodies!.mass, model.bodies!.inertia];
    const floor = model.geoms!.name.indexOf("floor");
    expect(program.parameters.map((p) => [p.field, p.index, p.perEnvironment])).toEqual([
      [ParameterField.BODY_MASS, leg, false],
      [ParameterField.BODY_MASS, thigh, false],
      [ParameterField.GEOM_FRICTION, 3 * floor, true],
      ...[leg, thigh].flatMap((body) =>
        [0, 1, 2].map((k) => [ParameterField.BODY_INERTIA, 3 * body + k, false])
      ),
    ]);
    const interpreter = new Interpreter(program);
    const environment = { ...randomEnvironment(generator(1)), parameters: new Float32Array(9) };
    environment.uniforms.fill(0.75); // scales by 1.25, adds 0.5
    interpreter.reset(environment);
    expect(environment.parameters[2]).toBe(0);
    environment.uniforms.fill(0.25); // adds -0.5, and must not change what the group has drawn
    interpreter.vary(environment);
    const expected = [
      1.25 * masses[leg],
      1.25 * masses[thigh],
      model.geoms!.friction[3 * floor] - 0.5,
      ...[leg, thigh].flatMap((body) => [0, 1, 2].map((k) => 1.25 * inertias[3 * body + k])),
    ];
    const seen = interpreter.observe(environment);
    expect([...seen.constants]).toEqual([...environment.parameters]);
    expected.forEach((value, i) => expect(seen.constants[i]).toBeCloseTo(value, 5));
  });

  test("a randomised constant never becomes impossible", () => {
    const program = compileTask(
      task((world) => {
        world.randomise({ field: "body_mass", of: ["leg"], value: (v) => v.mul(-3) });
        world.randomise({ field: "dof_damping", of: ["leg"], value: (v) => v.sub(1) });
        world.randomise({ field: "qpos0", of: ["leg"], value: (v) => v.sub(1) });
        return {};
      }),
      model,
    );
    const environment = { ...randomEnvironment(generator(1)), parameters: new Float32Array(3) };
    new Interpreter(program).reset(environment);
    const mass = model.bodies!.mass[model.bodies!.name.indexOf("leg")];
    expect(environment.parameters[0]).toBeCloseTo(mass / 100, 6);
    expect(environment.parameters[1]).toBe(0);
    expect(environment.parameters[2]).toBe(-1);
  });

  test("only what is read is measured, each thing once", () => {
    const program = compileTask(
      task((world) => {
        const [foot, torso] = [world.body("foot"), world.body("torso")];
        return {
          rewards: {
            lift: reward(1, foot.contactForce.at(2)),
            again: reward(-1, world.body("foot").contactForce.norm()),
            press: reward(1, world.geom("foot").touch),
          },
          observations: {
            state: observed(concat(torso.local.angularVelocity, torso.angularVelocity)),
          },
        };
      }),
      model,
    );
    const body = (name: string) => model.bodies!.name.indexOf(name);
    expect(program.sensors.map((s) => [s.kind, s.object, s.local])).toEqual([
      [SensorKind.CONTACT_FORCE, body("foot"), false],
      [SensorKind.TOUCH_GEOM, model.geoms!.name.indexOf("foot"), false],
      [SensorKind.ANGULAR_VELOCITY, body("torso"), true],
      [SensorKind.ANGULAR_VELOCITY, body("torso"), false],
    ]);
    const sensors = Float32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    const environment = { ...randomEnvironment(generator(1)), sensors };
    const interpreter = new Interpreter(program);
    expect([...interpreter.observe(environment).state]).toEqual([5, 6, 7, 8, 9, 10]);
    expect(interpreter.step(environment).rewards).toEqual({
      lift: 3,
      again: -Math.fround(Math.sqrt(14)),
      press: 4,
    });
  });

  const wrong: [string, (world: World) => Partial<TaskTerms>, RegExp][] = [
    [
      "a control of the wrong length",
      (w) => ({ control: w.qpos }),
      /^task 'example': control: expected length 3, got 6/,
    ],
    [
      "a vector as reward",
      (w) => ({ rewards: { high: reward(1, w.qpos) } }),
      /reward 'high': expected length 1, got 6/,
    ],
    [
      "a weight that is not a number",
      (w) => ({ rewards: { high: reward(NaN, w.progress) } }),
      /reward 'high': expected a finite weight/,
    ],
    ["no reward at all", () => ({ rewards: {} }), /rewards: expected at least one/],
    [
      "nothing for the critic",
      (w) => ({ observations: { s: observed(w.qpos, { privileged: false }) } }),
      /at least one for the critic/,
    ],
    [
      "a start of the wrong length",
      (w) => ({ reset: { qpos: w.qvel.slice(1) } }),
      /reset.qpos: expected length 6, got 5/,
    ],
    [
      "an unknown joint",
      (w) => ({ control: w.joint("thigth").position }),
      /joint 'thigth' is not in the model; did you mean "thigh"\?/,
    ],
    [
      "an unknown body",
      (w) => ({ control: w.body("arm").position }),
      /body 'arm' is not in the model. It has 'world', 'torso'/,
    ],
    [
      "operands of different length",
      (w) => ({ control: w.qpos.add(w.action) }),
      /add: expected operands of equal length or of length 1, got 6, 3/,
    ],
    [
      "a slice outside",
      (w) => ({ control: w.qpos.slice(4, 8) }),
      /slice: expected 0 <= start < end <= 6, got \[4, 8\)/,
    ],
    [
      "the action in an observation",
      (w) => ({ observations: { s: observed(w.action) } }),
      /the action is not available in observe, only in control, step; keep it/,
    ],
    [
      "a random number in a reward",
      (w) => ({ rewards: { luck: reward(1, w.uniform(0, 1)) } }),
      /uniform is not available in step, only in reset/,
    ],
    ["two updates of a register", (w) => {
      const r = w.keep("r");
      return { keep: [becomes(r, 1), becomes(r, 2)] };
    }, /keep 'r': it gets two new values/],
    [
      "two registers of one name",
      (w) => ({ keep: [becomes(w.keep("r"), 1), becomes(w.keep("r"), 2)] }),
      /keep 'r': the name is taken/,
    ],
    [
      "a sensor at the start of an episode",
      (w) => ({ reset: { qpos: w.body("foot").linearVelocity.norm().mul(w.qpos) } }),
      /what is measured on a body or geom is not available in reset/,
    ],
    ["a randomised constant of an unknown geom", (w) => {
      w.randomise({ field: "geom_friction", of: ["flor"], value: (v) => v });
      return {};
    }, /randomise geom_friction: geom 'flor' is not in the model; did you mean "floor"\?/],
    ["an element a constant does not have", (w) => {
      w.randomise({ field: "geom_friction", of: ["floor"], element: 3, value: (v) => v });
      return {};
    }, /randomise geom_friction: expected an element from 0 to 2, got 3/],
    ["a constant that is randomised twice", (w) => {
      w.randomise({ field: "body_mass", of: ["foot"], value: (v) => v });
      w.randomise({ field: "body_mass", value: (v) => v });
      return {};
    }, /randomise body_mass: element 4 is randomised twice/],
    ["randomised values of the wrong number", (w) => {
      w.randomise({ field: "body_mass", of: ["foot", "leg"], value: () => w.uniform(1, 2) });
      return {};
    }, /randomise body_mass: expected 2 values from 2, got 1/],
    ["an activation where there is none", (w) => ({ control: w.act }), /no actuator of the model/],
    [
      "an update of the wrong length",
      (w) => ({ keep: [becomes(w.keep("r", 2), w.qpos)] }),
      /keep 'r': expected length 2, got 6/,
    ],
    [
      "a constant beyond float32",
      (w) => ({ control: w.action.mul(1e40) }),
      /constant: expected a finite float32, got 1e\+40/,
    ],
  ];
  test.each(wrong)("refuses %s", (_, terms, message) => {
    expect(() => compileTask(task(terms), model)).toThrow(message);
  });

  test("refuses an option the task does not have, and one that is not a number", () => {
    const declaration = { ...task(() => ({})), options: { cap: { meaning: "", default: 1 } } };
    expect(() => compileTask(declaration, model, { cup: 1 })).toThrow(/did you mean "cap"\?/);
    expect(() => compileTask(declaration, model, { cap: NaN })).toThrow(/expected a finite number/);
  });

  test("defineTask() refuses steps that are not whole numbers", () => {
    expect(() => defineTask({ ...task(() => ({})), substeps: 0 })).toThrow(/substeps: expected/);
    expect(() => defineTask({ ...task(() => ({})), name: "No" })).toThrow(/expected a name/);
    expect(() => defineTask({ ...task(() => ({})), cameras: ["a", "a"] })).toThrow(
      /camera 'a' is named twice/,
    );
  });
});

/** Whether an expression reads a source. */
function mentions(value: Expression, op: string): boolean {
  const { node } = value;
  switch (node.kind) {
    case "load":
      return node.op === op;
    case "slice":
      return mentions(node.of, op);
    case "concat":
      return node.parts.some((part) => mentions(part, op));
    case "elementwise":
    case "reduction":
      return node.operands.some((operand) => mentions(operand, op));
    default:
      return false;
  }
}
