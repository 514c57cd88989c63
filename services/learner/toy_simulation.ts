// A simulator small enough to check by hand, for tests of the learner: a point on a line, pushed by
// tanh(action). It follows the contract of proto/sdpg/sim/v1 (groups, resets, truncation, one rollout
// buffer), so the learner cannot tell it from gpu-sim.
//
//   v' = v + 0.1 u,  x' = x + 0.1 v',  reward = -x'^2 - 0.01 u^2 in two terms

import { create } from "@bufbuild/protobuf";
import { type TaskProgram, TaskProgramSchema } from "@proto/sdpg/task/v1/task_pb.ts";
import { Phases } from "./phases.ts";
import { type BatchSizes, disposeTensors, type Simulation, type View } from "./simulation.ts";
import { type Dtype, fromPointer, type Tensor } from "./torch/mod.ts";

export interface ToyOptions {
  nominals: number;
  auxiliaries: number;
  horizon: number;
  seed: bigint;
  /** Control steps after which an episode is truncated. */
  episodeLength: number;
  /** |x| beyond which an episode terminates. */
  limit: number;
  /** Draws pictures of the nominals: a bright column where the point is. */
  views?: readonly View[];
  /** Replaces the noise of (step, environment). */
  noise?: (t: number, e: number) => number;
}

export function toyProgram(options: ToyOptions): TaskProgram {
  return create(TaskProgramSchema, {
    name: "toy",
    contentHash: "toy-program",
    actionSize: 1,
    episodeLength: options.episodeLength,
    observations: [
      { name: "state", length: 2, actor: true, privileged: true, normalise: true },
    ],
    rewards: [{ name: "position" }, { name: "effort" }],
  });
}

/** Five numbers an environment keeps. */
const STATE = 3; // x, v, progress

