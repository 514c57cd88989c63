// Where configurations differ: nested settings as dotted paths with their text, side by side.

/** Leaves of a JSON value by their dotted path, in its order. A list is one leaf: `128,64,32`. */
export function leavesOf(value: unknown): Map<string, string> {
  const leaves = new Map<string, string>();
  const walk = (node: unknown, path: string) => {
    if (typeof node === "object" && node !== null && !Array.isArray(node)) {
      for (const [key, inner] of Object.entries(node)) walk(inner, path ? `${path}.${key}` : key);
    } else leaves.set(path, Array.isArray(node) ? node.join(",") : String(node));
  };
  walk(value, "");
  return leaves;
}

/** The paths whose leaf is not the same in all values, with each one's text; undefined where absent. */
export function differences(
  values: readonly unknown[],
): { path: string; values: (string | undefined)[] }[] {
  const leaves = values.map(leavesOf);
  const paths = new Set(leaves.flatMap((one) => [...one.keys()]));
  return [...paths]
    .map((path) => ({ path, values: leaves.map((one) => one.get(path)) }))
    .filter(({ values }) => values.some((text) => text !== values[0]));
}
