// From requests to the store, each row exactly once.
//
// Requests are read into an open batch (columns of the two large tables, lines of the others). A committer
// writes it to the spool (spool.ts) about twenty times a second and acknowledges its requests when it is
// on the disk. A second loop brings the spool into the store, oldest first: what came within some seconds,
// or 100,000 rows, goes as one block per table. Who asks a question waits until what was acknowledged
// before is in the store (`settled`). While the store is away the spool grows, and the second loop tries
// again.
//
// A sender that got no acknowledgement sends again, and an insert that ended in an error or a kill is done
// again, so something has to tell what is there already:
//
// * scalars, evaluations and episodes have names of their own (run, iteration, name). A resumed run
//   replays iterations that may be stored; the first row stays, later ones are dropped.
// * run_states, resources and faults are named by their sender and its increasing sequence number. A
//   sender never has two requests open, so its highest stored number tells what is new.
// * spans, metrics and logs have no such names. A request of them is named by the hash of its body,
//   which the spool remembers, and what is inserted together by a token, which the engine remembers.
//
// An insert of one block is atomic, also under kill -9: it is in the store with all its rows or with
// none. There is one writer per store (a lock sees to it), so looking before inserting is enough.

import { Buffer } from "node:buffer";
import type { Logger } from "@sdpg/common/log.ts";
import {
  Blocks,
  type BlockTable,
  blockTables,
  readScalars,
  type ScalarNames,
  structures,
} from "./blocks.ts";
import { otelColumns, type OtelRows, type OtelTable, otelTables } from "./otel_rows.ts";
import type { Rejected } from "./otlp.ts";
import { columns, noRows, type Row, rowOf, type Rows, type Table, tables } from "./rows.ts";
import { type Group, type Part, type Spool, SpoolFull } from "./spool.ts";
import { type Cell, EngineError, linesOf, type Store } from "./store.ts";

export interface IngestLimits {
  /** Rows that may wait for the disk; more are refused until there is room. */
  maxWaitingRows: number;
  /** Pause between writes to the spool: fewer of them. */
  intervalMs: number;
  /**
   * How long acknowledged rows wait for company, where nobody asks: an insert costs the engine about 12 ms
   * of a core however small it is, ten tables get one, and each leaves a part to merge. It is what a
   * training pays for telemetry.
   */
  insertIntervalMs: number;
  /** Rows and bytes of one insert. */
  maxInsertRows: number;
  maxInsertBytes: number;
  /** Pauses between attempts to reach a store that is away. */
  awayMs: { first: number; last: number };
  /** How long a question waits for rows that were acknowledged before it. */
  settleMs: number;
}

export const defaultLimits: IngestLimits = {
  maxWaitingRows: 400_000,
  intervalMs: 50,
  insertIntervalMs: 5000,
  maxInsertRows: 100_000,
  maxInsertBytes: 64 << 20,
  awayMs: { first: 200, last: 5000 },
  settleMs: 10_000,
};

/** The queue or the spool is full, or the service is stopping: the sender should try again later. */
export class Busy extends Error {
  override name = "Busy";
}

/** What a request is read into, besides the blocks. */
export interface Taken {
  rows?: Rows;
  otel?: OtelRows;
  rejected?: Rejected;
}

/** Requests that will be written to the spool together. */
class OpenBatch {
  readonly rows = noRows();
  readonly otel: [OtelTable, string[]][] = [];
  readonly ids: string[] = [];
  readonly written = Promise.withResolvers<void>();
  count = 0;

  constructor(readonly blocks: Blocks) {
    this.written.promise.catch(() => {}); // every request has it for itself
  }

  parts(): Part[] {
    const parts: Part[] = [];
    for (const table of blockTables) {
      const block = this.blocks[table];
      if (block.rows === 0) continue;
      parts.push({ table, rows: block.rows, format: "Native", bytes: block.bytes() });
    }
    const format = "JSONCompactEachRow";
    for (const table of tables) {
      const rows = this.rows[table];
      if (rows.length === 0) continue;
      parts.push({
        table,
        rows: rows.length,
        format,
        bytes: linesOf(rows.map((row) => row.cells)),
      });
    }
    for (const [table, lines] of this.otel) {
      const bytes = new TextEncoder().encode(lines.join("\n") + "\n");
      parts.push({ table, rows: lines.length, format, bytes });
    }
    return parts;
  }
}

