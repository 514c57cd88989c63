// How a task is declared: what its policy sees, what is rewarded, what ends an episode, how an
// episode starts and how actions drive the robot. `tasks/<name>/task.ts` is one call of
// `defineTask`; `program.ts` compiles what it returns. docs/how-to-write-a-task.md explains it.
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { SensorKind } from "@proto/sdpg/task/v1/task_pb.ts";
import { didYouMean } from "../suggest.ts";
import {
  concat,
  constant,
  Expression,
  Kept,
  type LoadOp,
  TaskError,
  type Value,
} from "./expression.ts";
import { onSphere } from "./geometry.ts";
import { type Randomisation, type Randomised, resolve } from "./randomise.ts";

/** A task as written in its `task.ts`. */
export interface TaskDeclaration<O extends TaskOptions = TaskOptions> {
  /** The folder's name. */
  name: string;
  /** One sentence for lists. */
  summary: string;
  /** The MJCF file. */
  model: URL;
  /** Physics steps of one control step. */
  substeps: number;
  /** Control steps after which an episode is cut off (truncated, not terminated). */
  episodeLength: number;
  /** Cameras of the model through which a policy looks, in the order in which it gets their pictures. */
  cameras?: readonly string[];
  /** What variants of the task may change, by name. */
  options?: O;
  /** The terms, built once for a model and a choice of options. */
  terms(world: World, options: OptionValues<O>): TaskTerms;
}

/** A number, or one of a few words. */
export type TaskOption =
  | { meaning: string; default: number }
  | { meaning: string; default: string; choices: readonly string[] };

export type TaskOptions = Record<string, TaskOption>;

/** What the terms get: a number, or the word that was chosen. */
export type OptionValues<O extends TaskOptions> = {
  [K in keyof O]: O[K] extends { choices: readonly (infer C)[] } ? C
    : O[K] extends { default: number } ? number
    : number | string;
};

/** What the terms of a task are. Names appear in the records; order is kept. */
export interface TaskTerms {
  /** The controls [nu] for the action in (−1, 1). */
  control: Value;
  observations: Record<string, Observed>;
  /** The reward is the sum of all terms. */
  rewards: Record<string, Reward>;
  /** Conditions that end an episode, by name; not 0 means the episode is over. */
  terminations: Record<string, Value>;
  reset: {
    /** Configuration [nq] at the start of an episode. */
    qpos: Value;
    /** Velocity [nv]; 0 when absent. */
    qvel?: Value;
    /** Kept registers that do not start at their initial value. */
    keep?: KeptUpdate[];
  };
  /** New values of kept registers at the end of a step, all computed from the old ones. */
  keep?: KeptUpdate[];
}

export interface Observed {
  value: Value;
  /** Whether the policy sees it. */
  actor: boolean;
  /** Whether the critic sees it. */
  privileged: boolean;
  /** Whether it is normalised by its running mean and variance. */
  normalise: boolean;
}

export interface Reward {
  weight: number;
  value: Expression;
}

export interface KeptUpdate {
  register: Kept;
  next: Value;
}

/** Checks what can be checked without the model and returns the declaration. */
export function defineTask<const O extends TaskOptions>(
  declaration: TaskDeclaration<O>,
): TaskDeclaration {
  const { name, substeps, episodeLength, cameras = [], options = {} as O } = declaration;
  if (!/^[a-z][a-z0-9_]*$/.test(name)) {
    throw new TaskError(`task '${name}': expected a name of the form [a-z][a-z0-9_]*`);
  }
  for (const [what, value] of Object.entries({ substeps, episodeLength })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new TaskError(
        `task '${name}': ${what}: expected an integer of at least 1, got ${value}`,
      );
    }
  }
  const twice = cameras.find((camera, i) => cameras.indexOf(camera) !== i);
  if (twice !== undefined) throw new TaskError(`task '${name}': camera '${twice}' is named twice`);
  for (const [option, declared] of Object.entries(options)) {
    if ("choices" in declared && !declared.choices.includes(declared.default)) {
      throw new TaskError(
        `task '${name}': option '${option}': expected a default among ` +
          `${declared.choices.join(", ")}, got ${declared.default}`,
      );
    }
  }
  // `chosenOptions` gives the terms exactly what the options declare.
  return declaration as unknown as TaskDeclaration;
}

