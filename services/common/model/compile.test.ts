// compileModel(): what MuJoCo makes of our models agrees with the tables they were written from,
// and what the core cannot simulate is refused by file, element and reason.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { afterAll, describe, expect, test } from "vitest";
import { type Model, ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import { compileModel, ModelError, sealModel } from "./compile.ts";

const folder = mkdtempSync(join(tmpdir(), "sdpg-model-"));
afterAll(() => rmSync(folder, { recursive: true }));

function taskModel(name: string): Promise<Model> {
  return compileModel(fileURLToPath(new URL(`../../../tasks/${name}/model.xml`, import.meta.url)));
}

function written(xml: string, name = "model.xml"): string {
  const path = join(folder, name);
  writeFileSync(path, xml);
  return path;
}

function each<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

function cross(a: number[], b: number[]): number[] {
  return each(3, (k) => a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3]);
}

/** Mass, largest and smallest principal inertia of a body. */
function inertial(model: Model, name: string): [number, number, number] {
  const i = model.bodies!.name.indexOf(name);
  const inertia = model.bodies!.inertia.slice(3 * i, 3 * i + 3);
  return [model.bodies!.mass[i], Math.max(...inertia), Math.min(...inertia)];
}

describe("hopper", () => {
  test("has the masses and inertias of the published table", async () => {
    const model = await taskModel("hopper");
    // Printed with 3 to 5 digits, so one unit of the last one apart at most.
    const table: Record<string, [number, number, number]> = {
      torso: [3.665, 0.06925, 0.00445],
      thigh: [4.058, 0.0933, 0.0049],
      leg: [2.781, 0.0723, 0.0022],
      foot: [5.316, 0.1035, 0.0092],
    };
    for (const [name, [mass, transverse, axial]] of Object.entries(table)) {
      const [m, t, a] = inertial(model, name);
      expect(m, `${name} mass`).toBeCloseTo(mass, 3);
      expect(t, `${name} transverse`).toBeCloseTo(transverse, 4);
      expect(a, `${name} axial`).toBeCloseTo(axial, 4);
    }
    expect(model.totalMass).toBeCloseTo(15.820, 3);
  });

  test("has three root coordinates, three limited joints and motors of 200 N m", async () => {
    const model = await taskModel("hopper");
    expect(model.joints!.name).toEqual(["rootx", "rootz", "rooty", "thigh", "leg", "foot"]);
    expect(model.joints!.type).toEqual([2, 2, 3, 3, 3, 3]);
    expect(model.joints!.limited).toEqual([0, 0, 0, 1, 1, 1]);
    expect(model.joints!.range.slice(6)).toEqual(
      [-2.618, 0, -2.618, 0, -0.7854, 0.7854].map((r) => expect.closeTo(r, 4)),
    );
    expect(model.dofs!.armature).toEqual([0, 0, 0, 0, 0, 0]);
    expect(model.dofs!.damping).toEqual([0, 0, 0, 0, 0, 0]);
    expect([0, 1, 2].map((i) => model.actuators!.gear[6 * i])).toEqual([200, 200, 200]);
    expect(model.actuators!.ctrllimited).toEqual([1, 1, 1]);
    expect(model.actuators!.ctrlrange).toEqual([-1, 1, -1, 1, -1, 1]);
    expect(model.option).toMatchObject({ timestep: 0.005, integrator: 0, solver: 2, cone: 0 });
    const foot = model.geoms!.name.indexOf("foot");
    expect(model.geoms!.friction[3 * foot]).toBe(2);
  });

  test("stands with the lowest point of the foot on the ground at qpos 0", async () => {
    const model = await taskModel("hopper");
    // Torso at 1.25, then down the chain of the table: the foot's axis is 0.1 above the ground.
    const heights = model.bodies!.pos.filter((_, i) => i % 3 === 2);
    expect(heights.reduce((sum, z) => sum + z, 0)).toBeCloseTo(0.1, 12);
    expect(model.qpos0).toEqual([0, 0, 0, 0, 0, 0]);
  });
});

