// Five minutes of 10,000 rows/s, two kills of the service, the store away for two minutes.

import { expect, test } from "vitest";
import { endure, expected } from "./telemetry_senders.ts";

test("two kills and a store that is away for two minutes lose no row and double none", async () => {
  const outcome = await endure({ seconds: 300, rowsPerSecond: 10_000, awaySeconds: 120 });
  console.log(`${outcome.sentScalars} scalars and ${outcome.sentSpans} spans sent`);
  expect(outcome.spooledMost).toBeGreaterThan(0);
  expect(outcome).toMatchObject(expected(outcome));
}, 1_200_000);
