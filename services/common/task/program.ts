// Compiles a task declaration to sdpg.task.v1: a straight line of vector instructions for each of
// the five sections. On the way equal subexpressions become one, arithmetic on constants is
// done here, results go straight to where an observation wants them, and registers are reused
// once nothing reads them any more, because the registers of all environments have to share a
// processor's cache.
//
// expressions --(number)--> distinct nodes --(emit)--> instructions on virtual ranges
//             --(allocate)--> instructions on registers
import { createHash } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import {
  type Instruction,
  InstructionSchema,
  Opcode,
  type TaskProgram,
  TaskProgramSchema,
} from "@proto/sdpg/task/v1/task_pb.ts";
import { didYouMean } from "../suggest.ts";
import { type KeptUpdate, type TaskDeclaration, type TaskTerms, World } from "./declare.ts";
import {
  concat,
  constant,
  type Expression,
  expression,
  Kept,
  TaskError,
  type Value,
} from "./expression.ts";
import { evaluateElementwise } from "./arithmetic.ts";

const SECTIONS = ["control", "step", "observe", "reset", "vary"] as const;
type SectionName = (typeof SECTIONS)[number];

/** Loads that mean something in a section only: see the comments of sdpg.task.v1. */
const LOADS_ONLY_IN: Record<string, SectionName[]> = {
  LOAD_ACTION: ["control", "step"],
  LOAD_CTRL: ["control", "step"],
  LOAD_XPOS: ["control", "step", "observe"],
  LOAD_XQUAT: ["control", "step", "observe"],
  LOAD_XIPOS: ["control", "step", "observe"],
  LOAD_SENSOR: ["control", "step", "observe"],
  LOAD_PARAMETER: ["control", "step", "observe"],
  RANDOM_UNIFORM: ["reset", "vary"],
};

const MAX_REGISTERS = 65536;

/**
 * Compiles a declaration for a model. `options` override the declared defaults.
 * Throws TaskError naming the task, the term and both lengths where they do not fit.
 */
export function compileTask(
  declaration: TaskDeclaration,
  model: Model,
  options: Record<string, number | string> = {},
): TaskProgram {
  try {
    const world = new World(model);
    const terms = declaration.terms(world, chosenOptions(declaration, options));
    return assemble(declaration, world, terms);
  } catch (error) {
    if (error instanceof TaskError && !error.message.startsWith("task '")) {
      throw new TaskError(`task '${declaration.name}': ${error.message}`);
    }
    throw error;
  }
}

/**
 * The declared options with the given ones in their place; refuses unknown names and values. A
 * number may come as text, as it does from a command line.
 */
export function chosenOptions(
  declaration: TaskDeclaration,
  options: Record<string, number | string>,
): Record<string, number | string> {
  const declared = declaration.options ?? {};
  const chosen: Record<string, number | string> = Object.fromEntries(
    Object.entries(declared).map(([name, option]) => [name, option.default]),
  );
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(declared, name)) {
      const names = Object.keys(declared);
      throw new TaskError(
        `task '${declaration.name}': option '${name}' is not one of its options` +
          `${didYouMean(name, names) || "."} It has ${names.join(", ") || "none"}`,
      );
    }
    const option = declared[name];
    if ("choices" in option) {
      if (!option.choices.includes(String(value))) {
        throw new TaskError(
          `task '${declaration.name}': option '${name}': expected ` +
            `${option.choices.join(" or ")}, got ${value}` +
            didYouMean(String(value), [...option.choices]),
        );
      }
      chosen[name] = String(value);
      continue;
    }
    const number = typeof value === "string" && value.trim() === "" ? NaN : Number(value);
    if (!Number.isFinite(number)) {
      throw new TaskError(
        `task '${declaration.name}': option '${name}': expected a finite number, got ${value}`,
      );
    }
    chosen[name] = number;
  }
  return chosen;
}

