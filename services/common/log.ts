// Structured logs: one JSON object a line on stderr, so that stdout stays free for results and the
// ready line. SDPG_LOG chooses the lowest level that is written (debug, info, warn, error, off).

export type Fields = Record<string, unknown>;

export interface Logger {
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** The same logger with more fields on every line. */
  with(fields: Fields): Logger;
}

const levels = ["debug", "info", "warn", "error", "off"] as const;
export type Level = typeof levels[number];

/** Level named by SDPG_LOG; "info" where it is unset. Throws naming the valid levels otherwise. */
export function logLevel(text = Deno.env.get("SDPG_LOG")): Level {
  if (text === undefined || text === "") return "info";
  const level = levels.find((name) => name === text);
  if (level === undefined) {
    throw new Error(`Cannot read SDPG_LOG="${text}": expected one of ${levels.join(", ")}`);
  }
  return level;
}

/** Logger of one service; `fields` (run id, address, …) are added to every line. */
export function logger(service: string, fields: Fields = {}, sink: Sink = stderrSink): Logger {
  const threshold = levels.indexOf(logLevel());
  const write = (level: Level) => (message: string, more: Fields = {}) => {
    if (levels.indexOf(level) < threshold) return;
    sink(line(level, service, message, { ...fields, ...more }));
  };
  return {
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
    with: (more) => logger(service, { ...fields, ...more }, sink),
  };
}

export type Sink = (line: string) => void;

const encoder = new TextEncoder();

function stderrSink(line: string): void {
  const bytes = encoder.encode(line + "\n");
  try {
    // One write a line: lines of several processes on one terminal do not mix.
    for (let sent = 0; sent < bytes.length;) sent += Deno.stderr.writeSync(bytes.subarray(sent));
  } catch {
    // The reader of our stderr is gone (a killed parent). A service must not die of its log.
  }
}

function line(level: Level, service: string, message: string, fields: Fields): string {
  const time = new Date().toISOString();
  return JSON.stringify({ time, level, service, message, ...fields }, (_, value) => {
    if (typeof value === "bigint") return value.toString();
    if (value instanceof Error) return { name: value.name, message: value.message };
    return value;
  });
}
