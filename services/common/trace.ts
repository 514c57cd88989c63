// Which trace a piece of work belongs to. An epoch of a run is one trace, and its ids are hashes of the
// run's name and the epoch's number: every service knows them without being told, a number of the
// `scalars` table finds its trace, and an epoch that a resumed run repeats keeps its trace. Across
// calls the context travels as W3C `traceparent` and `baggage` headers (rpc.ts, gpu-sim/src/server).

import { createHash } from "node:crypto";

export interface TraceContext {
  /** 32 lower-case hex digits, not all 0. */
  readonly traceId: string;
  /** Of the span that the work is a part of: 16 lower-case hex digits, not all 0. */
  readonly spanId: string;
  readonly runId?: string;
}

/** Name of an epoch's root span. */
export const iterationSpan = "rl.iteration";

/**
 * Trace of an epoch, in its root span.
 *
 * @param iteration epochs finished once it is over, 1 for the first; 0 is what a run does outside them
 */
export function iterationTrace(runId: string, iteration: number): TraceContext {
  const traceId = digest(`${runId} ${iteration}`).slice(0, 32);
  return { traceId, spanId: spanId(traceId, "learner", iterationSpan), runId };
}

/**
 * Id of the span in which a service says how long `phase` took it in a trace: half of the trace's, turned
 * by the hash of the two, which are few. An epoch has tens of spans, and hashing each would be felt.
 */
export function spanId(traceId: string, service: string, phase: string): string {
  const key = `${service} ${phase}`;
  let turn = turns.get(key);
  if (turn === undefined) turns.set(key, turn = halves(digest(key)));
  return halves(traceId).map((half, i) => (half ^ turn[i]) >>> 0)
    .map((half) => half.toString(16).padStart(8, "0")).join("");
}

const turns = new Map<string, number[]>();
/** Of 16 hex digits: as two numbers. */
const halves = (id: string) => [Number(`0x${id.slice(0, 8)}`), Number(`0x${id.slice(8, 16)}`)];

const digest = (text: string) => createHash("sha256").update(text).digest("hex");

/** Milliseconds since 1970, to a fraction of a microsecond, and never backwards. */
export const unixMs = () => performance.timeOrigin + performance.now();

/** Headers of a call made on behalf of `trace`. */
export function traceHeaders(trace: TraceContext | undefined): Record<string, string> {
  if (trace === undefined) return {};
  const { traceId, spanId, runId } = trace;
  const traceparent = `00-${traceId}-${spanId}-01`;
  return runId === undefined ? { traceparent } : { traceparent, baggage: `rl.run.id=${runId}` };
}

/** The context that came with a call; undefined without one, or with one that is not as W3C says. */
export function traceFromHeaders(headers: Readonly<Record<string, string>>) {
  const parts = /^(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:$|-)/
    .exec(headers.traceparent ?? "");
  if (parts === null || /^0+$/.test(parts[1]) || /^0+$/.test(parts[2])) return undefined;
  const run = /(?:^|,)\s*rl\.run\.id\s*=\s*([a-z0-9-]{1,64})\s*(?:[;,]|$)/
    .exec(headers.baggage ?? "");
  const context: TraceContext = { traceId: parts[1], spanId: parts[2], runId: run?.[1] };
  return context;
}