function assemble(declaration: TaskDeclaration, world: World, terms: TaskTerms): TaskProgram {
  const { model } = world;
  const [nq, nv, nu] = [
    model.qpos0.length,
    model.dofs!.bodyid.length,
    model.actuators!.name.length,
  ];
  const rewards = Object.entries(terms.rewards).map(([name, { weight, value }]) => {
    if (!Number.isFinite(weight)) {
      throw new TaskError(`reward '${name}': expected a finite weight, got ${weight}`);
    }
    return { name, value: sized(`reward '${name}'`, value, 1).mul(weight) };
  });
  const terminations = Object.entries(terms.terminations).map(([name, value]) => ({
    name,
    value: sized(`termination '${name}'`, value, 1),
  }));
  const observations = Object.entries(terms.observations).map(([name, observation]) => {
    if (!observation.actor && !observation.privileged) {
      throw new TaskError(`observation '${name}': expected actor or privileged, got neither`);
    }
    return { ...observation, name, value: expression(observation.value) };
  });
  if (rewards.length === 0) throw new TaskError("rewards: expected at least one term, got none");
  if (!observations.some((observation) => observation.privileged)) {
    throw new TaskError("observations: expected at least one for the critic, got none");
  }

  // Kept registers come first and are the same in all sections.
  let next = 0;
  const persistent = world.kept.map((register) => {
    const start = next;
    next += register.value.length;
    return {
      register,
      name: register.name,
      start,
      length: register.value.length,
      initial: register.initial,
    };
  });
  const keptAt = new Map(persistent.map(({ register, start }) => [register, start]));

  const control = new Section("control", keptAt);
  control.store(Opcode.STORE_CTRL, sized("control", terms.control, nu));

  const step = new Section("step", keptAt);
  const rewardOutputs = rewards.map((term) => step.output(term.value));
  const terminationOutputs = terminations.map((term) => step.output(term.value));
  step.update(terms.keep ?? []);

  const observe = new Section("observe", keptAt);
  const observationOutputs = observations.map((observation) => observe.output(observation.value));

  const reset = new Section("reset", keptAt);
  const qpos = sized("reset.qpos", terms.reset.qpos, nq);
  const qvel = sized("reset.qvel", terms.reset.qvel ?? constant(0, nv), nv);
  const vary = new Section("vary", keptAt);
  let slot = 0;
  for (const { values, perEnvironment } of world.parameters) {
    (perEnvironment ? vary : reset).store(Opcode.STORE_PARAMETER, values, slot);
    slot += values.length;
  }
  // The stores come last: what reads the configuration reads that of the model file.
  reset.prepare(qpos, qvel);
  reset.update(terms.reset.keep ?? []);
  reset.store(Opcode.STORE_QPOS, qpos);
  reset.store(Opcode.STORE_QVEL, qvel);

  const sections = { control, step, observe, reset, vary };
  const placed = SECTIONS.map((name) => sections[name].allocate(next));
  const registerCount = Math.max(1, ...placed.map((section) => section.registerCount));
  if (registerCount > MAX_REGISTERS) {
    throw new TaskError(`expected at most ${MAX_REGISTERS} registers, got ${registerCount}`);
  }
  const [, stepPlaced, observePlaced] = placed;

  return sealTask(create(TaskProgramSchema, {
    name: declaration.name,
    modelHash: model.contentHash,
    registerCount,
    substeps: declaration.substeps,
    episodeLength: declaration.episodeLength,
    actionSize: world.actionSize,
    persistent: persistent.map(({ name, start, length, initial }) => ({
      name,
      start,
      length,
      initial,
    })),
    control: placed[0].instructions,
    step: stepPlaced.instructions,
    observe: observePlaced.instructions,
    reset: placed[3].instructions,
    vary: placed[4].instructions,
    observations: observations.map(({ name, value, actor, privileged, normalise }, i) => ({
      name,
      start: observePlaced.at(observationOutputs[i]),
      length: value.length,
      actor,
      privileged,
      normalise,
    })),
    rewards: rewards.map(({ name }, i) => ({ name, register: stepPlaced.at(rewardOutputs[i]) })),
    terminations: terminations.map(({ name }, i) => ({
      name,
      register: stepPlaced.at(terminationOutputs[i]),
    })),
    sensors: world.sensors.map(({ kind, object, local }) => ({ kind, object, local })),
    parameters: world.parameters.flatMap(({ field, slots, perEnvironment }) =>
      slots.map((index) => ({ field, index, perEnvironment }))
    ),
  }));
}

