// gpu-sim as a process: its ready line, its exit codes, and that nothing of it is left behind.

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { SimulationService, Transport } from "@proto/sdpg/sim/v1/sim_pb.ts";
import { client } from "@sdpg/common/rpc.ts";
import { loadTask } from "@sdpg/tasks/mod.ts";

const binary = new URL("../../../build/gpu-sim/gpu-sim", import.meta.url).pathname;

async function start(...flags: string[]): Promise<{ child: ChildProcess; address: string }> {
  const child = spawn(binary, ["--serve", "sim", "--listen", "127.0.0.1:0", ...flags], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  const [line] = await once(createInterface({ input: child.stdout! }), "line");
  const ready = JSON.parse(line);
  expect(ready).toEqual({
    event: "listening",
    service: "gpu-sim",
    address: expect.stringMatching(/^127\.0\.0\.1:[1-9]\d*$/),
  });
  return { child, address: ready.address };
}

// Signals are sent by id: after child.kill() Deno reports the signal, whatever the process made of it.
async function ended(child: ChildProcess): Promise<number | string> {
  const [code, signal] = child.exitCode === null && child.signalCode === null
    ? await once(child, "exit")
    : [child.exitCode, child.signalCode];
  return code ?? signal;
}

const objectsOf = (pid: number) =>
  readdirSync("/dev/shm").filter((name) => name.match(`^sdpg-\\d+-${pid}-`));

async function createBatch(address: string) {
  const { model, program } = await loadTask("hopper");
  const simulation = client(SimulationService, address);
  const batch = await simulation.createBatch({
    model,
    task: program,
    nominals: 2,
    auxiliariesPerNominal: 1,
    horizon: 2,
    transport: Transport.SHARED_MEMORY,
    label: "process-test",
  });
  simulation.$close();
  return batch;
}

test("wrong flags end it with 2 and one line", () => {
  const run = spawnSync(binary, ["--serve", "sim", "--listen", "127.0.0.1:0", "--thread", "2"], {
    encoding: "utf8",
  });
  expect(run.status).toBe(2);
  expect(run.stdout).toBe("");
  expect(run.stderr).toBe("gpu-sim: unknown flag '--thread'; see gpu-sim --help\n");
});

test("a port in use ends it with 1 and one line that names the address", async () => {
  const holder = createServer().listen(0, "127.0.0.1");
  await once(holder, "listening");
  const address = `127.0.0.1:${(holder.address() as { port: number }).port}`;
  const run = spawnSync(binary, ["--serve", "sim", "--listen", address], { encoding: "utf8" });
  holder.close();
  expect(run.status).toBe(1);
  expect(run.stderr).toBe(
    `gpu-sim: cannot listen on ${address}: the address is in use or not of this machine; ` +
      "choose another port, or 0 for a free one\n",
  );
});

test("SIGTERM and SIGINT stop it cleanly, shared memory included", async () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const { child, address } = await start();
    await createBatch(address);
    expect(objectsOf(child.pid!)).toHaveLength(1);
    expect(objectsOf(child.pid!)[0]).toMatch(/-process-test-[0-9a-f]{16}$/);
    process.kill(child.pid!, signal);
    expect(await ended(child)).toBe(0);
    expect(objectsOf(child.pid!)).toEqual([]);
  }
}, 30_000);

test.skipIf(existsSync("/dev/nvidiactl"))(
  "--device cuda without a GPU ends it with 2 and one line",
  () => {
    const run = spawnSync(
      binary,
      ["--serve", "sim", "--listen", "127.0.0.1:0", "--device", "cuda"],
      { encoding: "utf8" },
    );
    expect(run.status).toBe(2);
    expect(run.stdout).toBe("");
    expect(run.stderr).toMatch(/^gpu-sim: --device cuda: .*CUDA.*; use --device cpu\n$/);
  },
);

test("with --exit-with-parent the end of standard input stops it", async () => {
  const { child } = await start("--exit-with-parent");
  child.stdin!.end();
  expect(await ended(child)).toBe(0);
}, 30_000);

test("what kill -9 leaves behind is swept when the next server starts", async () => {
  const first = await start();
  await createBatch(first.address);
  first.child.kill("SIGKILL");
  expect(await ended(first.child)).toBe("SIGKILL");
  expect(objectsOf(first.child.pid!)).toHaveLength(1);
  const second = await start();
  expect(objectsOf(first.child.pid!)).toEqual([]);
  process.kill(second.child.pid!, "SIGTERM");
  expect(await ended(second.child)).toBe(0);
}, 30_000);
