// The features of MJCF that the simulation core does not have yet, in one table. A model
// that uses one is refused by the name of the element, never simulated without it. The core
// checks the compiled message again (gpu-sim/src/core), since it may come from anywhere.
import type { MjModel, Mujoco } from "./mujoco.ts";

/** One reason why a model is refused. */
export interface Refusal {
  /** MJCF tag, for example "tendon". */
  element: string;
  /** Name of the element, or its number where it has none. */
  name: string;
  /** What is not supported. */
  reason: string;
}

type Rule = (model: MjModel, mujoco: Mujoco) => Refusal[];

/** Every refusal of a model, in the order of the table; empty when it is supported. */
export function unsupportedFeatures(model: MjModel, mujoco: Mujoco): Refusal[] {
  return RULES.flatMap((rule) => rule(model, mujoco));
}

const integrators = ["Euler", "RK4", "implicit", "implicitfast"];
const solvers = ["PGS", "CG", "Newton"];
const geomTypes = [
  "plane",
  "hfield",
  "sphere",
  "capsule",
  "ellipsoid",
  "cylinder",
  "box",
  "mesh",
  "sdf",
];
const jointTypes = ["free", "ball", "slide", "hinge"];
const transmissions = [
  "joint",
  "jointinparent",
  "slidercrank",
  "tendon",
  "site",
  "body",
  "so3",
];
const dynamics = ["none", "integrator", "filter", "filterexact", "muscle", "dcmotor", "user"];
const gains = ["fixed", "affine", "muscle", "dcmotor", "user"];
const biases = ["none", "affine", "muscle", "dcmotor", "user"];