/** Sets `contentHash` to the SHA-256 of the message serialised with the field empty. */
export function sealTask(program: TaskProgram): TaskProgram {
  program.contentHash = "";
  program.contentHash = createHash("sha256").update(toBinary(TaskProgramSchema, program))
    .digest("hex");
  return program;
}

function sized(what: string, value: Value, length: number): Expression {
  const result = expression(value);
  if (result.length !== length) {
    throw new TaskError(`${what}: expected length ${length}, got ${result.length}`);
  }
  return result;
}

/** Consecutive registers before they have a number: `range` is shared, `offset` counts inside. */
interface Place {
  range: Range;
  offset: number;
}

interface Range {
  length: number;
  /** Number of the first register: fixed for kept registers, else set by `allocate`. */
  start: number | undefined;
  /** First and last instruction that touch it; Infinity for results of the section. */
  first: number;
  last: number;
}

interface Draft {
  op: Opcode;
  dst?: Place;
  operands: { place: Place; length: number }[];
  length: number;
  immediate: number;
  index: number;
}

/** Instructions of one section while it is built. */
class Section {
  private readonly drafts: Draft[] = [];
  private readonly placeOf = new Map<string, Place>();
  private readonly numbers = new Map<string, number>();
  private readonly numberOf = new Map<Expression, number>();
  private readonly keptRanges = new Map<Kept, Range>();

  constructor(readonly name: SectionName, private readonly keptAt: Map<Kept, number>) {}

  /** Computes a value that must still be in its registers at the end of the section. */
  output(value: Expression): Place {
    let place = this.emit(fold(value));
    // A kept register may get its next value later in the section.
    if (place.range.start !== undefined) place = this.copy(place, value.length);
    place.range.last = Infinity;
    return place;
  }

  /** Computes values now that a later `store` will write. */
  prepare(...values: Expression[]): void {
    for (const value of values) {
      const folded = fold(value);
      for (const part of folded.node.kind === "concat" ? folded.node.parts : [folded]) {
        this.emit(part);
      }
    }
  }

  /** Stores a value from element `start` on, part by part, so that parts need no gathering first. */
  store(op: Opcode, value: Expression, start = 0): void {
    const folded = fold(value);
    let index = start;
    for (const part of folded.node.kind === "concat" ? folded.node.parts : [folded]) {
      const place = this.emit(part);
      this.push({ op, operands: [{ place, length: part.length }], length: part.length, index });
      index += part.length;
    }
  }

  /** Gives kept registers their next values, all computed before the first one changes. */
  update(updates: KeptUpdate[]): void {
    const seen = new Set<Kept>();
    const values = updates.map(({ register, next }) => {
      const at = `keep '${register.name}'`;
      if (!this.keptAt.has(register)) {
        throw new TaskError(`${at}: it is a register of another task; make it with world.keep`);
      }
      if (seen.has(register)) throw new TaskError(`${at}: it gets two new values`);
      seen.add(register);
      const value = sized(at, next, register.value.length);
      const place = this.emit(fold(value));
      return place.range.start === undefined ? place : this.copy(place, value.length);
    });
    updates.forEach(({ register }, i) => {
      const length = register.value.length;
      this.push({
        op: Opcode.MOVE,
        dst: { range: this.keptRange(register), offset: 0 },
        operands: [{ place: values[i], length }],
        length,
      });
    });
  }

