// Once a second: memory and processor time of every service process, into the store and the dashboard.

import { encodeMetric } from "@sdpg/common/otlp.ts";
import type { Recorder } from "@sdpg/common/record.ts";
import { unixMs } from "@sdpg/common/trace.ts";
import { delay } from "./process.ts";
import { type ProcessSample, sampleProcesses } from "./procfs.ts";

export interface Watched {
  service: string;
  pid: number;
}

/** Of the samples, every so many-th also becomes metrics. */
const samplesPerMetric = 10;

/** Samples until `stop` is called. */
export function watchResources(options: {
  runId: string;
  recorder: Recorder;
  processes: () => readonly Watched[];
  seen: (samples: Map<string, ProcessSample>) => void;
}): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const loop = (async () => {
    for (let samples = 0; !stopping.signal.aborted; samples++) {
      const processes = options.processes();
      const byPid = new Map((await sampleProcesses(processes.map(({ pid }) => pid)))
        .map((sample) => [sample.pid, sample]));
      const named = new Map<string, ProcessSample>();
      for (const { service, pid } of processes) {
        const sample = byPid.get(pid);
        if (!sample) continue;
        named.set(service, sample);
        options.recorder.resources({ runId: options.runId, service, ...sample });
        if (samples % samplesPerMetric === 0) recordProcess(options.recorder, service, sample);
      }
      options.seen(named);
      await delay(1000, stopping.signal);
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await loop;
    },
  };
}

/** The sample as OpenTelemetry names its numbers. */
function recordProcess(recorder: Recorder, service: string, sample: ProcessSample) {
  const timeMs = unixMs();
  const startMs = performance.timeOrigin; // of this command, which has most often started the service
  const attributes = { "process.pid": BigInt(sample.pid) };
  const metrics = [
    ["process.cpu.time", "s", "sum", sample.cpuSeconds],
    ["process.memory.usage", "By", "gauge", sample.residentBytes],
    ["process.thread.count", "{thread}", "gauge", sample.threads],
  ] as const;
  for (const [name, unit, kind, value] of metrics) {
    const json = encodeMetric({ name, unit, kind, value, startMs, timeMs, attributes });
    recorder.metric(name, json, service);
  }
}
