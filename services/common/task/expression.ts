// What the terms of a task are made of: vector-valued expressions over what the simulator
// knows. An expression only describes a computation; `program.ts` turns the expressions of a
// task into the straight-line program that gpu-sim runs, and finds common parts by itself, so
// write the same subexpression as often as it reads well.
//
// Every expression has a length. Element by element operations take operands of equal length,
// or a single value that is repeated.

/** Element by element operations: names are those of the opcodes in sdpg.task.v1. */
export type ElementwiseOp =
  | "ADD"
  | "SUB"
  | "MUL"
  | "DIV"
  | "MIN"
  | "MAX"
  | "NEG"
  | "ABS"
  | "SQRT"
  | "EXP"
  | "LOG"
  | "SIN"
  | "COS"
  | "TANH"
  | "ATAN2"
  | "FLOOR"
  | "MULADD"
  | "WRAP_ANGLE"
  | "LESS"
  | "LESS_EQUAL"
  | "EQUAL"
  | "AND"
  | "OR"
  | "NOT"
  | "SELECT";

/** From a vector to one value. */
export type ReductionOp = "SUM" | "REDUCE_MAX" | "REDUCE_MIN" | "DOT";

/** Consecutive elements of something the simulator knows. */
export type LoadOp =
  | "LOAD_QPOS"
  | "LOAD_QVEL"
  | "LOAD_CTRL"
  | "LOAD_ACTION"
  | "LOAD_XPOS"
  | "LOAD_XQUAT"
  | "LOAD_XIPOS"
  | "LOAD_PROGRESS"
  | "LOAD_SENSOR"
  | "LOAD_PARAMETER"
  | "LOAD_ACT"
  | "RANDOM_UNIFORM";

/** How an expression comes about. */
export type Node =
  | { kind: "constant"; value: number }
  | { kind: "load"; op: LoadOp; index: number }
  | { kind: "elementwise"; op: ElementwiseOp; operands: Expression[] }
  | { kind: "reduction"; op: ReductionOp; operands: Expression[] }
  | { kind: "concat"; parts: Expression[] }
  | { kind: "slice"; of: Expression; start: number }
  | { kind: "kept"; register: Kept };

/** Anything that can stand for an expression: a number, or several values in a row. */
export type Value = Expression | number | readonly (Expression | number)[];

/** A mistake in a task's declaration: a wrong name, length or weight. */
export class TaskError extends Error {
  override readonly name = "TaskError";
}

export class Expression {
  constructor(readonly node: Node, readonly length: number) {
    if (!Number.isInteger(length) || length < 1) {
      throw new TaskError(`expression: expected a length of at least 1, got ${length}`);
    }
  }

  add(other: Value): Expression {
    return elementwise("ADD", this, other);
  }
  sub(other: Value): Expression {
    return elementwise("SUB", this, other);
  }
  mul(other: Value): Expression {
    return elementwise("MUL", this, other);
  }
  div(other: Value): Expression {
    return elementwise("DIV", this, other);
  }
  /** this · factor + summand in one instruction, rounded once or twice as the machine does it. */
  mulAdd(factor: Value, summand: Value): Expression {
    return elementwise("MULADD", this, factor, summand);
  }
  min(other: Value): Expression {
    return elementwise("MIN", this, other);
  }
  max(other: Value): Expression {
    return elementwise("MAX", this, other);
  }
  /** Limits every element to [low, high]. */
  clip(low: Value, high: Value): Expression {
    return this.max(low).min(high);
  }
  neg(): Expression {
    return elementwise("NEG", this);
  }
  abs(): Expression {
    return elementwise("ABS", this);
  }
  square(): Expression {
    return this.mul(this);
  }
  sqrt(): Expression {
    return elementwise("SQRT", this);
  }
  exp(): Expression {
    return elementwise("EXP", this);
  }
  /** Natural logarithm. */
  log(): Expression {
    return elementwise("LOG", this);
  }
  sin(): Expression {
    return elementwise("SIN", this);
  }
  cos(): Expression {
    return elementwise("COS", this);
  }
  tanh(): Expression {
    return elementwise("TANH", this);
  }
  /** Angle of the point (x, this), radians in (−π, π]. */
  atan2(x: Value): Expression {
    return elementwise("ATAN2", this, x);
  }
  floor(): Expression {
    return elementwise("FLOOR", this);
  }
  /** An angle in radians brought into (−π, π]. */
  wrapAngle(): Expression {
    return elementwise("WRAP_ANGLE", this);
  }

  /** 1 where this < other, else 0; as all comparisons, 0 where either is not a number. */
  less(other: Value): Expression {
    return elementwise("LESS", this, other);
  }
  lessEqual(other: Value): Expression {
    return elementwise("LESS_EQUAL", this, other);
  }
  greater(other: Value): Expression {
    return elementwise("LESS", other, this);
  }
  greaterEqual(other: Value): Expression {
    return elementwise("LESS_EQUAL", other, this);
  }
  equal(other: Value): Expression {
    return elementwise("EQUAL", this, other);
  }
  and(other: Value): Expression {
    return elementwise("AND", this, other);
  }
  or(other: Value): Expression {
    return elementwise("OR", this, other);
  }
  not(): Expression {
    return elementwise("NOT", this);
  }
  /** `whenTrue` where this is not 0, elsewhere `whenFalse`. */
  select(whenTrue: Value, whenFalse: Value): Expression {
    return elementwise("SELECT", this, whenTrue, whenFalse);
  }

