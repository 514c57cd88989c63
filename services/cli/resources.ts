// Once a second: memory and processor time of every service process, into the store and the dashboard.

import { Recorder } from "@sdpg/common/record.ts";
import { delay } from "./process.ts";
import { type ProcessSample, sampleProcesses } from "./procfs.ts";

export interface Watched {
  service: string;
  pid: number;
}

/** Samples until `stop` is called; `stop` sends what is still queued. */
export function watchResources(options: {
  runId: string;
  telemetryUrl: string;
  processes: () => readonly Watched[];
  seen: (samples: Map<string, ProcessSample>) => void;
}): { stop(): Promise<void> } {
  const recorder = new Recorder({ url: options.telemetryUrl, service: "cli" });
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
        recorder.resources({ runId: options.runId, service, ...sample });
      }
      options.seen(named);
      await delay(1000, stopping.signal);
    }
  })();
  return {
    async stop() {
      stopping.abort();
      await loop;
      await recorder.flush(2000);
      await recorder.close();
    },
  };
}
