// A batch in a gpu-sim process, reached over gRPC (proto/sdpg/sim/v1). One Rollout stream lives as long
// as the batch and carries small messages only: means and log σ one way, "slot t is written" the other.
// The arrays themselves are in shared memory, or, with the inline transport, arrive in chunks behind
// credits, pictures before the answer to their step and the rest after each segment, and are assembled
// into a buffer of the same layout. With shared memory the
// steps of a segment need no messages either: they go through the doorbell (doorbell.ts).

import {
  type Chunk,
  type CreateBatchResponse,
  type RolloutRequest,
  type RolloutResponse,
  SimulationService,
  Transport,
} from "@proto/sdpg/sim/v1/sim_pb.ts";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { RolloutRequestSchema } from "@proto/sdpg/sim/v1/sim_pb.ts";
import { client, Code, type Conversation, RpcError } from "@sdpg/common/rpc.ts";
import { Doorbell } from "./doorbell.ts";
import { Phases } from "./phases.ts";
import { drawApart } from "./simulation_apart.ts";
import {
  type BatchOptions,
  createBatchRequest,
  disposeTensors,
  type RolloutTensors,
  type Simulation,
  SimulationError,
  type View,
  viewBuffer,
} from "./simulation.ts";
import { fromPointer, mapSharedMemory, type SharedMemory } from "./torch/mod.ts";

export interface GrpcOptions {
  /** HOST:PORT of gpu-sim. */
  readonly address: string;
  readonly transport: "shared_memory" | "inline";
  /** With shared memory: step by the doorbell instead of a message each way. Default true. */
  readonly doorbell?: boolean;
  /** HOST:PORT of a render service on the same machine that draws the views, instead of gpu-sim itself. */
  readonly renderer?: string;
  /** Longest a single reply may take before the simulator counts as dead. */
  readonly replyTimeoutMs?: number;
}

type Request = MessageInitShape<typeof RolloutRequestSchema>;
type Payload = RolloutRequest["message"] | { case: string; value: Record<string, unknown> };
type Reply<C extends string> = Extract<RolloutResponse["message"], { case: C }>["value"];

/** Chunks granted at a time with the inline transport: 16 MiB in flight at most. */
const creditChunks = 16;

/** Creates a batch on a gpu-sim server. */
export async function simulateOverGrpc(
  options: BatchOptions,
  { address, transport, doorbell = true, renderer, replyTimeoutMs = 60_000 }: GrpcOptions,
): Promise<Simulation> {
  const apart = renderer !== undefined && (options.views ?? []).length > 0;
  if (apart && transport === "inline") {
    throw new SimulationError(
      "Cannot draw apart over the inline transport: the renderer reads poses in the batch's shared " +
        "memory; use simulation.transport=shared_memory, or simulation.render=inside",
      Code.INVALID_ARGUMENT,
    );
  }
  const service = client(SimulationService, address, { deadlineMs: 30_000 });
  const lost = (error: unknown): SimulationError => {
    if (error instanceof SimulationError) return error;
    const text = error instanceof Error ? error.message : String(error);
    const refused = error instanceof RpcError &&
      [Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED, Code.FAILED_PRECONDITION, Code.NOT_FOUND]
        .includes(error.code);
    return new SimulationError(
      refused ? `gpu-sim at ${address} refused: ${text}` : `Lost gpu-sim at ${address}: ${text}`,
      refused ? error.code : Code.UNAVAILABLE,
      { cause: error },
    );
  };
  const batch = apart ? { ...options, views: [], poses: true } : options;
  const layout = await service.createBatch(
    createBatchRequest(
      batch,
      transport === "inline" ? Transport.INLINE : Transport.SHARED_MEMORY,
    ),
    { trace: options.trace },
  ).catch((error) => {
    service.$close();
    throw lost(error);
  });
  let simulation: Simulation;
  try {
    simulation = new GrpcSimulation(service, batch, layout, lost, doorbell, replyTimeoutMs);
  } catch (error) {
    await service.destroyBatch({ batchId: layout.batchId }).catch(() => {});
    service.$close();
    throw error;
  }
  if (!apart) return simulation;
  try {
    return await drawApart(simulation, layout, options, renderer);
  } catch (error) {
    await simulation.close();
    throw error;
  }
}

class GrpcSimulation implements Simulation {
  readonly sizes;
  readonly views: readonly View[];
  readonly tensors: RolloutTensors;
  readonly bytes;
  readonly timings = new Phases("gpu-sim");
  imagesDrawn = 0;

  private readonly trace: BatchOptions["trace"];
  readonly #batchId: string;
  readonly #stream: Conversation<Request, RolloutResponse>;
  #sent = 0n;
  #received = 0n;
  /** Chunks the server may still send. */
  #granted = 0;
  #waitingSince = Infinity;
  readonly #watchdog: ReturnType<typeof setInterval>;
  #timedOut = false;
  /** A response asked for while the doorbell was slow; the next one to be read. */
  #early: Promise<IteratorResult<RolloutResponse>> | undefined;

