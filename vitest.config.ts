// Vitest resolves imports itself, so it is given the folder aliases of deno.json: one list, two readers.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const { imports } = JSON.parse(readFileSync(new URL("./deno.json", import.meta.url), "utf8"));
const folders = Object.entries(imports as Record<string, string>)
  .filter(([name, target]) => name.endsWith("/") && target.startsWith("./"));

export default defineConfig({
  resolve: {
    alias: folders.map(([name, target]) => ({
      find: new RegExp(`^${name}`),
      replacement: fileURLToPath(new URL(target, import.meta.url)),
    })),
  },
  // By address: a bare container may have no /etc/hosts that knows "localhost".
  server: { host: "127.0.0.1" },
  test: {
    api: { host: "127.0.0.1" },
    // A busy machine is slow, not wrong; only what hangs is to be ended.
    testTimeout: 600_000,
    hookTimeout: 600_000,
    expect: { poll: { timeout: 120_000 } },
    exclude: ["node_modules/**", "build/**", ".sdpg/**", ".tools/**"],
  },
});
