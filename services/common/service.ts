// The outer shell of every service: reads its flags, starts its parts, prints the ready line, waits
// for a reason to stop (SIGTERM, SIGINT, or the parent's end of stdin) and stops the parts. A
// service's main.ts is a call of `runService`.

import { didYouMean } from "./suggest.ts";
import { type Logger, logger } from "./log.ts";

export type ServiceName = "gpu-sim" | "learner" | "telemetry" | "evaluation";

/** How a flag's text becomes a value. `read` throws an Error that says what was expected. */
export interface Flag<T> {
  read(text: string): T;
  value: string; // what --help shows after the flag
  meaning: string;
  fallback?: T;
  optional?: boolean;
}

type Flags = Record<string, Flag<unknown>>;
export type FlagValues<F extends Flags> = {
  [K in keyof F]: F[K] extends Flag<infer T> ? T : never;
};

/** Flags with the commonest readers. A flag without fallback is required. */
export const flag = {
  text(meaning: string, fallback?: string): Flag<string> {
    return { read: (text) => text, value: "TEXT", meaning, fallback };
  },
  path(meaning: string, fallback?: string): Flag<string> {
    return { read: nonEmpty, value: "PATH", meaning, fallback };
  },
  address(meaning: string, fallback?: string): Flag<string> {
    return {
      read: (text) => formatAddress(parseAddress(text)),
      value: "HOST:PORT",
      meaning,
      fallback,
    };
  },
  url(meaning: string, fallback?: string): Flag<string> {
    return {
      read(text) {
        if (!URL.canParse(text) || !/^https?:/.test(text)) throw new Error("a http:// address");
        return text.replace(/\/$/, "");
      },
      value: "URL",
      meaning,
      fallback,
    };
  },
  integer(meaning: string, range: { min: number; max: number }, fallback?: number): Flag<number> {
    return {
      read(text) {
        const value = Number(text);
        if (!/^-?\d+$/.test(text) || value < range.min || value > range.max) {
          throw new Error(`a whole number from ${range.min} to ${range.max}`);
        }
        return value;
      },
      value: "N",
      meaning,
      fallback,
    };
  },
  /** The flag may be absent: its value is undefined then. */
  optional<T>(inner: Flag<T>): Flag<T | undefined> {
    return { ...inner, optional: true };
  },
};

/** Wrong usage of a command: exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

const commonFlags = {
  "listen": flag.address("address to serve on; port 0 takes a free one", "127.0.0.1:0"),
};
const switches = ["exit-with-parent", "help"];

/**
 * Values of `--name value` and `--name=value` arguments, with `listen` and `exit-with-parent` added.
 * Throws UsageError with one line that names the flag, what was expected and what came.
 */
export function readFlags<F extends Flags>(
  specification: F,
  args: readonly string[],
): FlagValues<F> & { listen: string; exitWithParent: boolean; help: boolean } {
  const all: Flags = { ...commonFlags, ...specification };
  const values: Record<string, unknown> = { exitWithParent: false, help: false };
  const seen = new Set<string>();
  for (let i = 0; i < args.length; i++) {
    const match = /^--([^=]+)(?:=(.*))?$/s.exec(args[i]);
    if (!match) throw new UsageError(`Cannot use argument "${args[i]}": expected --flag value`);
    const [, name, inline] = match;
    if (seen.has(name)) throw new UsageError(`Cannot use --${name} twice`);
    seen.add(name);
    if (switches.includes(name)) {
      if (inline !== undefined) throw new UsageError(`Cannot use --${name}=…: it takes no value`);
      values[name === "help" ? "help" : "exitWithParent"] = true;
      continue;
    }
    if (!Object.hasOwn(all, name)) {
      const hint = didYouMean(name, [...Object.keys(all), ...switches]);
      throw new UsageError(`Cannot use --${name}: unknown flag${hint || "; see --help"}`);
    }
    const text = inline ?? args[++i];
    if (text === undefined) {
      throw new UsageError(`Cannot use --${name}: expected a value (${all[name].value})`);
    }
    try {
      values[name] = all[name].read(text);
    } catch (error) {
      throw new UsageError(
        `Cannot use --${name} "${text}": expected ${
          error instanceof Error ? error.message : error
        }`,
      );
    }
  }
  for (const [name, { fallback, optional, value }] of Object.entries(all)) {
    if (name in values) continue;
    if (fallback === undefined && !optional && !values.help) {
      throw new UsageError(`Cannot start without --${name} ${value}; see --help`);
    }
    values[name] = fallback;
  }
  return values as FlagValues<F> & { listen: string; exitWithParent: boolean; help: boolean };
}

