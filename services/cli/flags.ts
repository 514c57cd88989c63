// What a person may type after a verb, as data: each verb declares its positionals and options once,
// and from that come the parser, the types of the values, the refusals with the nearest valid name
// and the text of `--help`.
//
// Spellings of both families of tools are read: `--seed 3`, `--seed=3` and `seed=3` are the same
// option; `actor.lr=1e-3` and `--actor.lr=1e-3` are the same override of a configuration key.

import { isRunId } from "@sdpg/common/home.ts";
import { UsageError } from "@sdpg/common/service.ts";
import { didYouMean, nearest } from "@sdpg/common/suggest.ts";

export { UsageError };

/** One option. Without `read` it is a switch: no value, true when present. */
export interface Option<T> {
  meaning: string;
  /** What --help shows after the name: "N", "hopper|walker". */
  value?: string;
  /** The value of a text; throws an Error that says what was expected. */
  read?: (text: string) => T;
  /** Names other tools use for the same thing. */
  aliases?: readonly string[];
  /** Shown in --help; the verb itself applies it. */
  fallback?: string;
}

export type Options = Record<string, Option<unknown>>;

export type Values<O extends Options> = {
  [K in keyof O]: O[K] extends { read: (text: string) => infer T } ? T | undefined : boolean;
};

export interface Positional {
  name: string;
  meaning: string;
  required: boolean;
  /** Takes all that remain. */
  many?: boolean;
  /** May begin with one "-", as in `-old`. */
  signed?: boolean;
}

/** Names people bring along from other tools that have no counterpart here, and what to type instead. */
export type Hints = Record<string, string>;

export interface Verb<O extends Options = Options> {
  name: string;
  summary: string;
  positionals: readonly Positional[];
  options: O;
  /** Whether `key.path=value` is accepted; the learner knows the keys and refuses wrong ones. */
  overrides?: boolean;
  hints?: Hints;
  /** Paragraphs of --help after the options. */
  details?: string;
  examples: readonly string[];
  run(input: Parsed<O>): Promise<number>;
}

export interface Parsed<O extends Options> {
  positionals: string[];
  options: Values<O>;
  overrides: Record<string, string>;
}

/** Declares a verb; keeps the types of its options. */
export function verb<const O extends Options>(declaration: Verb<O>): Verb<O> {
  return declaration;
}

export const read = {
  text: (text: string): string => {
    if (text === "") throw new Error("a text that is not empty");
    return text;
  },
  natural: (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
      throw new Error("a whole number, 0 or more");
    }
    return value;
  },
  count: (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < 1 || !Number.isSafeInteger(value)) {
      throw new Error("a whole number, 1 or more");
    }
    return value;
  },
  positive: (text: string): number => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || value <= 0) {
      throw new Error("a number above 0");
    }
    return value;
  },
  seed: (text: string): bigint => {
    if (!/^\d{1,20}$/.test(text) || BigInt(text) >= 1n << 64n) {
      throw new Error("a whole number from 0 to 2^64 - 1");
    }
    return BigInt(text);
  },
  runName: (text: string): string => {
    if (!isRunId(text)) throw new Error("a-z, 0-9 and -, up to 64, not starting with -");
    return text;
  },
};

/** Reader of one of a few words. A function of its own, so that its type is settled before a verb's. */
export function oneOf<C extends string>(...choices: C[]): (text: string) => C {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found === undefined) throw new Error(choices.join(" or ") + didYouMean(text, choices));
    return found;
  };
}

const keyPattern = /^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$/;

