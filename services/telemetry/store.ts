// The store behind the telemetry service: ClickHouse, either embedded (chDB in this process, its data
// under SDPG_HOME/store) or a server named by SDPG_CLICKHOUSE_URL. Both are driven through
// @clickhouse/client; what differs is only how a read-only question is asked.

import { join } from "node:path";
import { Readable } from "node:stream";
import { finished } from "node:stream/promises";
import { createClient } from "@clickhouse/client";
import { type Cluster, insertSettings, lookupSettings, onCluster } from "./cluster.ts";
import { drainPending, Session } from "chdb";
import { createChdbConnection } from "chdb/connection";

/** Database of all our tables, where the address of a server does not name another one. */
export const databaseName = "sdpg";

/** A read-only question with its parameters, as ClickHouse's HTTP interface puts it. */
export interface Question {
  sql: string;
  /** Format of the answer where the statement has no FORMAT of its own. */
  format: string;
  /** Values of `{name:Type}` in the statement, as they stand in `param_name` of a request. */
  parameters: Record<string, string>;
  /** Settings of the engine for this question, already checked (settings.ts). */
  settings?: Record<string, string>;
}

export interface Answer {
  bytes: Uint8Array;
  rowsRead: number;
  bytesRead: number;
  elapsedS: number;
}

export interface Store {
  /** Where the data is, for messages. */
  readonly place: string;
  /** The current database. */
  readonly database: string;
  readonly version: string;
  /** Runs one statement that returns nothing. */
  command(sql: string): Promise<void>;
  /** Rows of a query of our own, one object each. 64-bit integers come as numbers or strings. */
  rows<T>(sql: string, parameters?: Record<string, unknown>): Promise<T[]>;
  /**
   * Inserts lines of JSONCompactEachRow (values in the order of `columns`) as one block: all of them or
   * none. Tables with a deduplication window keep one of the blocks with the same token.
   */
  insert(
    table: string,
    columns: readonly string[],
    lines: Uint8Array,
    token?: string,
  ): Promise<void>;
  /**
   * The same for blocks in Native with these columns; `structure` has their types. However many blocks
   * there are, the engine makes one of them.
   */
  insertBlock(
    table: string,
    columns: readonly string[],
    structure: string,
    blocks: Uint8Array,
    token?: string,
  ): Promise<void>;
  /** Answers a person's question; the engine itself refuses every change. Throws EngineError. */
  ask(question: Question): Promise<Answer>;
  close(): Promise<void>;
}

export type Cell = string | number | null;

/** Rows as lines of JSONCompactEachRow. */
export const linesOf = (rows: readonly (readonly Cell[])[]): Uint8Array =>
  new TextEncoder().encode(rows.map((row) => JSON.stringify(row) + "\n").join(""));

/** ClickHouse said no. `message` is its own text, starting with "Code: n. DB::Exception: ". */
export class EngineError extends Error {
  override name = "EngineError";
  constructor(readonly code: number, message: string, options?: ErrorOptions) {
    super(message, options);
  }
}

/** Limits of one read-only question. */
export const questionLimits = {
  max_execution_time: 60, // seconds
  max_memory_usage: 268_435_456,
  max_result_bytes: 134_217_728,
  max_result_rows: 10_000_000,
};

/** An insert is one block however many rows it has, and done when it returns. */
function settingsOfInsert(token: string | undefined): Record<string, string> {
  const settings = {
    async_insert: "0",
    max_insert_block_size: "1000000",
    // The first merge makes them; what is that new is read without.
    materialize_skip_indexes_on_insert: "0",
    input_format_parallel_parsing: "0",
  };
  return token === undefined ? settings : { ...settings, insert_deduplication_token: token };
}

/** For blocks that are selected: one thread keeps their order, and all of them become one. */
const settingsOfSelect = {
  max_threads: "1",
  max_insert_threads: "1",
  min_insert_block_size_rows: "1000000",
};

const quoted = (columns: readonly string[]) => columns.map((name) => `\`${name}\``).join(", ");
const text = (value: string) => `'${value.replace(/[\\']/g, "\\$&")}'`;

// ------------------------------------------------------------------------------------- embedded