/** The cameras of a task, which its model has; none for a task that has nothing to see. */
export function taskCameras(declaration: TaskDeclaration, model: Model): string[] {
  const names = model.cameras.map((camera) => camera.name);
  for (const camera of declaration.cameras ?? []) {
    if (names.includes(camera)) continue;
    throw new TaskError(
      `task '${declaration.name}': the model has no camera '${camera}'` +
        `${didYouMean(camera, names) || "."} Its cameras: ${names.join(", ") || "none"}`,
    );
  }
  return [...declaration.cameras ?? []];
}

/** An observation; unless said otherwise both networks see it, normalised. */
export function observed(value: Value, seen: Partial<Omit<Observed, "value">> = {}): Observed {
  return { value, actor: true, privileged: true, normalise: true, ...seen };
}

/** A weighted reward term; `value` has length 1. */
export function reward(weight: number, value: Expression): Reward {
  return { weight, value };
}

/** The new value of a kept register. */
export function becomes(register: Kept, next: Value): KeptUpdate {
  return { register, next };
}

/** What is measured on a body; every vector has length 3. */
export interface Measured {
  /** m/s, of the body's origin, in the present state. */
  readonly linearVelocity: Expression;
  /** rad/s. */
  readonly angularVelocity: Expression;
  /** m/s², of the body's origin in the last physics step, 9.81 upwards at rest; 0 at the start. */
  readonly linearAcceleration: Expression;
  /** rad/s². */
  readonly angularAcceleration: Expression;
  /** N, sum of the contact forces on the body in the last physics step; 0 at the start. */
  readonly contactForce: Expression;
}

/** A body: its frame in the world, and measurements in the world's axes and in its own. */
export interface Body extends Measured {
  /** [3] m. */
  readonly position: Expression;
  /** [4]. */
  readonly orientation: Expression;
  /** [3] m. */
  readonly centreOfMass: Expression;
  /** [1] N, sum of the normal forces of the body's contacts in the last physics step. */
  readonly touch: Expression;
  /** The same in the body's axes. */
  readonly local: Measured;
}

/** A sensor of the program. */
export interface Sense {
  kind: SensorKind;
  object: number;
  local: boolean;
  length: number;
}

/**
 * What the terms of a task may read, by the names of the model. Positions and orientations are
 * in the world, z up, metres and radians; quaternions are (w, x, y, z).
 */
export class World {
  readonly kept: Kept[] = [];
  readonly sensors: Sense[] = [];
  readonly parameters: Randomised[] = [];
  private draws = 0;

  constructor(readonly model: Model) {}

  /** Length of the action vector: one action an actuator. */
  get actionSize(): number {
    return this.model.actuators!.name.length;
  }
  /** [nu] the action of this step in (−1, 1). Not available to observations: keep it in a register. */
  get action(): Expression {
    return load("LOAD_ACTION", 0, this.actionSize);
  }
  /** [nu] the controls the actuators got in this step. */
  get ctrl(): Expression {
    return load("LOAD_CTRL", 0, this.model.actuators!.name.length);
  }
  /** [nq] the configuration; in `reset` it is that of the model file. */
  get qpos(): Expression {
    return load("LOAD_QPOS", 0, this.model.qpos0.length);
  }
  /** [nv] the generalised velocity. */
  get qvel(): Expression {
    return load("LOAD_QVEL", 0, this.model.dofs!.bodyid.length);
  }
  /** Control steps since the start of the episode. */
  get progress(): Expression {
    return load("LOAD_PROGRESS", 0, 1);
  }

