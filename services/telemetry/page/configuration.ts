// Configurations of runs as flat lists of keys, and what differs between two.

export interface Difference {
  key: string;
  a: string | undefined;
  b: string | undefined;
}

/** `{"actor":{"lr":1}}` as `actor.lr` → `1`. A text that is no JSON object has no keys. */
export function flat(json: string): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (value: unknown, path: string) => {
    if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      for (const [key, inner] of Object.entries(value)) visit(inner, path ? `${path}.${key}` : key);
    } else if (path) found.set(path, typeof value === "string" ? value : JSON.stringify(value));
  };
  try {
    visit(JSON.parse(json), "");
  } catch {
    // Not recorded: a run that was cut off in its first second.
  }
  return found;
}

/** Keys whose values differ, or that only one has, sorted. */
export function differences(
  a: ReadonlyMap<string, string>,
  b: ReadonlyMap<string, string>,
): Difference[] {
  return [...new Set([...a.keys(), ...b.keys()])].sort()
    .map((key) => ({ key, a: a.get(key), b: b.get(key) }))
    .filter((row) => row.a !== row.b);
}
