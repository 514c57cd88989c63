// gpu-sim's evaluator of task programs against the interpreter. Batches run tasks whose
// observations also contain everything a program can read of the state ("probe"), so that the
// interpreter is given the very same numbers and must arrive at the same rewards, terminations
// and observations.
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { Opcode } from "@proto/sdpg/task/v1/task_pb.ts";
import { compileModel } from "@sdpg/common/model/compile.ts";
import {
  becomes,
  defineTask,
  observed,
  reward,
  type TaskDeclaration,
  type TaskTerms,
  type World,
} from "@sdpg/common/task/declare.ts";
import { concat, constant, type ElementwiseOp, Expression } from "@sdpg/common/task/expression.ts";
import { type Environment, Interpreter, type StepResult } from "@sdpg/common/task/interpret.ts";
import { compileTask } from "@sdpg/common/task/program.ts";
import { declaration, listTasks } from "@sdpg/tasks/mod.ts";
import { Batch } from "./batch.ts";
import { instructionSets } from "./core.ts";
import { generator } from "./states.ts";

const SEED = Number(process.env.SDPG_PARITY_SEED ?? 2026);
const ENVIRONMENTS = 24; // not a multiple of the lanes of any instruction set but the smallest
const STEPS = 6;

/** Everything the state holds, as one observation for the critic. */
function probe(world: World, action: Expression) {
  const bodies = world.model.bodies!.name.map((name) => world.body(name));
  return observed(
    concat(
      world.qpos,
      world.qvel,
      action,
      world.progress,
      ...bodies.map((body) => body.position),
      ...bodies.map((body) => body.orientation),
      ...bodies.map((body) => body.centreOfMass),
    ),
    { actor: false },
  );
}

/** A probe's values back in the form that the interpreter reads. */
function environmentOf(values: number[], model: Model): Environment {
  let at = 0;
  const take = (n: number) => Float32Array.from(values.slice(at, at += n));
  const [nq, nv, nu, nb] = [
    model.qpos0.length,
    model.dofs!.bodyid.length,
    model.actuators!.name.length,
    model.bodies!.name.length,
  ];
  const [qpos, qvel, action, [progress]] = [take(nq), take(nv), take(nu), take(1)];
  return {
    qpos,
    qvel,
    action,
    progress,
    xpos: take(3 * nb),
    xquat: take(4 * nb),
    xipos: take(3 * nb),
    // Tasks here pass the action on as control.
    ctrl: action,
    uniforms: new Float32Array(0),
  };
}

/** A task with the probe, starts far apart and registers that remember the action. */
function probed(original: TaskDeclaration, extra: (world: World) => Partial<TaskTerms>) {
  return defineTask({
    ...original,
    terms: (world, options) => {
      const terms = original.terms(world, options);
      const action = world.keep("probed_action", world.actionSize);
      const added = extra(world);
      return {
        ...terms,
        ...added,
        observations: {
          ...terms.observations,
          ...added.observations,
          probe: probe(world, action.value),
        },
        keep: [...(terms.keep ?? []), ...(added.keep ?? []), becomes(action, world.action)],
        reset: {
          qpos: world.qpos.add(world.uniform(-1.5, 1.5, world.qpos.length)),
          qvel: world.uniform(-5, 5, world.qvel.length),
        },
      };
    },
  });
}

interface Compared {
  ours: StepResult;
  theirs: { terms: number[]; reward: number; terminated: boolean };
  seen: Record<string, Float32Array>;
  written: Record<string, number[]>;
}

