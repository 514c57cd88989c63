// MJCF to sdpg.model.v1: MuJoCo's own compiler reads the file, we copy what it made into our
// message and refuse what the core cannot simulate, by file, element and reason.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type MaterialSchema, type Model, ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import type { MjsElement, MjSpec, mjtObj } from "@mujoco/mujoco";
import { type MjModel, type Mujoco, mujoco, objectName } from "./mujoco.ts";
import { type Refusal, unsupportedFeatures } from "./unsupported.ts";

/** An MJCF file that does not parse, does not compile, or uses what the core does not have. */
export class ModelError extends Error {
  override readonly name = "ModelError";
  /** The file; `refusals` is empty when MuJoCo itself rejected it. */
  constructor(message: string, readonly path: string, readonly refusals: Refusal[] = []) {
    super(message);
  }
}

/**
 * Compiles an MJCF file. Files it includes are looked up in its own folder.
 * Throws ModelError with one line per problem: "file:line: element 'name': reason".
 */
export async function compileModel(mjcfPath: string): Promise<Model> {
  const loaded = await loadMjcf(mjcfPath);
  try {
    return toMessage(loaded, mjcfPath);
  } finally {
    loaded.model.delete();
  }
}

/** MuJoCo's own model of an MJCF file. */
export interface LoadedModel {
  mujoco: Mujoco;
  model: MjModel;
  /** Flags that these bindings show in the parsed file only, not in the compiled model; by id. */
  joints: { actgravcomp: boolean; actfrclimited: boolean }[];
  actuators: { actearly: boolean }[];
  /** Colour at the top of the model's sky, 0 to 1 each; black where it has none. */
  background: number[];
}

/** Loads a supported MJCF file. The caller frees the model with `model.delete()`. */
export async function loadMjcf(mjcfPath: string): Promise<LoadedModel> {
  const mj = await mujoco();
  const files = await readFolder(mjcfPath);
  const vfs = new mj.MjVFS();
  let loaded: LoadedModel;
  try {
    for (const [name, text] of files) vfs.addBuffer(name, new TextEncoder().encode(text));
    for (const [name, bytes] of await readAssets(files, mjcfPath)) vfs.addBuffer(name, bytes);
    const spec = mj.parseXMLString(files.get(basename(mjcfPath))!, vfs);
    try {
      const model = mj.mj_compile(spec, vfs);
      loaded = { mujoco: mj, model, ...specFlags(mj, spec) };
    } finally {
      spec.delete();
    }
  } catch (error) {
    throw new ModelError(
      describeXmlError(files, mjcfPath, String((error as Error).message)),
      mjcfPath,
    );
  } finally {
    vfs.delete();
  }

  const refusals = unsupportedFeatures(loaded.model, mj);
  if (refusals.length > 0) {
    loaded.model.delete();
    const lines = refusals.map((refusal) =>
      `${locate(files, mjcfPath, refusal)}: unsupported: ${refusal.element} ` +
      `'${refusal.name}': ${refusal.reason}`
    );
    throw new ModelError(lines.join("\n"), mjcfPath, refusals);
  }
  return loaded;
}

/** Of a spec that has been compiled, since ids exist only then. */
function specFlags(
  mj: Mujoco,
  spec: MjSpec,
): Pick<LoadedModel, "joints" | "actuators" | "background"> {
  const flags: ReturnType<typeof specFlags> = {
    joints: [],
    actuators: [],
    background: [0, 0, 0],
  };
  const visit = (type: { value: number }, use: (element: MjsElement, id: number) => void) => {
    for (
      let at = mj.mjs_firstElement(spec, type as mjtObj);
      at;
      at = mj.mjs_nextElement(spec, at)
    ) {
      use(at, mj.mjs_getId(at));
    }
  };
  visit(mj.mjtObj.mjOBJ_JOINT, (element, id) => {
    const joint = mj.mjs_asJoint(element)!;
    const [low, high] = joint.actfrcrange as Float64Array;
    // 0, 1 or 2: automatic, limited when there is a range.
    const choice = joint.actfrclimited.value;
    flags.joints[id] = {
      actgravcomp: joint.actgravcomp,
      actfrclimited: choice === 1 || (choice === 2 && (low !== 0 || high !== 0)),
    };
  });
  visit(mj.mjtObj.mjOBJ_ACTUATOR, (element, id) => {
    flags.actuators[id] = { actearly: mj.mjs_asActuator(element)!.actearly };
  });
  let skies = 0;
  visit(mj.mjtObj.mjOBJ_TEXTURE, (element) => {
    const texture = mj.mjs_asTexture(element)!;
    if (texture.type.value !== mj.mjtTexture.mjTEXTURE_SKYBOX.value || skies++ > 0) return;
    flags.background = list(texture.rgb1);
  });
  return flags;
}

