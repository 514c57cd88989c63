// From requests to the store, each row exactly once.
//
// Requests wait in a bounded queue; one committer takes everything that waits, writes it to the spool
// (spool.ts), removes what the store already has, inserts one block per table, and then lets the
// requests be acknowledged. While the store is away they are acknowledged when the spool has them, and
// a second loop brings the spool into the store, oldest first, until nothing is left.
//
// A sender that got no acknowledgement sends again, and a batch whose insert ended in an error or a kill
// is inserted again, so something has to tell what is there already:
//
// * scalars, evaluations and episodes have names of their own (run, iteration, name). A resumed run
//   replays iterations that may be stored; the first row stays, later ones are dropped.
// * run_states, resources and faults are named by their sender and its increasing sequence number. A
//   sender never has two requests open, so its highest stored number tells what is new.
// * spans, metrics and logs have no such names. A request of them is named by the hash of its body,
//   which the spool remembers, and a batch by a token, which the engine remembers.
//
// An insert of one block is atomic, also under kill -9: it is in the store with all its rows or with
// none. There is one writer per store (a lock sees to it), so looking before inserting is enough.

import { EngineError, linesOf, type Store } from "./store.ts";
import { columns, noRows, type Row, rowOf, type Rows, type Table, tables } from "./rows.ts";
import { otelColumns, type OtelRows, type OtelTable, otelTables } from "./otel_rows.ts";
import { type Batch, type Part, type Spool, type Spooled, SpoolFull } from "./spool.ts";
import type { Logger } from "@sdpg/common/log.ts";

export interface IngestLimits {
  /** Rows that may wait; more are refused until there is room. */
  maxWaitingRows: number;
  /** Rows of one commit. */
  maxCommitRows: number;
  /** Pause between commits: fewer, larger parts for the engine to merge. */
  intervalMs: number;
  /** Pauses between attempts to reach a store that is away. */
  awayMs: { first: number; last: number };
}

export const defaultLimits: IngestLimits = {
  maxWaitingRows: 400_000,
  maxCommitRows: 100_000,
  intervalMs: 50,
  awayMs: { first: 200, last: 5000 },
};

/** The queue or the spool is full, or the service is stopping: the sender should try again later. */
export class Busy extends Error {
  override name = "Busy";
}

/** Where batches are kept until they are stored; without it errors of the store go to the senders. */
export interface Keeping {
  spool: Spool;
  log: Logger;
}

interface Waiting {
  id: string;
  rows: Rows;
  otel: OtelRows;
  count: number;
  resolve(): void;
  reject(error: unknown): void;
}

export class Ingest {
  #store: Store;
  #limits: IngestLimits;
  #keeping: Keeping | undefined;
  #queue: Waiting[] = [];
  /** Requests that wait, by id: the same one sent again waits for the same end. */
  #open = new Map<string, Promise<void>>();
  #waitingRows = 0;
  #stopping = new AbortController();
  #wake = () => {};
  #committer: Promise<void>;
  /** Brings the spool into the store; while it does, the store counts as away. */
  #drainer: Promise<void> | undefined;
  #known: Known;
  /** Rows inserted and rows dropped as already stored, since the start. */
  readonly counts = { stored: 0, repeated: 0, commits: 0 };

  constructor(store: Store, limits: Partial<IngestLimits> = {}, keeping?: Keeping) {
    this.#store = store;
    this.#limits = { ...defaultLimits, ...limits };
    this.#keeping = keeping;
    this.#known = new Known(store);
    if (keeping && keeping.spool.pending.length > 0) this.#drainer = this.#drain(keeping);
    this.#committer = this.#run();
  }

  get waitingRows(): number {
    return this.#waitingRows;
  }