export class Ingest {
  #store: Store;
  #spool: Spool;
  #log: Logger;
  #limits: IngestLimits;
  #batch = new OpenBatch(new Blocks());
  /** Takes turns with those of the batch: their room is used again. */
  #otherBlocks = new Blocks();
  /** Requests that are not on the disk yet, by id: the same one sent again waits for the same end. */
  #open = new Map<string, Promise<void>>();
  #waitingRows = 0;
  #stopping = new AbortController();
  #wakeCommitter = () => {};
  #wakeInserter = () => {};
  #committer: Promise<void>;
  #inserter: Promise<void>;
  /** When the store was first found away. */
  #awayMs: number | undefined;
  /** Questions that wait for batches up to a number. */
  #questions: { upTo: number; resolve(): void }[] = [];
  #known: Known;
  /** Rows inserted and rows dropped as already stored, inserts of a group, since the start. */
  readonly counts = { stored: 0, repeated: 0, commits: 0 };

  constructor(store: Store, spool: Spool, log: Logger, limits: Partial<IngestLimits> = {}) {
    this.#store = store;
    this.#spool = spool;
    this.#log = log;
    this.#limits = { ...defaultLimits, ...limits };
    this.#known = new Known(store);
    this.#committer = this.#commit();
    this.#inserter = this.#insert();
  }

  /** Rows that are not on the disk yet. */
  get waitingRows(): number {
    return this.#waitingRows;
  }

  /** Rows that are acknowledged and only in the spool. */
  get spooledRows(): number {
    return this.#spool.pendingRows;
  }

  /** Whether the store did not take rows the last time. */
  get away(): boolean {
    return this.#awayMs !== undefined;
  }