  /** Sum of the elements, in their order. */
  sum(): Expression {
    return reduction("SUM", this);
  }
  mean(): Expression {
    return this.sum().mul(1 / this.length);
  }
  largest(): Expression {
    return reduction("REDUCE_MAX", this);
  }
  smallest(): Expression {
    return reduction("REDUCE_MIN", this);
  }
  dot(other: Value): Expression {
    return reduction("DOT", this, expression(other));
  }
  /** Euclidean length. */
  norm(): Expression {
    return this.dot(this).sqrt();
  }

  /** Element `index`, counted from the end when negative. */
  at(index: number): Expression {
    const i = index < 0 ? this.length + index : index;
    return this.slice(i, i + 1);
  }
  /** Elements [start, end). */
  slice(start: number, end: number = this.length): Expression {
    const inside = Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start < end &&
      end <= this.length;
    if (!inside) {
      throw new TaskError(
        `slice: expected 0 <= start < end <= ${this.length}, got [${start}, ${end})`,
      );
    }
    if (start === 0 && end === this.length) return this;
    if (this.node.kind === "load") {
      const { node } = this;
      return new Expression({ ...node, index: node.index + start }, end - start);
    }
    return new Expression({ kind: "slice", of: this, start }, end - start);
  }
}

/**
 * Registers that keep their value from one control step to the next: air time, a goal, the
 * previous action. They are part of an environment's state, so copies and checkpoints have them.
 */
export class Kept {
  /** The value at the beginning of the step, or at present in an observation. */
  readonly value: Expression;
  constructor(readonly name: string, length: number, readonly initial: number) {
    this.value = new Expression({ kind: "kept", register: this }, length);
  }
}

/** An expression of a number (length 1), of several values in a row, or itself. */
export function expression(value: Value): Expression {
  if (value instanceof Expression) return value;
  if (typeof value === "number") return constant(value);
  return concat(...value);
}

/** `length` times the same float32 number. */
export function constant(value: number, length = 1): Expression {
  if (!Number.isFinite(Math.fround(value))) {
    throw new TaskError(`constant: expected a finite float32, got ${value}`);
  }
  return new Expression({ kind: "constant", value: Math.fround(value) }, length);
}

/** Values one after another. */
export function concat(...parts: Value[]): Expression {
  const flat: Expression[] = [];
  for (const value of parts) {
    const part = expression(value);
    for (const piece of part.node.kind === "concat" ? part.node.parts : [part]) {
      const joined = flat.length > 0 ? join(flat[flat.length - 1], piece) : undefined;
      if (joined) flat[flat.length - 1] = joined;
      else flat.push(piece);
    }
  }
  if (flat.length === 0) throw new TaskError("concat: expected at least one part, got none");
  if (flat.length === 1) return flat[0];
  return new Expression(
    { kind: "concat", parts: flat },
    flat.reduce((sum, part) => sum + part.length, 0),
  );
}

/** Two neighbours as one part: equal constants, or loads of adjoining elements. */
function join(a: Expression, b: Expression): Expression | undefined {
  if (a.node.kind === "constant" && b.node.kind === "constant") {
    if (!Object.is(a.node.value, b.node.value)) return undefined;
    return new Expression(a.node, a.length + b.length);
  }
  if (a.node.kind === "load" && b.node.kind === "load") {
    if (a.node.op !== b.node.op || a.node.op === "LOAD_PROGRESS") return undefined;
    if (a.node.index + a.length !== b.node.index) return undefined;
    return new Expression(a.node, a.length + b.length);
  }
  return undefined;
}

/** True where any of the conditions is. */
export function any(...conditions: Expression[]): Expression {
  return conditions.reduce((all, condition) => all.or(condition));
}

function elementwise(op: ElementwiseOp, ...values: Value[]): Expression {
  const operands = values.map(expression);
  const length = Math.max(...operands.map((operand) => operand.length));
  if (operands.some((operand) => operand.length !== length && operand.length !== 1)) {
    const lengths = operands.map((operand) => operand.length).join(", ");
    throw new TaskError(
      `${op.toLowerCase()}: expected operands of equal length or of length 1, got ${lengths}`,
    );
  }
  return new Expression({ kind: "elementwise", op, operands }, length);
}

function reduction(op: ReductionOp, ...operands: Expression[]): Expression {
  if (operands.length === 2 && operands[0].length !== operands[1].length) {
    const lengths = operands.map((operand) => operand.length).join(" and ");
    throw new TaskError(`${op.toLowerCase()}: expected operands of equal length, got ${lengths}`);
  }
  return new Expression({ kind: "reduction", op, operands }, 1);
}
