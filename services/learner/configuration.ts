// Typed configuration trees. A tree is written once as nested fields, each with a default, a meaning
// and a check; the type of the values follows from it. Overrides arrive as text ("actor.lr" ->
// "1e-3"), are parsed by the field they name, and an unknown key is refused with the nearest known
// one. The same tree lists itself for `sdpg algorithms` and the documentation.

import { nearest } from "@sdpg/common/suggest.ts";

/** A wrong key or value. The message is one line: the key, what was expected, what came. */
export class ConfigurationError extends Error {
  override name = "ConfigurationError";
}

/** One leaf of a configuration tree. */
export interface Field<T> {
  readonly default: T;
  readonly meaning: string;
  /** What values look like, for error messages: "a number above 0". */
  readonly expected: string;
  /** Reads the text form of an override; undefined when it cannot be read. */
  parse(text: string): T | undefined;
  /** Whether a value of unknown origin (JSON) is allowed here. */
  allows(value: unknown): boolean;
  /** The key came later: a configuration that was written before it means the default. */
  readonly later?: boolean;
}

export interface Tree {
  readonly [key: string]: Field<unknown> | Tree;
}

/** The values a tree describes. */
export type Values<S> = {
  readonly [K in keyof S]: S[K] extends Field<infer T> ? T : Values<S[K]>;
};

/** Some of the values a tree describes, as presets give them. */
export type Some<S> = { readonly [K in keyof S]?: S[K] extends Field<infer T> ? T : Some<S[K]> };

export interface Limits {
  readonly min?: number;
  readonly max?: number;
  /** Excludes `min` itself. */
  readonly above?: number;
}

function withinLimits(value: unknown, limits: Limits): value is number {
  return typeof value === "number" && Number.isFinite(value) &&
    value >= (limits.min ?? -Infinity) && value <= (limits.max ?? Infinity) &&
    value > (limits.above ?? -Infinity);
}

function limitsInWords(limits: Limits): string {
  const words = [];
  if (limits.min !== undefined) words.push(`at least ${limits.min}`);
  if (limits.above !== undefined) words.push(`above ${limits.above}`);
  if (limits.max !== undefined) words.push(`at most ${limits.max}`);
  return words.length === 0 ? "" : ` ${words.join(" and ")}`;
}

function parseNumber(text: string): number {
  return text.trim() === "" ? NaN : Number(text);
}

export function real(initial: number, meaning: string, limits: Limits = {}): Field<number> {
  const allows = (value: unknown) => withinLimits(value, limits);
  return {
    default: initial,
    meaning,
    expected: `a number${limitsInWords(limits)}`,
    allows,
    parse: (text) => allows(parseNumber(text)) ? parseNumber(text) : undefined,
  };
}

export function integer(initial: number, meaning: string, limits: Limits = {}): Field<number> {
  const allows = (value: unknown) => withinLimits(value, limits) && Number.isSafeInteger(value);
  return {
    default: initial,
    meaning,
    expected: `a whole number${limitsInWords(limits)}`,
    allows,
    parse: (text) => allows(parseNumber(text)) ? parseNumber(text) : undefined,
  };
}

export function flag(initial: boolean, meaning: string): Field<boolean> {
  return {
    default: initial,
    meaning,
    expected: "true or false",
    allows: (value) => typeof value === "boolean",
    parse: (text) => text === "true" ? true : text === "false" ? false : undefined,
  };
}

export function choice<const C extends string>(
  options: readonly C[],
  initial: NoInfer<C>,
  meaning: string,
): Field<C> {
  const allows = (value: unknown) => (options as readonly unknown[]).includes(value);
  return {
    default: initial,
    meaning,
    expected: options.join(" | "),
    allows,
    parse: (text) => allows(text) ? text as C : undefined,
  };
}

/** A field whose key earlier versions did not have and whose default is what they did. */
export function later<T>(field: Field<T>): Field<T> {
  return { ...field, later: true };
}

/** Widths of a stack of layers: "128,64,32". */
export function widths(initial: readonly number[], meaning: string): Field<readonly number[]> {
  const allows = (value: unknown) =>
    Array.isArray(value) && value.length >= 1 && value.length <= 16 &&
    value.every((w) => Number.isSafeInteger(w) && w >= 1 && w <= 65536);
  return {
    default: initial,
    meaning,
    expected: "1 to 16 layer widths like 128,64,32",
    allows,
    parse: (text) => {
      const list = text.replace(/^\[|\]$/g, "").split(",").map(parseNumber);
      return allows(list) ? list : undefined;
    },
  };
}

