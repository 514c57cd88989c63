// From OTLP log events to rows of the typed tables. Every value is checked here, before anything is
// stored: a request is taken whole or refused whole, with the place and the reason.

import { didYouMean } from "@sdpg/common/suggest.ts";
import { isRunId } from "@sdpg/common/home.ts";
import { runStates } from "@sdpg/common/record.ts";
import { summary } from "@sdpg/common/student.ts";
import { longestNote, tagExpected, tagPattern } from "@sdpg/common/annotation.ts";
import { type AttributeValue, type DecodedLog, MalformedOtlp } from "@sdpg/common/otlp.ts";
import { type Cell, floatCell } from "./store.ts";

/** Columns in the order of a row's cells. */
export const columns = {
  scalars: [
    "run_id",
    "iteration",
    "name",
    "value",
    "env_steps_nominal",
    "env_steps_total",
    "images_rendered",
    "wall_time_s",
    "gpu_seconds",
    "time",
  ],
  evaluations: [
    "run_id",
    "iteration",
    "env_steps_nominal",
    "env_steps_total",
    "images_rendered",
    "wall_time_s",
    "gpu_seconds",
    "episodes",
    "return_mean",
    "return_std",
    "return_ci95",
    "return_min",
    "return_max",
    "length_mean",
    "time",
  ],
  episodes: ["run_id", "iteration", "episode", "return", "length"],
  resources: [
    "run_id",
    "service",
    "pid",
    "time",
    "cpu_seconds",
    "resident_bytes",
    "proportional_bytes",
    "shared_bytes",
    "source",
    "sequence",
  ],
  faults: [
    "run_id",
    "service",
    "kind",
    "iteration",
    "count",
    "message",
    "time",
    "source",
    "sequence",
  ],
  run_states: [
    "run_id",
    "position",
    "state",
    "task",
    "algorithm",
    "preset",
    "observation",
    "seed",
    "configuration",
    "code_version",
    "hardware",
    "epochs",
    "reason",
    "state_hash",
    "checkpoint",
    "time",
    "source",
    "sequence",
  ],
  annotations: ["run_id", "time", "tag", "removed", "note", "source", "sequence"],
} as const;

export type Table = keyof typeof columns;
export const tables = Object.keys(columns) as Table[];

/** A row with what makes it exactly one: its name within the run, or its sender's sequence. */
export interface Row {
  cells: Cell[];
  runId: string;
  /** Iteration for scalars, evaluations, episodes. */
  iteration: number;
  /** Scalar's name. */
  name: string;
  /** Sender's instance and number for run_states, resources, faults, annotations. */
  source: string;
  sequence: number;
}

/** Rows of one request by table, in the order they came. */
export type Rows = Record<Table, Row[]>;

/** A row again from its cells, as they come back from JSON. */
export function rowOf(table: Table, cells: Cell[]): Row {
  const at = (column: string) => cells[(columns[table] as readonly string[]).indexOf(column)];
  return {
    cells,
    runId: String(at("run_id")),
    iteration: table === "faults" ? 0 : Number(at("iteration") ?? 0),
    name: table === "scalars" ? String(at("name")) : "",
    source: String(at("source") ?? ""),
    sequence: Number(at("sequence") ?? 0),
  };
}

export function noRows(): Rows {
  return {
    scalars: [],
    evaluations: [],
    episodes: [],
    resources: [],
    faults: [],
    run_states: [],
    annotations: [],
  };
}

export const scalarLimits = { scalarsPerIteration: 2000, nameLength: 200 };
const limits = { ...scalarLimits, episodesPerEvaluation: 100_000 };

type Reader = (log: Attributes, rows: Rows) => void;

const events: Record<string, Reader> = {
  "rl.iteration": readIteration,
  "rl.evaluation": readEvaluation,
  "rl.run": readRun,
  "rl.fault": readFault,
  "rl.annotation": readAnnotation,
  "process.resources": readResources,
};

/** Rows of the events of one request. Throws MalformedOtlp when any of them is not as documented. */
export function rowsOf(logs: DecodedLog[]): Rows {
  const rows = noRows();
  for (const log of logs) {
    if (!Object.hasOwn(events, log.eventName)) {
      const hint = didYouMean(log.eventName, Object.keys(events));
      throw new MalformedOtlp(
        `${log.path}.eventName: unknown event "${
          log.eventName.slice(0, limits.nameLength)
        }"${hint}`,
      );
    }
    events[log.eventName](new Attributes(log), rows);
  }
  return rows;
}

