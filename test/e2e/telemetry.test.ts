// Telemetry through kills and a store that is away: a short form of test/soak/telemetry.test.ts.

import { expect, test } from "vitest";
import { endure, expected } from "../soak/telemetry_senders.ts";

test("two kills and a store that is away lose no row and double none", async () => {
  const outcome = await endure({ seconds: 5, rowsPerSecond: 2000, awaySeconds: 4 });
  expect(outcome.spooledMost).toBeGreaterThan(0);
  expect(outcome).toMatchObject(expected(outcome));
});
