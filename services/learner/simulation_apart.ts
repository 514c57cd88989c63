// A batch whose pictures are drawn by a RenderService in another process (proto/sdpg/render/v1), from
// the poses in the batch's shared memory. The bits are those of a batch that draws its own; what
// differs is where the stacks of frames live: in the scene, so a snapshot carries them beside the
// batch's state.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { DrawSchema } from "@proto/sdpg/render/v1/render_pb.ts";
import {
  type RenderRequestSchema,
  type RenderResponse,
  RenderService,
} from "@proto/sdpg/render/v1/render_pb.ts";
import { type CreateBatchResponse, Transport } from "@proto/sdpg/sim/v1/sim_pb.ts";
import { client, Code, type Conversation, RpcError } from "@sdpg/common/rpc.ts";
import {
  type BatchOptions,
  type RolloutTensors,
  type Simulation,
  SimulationError,
  viewImages,
  viewMessage,
} from "./simulation.ts";
import { fromArray, mapSharedMemory, scope, type SharedMemory, type Tensor } from "./torch/mod.ts";

/**
 * @param simulation a batch with poses and without views; its first segment must not have begun
 * @param layout what the batch was created with
 * @param options those of the caller, with the views to draw
 * @param address HOST:PORT of the render service, on the batch's machine
 */
export async function drawApart(
  simulation: Simulation,
  layout: CreateBatchResponse,
  options: BatchOptions,
  address: string,
): Promise<Simulation> {
  const service = client(RenderService, address, { deadlineMs: 30_000 });
  const lost = (error: unknown) => {
    if (error instanceof SimulationError) return error;
    const text = error instanceof Error ? error.message : String(error);
    const refused = error instanceof RpcError &&
      [Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED, Code.FAILED_PRECONDITION, Code.NOT_FOUND]
        .includes(error.code);
    return new SimulationError(
      refused
        ? `the renderer at ${address} refused: ${text}`
        : `Lost the renderer at ${address}: ${text}`,
      refused ? error.code : Code.UNAVAILABLE,
      { cause: error },
    );
  };
  try {
    const scene = await service.createScene({
      model: options.model,
      views: options.views!.map(viewMessage),
      environments: options.nominals,
      slots: options.horizon,
      seed: options.seed,
      transport: Transport.SHARED_MEMORY,
      label: options.label,
      pose: layout.tensors.find(({ name }) => name === "pose"),
      fresh: layout.tensors.find(({ name }) => name === "fresh"),
    }, { trace: options.trace });
    const storage = scene.tensors[0]?.tensor?.storage;
    if (storage?.case !== "sharedMemory") {
      throw new SimulationError(`the renderer at ${address} offers no shared memory`);
    }
    const shared = mapSharedMemory(storage.value.name, Number(storage.value.objectBytes));
    const images = viewImages(
      options,
      scene.tensors,
      (dtype, shape, offset) => shared.tensor(dtype, shape, offset),
    );
    return new ApartSimulation(
      simulation,
      options,
      service,
      scene.sceneId,
      shared,
      images,
      lost,
      Number(scene.bufferBytes),
    );
  } catch (error) {
    service.$close();
    throw lost(error);
  }
}

/** Longest a picture of every nominal may take before the renderer counts as dead. */
const replyTimeoutMs = 60_000;

class ApartSimulation implements Simulation {
  readonly sizes;
  readonly views;
  readonly tensors: RolloutTensors;
  readonly bytes;
  readonly timings;
  imagesDrawn = 0;
  readonly #stream: Conversation<MessageInitShape<typeof RenderRequestSchema>, RenderResponse>;
  #sent = 0n;
  /** Slot that holds the newest stacks. */
  #newest = 0;
  /** The newest stacks do not show the present state: the last step's slot is the next segment's first. */
  #pending = true;

