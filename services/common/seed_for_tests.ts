// The seed of tests that draw their cases: the same every time, so that a change that lands has been tested
// by what tests it; SDPG_TEST_SEED=n draws others.

/** From 0 to 2^32 - 1; a failing test prints it. */
export const testSeed = Number(Deno.env.get("SDPG_TEST_SEED") ?? 20260) >>> 0;
