// Features of the core that hopper and walker do not use, against MuJoCo with its solver run to
// convergence: small models written for the purpose, random states, double precision.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { compileModel, sealModel } from "@sdpg/common/model/compile.ts";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { Core } from "../../../test/parity/core.ts";
import { Oracle } from "../../../test/parity/oracle.ts";
import { generator } from "../../../test/parity/states.ts";

const SEED = 4711;
const COUNT = 150;

// Rotated bodies and inertias without symmetry, two joints on a body, springs away from the
// reference, position and velocity servos, force limits, armature, a side branch and a welded body.
const MACHINE = `<mujoco model="machine">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="0.004" gravity="0.3 -0.2 -9.5"/>
  <worldbody>
    <body name="base" pos="0.1 0.2 1" quat="0.9 0.1 -0.3 0.2">
      <inertial pos="0.02 0.01 -0.03" quat="0.8 0.2 0.4 -0.1" mass="2" diaginertia="0.02 0.03 0.04"/>
      <joint name="slide" type="slide" axis="1 2 3" ref="0.1" stiffness="30" springref="0.3" damping="1.5"/>
      <joint name="turn" type="hinge" axis="-1 1 0.5" pos="0.1 0 0.05" armature="0.05"/>
      <body name="fixed" pos="0 0.2 0.1" quat="0.7 0 0.7 0">
        <geom type="box" size="0.1 0.05 0.02" density="800" contype="0" conaffinity="0"/>
        <body name="branch" pos="0.2 0 0">
          <joint name="wrist" type="hinge" axis="0 0 1" ref="-0.4" range="-1 0.6" margin="0.1"
            solreflimit="0.03 0.7" solimplimit="0.5 0.97 0.3 0.3 3" damping="0.2"/>
          <geom type="sphere" size="0.07" pos="0.1 0 0" contype="0" conaffinity="0"/>
        </body>
      </body>
      <body name="arm" pos="0.3 0 0" euler="0.4 -0.2 0.9">
        <joint name="elbow" type="hinge" axis="0 1 1" pos="-0.1 0 0" range="-0.5 0.5"
          solreflimit="-800 -20" solimplimit="0.9 0.6 0.2 0.5 1"/>
        <joint name="push" type="slide" axis="1 0 0" range="-0.1 0.1" solimplimit="0.9 0.9 0.01"/>
        <geom type="capsule" fromto="0 0 0 0.3 0.1 0" size="0.04" contype="0" conaffinity="0"/>
      </body>
    </body>
  </worldbody>
  <actuator>
    <position joint="elbow" kp="40" kv="3" ctrlrange="-1 1" forcerange="-15 12"/>
    <velocity joint="turn" kv="2" gear="1.7"/>
    <motor joint="slide" gear="-12" ctrlrange="-0.5 0.7"/>
    <general joint="push" gainprm="20" biastype="affine" biasprm="1 -30 -4"/>
  </actuator>
</mujoco>`;

// Every pair of shapes, between and within trees; frictionless and frictional contacts; margins and
// gaps; priority and mixing; the direct solref format; tilted planes; excluded and filtered pairs.
const CROWD = `<mujoco model="crowd">
  <option timestep="0.003" impratio="2.5"/>
  <default><geom density="700" solimp="0.8 0.95 0.02 0.4 2"/></default>
  <worldbody>
    <geom name="floor" type="plane" size="0 0 1" euler="5 -8 0" friction="0.4" margin="0.03" gap="0.02"/>
    <geom name="post" type="capsule" fromto="0.5 -0.5 0.2 0.5 0.5 0.3" size="0.08" condim="1"/>
    <body name="tray" pos="-0.6 0 0.1" euler="0 20 0">
      <geom name="tray" type="plane" size="1 1 1" conaffinity="2" contype="2" solref="-900 -15"/>
    </body>
    <body name="a" pos="0 0 0.4">
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>
      <joint type="slide" axis="0 0 1"/><joint type="hinge" axis="1 0 0"/><joint type="hinge" axis="0 1 0"/>
      <geom name="a1" type="capsule" size="0.09 0.2" friction="0.8" solmix="3" solref="0.03 0.9" margin="0.01"/>
      <geom name="a2" type="sphere" size="0.12" pos="0 0 0.3" priority="2" friction="0.3" solref="0.015 1.3"/>
      <body name="a_arm" pos="0.1 0 -0.2">
        <joint type="hinge" axis="0 0 1"/>
        <geom name="a3" type="capsule" fromto="0 0 0 0.4 0 0" size="0.05" condim="1"/>
        <body name="a_hand" pos="0.4 0 0">
          <joint type="hinge" axis="0 1 0"/>
          <geom name="a4" type="capsule" fromto="0 0 0 -0.05 0 0.4" size="0.06" contype="3" conaffinity="3"/>
        </body>
      </body>
    </body>
    <body name="b" pos="0.3 0.1 0.5">
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/>
      <joint type="slide" axis="0 0 1"/><joint type="hinge" axis="1 0 0"/>
      <geom name="b1" type="sphere" size="0.15" solimp="0.7 0.9 0.05 0.5 3" contype="3" conaffinity="3"/>
      <body name="b_arm" pos="0 0.2 0">
        <joint type="hinge" axis="1 1 0"/>
        <geom name="b2" type="capsule" fromto="-0.3 0 0 0.3 0 0" size="0.07" margin="0.04" gap="0.05" solmix="0.2"/>
      </body>
      <body name="b_tip" pos="0 -0.2 0.1">
        <joint type="hinge" axis="0 0 1"/>
        <geom name="b3" type="sphere" size="0.09"/>
      </body>
    </body>
  </worldbody>
  <contact><exclude body1="a_hand" body2="b_tip"/></contact>
</mujoco>`;

