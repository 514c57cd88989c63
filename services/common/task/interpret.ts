// Runs task programs for one environment, instruction by instruction, in float32. It is the
// reference that gpu-sim's vectorised evaluator is tested against, and written to be obviously
// right rather than fast.
import { type Instruction, Opcode, type TaskProgram } from "@proto/sdpg/task/v1/task_pb.ts";
import { evaluateElementwise } from "./arithmetic.ts";
import type { ElementwiseOp } from "./expression.ts";

/** What a program reads and writes of one environment; lengths as in sdpg.task.v1. */
export interface Environment {
  qpos: Float32Array;
  qvel: Float32Array;
  ctrl: Float32Array;
  /** [action_size] after tanh. */
  action: Float32Array;
  xpos: Float32Array;
  xquat: Float32Array;
  xipos: Float32Array;
  /** Control steps since the start of the episode. */
  progress: number;
  /** Uniforms in [0, 1) by draw number, for `reset` and `vary`. */
  uniforms: Float32Array;
  /** [na], where the model has activations. */
  act?: Float32Array;
  /** Values of the program's sensors, where it has any. */
  sensors?: Float32Array;
  /** Values of the program's parameters, where it has any. */
  parameters?: Float32Array;
}

/** What a program leaves behind: the values of one environment by name, in declaration order. */
export interface StepResult {
  rewards: Record<string, number>;
  /** Sum of the terms in their order, float32. */
  reward: number;
  terminations: Record<string, boolean>;
  terminated: boolean;
}

/** Executes the sections of a program for one environment and keeps its persistent registers. */
export class Interpreter {
  /** All registers; what is not persistent is poisoned before each section. */
  readonly registers: Float32Array;
  private readonly persistent: boolean[];

  constructor(readonly program: TaskProgram) {
    this.registers = new Float32Array(program.registerCount).fill(NaN);
    this.persistent = Array(program.registerCount).fill(false);
    for (const { start, length } of program.persistent) {
      this.persistent.fill(true, start, start + length);
    }
    this.initialise();
  }

  /** Gives the persistent registers their values at the start of an episode. */
  initialise(): void {
    for (const { start, length, initial } of this.program.persistent) {
      this.registers.fill(initial, start, start + length);
    }
  }

  /** Start of an episode: `environment` holds qpos0 and zero velocity and leaves with the drawn state. */
  reset(environment: Environment): void {
    this.initialise();
    this.run(this.program.reset, environment);
  }

  /** Start of an episode, after `reset`: the parameters that are the environment's own. */
  vary(environment: Environment): void {
    this.run(this.program.vary, environment);
  }

  /** Turns the action into controls. */
  control(environment: Environment): void {
    this.run(this.program.control, environment);
  }

  /** Rewards and terminations of the state after the physics; updates the persistent registers. */
  step(environment: Environment): StepResult {
    this.run(this.program.step, environment);
    const rewards: Record<string, number> = {};
    let reward = 0;
    for (const { name, register } of this.program.rewards) {
      rewards[name] = this.registers[register];
      reward = Math.fround(reward + this.registers[register]);
    }
    const terminations: Record<string, boolean> = {};
    for (const { name, register } of this.program.terminations) {
      terminations[name] = this.registers[register] !== 0;
    }
    const terminated = Object.values(terminations).some((flag) => flag);
    return { rewards, reward, terminations, terminated };
  }

  /** Observations of the present state: name -> values. */
  observe(environment: Environment): Record<string, Float32Array> {
    this.run(this.program.observe, environment);
    return Object.fromEntries(
      this.program.observations.map(({ name, start, length }) => [
        name,
        this.registers.slice(start, start + length),
      ]),
    );
  }

  private run(section: Instruction[], environment: Environment): void {
    for (let r = 0; r < this.registers.length; r++) {
      if (!this.persistent[r]) this.registers[r] = NaN;
    }
    for (const instruction of section) this.execute(instruction, environment);
  }

  private execute(instruction: Instruction, environment: Environment): void {
    const { op, dst, length, index, immediate } = instruction;
    const { registers } = this;
    // Operands are read as a whole before anything is written.
    const operand = (start: number, scalar: boolean) => {
      const values = Array.from({ length }, (_, i) => registers[scalar ? start : start + i]);
      return (i: number) => values[i];
    };
    const a = operand(instruction.a, instruction.aScalar);
    const b = operand(instruction.b, instruction.bScalar);
    const c = operand(instruction.c, instruction.cScalar);
    const write = (value: (i: number) => number) => {
      for (let i = 0; i < length; i++) registers[dst + i] = value(i);
    };
    const given = (array: Float32Array | undefined) => {
      if (array === undefined) {
        throw new Error(`interpret: ${Opcode[op]}: the environment has none`);
      }
      return array;
    };
    const load = (source: Float32Array | undefined) => write((i) => given(source)[index + i]);
    const store = (destination: Float32Array | undefined) => {
      for (let i = 0; i < length; i++) given(destination)[index + i] = a(i);
    };
    const reduce = (initial: number, from: number, next: (total: number, i: number) => number) => {
      let total = initial;
      for (let i = from; i < length; i++) total = Math.fround(next(total, i));
      registers[dst] = total;
    };

    switch (op) {
      case Opcode.CONSTANT:
        return write(() => immediate);
      case Opcode.MOVE:
        return write(a);
      case Opcode.SUM:
        return reduce(0, 0, (total, i) => total + a(i));
      case Opcode.REDUCE_MAX:
        return reduce(a(0), 1, (total, i) => evaluateElementwise("MAX", total, a(i), 0));
      case Opcode.REDUCE_MIN:
        return reduce(a(0), 1, (total, i) => evaluateElementwise("MIN", total, a(i), 0));
      case Opcode.DOT:
        return reduce(0, 0, (total, i) => a(i) * b(i) + total);
      case Opcode.LOAD_QPOS:
        return load(environment.qpos);
      case Opcode.LOAD_QVEL:
        return load(environment.qvel);
      case Opcode.LOAD_CTRL:
        return load(environment.ctrl);
      case Opcode.LOAD_ACTION:
        return load(environment.action);
      case Opcode.LOAD_XPOS:
        return load(environment.xpos);
      case Opcode.LOAD_XQUAT:
        return load(environment.xquat);
      case Opcode.LOAD_XIPOS:
        return load(environment.xipos);
      case Opcode.LOAD_PROGRESS:
        return write(() => environment.progress);
      case Opcode.RANDOM_UNIFORM:
        return load(environment.uniforms);
      case Opcode.LOAD_SENSOR:
        return load(environment.sensors);
      case Opcode.LOAD_PARAMETER:
        return load(environment.parameters);
      case Opcode.LOAD_ACT:
        return load(environment.act);
      case Opcode.STORE_QPOS:
        return store(environment.qpos);
      case Opcode.STORE_QVEL:
        return store(environment.qvel);
      case Opcode.STORE_CTRL:
        return store(environment.ctrl);
      case Opcode.STORE_PARAMETER:
        return store(environment.parameters);
      default: {
        const name = Opcode[op] as ElementwiseOp | undefined;
        if (name === undefined || op === Opcode.UNSPECIFIED) {
          throw new Error(`interpret: opcode ${op} is not one of sdpg.task.v1`);
        }
        return write((i) => evaluateElementwise(name, a(i), b(i), c(i)));
      }
    }
  }
}
