// Seeded random numbers: libtorch's CPU generator with a state that can be saved and put back exactly.

import { call, lastError, native, operator, results, TorchError } from "./ffi.ts";
import { fromBytes, Tensor } from "./tensor.ts";

export class Generator implements Disposable {
  #id: number;

  /** Same seed, same numbers. Seeds are 64-bit unsigned. */
  constructor(seed: bigint) {
    if (seed < 0n || seed >= 1n << 64n) {
      throw new TorchError(`Cannot seed a generator with ${seed}: expected 0 to 2^64 − 1`);
    }
    this.#id = native.sdpg_generator_new(seed);
    if (this.#id < 0) throw lastError();
  }

  get id(): number {
    if (this.#id === 0) throw new TorchError("Cannot use this generator: it was disposed");
    return this.#id;
  }

  /** Everything that decides the numbers to come. */
  state(): Uint8Array<ArrayBuffer> {
    call(operator("generator_state"), [], [this.id]);
    using state = new Tensor(results[0]);
    return state.bytes();
  }

  /** Continues where the generator that gave this state was. */
  setState(state: Uint8Array): void {
    using t = fromBytes(state, "uint8", [state.length]);
    call(operator("generator_set_state"), [t.handle], [this.id]);
  }

  [Symbol.dispose](): void {
    if (this.#id === 0) return;
    native.sdpg_generator_free(this.#id);
    this.#id = 0;
  }
}