/** Sets `contentHash` to the SHA-256 of the message serialised with the field empty. */
export function sealModel(model: Model): Model {
  model.contentHash = "";
  model.contentHash = createHash("sha256").update(toBinary(ModelSchema, model)).digest("hex");
  return model;
}

/** Copies MuJoCo's arrays into the message. They are views of its heap, hence the copies. */
export function toMessage(loaded: LoadedModel, path: string): Model {
  const { mujoco: mj, model: m } = loaded;
  const type = mj.mjtObj;
  const names = (kind: { value: number }, count: number) =>
    each(count, (i) => objectName(mj, m, kind.value, i));
  // Arrays of booleans cannot be read as a whole through these bindings, only one by one.
  const flag = (value: boolean) => value ? 1 : 0;

  return sealModel(create(ModelSchema, {
    name: modelName(m),
    option: {
      timestep: m.opt.timestep,
      gravity: list(m.opt.gravity),
      integrator: m.opt.integrator,
      cone: m.opt.cone,
      solver: m.opt.solver,
      iterations: m.opt.iterations,
      lsIterations: m.opt.ls_iterations,
      tolerance: m.opt.tolerance,
      lsTolerance: m.opt.ls_tolerance,
      impratio: m.opt.impratio,
      disableflags: m.opt.disableflags,
      enableflags: m.opt.enableflags,
      density: m.opt.density,
      viscosity: m.opt.viscosity,
    },
    bodies: {
      name: names(type.mjOBJ_BODY, m.nbody),
      parentid: list(m.body_parentid),
      rootid: list(m.body_rootid),
      weldid: list(m.body_weldid),
      jntnum: list(m.body_jntnum),
      jntadr: list(m.body_jntadr),
      dofnum: list(m.body_dofnum),
      dofadr: list(m.body_dofadr),
      geomnum: list(m.body_geomnum),
      geomadr: list(m.body_geomadr),
      pos: list(m.body_pos),
      quat: list(m.body_quat),
      ipos: list(m.body_ipos),
      iquat: list(m.body_iquat),
      mass: list(m.body_mass),
      inertia: list(m.body_inertia),
      invweight0: list(m.body_invweight0),
      gravcomp: list(m.body_gravcomp),
    },
    joints: {
      name: names(type.mjOBJ_JOINT, m.njnt),
      type: list(m.jnt_type),
      qposadr: list(m.jnt_qposadr),
      dofadr: list(m.jnt_dofadr),
      bodyid: list(m.jnt_bodyid),
      pos: list(m.jnt_pos),
      axis: list(m.jnt_axis),
      limited: each(m.njnt, (i) => flag(m.jnt(i).limited)),
      range: list(m.jnt_range),
      margin: list(m.jnt_margin),
      solref: list(m.jnt_solref),
      solimp: list(m.jnt_solimp),
      stiffness: list(m.jnt_stiffness),
      actgravcomp: loaded.joints.map((joint) => flag(joint.actgravcomp)),
      actfrclimited: loaded.joints.map((joint) => flag(joint.actfrclimited)),
      actfrcrange: list(m.jnt_actfrcrange),
    },
    dofs: {
      bodyid: list(m.dof_bodyid),
      jntid: list(m.dof_jntid),
      parentid: list(m.dof_parentid),
      armature: list(m.dof_armature),
      damping: list(m.dof_damping),
      frictionloss: list(m.dof_frictionloss),
      solref: list(m.dof_solref),
      solimp: list(m.dof_solimp),
      invweight0: list(m.dof_invweight0),
    },
    geoms: {
      name: names(type.mjOBJ_GEOM, m.ngeom),
      type: list(m.geom_type),
      bodyid: list(m.geom_bodyid),
      contype: list(m.geom_contype),
      conaffinity: list(m.geom_conaffinity),
      condim: list(m.geom_condim),
      priority: list(m.geom_priority),
      size: list(m.geom_size),
      pos: list(m.geom_pos),
      quat: list(m.geom_quat),
      friction: list(m.geom_friction),
      solmix: list(m.geom_solmix),
      solref: list(m.geom_solref),
      solimp: list(m.geom_solimp),
      margin: list(m.geom_margin),
      gap: list(m.geom_gap),
      rgba: list(m.geom_rgba),
      matid: list(m.geom_matid),
      group: list(m.geom_group),
      dataid: list(m.geom_dataid),
    },
    actuators: {
      name: names(type.mjOBJ_ACTUATOR, m.nactuator),
      trntype: list(m.actuator_trntype),
      // MuJoCo keeps two ids; the second belongs to transmissions that were refused.
      trnid: each(m.nactuator, (i) => m.actuator_trnid[2 * i]),
      gear: list(m.actuator_gear),
      ctrllimited: each(m.nactuator, (i) => flag(m.actuator(i).ctrllimited)),
      ctrlrange: list(m.actuator_ctrlrange),
      forcelimited: each(m.nactuator, (i) => flag(m.actuator(i).forcelimited)),
      forcerange: list(m.actuator_forcerange),
      dyntype: list(m.actuator_dyntype),
      gaintype: list(m.actuator_gaintype),
      biastype: list(m.actuator_biastype),
      dynprm: list(m.actuator_dynprm),
      gainprm: list(m.actuator_gainprm),
      biasprm: list(m.actuator_biasprm),
      actadr: list(m.actuator_actadr),
      actnum: list(m.actuator_actnum),
      actlimited: each(m.nactuator, (i) => flag(m.actuator(i).actlimited)),
      actrange: list(m.actuator_actrange),
      actearly: loaded.actuators.map((actuator) => flag(actuator.actearly)),
    },
    sites: {
      name: names(type.mjOBJ_SITE, m.nsite),
      bodyid: list(m.site_bodyid),
      pos: list(m.site_pos),
      quat: list(m.site_quat),
      type: list(m.site_type),
      size: list(m.site_size),
    },
    qpos0: list(m.qpos0),
    qposSpring: list(m.qpos_spring),
    excludeSignature: list(m.exclude_signature),
    cameras: each(m.ncam, (i) => ({
      name: objectName(mj, m, type.mjOBJ_CAMERA.value, i),
      mode: m.cam_mode[i],
      bodyid: m.cam_bodyid[i],
      targetbodyid: m.cam_targetbodyid[i],
      pos: row(m.cam_pos, i, 3),
      quat: row(m.cam_quat, i, 4),
      pos0: row(m.cam_pos0, i, 3),
      mat0: row(m.cam_mat0, i, 9),
      fovy: m.cam_fovy[i],
    })),
    lights: each(m.nlight, (i) => i).filter((i) => m.light(i).active).map((i) => ({
      name: objectName(mj, m, type.mjOBJ_LIGHT.value, i),
      mode: m.light_mode[i],
      bodyid: m.light_bodyid[i],
      directional: m.light_type[i] === 1,
      castshadow: Boolean(m.light(i).castshadow),
      pos: row(m.light_pos, i, 3),
      dir: row(m.light_dir, i, 3),
      ambient: row(m.light_ambient, i, 3),
      diffuse: row(m.light_diffuse, i, 3),
      specular: row(m.light_specular, i, 3),
      targetbodyid: m.light_targetbodyid[i],
      pos0: row(m.light_pos0, i, 3),
      dir0: row(m.light_dir0, i, 3),
      attenuation: row(m.light_attenuation, i, 3),
      // A point light has the cone of a spot light in MuJoCo's arrays, and does not use it.
      cutoff: m.light_type[i] === SPOT ? m.light_cutoff[i] : 180,
      exponent: m.light_type[i] === SPOT ? m.light_exponent[i] : 0,
    })),
    materials: each(m.nmat, (i) => material(mj, m, i, path)),
    statMeaninertia: m.stat.meaninertia,
    statExtent: m.stat.extent,
    totalMass: mj.mj_getTotalmass(m),
    keyframes: each(m.nkey, (i) => ({
      name: objectName(mj, m, type.mjOBJ_KEY.value, i),
      time: m.key_time[i],
      qpos: row(m.key_qpos, i, m.nq),
      qvel: row(m.key_qvel, i, m.nv),
      act: row(m.key_act, i, m.na),
      ctrl: row(m.key_ctrl, i, m.nu),
    })),
    pairs: {
      name: names(type.mjOBJ_PAIR, m.npair),
      geom1: list(m.pair_geom1),
      geom2: list(m.pair_geom2),
      dim: list(m.pair_dim),
      friction: list(m.pair_friction),
      solref: list(m.pair_solref),
      solreffriction: list(m.pair_solreffriction),
      solimp: list(m.pair_solimp),
      margin: list(m.pair_margin),
      gap: list(m.pair_gap),
    },
    hfields: each(m.nhfield, (i) => {
      const start = Number(m.hfield_adr[i]);
      const [nrow, ncol] = [m.hfield_nrow[i], m.hfield_ncol[i]];
      return {
        name: objectName(mj, m, type.mjOBJ_HFIELD.value, i),
        nrow,
        ncol,
        size: row(m.hfield_size, i, 4),
        data: list(m.hfield_data.subarray(start, start + nrow * ncol)),
      };
    }),
    meshes: each(m.nmesh, (i) => {
      const [vertex, face] = [m.mesh_vertadr[i], m.mesh_faceadr[i]];
      return {
        name: objectName(mj, m, type.mjOBJ_MESH.value, i),
        vert: list(m.mesh_vert.subarray(3 * vertex, 3 * (vertex + m.mesh_vertnum[i]))),
        face: list(m.mesh_face.subarray(3 * face, 3 * (face + m.mesh_facenum[i]))),
      };
    }),
    visual: {
      ...(m.vis.headlight.active && {
        headlightAmbient: list(m.vis.headlight.ambient),
        headlightDiffuse: list(m.vis.headlight.diffuse),
        headlightSpecular: list(m.vis.headlight.specular),
      }),
      background: loaded.background,
    },
    sensors: {
      name: names(type.mjOBJ_SENSOR, m.nsensor),
      type: list(m.sensor_type),
      objtype: list(m.sensor_objtype),
      objid: list(m.sensor_objid),
      reftype: list(m.sensor_reftype),
      refid: list(m.sensor_refid),
      dim: list(m.sensor_dim),
      adr: list(m.sensor_adr),
      cutoff: list(m.sensor_cutoff),
    },
  }));
}

