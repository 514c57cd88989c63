// POSIX shared memory as tensors: the rollout buffer that gpu-sim writes is read in place.

import { cString, lastError, native, TorchError } from "./ffi.ts";
import { type Dtype, elementBytes, fromPointer, type Shape, type Tensor } from "./tensor.ts";

export class SharedMemory implements Disposable {
  #pointer: Deno.PointerObject | null;

  constructor(pointer: Deno.PointerObject, readonly name: string, readonly bytes: number) {
    this.#pointer = pointer;
  }

  get pointer(): Deno.PointerObject {
    if (this.#pointer === null) {
      throw new TorchError(`Cannot use shared memory ${this.name}: it was unmapped`);
    }
    return this.#pointer;
  }

  /** A view at offsetBytes; free it and its views before the mapping goes. */
  tensor(dtype: Dtype, shape: Shape, offsetBytes: number): Tensor {
    const needed = shape.reduce((product, size) => product * size, elementBytes(dtype));
    if (!(offsetBytes >= 0) || offsetBytes + needed > this.bytes) {
      throw new TorchError(
        `Cannot view ${dtype}[${
          shape.join(", ")
        }] at byte ${offsetBytes} of shared memory ${this.name}: it ends at ${
          offsetBytes + needed
        }, the memory at ${this.bytes}`,
      );
    }
    const address = BigInt(Deno.UnsafePointer.value(this.pointer)) + BigInt(offsetBytes);
    return fromPointer(address, dtype, shape);
  }

  /** Unmaps; tensors that view it must be gone. */
  [Symbol.dispose](): void {
    if (this.#pointer === null) return;
    const pointer = this.#pointer;
    this.#pointer = null;
    if (native.sdpg_unmap_shared(pointer, this.bytes) < 0) throw lastError();
  }
}

/** Maps an existing object (shm_open name, starting with "/"), readable and writable. */
export function mapSharedMemory(name: string, bytes: number): SharedMemory {
  const pointer = native.sdpg_map_shared(cString(name), bytes);
  if (pointer === null) throw lastError();
  return new SharedMemory(pointer, name, bytes);
}
