// What tasks measure (core/sensors.h) against MuJoCo's own sensors: velocities of the state after a
// step, accelerations and contact forces of the step itself. Batches in float32 show their states
// and measurements as observations; MuJoCo is given the same states and controls.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { compileModel } from "@sdpg/common/model/compile.ts";
import { mujoco as loadMujoco } from "@sdpg/common/model/mujoco.ts";
import { becomes, defineTask, observed, reward } from "@sdpg/common/task/declare.ts";
import { concat, constant } from "@sdpg/common/task/expression.ts";
import { compileTask } from "@sdpg/common/task/program.ts";
import { declaration } from "@sdpg/tasks/mod.ts";
import { Batch } from "./batch.ts";
import { generator } from "./states.ts";

const SEED = Number(process.env.SDPG_PARITY_SEED ?? 2026);
const ENVIRONMENTS = 20;
const STEPS = 60;
const COMPARED_EVERY = 4;
/** Relative to the largest number of the quantity in the comparison, float32. */
const TOLERANCE = 1e-4;

/** MuJoCo's sensor for each thing that is measured: kind -> [tag, attributes] for a body. */
const SENSORS: Record<string, (body: string) => string> = {
  linearVelocity: (b) => `<framelinvel objtype="xbody" objname="${b}"/>`,
  angularVelocity: (b) => `<frameangvel objtype="xbody" objname="${b}"/>`,
  localLinearVelocity: (b) => `<velocimeter site="at_${b}"/>`,
  localAngularVelocity: (b) => `<gyro site="at_${b}"/>`,
  linearAcceleration: (b) => `<framelinacc objtype="xbody" objname="${b}"/>`,
  angularAcceleration: (b) => `<frameangacc objtype="xbody" objname="${b}"/>`,
  localLinearAcceleration: (b) => `<accelerometer site="at_${b}"/>`,
};
const VELOCITIES = Object.keys(SENSORS).slice(0, 4);

/** The model with a site at the origin of every body and MuJoCo's sensors on them. */
function withSensors(path: string, bodies: string[]): string {
  return readFileSync(path, "utf8")
    .replaceAll(
      /<body name="([a-z_0-9]+)"[^>]*>/g,
      (tag, name) => `${tag}<site name="at_${name}"/>`,
    )
    .replace(
      "</mujoco>",
      `<sensor>${
        bodies.map((body) => Object.values(SENSORS).map((s) => s(body)).join("")).join("")
      }</sensor></mujoco>`,
    );
}

/** Largest difference of two rows, and the largest number in them. */
class Agreement {
  private difference = 0;
  private scale = 1;
  add(ours: ArrayLike<number>, theirs: ArrayLike<number>): void {
    for (let i = 0; i < theirs.length; i++) {
      this.difference = Math.max(this.difference, Math.abs(ours[i] - theirs[i]));
      this.scale = Math.max(this.scale, Math.abs(theirs[i]));
    }
  }
  get relative(): number {
    return this.difference / this.scale;
  }
  get largest(): number {
    return this.scale;
  }
}