/**
 * A material as one flat colour, or as a checker of two. MuJoCo keeps only pixels of a
 * texture, so a checker is recognised by them; any other picture is refused.
 */
function material(
  mj: Mujoco,
  m: MjModel,
  i: number,
  path: string,
): MessageInitShape<typeof MaterialSchema> {
  const name = objectName(mj, m, mj.mjtObj.mjOBJ_MATERIAL.value, i);
  const rgba = row(m.mat_rgba, i, 4);
  const common = {
    name,
    reflectance: m.mat_reflectance[i],
    emission: m.mat_emission[i],
    specular: m.mat_specular[i],
    shininess: m.mat_shininess[i],
  };
  const roles = m.mat_texid.length / m.nmat;
  const textures = row(m.mat_texid, i, roles).filter((id) => id >= 0);
  if (textures.length === 0) return { ...common, rgba };

  const refuse = (reason: string) =>
    new ModelError(`${path}: unsupported: material '${name}': ${reason}`, path, [
      { element: "material", name, reason },
    ]);
  if (textures.length > 1) throw refuse("only one texture a material");
  const t = textures[0];
  const [width, height, channels] = [m.tex_width[t], m.tex_height[t], m.tex_nchannel[t]];
  const pixel = (x: number, y: number) =>
    row(m.tex_data.subarray(Number(m.tex_adr[t])), y * width + x, channels);
  const same = (a: number[], b: number[]) => a.every((v, k) => v === b[k]);
  const [first, second] = [pixel(0, 0), pixel(width - 1, 0)];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const odd = (x < width / 2) !== (y < height / 2);
      if (!same(pixel(x, y), odd ? second : first)) {
        throw refuse('only flat and builtin="checker" textures of type="2d" are rendered');
      }
    }
  }
  const tinted = (colour: number[]) =>
    rgba.map((v, k) => k < 3 ? v * (colour[Math.min(k, channels - 1)] / 255) : v);
  return {
    ...common,
    rgba: tinted(first),
    rgba2: tinted(second),
    // One repetition of the texture holds two squares each way. MuJoCo repeats it `texrepeat` times
    // in the extent of the geom, or, uniformly, as if the extent were 2 m.
    texrepeat: row(m.mat_texrepeat, i, 2).map((v) => m.mat(i).texuniform ? v : 2 * v),
    texuniform: Boolean(m.mat(i).texuniform),
  };
}

