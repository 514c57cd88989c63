// A batch in this process: gpu-sim's core called through its C boundary (gpu-sim/include/gpu_sim.h).
// Calls block until the step is done. It is the yardstick of the gRPC path (bench_mesh.ts) and the
// quickest way to try an algorithm (local.ts).

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { CreateBatchRequestSchema, CreateBatchResponseSchema } from "@proto/sdpg/sim/v1/sim_pb.ts";
import {
  type BatchOptions,
  createBatchRequest,
  disposeTensors,
  type Simulation,
  SimulationError,
  Transport,
  viewBuffer,
} from "./simulation.ts";
import { Phases } from "./phases.ts";
import { fromPointer } from "./torch/mod.ts";

const symbols = {
  gpu_sim_batch_create: {
    parameters: ["buffer", "usize", "i32", "buffer", "buffer", "usize"],
    result: "i32",
  },
  gpu_sim_batch_destroy: { parameters: ["pointer"], result: "void" },
  gpu_sim_batch_layout: { parameters: ["pointer", "buffer"], result: "pointer" },
  gpu_sim_batch_buffer: { parameters: ["pointer", "buffer"], result: "pointer" },
  gpu_sim_batch_begin: { parameters: ["pointer", "u64", "i32", "buffer", "usize"], result: "i32" },
  gpu_sim_batch_step: {
    parameters: ["pointer", "u32", "buffer", "usize", "buffer", "usize", "buffer", "usize"],
    result: "i32",
  },
  gpu_sim_batch_end: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
  gpu_sim_batch_images: { parameters: ["pointer"], result: "u64" },
  gpu_sim_batch_snapshot_bytes: { parameters: ["pointer"], result: "usize" },
  gpu_sim_batch_snapshot: {
    parameters: ["pointer", "buffer", "usize", "buffer", "usize"],
    result: "i32",
  },
  gpu_sim_batch_restore: {
    parameters: ["pointer", "buffer", "usize", "buffer", "usize"],
    result: "i32",
  },
} as const;

type Core = Deno.DynamicLibrary<typeof symbols>["symbols"];
let core: Core | undefined;

function loadCore(): Core {
  if (core !== undefined) return core;
  const path = new URL("../../build/gpu-sim/libgpu_sim.so", import.meta.url).pathname;
  try {
    core = Deno.dlopen(path, symbols).symbols;
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    throw new SimulationError(`Cannot load ${path}: ${cause}; build it with ./sdpg doctor`);
  }
  return core;
}

/** Whether the core's library has been built, for tests that need it. */
export function coreIsBuilt(): boolean {
  try {
    Deno.statSync(new URL("../../build/gpu-sim/libgpu_sim.so", import.meta.url));
    return true;
  } catch {
    return false;
  }
}

/**
 * Creates a batch in this process.
 *
 * @param threads workers of the batch, the calling thread included; at least 1
 */
export function simulateInProcess(options: BatchOptions, threads: number): Simulation {
  const library = loadCore();
  const message = new Uint8Array(1024);
  const check = (status: number) => {
    if (status === 0) return;
    const end = message.indexOf(0);
    throw new SimulationError(new TextDecoder().decode(message.subarray(0, end)));
  };

  const request = toBinary(
    CreateBatchRequestSchema,
    // Shared memory would only add a name to plain memory of this process.
    createBatchRequest(options, Transport.INLINE),
  );
  const out = new BigUint64Array(1);
  check(
    library.gpu_sim_batch_create(
      request,
      BigInt(request.byteLength),
      threads,
      out,
      message,
      BigInt(message.byteLength),
    ),
  );
  let batch = Deno.UnsafePointer.create(out[0]);

  const size = new BigUint64Array(1);
  const layoutAt = library.gpu_sim_batch_layout(batch, size)!;
  const layout = fromBinary(
    CreateBatchResponseSchema,
    new Uint8Array(new Deno.UnsafePointerView(layoutAt).getArrayBuffer(Number(size[0]))).slice(),
  );
  const base = Deno.UnsafePointer.value(library.gpu_sim_batch_buffer(batch, size));
  const { tensors, sizes } = viewBuffer(
    options,
    layout,
    (dtype, shape, offsetBytes) => fromPointer(base + BigInt(offsetBytes), dtype, shape),
  );

  const messageBytes = BigInt(message.byteLength);
  let counted = 0;
  const simulation: Simulation = {
    sizes,
    views: options.views ?? [],
    tensors,
    imagesDrawn: 0,
    bytes: { buffer: Number(layout.bufferBytes), state: Number(layout.stateBytes) },
    timings: new Phases(),
    begin(epoch, reset) {
      check(
        library.gpu_sim_batch_begin(batch, BigInt(epoch), reset ? 1 : 0, message, messageBytes),
      );
    },
    step(t, mean, logStd) {
      check(library.gpu_sim_batch_step(
        batch,
        t,
        mean as Float32Array<ArrayBuffer>,
        BigInt(mean.length),
        logStd as Float32Array<ArrayBuffer> | null,
        BigInt(logStd?.length ?? 0),
        message,
        messageBytes,
      ));
    },
    end() {
      check(library.gpu_sim_batch_end(batch, message, messageBytes));
      const drawn = Number(library.gpu_sim_batch_images(batch));
      simulation.imagesDrawn += drawn - counted;
      counted = drawn;
    },
    snapshot() {
      const state = new Uint8Array(Number(library.gpu_sim_batch_snapshot_bytes(batch)));
      check(
        library.gpu_sim_batch_snapshot(batch, state, BigInt(state.length), message, messageBytes),
      );
      return Promise.resolve(state);
    },
    restore(state) {
      check(library.gpu_sim_batch_restore(
        batch,
        state as Uint8Array<ArrayBuffer>,
        BigInt(state.length),
        message,
        messageBytes,
      ));
      return Promise.resolve();
    },
    close() {
      disposeTensors(tensors);
      library.gpu_sim_batch_destroy(batch);
      batch = null;
      return Promise.resolve();
    },
  };
  return simulation;
}
