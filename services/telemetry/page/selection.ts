// Which runs are chosen for a comparison: kept while the window is open, so that one may search, choose,
// search for others and choose those too.

const key = "sdpg chosen runs";
const chosen = new Set<string>(JSON.parse(sessionStorage.getItem(key) ?? "[]"));

export const selection = {
  has: (run: string): boolean => chosen.has(run),
  get size(): number {
    return chosen.size;
  },
  names: (): string[] => [...chosen],
  set(runs: readonly string[], on: boolean): void {
    for (const run of runs) on ? chosen.add(run) : chosen.delete(run);
    sessionStorage.setItem(key, JSON.stringify([...chosen]));
  },
};
