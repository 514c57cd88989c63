// Newton's and Euler's laws of the core's answers, whatever the equations behind them: along the
// accelerations it reports, the momentum and the spin that MuJoCo finds in the motion change by the
// core's ground forces and the weight alone, and the energy by what motors, dampers and constraints do.
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { compileModel, sealModel } from "@sdpg/common/model/compile.ts";
import { GRAVITY, Worst } from "./compare.ts";
import { type Contact, Core } from "./core.ts";
import { Oracle } from "./oracle.ts";
import { randomStates } from "./states.ts";

const SEED = Number(process.env.SDPG_PARITY_SEED ?? 2026);
const COUNT = 200;
/** Step of the differences, s; of fourth order, because impacts accelerate by 1e5 rad/s² and more. */
const H = 1e-5;

type Vector = number[];
const cross = (a: Vector, b: Vector) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];
const plus = (a: Vector, b: Vector, scale = 1) => a.map((x, i) => x + scale * b[i]);
const dot = (a: Vector, b: Vector) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const size = (a: Vector) => Math.hypot(...a);

/** Force and torque about the contact's point that the world exerts on the robot, in the world's axes. */
function fromWorld(contact: Contact, worldIsFirst: boolean): { force: Vector; torque: Vector } {
  const along = (numbers: Vector) =>
    [0, 1, 2].reduce(
      (sum, row) => plus(sum, contact.frame.slice(3 * row, 3 * row + 3), numbers[row]),
      [0, 0, 0],
    );
  const sign = worldIsFirst ? 1 : -1;
  return {
    force: along(contact.force.slice(0, 3)).map((x) => sign * x),
    torque: along(contact.force.slice(3, 6)).map((x) => sign * x),
  };
}

describe.each(["hopper", "walker", "ant", "humanoid"])(`%s (seed ${SEED})`, (name) => {
  test("momentum, spin and energy change by the core's forces", async () => {
    const path = fileURLToPath(new URL(`../../tasks/${name}/model.xml`, import.meta.url));
    const model = await compileModel(path);
    Object.assign(model.option!, { tolerance: 0, iterations: 200, lsIterations: 200 });
    const sealed = sealModel(model);
    using oracle = await Oracle.load(path);
    const states = randomStates(oracle, sealed, COUNT, SEED);
    using core = new Core(sealed, COUNT, "float64");
    core.set(states.map((s) => s.qpos), states.map((s) => s.qvel), states.map((s) => s.ctrl));
    const answers = core.forward();

    // A planar robot's joints leave it two directions and one turn; the world holds the others.
    const free = sealed.joints!.type[0] === 0;
    const directions = free ? [0, 1, 2] : [0, 2];
    const axes = free ? [0, 1, 2] : [1];
    const weight = sealed.totalMass * GRAVITY;
    const { bodyid } = sealed.geoms!;
    const worst = new Worst();
    let onGround = 0;

    states.forEach(({ qpos, qvel, ctrl }, i) => {
      const { qacc, qfrcConstraint, contacts } = answers[i];
      oracle.set(qpos, qvel, ctrl);
      oracle.forward();
      const generalised = plus(oracle.driven(), qfrcConstraint);
      const { centre } = oracle.carried(qpos, qvel);
      const at = (h: number) => oracle.carried(oracle.moved(qpos, qvel, h), plus(qvel, qacc, h));
      const [b2, b1, a1, a2] = [at(-2 * H), at(-H), at(H), at(2 * H)];
      const rate = (of: (motion: typeof a1) => Vector) =>
        of(a1).map((_, k) => (8 * (of(a1)[k] - of(b1)[k]) - (of(a2)[k] - of(b2)[k])) / (12 * H));

      let force = [0, 0, -weight];
      let torque = [0, 0, 0];
      let pull = weight; // What the sums are made of, to measure their errors by.
      for (const contact of contacts) {
        const bodies = contact.geoms.map((geom) => bodyid[geom]);
        if (!bodies.includes(0)) continue; // Between two of the robot's own parts.
        onGround++;
        const ground = fromWorld(contact, bodies[0] === 0);
        force = plus(force, ground.force);
        torque = plus(torque, ground.torque);
        torque = plus(torque, cross(plus(contact.pos, centre, -1), ground.force));
        pull += size(ground.force);
      }
      const [momentum, spin] = [rate((m) => m.momentum), rate((m) => m.spin)];
      const [power] = rate((m) => [m.energy]);
      const powers = generalised.map((f, k) => Math.abs(f * qvel[k]));
      const miss = (a: Vector, b: Vector, of: number[]) =>
        Math.max(...of.map((k) => Math.abs(a[k] - b[k]))) / pull;
      worst.add("momentum", miss(momentum, force, directions), i);
      worst.add("spin", miss(spin, torque, axes), i);
      worst.add(
        "energy",
        Math.abs(power - dot(generalised, qvel)) / Math.max(weight, ...powers),
        i,
      );
    });
    console.log(JSON.stringify({ name, onGround, worst: worst.table() }));
    expect(onGround).toBeGreaterThan(COUNT / 4);
    expect(worst.above(1e-8)).toEqual([]);
  });
});
