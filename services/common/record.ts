// Client of the telemetry service: what a run wants remembered, as OTLP log events with names.
//
// A call encodes its row and appends it to a bounded queue; one background sender posts the queue in
// order, in batches, and takes a batch off only when the service has stored it. So a row may be sent
// more than once and is stored once (the service drops what it has), and neither a slow nor an absent
// service ever delays the caller. When the queue is full the newest rows are dropped and counted; the
// count reaches the store as a fault row as soon as there is room again.

import { type AttributeValue, encodeEvent, encodeLogs, type LogEvent } from "./otlp.ts";
import { logger } from "./log.ts";

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

export interface RecorderOptions {
  /** Address of the telemetry service, such as http://127.0.0.1:4318. */
  url: string;
  /** Name of the recording service. */
  service: string;
  /** Bounds of the queue; see the top of the file for what happens when it is full. */
  maxQueuedBytes?: number;
  /**
   * Longest time a row waits for company before it is sent (default 2 s). An insert costs the engine
   * about 12 ms of a core however small it is, so this decides what telemetry takes from a training.
   */
  intervalMs?: number;
  fetch?: typeof fetch;
  random?: () => number;
}

const maxBatchBytes = 1024 * 1024;
const requestTimeoutMs = 15_000;
const backoffMs = { first: 100, last: 5000 };

/** Events named by run and iteration, which may be sent by one process and again by another. */
const durableEvents = ["rl.iteration", "rl.evaluation"];

interface Queued {
  json: string;
  event: string;
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
  #queuedBytes = 0;
  #sent = 0;
  #dropped = 0;
  #droppedUnreported = 0;
  #lastRun = "";
  #flushing = 0;
  #closed = new AbortController();
  #wake = () => {};
  #idle: (() => void)[] = [];
  #sender: Promise<void>;
  #log;

  constructor(options: RecorderOptions) {
    this.#url = options.url.replace(/\/$/, "") + "/v1/logs";
    this.#service = options.service;
    this.#maxQueuedBytes = options.maxQueuedBytes ?? 32 * 1024 * 1024;
    this.#intervalMs = options.intervalMs ?? 2000;
    this.#fetch = options.fetch ?? fetch;
    this.#random = options.random ?? Math.random; // jitter only; nothing of it is recorded
    this.#instance = crypto.randomUUID();
    this.#log = logger(options.service, { part: "recorder" });
    this.#sender = this.#run();
  }

  run(row: RunRow): void {
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

  /** Sends the rest (5 s at most) and stops. Rows that could not be sent count as dropped. */
  async close(): Promise<void> {
    await this.flush(5000);
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
      .filter(({ event, json }) => durableEvents.includes(event) && json.includes(own))
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
      this.#enqueue({ json: text, event });
    }
  }

  /** Rows that wait to be sent. */
  get queued(): number {
    return this.#queue.length;
  }

  #add(eventName: string, runId: string, attributes: () => LogEvent["attributes"]): void {
    if (this.#closed.signal.aborted) {
      this.#dropped++;
      return;
    }
    this.#lastRun = runId;
    let text: string;
    try {
      text = encodeEvent({
        eventName,
        timeUnixNano: this.#now(),
        attributes: { "rl.run.id": runId, "rl.sequence": ++this.#sequence, ...attributes() },
      });
    } catch (error) { // a row that cannot be encoded must not stop the training it describes
      this.#dropped++;
      this.#log.error("Cannot encode a row", { event: eventName, error });
      return;
    }
    this.#enqueue({ json: text, event: eventName });
  }

  #enqueue(row: Queued): void {
    if (this.#queuedBytes + row.json.length > this.#maxQueuedBytes) {
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
      if (this.#flushing === 0 && this.#queuedBytes < maxBatchBytes) {
        await this.#pause(this.#intervalMs);
      }
      const batch = this.#batch();
      const outcome = await this.#post(batch);
      if (outcome === "retry") {
        await this.#pause(waitMs * (0.8 + 0.4 * this.#random()), false);
        waitMs = Math.min(waitMs * 2, backoffMs.last);
        continue;
      }
      waitMs = backoffMs.first;
      if (outcome === "refused" && batch.length > 1) await this.#postOneByOne(batch);
      else if (outcome === "refused") this.#take(batch, false);
      else this.#take(batch, true);
      this.#reportDrops();
    }
    this.#idle.splice(0).forEach((resolve) => resolve());
  }

  #batch(): Queued[] {
    let bytes = 0;
    let count = 0;
    while (count < this.#queue.length && (count === 0 || bytes < maxBatchBytes)) {
      bytes += this.#queue[count++].json.length;
    }
    return this.#queue.slice(0, count);
  }

  /** One bad row must not take its neighbours with it. */
  async #postOneByOne(batch: Queued[]): Promise<void> {
    for (const row of batch) {
      let outcome: Outcome = "retry";
      while (outcome === "retry" && !this.#closed.signal.aborted) {
        outcome = await this.#post([row]);
        if (outcome === "retry") await this.#pause(backoffMs.last * this.#random(), false);
      }
      if (outcome !== "retry") this.#take([row], outcome === "stored");
    }
  }

  #take(batch: Queued[], stored: boolean): void {
    this.#queue.splice(0, batch.length);
    for (const row of batch) this.#queuedBytes -= row.json.length;
    if (stored) this.#sent += batch.length;
    else this.#dropped += batch.length;
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

  async #post(batch: Queued[]): Promise<Outcome> {
    // The resource is encoded with no records, and theirs are put in: each is encoded once only.
    const resource = { "service.name": this.#service, "service.instance.id": this.#instance };
    const empty = encodeLogs(resource, []);
    const body = empty.replace(
      '"logRecords":[',
      () => '"logRecords":[' + batch.map(({ json }) => json).join(","),
    );
    let response: Response;
    try {
      response = await this.#fetch(this.#url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        signal: AbortSignal.any([this.#closed.signal, AbortSignal.timeout(requestTimeoutMs)]),
      });
      const text = await response.text();
      if (response.ok) return "stored";
      // 429 and 5xx ask for another try; any other status will not get better.
      if (response.status === 429 || response.status >= 500) return "retry";
      this.#log.error("The telemetry service refused rows", {
        status: response.status,
        reason: text.slice(0, 500),
        events: [...new Set(batch.map(({ event }) => event))],
      });
      return "refused";
    } catch {
      return "retry"; // not reachable, cut off, or too slow: the batch may or may not be stored
    }
  }

  /** Waits; a flush or the end cuts the wait short (`interruptible`: only then for a flush). */
  async #pause(ms: number, interruptible = true): Promise<void> {
    const until = performance.now() + ms;
    while (!this.#closed.signal.aborted) {
      const left = until - performance.now();
      if (left <= 0 || (interruptible && this.#flushing > 0)) return;
      if (interruptible && this.#queuedBytes >= maxBatchBytes) return;
      let timer: ReturnType<typeof setTimeout> | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
  }
}

type Outcome = "stored" | "retry" | "refused";

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
