// Questions to the store: over the telemetry service's ClickHouse-style HTTP, which is started for the
// time of the question when nobody else has it running.

import { UsageError } from "@sdpg/common/service.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { leaseTelemetry } from "./mesh.ts";
import { CliError } from "./process.ts";
import { sweep } from "./sweep.ts";

/** Runs `use` with the address of a telemetry service. */
export async function withTelemetry<T>(
  home: string,
  use: (url: string) => Promise<T>,
): Promise<T> {
  await sweep(home);
  const telemetry = await leaseTelemetry(home);
  try {
    return await use(telemetry.url);
  } finally {
    await telemetry.release();
  }
}

/**
 * Answer of the store in a ClickHouse output format, as it streams in. `parameters` are the values of
 * `{name:Type}` in the statement. Throws CliError with the store's words.
 */
export async function ask(
  url: string,
  sql: string,
  format: string,
  parameters: Record<string, string> = {},
): Promise<ReadableStream<Uint8Array>> {
  const search = new URLSearchParams({ default_format: format });
  for (const [name, value] of Object.entries(parameters)) search.set(`param_${name}`, value);
  const response = await fetch(`${url}/?${search}`, { method: "POST", body: sql });
  if (!response.ok) throw new CliError((await response.text()).trim().split("\n")[0]);
  return response.body!;
}

/** Rows of an answer as objects. */
export async function rowsFrom<Row>(
  url: string,
  sql: string,
  parameters: Record<string, string> = {},
): Promise<Row[]> {
  const text = await new Response(await ask(url, sql, "JSONEachRow", parameters)).text();
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as Row);
}

/** Run names as a value of `{name:Array(String)}`. */
export const runList = (runs: readonly string[]): string =>
  `[${runs.map((run) => `'${run}'`).join(",")}]`;

/** Refuses a run that the store does not have, with the nearest that it has. */
export async function requireRuns(url: string, runs: readonly string[]): Promise<void> {
  const known = (await rowsFrom<{ run_id: string }>(url, "SELECT run_id FROM runs ORDER BY run_id"))
    .map(({ run_id }) => run_id);
  const missing = runs.find((run) => !known.includes(run));
  if (missing === undefined) return;
  throw new UsageError(
    `Cannot find run "${missing}" in the store${
      didYouMean(missing, known) ||
      (known.length > 0 ? "; ./sdpg runs lists them" : ", which has none")
    }`,
  );
}
