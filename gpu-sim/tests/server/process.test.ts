// gpu-sim as a process: its ready line, its exit codes, that nothing of it is left behind, and that one
// process draws what another simulates.

import { Buffer } from "node:buffer";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, openSync, readdirSync, readSync } from "node:fs";
import { createServer } from "node:net";
import process from "node:process";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { RenderService } from "@proto/sdpg/render/v1/render_pb.ts";
import { type BufferTensor, SimulationService, Transport } from "@proto/sdpg/sim/v1/sim_pb.ts";
import { ImageKind } from "@proto/sdpg/view/v1/view_pb.ts";
import { client } from "@sdpg/common/rpc.ts";
import { iterationTrace, traceHeaders } from "@sdpg/common/trace.ts";
import { loadTask } from "@sdpg/tasks/mod.ts";

const binary = new URL("../../../build/gpu-sim/gpu-sim", import.meta.url).pathname;

const start = (...flags: string[]) => serve("sim", ...flags);

async function serve(
  service: string,
  ...flags: string[]
): Promise<{ child: ChildProcess; address: string }> {
  const child = spawn(binary, ["--serve", service, "--listen", "127.0.0.1:0", ...flags], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stderr!.resume();
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

async function createBatch(address: string, metadata?: Record<string, string>) {
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
  }, { metadata });
  simulation.$close();
  return batch;
}

test("what it logs for a call names the caller's trace and run, and nothing malformed", async () => {
  const { child, address } = await start();
  const lines = createInterface({ input: child.stderr! })[Symbol.asyncIterator]();
  const created = async (metadata?: Record<string, string>) => {
    await createBatch(address, metadata);
    for (;;) {
      const line = JSON.parse((await lines.next()).value!);
      if (line.message === "batch created") return line;
    }
  };
  const trace = iterationTrace("hopper-1", 3);
  expect(await created(traceHeaders(trace))).toMatchObject({
    ...{ task: "hopper", run: "hopper-1", trace_id: trace.traceId, span_id: trace.spanId },
  });
  const malformed = [
    undefined,
    { traceparent: `00-${trace.traceId}-${trace.spanId}-01x`, baggage: 'rl.run.id="}' },
    { traceparent: `00-${"0".repeat(32)}-${trace.spanId}-01`, baggage: "user=me" },
    { traceparent: `00-${trace.traceId.toUpperCase()}-${trace.spanId}-01`, baggage: "rl.run.id=" },
  ];
  for (const headers of malformed) {
    expect(Object.keys(await created(headers))).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(trace_id|span_id|run)$/)]),
    );
  }
  child.kill();
  await ended(child);
});

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
});

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
});

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
});

/** An array in shared memory, opened while the object has its name. */
class Opened {
  readonly #file: number;
  readonly #slotBytes: number;
  readonly #offset: number;
  constructor(tensors: BufferTensor[], name: string) {
    const tensor = tensors.find((each) => each.name === name)!.tensor!;
    if (tensor.storage.case !== "sharedMemory") throw new Error(`${name} is not in shared memory`);
    this.#file = openSync(`/dev/shm${tensor.storage.value.name}`, "r");
    this.#offset = Number(tensor.storage.value.offsetBytes);
    this.#slotBytes = tensor.shape.slice(1).reduce((bytes, n) => bytes * Number(n), 1);
  }
  slot(index: number): Buffer {
    const bytes = Buffer.alloc(this.#slotBytes);
    readSync(this.#file, bytes, 0, bytes.length, this.#offset + index * bytes.length);
    return bytes;
  }
  close() {
    closeSync(this.#file);
  }
}

test("a render process draws what the simulator's process draws, from its poses", async () => {
  const { model, program } = await loadTask("hopper");
  const views = [{
    name: "side",
    camera: "side",
    width: 84,
    height: 84,
    kind: ImageKind.RGB,
    frames: 3,
    shadows: true,
  }];
  const [nominals, horizon] = [3, 4];
  const simulator = await serve("sim", "--threads", "1");
  const renderer = await serve("render", "--threads", "1");
  const simulation = client(SimulationService, simulator.address);
  const render = client(RenderService, renderer.address);
  const batch = await simulation.createBatch({
    model,
    task: program,
    nominals,
    horizon,
    views,
    poses: true,
    transport: Transport.SHARED_MEMORY,
  });
  const arrays = Object.fromEntries(
    batch.tensors.map((tensor) => [tensor.name, tensor]),
  );
  const scene = await render.createScene({
    model,
    views,
    environments: nominals,
    slots: horizon,
    transport: Transport.SHARED_MEMORY,
    pose: arrays.pose,
    fresh: arrays.fresh,
  });
  const drawn = new Opened(batch.tensors, "image/side");
  const apart = new Opened(scene.tensors, "image/side");
  const rollout = simulation.rollout();
  const drawing = render.render();
  let [asked, sent] = [0n, 0n];
  const compare = async (slot: number, previousSlot: number) => {
    drawing.send({
      sceneId: scene.sceneId,
      sequence: sent++,
      message: { case: "draw", value: { slot, previousSlot, poseSlot: slot } },
    });
    const { value } = await drawing.responses.next();
    expect(value.message).toMatchObject({ case: "rendered", value: { slot, images: nominals } });
    const expected = drawn.slot(slot);
    expect(new Set(expected).size).toBeGreaterThan(3); // a picture, not one colour
    expect(apart.slot(slot).equals(expected)).toBe(true);
  };
  // deno-lint-ignore no-explicit-any
  const ask = async (message: any) => {
    rollout.send({ batchId: batch.batchId, sequence: asked++, message });
    return (await rollout.responses.next()).value.message.case;
  };
  for (const epoch of [0n, 1n]) {
    expect(await ask({ case: "begin", value: { epoch } })).toBe("begun");
    await compare(0, horizon - 1);
    for (let t = 0; t < horizon; t++) {
      const mean = new Uint8Array(new Float32Array(nominals * 3).fill(0.5).buffer);
      expect(await ask({ case: "step", value: { t, mean } })).toBe("stepped");
      if (t + 1 < horizon) await compare(t + 1, t);
    }
    expect(await ask({ case: "end", value: {} })).toBe("ended");
  }
  expect(objectsOf(simulator.child.pid!)).toEqual([]);
  expect(objectsOf(renderer.child.pid!)).toEqual([]);
  drawn.close();
  apart.close();
  rollout.close();
  drawing.close();
  simulation.$close();
  render.$close();
  for (const { child } of [simulator, renderer]) {
    process.kill(child.pid!, "SIGTERM");
    expect(await ended(child)).toBe(0);
  }
});