  /** Shared memory, or this process's copy of the rollout buffer with the inline transport. */
  readonly #shared: SharedMemory | undefined;
  readonly #doorbell: Doorbell | undefined;
  readonly #copy: Uint8Array<ArrayBuffer> | undefined;
  readonly #actorOffset: number;
  readonly #actorBytes: number;

  constructor(
    private readonly service: ReturnType<typeof client<typeof SimulationService>>,
    options: BatchOptions,
    layout: CreateBatchResponse,
    private readonly lost: (error: unknown) => SimulationError,
    doorbell: boolean,
    private readonly replyTimeoutMs: number,
  ) {
    this.views = options.views ?? [];
    this.#batchId = layout.batchId;
    this.trace = options.trace;
    this.bytes = { buffer: Number(layout.bufferBytes), state: Number(layout.stateBytes) };
    if (layout.transport === Transport.SHARED_MEMORY) {
      const storage = layout.tensors[0]?.tensor?.storage;
      if (storage?.case !== "sharedMemory") {
        throw new SimulationError("gpu-sim chose shared memory but named none; rebuild gpu-sim");
      }
      const shared = mapSharedMemory(storage.value.name, Number(storage.value.objectBytes));
      this.#shared = shared;
      ({ tensors: this.tensors, sizes: this.sizes } = viewBuffer(
        options,
        layout,
        (dtype, shape, _offset, name) => {
          const array = layout.tensors.find((t) => t.name === name)!.tensor!.storage;
          if (array.case !== "sharedMemory" || array.value.name !== storage.value.name) {
            throw new SimulationError(`gpu-sim put ${name} elsewhere than the other arrays`);
          }
          return shared.tensor(dtype, shape, Number(array.value.offsetBytes));
        },
      ));
      if (doorbell) {
        this.#doorbell = new Doorbell(
          shared.pointer,
          Number(storage.value.objectBytes),
          Number(layout.bufferBytes),
          this.sizes.nominals * this.sizes.actions,
        );
      }
    } else {
      const copy = new Uint8Array(Number(layout.bufferBytes) + 64);
      // Arrays are 64-byte aligned in the simulator; here too, so that vector loads are as fast.
      const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(copy));
      const shift = Number((64n - BigInt(address) % 64n) % 64n);
      this.#copy = copy.subarray(shift, shift + Number(layout.bufferBytes));
      ({ tensors: this.tensors, sizes: this.sizes } = viewBuffer(
        options,
        layout,
        (dtype, shape, offset) =>
          fromPointer(BigInt(address) + BigInt(shift + offset), dtype, shape),
      ));
    }
    const actor = layout.tensors.find((t) => t.name === "actor")!;
    this.#actorOffset = Number(actor.offsetBytes);
    this.#actorBytes = this.sizes.nominals * this.sizes.actor * 4;

    this.#stream = service.rollout({ trace: options.trace });
    this.#watchdog = setInterval(() => {
      if (performance.now() - this.#waitingSince < replyTimeoutMs) return;
      this.#timedOut = true;
      this.#stream.cancel();
    }, 1000);
    Deno.unrefTimer(this.#watchdog as unknown as number);
  }

  async begin(epoch: number, reset: boolean) {
    this.#doorbell?.arm();
    await this.#send({ case: "begin", value: { epoch: BigInt(epoch), reset } });
    const begun = await this.#receive("begun");
    this.#takeActor(0, begun.actor);
    this.timings.addTimings(begun.timings);
    this.imagesDrawn += begun.images;
  }

  step(t: number, mean: Float32Array, logStd: Float32Array | null): Promise<void> | void {
    if (this.#doorbell === undefined) return this.#stepByMessage(t, mean, logStd);
    if (!this.#doorbell.step(t, mean, logStd, ringMs)) return this.#awaitDoorbell();
    this.#checkDoorbell();
  }

  async #stepByMessage(t: number, mean: Float32Array, logStd: Float32Array | null) {
    await this.#send({
      case: "step",
      value: { t, mean: bytesOf(mean), logStd: logStd === null ? empty : bytesOf(logStd) },
    });
    const stepped = await this.#receive("stepped");
    if (stepped.t !== t) {
      throw new SimulationError(`gpu-sim answered step ${stepped.t}, expected ${t}`);
    }
    this.#takeActor(t + 1, stepped.actor);
    this.timings.addTimings(stepped.timings);
    this.imagesDrawn += stepped.images;
  }

  async end() {
    if (this.#doorbell !== undefined) {
      if (this.#doorbell.end(ringMs)) this.#checkDoorbell();
      else await this.#awaitDoorbell();
      this.timings.addAll(this.#doorbell.phases());
      this.imagesDrawn += this.#doorbell.images;
      return;
    }
    await this.#send({ case: "end", value: {} });
    await this.#receive("ended");
  }

  async snapshot(): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    try {
      const stream = this.service.snapshotBatch({ batchId: this.#batchId }, { deadlineMs: 60_000 });
      for await (const { data } of stream) parts.push(data);
    } catch (error) {
      throw this.lost(error);
    }
    const state = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      state.set(part, at);
      at += part.length;
    }
    return state;
  }

  async restore(state: Uint8Array) {
    const batchId = this.#batchId;
    async function* chunks() {
      const most = 1 << 20;
      yield { batchId, data: state.subarray(0, most) };
      for (let at = most; at < state.length; at += most) {
        yield { data: state.subarray(at, at + most) };
      }
    }
    try {
      await this.service.restoreBatch(chunks(), { deadlineMs: 60_000 });
    } catch (error) {
      throw this.lost(error);
    }
  }

  async close() {
    clearInterval(this.#watchdog);
    disposeTensors(this.tensors);
    this.#stream.close();
    // The server ends the stream after the close; a dead one has nothing left to free.
    await this.#stream.responses.return?.().catch(() => {});
    const { trace } = this;
    await this.service.destroyBatch({ batchId: this.#batchId }, { deadlineMs: 5000, trace })
      .catch(() => {});
    this.#shared?.[Symbol.dispose]();
    this.service.$close();
  }

  #send(message: Payload): void | Promise<void> {
    this.#waitingSince = performance.now();
    return this.#stream.send({
      batchId: this.#batchId,
      sequence: this.#sent++,
      message: message as RolloutRequest["message"],
    });
  }

  async #next(): Promise<RolloutResponse["message"]> {
    this.#waitingSince = performance.now();
    let result: IteratorResult<RolloutResponse>;
    try {
      result = await (this.#early ?? this.#stream.responses.next());
      this.#early = undefined;
    } catch (error) {
      throw this.lost(this.#timedOut ? new Error("no reply within its time limit") : error);
    } finally {
      this.#waitingSince = Infinity;
    }
    if (result.done) throw this.lost(new Error("it ended the rollout stream"));
    const { batchId, sequence, message } = result.value;
    if (batchId !== this.#batchId || sequence !== this.#received) {
      throw new SimulationError(
        `gpu-sim answered out of order: expected ${this.#batchId}#${this.#received}, ` +
          `got ${batchId}#${sequence}`,
      );
    }
    this.#received++;
    return message;
  }

  /** The next answer; the chunks that come before it go where they belong. */
  async #receive<C extends "begun" | "stepped" | "ended">(expected: C): Promise<Reply<C>> {
    for (;;) {
      if (this.#copy !== undefined && this.#granted <= creditChunks / 2) {
        const chunks = creditChunks - this.#granted;
        this.#granted = creditChunks;
        await this.#send({ case: "credit", value: { chunks } });
      }
      const message = await this.#next();
      if (message.case === expected) return message.value as Reply<C>;
      if (message.case !== "chunk" || this.#copy === undefined) {
        throw unexpected(expected, message.case);
      }
      this.#granted--;
      this.#takeChunk(message.value);
    }
  }

  #takeChunk({ offsetBytes, data }: Chunk) {
    const end = Number(offsetBytes) + data.length;
    if (end > this.#copy!.length) {
      throw new SimulationError(
        `gpu-sim sent bytes ${offsetBytes} to ${end} of a rollout buffer of ${this.#copy!.length}`,
      );
    }
    this.#copy!.set(data, Number(offsetBytes));
  }

  /** Waits on for a slow answer, looking in between whether the stream, and so the server, is alive. */
  async #awaitDoorbell() {
    const started = performance.now();
    this.#early ??= this.#stream.responses.next();
    this.#early.catch(() => {}); // Whoever reads it next sees the failure.
    const ended = this.#early.then(
      () => new Error("it ended the rollout stream"),
      (error: unknown) => error,
    );
    for (;;) {
      // Through the event loop, so that a broken connection can show.
      const turn = new Promise<undefined>((resolve) => setTimeout(resolve, 1, undefined));
      const failure = await Promise.race([ended, turn]);
      if (this.#doorbell!.await(failure === undefined ? ringMs : 0)) break;
      if (failure !== undefined) throw this.lost(failure);
      if (performance.now() - started > this.replyTimeoutMs) {
        this.#stream.cancel();
        throw this.lost(new Error("no reply within its time limit"));
      }
    }
    this.#checkDoorbell();
  }

  #checkDoorbell() {
    const { status } = this.#doorbell!;
    if (status === 0) return;
    throw new SimulationError(`gpu-sim refused: ${this.#doorbell!.error}`, status);
  }

  /** With the inline transport the policy's inputs ride on the replies; the rest follows at the end. */
  #takeActor(slot: number, actor: Uint8Array) {
    if (this.#copy === undefined) return;
    if (actor.length !== this.#actorBytes) {
      throw new SimulationError(
        `gpu-sim sent ${actor.length} bytes of actor observations, expected ${this.#actorBytes}`,
      );
    }
    this.#copy.set(actor, this.#actorOffset + slot * this.#actorBytes);
  }
}

const empty = new Uint8Array();

/** How long one ring sleeps before the event loop gets a turn. A step takes milliseconds. */
const ringMs = 200;

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function unexpected(expected: string, got: string | undefined): SimulationError {
  return new SimulationError(`gpu-sim answered ${got ?? "nothing"}, expected ${expected}`);
}