describe.each(["hopper", "ant", "humanoid"])("%s", (name) => {
  test(`measures what MuJoCo measures (seed ${SEED})`, async () => {
    const original = await declaration(name);
    const path = fileURLToPath(original.model);
    const model = await compileModel(path);
    const bodies = model.bodies!.name.slice(1);
    const geoms = model.geoms!.name;

    const task = defineTask({
      ...original,
      substeps: 1,
      episodeLength: 10 * STEPS,
      terms: (world, options) => {
        const action = world.keep("action", world.actionSize);
        const terms = original.terms(world, options);
        const measured = bodies.map((body) => {
          const { local, ...rest } = world.body(body);
          return concat(
            ...["linearVelocity", "angularVelocity"].map((of) => rest[of as "linearVelocity"]),
            local.linearVelocity,
            local.angularVelocity,
            rest.linearAcceleration,
            rest.angularAcceleration,
            local.linearAcceleration,
            rest.contactForce,
            rest.touch,
          );
        });
        return {
          control: world.action,
          observations: {
            state: observed(concat(world.qpos, world.qvel, action.value)),
            measured: observed(concat(...measured)),
            touched: observed(concat(...geoms.map((geom) => world.geom(geom).touch))),
          },
          rewards: { none: reward(1, constant(0)) },
          terminations: {},
          keep: [becomes(action, world.action)],
          reset: terms.reset,
        };
      },
    });
    const program = compileTask(task, model);
    using batch = new Batch({
      model,
      task: program,
      nominals: ENVIRONMENTS,
      auxiliariesPerNominal: 0,
      horizon: STEPS,
      seed: BigInt(SEED),
    });

    const mujoco = await loadMujoco();
    const files = new mujoco.MjVFS();
    files.addBuffer("model.xml", new TextEncoder().encode(withSensors(path, bodies)));
    const mj = mujoco.MjModel.from_xml_path("model.xml", files);
    files.delete();
    const data = new mujoco.MjData(mj);
    mj.opt.tolerance = 0;
    mj.opt.iterations = 50;
    const force = new mujoco.DoubleBuffer(6);
    try {
      const [nq, nv, nu] = [mj.nq, mj.nv, mj.nu];
      const agreements = new Map<string, Agreement>();
      const compare = (what: string, ours: ArrayLike<number>, theirs: ArrayLike<number>) => {
        if (!agreements.has(what)) agreements.set(what, new Agreement());
        agreements.get(what)!.add(ours, theirs);
      };
      const next = generator(SEED);
      batch.begin(0, true);
      let contacts = 0;
      for (let t = 0; t < STEPS; t++) {
        const mean = Float32Array.from({ length: ENVIRONMENTS * nu }, () => 2 * next() - 1);
        batch.step(t, mean, new Float32Array(nu));
        if (t % COMPARED_EVERY !== 0) continue;
        for (let e = 0; e < ENVIRONMENTS; e++) {
          const before = batch.row("privileged", t, e);
          const after = batch.row("privileged_successor", t, e);
          const ours = after.slice(nq + nv + nu);
          const kinds = Object.keys(SENSORS);
          const width = 3 * kinds.length + 4;
          const theirs = () => Array.from(data.sensordata as Float64Array);

          mujoco.mj_resetData(mj, data);
          data.qpos.set(before.slice(0, nq));
          data.qvel.set(before.slice(nq, nq + nv));
          data.ctrl.set(after.slice(nq + nv, nq + nv + nu));
          mujoco.mj_forward(mj, data);
          let sensed = theirs();
          bodies.forEach((_, b) =>
            kinds.forEach((kind, k) => {
              if (VELOCITIES.includes(kind)) return;
              const at = 3 * (b * kinds.length + k);
              compare(
                kind,
                ours.slice(b * width + 3 * k, b * width + 3 * k + 3),
                sensed.slice(at, at + 3),
              );
            })
          );
          // Contact forces, by the body and by the geom they act on.
          const onBody = bodies.map(() => [0, 0, 0]);
          const bodyTouch = bodies.map(() => 0);
          const geomTouch = geoms.map(() => 0);
          const list = data.contact;
          contacts += list.size();
          for (let c = 0; c < list.size(); c++) {
            const contact = list.get(c)!;
            mujoco.mj_contactForce(mj, data, c, force);
            const f = force.GetView() as Float64Array;
            const frame = contact.frame as Float64Array;
            for (const [geom, sign] of [[contact.geom1, -1], [contact.geom2, 1]]) {
              geomTouch[geom] += f[0];
              const body = mj.geom_bodyid[geom] - 1;
              if (body < 0) continue;
              bodyTouch[body] += f[0];
              for (let i = 0; i < 3; i++) {
                onBody[body][i] += sign *
                  (frame[i] * f[0] + frame[3 + i] * f[1] + frame[6 + i] * f[2]);
              }
            }
            contact.delete();
          }
          list.delete();
          bodies.forEach((_, b) => {
            const at = b * width + 3 * kinds.length;
            compare("contactForce", ours.slice(at, at + 3), onBody[b]);
            compare("touch", ours.slice(at + 3, at + 4), [bodyTouch[b]]);
          });
          compare("geomTouch", ours.slice(bodies.length * width), geomTouch);

          // Velocities belong to the state after the step.
          data.qpos.set(after.slice(0, nq));
          data.qvel.set(after.slice(nq, nq + nv));
          mujoco.mj_forward(mj, data);
          sensed = theirs();
          bodies.forEach((_, b) =>
            VELOCITIES.forEach((kind, k) => {
              const at = 3 * (b * kinds.length + k);
              compare(
                kind,
                ours.slice(b * width + 3 * k, b * width + 3 * k + 3),
                sensed.slice(at, at + 3),
              );
            })
          );
        }
      }
      batch.end();
      expect(contacts).toBeGreaterThan(ENVIRONMENTS);
      const relative = Object.fromEntries([...agreements].map(([k, a]) => [k, a.relative]));
      console.log(JSON.stringify({ model: name, relative_errors: relative }));
      for (const [what, agreement] of agreements) {
        expect(agreement.largest, `${what} was never exercised`).toBeGreaterThan(1);
        expect(agreement.relative, `${name}, ${what}, seed ${SEED}`).toBeLessThan(TOLERANCE);
      }
    } finally {
      force.delete();
      data.delete();
      mj.delete();
    }
  });
});