/** A started service: where it answers and how it ends. */
export interface Running {
  address: string; // HOST:PORT as bound
  stop(): Promise<void>;
  /** Settles when the service cannot go on by itself; the process then exits with code 1. */
  failed?: Promise<Error>;
}

export interface ServiceOptions<F extends Flags> {
  name: ServiceName;
  summary: string;
  flags: F;
  /** `signal` aborts when the service has to stop, also while it is still starting. */
  start(
    flags: FlagValues<F> & { listen: string },
    context: { signal: AbortSignal; log: Logger },
  ): Promise<Running>;
  args?: readonly string[];
}

/**
 * Runs a service from its flags to its end, then exits the process: 0 after a clean stop, 2 for
 * wrong flags, 1 when it could not start or failed, with one line on stderr.
 */
export async function runService<F extends Flags>(options: ServiceOptions<F>): Promise<never> {
  let flags: FlagValues<F> & { listen: string; exitWithParent: boolean; help: boolean };
  try {
    flags = readFlags(options.flags, options.args ?? Deno.args);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(error.message);
    Deno.exit(2);
  }
  if (flags.help) {
    console.log(helpText(options));
    Deno.exit(0);
  }
  const log = logger(options.name);
  const stop = stopSignal({ exitWithParent: flags.exitWithParent });
  let running: Running | undefined;
  try {
    running = await options.start(flags, { signal: stop, log });
    announce(options.name, running.address); // throws when the parent is gone
    log.info("listening", { address: running.address, pid: Deno.pid });
    const failure = await Promise.race([
      aborted(stop).then(() => undefined),
      running.failed ?? new Promise<never>(() => {}),
    ]);
    const started = running;
    running = undefined;
    await started.stop();
    if (failure) throw failure;
    log.info("stopped", { reason: String(stop.reason) });
    Deno.exit(0);
  } catch (error) {
    if (stop.aborted && error === stop.reason) Deno.exit(0); // asked to stop before it was ready
    log.debug("failure", { stack: error instanceof Error ? error.stack : undefined });
    // What was started holds locks and has threads of its own, which may outlive a mere exit.
    await running?.stop().catch((second) => log.error("Cannot stop", { error: second }));
    try {
      console.error(error instanceof Error ? error.message : String(error));
    } catch {
      // stderr is gone with the parent
    }
    Deno.exit(1);
  }
}

/** The one line on stdout that tells the parent the service answers. */
export function announce(service: ServiceName, address: string): void {
  const line = JSON.stringify({ event: "listening", service, address }) + "\n";
  Deno.stdout.writeSync(new TextEncoder().encode(line));
}

/**
 * Aborts on SIGTERM, SIGINT or, with `exitWithParent`, when stdin ends: the kernel closes the pipe of
 * a parent that was killed, so no orphan remains.
 */
export function stopSignal(options: { exitWithParent: boolean }): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(name, () => controller.abort(name));
  }
  if (options.exitWithParent) void stdinEnd().then(() => controller.abort("end of stdin"));
  return controller.signal;
}

async function stdinEnd(): Promise<void> {
  const buffer = new Uint8Array(1024);
  try {
    while (await Deno.stdin.read(buffer) !== null);
  } catch {
    // An unreadable stdin means the same as a closed one: nobody holds the other end.
  }
}

/** Resolves once the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

export interface Address {
  host: string;
  port: number;
}

/** Parts of "HOST:PORT" ("[::1]:80" for IPv6). Throws an Error that says what was expected. */
export function parseAddress(text: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (!match || port > 65535) throw new Error(`HOST:PORT such as 127.0.0.1:0, came "${text}"`);
  return { host: match[1] ?? match[2], port };
}

export function formatAddress({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

function nonEmpty(text: string): string {
  if (text === "") throw new Error("a path");
  return text;
}

function helpText<F extends Flags>({ name, summary, flags }: ServiceOptions<F>): string {
  const rows = Object.entries({ ...commonFlags, ...flags } as Flags).map(([key, spec]) => [
    `--${key} ${spec.value}`,
    spec.meaning + (spec.fallback === undefined ? "" : ` (default ${spec.fallback})`),
  ]);
  rows.push(["--exit-with-parent", "stop when stdin ends"]);
  const width = Math.max(...rows.map(([left]) => left.length));
  return [
    `${name}: ${summary}`,
    "",
    ...rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`),
  ].join("\n");
}
