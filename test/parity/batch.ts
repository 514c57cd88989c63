// Batches of gpu-sim in-process through its C boundary: create, roll out, read the rollout buffer.
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  CreateBatchRequestSchema,
  type CreateBatchResponse,
  CreateBatchResponseSchema,
  Transport,
} from "@proto/sdpg/sim/v1/sim_pb.ts";
import { Dtype } from "@proto/sdpg/tensor/v1/tensor_pb.ts";
import { loadLibrary } from "./core.ts";

const symbols = {
  gpu_sim_batch_create: {
    parameters: ["buffer", "usize", "i32", "buffer", "buffer", "usize"],
    result: "i32",
  },
  gpu_sim_batch_destroy: { parameters: ["pointer"], result: "void" },
  gpu_sim_batch_layout: { parameters: ["pointer", "buffer"], result: "pointer" },
  gpu_sim_batch_buffer: { parameters: ["pointer", "buffer"], result: "pointer" },
  gpu_sim_batch_begin: {
    parameters: ["pointer", "u64", "i32", "buffer", "usize"],
    result: "i32",
  },
  gpu_sim_batch_step: {
    parameters: ["pointer", "u32", "buffer", "usize", "buffer", "usize", "buffer", "usize"],
    result: "i32",
  },
  gpu_sim_batch_end: { parameters: ["pointer", "buffer", "usize"], result: "i32" },
} as const;

export type Values = Float32Array | Int32Array | Uint8Array;

/** One batch; its tensors are views of the buffer that every step writes. */
export class Batch {
  readonly layout: CreateBatchResponse;
  /** name -> [shape, values], see BufferTensor in sim.proto. */
  readonly tensors = new Map<string, { shape: number[]; values: Values }>();
  private readonly lib;
  private readonly handle: Deno.PointerValue;
  private readonly error = new Uint8Array(512);

  constructor(request: MessageInitShape<typeof CreateBatchRequestSchema>, threads = 1) {
    this.lib = loadLibrary(symbols);
    const bytes = toBinary(
      CreateBatchRequestSchema,
      create(CreateBatchRequestSchema, { transport: Transport.INLINE, ...request }),
    ) as Uint8Array<ArrayBuffer>;
    const out = new BigUint64Array(1);
    this.check(
      this.lib.gpu_sim_batch_create(bytes, BigInt(bytes.length), threads, out, this.error, 512n),
    );
    this.handle = Deno.UnsafePointer.create(out[0]);

    const size = new BigUint64Array(1);
    const layout = this.lib.gpu_sim_batch_layout(this.handle, size)!;
    this.layout = fromBinary(
      CreateBatchResponseSchema,
      new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(layout, Number(size[0]))),
    );
    const memory = this.lib.gpu_sim_batch_buffer(this.handle, size)!;
    const buffer = Deno.UnsafePointerView.getArrayBuffer(memory, Number(size[0]));
    for (const { name, tensor, offsetBytes } of this.layout.tensors) {
      const shape = tensor!.shape.map(Number);
      const count = shape.reduce((a, b) => a * b, 1);
      const at = Number(offsetBytes);
      const values = tensor!.dtype === Dtype.FLOAT32
        ? new Float32Array(buffer, at, count)
        : tensor!.dtype === Dtype.INT32
        ? new Int32Array(buffer, at, count)
        : new Uint8Array(buffer, at, count);
      this.tensors.set(name, { shape, values });
    }
  }

  [Symbol.dispose](): void {
    this.tensors.clear();
    this.lib.gpu_sim_batch_destroy(this.handle);
  }

  begin(epoch: number, reset: boolean): void {
    this.check(
      this.lib.gpu_sim_batch_begin(this.handle, BigInt(epoch), reset ? 1 : 0, this.error, 512n),
    );
  }

  /** mean [N, A]; logStd [A] or [N, A]. */
  step(t: number, mean: Float32Array<ArrayBuffer>, logStd: Float32Array<ArrayBuffer>): void {
    this.check(
      this.lib.gpu_sim_batch_step(
        this.handle,
        t,
        mean,
        BigInt(mean.length),
        logStd,
        BigInt(logStd.length),
        this.error,
        512n,
      ),
    );
  }

  end(): void {
    this.check(this.lib.gpu_sim_batch_end(this.handle, this.error, 512n));
  }

  /** Row [t, e] of a tensor [T, E, …]. */
  row(name: string, t: number, e: number): number[] {
    const { shape, values } = this.tensors.get(name)!;
    const width = shape.slice(2).reduce((a, b) => a * b, 1);
    const start = (t * shape[1] + e) * width;
    return Array.from(values.subarray(start, start + width));
  }

  private check(status: number): void {
    if (status === 0) return;
    const line = new TextDecoder().decode(this.error.subarray(0, this.error.indexOf(0)));
    throw new Error(`gpu-sim: status ${status}: ${line}`);
  }
}