describe("walker", () => {
  test("has the masses of the published table", async () => {
    const model = await taskModel("walker");
    for (const side of ["right", "left"]) {
      expect(inertial(model, `${side}_thigh`)[0]).toBeCloseTo(4.058, 3);
      expect(inertial(model, `${side}_leg`)[0]).toBeCloseTo(2.781, 3);
      expect(inertial(model, `${side}_foot`)[0]).toBeCloseTo(2.094, 3);
    }
    expect(inertial(model, "torso")[0]).toBeCloseTo(10.673, 3);
    expect(model.totalMass).toBeCloseTo(28.540, 3);
  });

  test("drives right leg then left with 100, 50 and 20 N m, damped", async () => {
    const model = await taskModel("walker");
    expect(model.actuators!.trnid.map((j) => model.joints!.name[j])).toEqual(
      ["right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"],
    );
    expect([0, 1, 2, 3, 4, 5].map((i) => model.actuators!.gear[6 * i]))
      .toEqual([100, 50, 20, 100, 50, 20]);
    expect(model.dofs!.damping).toEqual([0, 0, 0, ...Array(6).fill(0.1)]);
    expect(model.dofs!.armature).toEqual([0, 0, 0, ...Array(6).fill(0.01)]);
    expect(model.joints!.solimp.slice(15, 18)).toEqual([0, 0.99, 0.01]);
    // Nothing of the robot meets the robot: it has no affinity.
    const robot = model.geoms!.name.map((_, i) => i).filter((i) => model.geoms!.bodyid[i] > 0);
    expect(robot.map((i) => model.geoms!.conaffinity[i])).toEqual(Array(7).fill(0));
  });
});

describe("ant", () => {
  test("has the masses of the published table and feet that weigh nothing", async () => {
    const model = await taskModel("ant");
    for (const leg of ["front_left", "front_right", "back_left", "back_right"]) {
      expect(inertial(model, `${leg}_hip`)[0]).toBeCloseTo(0.0392, 4);
      expect(inertial(model, `${leg}_leg`)[0]).toBeCloseTo(0.0676, 4);
    }
    // The published tree has the four roots of the legs as bodies of their own.
    expect(inertial(model, "torso")[0]).toBeCloseTo(0.327 + 4 * 0.0392, 3);
    expect(model.totalMass).toBeCloseTo(0.911, 3);
  });

  test("is free, collides with its feet only, and moves eight damped heavy joints", async () => {
    const model = await taskModel("ant");
    expect(model.joints!.type).toEqual([0, ...Array(8).fill(3)]);
    const [colliding, ground] = [[1, 0], [0, 1]];
    model.geoms!.name.forEach((name, i) => {
      const bits = [model.geoms!.contype[i], model.geoms!.conaffinity[i]];
      const expected = name === "floor" ? ground : name.endsWith("_foot") ? colliding : [0, 0];
      expect(bits, name).toEqual(expected);
    });
    expect(model.dofs!.armature).toEqual([...Array(6).fill(0), ...Array(8).fill(1)]);
    expect(model.dofs!.damping).toEqual([...Array(6).fill(0), ...Array(8).fill(1)]);
    const degrees = [-30, 30, 30, 70, -30, 30, -70, -30, -30, 30, -70, -30, -30, 30, 30, 70];
    expect(model.joints!.range.slice(2)).toEqual(
      degrees.map((d) => expect.closeTo(d * Math.PI / 180, 6)),
    );
  });
});