/** Two ends of an interval, "-2,2", or "none" for no bounds. */
export function bounds(
  initial: readonly [number, number] | null,
  meaning: string,
): Field<readonly [number, number] | null> {
  const allows = (value: unknown) =>
    value === null ||
    Array.isArray(value) && value.length === 2 && value.every((v) => Number.isFinite(v)) &&
      value[0] < value[1];
  return {
    default: initial,
    meaning,
    expected: "two increasing numbers like -2,2, or none",
    allows,
    parse: (text) => {
      if (text === "none") return null;
      const list = text.replace(/^\[|\]$/g, "").split(",").map(parseNumber);
      return allows(list) ? list as [number, number] : undefined;
    },
  };
}

function isField(node: Field<unknown> | Tree): node is Field<unknown> {
  return typeof (node as Field<unknown>).parse === "function";
}

/** Every leaf with its dotted path, in the order it is written. */
export function* leaves(tree: Tree, prefix = ""): Generator<[path: string, field: Field<unknown>]> {
  for (const [key, node] of Object.entries(tree)) {
    const path = prefix === "" ? key : `${prefix}.${key}`;
    if (isField(node)) yield [path, node];
    else yield* leaves(node, path);
  }
}

/** Text form of a value, as an override would give it. */
export function format(value: unknown): string {
  return value === null ? "none" : Array.isArray(value) ? value.join(",") : String(value);
}

/**
 * Values of a tree: its defaults, then each layer of a preset, then textual overrides.
 *
 * @throws ConfigurationError naming the key and, when it is unknown, the nearest known one.
 */
export function configure<S extends Tree>(
  tree: S,
  layers: readonly Some<S>[],
  overrides: Readonly<Record<string, string>> = {},
): Values<S> {
  const values = new Map<string, unknown>();
  for (const [path, field] of leaves(tree)) values.set(path, field.default);
  for (const layer of layers) assignLayer(tree, layer, "", values);

  const fields = new Map(leaves(tree));
  for (const [key, text] of Object.entries(overrides)) {
    const field = fields.get(key);
    if (field === undefined) throw unknownKey(key, fields.keys());
    const value = field.parse(text);
    if (value === undefined) {
      throw new ConfigurationError(`Cannot set ${key}: expected ${field.expected}, got "${text}"`);
    }
    values.set(key, value);
  }
  return nest(values) as Values<S>;
}

/**
 * Values read back from JSON, for example from a checkpoint: every key present but those that came
 * later, none unknown, in the order of the tree.
 *
 * @throws ConfigurationError as `configure`.
 */
export function readConfiguration<S extends Tree>(tree: S, json: unknown): Values<S> {
  const given = new Map<string, unknown>();
  assignLayer(tree, json, "", given);
  const values = new Map<string, unknown>();
  for (const [path, field] of leaves(tree)) {
    if (!given.has(path) && !field.later) {
      throw new ConfigurationError(
        `Cannot read configuration: ${path} (${field.expected}) is absent`,
      );
    }
    values.set(path, given.has(path) ? given.get(path) : field.default);
  }
  return nest(values) as Values<S>;
}

function assignLayer(tree: Tree, layer: unknown, prefix: string, values: Map<string, unknown>) {
  if (typeof layer !== "object" || layer === null || Array.isArray(layer)) {
    throw new ConfigurationError(
      `Cannot read configuration: expected an object at "${prefix}", got ${JSON.stringify(layer)}`,
    );
  }
  for (const [key, value] of Object.entries(layer)) {
    const path = prefix === "" ? key : `${prefix}.${key}`;
    const node = Object.hasOwn(tree, key) ? tree[key] : undefined;
    if (node === undefined) {
      throw unknownKey(path, Object.keys(tree).map((k) => prefix === "" ? k : `${prefix}.${k}`));
    }
    if (!isField(node)) assignLayer(node, value, path, values);
    else if (node.allows(value)) values.set(path, value);
    else {
      throw new ConfigurationError(
        `Cannot set ${path}: expected ${node.expected}, got ${JSON.stringify(value)}`,
      );
    }
  }
}

function unknownKey(key: string, known: Iterable<string>): ConfigurationError {
  const suggestion = nearest(key, known);
  return new ConfigurationError(
    `Unknown key "${key}"` + (suggestion === undefined ? "" : `; nearest is "${suggestion}"`),
  );
}

function nest(values: ReadonlyMap<string, unknown>): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const [path, value] of values) {
    const keys = path.split(".");
    let node = root;
    for (const key of keys.slice(0, -1)) node = (node[key] ??= {}) as Record<string, unknown>;
    node[keys[keys.length - 1]] = value;
  }
  return root;
}