/**
 * Settings of the embedded engine. It shares two cores and a memory budget with a training: the
 * caches that a server would fill are kept at a few MB and the thread pools small. What they cost is
 * repeated reading of a local file, which the page cache answers.
 */
const engineConfiguration = {
  mark_cache_size: 8 << 20,
  primary_index_cache_size: 8 << 20,
  index_mark_cache_size: 1 << 20,
  query_condition_cache_size: 1 << 20,
  compiled_expression_cache_size: 1 << 20,
  uncompressed_cache_size: 0,
  mmap_cache_size: 16,
  max_thread_pool_size: 64,
  max_thread_pool_free_size: 4,
  thread_pool_queue_size: 1000,
  max_io_thread_pool_size: 4,
  max_io_thread_pool_free_size: 0,
  max_active_parts_loading_thread_pool_size: 2,
  max_outdated_parts_loading_thread_pool_size: 2,
  max_parts_cleaning_thread_pool_size: 2,
  background_pool_size: 2,
  background_schedule_pool_size: 2,
  background_common_pool_size: 1,
  tables_loader_foreground_pool_size: 1,
  tables_loader_background_pool_size: 1,
  restore_threads: 1,
  backup_threads: 1,
  max_server_memory_usage: 768 << 20,
};

/** Questions the embedded engine works on at the same time; more wait. */
const readerCount = 2;

/** Connections with settings of their own that are kept. A client sends the same ones again. */
const settledCount = 4;

class EmbeddedStore implements Store {
  readonly place: string;
  readonly database = databaseName;
  version = "";
  #engine: string[];
  /** Keeps the engine set up while connections come and go. */
  #base: Session;
  #writer: Connection<ReturnType<typeof createClient>>;
  #inserter: Connection<Session>;
  #readers: Connection<Session>[];
  #nextReader = 0;
  /** Readers with settings of their own, by these; the oldest goes when there are too many. */
  #settled = new Map<string, Connection<Session>>();

  constructor(directory: string) {
    this.place = directory;
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    const configuration = join(directory, "engine.xml");
    Deno.writeTextFileSync(configuration, xmlOf(engineConfiguration), { mode: 0o600 });
    this.#engine = [`--config-file=${configuration}`, "--max_threads=1", "--max_insert_threads=1"];
    this.#base = new Session(directory, { connectionArgs: this.#engine });
    this.#writer = new Connection(() => this.#openWriter(), (client) => client.close());
    this.#inserter = new Connection(() => this.#openInserter(), (session) => session.close());
    this.#readers = Array.from(
      { length: readerCount },
      () => new Connection(() => this.#openReader(), (session) => session.close()),
    );
  }

