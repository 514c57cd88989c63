// Connection churn against a server process: what killed other versions of the runtime
// (docs/decisions.md). SDPG_SOAK_CYCLES sets the number of connect, call, close cycles; an upgrade of
// Deno is decided by 10000 of them.

import { expect, test } from "vitest";
import { fileURLToPath } from "node:url";
import { client } from "@sdpg/common/rpc.ts";
import { Echo } from "@sdpg/common/rpc_test_service.ts";

const cycles = Number(Deno.env.get("SDPG_SOAK_CYCLES") ?? 1000);
const program = fileURLToPath(
  new URL("../../services/common/rpc_test_service.ts", import.meta.url),
);

test(`a server outlives ${cycles} connections and gives their descriptors back`, async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", program],
    stdout: "piped",
    stderr: "null",
  }).spawn();
  let exited = false;
  void child.status.then(() => void (exited = true));
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const { address } = JSON.parse((await lines.read()).value!);
  const descriptors = () => [...Deno.readDirSync(`/proc/${child.pid}/fd`)].length;
  const residentMb = () =>
    Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${child.pid}/status`))![1]) / 1024;
  const once = async (i: number) => {
    const connection = client(Echo, address);
    const value = new Uint8Array([i & 255, i >> 8 & 255]);
    expect((await connection.unary({ value })).value).toEqual(value);
    if (i % 10 === 0) { // some connections also carry a stream, one of ten is left in the middle
      for await (const { value } of connection.down({ value: Uint8Array.of(3, i % 100 ? 0 : 1) })) {
        if (value[0] === 2) break;
      }
    }
    connection.$close();
  };
  try {
    for (let i = 0; i < 20; i++) await once(i); // what is opened once and for all
    const before = { descriptors: descriptors(), residentMb: residentMb() };
    for (let i = 0; i < cycles; i += 4) {
      await Promise.all([0, 1, 2, 3].map((k) => once(i + k)));
      expect(exited, `server died within ${i} cycles`).toBe(false);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(descriptors()).toBeLessThanOrEqual(before.descriptors + 4);
    // The runtime is known to keep about 30 kB per connection; twice that is a new leak.
    expect(residentMb() - before.residentMb).toBeLessThan(64 + cycles * 0.06);
    await once(0);
  } finally {
    child.kill("SIGKILL");
    await child.status;
    await lines.cancel();
  }
}, 30_000 + cycles * 60);