type Numbers = ArrayLike<number>;

/** Of mjtLightType. */
const SPOT = 0;

function list(values: Numbers): number[] {
  return Array.from(values);
}

function row(values: Numbers, index: number, width: number): number[] {
  return Array.from({ length: width }, (_, k) => values[index * width + k]);
}

function each<T>(count: number, make: (index: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => make(i));
}

/** MuJoCo keeps the model's name as the first of its names. */
function modelName(m: MjModel): string {
  const bytes = Uint8Array.from(m.names as Int8Array);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}

/** The XML files of the model's folder, so that `<include>` finds them: name -> text. */
async function readFolder(mjcfPath: string): Promise<Map<string, string>> {
  const folder = dirname(mjcfPath);
  const files = new Map<string, string>();
  try {
    files.set(basename(mjcfPath), await readFile(mjcfPath, "utf8"));
  } catch (error) {
    throw new ModelError(
      `${mjcfPath}: cannot read the model file: ${(error as NodeJS.ErrnoException).code}`,
      mjcfPath,
    );
  }
  for (const name of await readdir(folder)) {
    if (name.endsWith(".xml") && !files.has(name)) {
      files.set(name, await readFile(join(folder, name), "utf8"));
    }
  }
  return files;
}

/**
 * Files that the XML names, meshes and height fields, under the names by which MuJoCo asks for them:
 * the file's, in the folders that `<compiler>` may set. MuJoCo itself says which one is missing.
 */