/** Rolls a batch out and runs the interpreter on what the batch says its states were. */
function rollOut(
  task: TaskDeclaration,
  model: Model,
  visit: (compared: Compared, where: string) => void,
): void {
  const program = compileTask(task, model);
  using batch = new Batch({
    model,
    task: program,
    nominals: ENVIRONMENTS,
    auxiliariesPerNominal: 0,
    horizon: STEPS,
    seed: BigInt(SEED),
  });
  const next = generator(SEED);
  const nu = program.actionSize;
  const offsets = new Map<string, number>();
  let width = 0;
  for (const observation of program.observations) {
    offsets.set(observation.name, width);
    width += observation.length;
  }
  const written = (t: number, e: number) => {
    const row = batch.row("privileged_successor", t, e);
    return Object.fromEntries(
      program.observations.map(({ name, length }) => [
        name,
        row.slice(offsets.get(name)!, offsets.get(name)! + length),
      ]),
    );
  };
  const interpreters = Array.from({ length: ENVIRONMENTS }, () => new Interpreter(program));
  batch.begin(0, true);
  for (let t = 0; t < STEPS; t++) {
    const mean = Float32Array.from({ length: ENVIRONMENTS * nu }, () => 4 * next() - 2);
    batch.step(t, mean, new Float32Array(nu));
    for (let e = 0; e < ENVIRONMENTS; e++) {
      const where = `seed ${SEED}, step ${t}, environment ${e}`;
      const values = written(t, e);
      const environment = environmentOf(values.probe, model);
      expect(batch.row("fault", t, e)[0] & 3, where).toBe(0);
      visit({
        ours: interpreters[e].step(environment),
        theirs: {
          terms: batch.row("reward_terms", t, e),
          reward: batch.row("reward", t, e)[0],
          terminated: batch.row("terminated", t, e)[0] !== 0,
        },
        seen: interpreters[e].observe(environment),
        written: values,
      }, where);
      if (batch.row("done", t, e)[0] !== 0) interpreters[e].initialise();
    }
  }
  batch.end();
}

/** Distance in units of the larger number, or of `floor`. */
function distance(a: number, b: number, floor = 1): number {
  if (Object.is(a, b) || a === b) return 0;
  if (Number.isNaN(a) && Number.isNaN(b)) return 0;
  return Math.abs(a - b) / Math.max(floor, Math.abs(a), Math.abs(b));
}

describe.each(listTasks())("%s in gpu-sim", (name) => {
  test(`pays, ends and shows what the interpreter says (seed ${SEED})`, async () => {
    const original = await declaration(name);
    const model = await compileModel(fileURLToPath(original.model));
    // Dot products round once or twice a term, as the machine does it; all else here rounds alike.
    const fused = compileTask(original, model).observe.some(({ op }) => op === Opcode.DOT);
    let terminated = 0;
    for (const isa of instructionSets(model)) {
      Deno.env.set("SDPG_ISA", isa);
      try {
        rollOut(probed(original, () => ({})), model, ({ ours, theirs, seen, written }, where) => {
          const at = `${isa}, ${where}`;
          const terms = Object.values(ours.rewards);
          theirs.terms.forEach((term, k) =>
            expect(distance(term, terms[k]), `${at}, term ${k}`).toBeLessThan(2e-6)
          );
          expect(distance(theirs.reward, ours.reward), at).toBeLessThan(4e-6);
          expect(theirs.terminated, at).toBe(ours.terminated);
          for (const [observation, values] of Object.entries(seen)) {
            if (!fused) {
              expect(written[observation], `${at}, ${observation}`).toEqual([...values]);
            }
            values.forEach((value, i) =>
              expect(distance(written[observation][i], value), `${at}, ${observation}[${i}]`)
                .toBeLessThan(2e-6)
            );
          }
          terminated += theirs.terminated ? 1 : 0;
        });
      } finally {
        Deno.env.delete("SDPG_ISA");
      }
    }
    expect(terminated).toBeGreaterThan(0);
  });
});

/** Operations whose result is rounded once from exact operands everywhere. */
const exact: ElementwiseOp[] = [
  "ADD",
  "SUB",
  "MUL",
  "DIV",
  "MIN",
  "MAX",
  "NEG",
  "ABS",
  "SQRT",
  "FLOOR",
  "LESS",
  "LESS_EQUAL",
  "EQUAL",
  "AND",
  "OR",
  "NOT",
  "SELECT",
];
const operandsOf = (op: ElementwiseOp) =>
  ["NEG", "ABS", "SQRT", "FLOOR", "NOT", "EXP", "LOG", "SIN", "COS", "TANH", "WRAP_ANGLE"].includes(
      op,
    )
    ? 1
    : ["SELECT", "MULADD"].includes(op)
    ? 3
    : 2;
const elementwise = (op: ElementwiseOp, operands: Expression[]) =>
  new Expression(
    { kind: "elementwise", op, operands },
    Math.max(...operands.map((operand) => operand.length)),
  );

