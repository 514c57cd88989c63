// Questions to the store: over the telemetry service's ClickHouse-style HTTP, which is started for the
// time of the question when nobody else has it running.

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

/** Answer of the store in a ClickHouse output format, as it streams in. Throws CliError with the store's words. */
export async function ask(
  url: string,
  sql: string,
  format: string,
): Promise<ReadableStream<Uint8Array>> {
  const response = await fetch(`${url}/?default_format=${encodeURIComponent(format)}`, {
    method: "POST",
    body: sql,
  });
  if (!response.ok) throw new CliError((await response.text()).trim().split("\n")[0]);
  return response.body!;
}

/** Rows of an answer as objects. */
export async function rowsFrom<Row>(url: string, sql: string): Promise<Row[]> {
  const text = await new Response(await ask(url, sql, "JSONEachRow")).text();
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as Row);
}
