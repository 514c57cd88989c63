// Once a second: memory and processor time of every service process, into the store and the dashboard.

import type { Recorder } from "@sdpg/common/record.ts";
import { delay } from "./process.ts";
import { type ProcessSample, sampleProcesses } from "./procfs.ts";

export interface Watched {
  service: string;
  pid: number;
}

/** Samples until `stop` is called. */
export function watchResources(options: {
  runId: string;
  recorder: Recorder;
  processes: () => readonly Watched[];
  seen: (samples: Map<string, ProcessSample>) => void;
}): { stop(): Promise<void> } {
  const stopping = new AbortController();
  const loop = (async () => {
    while (!stopping.signal.aborted) {
      const processes = options.processes();
      const byPid = new Map((await sampleProcesses(processes.map(({ pid }) => pid)))
        .map((sample) => [sample.pid, sample]));
      const named = new Map<string, ProcessSample>();
      for (const { service, pid } of processes) {
        const sample = byPid.get(pid);
        if (!sample) continue;
        named.set(service, sample);
        options.recorder.resources({ runId: options.runId, service, ...sample });
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