  /** A joint's coordinates and velocities: one each for slide and hinge (m or rad, and per second). */
  joint(name: string): { position: Expression; velocity: Expression; range: [number, number] } {
    const joints = this.model.joints!;
    const i = find("joint", name, joints.name);
    // Free joints have 7 coordinates and 6 velocities, ball joints 4 and 3.
    const [positions, velocities] = [[7, 6], [4, 3], [1, 1], [1, 1]][joints.type[i]];
    return {
      position: load("LOAD_QPOS", joints.qposadr[i], positions),
      velocity: load("LOAD_QVEL", joints.dofadr[i], velocities),
      range: [joints.range[2 * i], joints.range[2 * i + 1]],
    };
  }
  /**
   * A free joint: position [3] and linear velocity [3] in the world, orientation [4], and angular
   * velocity [3] about the body's own axes.
   */
  freeJoint(name: string): {
    position: Expression;
    orientation: Expression;
    linearVelocity: Expression;
    angularVelocity: Expression;
  } {
    const { position, velocity } = this.joint(name);
    if (position.length !== 7) {
      throw new TaskError(`joint '${name}': expected a free joint; use world.joint`);
    }
    return {
      position: position.slice(0, 3),
      orientation: position.slice(3),
      linearVelocity: velocity.slice(0, 3),
      angularVelocity: velocity.slice(3),
    };
  }
  /** Positions and velocities of several joints in the order given. */
  joints(...names: string[]): { position: Expression; velocity: Expression } {
    const found = names.map((name) => this.joint(name));
    return {
      position: concat(...found.map((joint) => joint.position)),
      velocity: concat(...found.map((joint) => joint.velocity)),
    };
  }

  /** An actuator's gear (N m or N at a force of 1, for a motor) and the range of its control. */
  actuator(name: string): { gear: number; range: [number, number] } {
    const actuators = this.model.actuators!;
    const i = find("actuator", name, actuators.name);
    return {
      gear: actuators.gear[6 * i],
      range: [actuators.ctrlrange[2 * i], actuators.ctrlrange[2 * i + 1]],
    };
  }

  /** A body's frame in the world and what is measured on it. Not in `reset`. */
  body(name: string): Body {
    const i = find("body", name, this.model.bodies!.name);
    const sensor = (kind: SensorKind, length = 3) => this.sensor(kind, i, false, length);
    const local = (kind: SensorKind) => this.sensor(kind, i, true, 3);
    return {
      position: load("LOAD_XPOS", 3 * i, 3),
      orientation: load("LOAD_XQUAT", 4 * i, 4),
      centreOfMass: load("LOAD_XIPOS", 3 * i, 3),
      // What is measured costs time, so only what is read becomes a sensor.
      get linearVelocity() {
        return sensor(SensorKind.LINEAR_VELOCITY);
      },
      get angularVelocity() {
        return sensor(SensorKind.ANGULAR_VELOCITY);
      },
      get linearAcceleration() {
        return sensor(SensorKind.LINEAR_ACCELERATION);
      },
      get angularAcceleration() {
        return sensor(SensorKind.ANGULAR_ACCELERATION);
      },
      get contactForce() {
        return sensor(SensorKind.CONTACT_FORCE);
      },
      get touch() {
        return sensor(SensorKind.TOUCH_BODY, 1);
      },
      local: {
        get linearVelocity() {
          return local(SensorKind.LINEAR_VELOCITY);
        },
        get angularVelocity() {
          return local(SensorKind.ANGULAR_VELOCITY);
        },
        get linearAcceleration() {
          return local(SensorKind.LINEAR_ACCELERATION);
        },
        get angularAcceleration() {
          return local(SensorKind.ANGULAR_ACCELERATION);
        },
        get contactForce() {
          return local(SensorKind.CONTACT_FORCE);
        },
      },
    };
  }

  /** A geom: the sum of the normal forces of its contacts [1], N. Not in `reset`. */
  geom(name: string): { readonly touch: Expression } {
    const i = find("geom", name, this.model.geoms!.name);
    const sensor = () => this.sensor(SensorKind.TOUCH_GEOM, i, false, 1);
    return {
      get touch() {
        return sensor();
      },
    };
  }

  /** Activations [n] of the actuators, in their order; only of those that have one. */
  get act(): Expression {
    const adr = this.model.actuators!.actadr;
    const count = adr.filter((at) => at >= 0).length;
    if (count === 0) throw new TaskError("act: no actuator of the model has an activation");
    return load("LOAD_ACT", 0, count);
  }