function readIteration(log: Attributes, rows: Rows): void {
  const { runId, iteration, axes } = position(log);
  const scalars = Object.entries(log.map("rl.scalars"));
  if (scalars.length === 0 || scalars.length > limits.scalarsPerIteration) {
    throw log.wrong(
      "rl.scalars",
      `1 to ${limits.scalarsPerIteration} values`,
      `${scalars.length}`,
    );
  }
  for (const [name, value] of scalars) {
    if (name.length > limits.nameLength) {
      throw log.wrong("rl.scalars", `names of at most ${limits.nameLength} characters`, name);
    }
    if (typeof value !== "number" && typeof value !== "bigint") {
      throw log.wrong("rl.scalars", `a number for "${name}"`, String(value));
    }
    rows.scalars.push({
      cells: [runId, iteration, name, floatCell(Number(value)), ...axes, log.time],
      runId,
      iteration,
      name,
      source: "",
      sequence: 0,
    });
  }
}

function readEvaluation(log: Attributes, rows: Rows): void {
  const { runId, iteration, axes } = position(log);
  const returns = log.numbers("rl.returns");
  const lengths = log.numbers("rl.lengths");
  if (returns.length === 0 || returns.length > limits.episodesPerEvaluation) {
    throw log.wrong(
      "rl.returns",
      `1 to ${limits.episodesPerEvaluation} episodes`,
      `${returns.length}`,
    );
  }
  if (lengths.length !== returns.length) {
    throw log.wrong("rl.lengths", `${returns.length} lengths as returns`, `${lengths.length}`);
  }
  if (!lengths.every((length) => Number.isSafeInteger(length) && length >= 0)) {
    throw log.wrong("rl.lengths", "whole numbers from 0", String(lengths));
  }
  const { mean, std, ci95 } = summary(returns);
  const lowest = returns.reduce((a, b) => Math.min(a, b));
  const highest = returns.reduce((a, b) => Math.max(a, b));
  const key = { runId, iteration, name: "", source: "", sequence: 0 };
  rows.evaluations.push({
    cells: [
      runId,
      iteration,
      ...axes,
      returns.length,
      ...[mean, std, ci95, lowest, highest, summary(lengths).mean].map(floatCell),
      log.time,
    ],
    ...key,
  });
  returns.forEach((value, i) =>
    rows.episodes.push({ cells: [runId, iteration, i, floatCell(value), lengths[i]], ...key })
  );
}

function readRun(log: Attributes, rows: Rows): void {
  const runId = log.runId();
  const state = log.text("rl.run.state");
  if (!(runStates as readonly string[]).includes(state)) {
    throw log.wrong("rl.run.state", `one of ${runStates.join(", ")}`, state);
  }
  for (const name of ["rl.configuration", "rl.hardware"]) {
    const text = log.optionalText(name);
    if (text !== null && !isJson(text)) throw log.wrong(name, "JSON", text);
  }
  const sender = log.sender();
  rows.run_states.push({
    cells: [
      runId,
      0, // position: known when the row is stored
      state,
      log.optionalText("rl.task"),
      log.optionalText("rl.agent"),
      log.optionalText("rl.preset"),
      log.optionalText("rl.observation"),
      log.optionalUint64("rl.seed"),
      log.optionalText("rl.configuration"),
      log.optionalText("service.version"),
      log.optionalText("rl.hardware"),
      log.optionalUint64("rl.epochs"),
      log.optionalText("rl.reason"),
      log.optionalText("rl.state_hash"),
      log.optionalText("rl.checkpoint"),
      log.time,
      sender.source,
      sender.sequence,
    ],
    runId,
    iteration: 0,
    name: "",
    ...sender,
  });
}

function readFault(log: Attributes, rows: Rows): void {
  const runId = log.runId();
  const sender = log.sender();
  rows.faults.push({
    cells: [
      runId,
      log.text("rl.service"),
      log.text("rl.fault.kind"),
      log.whole("rl.iteration"),
      log.whole("rl.fault.count"),
      log.optionalText("rl.fault.message") ?? "",
      log.time,
      sender.source,
      sender.sequence,
    ],
    runId,
    iteration: 0,
    name: "",
    ...sender,
  });
}

/** One tag given or taken away, or the note. */
function readAnnotation(log: Attributes, rows: Rows): void {
  const runId = log.runId();
  const sender = log.sender();
  const [tag, note] = [log.optionalText("rl.tag"), log.optionalText("rl.note")];
  const removed = log.flag("rl.tag.removed");
  if ((tag === null) === (note === null)) {
    throw log.wrong("rl.tag", "either a tag or rl.note", tag ?? undefined);
  }
  if (tag !== null && !tagPattern.test(tag)) throw log.wrong("rl.tag", tagExpected, tag);
  if (note !== null && note.length > longestNote) {
    throw log.wrong("rl.note", `at most ${longestNote} characters`, `${note.length}`);
  }
  rows.annotations.push({
    cells: [
      runId,
      log.time,
      tag ?? "",
      Number(removed),
      note ?? "",
      sender.source,
      sender.sequence,
    ],
    runId,
    iteration: 0,
    name: "",
    ...sender,
  });
}

