// The telemetry service: takes the rows of runs over OTLP/HTTP and keeps them in ClickHouse, and
// answers read-only SQL in ClickHouse's HTTP style. It owns the store of one SDPG_HOME.
//
//   deno run -P=telemetry services/telemetry/main.ts --listen 127.0.0.1:0 --home .sdpg

import { join, resolve } from "node:path";
import {
  createHome,
  locksDirectory,
  sdpgHome,
  spoolDirectory,
  storeDirectory,
} from "@sdpg/common/home.ts";
import { flag, type Running, runService } from "@sdpg/common/service.ts";
import type { Logger } from "@sdpg/common/log.ts";
import { annotator } from "./annotate.ts";
import { type Cluster, clusterFrom } from "./cluster.ts";
import { serveHttp } from "./http.ts";
import { Ingest, type IngestLimits } from "./ingest.ts";
import { Spool } from "./spool.ts";
import { migrate, readMigrations } from "./migrate.ts";
import { openPage } from "./page.ts";
import { openEmbedded, openServer, type Store } from "./store.ts";

/** All who read an embedded store ask this service, and a question brings in what was acknowledged. */
const embeddedLimits: Partial<IngestLimits> = { insertIntervalMs: 60_000 };

/** Starts the service on a home. It ends with `stop`, which stores what waits and closes the store. */
export async function startTelemetry(options: {
  listen: string;
  home: string;
  clickhouseUrl?: string;
  cluster?: Cluster;
  log: Logger;
}): Promise<Running> {
  const { listen, home, clickhouseUrl, cluster, log } = options;
  createHome(home);
  const lock = lockStore(home);
  let store: Store | undefined;
  try {
    store = clickhouseUrl
      ? await openServer(clickhouseUrl, cluster)
      : await openEmbedded(storeDirectory(home));
    const opened = store;
    const schema = await migrate(store, readMigrations(), cluster);
    const names = async (sql: string) =>
      new Set((await opened.rows<{ name: string }>(sql)).map(({ name }) => name));
    const tableFunctions = await names("SELECT lower(name) AS name FROM system.table_functions");
    const settings = await names("SELECT name FROM system.settings");
    const [{ timezone }] = await opened.rows<{ timezone: string }>("SELECT timezone() AS timezone");
    const { spool, damaged } = Spool.open(spoolDirectory(home));
    for (const place of damaged) log.error("The spool was changed on the disk", { place });
    const ingest = new Ingest(store, spool, log, clickhouseUrl ? {} : embeddedLimits);
    const http = serveHttp(listen, {
      store,
      ingest,
      tableFunctions,
      settings,
      timezone,
      page: openPage(home, annotator(store, ingest)),
      log,
      now: Date.now,
    });
    log.info("store opened", { store: store.place, engine: store.version, schema });
    return {
      address: http.address,
      async stop() {
        const quiet = http.stop();
        await ingest.stop(); // what was taken is stored and acknowledged before the last reply
        await quiet;
        spool.close();
        await opened.close();
        lock.close();
      },
    };
  } catch (error) {
    await store?.close();
    lock.close();
    throw error;
  }
}

/** One writer per store: what decides about repeated rows looks before it inserts. */
function lockStore(home: string): Deno.FsFile {
  const path = join(locksDirectory(home), "store");
  const file = Deno.openSync(path, { create: true, read: true, write: true });
  if (!file.tryLockSync(true)) {
    const holder = Deno.readTextFileSync(path).trim();
    file.close();
    throw new Error(
      `Cannot open the store at ${storeDirectory(home)}: process ${
        holder || "?"
      } has it open; use ` +
        `that telemetry service, stop it with "./sdpg down", or set SDPG_HOME to another directory`,
    );
  }
  file.truncateSync(0);
  file.writeSync(new TextEncoder().encode(`${Deno.pid}\n`));
  return file;
}

if (import.meta.main) {
  await runService({
    name: "telemetry",
    summary: "keeps every run in ClickHouse and answers SQL about them",
    flags: { home: flag.path("directory of all state", sdpgHome()) },
    start: ({ listen, home }, { log }) =>
      startTelemetry({
        listen,
        home: resolve(home),
        clickhouseUrl: Deno.env.get("SDPG_CLICKHOUSE_URL"),
        cluster: clusterFrom(Deno.env),
        log,
      }),
  });
}
