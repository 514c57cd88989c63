// The caller's half of the doorbell (gpu-sim/src/batch/doorbell.h): steps a batch whose rollout buffer
// is in shared memory by writing the means behind the buffer, ringing, and sleeping until the step is
// done, instead of a message each way.

import type { Phase } from "./phases.ts";
import { SimulationError } from "./simulation.ts";

const symbols = {
  gpu_sim_doorbell_ring: { parameters: ["pointer", "i32"], result: "i32" },
  gpu_sim_doorbell_await: { parameters: ["pointer", "i32"], result: "i32" },
} as const;

/** Byte offsets of struct Doorbell. */
const at = {
  magic: 0,
  armed: 192,
  command: 196,
  t: 200,
  logStdCount: 204,
  status: 208,
  phaseCount: 220,
  images: 224,
  phases: 256,
  error: 448,
  values: 960,
};
const magic = 0x32424453;
const phaseBytes = 32;
const command = { step: 1, end: 2 };

let library: Deno.DynamicLibrary<typeof symbols>["symbols"] | undefined;

function loadLibrary() {
  if (library !== undefined) return library;
  const path = new URL("../../build/gpu-sim/libgpu_sim.so", import.meta.url).pathname;
  try {
    library = Deno.dlopen(path, symbols).symbols;
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    throw new SimulationError(
      `Cannot load ${path}: ${cause}; build it with ./sdpg doctor, or set simulation.doorbell=false`,
    );
  }
  return library;
}

export class Doorbell {
  readonly #library = loadLibrary();
  readonly #pointer: Deno.PointerObject;
  readonly #words: Uint32Array;
  readonly #view: DataView;
  readonly #values: Float32Array;

  /**
   * @param memory the mapped shared memory object
   * @param objectBytes its length
   * @param offset where the rollout buffer's arrays end
   * @param actionValues N * A
   */
  constructor(
    memory: Deno.PointerObject,
    objectBytes: number,
    offset: number,
    actionValues: number,
  ) {
    const bytes = at.values + 8 * actionValues;
    this.#pointer = Deno.UnsafePointer.create(
      BigInt(Deno.UnsafePointer.value(memory)) + BigInt(offset),
    )!;
    const found = offset + bytes <= objectBytes &&
      new Deno.UnsafePointerView(this.#pointer).getUint32(at.magic) === magic;
    if (!found) {
      throw new SimulationError(
        "gpu-sim has no doorbell behind its rollout buffer; rebuild gpu-sim, or set " +
          "simulation.doorbell=false",
      );
    }
    const buffer = Deno.UnsafePointerView.getArrayBuffer(this.#pointer, bytes);
    this.#words = new Uint32Array(buffer, 0, at.values / 4);
    this.#view = new DataView(buffer);
    this.#values = new Float32Array(buffer, at.values);
  }

  /** Asks for the next segment's steps to come here; call before Begin is sent. */
  arm() {
    this.#words[at.armed / 4] = 1;
  }

  /** Rings for a step. False when there was no answer in `timeoutMs`: then `await()` it. */
  step(t: number, mean: Float32Array, logStd: Float32Array | null, timeoutMs: number): boolean {
    this.#words[at.command / 4] = command.step;
    this.#words[at.t / 4] = t;
    this.#words[at.logStdCount / 4] = logStd?.length ?? 0;
    this.#values.set(mean);
    if (logStd !== null) this.#values.set(logStd, mean.length);
    return this.#library.gpu_sim_doorbell_ring(this.#pointer, timeoutMs) === 1;
  }

  /** Rings for the end of the segment. */
  end(timeoutMs: number): boolean {
    this.#words[at.command / 4] = command.end;
    return this.#library.gpu_sim_doorbell_ring(this.#pointer, timeoutMs) === 1;
  }

  await(timeoutMs: number): boolean {
    return this.#library.gpu_sim_doorbell_await(this.#pointer, timeoutMs) === 1;
  }

  /** After an answer: 0, or the gRPC code of a refusal. */
  get status(): number {
    return this.#words[at.status / 4];
  }

  /** The refusal's line. */
  get error(): string {
    return this.#text(at.error, 512);
  }

  /** Pictures drawn by the segment's steps so far; those of Begin are in its reply. */
  get images(): number {
    return this.#words[at.images / 4];
  }

  /** Summed over the segment so far. */
  *phases(): Generator<Phase> {
    for (let i = 0; i < this.#words[at.phaseCount / 4]; i++) {
      const start = at.phases + i * phaseBytes;
      yield {
        name: this.#text(start, 12),
        service: "gpu-sim",
        count: this.#view.getUint32(start + 12, true),
        seconds: this.#view.getFloat64(start + 16, true),
        startMs: Number(this.#view.getBigUint64(start + 24, true)) / 1e6,
      };
    }
  }

  #text(offset: number, most: number): string {
    const bytes = new Uint8Array(this.#view.buffer, offset, most);
    return new TextDecoder().decode(bytes.slice(0, Math.max(0, bytes.indexOf(0))));
  }
}
