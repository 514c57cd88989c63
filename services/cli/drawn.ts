// A single environment whose pictures this process keeps: a batch of one on an own gpu-sim, over the
// inline transport, so that nothing but gRPC is needed. For pictures of tasks, not for training.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { createHome, sdpgHome } from "@sdpg/common/home.ts";
import { type Client, client } from "@sdpg/common/rpc.ts";
import {
  type CreateBatchResponse,
  type RolloutRequest,
  type RolloutResponse,
  SimulationService,
  Transport,
} from "@proto/sdpg/sim/v1/sim_pb.ts";
import type { ViewSchema } from "@proto/sdpg/view/v1/view_pb.ts";
import type { Task } from "@sdpg/tasks/mod.ts";
import { join } from "node:path";
import { gpuSimBinary } from "./mesh.ts";
import { CliError, type ServiceProcess, startService, stopService } from "./process.ts";

export interface DrawnOptions {
  task: Task;
  /** One frame each. */
  views: readonly (MessageInitShape<typeof ViewSchema> & { name: string })[];
  /** Of the starts of episodes. */
  seed: bigint;
  /** Control steps; one picture of each view more than that. */
  steps: number;
  /** Raw means [A] of the policy before step `t`. */
  act(t: number): Float32Array;
}

/** Steps of a segment: the pictures of that many are in memory at once, here and in gpu-sim. */
const horizon = 4;
const creditChunks = 16;

type Payload = { case: string; value: Record<string, unknown> };

/**
 * Plays steps from the start of an episode and yields what the views show before each and after the
 * last: the bytes of one frame of every view, valid until the next is asked for. An episode that ends is
 * followed by the next one.
 */
export async function* drawnSteps(options: DrawnOptions): AsyncGenerator<Uint8Array[]> {
  const home = sdpgHome();
  createHome(home);
  const logs = join(home, "logs");
  Deno.mkdirSync(logs, { recursive: true, mode: 0o700 });
  let server: ServiceProcess | undefined;
  let simulation: Client<typeof SimulationService> | undefined;
  try {
    server = await startService({
      service: "gpu-sim",
      command: gpuSimBinary,
      args: ["--serve", "sim", "--listen", "127.0.0.1:0", "--threads", "1", "--exit-with-parent"],
      log: join(logs, `gpu-sim-${Deno.pid}.log`),
      stdin: "pipe",
    });
    simulation = client(SimulationService, server.address);
    const layout = await simulation.createBatch({
      model: options.task.model,
      task: options.task.program,
      nominals: 1,
      auxiliariesPerNominal: 0,
      horizon,
      seed: options.seed,
      transport: Transport.INLINE,
      label: "render",
      views: options.views.map((view) => ({ ...view, frames: 1 })),
    }, { deadlineMs: 60_000 });
    yield* play(simulation, layout, options);
  } finally {
    simulation?.$close();
    if (server) await stopService(server, 5000);
  }
}

async function* play(
  simulation: Client<typeof SimulationService>,
  layout: CreateBatchResponse,
  { views, steps, act }: DrawnOptions,
): AsyncGenerator<Uint8Array[]> {
  const { batchId } = layout;
  const buffer = new Uint8Array(Number(layout.bufferBytes));
  const arrays = views.map(({ name }) => {
    const found = layout.tensors.find((tensor) => tensor.name === `image/${name}`);
    if (!found) throw new CliError(`gpu-sim made no array image/${name}; rebuild it: ./sdpg up`);
    const shape = found.tensor!.shape.map(Number);
    const values = shape.slice(1).reduce((a, b) => a * b, 1);
    // RGB is bytes [T, 1, 3, height, width]; depth and ids are four bytes each [T, 1, 1, …].
    return { offset: Number(found.offsetBytes), bytes: values * (shape[2] === 3 ? 1 : 4) };
  });
  const frames = (slot: number) =>
    arrays.map(({ offset, bytes }) =>
      buffer.subarray(offset + slot * bytes, offset + (slot + 1) * bytes)
    );

  const stream = simulation.rollout();
  let sent = 0n;
  const send = (message: Payload) =>
    stream.send({
      batchId,
      sequence: sent++,
      message: message as RolloutRequest["message"],
    });
  /** Takes chunks, and gives their credits back, until the message that they came before. */
  const receive = async (expected: RolloutResponse["message"]["case"]) => {
    for (;;) {
      const { done, value } = await stream.responses.next();
      if (done) throw new CliError("gpu-sim ended the stream of pictures");
      const { message } = value;
      if (message.case === expected) return;
      if (message.case !== "chunk") {
        throw new CliError(`gpu-sim answered ${message.case}, expected ${expected}`);
      }
      buffer.set(message.value.data, Number(message.value.offsetBytes));
      await send({ case: "credit", value: { chunks: 1 } });
    }
  };
  await send({ case: "credit", value: { chunks: creditChunks } });
  let step = 0;
  const advance = async (t: number) => {
    const mean = new Uint8Array(act(step++).buffer);
    await send({ case: "step", value: { t, mean, logStd: new Uint8Array() } });
    await receive("stepped");
  };
  for (let segment = 0; step <= steps; segment++) {
    await send({ case: "begin", value: { epoch: BigInt(segment), reset: false } });
    await receive("begun");
    yield frames(0);
    for (let t = 0; t + 1 < horizon && step < steps; t++) {
      await advance(t);
      yield frames(t + 1);
    }
    if (step === steps) break;
    // What this step leads to is slot 0 of the next segment.
    await advance(horizon - 1);
    await send({ case: "end", value: {} });
    await receive("ended");
  }
  stream.cancel();
}