describe("humanoid", () => {
  test("has the masses of the published table", async () => {
    const model = await taskModel("humanoid");
    const table: Record<string, number> = {
      torso: 8.907,
      lower_waist: 2.262,
      pelvis: 6.616,
      thigh: 4.752,
      shin: 2.756,
      foot: 1.131,
      upper_arm: 1.661,
      lower_arm: 1.230,
    };
    for (const [part, mass] of Object.entries(table)) {
      const names = model.bodies!.name.includes(part) ? [part] : [`right_${part}`, `left_${part}`];
      // Printed to a gram.
      for (const name of names) {
        expect(Math.abs(inertial(model, name)[0] - mass), name).toBeLessThan(6e-4);
      }
    }
    expect(model.totalMass).toBeCloseTo(40.844, 3);
  });

  test("is its own mirror image", async () => {
    const model = await taskModel("humanoid");
    const { bodies, joints } = model;
    bodies!.name.forEach((name, i) => {
      if (!name.startsWith("right_")) return;
      const j = bodies!.name.indexOf(name.replace("right", "left"));
      const at = (k: number) => bodies!.pos.slice(3 * k, 3 * k + 3);
      expect(at(j)).toEqual([at(i)[0], 0 - at(i)[1], at(i)[2]]);
    });
    joints!.name.forEach((name, i) => {
      if (!name.startsWith("right_")) return;
      const j = joints!.name.indexOf(name.replace("right", "left"));
      for (const what of [joints!.range, joints!.pos]) {
        const width = what.length / joints!.name.length;
        const [right, left] = [i, j].map((k) => what.slice(width * k, width * k + width));
        if (what === joints!.range) expect(left, name).toEqual(right);
        else expect(left, name).toEqual([right[0], 0 - right[1], right[2]]);
      }
      expect(joints!.stiffness[j]).toBe(joints!.stiffness[i]);
    });
  });

  test("meets the ground with friction and itself without", async () => {
    const model = await taskModel("humanoid");
    model.geoms!.name.forEach((name, i) => {
      expect(model.geoms!.condim[i], name).toBe(name === "floor" ? 3 : 1);
    });
  });
});

