import { expect, test } from "vitest";
import { createHash } from "node:crypto";
import { iterationTrace, spanId, traceFromHeaders, traceHeaders } from "./trace.ts";

test("iterationTrace() hashes run and epoch, so that anybody can name an epoch's trace", () => {
  const { traceId, spanId: root } = iterationTrace("hopper-1", 7);
  expect(traceId).toBe(createHash("sha256").update("hopper-1 7").digest("hex").slice(0, 32));
  expect(root).toMatch(/^[0-9a-f]{16}$/);
  const traces = [["hopper-1", 8], ["hopper-2", 7], ["hopper-1", 71]] as const;
  const ids = traces.map(([run, epoch]) => iterationTrace(run, epoch).traceId);
  expect(new Set([traceId, ...ids]).size).toBe(4);
  expect(spanId(traceId, "gpu-sim", "render")).not.toBe(spanId(traceId, "render", "render"));
});

test("traceFromHeaders() reads what traceHeaders() wrote", () => {
  const trace = iterationTrace("hopper-1", 7);
  expect(traceFromHeaders(traceHeaders(trace))).toEqual(trace);
  expect(traceHeaders(undefined)).toEqual({});
});

// Examples and rules of W3C Trace Context (2021), sections 3.2.2 and 3.2.3.
const id = "0af7651916cd43dd8448eb211c80319c";
test.each([
  [`00-${id}-b7ad6b7169203331-00`, true],
  [`cc-${id}-b7ad6b7169203331-01-what-the-future-will-be`, true],
  [`ff-${id}-b7ad6b7169203331-01`, false],
  [`00-${"0".repeat(32)}-b7ad6b7169203331-01`, false],
  [`00-${id}-0000000000000000-01`, false],
  [`00-${id.toUpperCase()}-b7ad6b7169203331-01`, false],
  [`00-${id}-b7ad6b7169203331-01.x`, false],
  ["", false],
])("traceFromHeaders() of traceparent %s: %s", (traceparent, valid) => {
  expect(traceFromHeaders({ traceparent })?.traceId).toBe(valid ? id : undefined);
});

test("traceFromHeaders() finds the run among other baggage", () => {
  const traceparent = `00-${id}-b7ad6b7169203331-01`;
  const run = (baggage: string) => traceFromHeaders({ traceparent, baggage })?.runId;
  expect(run("user=me, rl.run.id = hopper-1;p=1 ,x=2")).toBe("hopper-1");
  expect(run("xrl.run.id=hopper-1")).toBeUndefined();
  expect(run('rl.run.id="};drop')).toBeUndefined();
});
