// The only file that talks to libsdpg_torch: loads it, checks that it is the one these sources were written for, and
// turns every failure into a TorchError. tensor.ts builds PyTorch's surface on call().
//
// An operator call writes handles and numbers into two buffers that live as long as the module and makes one FFI call
// (about a microsecond); nothing is allocated besides the result.

export class TorchError extends Error {
  override readonly name = "TorchError";
}

const ABI = 1;
const LIBRARY = new URL("../../../build/torch/libsdpg_torch.so", import.meta.url);

const SYMBOLS = {
  sdpg_abi: { parameters: [], result: "i32" },
  sdpg_last_error: { parameters: ["buffer", "i32"], result: "i32" },
  sdpg_version: { parameters: ["buffer", "i32"], result: "i32" },
  sdpg_set_num_threads: { parameters: ["i32"], result: "i32" },
  sdpg_set_kernels: { parameters: ["buffer"], result: "i32" },
  sdpg_live: { parameters: [], result: "i32" },
  sdpg_free: { parameters: ["buffer", "i32"], result: "i32" },
  sdpg_op: { parameters: ["buffer"], result: "i32" },
  sdpg_call: {
    parameters: ["i32", "buffer", "i32", "buffer", "i32", "buffer"],
    result: "i32",
  },
  sdpg_describe: { parameters: ["u32", "buffer"], result: "i32" },
  sdpg_from_bytes: { parameters: ["buffer", "f64", "i32", "buffer", "i32"], result: "u32" },
  sdpg_from_pointer: { parameters: ["pointer", "i32", "buffer", "i32"], result: "u32" },
  sdpg_to_bytes: { parameters: ["u32", "buffer", "f64"], result: "i32" },
  sdpg_set_grad_enabled: { parameters: ["i32"], result: "i32" },
  sdpg_generator_new: { parameters: ["u64"], result: "i32" },
  sdpg_generator_free: { parameters: ["i32"], result: "i32" },
  sdpg_map_shared: { parameters: ["buffer", "f64"], result: "pointer" },
  sdpg_unmap_shared: { parameters: ["pointer", "f64"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

function open(): Deno.DynamicLibrary<typeof SYMBOLS>["symbols"] {
  try {
    Deno.statSync(LIBRARY);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new TorchError(
        `Cannot load ${LIBRARY.pathname}: it is not built; run ./sdpg doctor, which builds it and says what is missing`,
      );
    }
    throw error;
  }
  let library: Deno.DynamicLibrary<typeof SYMBOLS>;
  try {
    library = Deno.dlopen(LIBRARY, SYMBOLS);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new TorchError(
      `Cannot load ${LIBRARY.pathname}: ${
        (error as Error).message
      }; run ./sdpg doctor, which names missing packages and rebuilds it`,
    );
  }
  const found = library.symbols.sdpg_abi();
  if (found !== ABI) {
    throw new TorchError(
      `Cannot use ${LIBRARY.pathname}: expected binding version ${ABI}, got ${found}; rebuild it with ./sdpg doctor`,
    );
  }
  return library.symbols;
}

export const native = open();

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A zero-terminated copy of text, as C expects it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(encoder.encode(text).length + 1);
  encoder.encodeInto(text, bytes);
  return bytes;
}

export function readText(
  read: (bytes: Uint8Array<ArrayBuffer>, size: number) => number,
): string {
  const bytes = new Uint8Array(8192);
  const length = read(bytes, bytes.length);
  return decoder.decode(bytes.subarray(0, Math.min(length, bytes.length)));
}

export function lastError(): TorchError {
  return new TorchError(readText((bytes, size) => native.sdpg_last_error(bytes, size)));
}

/** Most tensors one call may take: parameters, two moments and data of a large network. */
const MAX_HANDLES = 8192;
const MAX_NUMBERS = 1024;

const handles = new Uint32Array(MAX_HANDLES);
const numbers = new Float64Array(MAX_NUMBERS);
/** Handles that the last call returned; read them before the next call. */
export const results = new Uint32Array(16);

/** Code of an operator by name; refuses when the library is older than these sources. */
export function operator(name: string): number {
  const code = native.sdpg_op(cString(name));
  if (code < 0) {
    throw new TorchError(
      `Cannot find operator "${name}" in ${LIBRARY.pathname}: the library is older than the sources; rebuild it with ./sdpg doctor`,
    );
  }
  return code;
}

function check(count: number): number {
  if (count < 0) throw lastError();
  return count;
}

/** Runs an operator; returns how many handles it left in results. */
export function call(op: number, tensors: readonly number[], values: readonly number[]): number {
  if (tensors.length > MAX_HANDLES || values.length > MAX_NUMBERS) {
    throw new TorchError(
      `Cannot call an operator with ${tensors.length} tensors and ${values.length} numbers: at most ${MAX_HANDLES} and ${MAX_NUMBERS} fit`,
    );
  }
  for (let i = 0; i < tensors.length; i++) handles[i] = tensors[i];
  for (let i = 0; i < values.length; i++) numbers[i] = values[i];
  return check(
    native.sdpg_call(op, handles, tensors.length, numbers, values.length, results),
  );
}

/** Runs an operator that answers with numbers; returns the first count of them. */
export function callForNumbers(
  op: number,
  tensors: readonly number[],
  values: readonly number[],
  count: number,
): number[] {
  call(op, tensors, values);
  return Array.from(numbers.subarray(0, count));
}

/** One or two tensors and one number, without building argument arrays: the frequent calls. */
export function call1(op: number, a: number): number {
  handles[0] = a;
  check(native.sdpg_call(op, handles, 1, numbers, 0, results));
  return results[0];
}

export function call2(op: number, a: number, b: number): number {
  handles[0] = a;
  handles[1] = b;
  check(native.sdpg_call(op, handles, 2, numbers, 0, results));
  return results[0];
}

export function callNumber(op: number, a: number, value: number): number {
  handles[0] = a;
  numbers[0] = value;
  check(native.sdpg_call(op, handles, 1, numbers, 1, results));
  return results[0];
}
