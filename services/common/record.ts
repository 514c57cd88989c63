// Client of the telemetry service: what a run wants remembered, as OTLP log events with names, the spans
// of its epochs' traces, and what its services count and log.
//
// A call encodes its row and appends it to a bounded queue; one background sender posts the queue in
// order, in batches, and takes a batch off only when the service has stored it. So a row may be sent
// more than once and is stored once (the service drops what it has), and neither a slow nor an absent
// service ever delays the caller. When the queue is full the newest rows are dropped and counted; the
// count reaches the store as a fault row as soon as there is room again. Only events are worth
// the whole queue: the rest may fill half of it.

import {
  type Attributes,
  type AttributeValue,
  encodeEvent,
  encodeLogLine,
  encodeSpan,
  joinEncoded,
  type LogEvent,
  type LogLine,
  type Signal,
  type Span,
} from "./otlp.ts";
import { type Annotation, annotationEvents } from "./annotation.ts";
import { logger } from "./log.ts";
import { spanId, type TraceContext } from "./trace.ts";

/** States a run passes through. `interrupted` is written by whoever finds its process gone. */
export const runStates = [
  "started", // configuration is fixed, services are being prepared
  "running", // first epoch begun, or gone on after a resume
  "done",
  "stopped", // by request, can be resumed
  "failed",
  "interrupted",
] as const;
export type RunState = typeof runStates[number];

/** A change of a run's state. What is left out keeps the value of the run's earlier rows. */
export interface RunRow {
  runId: string;
  state: RunState;
  task?: string;
  algorithm?: string;
  preset?: string;
  observation?: string;
  seed?: bigint | number;
  /** Full effective configuration: an object, or its JSON. */
  configuration?: unknown;
  codeVersion?: string;
  /** Processor, cores, memory, …: an object, or its JSON. */
  hardware?: unknown;
  /** Epochs finished. */
  epochs?: number;
  /** One line for failed and stopped. */
  reason?: string;
  stateHash?: string;
  checkpoint?: string;
}

/** Everything measured in one iteration (epoch), on the five axes. */
export interface IterationRow {
  runId: string;
  iteration: number; // 1 after the first epoch
  envStepsNominal: number;
  envStepsTotal: number; // auxiliaries included
  imagesRendered: number;
  wallTimeS: number;
  gpuSeconds: number;
  scalars: Record<string, number>;
}

/** One evaluation: an entry of `returns` and `lengths` per episode, on the same five axes. */
export interface EvaluationRow {
  runId: string;
  iteration: number;
  envStepsNominal: number;
  envStepsTotal: number;
  imagesRendered: number;
  wallTimeS: number;
  gpuSeconds: number;
  returns: number[];
  lengths: number[];
}

/** A sample of one process; sizes in bytes, as in /proc/<pid>/smaps_rollup. */
export interface ResourcesRow {
  runId: string;
  service: string;
  pid: number;
  cpuSeconds: number; // user + system since the start of the process
  residentBytes: number; // RSS
  proportionalBytes: number; // PSS
  sharedBytes: number;
}

/** Something that went wrong and was contained. */
export interface FaultRow {
  runId: string;
  service: string;
  /** Short name: non_finite, contact_overflow, checkpoint_failed, telemetry_dropped, … */
  kind: string;
  iteration?: number;
  count?: number; // default 1
  message?: string;
}

/** A piece of work of one epoch. */
export interface SpanRow extends Omit<Span, "attributes"> {
  runId: string;
  iteration: number;
  /** Who measured it, if not the recording service. */
  service?: string;
  attributes?: Attributes;
}

/** Time that a service spent on something in an epoch, added up. */
export interface PhaseRow {
  /** "a/b" is a part of "a". */
  readonly name: string;
  readonly service: string;
  readonly seconds: number;
  /** When it first began, milliseconds since 1970. */
  readonly startMs: number;
  readonly count: number;
}

/**
 * Set by `./sdpg bench telemetry --training` for the commands it compares, to its own process: their
 * recorders keep nothing. The command line refuses it from anybody else.
 */
export const withoutTelemetry = "SDPG_BENCH_WITHOUT_TELEMETRY";