// Capsules that can only slide: parallel to each other and to the floor, so that both ends touch.
const LOGS = `<mujoco model="logs">
  <worldbody>
    <geom type="plane" size="0 0 1"/>
    <body name="low" pos="0 0 0.1">
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/>
      <geom type="capsule" euler="90 0 0" size="0.1 0.3"/>
    </body>
    <body name="high" pos="0.05 0.2 0.28">
      <joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 1 0"/><joint type="slide" axis="0 0 1"/>
      <geom type="capsule" euler="90 0 0" size="0.1 0.4"/>
    </body>
  </worldbody>
</mujoco>`;

const folder = mkdtempSync(join(tmpdir(), "sdpg-features-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function load(name: string, xml: string): Promise<{ model: Model; oracle: Oracle }> {
  const path = join(folder, `${name}.xml`);
  writeFileSync(path, xml);
  const model = await compileModel(path);
  Object.assign(model.option!, { tolerance: 0, iterations: 200, lsIterations: 200 });
  return { model: sealModel(model), oracle: await Oracle.load(path) };
}

function difference(a: number[], b: number[], floor: number): number {
  const error = Math.max(...a.map((x, i) => Math.abs(x - b[i])));
  return error / Math.max(floor, ...b.map(Math.abs));
}

/** Steps and evaluates random states in both; returns the worst error and how many contacts there were. */
async function compare(name: string, xml: string, spread: number) {
  const { model, oracle } = await load(name, xml);
  using _ = oracle;
  using core = new Core(model, COUNT, "float64");
  const random = generator(SEED);
  const around = (n: number, size: number) =>
    Array.from({ length: n }, () => (2 * random() - 1) * size);
  const qpos = Array.from({ length: COUNT }, () => {
    const offset = around(core.nq, spread);
    return model.qpos0.map((q, i) => q + offset[i]);
  });
  const qvel = Array.from({ length: COUNT }, () => around(core.nv, 3));
  const ctrl = Array.from({ length: COUNT }, () => around(core.nu, 1.5));
  core.set(qpos, qvel, ctrl);
  const forward = core.forward();
  core.step(3);
  const after = core.get();
  let worst = 0, contacts = 0, shared = 0;
  for (let e = 0; e < COUNT; e++) {
    oracle.set(qpos[e], qvel[e], ctrl[e]);
    const wanted = oracle.forward();
    expect(oracle.residual(), `${name}: the oracle converged at state ${e}`).toBeLessThan(1e-9);
    const errors = {
      smooth: difference(forward[e].qaccSmooth, wanted.qaccSmooth, 10),
      qacc: difference(forward[e].qacc, wanted.qacc, 10),
      force: difference(forward[e].qfrcConstraint, wanted.qfrcConstraint, 10),
      velocity: 0,
      position: 0,
    };
    oracle.set(qpos[e], qvel[e], ctrl[e]);
    for (let s = 0; s < 3; s++) oracle.step();
    const reached = oracle.get();
    errors.velocity = difference(after[e].qvel, reached.qvel, 1);
    errors.position = difference(after[e].qpos, reached.qpos, 1);
    for (const [quantity, error] of Object.entries(errors)) {
      expect(error, `${name}: ${quantity} at state ${e}, seed ${SEED}`).toBeLessThan(1e-9);
      worst = Math.max(worst, error);
    }
    contacts += forward[e].contacts.length;
    const pairs = forward[e].contacts.map((c) => c.geoms.join());
    if (new Set(pairs).size < pairs.length) shared++;
  }
  expect(core.status()).toEqual(Array(COUNT).fill(0));
  return { worst, contacts, shared };
}

beforeAll(() => console.log(`seed ${SEED}`));

test("the core agrees with MuJoCo when springs, servos and odd inertias act", async () => {
  const { worst } = await compare("machine", MACHINE, 0.5);
  console.log("machine: worst error", worst);
});

test("the core agrees with MuJoCo when all pairs of shapes touch", async () => {
  const { worst, contacts } = await compare("crowd", CROWD, 0.3);
  console.log("crowd: worst error", worst, "contacts per state", contacts / COUNT);
  expect(contacts).toBeGreaterThan(2 * COUNT);
});

test("the core agrees with MuJoCo when parallel capsules touch at two points", async () => {
  const { worst, contacts, shared } = await compare("logs", LOGS, 0.08);
  console.log("logs: worst error", worst, "contacts per state", contacts / COUNT);
  expect(shared).toBeGreaterThan(COUNT / 4);
});
