// What a service counts about itself, as OpenTelemetry metrics: histograms of its calls and their sizes
// (rpc.ts adds to them), and values asked for when they are sent, every ten seconds. All of it is health;
// what is measured of a run is in the record (record.ts). Names: docs/registry.md.

import { type Attributes, encodeMetric } from "./otlp.ts";
import type { Recorder } from "./record.ts";
import { unixMs } from "./trace.ts";

interface Distribution {
  attributes: Attributes;
  counts: number[];
  count: number;
  sum: number;
  min: number;
  max: number;
}

/** Counts of values below bounds, since the start of the process. */
export class Histogram {
  readonly #distributions = new Map<string, Distribution>();

  /** @param bounds upper ends of the buckets, included, but the last, which has none */
  constructor(
    readonly name: string,
    readonly unit: string,
    readonly bounds: readonly number[],
  ) {}

  record(value: number, attributes: Record<string, string>) {
    const key = Object.values(attributes).join("\n");
    let found = this.#distributions.get(key);
    if (found === undefined) {
      const counts = new Array<number>(this.bounds.length + 1).fill(0);
      found = { attributes, counts, count: 0, sum: 0, min: Infinity, max: -Infinity };
      this.#distributions.set(key, found);
    }
    let bucket = 0;
    while (bucket < this.bounds.length && value > this.bounds[bucket]) bucket++;
    found.counts[bucket]++;
    found.count++;
    found.sum += value;
    found.min = Math.min(found.min, value);
    found.max = Math.max(found.max, value);
  }

  get distributions(): readonly Distribution[] {
    return [...this.#distributions.values()];
  }
}

/** One value now. A sum only grows, from the start of what is measured. */
export interface Measured {
  name: string;
  unit: string;
  kind: "gauge" | "sum";
  value: number;
  attributes?: Attributes;
}

const seconds = [.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10];
const bytes = [0, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216];

/** Calls of this process; a stream lasts from its opening to its end, sizes are of single messages. */
export const calls = {
  client: {
    duration: new Histogram("rpc.client.call.duration", "s", seconds),
    request: new Histogram("rpc.client.request.size", "By", bytes),
    response: new Histogram("rpc.client.response.size", "By", bytes),
  },
  server: {
    duration: new Histogram("rpc.server.call.duration", "s", seconds),
    request: new Histogram("rpc.server.request.size", "By", bytes),
    response: new Histogram("rpc.server.response.size", "By", bytes),
  },
};

const everyMs = 10_000;

/** Sends the metrics of this process every ten seconds, and once more when it ends. */
export function exportMetrics(recorder: Recorder, measure: () => Measured[] = () => []) {
  const startMs = unixMs();
  const send = () => {
    const timeMs = unixMs();
    for (const histogram of [...Object.values(calls.client), ...Object.values(calls.server)]) {
      const { name, unit, bounds, distributions } = histogram;
      if (distributions.length === 0) continue;
      recorder.metric(
        name,
        encodeMetric({ name, unit, kind: "histogram", bounds, distributions, startMs, timeMs }),
      );
    }
    for (const measured of [...queue(recorder), ...measure()]) {
      recorder.metric(measured.name, encodeMetric({ ...measured, startMs, timeMs }));
    }
  };
  const timer = setInterval(send, everyMs);
  Deno.unrefTimer(timer as unknown as number);
  return {
    stop() {
      clearInterval(timer);
      send();
    },
  };
}

/** The recorder's own: what waits for the telemetry service, and what it never took. */
function queue(recorder: Recorder): Measured[] {
  const { queued, queuedBytes, dropped } = recorder;
  return [
    { name: "rl.telemetry.queue.rows", unit: "{row}", kind: "gauge", value: queued },
    { name: "rl.telemetry.queue.size", unit: "By", kind: "gauge", value: queuedBytes },
    { name: "rl.telemetry.dropped", unit: "{row}", kind: "sum", value: dropped },
  ];
}
