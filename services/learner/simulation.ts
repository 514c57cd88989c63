// What the algorithms know of a simulator: a batch of N groups of one nominal and M auxiliary
// environments, stepped a segment at a time, whose results appear in one rollout buffer. The buffer's
// arrays are torch tensors that view it, so nothing is copied. There are two ways to reach a batch,
// with the same bits: over gRPC (simulation_grpc.ts) and in this process (simulation_in_process.ts).

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import {
  type BufferTensor,
  type CreateBatchRequest,
  CreateBatchRequestSchema,
  type CreateBatchResponse,
  Precision,
  Transport,
} from "@proto/sdpg/sim/v1/sim_pb.ts";
import type { TaskProgram } from "@proto/sdpg/task/v1/task_pb.ts";
import { ImageKind, type ViewSchema } from "@proto/sdpg/view/v1/view_pb.ts";
import { Dtype as WireDtype } from "@proto/sdpg/tensor/v1/tensor_pb.ts";
import { Code } from "@sdpg/common/rpc.ts";
import type { TraceContext } from "@sdpg/common/trace.ts";
import type { Phases } from "./phases.ts";
import type { Dtype, Tensor } from "./torch/mod.ts";

/** Everything a batch is made from. */
export interface BatchOptions {
  readonly model: Model;
  readonly program: TaskProgram;
  /** N, at least 1. */
  readonly nominals: number;
  /** M, at least 0. */
  readonly auxiliaries: number;
  /** H, steps of one segment. */
  readonly horizon: number;
  /** Key of the noise and of the resets. */
  readonly seed: bigint;
  /** Clamp of the pre-tanh mean and action; null for none. */
  readonly meanBounds: readonly [number, number] | null;
  /** Clamp of the log standard deviation; null for none. */
  readonly logStdBounds: readonly [number, number] | null;
  /** Part of the shared memory's name, [a-z0-9-]{1,40}. */
  readonly label: string;
  /** RGB views that are drawn of the nominals; none unless given. */
  readonly views?: readonly View[];
  /** Adds the poses that a renderer elsewhere draws from. */
  readonly poses?: boolean;
  /** On whose behalf the simulator is asked, for its logs. */
  readonly trace?: TraceContext;
}

/** Stacks of frames of one camera, as sdpg.view.v1.View says. */
export interface View {
  /** Name of the array; the camera's unless given. */
  readonly name?: string;
  /** Of the model. */
  readonly camera: string;
  readonly width: number;
  readonly height: number;
  readonly frames: number;
  readonly shadows?: boolean;
}

/**
 * The rollout buffer's arrays. T = horizon, G = 1 + auxiliaries, E = nominals * G with environment
 * e = group * G + member, A actions, P privileged and O actor values, K reward terms.
 */
export interface RolloutTensors {
  readonly privileged: Tensor; // [T+1, E, P] float32, before step t
  readonly privilegedSuccessor: Tensor; // [T, E, P] float32, after step t, before any reset
  readonly actor: Tensor; // [T+1, N, O] float32, nominals, before step t
  readonly noise: Tensor; // [T, E, A] float32, unclipped standard normals, 0 for nominals
  readonly action: Tensor; // [T, E, A] float32, clipped, before tanh
  readonly reward: Tensor; // [T, E] float32
  readonly rewardTerms: Tensor; // [T, E, K] float32, weighted; their sum is the reward
  readonly terminated: Tensor; // [T, E] uint8, by the task or a fault
  readonly truncated: Tensor; // [T, E] uint8, by the time limit and not terminated
  readonly done: Tensor; // [T, E] uint8, the environment's stretch ends here
  readonly fault: Tensor; // [T, E] uint8, bits of sdpg.sim.v1.FaultBit
  readonly progress: Tensor; // [T, E] int32, control steps of the episode, after step t
  /** By name: uint8 [T, N, frames * 3, height, width], nominals, before step t, oldest frame first. */
  readonly images: ReadonlyMap<string, Tensor>;
}

/** Frees the views of a rollout buffer. */
export function disposeTensors({ images, ...arrays }: RolloutTensors) {
  for (const tensor of [...Object.values(arrays), ...images.values()]) tensor[Symbol.dispose]();
}

export interface BatchSizes {
  readonly nominals: number;
  readonly auxiliaries: number;
  /** 1 + auxiliaries. */
  readonly members: number;
  readonly environments: number;
  readonly horizon: number;
  readonly actions: number;
  readonly privileged: number;
  readonly actor: number;
  readonly rewardTerms: number;
}

/** One batch. Calls of one batch never overlap. */
export interface Simulation {
  readonly sizes: BatchSizes;
  /** What the batch draws, in the order of tensors.images. */
  readonly views: readonly View[];
  readonly tensors: RolloutTensors;
  /** Bytes of the rollout buffer and of the simulation state. */
  readonly bytes: { readonly buffer: number; readonly state: number };
  /** What the simulator measured, added up until the caller clears it. */
  readonly timings: Phases;
  /** Pictures drawn, added up until the caller sets it to 0. */
  imagesDrawn: number;
  /** Copies every nominal into its auxiliaries and writes slot 0; `reset` starts fresh episodes first. */
  begin(epoch: number, reset: boolean): Promise<void> | void;
  /**
   * One control step; afterwards slot t and the observations of slot t + 1 are written.
   * `mean` [N*A] raw; `logStd` [A] or [N*A] raw, null for no noise at all.
   */
  step(t: number, mean: Float32Array, logStd: Float32Array | null): Promise<void> | void;
  /** Ends the segment; afterwards every array can be read. */
  end(): Promise<void> | void;
  /** The exact state between segments. */
  snapshot(): Promise<Uint8Array>;
  restore(state: Uint8Array): Promise<void>;
  /** Frees the batch. The tensors must not be used any more. */
  close(): Promise<void>;
}