function readResources(log: Attributes, rows: Rows): void {
  const runId = log.runId();
  const sender = log.sender();
  const pid = log.whole("process.pid");
  if (pid > 0xffffffff) throw log.wrong("process.pid", "a process id", String(pid));
  rows.resources.push({
    cells: [
      runId,
      log.text("rl.service"),
      pid,
      log.time,
      log.finite("process.cpu.time"),
      log.whole("process.memory.usage"),
      log.whole("process.memory.proportional"),
      log.whole("process.memory.shared"),
      sender.source,
      sender.sequence,
    ],
    runId,
    iteration: 0,
    name: "",
    ...sender,
  });
}

function position(log: Attributes): { runId: string; iteration: number; axes: Cell[] } {
  return {
    runId: log.runId(),
    iteration: log.whole("rl.iteration"),
    axes: [
      log.whole("rl.env_steps.nominal"),
      log.whole("rl.env_steps.total"),
      log.whole("rl.images"),
      log.finite("rl.wall_time"),
      log.finite("rl.gpu_seconds"),
    ],
  };
}

/** Typed access to the attributes of one record; errors name its place. */
class Attributes {
  #log: DecodedLog;
  constructor(log: DecodedLog) {
    this.#log = log;
  }

  /** UTC with nanoseconds, as ClickHouse reads a DateTime64(9). */
  get time(): string {
    const ns = this.#log.timeUnixNano;
    return `${ns / 1_000_000_000n}.${String(ns % 1_000_000_000n).padStart(9, "0")}`;
  }

  /** Who sent the record, and which of its records this is: together they name it for ever. */
  sender(): { source: string; sequence: number } {
    const source = this.#log.resource["service.instance.id"];
    if (typeof source !== "string" || source === "" || source.length > limits.nameLength) {
      throw new MalformedOtlp(
        `${this.#log.path}: expected resource attribute service.instance.id, which tells a repeated ` +
          `record from a new one`,
      );
    }
    const sequence = this.whole("rl.sequence");
    if (sequence < 1) throw this.wrong("rl.sequence", "a number from 1", String(sequence));
    return { source, sequence };
  }

  runId(): string {
    const id = this.text("rl.run.id");
    if (!isRunId(id)) throw this.wrong("rl.run.id", "a run's name ([a-z0-9-], at most 64)", id);
    return id;
  }

  text(name: string): string {
    const value = this.#log.attributes[name];
    if (typeof value !== "string" || value === "") throw this.wrong(name, "a text", value);
    return value;
  }

  optionalText(name: string): string | null {
    const value = this.#log.attributes[name];
    if (value === undefined) return null;
    if (typeof value !== "string") throw this.wrong(name, "a text", value);
    return value;
  }

  /** Whether it is there and true. */
  flag(name: string): boolean {
    const value = this.#log.attributes[name];
    if (value !== undefined && typeof value !== "boolean") {
      throw this.wrong(name, "true or false", value);
    }
    return value ?? false;
  }

  /** A count that a double holds exactly. Integers and whole doubles are taken. */
  whole(name: string): number {
    const value = this.#log.attributes[name];
    const number = typeof value === "bigint" || typeof value === "number" ? Number(value) : NaN;
    if (!Number.isSafeInteger(number) || number < 0) {
      throw this.wrong(name, "a whole number from 0 to 2^53", value);
    }
    return number;
  }

  optionalUint64(name: string): string | null {
    const value = this.#log.attributes[name];
    if (value === undefined) return null;
    if (typeof value !== "bigint" || value < 0n || value >= 1n << 64n) {
      throw this.wrong(name, "a whole number from 0 to 2^64 - 1", value);
    }
    return value.toString();
  }

  finite(name: string): number {
    const value = this.#log.attributes[name];
    const number = typeof value === "bigint" ? Number(value) : value;
    if (typeof number !== "number" || !Number.isFinite(number)) {
      throw this.wrong(name, "a finite number", value);
    }
    return number;
  }

  numbers(name: string): number[] {
    const value = this.#log.attributes[name];
    const good = (item: AttributeValue) => typeof item === "number" || typeof item === "bigint";
    if (!Array.isArray(value) || !value.every(good)) {
      throw this.wrong(name, "a list of numbers", value);
    }
    return value.map(Number);
  }

  map(name: string): { [key: string]: AttributeValue } {
    const value = this.#log.attributes[name];
    if (typeof value !== "object" || Array.isArray(value)) {
      throw this.wrong(name, "names with values (kvlistValue)", value);
    }
    return value;
  }

  wrong(name: string, expected: string, came: AttributeValue | undefined): MalformedOtlp {
    const shown = came === undefined ? "nothing" : String(came);
    const short = shown.length > 60 ? `${shown.slice(0, 60)}…` : shown;
    return new MalformedOtlp(
      `${this.#log.path} (${this.#log.eventName}): expected ${expected} in ${name}, came ${short}`,
    );
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
