// The features of MJCF that the simulation core and the renderer do not have yet, in one table. A
// model that uses one is refused by the name of the element, never simulated without it. The core
// checks the compiled message again (gpu-sim/src/core), since it may come from anywhere.
import { type MjModel, type Mujoco, objectName } from "./mujoco.ts";

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
/** Sensors whose readings tasks can use: names of mjtSensor without the prefix. */
const sensors = [
  "TOUCH",
  "ACCELEROMETER",
  "VELOCIMETER",
  "GYRO",
  "JOINTPOS",
  "JOINTVEL",
  "BALLQUAT",
  "BALLANGVEL",
  "FRAMEPOS",
  "FRAMEQUAT",
  "FRAMEXAXIS",
  "FRAMEYAXIS",
  "FRAMEZAXIS",
  "FRAMELINVEL",
  "FRAMEANGVEL",
  "FRAMELINACC",
  "CONTACT",
] as const;
const biases = ["none", "affine", "muscle", "dcmotor", "user"];

const RULES: Rule[] = [
  // Whole kinds of elements: [MJCF tag, how many the model has, what is missing, object type for the name].
  (m, mj) =>
    ([
      ["tendon", m.ntendon, "tendons are not simulated", mj.mjtObj.mjOBJ_TENDON.value],
      ["equality", m.neq, "equality constraints are not simulated", mj.mjtObj.mjOBJ_EQUALITY.value],
      ["flex", m.nflex, "deformable bodies are not simulated", mj.mjtObj.mjOBJ_FLEX.value],
      ["skin", m.nskin, "skins are not rendered", mj.mjtObj.mjOBJ_SKIN.value],
      ["plugin", m.nplugin, "engine plugins are not loaded", mj.mjtObj.mjOBJ_PLUGIN.value],
    ] as [string, number, string, number][])
      .flatMap(([element, count, reason, type]) =>
        range(count).map((i) => ({ element, name: nameOf(mj, m, type, i), reason }))
      ),

  // <option>.
  (m, mj) => {
    const o = m.opt;
    const option = (unsupported: boolean, name: string, reason: string): Refusal[] =>
      unsupported ? [{ element: "option", name, reason }] : [];
    // How convex shapes are collided is not for choice; every other flag is honoured.
    const fixedFlags = mj.mjtDisableBit.mjDSBL_NATIVECCD.value |
      mj.mjtDisableBit.mjDSBL_MULTICCD.value;
    const wind = Array.from(o.wind as Float64Array);
    return [
      option(
        o.integrator !== 0 && o.integrator !== 3,
        "integrator",
        `integrator ${integrators[o.integrator] ?? o.integrator} is not implemented, use Euler ` +
          `or implicitfast`,
      ),
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
        (o.disableflags & fixedFlags) !== 0,
        "flag",
        `${flagNames(mj.mjtDisableBit, o.disableflags & fixedFlags)} disabled`,
      ),
    ].flat();
  },

  // Bodies.
  (m, mj) =>
    range(m.nbody).flatMap((i) => {
      const refuse = refusals("body", nameOf(mj, m, mj.mjtObj.mjOBJ_BODY.value, i));
      return [
        ...refuse(m.body_mocapid[i] >= 0, "mocap bodies are not simulated"),
      ];
    }),

  // Joints.
  (m, mj) =>
    range(m.njnt).flatMap((i) => {
      const refuse = refusals("joint", nameOf(mj, m, mj.mjtObj.mjOBJ_JOINT.value, i));
      const dofs = range([6, 3, 1, 1][m.jnt_type[i]]).map((k) => m.jnt_dofadr[i] + k);
      return [
        ...refuse(
          dofs.some((dof) => anyIn(m.dof_dampingpoly, dof, m.nv)),
          "polynomial damping is not implemented",
        ),
        ...refuse(anyIn(m.jnt_stiffnesspoly, i, m.njnt), "polynomial stiffness is not implemented"),
      ];
    }),

  // Geoms.
  (m, mj) =>
    range(m.ngeom).flatMap((i) => {
      const refuse = refusals("geom", nameOf(mj, m, mj.mjtObj.mjOBJ_GEOM.value, i));
      const type = m.geom_type[i];
      const collides = m.geom_contype[i] !== 0 || m.geom_conaffinity[i] !== 0;
      return [
        ...refuse(
          collides && type > 6,
          `${geomTypes[type] ?? `type ${type}`} geoms are not collided, use a primitive or a ` +
            `height field (or contype="0" conaffinity="0")`,
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

  // Explicit contact pairs.
  (m, mj) =>
    range(m.npair).flatMap((i) => {
      const refuse = refusals("pair", nameOf(mj, m, mj.mjtObj.mjOBJ_PAIR.value, i));
      const types = [m.pair_geom1[i], m.pair_geom2[i]].map((geom) => m.geom_type[geom]);
      return [
        ...refuse(
          m.flg_adhesion && anyIn(m.pair_adhesion, i, m.npair),
          "adhesion is not implemented",
        ),
        ...refuse(types.some((type) => type > 6), "mesh geoms are not collided"),
      ];
    }),

  // Sensors. Tasks read what the accepted ones measure from sources of the same names.
  (m, mj) => {
    const kinds = new Set(sensors.map((kind) => mj.mjtSensor[`mjSENS_${kind}`].value));
    const label = (type: number) =>
      Object.entries(mj.mjtSensor).find(([, kind]) => kind?.value === type)?.[0]
        .replace("mjSENS_", "").toLowerCase() ?? `type ${type}`;
    return range(m.nsensor).flatMap((i) => {
      const refuse = refusals("sensor", nameOf(mj, m, mj.mjtObj.mjOBJ_SENSOR.value, i));
      return [
        ...refuse(
          !kinds.has(m.sensor_type[i]),
          `${label(m.sensor_type[i])} sensors are not evaluated`,
        ),
        ...refuse(m.sensor_delay[i] !== 0, "sensor delay is not implemented"),
        ...refuse(anyIn(m.sensor_interval, i, m.nsensor), "sensor intervals are not implemented"),
      ];
    });
  },

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
          m.actuator_dyntype[i] > 3,
          `dyntype ${name(dynamics, m.actuator_dyntype[i])} is not implemented, use none, ` +
            `integrator, filter or filterexact`,
        ),
        ...refuse(
          m.actuator_gaintype[i] > 1,
          `gaintype ${name(gains, m.actuator_gaintype[i])} is not implemented, use fixed or affine`,
        ),
        ...refuse(
          m.actuator_biastype[i] > 1,
          `biastype ${name(biases, m.actuator_biastype[i])} is not implemented, use none or affine`,
        ),
        ...refuse(m.actuator_ctrlnum[i] !== 1, "actuators with several controls are not simulated"),
        ...refuse(m.actuator_actnum[i] > 1, "several activations of one actuator"),
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

  // What the renderer draws.
  (m, mj) =>
    range(m.ngeom).flatMap((i) => {
      const material = m.geom_matid[i];
      if (material < 0) return [];
      const roles = m.mat_texid.length / m.nmat;
      const textured = range(roles).some((k) => m.mat_texid[material * roles + k] >= 0);
      // MuJoCo tells a colour of the geom's own by its differing from the default.
      const own = [0.5, 0.5, 0.5, 1].some((value, k) => m.geom_rgba[4 * i + k] !== value);
      return refusals("geom", nameOf(mj, m, mj.mjtObj.mjOBJ_GEOM.value, i))(
        textured && own,
        "a colour of its own over a textured material is not rendered, give it to the material",
      );
    }),
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
    range(m.nlight).flatMap((i) =>
      refusals("light", nameOf(mj, m, mj.mjtObj.mjOBJ_LIGHT.value, i))(
        m.light_type[i] > 2,
        "image lights are not rendered, use directional, point or spot",
      )
    ),
  (m, mj) =>
    range(m.ntex).flatMap((i) =>
      refusals("texture", nameOf(mj, m, mj.mjtObj.mjOBJ_TEXTURE.value, i))(
        // What a built-in sky is made of is read from the file; a picture has no such colour.
        m.tex_type[i] === mj.mjtTexture.mjTEXTURE_SKYBOX.value && m.tex_pathadr[i] >= 0,
        'pictures of a sky are not rendered, use builtin="gradient"',
      )
    ),
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
  return objectName(mj, model, type, index) || `#${index}`;
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