  constructor(
    private readonly simulation: Simulation,
    options: BatchOptions,
    private readonly service: ReturnType<typeof client<typeof RenderService>>,
    private readonly sceneId: string,
    private readonly shared: SharedMemory,
    images: ReadonlyMap<string, Tensor>,
    private readonly lost: (error: unknown) => SimulationError,
    imageBytes: number,
  ) {
    this.sizes = simulation.sizes;
    this.views = options.views!;
    this.tensors = { ...simulation.tensors, images };
    this.bytes = { ...simulation.bytes, buffer: simulation.bytes.buffer + imageBytes };
    this.timings = simulation.timings;
    this.#stream = service.render({ trace: options.trace });
  }

  async begin(epoch: number, reset: boolean) {
    await this.simulation.begin(epoch, reset);
    // A segment that ended early has drawn the state it ended in.
    if (this.#pending || reset) {
      await this.#draw({ slot: 0, previousSlot: this.#newest, poseSlot: 0 });
    } else this.#copy(this.#newest, 0);
    this.#newest = 0;
    this.#pending = false;
  }

  async step(t: number, mean: Float32Array, logStd: Float32Array | null) {
    await this.simulation.step(t, mean, logStd);
    this.#pending = t + 1 === this.sizes.horizon;
    if (this.#pending) return;
    await this.#draw({ slot: t + 1, previousSlot: t, poseSlot: t + 1 });
    this.#newest = t + 1;
  }

  end() {
    return this.simulation.end();
  }

  async #draw(draw: MessageInitShape<typeof DrawSchema>) {
    const sequence = this.#sent++;
    const deadline = setTimeout(() => this.#stream.cancel(), replyTimeoutMs);
    try {
      await this.#stream.send({
        sceneId: this.sceneId,
        sequence,
        message: { case: "draw", value: draw },
      });
      const { value, done } = await this.#stream.responses.next();
      if (done) throw new Error("it ended its stream");
      if (value.message.case !== "rendered" || value.sequence !== sequence) {
        throw new Error(
          `it answered ${value.message.case}#${value.sequence}, expected rendered#${sequence}`,
        );
      }
      const { images, timings } = value.message.value;
      this.imagesDrawn += images;
      this.timings.addTimings(timings, "render");
    } catch (error) {
      throw this.lost(error);
    } finally {
      clearTimeout(deadline);
    }
  }

  #copy(from: number, to: number) {
    if (from === to) return;
    using _scope = scope();
    for (const x of this.tensors.images.values()) x.select(0, to).copy_(x.select(0, from));
  }

  /** The batch's state behind its length, whether a picture is due, and the newest stacks. */
  async snapshot() {
    const state = await this.simulation.snapshot();
    using _scope = scope();
    const stacks = [...this.tensors.images.values()].map((x) =>
      x.select(0, this.#newest).toArray() as Uint8Array
    );
    const head = new Uint8Array(9);
    new DataView(head.buffer).setFloat64(0, state.length);
    head[8] = Number(this.#pending);
    const parts = [head, state, ...stacks];
    const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  async restore(saved: Uint8Array) {
    const length = new DataView(saved.buffer, saved.byteOffset, 9).getFloat64(0);
    const images = [...this.tensors.images.values()];
    const stackBytes = (x: Tensor) => x.numel / x.shape[0];
    if (saved.length !== 9 + length + images.reduce((sum, x) => sum + stackBytes(x), 0)) {
      throw new SimulationError(
        "Cannot restore: this state was not taken with a renderer apart and the same cameras",
        Code.INVALID_ARGUMENT,
      );
    }
    await this.simulation.restore(saved.subarray(9, 9 + length));
    using _scope = scope();
    let at = 9 + length;
    for (const x of images) {
      const stack = saved.slice(at, at + stackBytes(x));
      x.select(0, 0).copy_(fromArray(stack, x.shape.slice(1)));
      at += stack.length;
    }
    this.#newest = 0;
    this.#pending = saved[8] === 1;
  }

  async close() {
    for (const x of this.tensors.images.values()) x[Symbol.dispose]();
    this.#stream.close();
    await this.#stream.responses.return?.().catch(() => {});
    await this.service.destroyScene({ sceneId: this.sceneId }, { deadlineMs: 5000 }).catch(
      () => {},
    );
    this.shared[Symbol.dispose]();
    this.service.$close();
    await this.simulation.close();
  }
}