  /** Rows that are acknowledged and only in the spool. */
  get spooledRows(): number {
    if (this.#drainer === undefined) return 0;
    return this.#keeping!.spool.pending.reduce((sum, { rows }) => sum + rows, 0);
  }

  /**
   * Resolves when every row is in the store, or in the spool while the store is away. Throws Busy, or
   * the store's error: then send again. `id` names the request, for rows that have no names.
   */
  add(rows: Rows, { id = "", otel = {} }: { id?: string; otel?: OtelRows } = {}): Promise<void> {
    const count = tables.reduce((sum, table) => sum + rows[table].length, 0) +
      otelTables.reduce((sum, table) => sum + (otel[table]?.length ?? 0), 0);
    if (count === 0) return Promise.resolve();
    if (id !== "") {
      const open = this.#open.get(id);
      if (open) return open;
      if (this.#keeping?.spool.has(id)) {
        this.counts.repeated += count;
        return Promise.resolve();
      }
    }
    if (this.#stopping.signal.aborted) {
      return Promise.reject(new Busy("The telemetry service is stopping"));
    }
    if (this.#waitingRows > 0 && this.#waitingRows + count > this.#limits.maxWaitingRows) {
      return Promise.reject(new Busy(`${this.#waitingRows} rows are waiting to be stored`));
    }
    this.#waitingRows += count;
    const added = new Promise<void>((resolve, reject) => {
      this.#queue.push({ id, rows, otel, count, resolve, reject });
      this.#wake();
    });
    if (id !== "") {
      this.#open.set(id, added);
      const forget = () => this.#open.delete(id);
      added.then(forget, forget);
    }
    return added;
  }

  /** Refuses new rows and stores those that wait; the spool keeps what the store does not take now. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake();
    await this.#committer;
    await this.#drainer;
  }

  async #run(): Promise<void> {
    let lastMs = -Infinity;
    while (true) {
      if (this.#queue.length === 0) {
        if (this.#stopping.signal.aborted) return;
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      const earlyMs = lastMs + this.#limits.intervalMs - performance.now();
      const stopping = this.#stopping.signal.aborted;
      if (earlyMs > 0 && !stopping && this.#waitingRows < this.#limits.maxCommitRows) {
        await new Promise<void>((resolve) => setTimeout(resolve, earlyMs));
      }
      const waiting = this.#takeBatch();
      lastMs = performance.now();
      try {
        await this.#keep(waiting);
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        for (const { reject } of waiting) reject(error);
      } finally {
        for (const { count } of waiting) this.#waitingRows -= count;
      }
    }
  }

  #takeBatch(): Waiting[] {
    let rows = 0;
    let count = 0;
    while (
      count < this.#queue.length &&
      (count === 0 || rows + this.#queue[count].count <= this.#limits.maxCommitRows)
    ) rows += this.#queue[count++].count;
    return this.#queue.splice(0, count);
  }

  /** Returns when the rows are where they will not be lost. */
  async #keep(waiting: Waiting[]): Promise<void> {
    const rows = noRows();
    for (const request of waiting) {
      for (const table of tables) for (const row of request.rows[table]) rows[table].push(row);
    }
    const ids = waiting.map(({ id }) => id).filter((id) => id !== "");
    const parts = partsOf(rows, waiting.map(({ otel }) => otel));
    if (!this.#keeping) return await this.#commit({ token: crypto.randomUUID(), ids, parts }, rows);
    const { spool, log } = this.#keeping;
    let spooled;
    try {
      spooled = await spool.append(ids, parts);
    } catch (error) {
      if (!(error instanceof SpoolFull)) throw error;
      log.error("The spool is full: rows are refused until there is room", {
        error: error.message,
      });
      throw new Busy(error.message);
    }
    if (this.#drainer) return; // in its turn
    try {
      await this.#commit(spooled.batch, rows);
    } catch (error) {
      if (isRefusal(error)) {
        await spool.refused(spooled.sequence, ids);
        throw error;
      }
      log.error("The store is away: rows are kept in the spool", { error: messageOf(error) });
      this.#drainer = this.#drain(this.#keeping);
      return;
    }
    await spool.done(spooled.sequence);
  }

  /** Stores what the spool holds, oldest first, with growing pauses while the store does not take it. */
  async #drain({ spool, log }: Keeping): Promise<void> {
    const { first, last } = this.#limits.awayMs;
    const { signal } = this.#stopping;
    const startMs = performance.now();
    let pauseMs = first;
    let rows = 0;
    for (let next: Spooled | undefined; (next = spool.pending[0]);) {
      let batch: Batch;
      try {
        batch = spool.read(next);
      } catch (error) {
        log.error("Rows that were taken are lost", { rows: next.rows, error: messageOf(error) });
        await spool.done(next.sequence);
        continue;
      }
      try {
        await this.#commit(batch);
        await spool.done(next.sequence);
        rows += next.rows;
        pauseMs = first;
      } catch (error) {
        if (isRefusal(error)) {
          const path = await spool.setAside(next);
          log.error("The store refuses rows that were taken: they are set aside", {
            path,
            error: messageOf(error),
          });
          continue;
        }
        if (signal.aborted) return;
        await sleep(pauseMs, signal);
        pauseMs = Math.min(pauseMs * 2, last);
      }
    }
    this.#drainer = undefined;
    log.info("The spool is in the store", {
      rows,
      seconds: Math.round((performance.now() - startMs) / 1000),
    });
  }

  /** Inserts what the store does not have. `rows` are those of the batch where they are at hand. */
  async #commit({ token, parts }: Batch, rows?: Rows): Promise<void> {
    try {
      for (const { table, rows: count, bytes } of parts) {
        if (Object.hasOwn(otelColumns, table)) {
          await this.#store.insert(table, otelColumns[table as OtelTable], bytes, token);
          this.counts.stored += count;
        } else {
          await this.#insertFresh(table as Table, bytes, rows?.[table as Table]);
        }
      }
      this.counts.commits++;
    } catch (error) {
      // The insert may have happened or not: forget what was believed.
      this.#known = new Known(this.#store);
      throw error;
    }
  }

