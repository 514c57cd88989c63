// Where an epoch's time goes: seconds by phase name, "a/b" being a part of "a".

export class Phases {
  readonly #seconds = new Map<string, number>();

  add(phase: string, seconds: number) {
    this.#seconds.set(phase, (this.#seconds.get(phase) ?? 0) + seconds);
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

  seconds(): Record<string, number> {
    return Object.fromEntries(this.#seconds);
  }
}
