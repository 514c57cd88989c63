// A ClickHouse cluster instead of one server: the statements of migrations as they are run there, and what
// inserts and look-ups need so that a row is stored once however many replicas there are.
//
//   SDPG_CLICKHOUSE_CLUSTER=name      tables and views on every server of the cluster (ON CLUSTER)
//   SDPG_CLICKHOUSE_REPLICATED=1      and their rows on every replica (ReplicatedMergeTree)
//
// The servers have to define the macros {shard} and {replica}, which clusters have anyhow. Rows go to the
// server of SDPG_CLICKHOUSE_URL; there are no Distributed tables, so what is asked of another shard is not
// found.

export interface Cluster {
  name: string;
  replicated: boolean;
}

/** The cluster that the environment names, if it does. Throws one line for what makes no sense. */
export function clusterFrom(
  environment: { get(name: string): string | undefined },
): Cluster | undefined {
  const name = environment.get("SDPG_CLICKHOUSE_CLUSTER") || undefined;
  const replicated = environment.get("SDPG_CLICKHOUSE_REPLICATED") || "0";
  if (!/^[01]$/.test(replicated)) {
    throw new Error(`Cannot use SDPG_CLICKHOUSE_REPLICATED="${replicated}": expected 0 or 1`);
  }
  if (name === undefined) {
    if (replicated === "0") return undefined;
    throw new Error(
      "Cannot use SDPG_CLICKHOUSE_REPLICATED=1 alone: set SDPG_CLICKHOUSE_CLUSTER to the cluster's name",
    );
  }
  if (!/^[\w.-]{1,100}$/.test(name)) {
    throw new Error(
      `Cannot use SDPG_CLICKHOUSE_CLUSTER="${name.slice(0, 100)}": expected the name of a cluster`,
    );
  }
  if (!environment.get("SDPG_CLICKHOUSE_URL")) {
    throw new Error(
      "Cannot use SDPG_CLICKHOUSE_CLUSTER without SDPG_CLICKHOUSE_URL: the embedded engine has no cluster",
    );
  }
  return { name, replicated: replicated === "1" };
}

/** Settings of inserts: most replicas have the block before it counts as stored. */
export const insertSettings = (cluster: Cluster | undefined): Record<string, string> =>
  cluster?.replicated ? { insert_quorum: "auto", insert_quorum_parallel: "0" } : {};

/** Settings of look-ups for stored rows: a replica that lacks some of them does not answer. */
export const lookupSettings = (cluster: Cluster | undefined): Record<string, string> =>
  cluster?.replicated ? { select_sequential_consistency: "1" } : {};

/** How long a replicated table remembers blocks: the store may have been away for as long. */
const rememberedSeconds = 7 * 86_400;

/** A statement of a migration as it is run on the cluster. Throws for a kind that is not known here. */
export function onCluster(statement: string, { name, replicated }: Cluster): string {
  const head = heads.map((pattern) => pattern.exec(statement)?.[0]).find((text) =>
    text !== undefined
  );
  if (head === undefined) {
    // Rows are written to one server; replicas bring them to the others.
    if (/^(INSERT INTO|SYSTEM )/.test(statement)) return statement;
    throw new Error(
      `Cannot run a migration on a cluster: expected CREATE DATABASE, TABLE, VIEW or MATERIALIZED VIEW, ` +
        `ALTER TABLE, DROP TABLE or VIEW, INSERT INTO, came "${statement.slice(0, 60)}"`,
    );
  }
  let rest = statement.slice(head.length);
  if (replicated) {
    rest = rest.replace(/(?<=\bENGINE = )(\w*MergeTree)\b(?!\()/, `Replicated$1(${placeAndName})`)
      .replace(
        /\bnon_replicated_deduplication_window = (\d+)/,
        "replicated_deduplication_window = $1, " +
          `replicated_deduplication_window_seconds = ${rememberedSeconds}`,
      );
    if (/\bENGINE = (?!Replicated)/.test(rest) || /\bnon_replicated_/.test(rest)) {
      throw new Error(
        `Cannot run a migration on a cluster: "${head}" has an engine or a setting that has no ` +
          "replicated form here",
      );
    }
  }
  return `${head} ON CLUSTER \`${name}\`${rest}`;
}

/** Every table has its own place in Keeper, also one that is dropped and made again. */
const placeAndName = "'/clickhouse/tables/{shard}/{database}/{table}/{uuid}', '{replica}'";

/** What stands before ON CLUSTER. */
const heads = [
  /^CREATE DATABASE IF NOT EXISTS \w+/,
  /^CREATE TABLE (IF NOT EXISTS )?\w+/,
  /^CREATE (OR REPLACE )?VIEW (IF NOT EXISTS )?\w+/,
  /^CREATE MATERIALIZED VIEW (IF NOT EXISTS )?\w+/,
  /^ALTER TABLE \w+/,
  /^DROP (TABLE|VIEW) (IF EXISTS )?\w+/,
];
