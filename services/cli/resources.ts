// Memory and processor time of every service process, into the store and the dashboard: when a run begins
// and ends, and every twenty seconds. A sample of five services takes the kernel about 50 ms (it walks through
// all their pages), so one a second would take five percent of a core from the training.

import { encodeMetric } from "@sdpg/common/otlp.ts";
import type { Recorder } from "@sdpg/common/record.ts";
import { unixMs } from "@sdpg/common/trace.ts";
import { delay } from "./process.ts";
import { type ProcessSample, sampleProcesses } from "./procfs.ts";

export interface Watched {
  service: string;
  pid: number;
}

const everyMs = 20_000;

/** Samples until `stop` is called, and once more then. The first pauses are shorter: memory grows at first. */
export function watchResources(options: {
  runId: string;
  recorder: Recorder;
  processes: () => readonly Watched[];
  seen: (samples: Map<string, ProcessSample>) => void;
}): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const loop = (async () => {
    for (let samples = 0, last = false; !last; samples++) {
      last = stopping.signal.aborted;
      const processes = options.processes();
      const byPid = new Map((await sampleProcesses(processes.map(({ pid }) => pid)))
        .map((sample) => [sample.pid, sample]));
      const named = new Map<string, ProcessSample>();
      for (const { service, pid } of processes) {
        const sample = byPid.get(pid);
        if (!sample) continue;
        named.set(service, sample);
        options.recorder.resources({ runId: options.runId, service, ...sample });
        recordProcess(options.recorder, service, sample);
      }
      options.seen(named);
      if (!last) await delay(Math.min(5000 * 2 ** samples, everyMs), stopping.signal);
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
