// Constants of a model that a task draws anew for every episode (domain randomisation): which
// numbers of MuJoCo's arrays a declaration means, and the expression of their values.
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { ParameterField } from "@proto/sdpg/task/v1/task_pb.ts";
import { didYouMean } from "../suggest.ts";
import { concat, type Expression, expression, TaskError, type Value } from "./expression.ts";

/** MuJoCo's arrays; joints stand for their degrees of freedom and coordinates. */
export type RandomisedField =
  | "body_mass"
  | "body_inertia"
  | "body_ipos"
  | "geom_friction"
  | "dof_armature"
  | "dof_damping"
  | "jnt_stiffness"
  | "actuator_gain"
  | "actuator_bias"
  | "qpos0";

/** What `World.randomise` takes. */
export interface Randomisation {
  field: RandomisedField;
  /** Names of the bodies, geoms, joints or actuators; all of them when absent. */
  of?: readonly string[];
  /** Which number of each, for example 0 for sliding friction; all of them when absent. */
  element?: number;
  /**
   * The values [n] of an episode from those of the model [n], by draws of `World.uniform`,
   * `normal` and `logUniform`: `(v) => v.mul(world.uniform(0.8, 1.2))` scales all alike,
   * `world.uniform(0.8, 1.2, v.length)` each on its own. Draws may be shared between fields.
   */
  value(model: Expression): Value;
  /**
   * "group" (the default) draws once for a nominal and its auxiliaries, so that they differ in
   * their actions only; "environment" draws for every environment on its own.
   */
  per?: "group" | "environment";
}

/** A randomisation resolved against a model. */
export interface Randomised {
  field: ParameterField;
  /** Elements of the array. */
  slots: number[];
  values: Expression;
  perEnvironment: boolean;
}

interface Array {
  field: ParameterField;
  /** Values in the model. */
  values: number[];
  width: number;
  kind: string;
  names: string[];
  /** First row of the array for each name, and how many rows. */
  rows: (i: number) => [first: number, count: number];
  /** Whether the object can have the parameter at all. */
  applies: (i: number) => boolean;
  /** The least a value may become, from the model's; -Infinity for any. */
  least: (value: number) => number;
}

/** Resolves a randomisation; TaskError names what does not fit. */
export function resolve(model: Model, what: Randomisation): Randomised {
  const array = arrayOf(model, what.field);
  const at = `randomise ${what.field}`;
  const objects = what.of === undefined
    ? array.names.map((_, i) => i).filter(array.applies)
    : what.of.map((name) => {
      const i = array.names.indexOf(name);
      if (i < 0) {
        throw new TaskError(
          `${at}: ${array.kind} '${name}' is not in the model${
            didYouMean(name, array.names) || "."
          } It has ${array.names.map((n) => `'${n}'`).join(", ")}`,
        );
      }
      if (!array.applies(i)) throw new TaskError(`${at}: ${array.kind} '${name}' has none`);
      return i;
    });
  const { element, per = "group" } = what;
  if (
    element !== undefined && !(Number.isInteger(element) && element >= 0 && element < array.width)
  ) {
    throw new TaskError(`${at}: expected an element from 0 to ${array.width - 1}, got ${element}`);
  }
  const slots = objects.flatMap((i) => {
    const [first, count] = array.rows(i);
    const numbers = Array.from({ length: count * array.width }, (_, k) => first * array.width + k);
    return element === undefined ? numbers : numbers.filter((k) => k % array.width === element);
  });
  if (slots.length === 0) throw new TaskError(`${at}: the model has no ${array.kind} for it`);
  if (new Set(slots).size < slots.length) throw new TaskError(`${at}: a name is given twice`);
  const present = slots.map((slot) => array.values[slot]);
  const values = expression(what.value(concat(...present)));
  if (values.length !== slots.length) {
    throw new TaskError(
      `${at}: expected ${slots.length} values from ${slots.length}, got ${values.length}`,
    );
  }
  const least = present.map(array.least);
  return {
    field: array.field,
    slots,
    values: least.every((bound) => bound === -Infinity) ? values : values.max(least),
    perEnvironment: per === "environment",
  };
}

function arrayOf(model: Model, field: RandomisedField): Array {
  const { bodies, geoms, joints, dofs, actuators } = model;
  const always = () => true;
  const one = (i: number): [number, number] => [i, 1];
  const anything = () => -Infinity;
  const notNegative = () => 0;
  // Without mass a body that moves has no acceleration.
  const positive = (value: number) => value / 100;
  const body = {
    kind: "body",
    names: bodies!.name,
    rows: one,
    applies: (i: number) => bodies!.mass[i] > 0,
  };
  const jointDofs = (i: number): [number, number] => [
    joints!.dofadr[i],
    [6, 3, 1, 1][joints!.type[i]],
  ];
  const dof = { width: 1, kind: "joint", names: joints!.name, rows: jointDofs, applies: always };
  const actuator = {
    kind: "actuator",
    names: actuators!.name,
    rows: one,
    applies: always,
    least: anything,
  };
  const parameters = (all: number[], width: number) =>
    actuators!.name.flatMap((_, i) => {
      const stride = all.length / actuators!.name.length;
      return all.slice(i * stride, i * stride + width);
    });
  switch (field) {
    case "body_mass":
      return {
        ...body,
        field: ParameterField.BODY_MASS,
        values: bodies!.mass,
        width: 1,
        least: positive,
      };
    case "body_inertia":
      return {
        ...body,
        field: ParameterField.BODY_INERTIA,
        values: bodies!.inertia,
        width: 3,
        least: positive,
      };
    case "body_ipos":
      return {
        ...body,
        field: ParameterField.BODY_IPOS,
        values: bodies!.ipos,
        width: 3,
        least: anything,
      };
    case "geom_friction":
      return {
        field: ParameterField.GEOM_FRICTION,
        values: geoms!.friction,
        width: 3,
        kind: "geom",
        names: geoms!.name,
        rows: one,
        applies: always,
        least: notNegative,
      };
    case "dof_armature":
      return {
        ...dof,
        field: ParameterField.DOF_ARMATURE,
        values: dofs!.armature,
        least: notNegative,
      };
    case "dof_damping":
      return {
        ...dof,
        field: ParameterField.DOF_DAMPING,
        values: dofs!.damping,
        least: notNegative,
      };
    case "jnt_stiffness":
      return {
        ...dof,
        field: ParameterField.JNT_STIFFNESS,
        values: joints!.stiffness,
        rows: one,
        least: notNegative,
      };
    case "actuator_gain":
      return {
        ...actuator,
        field: ParameterField.ACTUATOR_GAIN,
        values: parameters(actuators!.gainprm, 1),
        width: 1,
      };
    case "actuator_bias":
      return {
        ...actuator,
        field: ParameterField.ACTUATOR_BIAS,
        values: parameters(actuators!.biasprm, 3),
        width: 3,
      };
    case "qpos0":
      return {
        ...dof,
        field: ParameterField.QPOS0,
        values: model.qpos0,
        rows: (i) => [joints!.qposadr[i], 1],
        applies: (i) => joints!.type[i] >= 2,
        least: anything,
      };
  }
}