  async #openWriter() {
    const client = createClient(
      {
        connection: createChdbConnection({ path: this.place }),
      } as unknown as Parameters<typeof createClient>[0],
    );
    await client.command({ query: `CREATE DATABASE IF NOT EXISTS ${databaseName}` });
    await client.command({ query: `USE ${databaseName}` });
    return client;
  }

  async #openInserter() {
    const session = new Session(this.place, { connectionArgs: this.#engine });
    await session.queryAsync(`USE ${databaseName}`);
    return session;
  }

  async #openReader(settings: Record<string, string> = {}) {
    const session = new Session(this.place, {
      connectionArgs: [
        ...this.#engine,
        // Level 1 refuses writes, changes of settings, and table functions that leave the store.
        "--readonly=1",
        "--allow_introspection_functions=0",
        "--output_format_json_quote_64bit_integers=0",
        // Compiling a repeated expression takes longer (about 80 ms) than most questions do.
        "--compile_expressions=0",
        "--compile_aggregate_expressions=0",
        "--compile_sort_description=0",
        ...Object.entries({ ...questionLimits, ...settings })
          .map(([name, value]) => `--${name}=${value}`),
      ],
    });
    await session.queryAsync(`USE ${databaseName}`);
    return session;
  }

  async start(): Promise<void> {
    [{ version: this.version }] = await this.rows<{ version: string }>(
      "SELECT version() AS version",
    );
  }

  async command(sql: string): Promise<void> {
    await translated(this.#writer.use((client) => client.command({ query: sql })));
  }

  async rows<T>(sql: string, parameters?: Record<string, unknown>): Promise<T[]> {
    return await translated(this.#writer.use((client) => query<T>(client, sql, parameters)));
  }

  async insert(table: string, columns: readonly string[], lines: Uint8Array, token?: string) {
    await translated(this.#inserter.use((session) =>
      session.insert({
        table,
        columns,
        values: lines,
        format: "JSONCompactEachRow",
        settings: settingsOfInsert(token),
      })
    ));
  }

  /** chDB takes text formats only from memory; a file it maps, so nothing of it is written to the disk. */
  async insertBlock(
    table: string,
    columns: readonly string[],
    structure: string,
    blocks: Uint8Array,
    token?: string,
  ) {
    const path = join(this.place, "insert.native");
    const settings = Object.entries({ ...settingsOfInsert(token), ...settingsOfSelect })
      .map(([name, value]) => `${name} = '${value}'`).join(", ");
    await translated(this.#inserter.use(async (session) => {
      await Deno.writeFile(path, blocks, { mode: 0o600 });
      await session.queryAsync(
        `INSERT INTO ${table} (${quoted(columns)}) SETTINGS ${settings} ` +
          `SELECT * FROM file(${text(path)}, Native, ${text(structure)})`,
      );
      await Deno.remove(path);
    }));
  }

  async ask({ sql, format, parameters, settings = {} }: Question): Promise<Answer> {
    const free = Object.keys(settings).length > 0
      ? this.#readerWith(settings)
      : this.#readers.find(({ idle }) => idle) ?? this.#readers[this.#nextReader++ % readerCount];
    const values = Object.entries(parameters)
      .map(([name, text]) => [name, parameterValue(sql, name, text)] as const);
    const result = await translated(
      free.use((session) =>
        values.length > 0
          ? session.queryBindAsync(sql, Object.fromEntries(values), { format })
          : session.queryAsync(sql, { format })
      ),
    );
    return {
      bytes: result.bytes(),
      rowsRead: result.rowsRead,
      bytesRead: result.bytesRead,
      elapsedS: result.elapsed,
    };
  }

  /** A read-only connection has its settings from its beginning: it may not change them. */
  #readerWith(settings: Record<string, string>): Connection<Session> {
    const key = JSON.stringify(Object.entries(settings).sort());
    let reader = this.#settled.get(key);
    if (reader === undefined) {
      reader = new Connection(() => this.#openReader(settings), (session) => session.close());
      if (this.#settled.size >= settledCount) {
        const [oldest, connection] = this.#settled.entries().next().value!;
        this.#settled.delete(oldest);
        void connection.close();
      }
    } else {
      this.#settled.delete(key);
    }
    this.#settled.set(key, reader); // now the newest
    return reader;
  }

  async close(): Promise<void> {
    const settled = this.#settled.values();
    for (const connection of [...this.#readers, ...settled, this.#inserter, this.#writer]) {
      await connection.close();
    }
    this.#base.close();
    await drainPending();
  }
}

/**
 * A connection to the engine that is used by one call at a time and replaced after a failed one: chDB
 * (3.4.0) keeps what a failing query had already put out and begins the next answer of the same
 * connection with it.
 */
class Connection<C> {
  #open: () => Promise<C>;
  #close: (connection: C) => void | Promise<void>;
  #current: C | undefined;
  #last: Promise<unknown> = Promise.resolve();
  #users = 0;

  constructor(open: () => Promise<C>, close: (connection: C) => void | Promise<void>) {
    this.#open = open;
    this.#close = close;
  }

  get idle(): boolean {
    return this.#users === 0;
  }

  /** Runs `work` when the calls before it are done. */
  use<T>(work: (connection: C) => Promise<T>): Promise<T> {
    this.#users++;
    const run = async () => {
      try {
        this.#current ??= await this.#open();
        return await work(this.#current);
      } catch (error) {
        await this.#discard();
        throw error;
      } finally {
        this.#users--;
      }
    };
    const result = this.#last.then(run, run);
    this.#last = result.catch(() => {});
    return result;
  }

  async close(): Promise<void> {
    await this.#last;
    await this.#discard();
  }

  async #discard(): Promise<void> {
    const connection = this.#current;
    this.#current = undefined;
    if (connection !== undefined) await this.#close(connection);
  }
}