  async #insertFresh(table: Table, bytes: Uint8Array, rows?: Row[]): Promise<void> {
    const all = rows ?? new TextDecoder().decode(bytes).trimEnd().split("\n")
      .map((line) => rowOf(table, JSON.parse(line)));
    const fresh = await this.#known.fresh(table, all);
    if (fresh.length > 0) {
      const same = fresh.length === all.length && table !== "run_states"; // these get their position
      const lines = same ? bytes : linesOf(fresh.map(({ cells }) => cells));
      await this.#store.insert(table, columns[table], lines);
      this.#known.stored(table, fresh);
    }
    this.counts.stored += fresh.length;
    this.counts.repeated += all.length - fresh.length;
  }
}

function partsOf(rows: Rows, otel: OtelRows[]): Part[] {
  const parts: Part[] = [];
  for (const table of tables) {
    if (rows[table].length === 0) continue;
    const bytes = linesOf(rows[table].map(({ cells }) => cells));
    parts.push({ table, rows: rows[table].length, bytes });
  }
  for (const table of otelTables) {
    const lines = otel.flatMap((each) => each[table] ?? []);
    if (lines.length === 0) continue;
    const bytes = new TextEncoder().encode(lines.join("\n") + "\n");
    parts.push({ table, rows: lines.length, bytes });
  }
  return parts;
}

/**
 * Whether the engine will say no to these rows for ever (it cannot read them), and not only now: it has
 * no memory, no room, too many parts, or cannot be reached.
 */
function isRefusal(error: unknown): boolean {
  const codes = [6, 26, 27, 33, 38, 41, 53, 62, 69, 70, 72, 117, 131, 321, 349, 441, 467];
  return error instanceof EngineError && codes.includes(error.code);
}

const messageOf = (error: unknown) => error instanceof Error ? error.message : String(error);

const sleep = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

/** What the store is known to hold: enough to ask it only about rows that may be repetitions. */
class Known {
  #store: Store;
  /** Highest stored iteration of a run: what lies above is new without asking. */
  #lastIteration = new Map<string, number>();
  /** Highest stored sequence of a sender, by table and sender. */
  #lastSequence = new Map<string, number>();
  /** Highest position among a run's states. */
  #lastPosition = new Map<string, number>();

  constructor(store: Store) {
    this.#store = store;
  }

  /** Rows that are not stored yet, each once, in order. */
  async fresh(table: Table, rows: Row[]): Promise<Row[]> {
    switch (table) {
      case "scalars":
        return await this.#freshScalars(rows);
      case "evaluations":
      case "episodes":
        return await this.#freshEvaluations(table, rows);
      default: {
        const fresh = await this.#freshFromSender(table, rows);
        if (table === "run_states") await this.#number(fresh);
        return fresh;
      }
    }
  }

