// Fills a store with scalars of many runs as if they had been trained: what ./sdpg bench telemetry asks
// curves of. The engine makes them itself. No service may have the store open.
//
//   deno run -P=telemetry services/telemetry/fill_for_bench.ts --home DIRECTORY --scalars N

import { parseArgs } from "node:util";
import { storeDirectory } from "@sdpg/common/home.ts";
import { openEmbedded } from "./store.ts";

const { values: { home, scalars } } = parseArgs({
  options: { home: { type: "string" }, scalars: { type: "string" } },
});
const rows = Number(scalars);
if (!home || !Number.isSafeInteger(rows) || rows < 1) {
  throw new Error("Cannot fill a store: expected --home DIRECTORY --scalars N");
}

const names = [
  "rewards",
  "loss/actor",
  "loss/critic",
  "reward/forward",
  "reward/alive",
  "reward/control",
  "phase/rollout",
  "phase/rollout/simulation",
  "phase/actor",
  "phase/critic",
];
const iterations = 1000;
const runs = 10_000;
// An insert has a piece of many runs, as if they were trained at the same time.
const rowsPerInsert = 2_000_000;

const store = await openEmbedded(storeDirectory(home));
for (let from = 0; from < rows; from += rowsPerInsert) {
  const count = Math.min(rowsPerInsert, rows - from);
  // Rows are numbered run by run in thousands of iterations, names within an iteration.
  await store.command(
    `INSERT INTO scalars
WITH ${from} + number AS n, intDiv(n, ${names.length * iterations}) % ${runs} AS run,
     intDiv(n, ${names.length}) % ${iterations} + intDiv(n, ${
      runs * names.length * iterations
    }) * ${iterations} + 1 AS epoch
SELECT concat('filled-', toString(run)), epoch, [${
      names.map((name) => `'${name}'`)
    }][n % ${names.length} + 1],
       3000 * (1 - exp(-epoch / 300)) + 50 * sin(n), epoch * 2048, epoch * 131072, 0, epoch * 0.13,
       epoch * 0.12, toDateTime64('2026-01-01 00:00:00', 9, 'UTC') + run * 10 + epoch * 0.13
FROM numbers(${count})`,
  );
}
await store.close();
