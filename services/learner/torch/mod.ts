// libtorch for the algorithms: PyTorch's names and meanings, memory freed by scope. See docs/torch-binding.md.

export { TorchError } from "./ffi.ts";
export * from "./tensor.ts";
export { Scope, scope, scoped } from "./scope.ts";
export { Generator } from "./generator.ts";
export { Adam, type AdamOptions } from "./optim.ts";
export {
  convEncode,
  mlpForward,
  mlpRegress,
  type RegressionOptions,
  type RegressionResult,
} from "./fused.ts";
export { mapSharedMemory, SharedMemory } from "./shared_memory.ts";

import { cString, lastError, native, readText, TorchError } from "./ffi.ts";

/** Threads of the fused operators; results do not depend on it. Composed operators use the calling thread. */
export function setNumThreads(n: number): void {
  if (!Number.isInteger(n)) {
    throw new TorchError(`Cannot use ${n} threads: expected a whole number of at least 1`);
  }
  if (native.sdpg_set_num_threads(n) < 0) throw lastError();
}

export type Kernels = "avx512" | "avx2" | "baseline";

/** Instruction set of the fused operators, the best the CPU has unless chosen here; sets differ in rounding. */
export function setKernels(name: Kernels): void {
  if (native.sdpg_set_kernels(cString(name)) < 0) throw lastError();
}

/** Versions of libtorch and BLAS in use, and how work is spread over threads. */
export function version(): { torch: string; blas: string; parallel: string; kernels: Kernels } {
  return JSON.parse(readText((bytes, size) => native.sdpg_version(bytes, size)));
}