  /**
   * Reads a request and resolves when its rows will not be lost. `read` puts rows into the blocks and
   * returns the others; what it throws refuses the whole request. Throws Busy: then send again. `id`
   * names the request, for rows that have no names.
   */
  async add(read: (blocks: Blocks) => Taken, id = ""): Promise<Rejected | undefined> {
    const batch = this.#batch;
    const blocks = blockTables.map((table) => batch.blocks[table]);
    for (const block of blocks) block.mark();
    const before = blocks.map(({ rows }) => rows);
    let taken: Taken;
    let count = 0;
    try {
      taken = read(batch.blocks);
      for (const { cells } of taken.rows?.scalars ?? []) batch.blocks.scalars.put(cells);
      blocks.forEach(({ rows }, i) => count += rows - before[i]);
      for (const table of tables) if (table !== "scalars") count += taken.rows?.[table].length ?? 0;
      for (const table of otelTables) count += taken.otel?.[table]?.length ?? 0;
    } catch (error) {
      for (const block of blocks) block.reset();
      throw error;
    }
    const { rejected } = taken;
    if (count === 0) return rejected;
    const open = this.#open.get(id);
    const known = open !== undefined || (id !== "" && this.#spool.has(id));
    const full = this.#waitingRows > 0 && this.#waitingRows + count > this.#limits.maxWaitingRows;
    const stopping = this.#stopping.signal.aborted;
    if (known || full || stopping) {
      for (const block of blocks) block.reset();
      if (known) this.counts.repeated += count;
      else if (stopping) throw new Busy("The telemetry service is stopping");
      else throw new Busy(`${this.#waitingRows} rows are waiting to be stored`);
      await open;
      return rejected;
    }
    for (const table of tables) {
      if (table === "scalars") continue;
      for (const row of taken.rows?.[table] ?? []) batch.rows[table].push(row);
    }
    for (const table of otelTables) {
      const lines = taken.otel?.[table];
      if (lines) batch.otel.push([table, lines]);
    }
    batch.count += count;
    this.#waitingRows += count;
    if (id !== "") {
      batch.ids.push(id);
      this.#open.set(id, batch.written.promise);
    }
    this.#wakeCommitter();
    await batch.written.promise;
    return rejected;
  }

  /**
   * Resolves when what was acknowledged is in the store, so that a question finds it; at once while the
   * store is away, and in any case after a while.
   */
  async settled(): Promise<void> {
    const { newest, oldestPending } = this.#spool;
    if (oldestPending > newest || this.away) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#questions.push({ upTo: newest, resolve });
    this.#wakeInserter();
    const timer = setTimeout(resolve, this.#limits.settleMs);
    await promise;
    clearTimeout(timer);
  }

  /** Refuses new rows and stores those that wait; the spool keeps what the store does not take now. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wakeCommitter();
    await this.#committer;
    this.#wakeInserter();
    await this.#inserter;
  }

  // -------------------------------------------------------------------------------- to the disk

  async #commit(): Promise<void> {
    const { signal } = this.#stopping;
    let lastMs = -Infinity;
    while (true) {
      if (this.#batch.count === 0) {
        if (signal.aborted) return;
        await new Promise<void>((resolve) => this.#wakeCommitter = resolve);
        continue;
      }
      const earlyMs = lastMs + this.#limits.intervalMs - performance.now();
      if (earlyMs > 0) await sleep(earlyMs, signal);
      const batch = this.#batch;
      this.#otherBlocks.clear();
      this.#batch = new OpenBatch(this.#otherBlocks);
      this.#otherBlocks = batch.blocks;
      lastMs = performance.now();
      try {
        await this.#spool.append(batch.ids, batch.parts());
        batch.written.resolve();
        this.#wakeInserter();
      } catch (error) {
        if (error instanceof SpoolFull) {
          const reason = error.message;
          this.#log.error("The spool is full: rows are refused until there is room", { reason });
          batch.written.reject(new Busy(reason));
        } else batch.written.reject(error);
      } finally {
        this.#waitingRows -= batch.count;
        for (const id of batch.ids) this.#open.delete(id);
      }
    }
  }

  // ------------------------------------------------------------------------------- to the store

  async #insert(): Promise<void> {
    const { insertIntervalMs, maxInsertRows, maxInsertBytes, awayMs } = this.#limits;
    const { signal } = this.#stopping;
    let pauseMs = awayMs.first;
    let dueMs: number | undefined;
    while (true) {
      this.#answerQuestions();
      if (this.#spool.pendingRows === 0) {
        if (this.#awayMs !== undefined) this.#isBack();
        if (signal.aborted) return;
        dueMs = undefined;
        await new Promise<void>((resolve) => this.#wakeInserter = resolve);
        continue;
      }
      dueMs ??= performance.now() + insertIntervalMs;
      const inNoHurry = !signal.aborted && !this.away && this.#questions.length === 0 &&
        this.#spool.pendingRows < maxInsertRows;
      if (inNoHurry && performance.now() < dueMs) {
        await this.#wokenOr(dueMs - performance.now());
        continue;
      }
      try {
        await this.#insertGroup(await this.#spool.begin(maxInsertRows, maxInsertBytes));
        this.counts.commits++;
        pauseMs = awayMs.first;
        dueMs = undefined;
      } catch (error) {
        // The insert may have happened or not: forget what was believed.
        this.#known = new Known(this.#store);
        if (this.#awayMs === undefined) {
          this.#awayMs = performance.now();
          const message = messageOf(error);
          this.#log.error("The store is away: rows are kept in the spool", { error: message });
        }
        this.#answerQuestions();
        if (signal.aborted) return;
        await sleep(pauseMs, signal);
        pauseMs = Math.min(pauseMs * 2, awayMs.last);
      }
    }
  }

  async #wokenOr(ms: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      this.#wakeInserter = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
  }

  #answerQuestions(): void {
    const { oldestPending } = this.#spool;
    const over = ({ upTo }: { upTo: number }) => this.away || upTo < oldestPending;
    for (const { resolve } of this.#questions.filter(over)) resolve();
    this.#questions = this.#questions.filter((question) => !over(question));
  }

  #isBack(): void {
    const seconds = Math.round((performance.now() - this.#awayMs!) / 1000);
    this.#log.info("The spool is in the store", { awaySeconds: seconds });
    this.#awayMs = undefined;
  }

  async #insertGroup(group: Group): Promise<void> {
    const parts: Part[] = [];
    for (const spooled of group.batches) {
      try {
        parts.push(...this.#spool.read(spooled));
      } catch (error) {
        const lost = { rows: spooled.rows, error: messageOf(error) };
        this.#log.error("Rows that were taken are lost", lost);
      }
    }
    for (const [table, own] of Map.groupBy(parts.map(current), ({ table }) => table)) {
      const bytes = own.length === 1 ? own[0].bytes : Buffer.concat(own.map(({ bytes }) => bytes));
      const rows = own.reduce((sum, part) => sum + part.rows, 0);
      try {
        await this.#insertInto(table, own[0].format, bytes, rows, group.token);
      } catch (error) {
        if (!isRefusal(error)) throw error;
        const path = this.#spool.setAside(group.token, { table, bytes });
        const message = "The store refuses rows that were taken: they are set aside";
        this.#log.error(message, { path, rows, error: messageOf(error) });
      }
    }
    try {
      await this.#spool.done(group);
    } catch (error) {
      const message = "Cannot write down that rows are stored; a restart finds it out again";
      this.#log.warn(message, { error: messageOf(error) });
    }
  }

  async #insertInto(
    table: string,
    format: Part["format"],
    bytes: Uint8Array,
    rows: number,
    token: string,
  ): Promise<void> {
    let stored = rows;
    if (table === "scalars") {
      const fresh = await this.#known.freshScalars(bytes);
      stored = fresh.rows;
      if (stored > 0) {
        await this.#store.insertBlock(table, columns.scalars, structures.scalars, fresh.bytes);
        this.#known.storedScalars(fresh.newest);
      }
    } else if (Object.hasOwn(columns, table)) {
      stored = await this.#insertFresh(table as EventTable, bytes);
    } else if (format === "Native") {
      const structure = structures[table as BlockTable];
      const names = otelColumns[table as OtelTable];
      await this.#store.insertBlock(table, names, structure, bytes, token);
    } else {
      await this.#store.insert(table, otelColumns[table as OtelTable], bytes, token);
    }
    this.counts.stored += stored;
    this.counts.repeated += rows - stored;
  }

  async #insertFresh(table: EventTable, bytes: Uint8Array): Promise<number> {
    const all = linesIn(bytes).map((cells) => rowOf(table, cells));
    const fresh = await this.#known.fresh(table, all);
    if (fresh.length > 0) {
      const same = fresh.length === all.length && table !== "run_states"; // these get their position
      const lines = same ? bytes : linesOf(fresh.map(({ cells }) => cells));
      await this.#store.insert(table, columns[table], lines);
      this.#known.stored(table, fresh);
    }
    return fresh.length;
  }
}

/** Tables whose rows stay lines. */
type EventTable = Exclude<Table, "scalars">;

const linesIn = (bytes: Uint8Array): Cell[][] =>
  new TextDecoder().decode(bytes).trimEnd().split("\n").map((line) => JSON.parse(line));

/** Scalars in a spool of an earlier checkout are lines of JSON. */
function current(part: Part): Part {
  if (part.table !== "scalars" || part.format === "Native") return part;
  const { scalars } = new Blocks();
  for (const cells of linesIn(part.bytes)) scalars.put(cells);
  return { ...part, format: "Native", bytes: scalars.bytes() };
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

/** Waits; the signal cuts it short. */
const sleep = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
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
  async fresh(table: EventTable, rows: Row[]): Promise<Row[]> {
    switch (table) {
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
  stored(table: EventTable, rows: Row[]): void {
    for (const { source, sequence } of rows) {
      if (source !== "") raise(this.#lastSequence, `${table} ${source}`, sequence);
    }
    if (table === "run_states") {
      for (const { runId, cells } of rows) raise(this.#lastPosition, runId, Number(cells[1]));
    }
  }

  /**
   * Blocks with the rows that are not stored yet. Nearly always an iteration is above all that the store
   * has of its run and comes once: its rows are not looked at one by one then.
   */
  async freshScalars(bytes: Uint8Array): Promise<FreshScalars> {
    const blocks: { bytes: Uint8Array; block: ScalarNames; segments: Segment[] }[] = [];
    for (let rest = bytes; rest.length > 0;) {
      const read = readScalars(rest);
      const own = rest.subarray(0, rest.length - read.rest.length);
      blocks.push({ bytes: own, block: read.block, segments: segmentsOf(read.block) });
      rest = read.rest;
    }
    const newest = new Map<string, number>();
    const stored = new Map<string, Set<string>>();
    const segments = blocks.flatMap((each) => each.segments);
    for (const [runId, own] of Map.groupBy(segments, (segment) => segment.runId)) {
      const last = await cached(this.#lastIteration, runId, () =>
        this.#number1(
          "SELECT max(iteration) AS n, count() AS c FROM scalars WHERE run_id = {run:String}",
          { run: runId },
        ));
      for (const segment of own) segment.mayBeStored = segment.iteration <= last;
      const doubtful = own.filter(({ mayBeStored }) => mayBeStored);
      stored.set(runId, await this.#storedScalars(runId, doubtful));
      newest.set(runId, own.reduce((max, { iteration }) => Math.max(max, iteration), last));
    }
    const earlier = new Map<string, Segment[]>();
    const fresh: Uint8Array[] = [];
    let rows = 0;
    for (const { bytes, block, segments } of blocks) {
      const kept: number[] = [];
      for (const segment of segments) {
        const key = `${segment.runId} ${segment.iteration}`;
        const before = earlier.get(key);
        if (before === undefined && !segment.mayBeStored && !segment.repeats) {
          for (let row = segment.from; row < segment.to; row++) kept.push(row);
        } else {
          const seen = new Set(before?.flatMap(namesIn));
          for (let row = segment.from; row < segment.to; row++) {
            const name = block.names[block.name[row]];
            if (seen.has(name)) continue;
            if (stored.get(segment.runId)!.has(`${segment.iteration} ${name}`)) continue;
            seen.add(name);
            kept.push(row);
          }
        }
        earlier.set(key, [...before ?? [], segment]);
      }
      rows += kept.length;
      if (kept.length === block.rows) fresh.push(bytes);
      else if (kept.length > 0) fresh.push(block.only(kept));
    }
    return { rows, bytes: fresh.length === 1 ? fresh[0] : Buffer.concat(fresh), newest };
  }

  /** Takes note of the newest iterations of runs that were inserted. */
  storedScalars(newest: FreshScalars["newest"]): void {
    for (const [run, iteration] of newest) raise(this.#lastIteration, run, iteration);
  }

  /** Names of stored rows, as `iteration name`. */
  async #storedScalars(runId: string, doubtful: Segment[]): Promise<Set<string>> {
    if (doubtful.length === 0) return new Set();
    const iterations = doubtful.map(({ iteration }) => iteration);
    const found = await this.#store.rows<{ iteration: number | string; name: string }>(
      "SELECT iteration, name FROM scalars WHERE run_id = {run:String} " +
        "AND name IN ({names:Array(String)}) " +
        "AND iteration BETWEEN {from:UInt64} AND {to:UInt64}",
      {
        run: runId,
        names: [...new Set(doubtful.flatMap(namesIn))],
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

  async #freshFromSender(table: EventTable, rows: Row[]): Promise<Row[]> {
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

interface FreshScalars {
  rows: number;
  bytes: Uint8Array;
  /** Newest iteration of each run. */
  newest: Map<string, number>;
}

/** Rows of a block, one after the other, of one iteration of a run. */
interface Segment {
  block: ScalarNames;
  from: number;
  to: number;
  runId: string;
  iteration: number;
  /** A name comes twice. */
  repeats: boolean;
  mayBeStored: boolean;
}

function segmentsOf(block: ScalarNames): Segment[] {
  const { rows, runs, run, iteration, names, name } = block;
  const segments: Segment[] = [];
  const seen = new Uint32Array(names.length); // number of the segment that had the name last
  for (let from = 0, to; from < rows; from = to) {
    let repeats = false;
    const number = segments.length + 1;
    for (to = from; to < rows; to++) {
      if (run[to] !== run[from] || iteration[to] !== iteration[from]) break;
      if (seen[name[to]] === number) repeats = true;
      seen[name[to]] = number;
    }
    const place = { runId: runs[run[from]], iteration: iteration[from] };
    segments.push({ block, from, to, ...place, repeats, mayBeStored: false });
  }
  return segments;
}

const namesIn = ({ block, from, to }: Segment): string[] =>
  [...block.name.subarray(from, to)].map((key) => block.names[key]);

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