  /**
   * Gives every range registers from `firstFree` on, the lowest that are free while it lives.
   * A result never shares a register with an operand of its own instruction.
   */
  allocate(firstFree: number) {
    const busy: Range[] = [];
    let registerCount = firstFree;
    this.drafts.forEach((draft, i) => {
      const range = draft.dst?.range;
      if (range && range.start === undefined) {
        let start = firstFree;
        const alive = busy.filter((other) => other.last >= i).sort((a, b) => a.start! - b.start!);
        for (const other of alive) {
          if (start + range.length <= other.start!) break;
          start = Math.max(start, other.start! + other.length);
        }
        range.start = start;
        busy.push(range);
        registerCount = Math.max(registerCount, start + range.length);
      }
    });
    const at = (place: Place) => place.range.start! + place.offset;
    const instructions: Instruction[] = this.drafts.map((draft) => {
      const [a, b, c] = draft.operands;
      // An operand of one register is repeated where the result is longer.
      const scalar = (operand?: { length: number }) =>
        operand !== undefined && operand.length === 1 && draft.length > 1;
      return create(InstructionSchema, {
        op: draft.op,
        dst: draft.dst ? at(draft.dst) : 0,
        a: a ? at(a.place) : 0,
        b: b ? at(b.place) : 0,
        c: c ? at(c.place) : 0,
        length: draft.length,
        aScalar: scalar(a),
        bScalar: scalar(b),
        cScalar: scalar(c),
        immediate: draft.immediate,
        index: draft.index,
      });
    });
    return { instructions, registerCount, at };
  }

  /** Emits what computes `value`, once; with `target`, leaves it there too. */
  private emit(value: Expression, target?: Place): Place {
    const { node } = value;
    if (node.kind === "slice") {
      const whole = this.emit(node.of);
      const place = { range: whole.range, offset: whole.offset + node.start };
      return target ? this.copy(place, value.length, target) : place;
    }
    if (node.kind === "kept") {
      if (!this.keptAt.has(node.register)) {
        throw new TaskError(`keep '${node.register.name}': it is a register of another task`);
      }
      if (this.name === "reset" || this.name === "vary") {
        throw new TaskError(
          `keep '${node.register.name}': a new episode has only its initial value ` +
            `${node.register.initial}; write that number in reset`,
        );
      }
      const place = { range: this.keptRange(node.register), offset: 0 };
      return target ? this.copy(place, value.length, target) : place;
    }

    const key = this.number(value).toString();
    const known = this.placeOf.get(key);
    if (known) return target ? this.copy(known, value.length, target) : known;

    const dst = target ?? this.newRange(value.length);
    const push = (draft: Partial<Draft> & { op: Opcode }) =>
      this.push({ dst, operands: [], length: value.length, ...draft });
    const operands = (expressions: Expression[]) =>
      expressions.map((e) => ({ place: this.emit(e), length: e.length }));
    switch (node.kind) {
      case "constant":
        push({ op: Opcode.CONSTANT, immediate: node.value });
        break;
      case "load": {
        const allowed = LOADS_ONLY_IN[node.op];
        if (allowed && !allowed.includes(this.name)) {
          throw new TaskError(
            `${readable(node.op)} is not available in ${this.name}, ` +
              `only in ${allowed.join(", ")}` +
              (node.op === "LOAD_ACTION" ? "; keep it in a register (world.keep)" : ""),
          );
        }
        push({ op: Opcode[node.op], index: node.index });
        break;
      }
      case "elementwise":
      case "reduction":
        push({
          op: Opcode[node.op],
          operands: operands(node.operands),
          length: Math.max(...node.operands.map((e) => e.length)),
        });
        break;
      case "concat": {
        let offset = dst.offset;
        for (const part of node.parts) {
          this.emit(part, { range: dst.range, offset });
          offset += part.length;
        }
      }
    }
    this.placeOf.set(key, dst);
    return dst;
  }

  private copy(from: Place, length: number, to: Place = this.newRange(length)): Place {
    this.push({ op: Opcode.MOVE, dst: to, operands: [{ place: from, length }], length });
    return to;
  }

  private push(draft: Partial<Draft> & Pick<Draft, "op" | "operands" | "length">): void {
    const i = this.drafts.push({ immediate: 0, index: 0, ...draft }) - 1;
    const touched = [draft.dst, ...draft.operands.map((operand) => operand.place)];
    for (const place of touched) {
      if (!place) continue;
      place.range.first = Math.min(place.range.first, i);
      place.range.last = Math.max(place.range.last, i);
    }
  }