/**
 * Value of a parameter for the embedded engine. ClickHouse reads a plain one as a field of TabSeparated,
 * so clients escape it; chDB wants it as it is. One of a composite type is a literal with quoted texts;
 * chDB doubles its backslashes, so an escaped quote becomes a doubled one and the others what they mean.
 */
export function parameterValue(sql: string, name: string, text: string): string {
  const declared = new RegExp(`\\{\\s*${name.replace(/\W/g, "")}\\s*:\\s*(\\w+)`).exec(sql)?.[1];
  const composite = /^(Array|Map|Tuple|Nested|JSON|Variant|Dynamic)$/.test(declared ?? "");
  const escapes: Record<string, string> = {
    t: "\t",
    n: "\n",
    r: "\r",
    b: "\b",
    f: "\f",
    "0": "\0",
    "'": composite ? "''" : "'",
  };
  return text.replace(/\\(.)/gs, (_, char: string) => escapes[char] ?? char);
}

/** Opens the embedded store, creating it where there is none. */
export async function openEmbedded(directory: string): Promise<Store> {
  let store: EmbeddedStore;
  try {
    store = new EmbeddedStore(directory);
  } catch (error) {
    throw new Error(`Cannot open the store at ${directory}: ${firstLine(error)}`, { cause: error });
  }
  await store.start();
  return store;
}

function xmlOf(settings: Record<string, number>): string {
  const rows = Object.entries(settings).map(([name, value]) => `  <${name}>${value}</${name}>\n`);
  return `<clickhouse>\n${rows.join("")}</clickhouse>\n`;
}

// --------------------------------------------------------------------------------------- server

class ServerStore implements Store {
  readonly place: string;
  readonly database: string;
  version = "";
  #url: URL;
  #cluster: Cluster | undefined;
  #client: ReturnType<typeof createClient>;

