// Where an epoch's time goes: seconds by phase name, "a/b" being a part of "a". A phase that comes
// again and again (a step's parts) is added up; when it first began and how often it came are kept too.

import { unixMs } from "@sdpg/common/trace.ts";
import type { Timing } from "@proto/sdpg/sim/v1/sim_pb.ts";

export interface Phase {
  /** "a/b" is a part of "a". */
  readonly name: string;
  /** Who measured it: "learner", "gpu-sim", "render". */
  readonly service: string;
  seconds: number;
  /** When it first began, milliseconds since 1970. */
  startMs: number;
  /** How often it came. */
  count: number;
}

/** Seconds of each phase, those of all services that have a part in it. */
export function secondsByName(phases: Iterable<Phase>): Record<string, number> {
  const all: Record<string, number> = {};
  for (const { name, seconds } of phases) all[name] = (all[name] ?? 0) + seconds;
  return all;
}

export class Phases {
  readonly #phases = new Map<string, Phase>();

  /** @param service whose clock measures what is added without naming another */
  constructor(private readonly service = "learner") {}

  /** Adds what has just ended, unless `startMs` says when it began. */
  add(
    name: string,
    seconds: number,
    { startMs = unixMs() - seconds * 1e3, count = 1, service = this.service } = {},
  ) {
    const key = `${service} ${name}`;
    const known = this.#phases.get(key);
    if (known === undefined) {
      this.#phases.set(key, { name, service, seconds, startMs, count });
      return;
    }
    known.seconds += seconds;
    known.count += count;
    known.startMs = Math.min(known.startMs, startMs);
  }

  /** Adds everything measured elsewhere, as parts of `parent` if one is given. */
  addAll(phases: Iterable<Phase>, parent?: string) {
    for (const { name, seconds, ...rest } of phases) {
      this.add(parent === undefined ? name : `${parent}/${name}`, seconds, rest);
    }
  }

  /** Adds what a server measured and sent back. */
  addTimings(timings: readonly Timing[], service = this.service) {
    for (const { phase, startUnixNano, endUnixNano } of timings) {
      const startMs = Number(startUnixNano) / 1e6;
      this.add(phase, Number(endUnixNano - startUnixNano) / 1e9, { startMs, service });
    }
  }

  time<T>(phase: string, work: () => T): T {
    const start = performance.now();
    try {
      return work();
    } finally {
      this.add(phase, (performance.now() - start) / 1e3);
    }
  }

  async timeAsync<T>(phase: string, work: () => Promise<T> | T): Promise<T> {
    const start = performance.now();
    try {
      return await work();
    } finally {
      this.add(phase, (performance.now() - start) / 1e3);
    }
  }

  clear() {
    this.#phases.clear();
  }

  get(name: string): Phase | undefined {
    return this.#phases.get(`${this.service} ${name}`);
  }

  [Symbol.iterator]() {
    return this.#phases.values();
  }
}
