// Brings a store to the schema this code expects: numbered SQL files, applied once each and in order,
// written down in schema_version. Numbers are unique and may leave gaps, so that branches which grow at
// the same time keep their own: what a store lacks is applied, whatever number it has. There is no way
// back, and a store that a newer checkout has written is left alone.

import { type Cluster, onCluster } from "./cluster.ts";
import { linesOf, type Store } from "./store.ts";

export interface Migration {
  version: number;
  name: string;
  statements: string[];
}

/** The migrations of a folder, in order. Throws when a name is wrong or a number is there twice. */
export function readMigrations(folder = new URL("./migrations/", import.meta.url)): Migration[] {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name)
    .filter((name) => name.endsWith(".sql")).sort();
  const migrations = names.map((file) => {
    const match = /^(\d{3})_([a-z0-9_]+)\.sql$/.exec(file);
    if (!match || Number(match[1]) === 0) {
      throw new Error(`Cannot use migration ${file}: expected NNN_name.sql, NNN from 001`);
    }
    const text = Deno.readTextFileSync(new URL(file, folder));
    return { version: Number(match[1]), name: match[2], statements: splitStatements(text) };
  });
  migrations.forEach(({ version, name }, i) => {
    if (version === migrations[i - 1]?.version) {
      throw new Error(
        `Cannot use migrations ${
          migrations[i - 1].name
        } and ${name}: both have the number ${version}`,
      );
    }
  });
  return migrations;
}

/** The table of what was applied. */
export const schemaVersion = "CREATE TABLE IF NOT EXISTS schema_version (version UInt32, " +
  "name String, applied_at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY version";

/** Applies what is missing and returns the newest version. Throws for a store that is newer. */
export async function migrate(
  store: Store,
  migrations: Migration[],
  cluster?: Cluster,
): Promise<number> {
  const run = (sql: string) => store.command(cluster ? onCluster(sql, cluster) : sql);
  await run(schemaVersion);
  const applied = new Set(
    (await store.rows<{ version: number }>("SELECT version FROM schema_version"))
      .map(({ version }) => version),
  );
  const known = new Set(migrations.map(({ version }) => version));
  const unknown = [...applied].filter((version) => !known.has(version)).sort((a, b) => a - b);
  if (unknown.length > 0) {
    throw new Error(
      `Cannot open the store at ${store.place}: it has schema version ${
        unknown.at(-1)
      }, which this ` +
        `checkout does not know; update the checkout or set SDPG_HOME to another directory`,
    );
  }
  for (const migration of migrations.filter(({ version }) => !applied.has(version))) {
    for (const statement of migration.statements) await run(statement);
    // Written last: a crash before this line runs the migration again, which it allows.
    const now = new Date().toISOString().replace(/[TZ]/g, " ").trim();
    await store.insert(
      "schema_version",
      ["version", "name", "applied_at"],
      linesOf([[migration.version, migration.name, now]]),
    );
  }
  return migrations.at(-1)?.version ?? 0;
}

/** Statements of a file: they end with a semicolon at the end of a line; `--` lines are comments. */
export function splitStatements(text: string): string[] {
  const code = text.split("\n").filter((line) => !line.trimStart().startsWith("--")).join("\n");
  return code.split(/;[ \t]*$/m).map((statement) => statement.trim()).filter(Boolean);
}
