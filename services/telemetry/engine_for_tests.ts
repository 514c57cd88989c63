// The engine of this process behind the part of ClickHouse's HTTP interface that our server store uses,
// for tests where no ClickHouse server is at hand: what the store sends is parsed and executed by the
// engine. It can be taken away: then it refuses, and of every third insert only the answer is lost.

import { Session } from "chdb";
import { parameterValue } from "./store.ts";

export class EngineBehindHttp {
  readonly url: string;
  /** Addresses of the requests it was sent. */
  readonly seen: URL[] = [];
  away = false;
  #directory: string;
  #server: Deno.HttpServer<Deno.NetAddr>;
  #writer: Session;
  #reader: Session | undefined;
  /** Databases in use. */
  #current = new Map<Session, string>();
  #refused = 0;

  constructor(directory: string) {
    this.#directory = directory;
    this.#writer = new Session(directory);
    const listen = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
    this.#server = Deno.serve(listen, (request) => this.#answer(request));
    this.url = `http://user:secret@127.0.0.1:${this.#server.addr.port}`;
  }

  async close(): Promise<void> {
    await this.#server.shutdown();
    this.#reader?.close();
    this.#writer.close();
  }

  async #answer(request: Request): Promise<Response> {
    const at = new URL(request.url);
    this.seen.push(at);
    if (at.pathname === "/ping") return new Response("Ok.\n");
    const body = await request.bytes();
    let sql = at.searchParams.get("query") ?? "";
    if (sql.endsWith(" FORMAT Native")) {
      const path = `${this.#directory}/insert.native`; // the engine takes it only from a file
      Deno.writeFileSync(path, body);
      const columns = /\((.*)\)/.exec(sql)![1];
      sql = sql.replace(" FORMAT Native", ` SELECT ${columns} FROM file('${path}', Native)`);
    } else sql = [sql, new TextDecoder().decode(body)].filter(Boolean).join("\n");
    // A cluster of this engine alone: what ON CLUSTER and replicas ask for is taken as it is without them.
    sql = sql.replace(/ ON CLUSTER `\w+`/, "")
      .replace(/Replicated(\w*MergeTree)\([^)]*\)/, "$1")
      .replace(
        /\breplicated_deduplication_window = (\d+), replicated_deduplication_window_seconds = \d+/,
        "non_replicated_deduplication_window = $1",
      );
    const refuses = this.away;
    const isInsert = sql.startsWith("INSERT");
    if (refuses && !(isInsert && ++this.#refused % 3 === 0)) {
      return new Response("away", { status: 503 });
    }
    const token = at.searchParams.get("insert_deduplication_token");
    if (token) {
      sql = sql.replace(/ (?=FORMAT |SELECT )/, ` SETTINGS insert_deduplication_token='${token}' `);
    }
    const parameters: Record<string, string> = {};
    for (const [name, value] of at.searchParams) {
      if (name.startsWith("param_")) {
        parameters[name.slice(6)] = parameterValue(sql, name.slice(6), value);
      }
    }
    try {
      let session = this.#writer;
      if (at.searchParams.get("readonly") === "1") {
        const connectionArgs = ["--readonly=1"];
        session = this.#reader ??= new Session(this.#directory, { connectionArgs });
      }
      const database = at.searchParams.get("database");
      if (database && database !== this.#current.get(session)) {
        await session.queryAsync(`USE ${database}`);
        this.#current.set(session, database);
      }
      const format = at.searchParams.get("default_format") ?? "TabSeparated";
      const result = Object.keys(parameters).length > 0
        ? await session.queryBindAsync(sql, parameters, { format })
        : await session.queryAsync(sql, { format });
      if (refuses) return new Response("gone in between", { status: 503 });
      return new Response(result.bytes() as Uint8Array<ArrayBuffer>);
    } catch (error) {
      const text = (error as Error).message.replace(/^Query failed: /, "");
      return new Response(text, { status: 500 });
    }
  }
}