export function simulateToy(options: ToyOptions): Simulation & { state: Float64Array } {
  const { nominals: N, auxiliaries: M, horizon: T, episodeLength, limit } = options;
  const G = M + 1;
  const E = N * G;
  const sizes: BatchSizes = {
    nominals: N,
    auxiliaries: M,
    members: G,
    environments: E,
    horizon: T,
    actions: 1,
    privileged: 2,
    actor: 2,
    rewardTerms: 2,
  };
  const owned: ArrayBufferView[] = [];
  function view<
    B extends Float32Array<ArrayBuffer> | Uint8Array<ArrayBuffer> | Int32Array<ArrayBuffer>,
  >(
    values: B,
    dtype: Dtype,
    shape: number[],
  ) {
    owned.push(values);
    return { values, tensor: fromPointer(Deno.UnsafePointer.of(values)!, dtype, shape) };
  }
  const float = (...shape: number[]) =>
    view(new Float32Array(shape.reduce((a, b) => a * b)), "float32", shape);
  const bytes = (...shape: number[]) =>
    view(new Uint8Array(shape.reduce((a, b) => a * b)), "uint8", shape);
  const buffer = {
    privileged: float(T + 1, E, 2),
    privilegedSuccessor: float(T, E, 2),
    actor: float(T + 1, N, 2),
    noise: float(T, E, 1),
    action: float(T, E, 1),
    reward: float(T, E),
    rewardTerms: float(T, E, 2),
    terminated: bytes(T, E),
    truncated: bytes(T, E),
    done: bytes(T, E),
    fault: bytes(T, E),
    progress: view(new Int32Array(T * E), "int32", [T, E]),
  };

  const views = options.views ?? [];
  const images = views.map(({ frames, width, height }) => ({
    array: bytes(T, N, 3 * frames, height, width),
    stacks: new Uint8Array(N * 3 * frames * height * width), // newest, one after the other
  }));

  const state = new Float64Array(E * STATE);
  const episodes = new Float64Array(N);
  let epochNow = 0;

  const isFresh = new Uint8Array(N);
  let pending = true; // the stacks do not show the present state yet
  const fresh = (k: number) => {
    const random = keyed(options.seed, 1, k, episodes[k]++);
    state.set([0.1 * random(), 0, 0], k * G * STATE);
    isFresh[k] = 1;
    pending = true;
  };
  /** Draws what is pending and copies the stacks to slot t, if there is one. */
  const look = (t: number) => {
    if (t === T) return;
    views.forEach(({ frames, width, height }, i) => {
      const { array, stacks } = images[i];
      const frame = 3 * width * height;
      for (let k = 0; pending && k < N; k++) {
        const stack = stacks.subarray(k * frames * frame, (k + 1) * frames * frame);
        stack.copyWithin(0, frame);
        const column = Math.floor(width * (0.5 + 0.5 * Math.tanh(2 * state[k * G * STATE])));
        const newest = stack.subarray((frames - 1) * frame);
        for (let p = 0; p < frame; p++) newest[p] = p % width === column ? 255 : 20;
        for (let f = 0; isFresh[k] && f + 1 < frames; f++) stack.set(newest, f * frame);
        simulation.imagesDrawn++;
      }
      array.values.set(stacks, t * stacks.length);
    });
    isFresh.fill(0);
    pending = false;
  };
  const copy = (from: number, to: number) =>
    state.copyWithin(to * STATE, from * STATE, (from + 1) * STATE);
  const observe = (slot: number) => {
    for (let e = 0; e < E; e++) {
      const observation = state.subarray(e * STATE, e * STATE + 2);
      buffer.privileged.values.set(observation, (slot * E + e) * 2);
      if (e % G === 0) buffer.actor.values.set(observation, (slot * N + e / G) * 2);
    }
  };
  for (let k = 0; k < N; k++) fresh(k);

  const tensors = {
    ...Object.fromEntries(Object.entries(buffer).map(([name, { tensor }]) => [name, tensor])),
    images: new Map<string, Tensor>(views.map(({ camera }, i) => [camera, images[i].array.tensor])),
  } as unknown as Simulation["tensors"];
  const simulation: Simulation & { state: Float64Array } = {
    sizes,
    views,
    state,
    tensors,
    imagesDrawn: 0,
    bytes: { buffer: 0, state: state.byteLength },
    timings: new Phases(),
    begin(epoch, reset) {
      epochNow = epoch;
      for (let k = 0; k < N; k++) {
        if (reset) fresh(k);
        for (let i = 1; i < G; i++) copy(k * G, k * G + i);
      }
      observe(0);
      look(0);
    },
    step(t, mean, logStd) {
      const done = buffer.done.values.subarray(t * E, (t + 1) * E).fill(0);
      for (let e = 0; e < E; e++) {
        const k = Math.floor(e / G);
        const at = t * E + e;
        const noise = logStd === null || e % G === 0
          ? 0
          : options.noise?.(t, e) ?? normal(keyed(options.seed, 2 + t, e, epochNow));
        const m = Math.min(2, Math.max(-2, mean[k]));
        const sigma = logStd === null
          ? 0
          : Math.exp(Math.min(2, Math.max(-5, logStd[logStd.length === N ? k : 0])));
        const action = Math.min(2, Math.max(-2, m + sigma * noise));
        const u = Math.tanh(action);
        const s = state.subarray(e * STATE, (e + 1) * STATE);
        s[1] += 0.1 * u;
        s[0] += 0.1 * s[1];
        s[2]++;
        const terms = [-s[0] * s[0], -0.01 * u * u];
        const terminated = Math.abs(s[0]) > limit;
        buffer.noise.values[at] = noise;
        buffer.action.values[at] = action;
        buffer.rewardTerms.values.set(terms, at * 2);
        buffer.reward.values[at] = Math.fround(terms[0]) + Math.fround(terms[1]);
        buffer.terminated.values[at] = Number(terminated);
        buffer.truncated.values[at] = Number(!terminated && s[2] >= episodeLength);
        buffer.progress.values[at] = s[2];
        buffer.privilegedSuccessor.values.set(s.subarray(0, 2), at * 2);
        done[e] = Number(terminated || s[2] >= episodeLength);
      }
      for (let k = 0; k < N; k++) {
        const ended = done[k * G] === 1;
        if (ended) fresh(k);
        for (let i = 1; i < G; i++) {
          if (!ended && done[k * G + i] === 0) continue;
          copy(k * G, k * G + i);
          done[k * G + i] = 1;
        }
      }
      observe(t + 1);
      pending = true;
      look(t + 1);
    },
    end() {},
    snapshot: () =>
      Promise.resolve(
        new Uint8Array(
          Float64Array.from([
            ...state,
            ...episodes,
            ...isFresh,
            Number(pending),
            ...images.flatMap(({ stacks }) => [...stacks]),
          ]).buffer,
        ),
      ),
    restore(saved) {
      let values = new Float64Array(saved.slice().buffer);
      const take = (count: number) => {
        const taken = values.subarray(0, count);
        values = values.subarray(count);
        return taken;
      };
      state.set(take(state.length));
      episodes.set(take(N));
      isFresh.set(take(N));
      pending = take(1)[0] === 1;
      for (const { stacks } of images) stacks.set(take(stacks.length));
      return Promise.resolve();
    },
    close() {
      disposeTensors(tensors);
      owned.length = 0;
      return Promise.resolve();
    },
  };
  return simulation;
}

/** Uniform numbers in (0, 1) keyed by what they are for: mulberry32 over a mixed key. */
function keyed(seed: bigint, ...parts: number[]): () => number {
  let a = Number(BigInt.asUintN(32, seed)) | 0;
  for (const part of parts) a = Math.imul(a ^ part, 0x9e3779b1) + 0x7f4a7c15 | 0;
  return () => {
    a = a + 0x6d2b79f5 | 0;
    let t = Math.imul(a ^ a >>> 15, 1 | a);
    t = t + Math.imul(t ^ t >>> 7, 61 | t) ^ t;
    return ((t ^ t >>> 14) >>> 0) / 4294967296 + 2 ** -33;
  };
}

function normal(uniform: () => number): number {
  return Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}
