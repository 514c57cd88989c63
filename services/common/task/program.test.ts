// compileTask(): whatever expressions a task is made of, its program computes what they say.
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { Opcode } from "@proto/sdpg/task/v1/task_pb.ts";
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
