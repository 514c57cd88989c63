// Starts the real telemetry service as a process for tests: they kill it, restart it, ask it. Its store is
// the one under test (store_for_tests.ts).

import { fileURLToPath } from "node:url";
import { serverFor } from "./store_for_tests.ts";

const main = fileURLToPath(new URL("./main.ts", import.meta.url));

export interface TestService {
  address: string;
  url: string;
  pid: number;
  /** Answer of a question; throws with the engine's text when it is refused. */
  ask(sql: string): Promise<string>;
  kill(signal?: Deno.Signal): Promise<void>;
}

/** Starts the service on a home; `listen` takes the same address again after a kill. */
export async function startTestService(
  home: string,
  listen = "127.0.0.1:0",
  environment: Record<string, string> = {},
): Promise<TestService> {
  const server = serverFor(home);
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", main, "--listen", listen, "--home", home, "--exit-with-parent"],
    stdin: "piped", // its end is the end of the service, should the test process die
    stdout: "piped",
    stderr: "piped",
    env: {
      SDPG_LOG: "warn",
      ...(server === undefined ? {} : { SDPG_CLICKHOUSE_URL: server }),
      ...environment,
    },
  }).spawn();
  const errors = new Response(child.stderr).text();
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { value } = await lines.read();
  if (!value) throw new Error(`The telemetry service did not start: ${await errors}`);
  const { address } = JSON.parse(value);
  return {
    address,
    url: `http://${address}`,
    pid: child.pid,
    async ask(sql) {
      const response = await fetch(`http://${address}/`, { method: "POST", body: sql });
      const text = await response.text();
      if (!response.ok) throw new Error(text.trim());
      return text.trim();
    },
    async kill(signal = "SIGTERM") {
      try {
        child.kill(signal);
      } catch {
        // It is gone already: what the caller wants.
      }
      await child.status;
      await lines.cancel();
      await errors;
      await child.stdin.close().catch(() => {});
    },
  };
}

/** A port that was free a moment ago, below the range of ephemeral ones so that no client takes it. */
export function freePort(): number {
  for (let port = 21000 + Math.floor(Math.random() * 9000);; port++) {
    try {
      Deno.listen({ hostname: "127.0.0.1", port }).close();
      return port;
    } catch {
      // taken: the next one
    }
  }
}
