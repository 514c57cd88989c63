// Runs and a mesh at work, told to a telemetry service as services tell them: the runs of its own tests, one
// that trains now with its traces and log, and ten minutes of metrics of two services and a GPU.

import {
  encodeLogLine,
  encodeMetric,
  encodeSpan,
  joinEncoded,
  type Signal,
} from "@sdpg/common/otlp.ts";
import { iterationTrace } from "@sdpg/common/trace.ts";
import { type SeededRun, seededRuns, seedRuns } from "../services/telemetry/seeded_for_tests.ts";

/** The run that has traces, a log and reward terms: `pace` seconds an epoch, 40 epochs. */
export const fresh = (nowS: number): SeededRun => ({
  runId: "ant-now",
  task: "ant",
  seed: 7,
  epochs: 40,
  pace: 10,
  configuration: { nominals: 64 },
  beginS: nowS - 600,
  more: (epoch) => ({
    "reward_term/forward": epoch,
    "reward_term/control": -0.5 * epoch,
    critic_loss: 1 / epoch,
  }),
});

/** Its twin with another seed, which still trains and has had faults. */
export const live = (nowS: number): SeededRun => ({
  ...fresh(nowS),
  runId: "ant-live",
  seed: 1,
  ends: "running",
});

export const callsPerSample = 20;
export const failuresPerSample = 2;
/** Called by the learner, served by gpu-sim. */
export const method = "sdpg.simulation.v1.SimulationService/Step";
/** Of every ten calls that end with OK, nine take up to 5 ms and one between 75 and 100 ms. */
export const bounds = [.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10];

export async function seedMesh(url: string, nowS: number): Promise<void> {
  await seedRuns(url, [...seededRuns, fresh(nowS), live(nowS)]);
  const startMs = (nowS - 600) * 1000;
  const metrics: Record<string, string[]> = { learner: [], "gpu-sim": [] };
  for (let sample = 0; sample <= 60; sample++) {
    const timeMs = startMs + sample * 10_000;
    const at = { startMs, timeMs };
    for (const [service, list] of Object.entries(metrics)) {
      const one = (
        name: string,
        unit: string,
        kind: "gauge" | "sum",
        value: number,
        attributes = {},
      ) => list.push(encodeMetric({ name, unit, kind, value, attributes, ...at }));
      const process = { "process.pid": service === "learner" ? 11n : 12n };
      one("process.cpu.time", "s", "sum", sample * 5, process); // half a core
      one("process.memory.usage", "By", "gauge", service === "learner" ? 3e8 : 2e7, process);
      one("process.thread.count", "{thread}", "gauge", service === "learner" ? 9 : 4, process);
      one("rl.telemetry.queue.rows", "{row}", "gauge", 100 + sample);
      one("rl.telemetry.queue.size", "By", "gauge", 1000 * (100 + sample));
      one("rl.telemetry.dropped", "{row}", "sum", service === "learner" ? 30 * sample : 0);
      if (service === "learner") {
        const gpu = {
          "hw.id": "GPU-0123456789abcdef",
          "hw.name": "Made up",
          "hw.type": "gpu",
          "hw.vendor": "NVIDIA",
        };
        one("hw.gpu.utilization", "1", "gauge", 0.75, gpu);
        one("hw.gpu.memory.usage", "By", "gauge", 4e9 + 1e8 * sample, gpu);
        one("hw.gpu.memory.limit", "By", "gauge", 16e9, gpu);
        one("hw.gpu.memory.utilization", "1", "gauge", (4e9 + 1e8 * sample) / 16e9, gpu);
      }
      const side = service === "learner" ? "client" : "server";
      const distribution = (attributes: Record<string, string>, counts: number[], each: number) => {
        const count = counts.reduce((a, b) => a + b);
        return {
          attributes: { "rpc.system.name": "grpc", "rpc.method": method, ...attributes },
          counts,
          count,
          sum: count * each,
          min: each,
          max: each,
        };
      };
      const calls = callsPerSample * sample;
      const ok = bounds.map((bound) => bound === .005 ? calls * .9 : bound === .1 ? calls * .1 : 0);
      const failed = bounds.map((bound) => bound === .01 ? failuresPerSample * sample : 0);
      list.push(encodeMetric({
        name: `rpc.${side}.call.duration`,
        unit: "s",
        kind: "histogram",
        bounds,
        distributions: [
          distribution({ "rpc.response.status_code": "OK" }, [...ok, 0], 0.01),
          distribution({ "rpc.response.status_code": "INTERNAL" }, [...failed, 0], 0.01),
        ],
        ...at,
      }));
      for (const [name, each] of [["request", 1000], ["response", 5000]] as const) {
        list.push(encodeMetric({
          name: `rpc.${side}.${name}.size`,
          unit: "By",
          kind: "histogram",
          bounds: [0, 1024, 4096, 16384],
          distributions: [
            distribution({}, [0, each < 1024 ? calls : 0, 0, each < 1024 ? 0 : calls, 0], each),
          ],
          ...at,
        }));
      }
    }
  }
  const spans: Record<string, string[]> = { learner: [], "gpu-sim": [] };
  for (const epoch of [38, 39, 40]) {
    const began = (nowS - 600 + (epoch - 1) * 10) * 1000;
    const { traceId } = iterationTrace("ant-now", epoch);
    const span = (
      service: string,
      id: string,
      parent: string | undefined,
      phase: string,
      after: number,
      seconds: number,
    ) =>
      spans[service].push(encodeSpan({
        traceId,
        spanId: id.padStart(16, "0"),
        parentSpanId: parent?.padStart(16, "0"),
        name: phase.split("/").at(-1)!,
        startMs: began + after * 1000,
        seconds,
        attributes: {
          "rl.run.id": "ant-now",
          "rl.iteration": BigInt(epoch),
          ...(parent ? { "rl.phase": phase, "rl.phase.count": 32n } : {}),
        },
      }));
    span("learner", "1", undefined, "rl.iteration", 0, epoch === 39 ? 20 : 10);
    span("learner", "2", "1", "rollout", 0, 5);
    span("gpu-sim", "3", "2", "rollout/simulation/physics", 1, 2.5);
  }
  const lines = ["started", "a slow epoch", "gone"].map((body, i) =>
    encodeLogLine({
      timeMs: startMs + i * 1000,
      severity: i === 1 ? "warn" : "info",
      body,
      attributes: { "rl.run.id": "ant-now", step: String(i) },
    })
  );
  await send(url, "metrics", metrics);
  await send(url, "traces", spans);
  await send(url, "logs", { learner: lines });
}

/** Encoded records of each service, as one request. */
export async function send(url: string, signal: Signal, records: Record<string, string[]>) {
  const groups = Object.entries(records).map(([service, list]) => ({
    resource: { "service.name": service, "service.instance.id": `seed-${service}` },
    records: list,
  }));
  const response = await fetch(`${url}/v1/${signal}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: joinEncoded(signal, groups),
  });
  const answer = await response.text();
  if (!response.ok || answer.includes("rejected")) {
    throw new Error(`Cannot seed ${signal}: ${answer}`);
  }
}
