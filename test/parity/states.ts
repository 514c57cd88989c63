// States the parity tests compare on: seeded, and of every kind that the dynamics distinguishes.
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import type { Oracle } from "./oracle.ts";

/** Kinds of states, drawn in turn. */
export const kinds = ["air", "touching", "deep", "limit", "folded"] as const;
export type Kind = (typeof kinds)[number];

export interface State {
  kind: Kind;
  qpos: number[];
  qvel: number[];
  ctrl: number[];
}

/** Deterministic generator of uniforms in [0, 1) (splitmix32). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}

/**
 * Random states of a robot whose root is either a slide along x, one along z and a pitch, or free,
 * followed by limited hinges. Heights are chosen so that the lowest point of what collides is where
 * the kind wants it. All numbers are float32 values, so that both precisions are given the same state.
 */
export function randomStates(
  oracle: Oracle,
  model: Model,
  count: number,
  seed: number,
): State[] {
  const next = generator(seed);
  const between = (low: number, high: number) => low + (high - low) * next();
  const { type, limited, range } = model.joints!;
  const free = type[0] === 0;
  const height = free ? 2 : 1;
  const ranges = limited.flatMap((has, j) => has ? [range.slice(2 * j, 2 * j + 2)] : []);
  return Array.from({ length: count }, (_, i) => {
    const kind = kinds[i % kinds.length];
    const joints = ranges.map(([low, high]) => {
      // Folded: near the ends, where parts of the robot may meet; limit: up to 0.1 rad beyond.
      if (kind === "limit") return next() < 0.5 ? low - between(0, 0.1) : high + between(0, 0.1);
      if (kind === "folded") return low + (high - low) * (next() < 0.7 ? 0.1 * next() : next());
      return between(low, high);
    });
    const root = free
      ? [between(-5, 5), between(-5, 5), 0, ...rotation(next)]
      : [between(-5, 5), 0, between(-Math.PI, Math.PI)];
    const qpos = [...root, ...joints].map(Math.fround);
    const gap = {
      air: 0.5,
      touching: -0.01 * next(),
      deep: -between(0.02, 0.08),
      limit: 0,
      folded: 0,
    };
    const lift = kind === "limit" || kind === "folded" ? between(-0.02, 0.5) : gap[kind];
    qpos[height] = Math.fround(lift - oracle.lowestPoint(qpos));
    const speed = [0.5, 3, 10][i % 3];
    return {
      kind,
      qpos,
      qvel: Array.from({ length: oracle.nv }, () => Math.fround(between(-speed, speed))),
      // A little beyond the range of the controls, to see them clamped.
      ctrl: Array.from({ length: oracle.nu }, () => Math.fround(between(-1.2, 1.2))),
    };
  });
}

/** A random unit quaternion, uniform over all rotations (Shoemake). */
function rotation(next: () => number): number[] {
  const [u, a, b] = [next(), 2 * Math.PI * next(), 2 * Math.PI * next()];
  const [r, s] = [Math.sqrt(1 - u), Math.sqrt(u)];
  return [r * Math.sin(a), r * Math.cos(a), s * Math.sin(b), s * Math.cos(b)];
}