/** The simulator is gone or refused. One line: which one, what happened, what to do. */
export class SimulationError extends Error {
  override name = "SimulationError";
  /** @param code status the learner's own caller gets */
  constructor(message: string, readonly code: Code = Code.UNAVAILABLE, options?: ErrorOptions) {
    super(message, options);
  }
}

export function createBatchRequest(
  options: BatchOptions,
  transport: Transport,
): CreateBatchRequest {
  const { meanBounds, logStdBounds } = options;
  // The message has one clamp for all; an unbounded side is as wide as float32 can say.
  const widest = [-3e38, 3e38] as const;
  const actionBounds = meanBounds === null && logStdBounds === null ? undefined : {
    meanLow: (meanBounds ?? widest)[0],
    meanHigh: (meanBounds ?? widest)[1],
    logStdLow: (logStdBounds ?? widest)[0],
    logStdHigh: (logStdBounds ?? widest)[1],
  };
  return create(CreateBatchRequestSchema, {
    model: options.model,
    task: options.program,
    nominals: options.nominals,
    auxiliariesPerNominal: options.auxiliaries,
    horizon: options.horizon,
    seed: options.seed,
    actionBounds,
    transport,
    precision: Precision.FLOAT32,
    label: options.label,
    views: options.views?.map(viewMessage),
    poses: options.poses,
  });
}

export function viewMessage(view: View): MessageInitShape<typeof ViewSchema> {
  return { ...view, name: arrayName(view), kind: ImageKind.RGB };
}

/** A camera may have any name; an array's is [a-z][a-z0-9_]{0,39}. */
function arrayName({ camera, name = camera }: View): string {
  const plain = name.toLowerCase().replace(/[^a-z0-9_]/g, "_");
  return (/^[a-z]/.test(plain) ? plain : `c${plain}`).slice(0, 40);
}

const dtypes = new Map<WireDtype, Dtype>([
  [WireDtype.FLOAT32, "float32"],
  [WireDtype.FLOAT64, "float64"],
  [WireDtype.INT32, "int32"],
  [WireDtype.INT64, "int64"],
  [WireDtype.UINT8, "uint8"],
]);

/**
 * Checks the layout a simulator answered with and views each array through `view`.
 *
 * @throws SimulationError naming the array whose shape or type differs from the contract.
 */
export function viewBuffer(
  options: BatchOptions,
  layout: CreateBatchResponse,
  view: ViewAt,
): { tensors: RolloutTensors; sizes: BatchSizes } {
  const shapes = new Map(
    layout.tensors.map((t) => [t.name, (t.tensor?.shape ?? []).map(Number)]),
  );
  const last = (name: string) => shapes.get(name)?.at(-1) ?? 0;
  const members = 1 + options.auxiliaries;
  const sizes: BatchSizes = {
    nominals: options.nominals,
    auxiliaries: options.auxiliaries,
    members,
    environments: options.nominals * members,
    horizon: options.horizon,
    actions: last("action"),
    privileged: last("privileged"),
    actor: last("actor"),
    rewardTerms: last("reward_terms"),
  };
  const { environments: E, horizon: T, nominals: N, actions: A, privileged: P, actor: O } = sizes;
  const K = sizes.rewardTerms;
  const array = (name: string, dtype: Dtype, shape: number[]) =>
    viewArray(layout.tensors, name, dtype, shape, view);
  const tensors: RolloutTensors = {
    privileged: array("privileged", "float32", [T + 1, E, P]),
    privilegedSuccessor: array("privileged_successor", "float32", [T, E, P]),
    actor: array("actor", "float32", [T + 1, N, O]),
    noise: array("noise", "float32", [T, E, A]),
    action: array("action", "float32", [T, E, A]),
    reward: array("reward", "float32", [T, E]),
    rewardTerms: array("reward_terms", "float32", [T, E, K]),
    terminated: array("terminated", "uint8", [T, E]),
    truncated: array("truncated", "uint8", [T, E]),
    done: array("done", "uint8", [T, E]),
    fault: array("fault", "uint8", [T, E]),
    progress: array("progress", "int32", [T, E]),
    images: viewImages(options, layout.tensors, view),
  };
  return { tensors, sizes };
}

type ViewAt = (dtype: Dtype, shape: number[], offsetBytes: number, name: string) => Tensor;

/** The images of all views, by camera or the name given, wherever they were laid out. */
export function viewImages(
  { views = [], horizon, nominals }: BatchOptions,
  laidOut: readonly BufferTensor[],
  view: ViewAt,
): Map<string, Tensor> {
  return new Map(views.map((each) => {
    const shape = [horizon, nominals, each.frames * 3, each.height, each.width];
    const tensor = viewArray(laidOut, `image/${arrayName(each)}`, "uint8", shape, view);
    return [each.name ?? each.camera, tensor];
  }));
}

/** Checks that an array is laid out as expected, and views it. */
function viewArray(
  laidOut: readonly BufferTensor[],
  name: string,
  dtype: Dtype,
  shape: number[],
  view: ViewAt,
): Tensor {
  const found = laidOut.find((t) => t.name === name);
  const foundDtype = found?.tensor === undefined ? undefined : dtypes.get(found.tensor.dtype);
  const foundShape = found?.tensor?.shape.map(Number);
  if (found === undefined || foundDtype !== dtype || String(foundShape) !== String(shape)) {
    throw new SimulationError(
      `Cannot use the simulator's rollout buffer: expected ${name} ${dtype} [${shape}], ` +
        `got ${foundDtype ?? "nothing"} [${foundShape ?? ""}]; rebuild gpu-sim`,
    );
  }
  return view(dtype, shape, Number(found.offsetBytes), name);
}

export { Transport };