describe("gpu-sim's evaluator", () => {
  let hopper: TaskDeclaration;
  let model: Model;
  beforeAll(async () => {
    hopper = await declaration("hopper");
    model = await compileModel(fileURLToPath(hopper.model));
  });

  test("computes random programs of exactly rounded operations bit for bit", () => {
    for (let k = 0; k < 12; k++) {
      const next = generator(SEED + k);
      const pick = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)];
      const task = probed(hopper, (world) => {
        const memory = world.keep("memory", 3, 0.5);
        const pool = [
          world.qpos,
          world.qvel,
          world.progress,
          world.body("foot").orientation,
          memory.value,
          constant(0.5),
          constant(-3, 6),
        ];
        for (let n = 0; n < 50; n++) {
          const a = pick(pool);
          const roll = next();
          if (roll < 0.15) {
            const start = Math.floor(next() * a.length);
            pool.push(a.slice(start, start + 1 + Math.floor(next() * (a.length - start))));
          } else if (roll < 0.25 && a.length < 10) {
            pool.push(concat(a, pick(pool.filter((e) => e.length < 10))));
          } else if (roll < 0.35) {
            pool.push(pick([a.sum(), a.largest(), a.smallest()]));
          } else {
            const op = pick(exact);
            const fitting = pool.filter((e) => e.length === a.length || e.length === 1);
            const operands = [
              a,
              ...Array.from({ length: operandsOf(op) - 1 }, () => pick(fitting)),
            ];
            pool.push(elementwise(op, operands));
          }
        }
        // What is not finite would make the environment faulty: it is shown as 0 instead.
        const shown = (e: Expression) => e.abs().lessEqual(1e6).select(e, 0);
        const scalars = pool.filter((e) => e.length === 1);
        return {
          observations: { seen: observed(concat(...pool.slice(-6).map(shown)), { actor: false }) },
          rewards: Object.fromEntries(
            Array.from(
              { length: 4 },
              (_, i) => [`term_${i}`, reward(i - 1.5, shown(pick(scalars)))],
            ),
          ),
          terminations: { end: pick(scalars).less(-2) },
          keep: [becomes(memory, shown(pick(pool.filter((e) => e.length === 3))))],
        };
      });
      rollOut(task, model, ({ ours, theirs, seen, written }, where) => {
        const at = `program ${k}, ${where}`;
        expect(theirs.terms, at).toEqual(Object.values(ours.rewards));
        expect(theirs.reward, at).toBe(ours.reward);
        expect(theirs.terminated, at).toBe(ours.terminated);
        expect(written.seen, at).toEqual([...seen.seen]);
      });
    }
  });

  test("computes transcendental operations within a few units in the last place", () => {
    const task = probed(hopper, (world) => {
      const x = concat(world.qvel, world.qpos.mul(0.1));
      const y = concat(world.qpos, world.qvel);
      return {
        observations: {
          EXP: observed(x.clip(-9, 9).exp(), { actor: false }),
          LOG: observed(x.abs().add(1e-3).log(), { actor: false }),
          SIN: observed(x.sin(), { actor: false }),
          COS: observed(x.cos(), { actor: false }),
          TANH: observed(x.tanh(), { actor: false }),
          ATAN2: observed(x.atan2(y), { actor: false }),
          WRAP_ANGLE: observed(x.mul(3).wrapAngle(), { actor: false }),
          MULADD: observed(x.mulAdd(y, 0.25), { actor: false }),
          DOT: observed(x.dot(y), { actor: false }),
        },
      };
    });
    const worst = new Map<string, number>();
    for (const isa of instructionSets(model)) {
      Deno.env.set("SDPG_ISA", isa);
      try {
        rollOut(task, model, ({ seen, written }, where) => {
          for (
            const name of [
              "EXP",
              "LOG",
              "SIN",
              "COS",
              "TANH",
              "ATAN2",
              "MULADD",
              "DOT",
              "WRAP_ANGLE",
            ]
          ) {
            seen[name].forEach((value, i) => {
              // Against a floor, since values near 0 come from the difference of larger ones.
              const floor = name === "DOT"
                ? 30
                : name === "WRAP_ANGLE"
                ? 10
                : name === "MULADD"
                ? 5
                : 0.1;
              const error = distance(value, written[name][i], floor);
              worst.set(name, Math.max(error, worst.get(name) ?? 0));
              expect(error, `${isa}, ${where}, ${name}[${i}]`).toBeLessThan(1e-6);
            });
          }
        });
      } finally {
        Deno.env.delete("SDPG_ISA");
      }
    }
    console.log(JSON.stringify({ relative_errors: Object.fromEntries(worst) }));
  });
});
