// From rows to the store, each exactly once.
//
// Requests wait in a bounded queue; one committer takes everything that waits, removes what the store
// already has, inserts one block per table, and only then lets the requests be acknowledged. A sender
// that got no acknowledgement sends again, so what decides is the store itself:
//
// * scalars, evaluations and episodes have names of their own (run, iteration, name). A resumed run
//   replays iterations that may be stored; the first row stays, later ones are dropped.
// * run_states, resources and faults are named by their sender and its increasing sequence number. A
//   sender never has two requests open, so its highest stored number tells what is new.
//
// An insert of one block is atomic, also under kill -9: it is in the store with all its rows or with
// none. There is one writer per store (a lock sees to it), so looking before inserting is enough.

import type { Store } from "./store.ts";
import { columns, noRows, type Row, type Rows, type Table, tables } from "./rows.ts";

export interface IngestLimits {
  /** Rows that may wait; more are refused until there is room. */
  maxWaitingRows: number;
  /** Rows of one commit. */
  maxCommitRows: number;
  /** Pause between commits: fewer, larger parts for the engine to merge. */
  intervalMs: number;
}

export const defaultLimits: IngestLimits = {
  maxWaitingRows: 400_000,
  maxCommitRows: 100_000,
  intervalMs: 50,
};

/** The queue is full, or the service is stopping: the sender should try again later. */
export class Busy extends Error {
  override name = "Busy";
}

interface Waiting {
  rows: Rows;
  count: number;
  resolve(stored: number): void;
  reject(error: unknown): void;
}

export class Ingest {
  #store: Store;
  #limits: IngestLimits;
  #queue: Waiting[] = [];
  #waitingRows = 0;
  #stopping = false;
  #wake = () => {};
  #committer: Promise<void>;
  #known: Known;
  /** Rows inserted and rows dropped as already stored, since the start. */
  readonly counts = { stored: 0, repeated: 0, commits: 0 };

  constructor(store: Store, limits: Partial<IngestLimits> = {}) {
    this.#store = store;
    this.#limits = { ...defaultLimits, ...limits };
    this.#known = new Known(store);
    this.#committer = this.#run();
  }

  get waitingRows(): number {
    return this.#waitingRows;
  }

  /** Resolves when every row is in the store. Throws Busy, or the store's error: then send again. */
  add(rows: Rows): Promise<void> {
    const count = tables.reduce((sum, table) => sum + rows[table].length, 0);
    if (count === 0) return Promise.resolve();
    if (this.#stopping) return Promise.reject(new Busy("The telemetry service is stopping"));
    if (this.#waitingRows > 0 && this.#waitingRows + count > this.#limits.maxWaitingRows) {
      return Promise.reject(new Busy(`${this.#waitingRows} rows are waiting to be stored`));
    }
    this.#waitingRows += count;
    return new Promise((resolve, reject) => {
      this.#queue.push({ rows, count, resolve: () => resolve(), reject });
      this.#wake();
    });
  }

  /** Refuses new rows and stores those that wait. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#wake();
    await this.#committer;
  }

  async #run(): Promise<void> {
    let lastMs = -Infinity;
    while (true) {
      if (this.#queue.length === 0) {
        if (this.#stopping) return;
        await new Promise<void>((resolve) => this.#wake = resolve);
        continue;
      }
      const earlyMs = lastMs + this.#limits.intervalMs - performance.now();
      if (earlyMs > 0 && !this.#stopping && this.#waitingRows < this.#limits.maxCommitRows) {
        await new Promise<void>((resolve) => setTimeout(resolve, earlyMs));
      }
      const batch = this.#takeBatch();
      lastMs = performance.now();
      try {
        await this.#commit(batch);
        for (const { resolve, count } of batch) resolve(count);
      } catch (error) {
        // The insert may have happened or not. Forget what was believed and let the senders ask again.
        this.#known = new Known(this.#store);
        for (const { reject } of batch) reject(error);
      } finally {
        for (const { count } of batch) this.#waitingRows -= count;
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

  async #commit(batch: Waiting[]): Promise<void> {
    const all = noRows();
    for (const { rows } of batch) {
      for (const table of tables) for (const row of rows[table]) all[table].push(row);
    }
    for (const table of tables) {
      if (all[table].length === 0) continue;
      const fresh = await this.#known.fresh(table, all[table]);
      if (fresh.length > 0) {
        await this.#store.insert(table, columns[table], fresh.map(({ cells }) => cells));
        this.#known.stored(table, fresh);
      }
      this.counts.stored += fresh.length;
      this.counts.repeated += all[table].length - fresh.length;
    }
    this.counts.commits++;
  }
}

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