export interface RecorderOptions {
  /** Address of the telemetry service, such as http://127.0.0.1:4318. */
  url: string;
  /** Name of the recording service. */
  service: string;
  /** Bounds of the queue; see the top of the file for what happens when it is full. */
  maxQueuedBytes?: number;
  /** How long a row waits for company (default 5 s); states of runs do not. */
  intervalMs?: number;
  fetch?: typeof fetch;
  random?: () => number;
}

const maxBatchBytes = 1024 * 1024;
const requestTimeoutMs = 15_000;
const backoffMs = { first: 100, last: 5000, flushing: 250 };
/** How long the end waits for the last rows: of a service that is not there, and of one that is slow. */
const closingMs = { away: 5000, slow: 30_000 };

/** Events named by run and iteration, which may be sent by one process and again by another. */
const durableEvents = ["rl.iteration", "rl.evaluation"];

const signals: readonly Signal[] = ["logs", "traces", "metrics"];

interface Queued {
  signal: Signal;
  json: string;
  event: string;
  service: string;
}

export class Recorder {
  #url: string;
  #service: string;
  #maxQueuedBytes: number;
  #intervalMs: number;
  #fetch: typeof fetch;
  #random: () => number;
  #instance: string;
  #sequence = 0n;
  #lastTime = 0n;
  #queue: Queued[] = [];
  /** What the service at the other end has no place for. */
  #unwanted = new Set<Signal>();
  /** What is sent again as it was: the service knows a repeated request of spans by its bytes. */
  #unanswered = new Map<Signal, Queued[]>();
  #queuedBytes = 0;
  #sent = 0;
  #dropped = 0;
  #droppedUnreported = 0;
  #lastRun = "";
  #flushing = 0;
  /** Whether nobody answered the last request that ended; a slow answer is none yet. */
  #away = false;
  /** A run's state waits, which should be seen soon. */
  #urgent = false;
  #closed = new AbortController();
  #wake = () => {};
  #idle: (() => void)[] = [];
  #sender: Promise<void>;
  #log;
  /** Whether nothing is recorded, to measure what recording costs. */
  readonly off = Deno.env.get(withoutTelemetry) !== undefined;

  constructor(options: RecorderOptions) {
    this.#url = options.url.replace(/\/$/, "");
    this.#service = options.service;
    this.#maxQueuedBytes = options.maxQueuedBytes ?? 32 * 1024 * 1024;
    this.#intervalMs = options.intervalMs ?? 5000;
    this.#fetch = options.fetch ?? fetch;
    this.#random = options.random ?? Math.random; // jitter only; nothing of it is recorded
    this.#instance = crypto.randomUUID();
    this.#log = logger(options.service, { part: "recorder" });
    this.#sender = this.#run();
  }