  constructor(url: URL, cluster: Cluster | undefined) {
    this.database = url.pathname.slice(1) || databaseName;
    this.#url = new URL(url);
    this.#url.pathname = "/";
    this.#cluster = cluster;
    this.place = url.host; // without user and password
    this.#client = createClient({
      url: this.#url.href,
      database: this.database,
      request_timeout: 90_000,
      application: "sdpg-telemetry",
    });
  }

  async start(): Promise<void> {
    const outside = createClient({ url: this.#url.href, request_timeout: 30_000 }); // no database yet
    try {
      const create = `CREATE DATABASE IF NOT EXISTS ${this.database}`;
      const query = this.#cluster ? onCluster(create, this.#cluster) : create;
      await translated(outside.command({ query }));
    } finally {
      await outside.close();
    }
    [{ version: this.version }] = await this.rows<{ version: string }>(
      "SELECT version() AS version",
    );
  }

  async command(sql: string): Promise<void> {
    await translated(this.#client.command({ query: sql }));
  }

  async rows<T>(sql: string, parameters?: Record<string, unknown>): Promise<T[]> {
    const settings = lookupSettings(this.#cluster);
    return await translated(query<T>(this.#client, sql, parameters, settings));
  }

  async insert(table: string, columns: readonly string[], lines: Uint8Array, token?: string) {
    await this.#insert(table, columns, "JSONCompactEachRow", lines, token);
  }

  async insertBlock(
    table: string,
    columns: readonly string[],
    _structure: string,
    blocks: Uint8Array,
    token?: string,
  ) {
    await this.#insert(table, columns, "Native", blocks, token);
  }

  async #insert(
    table: string,
    columns: readonly string[],
    format: string,
    bytes: Uint8Array,
    token?: string,
  ) {
    await translated((async () => {
      const { stream } = await this.#client.exec({
        query: `INSERT INTO ${table} (${quoted(columns)}) FORMAT ${format}`,
        values: Readable.from([bytes], { objectMode: false }),
        clickhouse_settings: { ...settingsOfInsert(token), ...insertSettings(this.#cluster) },
      });
      stream.resume(); // nothing comes; the connection is free at its end
      await finished(stream);
    })());
  }

  /** Passed on as it came: the server reads parameters as clients write them. */
  async ask({ sql, format, parameters, settings = {} }: Question): Promise<Answer> {
    const startMs = performance.now();
    const at = new URL(this.#url);
    const authorization = `Basic ${btoa(decodeURIComponent(`${at.username}:${at.password}`))}`;
    at.username = at.password = "";
    at.searchParams.set("database", this.database);
    at.searchParams.set("default_format", format);
    at.searchParams.set("readonly", "1");
    for (const [name, value] of Object.entries({ ...questionLimits, ...settings })) {
      at.searchParams.set(name, String(value));
    }
    for (const [name, value] of Object.entries(parameters)) {
      at.searchParams.set(`param_${name}`, value);
    }
    return await translated((async () => {
      const response = await fetch(at, {
        method: "POST",
        body: sql,
        headers: this.#url.username ? { authorization } : {},
        signal: AbortSignal.timeout((questionLimits.max_execution_time + 30) * 1000),
      });
      if (!response.ok) throw new Error((await response.text()).trim());
      const summary = JSON.parse(response.headers.get("x-clickhouse-summary") ?? "{}");
      return {
        bytes: await response.bytes(),
        rowsRead: Number(summary.read_rows ?? 0),
        bytesRead: Number(summary.read_bytes ?? 0),
        elapsedS: (performance.now() - startMs) / 1000,
      };
    })());
  }

  async close(): Promise<void> {
    await this.#client.close();
  }
}

/** Opens a ClickHouse server, or one of a cluster. `url` may carry user and password. */
export async function openServer(url: string, cluster?: Cluster): Promise<Store> {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new Error(
      "Cannot use SDPG_CLICKHOUSE_URL: expected http(s)://[user:password@]host:port[/database], came something else",
    );
  }
  const parsed = new URL(url);
  if (!/^\/\w{0,64}$/.test(parsed.pathname)) {
    throw new Error(
      `Cannot use SDPG_CLICKHOUSE_URL: expected the name of a database after the host, or nothing, came ` +
        `"${parsed.pathname.slice(0, 60)}"`,
    );
  }
  const store = new ServerStore(parsed, cluster);
  try {
    await store.start();
  } catch (error) {
    await store.close();
    throw new Error(
      `Cannot reach ClickHouse at ${parsed.host} (SDPG_CLICKHOUSE_URL): ${firstLine(error)}`,
      { cause: error },
    );
  }
  return store;
}

// --------------------------------------------------------------------------------------- common

async function query<T>(
  client: ReturnType<typeof createClient>,
  sql: string,
  parameters?: Record<string, unknown>,
  settings: Record<string, string> = {},
): Promise<T[]> {
  const result = await client.query({
    query: sql,
    query_params: parameters,
    clickhouse_settings: settings,
    format: "JSONEachRow",
  });
  return await result.json<T>() as T[];
}

/** What JSON has no number for, in the words ClickHouse reads. */
export function floatCell(value: number): Cell {
  if (Number.isFinite(value)) return value;
  return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

/** Errors of both backends as EngineError, with the code and without repetitions in the text. */
async function translated<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw engineError(error) ?? error;
  }
}

function engineError(error: unknown): EngineError | undefined {
  if (!(error instanceof Error)) return undefined;
  const { code, type, clickhouseCode } = error as { code?: unknown; type?: string } & {
    clickhouseCode?: unknown;
  };
  const inText = /Code: (\d+)\. DB::/.exec(error.message)?.[1];
  const number = Number(clickhouseCode ?? (/^\d+$/.test(String(code)) ? code : inText));
  if (!Number.isInteger(number)) return undefined;
  let text = error.message.replace(/^Query failed: /, "");
  const prefix = `Code: ${number}. DB::Exception: `;
  while (text.startsWith(prefix)) text = text.slice(prefix.length);
  // A nested exception repeats its name and the version at the end.
  text = text.replace(/(?:\.? \([A-Z_0-9]+\)| \(version [^)]*\))+\s*$/, (ending) => {
    const names = ending.match(/\([A-Z_0-9]+\)/g);
    return names === null ? "" : `. ${names[0]}`;
  }).replace(/\.\. \(/, ". (");
  if (type && !text.endsWith(`(${type})`)) text = `${text.trimEnd()} (${type})`;
  return new EngineError(number, prefix + text, { cause: error });
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n")[0];
}
