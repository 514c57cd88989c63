// Lines that the services of a run log, on their way from their files to the store: each file is read on
// from where it was left, and every JSON line keeps its time, level, trace and fields. What is no such
// line (the last words of a process that crashed) is kept as an error.

import type { LogLine } from "@sdpg/common/otlp.ts";
import { severities } from "@sdpg/common/otlp.ts";
import type { Recorder } from "@sdpg/common/record.ts";
import { unixMs } from "@sdpg/common/trace.ts";

interface Followed {
  service: string;
  log?: string;
}

/** Most of one file that is read at once; a service that logs faster falls behind. */
const mostBytes = 256 * 1024;

export class ServiceLogs {
  /** Bytes of each service's file that were read, up to the end of a line. */
  readonly #read = new Map<string, number>();

  constructor(private readonly runId: string, private readonly recorder: Recorder) {}

  /** Takes what was written since the last time. A file that was moved keeps its service's place. */
  follow(services: readonly Followed[]) {
    for (const { service, log } of services) {
      // What the store says about storing would be about what it is sent here.
      if (log === undefined || service === "telemetry") continue;
      for (const line of this.#readOn(service, log).split("\n")) {
        if (line !== "") this.recorder.logLine(service, parseLine(line, this.runId));
      }
    }
  }

  #readOn(service: string, path: string): string {
    const start = this.#read.get(service) ?? 0;
    try {
      using file = Deno.openSync(path);
      const buffer = new Uint8Array(mostBytes);
      file.seekSync(start, Deno.SeekMode.Start);
      const length = file.readSync(buffer) ?? 0;
      const lines = buffer.subarray(0, length).lastIndexOf(10) + 1;
      const end = lines === 0 && length === mostBytes ? length : lines; // a line without end is cut
      this.#read.set(service, start + end);
      return new TextDecoder().decode(buffer.subarray(0, end));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return ""; // being moved
      throw error;
    }
  }
}

/** Exported for its test. */
export function parseLine(text: string, runId: string): LogLine {
  let line: unknown;
  try {
    line = JSON.parse(text);
  } catch {
    line = undefined;
  }
  const stray = { timeMs: unixMs(), severity: "error", body: text } as const;
  if (typeof line !== "object" || line === null) {
    return { ...stray, attributes: { "rl.run.id": runId } };
  }
  const { time, level, service: _, message, run, trace_id, span_id, ...fields } = line as Record<
    string,
    unknown
  >;
  const timeMs = Date.parse(String(time));
  const attributes: LogLine["attributes"] = { "rl.run.id": String(run ?? runId) };
  for (const [name, value] of Object.entries(fields)) {
    attributes[name] = typeof value === "string" ? value : JSON.stringify(value);
  }
  return {
    timeMs: Number.isFinite(timeMs) ? timeMs : stray.timeMs,
    severity: String(level) in severities ? level as LogLine["severity"] : "error",
    body: typeof message === "string" ? message : text,
    traceId: typeof trace_id === "string" ? trace_id : undefined,
    spanId: typeof span_id === "string" ? span_id : undefined,
    attributes,
  };
}