  /** Takes note of rows that were inserted. */
  stored(table: Table, rows: Row[]): void {
    for (const { runId, iteration, source, sequence } of rows) {
      if (table === "scalars") raise(this.#lastIteration, runId, iteration);
      if (source !== "") raise(this.#lastSequence, `${table} ${source}`, sequence);
    }
    if (table === "run_states") {
      for (const { runId, cells } of rows) raise(this.#lastPosition, runId, Number(cells[1]));
    }
  }

  async #freshScalars(rows: Row[]): Promise<Row[]> {
    const byRun = Map.groupBy(rows, ({ runId }) => runId);
    const stored = new Map<string, Set<string>>();
    for (const [runId, own] of byRun) {
      const last = await cached(this.#lastIteration, runId, () =>
        this.#number1(
          "SELECT max(iteration) AS n, count() AS c FROM scalars WHERE run_id = {run:String}",
          { run: runId },
        ));
      const doubtful = own.filter(({ iteration }) => iteration <= last);
      stored.set(runId, await this.#storedScalars(runId, doubtful));
    }
    return rows.filter(({ runId, iteration, name }) => {
      const seen = stored.get(runId)!;
      const key = `${iteration} ${name}`;
      if (seen.has(key)) return false;
      seen.add(key);
      return true;
    });
  }

  async #storedScalars(runId: string, doubtful: Row[]): Promise<Set<string>> {
    if (doubtful.length === 0) return new Set();
    const iterations = doubtful.map(({ iteration }) => iteration);
    const found = await this.#store.rows<{ iteration: number | string; name: string }>(
      "SELECT iteration, name FROM scalars WHERE run_id = {run:String} " +
        "AND name IN ({names:Array(String)}) " +
        "AND iteration BETWEEN {from:UInt64} AND {to:UInt64}",
      {
        run: runId,
        names: [...new Set(doubtful.map(({ name }) => name))],
        from: iterations.reduce((a, b) => Math.min(a, b)),
        to: iterations.reduce((a, b) => Math.max(a, b)),
      },
    );
    return new Set(found.map(({ iteration, name }) => `${iteration} ${name}`));
  }

  /** The rows of one evaluation go into the store together, so its iteration tells them all. */
  async #freshEvaluations(table: "evaluations" | "episodes", rows: Row[]): Promise<Row[]> {
    const stored = new Map<string, Set<number>>();
    for (const [runId, own] of Map.groupBy(rows, ({ runId }) => runId)) {
      const found = await this.#store.rows<{ iteration: number | string }>(
        `SELECT DISTINCT iteration FROM ${table} WHERE run_id = {run:String} ` +
          "AND iteration IN ({iterations:Array(UInt64)})",
        { run: runId, iterations: [...new Set(own.map(({ iteration }) => iteration))] },
      );
      stored.set(runId, new Set(found.map(({ iteration }) => Number(iteration))));
    }
    const taken = new Set<string>();
    return rows.filter(({ runId, iteration, cells }) => {
      if (stored.get(runId)!.has(iteration)) return false;
      // Within one commit the same evaluation may come twice: its episodes differ by their number.
      const key = `${runId} ${iteration} ${table === "episodes" ? cells[2] : ""}`;
      if (taken.has(key)) return false;
      taken.add(key);
      return true;
    });
  }

  async #freshFromSender(table: Table, rows: Row[]): Promise<Row[]> {
    const last = new Map<string, number>();
    for (const source of new Set(rows.map(({ source }) => source))) {
      const highest = await cached(this.#lastSequence, `${table} ${source}`, () =>
        this.#number1(
          `SELECT max(sequence) AS n, count() AS c FROM ${table} WHERE source = {source:String}`,
          { source },
        ));
      last.set(source, highest);
    }
    return rows.filter(({ source, sequence }) => {
      if (sequence <= last.get(source)!) return false;
      last.set(source, sequence);
      return true;
    });
  }

  /** Gives new states of a run the next positions. */
  async #number(rows: Row[]): Promise<void> {
    const next = new Map<string, number>();
    for (const row of rows) {
      const last = next.get(row.runId) ??
        await cached(this.#lastPosition, row.runId, () =>
          this.#number1(
            "SELECT max(position) AS n, count() AS c FROM run_states WHERE run_id = {run:String}",
            { run: row.runId },
          ));
      next.set(row.runId, last + 1);
      row.cells[columns.run_states.indexOf("position")] = last + 1;
    }
  }

  /** Highest number among the rows of a query, -1 where there are none. */
  async #number1(sql: string, parameters: Record<string, string>): Promise<number> {
    const [{ n, c }] = await this.#store.rows<{ n: number | string; c: number | string }>(
      sql,
      parameters,
    );
    return Number(c) === 0 ? -1 : Number(n);
  }
}

async function cached(
  map: Map<string, number>,
  key: string,
  load: () => Promise<number>,
): Promise<number> {
  const known = map.get(key);
  if (known !== undefined) return known;
  const loaded = await load();
  map.set(key, loaded);
  return loaded;
}

function raise(map: Map<string, number>, key: string, value: number): void {
  map.set(key, Math.max(map.get(key) ?? -1, value));
}