const RULES: Rule[] = [
  // Whole kinds of elements: [MJCF tag, how many the model has, what is missing, object type for the name].
  (m, mj) =>
    ([
      ["tendon", m.ntendon, "tendons are not simulated", mj.mjtObj.mjOBJ_TENDON.value],
      ["equality", m.neq, "equality constraints are not simulated", mj.mjtObj.mjOBJ_EQUALITY.value],
      ["mesh", m.nmesh, "meshes are neither collided nor rendered", mj.mjtObj.mjOBJ_MESH.value],
      [
        "hfield",
        m.nhfield,
        "height fields are neither collided nor rendered",
        mj.mjtObj.mjOBJ_HFIELD.value,
      ],
      ["flex", m.nflex, "deformable bodies are not simulated", mj.mjtObj.mjOBJ_FLEX.value],
      ["skin", m.nskin, "skins are not rendered", mj.mjtObj.mjOBJ_SKIN.value],
      ["plugin", m.nplugin, "engine plugins are not loaded", mj.mjtObj.mjOBJ_PLUGIN.value],
      ["sensor", m.nsensor, "sensors are not evaluated", mj.mjtObj.mjOBJ_SENSOR.value],
      [
        "pair",
        m.npair,
        "explicit contact pairs are not collided; use contype and conaffinity",
        mj.mjtObj.mjOBJ_PAIR.value,
      ],
    ] as [string, number, string, number][])
      .flatMap(([element, count, reason, type]) =>
        range(count).map((i) => ({ element, name: nameOf(mj, m, type, i), reason }))
      ),

  // <option>.
  (m, mj) => {
    const o = m.opt;
    const option = (unsupported: boolean, name: string, reason: string): Refusal[] =>
      unsupported ? [{ element: "option", name, reason }] : [];
    const wind = Array.from(o.wind as Float64Array);
    return [
      option(
        o.integrator !== 0,
        "integrator",
        `integrator ${integrators[o.integrator] ?? o.integrator} is not implemented, use Euler`,
      ),
      option(o.cone !== 0, "cone", "elliptic friction cones are not implemented, use pyramidal"),
      option(
        o.solver !== 2,
        "solver",
        `solver ${solvers[o.solver] ?? o.solver} is not implemented, use Newton`,
      ),
      option(o.density !== 0, "density", "a surrounding medium is not simulated, leave density 0"),
      option(
        o.viscosity !== 0,
        "viscosity",
        "a surrounding medium is not simulated, leave viscosity 0",
      ),
      option(wind.some((w) => w !== 0), "wind", "wind is not simulated, leave it 0"),
      option(
        o.noslip_iterations !== 0,
        "noslip_iterations",
        "the noslip solver is not implemented, leave 0",
      ),
      option(o.disableactuator !== 0, "actuatorgroupdisable", "actuator groups cannot be disabled"),
      option(o.enableflags !== 0, "flag", `${flagNames(mj.mjtEnableBit, o.enableflags)} enabled`),
      option(
        o.disableflags !== 0,
        "flag",
        `${flagNames(mj.mjtDisableBit, o.disableflags)} disabled`,
      ),
    ].flat();
  },

  // Bodies.
  (m, mj) =>
    range(m.nbody).flatMap((i) => {
      const refuse = refusals("body", nameOf(mj, m, mj.mjtObj.mjOBJ_BODY.value, i));
      return [
        ...refuse(m.body_mocapid[i] >= 0, "mocap bodies are not simulated"),
        ...refuse(m.body_gravcomp[i] !== 0, "gravity compensation is not implemented"),
      ];
    }),

  // Joints.
  (m, mj) =>
    range(m.njnt).flatMap((i) => {
      const refuse = refusals("joint", nameOf(mj, m, mj.mjtObj.mjOBJ_JOINT.value, i));
      const type = m.jnt_type[i];
      const dof = m.jnt_dofadr[i];
      return [
        ...refuse(type < 2, `${jointTypes[type]} joints are not implemented, use slide and hinge`),
        ...refuse(m.dof_frictionloss[dof] !== 0, "frictionloss is not implemented"),
        ...refuse(anyIn(m.dof_dampingpoly, i, m.njnt), "polynomial damping is not implemented"),
        ...refuse(anyIn(m.jnt_stiffnesspoly, i, m.njnt), "polynomial stiffness is not implemented"),
        ...refuse(anyIn(m.jnt_actfrcrange, i, m.njnt), "actuatorfrcrange is not implemented"),
      ];
    }),

  // Geoms.
  (m, mj) =>
    range(m.ngeom).flatMap((i) => {
      const refuse = refusals("geom", nameOf(mj, m, mj.mjtObj.mjOBJ_GEOM.value, i));
      const type = m.geom_type[i];
      const collides = m.geom_contype[i] !== 0 || m.geom_conaffinity[i] !== 0;
      const condim = m.geom_condim[i];
      return [
        ...refuse(
          collides && type !== 0 && type !== 2 && type !== 3,
          `${geomTypes[type] ?? `type ${type}`} geoms are not collided, use plane, sphere or ` +
            `capsule (or contype="0" conaffinity="0")`,
        ),
        ...refuse(
          collides && condim !== 1 && condim !== 3,
          `condim ${condim} is not implemented, use 1 or 3`,
        ),
        ...refuse(
          m.flg_adhesion && anyIn(m.geom_adhesion, i, m.ngeom),
          "adhesion is not implemented",
        ),
        ...refuse(
          m.flg_surfacevel && anyIn(m.geom_surfacevel, i, m.ngeom),
          "surface velocity is not implemented",
        ),
      ];
    }),

  // Actuators.
  (m, mj) =>
    range(m.nactuator).flatMap((i) => {
      const refuse = refusals("actuator", nameOf(mj, m, mj.mjtObj.mjOBJ_ACTUATOR.value, i));
      const name = (names: string[], type: number) => names[type] ?? `type ${type}`;
      return [
        ...refuse(
          m.actuator_trntype[i] !== 0,
          `${name(transmissions, m.actuator_trntype[i])} transmissions are not implemented, ` +
            `drive a joint`,
        ),
        ...refuse(
          m.actuator_dyntype[i] !== 0,
          `dyntype ${name(dynamics, m.actuator_dyntype[i])} is not implemented, use none`,
        ),
        ...refuse(
          m.actuator_gaintype[i] !== 0,
          `gaintype ${name(gains, m.actuator_gaintype[i])} is not implemented, use fixed`,
        ),
        ...refuse(
          m.actuator_biastype[i] > 1,
          `biastype ${name(biases, m.actuator_biastype[i])} is not implemented, use none or affine`,
        ),
        ...refuse(m.actuator_ctrlnum[i] !== 1, "actuators with several controls are not simulated"),
        ...refuse(m.actuator_delay[i] !== 0, "actuator delay is not implemented"),
        ...refuse(
          anyIn(m.actuator_armature, i, m.nactuator),
          "actuator armature is not implemented, give it to the joint",
        ),
        ...refuse(
          anyIn(m.actuator_damping, i, m.nactuator) ||
            anyIn(m.actuator_dampingpoly, i, m.nactuator),
          "actuator damping is not implemented, give it to the joint",
        ),
      ];
    }),

  // What the renderer will need.
  (m, mj) =>
    range(m.ncam).flatMap((i) => {
      const refuse = refusals("camera", nameOf(mj, m, mj.mjtObj.mjOBJ_CAMERA.value, i));
      return [
        ...refuse(m.cam_projection[i] !== 0, "only perspective cameras are rendered"),
        ...refuse(
          anyIn(m.cam_sensorsize, i, m.ncam),
          "sensorsize and focal are not rendered, use fovy",
        ),
      ];
    }),
  (m, mj) =>
    range(m.nlight).flatMap((i) => {
      const refuse = refusals("light", nameOf(mj, m, mj.mjtObj.mjOBJ_LIGHT.value, i));
      return [
        ...refuse(
          m.light_type[i] !== 1,
          'only directional lights are rendered: type="directional"',
        ),
        ...refuse(m.light_mode[i] > 2, "lights that target a body are not rendered"),
      ];
    }),
];

function refusals(element: string, name: string) {
  return (unsupported: boolean, reason: string): Refusal[] =>
    unsupported ? [{ element, name, reason }] : [];
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** Name of an object, or "#3" for the fourth one when it has none. */
function nameOf(mj: Mujoco, model: MjModel, type: number, index: number): string {
  return mj.mj_id2name(model, type, index) || `#${index}`;
}

/** Whether row `index` of an array of `rows` rows has a value other than 0. */
function anyIn(array: Float64Array, index: number, rows: number): boolean {
  const width = array.length / rows;
  for (let k = 0; k < width; k++) if (array[index * width + k] !== 0) return true;
  return false;
}

/** Names of the bits set in `flags`, from MuJoCo's enumeration, as in "contact, gravity". */
function flagNames(bits: object, flags: number): string {
  return Object.entries(bits)
    .filter(([name, bit]) =>
      name.startsWith("mj") && !/^mjN[A-Z]+$/.test(name) && (flags & bit.value)
    )
    .map(([name]) => name.replace(/^mj(DSBL|ENBL)_/, "").toLowerCase())
    .join(", ");
}