  run(row: RunRow): void {
    this.#urgent = true;
    this.#add("rl.run", row.runId, () => ({
      "rl.run.state": row.state,
      "rl.task": row.task,
      "rl.agent": row.algorithm,
      "rl.preset": row.preset,
      "rl.observation": row.observation,
      "rl.seed": row.seed === undefined ? undefined : BigInt(row.seed),
      "rl.configuration": json(row.configuration),
      "service.version": row.codeVersion,
      "rl.hardware": json(row.hardware),
      "rl.epochs": row.epochs === undefined ? undefined : BigInt(row.epochs),
      "rl.reason": row.reason,
      "rl.state_hash": row.stateHash,
      "rl.checkpoint": row.checkpoint,
    }));
  }

  iteration(row: IterationRow): void {
    this.#add("rl.iteration", row.runId, () => ({ ...axes(row), "rl.scalars": row.scalars }));
  }

  evaluation(row: EvaluationRow): void {
    this.#add("rl.evaluation", row.runId, () => ({
      ...axes(row),
      "rl.returns": row.returns,
      "rl.lengths": row.lengths.map((length) => BigInt(length)),
    }));
  }

  /** A row for each tag, and one for the note. */
  annotation(runId: string, annotation: Annotation): void {
    for (const attributes of annotationEvents(annotation)) {
      this.#add("rl.annotation", runId, () => attributes);
    }
  }

  resources(row: ResourcesRow): void {
    this.#add("process.resources", row.runId, () => ({
      "rl.service": row.service,
      "process.pid": BigInt(row.pid),
      "process.cpu.time": row.cpuSeconds,
      "process.memory.usage": BigInt(Math.round(row.residentBytes)),
      "process.memory.proportional": BigInt(Math.round(row.proportionalBytes)),
      "process.memory.shared": BigInt(Math.round(row.sharedBytes)),
    }));
  }

  fault(row: FaultRow): void {
    this.#add("rl.fault", row.runId, () => ({
      "rl.service": row.service,
      "rl.fault.kind": row.kind,
      "rl.iteration": BigInt(row.iteration ?? 0),
      "rl.fault.count": BigInt(row.count ?? 1),
      "rl.fault.message": row.message,
    }));
  }

  span({ runId, iteration, service, attributes, ...span }: SpanRow): void {
    this.#enqueueEncoded("traces", span.name, service, () =>
      encodeSpan({
        ...span,
        attributes: { "rl.run.id": runId, "rl.iteration": BigInt(iteration), ...attributes },
      }));
  }

  /** @param json a metric as encodeMetric makes it, of `service` if not the recording one */
  metric(name: string, json: string, service?: string): void {
    this.#enqueueEncoded("metrics", name, service, () => json);
  }

  /** A line of a service's log. */
  logLine(service: string, line: LogLine): void {
    this.#enqueueEncoded("logs", "", service, () => encodeLogLine(line));
  }

  /**
   * A span for every phase, under that of the phase which it is a part of, the first ones under `trace`.
   * Its length is the sum of all the times the phase came, its beginning that of the first.
   */
  phases(trace: TraceContext, iteration: number, phases: readonly PhaseRow[]): void {
    const { traceId, runId = "" } = trace;
    const idOf = ({ service, name }: PhaseRow) => spanId(traceId, service, name);
    const ids = new Map(phases.map((phase) => [phase.name, idOf(phase)]));
    for (const phase of phases) {
      const { name, service, seconds, startMs, count } = phase;
      const slash = name.lastIndexOf("/");
      this.span({
        ...{ traceId, spanId: idOf(phase), runId, iteration, service, seconds, startMs },
        parentSpanId: ids.get(name.slice(0, Math.max(0, slash))) ?? trace.spanId,
        name: name.slice(slash + 1),
        attributes: { "rl.phase": name, "rl.phase.count": BigInt(count) },
      });
    }
  }

  /**
   * Sends what is queued without waiting for company, for at most `timeoutMs`. The counts are of all
   * rows since the start; `sent` counts stored rows only.
   */
  async flush(timeoutMs: number): Promise<{ sent: number; dropped: number }> {
    if (this.#queue.length > 0 && !this.#closed.signal.aborted) {
      this.#flushing++;
      this.#wake();
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([
        new Promise<void>((resolve) => this.#idle.push(resolve)),
        new Promise<void>((resolve) => timer = setTimeout(resolve, timeoutMs)),
      ]);
      clearTimeout(timer);
      this.#flushing--;
    }
    return { sent: this.#sent, dropped: this.#dropped };
  }

  /**
   * Sends the rest and stops, after 5 s where the service is not there, after 30 s where it is slow. Rows
   * that could not be sent count as dropped.
   */
  async close(): Promise<void> {
    await this.flush(closingMs.away);
    if (this.#queue.length > 0 && !this.#away) await this.flush(closingMs.slow - closingMs.away);
    this.#closed.abort();
    this.#wake();
    await this.#sender;
    if (this.#queue.length > 0) {
      this.#dropped += this.#queue.length;
      this.#log.warn("Cannot store the last rows: the telemetry service did not take them", {
        rows: this.#queue.length,
        url: this.#url,
      });
      this.#queue.length = 0;
    }
  }

  /**
   * Iterations and evaluations of a run that are not known to be stored, in order. Kept in a checkpoint
   * and given to `restore` by the process that resumes from it, they survive the end of this one: a
   * resumed run replays only what came after its checkpoint.
   */
  unsent(runId: string): string[] {
    const own = `{"key":"rl.run.id","value":{"stringValue":${JSON.stringify(runId)}}}`;
    return this.#queue
      .filter(({ signal, event, json }) =>
        signal === "logs" && durableEvents.includes(event) && json.includes(own)
      )
      .map(({ json }) => json);
  }

  /** Queues rows of `unsent`, ahead of what is recorded later. Those already stored are not doubled. */
  restore(rows: readonly string[]): void {
    for (const text of rows) {
      const event = durableEvents.find((name) => text.includes(`"eventName":"${name}"`));
      if (event === undefined) {
        this.#log.error("Cannot restore a row: expected an iteration or an evaluation", {
          row: text.slice(0, 100),
        });
        continue;
      }
      this.#enqueue({ signal: "logs", json: text, event, service: this.#service });
    }
  }

  /** Rows that wait to be sent. */
  get queued(): number {
    return this.#queue.length;
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  /** Rows that were not and will not be sent. */
  get dropped(): number {
    return this.#dropped;
  }

  #add(eventName: string, runId: string, attributes: () => LogEvent["attributes"]): void {
    this.#lastRun = runId;
    this.#enqueueEncoded("logs", eventName, undefined, () =>
      encodeEvent({
        eventName,
        timeUnixNano: this.#now(),
        attributes: { "rl.run.id": runId, "rl.sequence": ++this.#sequence, ...attributes() },
      }));
  }

  #enqueueEncoded(
    signal: Signal,
    event: string,
    service = this.#service,
    encode: () => string,
  ): void {
    if (this.off) return;
    if (this.#closed.signal.aborted) {
      this.#dropped++;
      return;
    }
    let json: string;
    try {
      json = encode();
    } catch (error) { // a row that cannot be encoded must not stop the training it describes
      this.#dropped++;
      this.#log.error("Cannot encode a row", { event, error });
      return;
    }
    this.#enqueue({ signal, json, event, service });
  }

  #enqueue(row: Queued): void {
    if (this.#unwanted.has(row.signal)) return;
    const most = row.event !== "" && row.signal === "logs"
      ? this.#maxQueuedBytes
      : this.#maxQueuedBytes / 2;
    if (this.#queuedBytes + row.json.length > most) {
      this.#dropped++;
      if (this.#droppedUnreported++ === 0) {
        this.#log.warn("Dropping rows: the queue to the telemetry service is full", {
          rows: this.#queue.length,
          bytes: this.#queuedBytes,
          url: this.#url,
        });
      }
      return;
    }
    this.#queue.push(row);
    this.#queuedBytes += row.json.length;
    this.#wake();
  }

  /** Wall clock in ns, made strictly increasing so that rows keep their order. */
  #now(): bigint {
    const now = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e6));
    this.#lastTime = now > this.#lastTime ? now : this.#lastTime + 1n;
    return this.#lastTime;
  }

  async #run(): Promise<void> {
    let waitMs = backoffMs.first;
    while (!this.#closed.signal.aborted) {
      if (this.#queue.length === 0) {
        this.#idle.splice(0).forEach((resolve) => resolve());
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      if (this.#flushing === 0 && this.#queuedBytes < maxBatchBytes && !this.#urgent) {
        await this.#pause(this.#intervalMs);
      }
      this.#urgent = false;
      for (const signal of signals) {
        const batch = this.#unanswered.get(signal) ?? this.#batch(signal);
        if (batch.length === 0) continue;
        const outcome = await this.#post(signal, batch);
        if (outcome === "retry") {
          await this.#backOff(waitMs * (0.8 + 0.4 * this.#random()));
          waitMs = Math.min(waitMs * 2, backoffMs.last);
          this.#unanswered.set(signal, batch);
          break;
        }
        this.#unanswered.delete(signal);
        waitMs = backoffMs.first;
        if (outcome === "refused" && batch.length > 1) await this.#postOneByOne(signal, batch);
        else if (outcome === "refused") this.#take(batch, false);
        else if (outcome === "unwanted") this.#discard(signal);
        else this.#take(batch, true);
        this.#reportDrops();
      }
    }
    this.#idle.splice(0).forEach((resolve) => resolve());
  }

  #batch(signal: Signal): Queued[] {
    let bytes = 0;
    const batch: Queued[] = [];
    for (const row of this.#queue) {
      if (row.signal !== signal) continue;
      if (bytes >= maxBatchBytes) break;
      bytes += row.json.length;
      batch.push(row);
    }
    return batch;
  }

  /** One bad row must not take its neighbours with it. */
  async #postOneByOne(signal: Signal, batch: Queued[]): Promise<void> {
    for (const row of batch) {
      let outcome: Outcome = "retry";
      while (outcome === "retry" && !this.#closed.signal.aborted) {
        outcome = await this.#post(signal, [row]);
        if (outcome === "retry") await this.#backOff(backoffMs.last * this.#random());
      }
      if (outcome !== "retry") this.#take([row], outcome === "stored");
    }
  }

  #take(batch: Queued[], stored: boolean): void {
    const taken = new Set(batch);
    this.#queue = this.#queue.filter((row) => !taken.has(row));
    for (const row of batch) this.#queuedBytes -= row.json.length;
    if (stored) this.#sent += batch.length;
    else this.#dropped += batch.length;
  }

  /** A collector that takes logs need not take the rest. */
  #discard(signal: Signal): void {
    this.#unwanted.add(signal);
    this.#log.debug(`The telemetry service takes no ${signal}`, { url: this.#url });
    this.#take(this.#queue.filter((row) => row.signal === signal), false);
  }

  #reportDrops(): void {
    if (this.#droppedUnreported === 0 || this.#queuedBytes > this.#maxQueuedBytes / 2) return;
    const count = this.#droppedUnreported;
    this.#droppedUnreported = 0;
    this.fault({
      runId: this.#lastRun,
      service: this.#service,
      kind: "telemetry_dropped",
      count,
      message: "The telemetry service was slow or away and the queue was full",
    });
  }

  async #post(signal: Signal, batch: Queued[]): Promise<Outcome> {
    const groups = [...Map.groupBy(batch, ({ service }) => service)].map(([service, rows]) => ({
      resource: { "service.name": service, "service.instance.id": this.#instance },
      records: rows.map(({ json }) => json),
    }));
    const body = joinEncoded(signal, groups);
    let response: Response;
    try {
      response = await this.#fetch(`${this.#url}/v1/${signal}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        signal: AbortSignal.any([this.#closed.signal, AbortSignal.timeout(requestTimeoutMs)]),
      });
      const text = await response.text();
      this.#away = false;
      if (response.ok) return "stored";
      if (response.status === 404 && signal !== "logs") return "unwanted";
      // 429 and 5xx ask for another try; any other status will not get better.
      if (response.status === 429 || response.status >= 500) return "retry";
      this.#log.error("The telemetry service refused rows", {
        status: response.status,
        reason: text.slice(0, 500),
        events: [...new Set(batch.map(({ event }) => event))],
      });
      return "refused";
    } catch (error) {
      this.#away = (error as Error).name !== "TimeoutError";
      return "retry"; // not reachable, cut off, or too slow: the batch may or may not be stored
    }
  }

  /** Waits for company; a flush, an urgent row, a full batch or the end cuts the wait short. */
  async #pause(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while (!this.#closed.signal.aborted) {
      const left = until - performance.now();
      if (left <= 0 || this.#flushing > 0 || this.#urgent) return;
      if (this.#queuedBytes >= maxBatchBytes) return;
      await this.#sleep(left);
    }
  }

  /** Waits before a request is tried again, not for long where a flush waits for its rows. */
  async #backOff(ms: number): Promise<void> {
    const began = performance.now();
    while (!this.#closed.signal.aborted) {
      const until = began + (this.#flushing > 0 ? Math.min(ms, backoffMs.flushing) : ms);
      const left = until - performance.now();
      if (left <= 0) return;
      await this.#sleep(left);
    }
  }

  /** Until something changes, `ms` at most. */
  async #sleep(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }
}

type Outcome = "stored" | "retry" | "refused" | "unwanted";

function axes(row: Omit<IterationRow, "scalars">): Record<string, AttributeValue> {
  return {
    "rl.iteration": BigInt(row.iteration),
    "rl.env_steps.nominal": BigInt(row.envStepsNominal),
    "rl.env_steps.total": BigInt(row.envStepsTotal),
    "rl.images": BigInt(row.imagesRendered),
    "rl.wall_time": row.wallTimeS,
    "rl.gpu_seconds": row.gpuSeconds,
  };
}

const json = (value: unknown): string | undefined =>
  value === undefined || typeof value === "string" ? value : JSON.stringify(
    value,
    (_, inner) => typeof inner === "bigint" ? inner.toString() : inner,
  );
