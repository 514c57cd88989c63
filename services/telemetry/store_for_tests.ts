// The store under test: the embedded engine, or with SDPG_TEST_CLICKHOUSE_URL a ClickHouse server (or one
// of a cluster, with SDPG_CLICKHOUSE_CLUSTER), where every home of a test has a database of its own that
// goes when its file is over.

import { basename } from "node:path";
import { createClient } from "@clickhouse/client";
import { storeDirectory } from "@sdpg/common/home.ts";
import { clusterFrom } from "./cluster.ts";
import { openEmbedded, openServer, type Store } from "./store.ts";

const server = Deno.env.get("SDPG_TEST_CLICKHOUSE_URL");

const databases = new Set<string>();
if (server !== undefined) {
  const { afterAll } = await import("vitest");
  afterAll(async () => {
    const client = createClient({ url: server });
    for (const name of databases) {
      await client.command({ query: `DROP DATABASE IF EXISTS ${name}` });
    }
    await client.close();
    databases.clear();
  });
}

/** SDPG_CLICKHOUSE_URL for a home: nothing where the engine is embedded. */
export function serverFor(home: string): string | undefined {
  if (server === undefined) return undefined;
  const database = `sdpg_test_${basename(home).replace(/\W/g, "_")}`;
  databases.add(database);
  const url = new URL(server);
  url.pathname = `/${database}`;
  return url.href;
}

/** Opens the store of a home, as its service would. */
export async function openTestStore(home: string): Promise<Store> {
  const url = serverFor(home);
  if (url === undefined) return await openEmbedded(storeDirectory(home));
  const environment = new Map(Object.entries({ ...Deno.env.toObject(), SDPG_CLICKHOUSE_URL: url }));
  return await openServer(url, clusterFrom(environment));
}
