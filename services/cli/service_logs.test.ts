import { afterEach, beforeEach, expect, test } from "vitest";
import type { LogLine } from "@sdpg/common/otlp.ts";
import type { Recorder } from "@sdpg/common/record.ts";
import { ServiceLogs } from "./service_logs.ts";

let directory: string;
beforeEach(() => directory = Deno.makeTempDirSync());
afterEach(() => Deno.removeSync(directory, { recursive: true }));

function collect() {
  const taken: (LogLine & { service: string })[] = [];
  const recorder = {
    logLine: (service: string, line: LogLine) => taken.push({ service, ...line }),
  } as unknown as Recorder;
  return { taken, logs: new ServiceLogs("hopper-1", recorder) };
}

test("ServiceLogs takes each line once, whole, with its time, trace and fields", () => {
  const { taken, logs } = collect();
  const path = `${directory}/gpu-sim.log`;
  const append = (text: string) => Deno.writeTextFileSync(path, text, { append: true });
  append(
    '{"time":"2026-01-02T03:04:05.678Z","level":"warn","service":"gpu-sim","message":"λ","n":2,' +
      '"trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331","run":"hopper-2"}\n{"ti',
  );
  logs.follow([{ service: "gpu-sim", log: path }, { service: "learner" }]);
  expect(taken).toEqual([{
    service: "gpu-sim",
    timeMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678),
    severity: "warn",
    body: "λ",
    traceId: "0af7651916cd43dd8448eb211c80319c",
    spanId: "b7ad6b7169203331",
    attributes: { "rl.run.id": "hopper-2", n: "2" },
  }]);
  append('me":"2026-01-02T03:04:06Z","level":"info","message":"later"}\nSegmentation fault\n');
  const moved = `${directory}/moved.log`;
  Deno.renameSync(path, moved);
  logs.follow([{ service: "gpu-sim", log: path }]);
  expect(taken).toHaveLength(1);
  logs.follow([{ service: "gpu-sim", log: moved }]);
  logs.follow([{ service: "gpu-sim", log: moved }]);
  expect(taken.slice(1)).toMatchObject([
    { severity: "info", body: "later", attributes: { "rl.run.id": "hopper-1" } },
    { severity: "error", body: "Segmentation fault", attributes: { "rl.run.id": "hopper-1" } },
  ]);
});

test("ServiceLogs reads on behind a line longer than it reads at once", () => {
  const { taken, logs } = collect();
  const path = `${directory}/learner.log`;
  Deno.writeTextFileSync(path, "x".repeat(300_000) + "\nend\n");
  for (let i = 0; i < 3; i++) logs.follow([{ service: "learner", log: path }]);
  expect(taken.map(({ body }) => body.length).reduce((a, b) => a + b)).toBe(300_003);
  expect(taken.at(-1)!.body).toBe("end");
});