  private newRange(length: number): Place {
    return { range: { length, start: undefined, first: Infinity, last: -1 }, offset: 0 };
  }

  private keptRange(register: Kept): Range {
    let range = this.keptRanges.get(register);
    if (!range) {
      const start = this.keptAt.get(register)!;
      range = { length: register.value.length, start, first: Infinity, last: Infinity };
      this.keptRanges.set(register, range);
    }
    return range;
  }

  /** The same number for expressions that compute the same value. */
  private number(value: Expression): number {
    const known = this.numberOf.get(value);
    if (known !== undefined) return known;
    const { node } = value;
    let key: string;
    switch (node.kind) {
      case "constant":
        key = `constant ${Object.is(node.value, -0) ? "-0" : node.value}`;
        break;
      case "load":
        key = `${node.op} ${node.index}`;
        break;
      case "kept":
        key = `kept ${this.keptAt.get(node.register)}`;
        break;
      case "slice":
        key = `slice ${node.start} ${this.number(node.of)}`;
        break;
      case "concat":
        key = `concat ${node.parts.map((part) => this.number(part)).join(" ")}`;
        break;
      default: {
        const numbers = node.operands.map((operand) => this.number(operand));
        if (COMMUTATIVE.has(node.op)) numbers.sort((a, b) => a - b);
        key = `${node.op} ${numbers.join(" ")}`;
      }
    }
    key += ` x${value.length}`;
    const number = this.numbers.get(key) ?? this.numbers.size;
    this.numbers.set(key, number);
    this.numberOf.set(value, number);
    return number;
  }
}

const COMMUTATIVE = new Set<string>(["ADD", "MUL", "EQUAL", "AND", "OR"]);

const foldedOf = new WeakMap<Expression, Expression>();

/** The same value with arithmetic on constants done and multiplications by 1 left out. */
function fold(value: Expression): Expression {
  let folded = foldedOf.get(value);
  if (!folded) {
    folded = foldOnce(value);
    foldedOf.set(value, folded);
  }
  return folded;
}

function foldOnce(value: Expression): Expression {
  const { node } = value;
  const rebuild = (changed: Expression["node"]) =>
    new (value.constructor as typeof Expression)(changed, value.length);
  switch (node.kind) {
    case "slice": {
      const of = fold(node.of);
      return of === node.of ? value : of.slice(node.start, node.start + value.length);
    }
    case "concat":
      return concat(...node.parts.map(fold));
    case "reduction":
      return rebuild({ ...node, operands: node.operands.map(fold) });
    case "elementwise": {
      const operands = node.operands.map(fold);
      const numbers = operands.map((e) => e.node.kind === "constant" ? e.node.value : undefined);
      if (numbers.every((n) => n !== undefined)) {
        const result = evaluateElementwise(node.op, numbers[0], numbers[1] ?? 0, numbers[2] ?? 0);
        if (Number.isFinite(result)) return constant(result, value.length);
      }
      // A product with 1 keeps every bit. (A sum with 0 would not: -0 + 0 is 0.)
      if (node.op === "MUL") {
        if (numbers[1] === 1 && operands[0].length === value.length) return operands[0];
        if (numbers[0] === 1 && operands[1].length === value.length) return operands[1];
      }
      return rebuild({ ...node, operands });
    }
    default:
      return value;
  }
}

/** "LOAD_ACTION" as its writer knows it. */
function readable(op: string): string {
  const names: Record<string, string> = {
    LOAD_ACTION: "the action",
    LOAD_CTRL: "ctrl",
    RANDOM_UNIFORM: "uniform",
    LOAD_XPOS: "a body's position",
    LOAD_XQUAT: "a body's orientation",
    LOAD_XIPOS: "a body's centre of mass",
    LOAD_SENSOR: "what is measured on a body or geom",
    LOAD_PARAMETER: "a randomised value",
  };
  return names[op] ?? op;
}