describe("compileModel()", () => {
  test("gives the same message and hash every time, and the hash covers everything", async () => {
    const [first, second] = [await taskModel("walker"), await taskModel("walker")];
    const bytes = toBinary(ModelSchema, first);
    expect(bytes).toEqual(toBinary(ModelSchema, second));
    expect(first.contentHash).toMatch(/^[0-9a-f]{64}$/);
    const changed = fromBinary(ModelSchema, bytes);
    changed.dofs!.damping[4] += 1e-12;
    expect(sealModel(changed).contentHash).not.toBe(first.contentHash);
  });

  test("keeps cameras, lights and the two colours of a checker", async () => {
    const model = await taskModel("hopper");
    expect(model.cameras).toMatchObject([
      { name: "side", mode: 1, pos: [0, -2, -0.5], fovy: 60 },
      { name: "wide", mode: 1 },
    ]);
    // Looks along +y of the world with z up: the columns are its right, up and backward.
    expect(model.cameras[0].mat0.map((v) => Math.round(v) + 0)).toEqual([
      1,
      0,
      0,
      0,
      0,
      -1,
      0,
      1,
      0,
    ]);
    expect(model.lights).toMatchObject([{ name: "sun", directional: true, castshadow: true }]);
    expect(model.materials.map((m) => m.rgba2.length)).toEqual([4, 0]);
    expect(model.materials[1].rgba).toEqual([1, 0.5, 0, 1]);
  });

  test.each(["hopper", "walker", "ant", "humanoid"])(
    "%s has the published camera, sun and robot's colour",
    async (name) => {
      // Position and point looked at, relative to the torso's position.
      const [from, to] = {
        hopper: [[0, -2, -0.5], [0, 0, -0.5]],
        walker: [[0, -1.8, -0.5], [0, 0, -0.5]],
        ant: [[0.5, -2, 1], [0, 0, 0]],
        humanoid: [[-3, 0, 1], [0, 0, 0]],
      }[name]!;
      const model = await taskModel(name);
      const camera = model.cameras[0];
      const far = Math.hypot(...from.map((v, k) => v - to[k]));
      expect(camera).toMatchObject({ mode: 1, fovy: 60, pos0: from });
      expect(model.bodies!.name[camera.bodyid]).toBe("torso");
      // Columns of the orientation: right is level, up has no share below, backwards from the target.
      const backward = from.map((v, k) => (v - to[k]) / far);
      expect([2, 5, 8].map((k) => camera.mat0[k])).toEqual(
        backward.map((v) => expect.closeTo(v, 6)),
      );
      expect(camera.mat0[6]).toBeCloseTo(0, 9);
      expect(camera.mat0[7]).toBeGreaterThan(0);

      const [sun, ...others] = model.lights;
      expect(others).toEqual([]);
      expect(sun).toMatchObject({ directional: true, castshadow: true, dir: [0, 0, -1] });
      expect(sun.diffuse).toEqual(Array(3).fill(expect.closeTo(0.8, 6)));
      expect([...sun.ambient, ...sun.specular]).toEqual(Array(6).fill(0));
      expect(model.visual!.headlightSpecular).toEqual([0, 0, 0]);
      model.geoms!.matid.forEach((material, i) => {
        const expected = model.geoms!.name[i] === "floor" ? "ground" : "robot";
        expect(model.materials[material].name).toBe(expected);
      });
      expect(model.materials[1]).toMatchObject({ rgba: [1, 0.5, 0, 1], emission: 0 });
    },
  );

  test("copies lights of every kind, headlight, sky and materials, and drops what is off", async () => {
    const model = await compileModel(written(`<mujoco>
      <visual><headlight ambient=".25 0 0" diffuse="0 .5 0" specular="0 0 .75"/></visual>
      <asset>
        <texture type="skybox" builtin="gradient" rgb1=".25 .5 .75" rgb2="1 1 1" width="8" height="8"/>
        <texture name="squares" type="2d" builtin="checker" rgb1="1 1 1" rgb2="0 .2 .4" width="8"
          height="8"/>
        <material name="tiles" texture="squares" texrepeat="3 4" rgba="1 .5 1 .5"/>
        <material name="even" texture="squares" texrepeat="3 4" texuniform="true"/>
        <material name="glow" emission=".5" specular=".25" shininess=".75" reflectance=".125"/>
      </asset>
      <worldbody>
        <light name="off" active="false"/>
        <light name="sun" type="directional" dir="0 1 -1"/>
        <light name="bulb" type="point" pos="0 0 3" attenuation="1 2 3" castshadow="false"/>
        <body name="low" pos="0 0 1"><geom size=".1"/>
          <light name="lamp" type="spot" mode="trackcom" pos="0 0 2" cutoff="20" exponent="3"/>
          <camera name="eye" mode="trackcom" pos="0 -1 0"/>
          <body name="high" pos="0 0 1"><geom size=".1"/></body>
        </body>
        <light name="seeker" type="spot" mode="targetbody" target="high" pos="0 0 4"/>
      </worldbody>
    </mujoco>`));
    expect(model.lights).toMatchObject([
      { name: "sun", directional: true, castshadow: true, cutoff: 180, targetbodyid: -1 },
      { name: "bulb", directional: false, castshadow: false, cutoff: 180, attenuation: [1, 2, 3] },
      // MuJoCo orders them by their bodies.
      { name: "seeker", directional: false, mode: 3, targetbodyid: 2, cutoff: 45 },
      { name: "lamp", directional: false, mode: 2, bodyid: 1, cutoff: 20, exponent: 3 },
    ]);
    const half = Math.SQRT1_2;
    expect(model.lights[0].dir0).toEqual([0, half, -half].map((v) => expect.closeTo(v, 9)));
    // Relative to the body, in every mode.
    expect(model.lights[3].pos0).toEqual([0, 0, 2].map((v) => expect.closeTo(v, 9)));
    expect(model.cameras[0].pos0).toEqual([0, -1, 0].map((v) => expect.closeTo(v, 9)));
    expect(model.visual).toMatchObject({
      headlightAmbient: [0.25, 0, 0],
      headlightDiffuse: [0, 0.5, 0],
      headlightSpecular: [0, 0, 0.75],
      background: [0.25, 0.5, 0.75],
    });
    expect(model.materials).toMatchObject([
      { name: "tiles", texuniform: false, texrepeat: [6, 8], rgba: [1, 0.5, 1, 0.5] },
      { name: "even", texuniform: true, texrepeat: [3, 4] },
      { name: "glow", emission: 0.5, specular: 0.25, shininess: 0.75, reflectance: 0.125 },
    ]);
    expect(model.materials[0].rgba2).toEqual([0, 0.1, 0.4, 0.5].map((v) => expect.closeTo(v, 2)));
  });

  test("leaves the headlight out where it is off, and the background black", async () => {
    const model = await compileModel(
      written('<mujoco><visual><headlight active="0"/></visual></mujoco>'),
    );
    expect(model.visual).toMatchObject({ headlightAmbient: [], background: [0, 0, 0] });
  });

  test("reads meshes that are only looked at, from the folder that <compiler> names", async () => {
    mkdirSync(join(folder, "shapes"), { recursive: true });
    written(
      "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n",
      "shapes/corner.obj",
    );
    const model = await compileModel(written(`<mujoco><compiler meshdir="shapes"/>
      <asset><mesh name="corner" file="corner.obj"/></asset>
      <worldbody><geom type="mesh" mesh="corner" contype="0" conaffinity="0"/></worldbody></mujoco>`));
    expect(model.meshes).toMatchObject([{ name: "corner" }]);
    expect(model.geoms).toMatchObject({ type: [7], dataid: [0] });
    const { vert, face } = model.meshes[0];
    expect([vert.length, face.length]).toEqual([12, 12]);
    // Put back by the geom's frame, the vertices are those of the file.
    const { pos, quat } = model.geoms!;
    const placed = each(4, (i) => {
      const [w, ...u] = quat;
      const v = vert.slice(3 * i, 3 * i + 3);
      const c = cross(u, v).map((x, k) => x + w * v[k]);
      return cross(u, c).map((x, k) => Math.round(1e4 * (v[k] + 2 * x + pos[k])) / 1e4 + 0);
    });
    expect(placed.sort()).toEqual([[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]);
    // Outward: the six times enclosed volume is that of the corner of a cube.
    const volume = each(4, (f) => {
      const [a, b, c] = face.slice(3 * f, 3 * f + 3).map((i) => vert.slice(3 * i, 3 * i + 3));
      return cross(b, c).reduce((sum, x, k) => sum + x * a[k], 0);
    }).reduce((a, b) => a + b);
    expect(volume).toBeCloseTo(1, 5);
  });

  test("finds included files in the model's folder", async () => {
    written('<mujoco><worldbody><geom name="ball" size="1"/></worldbody></mujoco>', "part.xml");
    const model = await compileModel(
      written('<mujoco model="whole"><include file="part.xml"/></mujoco>'),
    );
    expect(model.name).toBe("whole");
    expect(model.geoms!.name).toEqual(["ball"]);
  });

  const body = (joint: string, geom = "") =>
    `<worldbody>\n<body name="box">\n${joint}\n<geom name="shape" size="1" ${geom}/>\n</body>\n</worldbody>`;
  const hinge = '<joint name="turn"/>';
  const refused: [string, string, RegExp][] = [
    [
      "a tendon",
      `${body(hinge)}<tendon><fixed name="rope"><joint joint="turn" coef="1"/></fixed></tendon>`,
      /^.*model\.xml:6: unsupported: tendon 'rope': /,
    ],
    [
      "an equality",
      `${body(hinge)}<equality><joint name="lock" joint1="turn"/></equality>`,
      /equality 'lock': /,
    ],
    [
      "polynomial damping",
      body('<joint name="thick" damping="1 2"/>'),
      /model\.xml:3: unsupported: joint 'thick': polynomial damping/,
    ],
    [
      "a colliding mesh",
      `<asset><mesh name="stone" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>${
        body(hinge, 'type="mesh" mesh="stone"').replace('size="1" ', "")
      }`,
      /geom 'shape': mesh geoms/,
    ],
    [
      "RK4",
      `<option integrator="RK4"/>${body(hinge)}`,
      /model\.xml:1: unsupported: option 'integrator': integrator RK4/,
    ],
    ["the CG solver", `<option solver="CG"/>${body(hinge)}`, /option 'solver': solver CG/],
    ["air", `<option density="1.2"/>${body(hinge)}`, /option 'density': /],
    [
      "a disabled convex collider",
      `<option><flag multiccd="disable"/></option>${body(hinge)}`,
      /option 'flag': multiccd disabled/,
    ],
    ["mocap", '<worldbody><body name="hand" mocap="true"/></worldbody>', /body 'hand': mocap/],
    [
      "a muscle",
      `${body(hinge)}<actuator><muscle name="biceps" joint="turn" lengthrange="0 1"/></actuator>`,
      /actuator 'biceps': dyntype muscle/,
    ],
    [
      "a sensor",
      `${body(hinge)}<sensor><clock name="time"/></sensor>`,
      /sensor 'time': clock sensors are not evaluated/,
    ],
    [
      "an element without a name",
      `${body(hinge)}<sensor><clock/></sensor>`,
      /sensor '#0': /,
    ],
    [
      "a pair with a mesh",
      `<asset><mesh name="stone" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>${
        body(hinge, 'type="mesh" mesh="stone" contype="0" conaffinity="0"').replace('size="1" ', "")
      }<worldbody><geom name="ball" size="1"/></worldbody><contact><pair name="hit" geom1="ball" ` +
      `geom2="shape"/></contact>`,
      /pair 'hit': mesh geoms are not collided/,
    ],
    [
      "an image light",
      `<asset><texture name="sky" type="cube" builtin="flat" width="4" height="4"/></asset>` +
      `${body(hinge)}<worldbody><light name="dome" type="image" texture="sky"/></worldbody>`,
      /light 'dome': image lights are not rendered/,
    ],
    [
      "an orthographic camera",
      `${body(hinge)}<worldbody><camera name="plan" projection="orthographic"/></worldbody>`,
      /camera 'plan': only perspective/,
    ],
    [
      "a colour over a checker",
      `<asset><texture name="t" type="2d" builtin="checker" width="4" height="4"/>` +
      `<material name="m" texture="t"/></asset>${body(hinge, 'material="m" rgba="1 0 0 1"')}`,
      /geom 'shape': a colour of its own/,
    ],
    [
      "a textured material",
      `<asset><texture name="t" type="2d" builtin="gradient" width="4" height="4"/><material name="m" texture="t"/></asset>${
        body(hinge)
      }`,
      /material 'm': only flat and builtin="checker"/,
    ],
  ];
  test.each(refused)("refuses %s by name", async (_, xml, message) => {
    const error = await compileModel(written(`<mujoco>${xml}</mujoco>`)).catch((e) => e);
    expect(error).toBeInstanceOf(ModelError);
    expect(error.message).toMatch(message);
    expect(error.refusals.length).toBeGreaterThan(0);
  });

  test("copies what actuators, joints, pairs, height fields and keyframes add", async () => {
    const model = await compileModel(written(`<mujoco>
      <option integrator="implicitfast" cone="elliptic" impratio="3"/>
      <asset><hfield name="hills" nrow="2" ncol="3" size="4 5 .3 .1" elevation="0 1 2 3 4 5"/></asset>
      <worldbody>
        <geom name="floor" type="hfield" hfield="hills"/>
        <body name="a" gravcomp="0.5"><freejoint/><geom name="ball" size=".1" condim="6"/>
          <site name="s" size="0.2"/>
          <body name="b">
            <joint name="x" actuatorgravcomp="true" actuatorfrcrange="-1 2" frictionloss="3"/>
            <joint name="y" axis="1 0 0" actuatorfrclimited="false" actuatorfrcrange="-1 2"/>
            <geom name="brick" type="box" size=".1 .2 .3"/>
          </body>
        </body>
      </worldbody>
      <contact><pair name="both" geom1="floor" geom2="brick" condim="4" friction="1 2 .3 .4 .5"
        solreffriction=".1 1" margin=".02" gap=".01"/></contact>
      <actuator>
        <general name="slow" joint="x" dyntype="filterexact" dynprm=".2" gaintype="affine"
          gainprm="1 2 3" actearly="true" actlimited="true" actrange="-2 3"/>
        <motor name="direct" joint="y"/>
      </actuator>
      <sensor><touch name="felt" site="s"/></sensor>
      <keyframe><key name="up" qpos="1 2 3 1 0 0 0 .5 .6" act="7" ctrl="8 9"/></keyframe>
    </mujoco>`));
    expect(model.option).toMatchObject({ integrator: 3, cone: 1, impratio: 3 });
    expect(model.bodies!.gravcomp).toEqual([0, 0.5, 0]);
    expect(model.joints).toMatchObject({
      name: ["", "x", "y"],
      type: [0, 3, 3],
      qposadr: [0, 7, 8],
      dofadr: [0, 6, 7],
      actgravcomp: [0, 1, 0],
      actfrclimited: [0, 1, 0],
      actfrcrange: [0, 0, -1, 2, -1, 2],
    });
    expect(model.dofs!.frictionloss).toEqual([0, 0, 0, 0, 0, 0, 3, 0]);
    expect(model.geoms!.dataid).toEqual([0, -1, -1]);
    expect(model.hfields).toMatchObject([
      { name: "hills", nrow: 2, ncol: 3, size: [4, 5, 0.3, 0.1] },
    ]);
    // MuJoCo keeps the first line of the file at the far end of y, scaled to 0 ... 1.
    expect(model.hfields[0].data).toEqual(
      [3, 4, 5, 0, 1, 2].map((height) => expect.closeTo(height / 5, 6)),
    );
    expect(model.pairs).toMatchObject({
      name: ["both"],
      geom1: [0],
      geom2: [2],
      dim: [4],
      friction: [1, 2, 0.3, 0.4, 0.5],
      solreffriction: [0.1, 1],
      margin: [0.02],
      gap: [0.01],
    });
    expect(model.actuators).toMatchObject({
      actadr: [0, -1],
      actnum: [1, 0],
      actlimited: [1, 0],
      actrange: [-2, 3, 0, 0],
      actearly: [1, 0],
    });
    expect(model.sites).toMatchObject({ type: [2], size: [0.2, 0.005, 0.005] });
    expect(model.sensors).toMatchObject({ name: ["felt"], type: [0], objid: [0], dim: [1] });
    expect(model.keyframes).toMatchObject([
      { name: "up", qpos: [1, 2, 3, 1, 0, 0, 0, 0.5, 0.6], act: [7], ctrl: [8, 9] },
    ]);
  });

  test("accepts the same model without the unsupported feature", async () => {
    await expect(compileModel(written(`<mujoco>${body(hinge)}</mujoco>`))).resolves.toBeDefined();
  });

  test("names file and line of an attribute MJCF does not have", async () => {
    const path = written('<mujoco>\n<worldbody>\n<geom typ="plane"/>\n</worldbody></mujoco>');
    await expect(compileModel(path)).rejects.toThrow(
      new RegExp(`^${path}:3: XML Error: Schema violation: unrecognized attribute: 'typ'`),
    );
  });

  test("names the included file in which MuJoCo found a mistake", async () => {
    const part = written(
      '<mujoco><worldbody>\n\n<geom typ="x"/></worldbody></mujoco>',
      "wrong.xml",
    );
    const path = written('<mujoco><include file="wrong.xml"/></mujoco>');
    await expect(compileModel(path)).rejects.toThrow(new RegExp(`^${part}:3: XML Error: .*'typ'`));
  });

  test("names file and line of XML that does not parse", async () => {
    const path = written("<mujoco>\n<worldbody>\n</worldbod></mujoco>");
    await expect(compileModel(path)).rejects.toThrow(new RegExp(`^${path}:\\d+: XML parse error`));
  });

  test("names a mesh file that is not there", async () => {
    const path = written(
      '<mujoco><compiler meshdir="shapes"/><asset><mesh name="gone" file="gone.obj"/></asset></mujoco>',
    );
    await expect(compileModel(path)).rejects.toThrow(
      `${path}: Error opening file 'shapes/gone.obj'`,
    );
  });

  test("names a mesh file that is no mesh", async () => {
    written("not a mesh", "bad.stl");
    const path = written('<mujoco><asset><mesh name="bad" file="bad.stl"/></asset></mujoco>');
    await expect(compileModel(path)).rejects.toThrow(
      /model\.xml:1: .*invalid header in STL file 'bad\.stl'/,
    );
  });

  test("names a file that is not there", async () => {
    await expect(compileModel(join(folder, "absent.xml"))).rejects.toThrow(
      /absent\.xml: cannot read the model file: ENOENT/,
    );
  });
});