  private sensor(kind: SensorKind, object: number, local: boolean, length: number): Expression {
    const same = (s: Sense) => s.kind === kind && s.object === object && s.local === local;
    let sensor = this.sensors.find(same);
    if (!sensor) this.sensors.push(sensor = { kind, object, local, length });
    const before = this.sensors.slice(0, this.sensors.indexOf(sensor));
    return load("LOAD_SENSOR", before.reduce((sum, s) => sum + s.length, 0), length);
  }

  /**
   * Draws values of model constants at the start of each episode. Returns the values in force, in
   * the order of `of`, for observations of the critic; not in `reset`.
   */
  randomise(what: Randomisation): Expression {
    const randomised = resolve(this.model, what);
    const index = this.parameters.reduce((sum, p) => sum + p.slots.length, 0);
    for (const { field, slots } of this.parameters) {
      const twice = slots.find((slot) =>
        field === randomised.field && randomised.slots.includes(slot)
      );
      if (twice !== undefined) {
        throw new TaskError(`randomise ${what.field}: element ${twice} is randomised twice`);
      }
    }
    this.parameters.push(randomised);
    return load("LOAD_PARAMETER", index, randomised.slots.length);
  }

  /**
   * `length` independent uniform numbers in [low, high), only in `reset` and `randomise`. Every call
   * draws anew.
   */
  uniform(low: number, high: number, length = 1): Expression {
    if (!(low < high)) {
      throw new TaskError(`uniform: expected low < high, got ${low} and ${high}`);
    }
    return this.unit(length).mul(high - low).add(low);
  }
  /** `length` independent normal numbers, only in `reset`. Every call draws anew. */
  normal(mean: number, deviation: number, length = 1): Expression {
    if (!(deviation > 0)) {
      throw new TaskError(`normal: expected a deviation above 0, got ${deviation}`);
    }
    // Box and Muller: two uniforms make two normals. 1 - u is in (0, 1].
    const pairs = Math.ceil(length / 2);
    const radius = constant(1).sub(this.unit(pairs)).log().mul(-2).sqrt();
    const angle = this.unit(pairs).mul(2 * Math.PI);
    const both = concat(radius.mul(angle.cos()), radius.mul(angle.sin()));
    return both.slice(0, length).mul(deviation).add(mean);
  }
  /** `length` independent numbers in [low, high) whose logarithms are uniform, only in `reset`. */
  logUniform(low: number, high: number, length = 1): Expression {
    if (!(0 < low && low < high)) {
      throw new TaskError(`logUniform: expected 0 < low < high, got ${low} and ${high}`);
    }
    return this.uniform(Math.log(low), Math.log(high), length).exp();
  }
  /** A direction [3] in which no direction is preferred, only in `reset`. */
  direction(): Expression {
    return onSphere(this.uniform(-1, 1), this.uniform(-Math.PI, Math.PI));
  }

  private unit(length: number): Expression {
    const drawn = load("RANDOM_UNIFORM", this.draws, length);
    this.draws += length;
    return drawn;
  }

  /** A register that keeps `length` values from step to step, `initial` at the start of an episode. */
  keep(name: string, length = 1, initial = 0): Kept {
    if (this.kept.some((register) => register.name === name)) {
      throw new TaskError(`keep '${name}': the name is taken by another register`);
    }
    const register = new Kept(name, length, constantOf(initial));
    this.kept.push(register);
    return register;
  }
}

function load(op: LoadOp, index: number, length: number): Expression {
  return new Expression({ kind: "load", op, index }, length);
}

/** The number as float32; refuses what is not finite. */
function constantOf(value: number): number {
  const { node } = constant(value);
  return node.kind === "constant" ? node.value : value;
}

function find(kind: string, name: string, names: string[]): number {
  const index = names.indexOf(name);
  if (index < 0) {
    throw new TaskError(
      `${kind} '${name}' is not in the model${didYouMean(name, names) || "."} ` +
        `It has ${names.map((n) => `'${n}'`).join(", ")}`,
    );
  }
  return index;
}