/** Reads the arguments after the verb. Throws UsageError with one line. */
export function parse<O extends Options>(spec: Verb<O>, args: readonly string[]): Parsed<O> {
  const names = new Map<string, string>();
  for (const [name, { aliases = [] }] of Object.entries(spec.options)) {
    for (const each of [name, ...aliases]) names.set(each, name);
  }
  const values: Record<string, unknown> = {};
  const overrides: Record<string, string> = {};
  const positionals: string[] = [];
  let onlyPositionals = false;
  const signed = spec.positionals.some((positional) => positional.signed);

  const set = (name: string, shown: string, text: string | undefined) => {
    const option = spec.options[name];
    if (name in values) throw new UsageError(`Cannot use ${shown} twice`);
    if (!option.read) {
      if (text !== undefined && text !== "true" && text !== "false") {
        throw new UsageError(`Cannot use ${shown} with "${text}": it takes no value`);
      }
      values[name] = text !== "false";
      return;
    }
    if (text === undefined) {
      throw new UsageError(`Cannot use ${shown}: expected a value (${option.value})`);
    }
    try {
      values[name] = option.read(text);
    } catch (error) {
      const expected = error instanceof Error ? error.message : String(error);
      throw new UsageError(`Cannot use ${shown} "${text}": expected ${expected}`);
    }
  };

  for (let i = 0; i < args.length; i++) {
    const argument = args[i];
    const assignment = /^(-{0,2})([A-Za-z][A-Za-z0-9_.-]*)(?:=(.*))?$/s.exec(argument);
    const dashes = assignment?.[1] ?? "";
    if (argument === "--" && !onlyPositionals) {
      onlyPositionals = true;
      continue;
    }
    // A bare word without "=" (or SQL text, a path, …) is a positional.
    const bare = !assignment || (dashes === "" && assignment[3] === undefined);
    const isSigned = signed && /^-[^-]/.test(argument);
    if (onlyPositionals || isSigned || (bare && !argument.startsWith("-"))) {
      positionals.push(argument);
      continue;
    }
    if (!assignment || dashes === "-") {
      throw new UsageError(
        `Cannot use "${argument}": expected --name value; see ./sdpg ${spec.name} --help`,
      );
    }
    const typed = assignment[2];
    let text: string | undefined = assignment[3];
    const shown = dashes + typed;
    const name = names.get(typed) ?? names.get(typed.replaceAll("_", "-"));
    if (name !== undefined) {
      if (text === undefined && spec.options[name].read) text = args[++i];
      set(name, shown, text);
      continue;
    }
    if (spec.hints && Object.hasOwn(spec.hints, typed)) {
      throw new UsageError(`Cannot use ${shown}: ${spec.hints[typed]}`);
    }
    const near = nearest(typed, names.keys());
    const hint = near === undefined ? "" : `; did you mean "${dashes}${near}"?`;
    // A dot makes it a configuration key for certain; without one, a near flag is what was meant.
    const isKey = spec.overrides && keyPattern.test(typed) &&
      (typed.includes(".") || (text !== undefined && hint === ""));
    if (!isKey) {
      throw new UsageError(
        `Cannot use ${shown}: unknown flag${hint || `; see ./sdpg ${spec.name} --help`}`,
      );
    }
    if (text === undefined && dashes !== "") text = args[++i];
    if (text === undefined) throw new UsageError(`Cannot set ${typed}: expected ${typed}=value`);
    if (typed in overrides) throw new UsageError(`Cannot set ${typed} twice`);
    overrides[typed] = text;
  }
  const needed = spec.positionals.filter(({ required }) => required).length;
  const allowed = spec.positionals.some(({ many }) => many) ? Infinity : spec.positionals.length;
  if (positionals.length < needed) {
    const { name, meaning } = spec.positionals[positionals.length];
    throw new UsageError(
      `Cannot ${spec.name} without <${name}> (${meaning}); see ./sdpg ${spec.name} --help`,
    );
  }
  if (positionals.length > allowed) {
    throw new UsageError(
      `Cannot use "${positionals[allowed]}": ${spec.name} takes ${
        allowed === 0 ? "no argument" : spec.positionals.map(({ name }) => `<${name}>`).join(" ")
      }; see ./sdpg ${spec.name} --help`,
    );
  }
  for (const [name, { read: reader }] of Object.entries(spec.options)) {
    if (!reader) values[name] ??= false;
  }
  return { positionals, options: values as Values<O>, overrides };
}

/** The text of `./sdpg <verb> --help`. */
export function helpText<O extends Options>(spec: Verb<O>): string {
  const usage = spec.positionals.map(({ name, required, many }) => {
    const shown = `<${name}>${many ? "…" : ""}`;
    return required ? shown : `[${shown}]`;
  });
  const rows: [string, string][] = [];
  for (const { name, meaning } of spec.positionals) rows.push([`<${name}>`, meaning]);
  for (const [name, option] of Object.entries(spec.options)) {
    const fallback = option.fallback === undefined ? "" : ` (default ${option.fallback})`;
    const aliases = option.aliases?.length
      ? `; also ${option.aliases.map((alias) => `--${alias}`).join(", ")}`
      : "";
    rows.push([
      `--${name}${option.value ? ` ${option.value}` : ""}`,
      option.meaning + fallback + aliases,
    ]);
  }
  if (spec.overrides) {
    rows.push(["key.path=value", "overrides a configuration key; ./sdpg algorithms lists them"]);
  }
  rows.push(["--help", "this text"]);
  const width = Math.max(...rows.map(([left]) => left.length));
  return [
    `sdpg ${spec.name}: ${spec.summary}`,
    "",
    `usage: ./sdpg ${[spec.name, ...usage].join(" ")} [options]` +
    (spec.overrides ? " [key.path=value …]" : ""),
    "",
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
    ...(spec.details ? ["", spec.details] : []),
    "",
    "examples:",
    ...spec.examples.map((example) => `  ${example}`),
  ].join("\n");
}