async function readAssets(
  files: Map<string, string>,
  mjcfPath: string,
): Promise<Map<string, Uint8Array>> {
  const attribute = (name: string) =>
    [...files.values()].flatMap((text) =>
      [...text.matchAll(new RegExp(`\\b${name}\\s*=\\s*["']([^"']+)["']`, "g"))].map((m) => m[1])
    );
  const folders = ["", ...["meshdir", "assetdir", "texturedir"].flatMap(attribute)];
  const found = new Map<string, Uint8Array>();
  for (const file of attribute("file")) {
    for (const folder of folders) {
      const name = join(folder, file);
      if (files.has(name) || found.has(name)) continue;
      try {
        found.set(name, await readFile(join(dirname(mjcfPath), name)));
      } catch (error) {
        if (!["ENOENT", "EISDIR"].includes((error as NodeJS.ErrnoException).code ?? "")) {
          throw new ModelError(
            `${mjcfPath}: cannot read ${name}: ${(error as NodeJS.ErrnoException).code}`,
            mjcfPath,
          );
        }
      }
    }
  }
  return found;
}

/** MuJoCo's message on one line, with the file and the line it names in front. */
function describeXmlError(files: Map<string, string>, path: string, message: string): string {
  const text = message
    .replace(/^MuJoCo Error: ((Loading error|Could not create Spec from XML string): |Error: )/, "")
    .replace(/\s*\n\s*/g, " ").trim();
  const line = Number(/line(?: number)?[ =](\d+)/i.exec(text)?.[1] ?? 0);
  if (line > 0) return `${path}:${line}: ${text}`;
  // MuJoCo gives line 0 to what stands in an included file: look for the element it complains about.
  const found = /'([^']+)' Element '([^']+)', line 0$/.exec(text);
  if (found) {
    const [whole, word, tag] = found;
    const place = find(files, path, new RegExp(`<${tag}\\b[^>]*\\b${escaped(word)}\\b`));
    if (place) return `${place}: ${text.slice(0, -whole.length)}'${word}' Element '${tag}'`;
  }
  return `${path}: ${text}`;
}

/** "file:line" of an element found by tag and name, or just the file. */
function locate(files: Map<string, string>, mjcfPath: string, refusal: Refusal): string {
  const { element, name } = refusal;
  if (element === "option") {
    const word = escaped(name);
    const option = new RegExp(`<(option|flag)\\b[^>]*\\b${word}|<${word}\\b`);
    return find(files, mjcfPath, option) ?? mjcfPath;
  }
  // Bodies, joints and geoms may share a name, so their tag has to fit; the tag of other elements
  // may be any (a tendon is a <fixed> or a <spatial>), so for them the name decides.
  const ownTag = ["body", "joint", "geom", "camera", "light"].includes(element);
  const tag = ownTag ? `(?:free)?${element}` : "[a-z]+";
  const named = new RegExp(`<${tag}\\b[^>]*\\bname\\s*=\\s*["']${escaped(name)}["']`);
  return find(files, mjcfPath, named) ?? mjcfPath;
}

/** "file:line" of the first match in any of the files, the model file first. */
function find(files: Map<string, string>, mjcfPath: string, pattern: RegExp): string | undefined {
  for (const [name, text] of files) {
    const at = text.search(pattern);
    if (at < 0) continue;
    const path = name === basename(mjcfPath) ? mjcfPath : join(dirname(mjcfPath), name);
    return `${path}:${text.slice(0, at).split("\n").length}`;
  }
  return undefined;
}

function escaped(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
