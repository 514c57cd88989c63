// Brings a store to the schema this code expects: numbered SQL files, applied once each and in order,
// written down in schema_version. There is no way back, and a store that a newer checkout has written
// is left alone.

import type { Store } from "./store.ts";

export interface Migration {
  version: number;
  name: string;
  statements: string[];
}

/** The migrations of a folder, in order. Throws when the numbers have a gap or a name is wrong. */
export function readMigrations(folder = new URL("./migrations/", import.meta.url)): Migration[] {
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name)
    .filter((name) => name.endsWith(".sql")).sort();
  return names.map((file, index) => {
    const match = /^(\d{3})_([a-z0-9_]+)\.sql$/.exec(file);
    if (!match || Number(match[1]) !== index + 1) {
      throw new Error(
        `Cannot use migration ${file}: expected ${String(index + 1).padStart(3, "0")}_name.sql`,
      );
    }
    const text = Deno.readTextFileSync(new URL(file, folder));
    return { version: index + 1, name: match[2], statements: splitStatements(text) };
  });
}

/** Applies what is missing and returns the schema's version. Throws for a store that is newer. */
export async function migrate(store: Store, migrations: Migration[]): Promise<number> {
  await store.command(
    "CREATE TABLE IF NOT EXISTS schema_version (version UInt32, name String, " +
      "applied_at DateTime64(3, 'UTC')) ENGINE = MergeTree ORDER BY version",
  );
  const [{ version }] = await store.rows<{ version: number }>(
    "SELECT max(version) AS version FROM schema_version",
  );
  const known = migrations.at(-1)?.version ?? 0;
  if (version > known) {
    throw new Error(
      `Cannot open the store at ${store.place}: it has schema version ${version}, this checkout ` +
        `knows ${known}; update the checkout or set SDPG_HOME to another directory`,
    );
  }
  for (const migration of migrations.slice(version)) {
    for (const statement of migration.statements) await store.command(statement);
    // Written last: a crash before this line runs the migration again, which it allows.
    await store.insert("schema_version", ["version", "name", "applied_at"], [
      [migration.version, migration.name, new Date().toISOString().replace(/[TZ]/g, " ").trim()],
    ]);
  }
  return known;
}

/** Statements of a file: they end with a semicolon at the end of a line; `--` lines are comments. */
export function splitStatements(text: string): string[] {
  const code = text.split("\n").filter((line) => !line.trimStart().startsWith("--")).join("\n");
  return code.split(/;[ \t]*$/m).map((statement) => statement.trim()).filter(Boolean);
}
