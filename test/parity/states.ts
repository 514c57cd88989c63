// States the parity tests compare on: seeded, and of every kind that the dynamics distinguishes.
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
 * Random states of a planar robot whose coordinates are x, z, pitch and then limited hinges.
 * Heights are chosen so that the lowest point of the robot is where the kind wants it. All
 * numbers are float32 values, so that both precisions are given the same state.
 */
export function randomStates(
  oracle: Oracle,
  ranges: [number, number][],
  count: number,
  seed: number,
): State[] {
  const next = generator(seed);
  const between = (low: number, high: number) => low + (high - low) * next();
  return Array.from({ length: count }, (_, i) => {
    const kind = kinds[i % kinds.length];
    const joints = ranges.map(([low, high]) => {
      // Folded: near the ends, where parts of the robot may meet; limit: up to 0.1 rad beyond.
      if (kind === "limit") return next() < 0.5 ? low - between(0, 0.1) : high + between(0, 0.1);
      if (kind === "folded") return low + (high - low) * (next() < 0.7 ? 0.1 * next() : next());
      return between(low, high);
    });
    const qpos = [between(-5, 5), 0, between(-Math.PI, Math.PI), ...joints].map(Math.fround);
    const gap = {
      air: 0.5,
      touching: -0.01 * next(),
      deep: -between(0.02, 0.08),
      limit: 0,
      folded: 0,
    };
    const lift = kind === "limit" || kind === "folded" ? between(-0.02, 0.5) : gap[kind];
    qpos[1] = Math.fround(lift - oracle.lowestPoint(qpos));
    const speed = [0.5, 3, 10][i % 3];
    return {
      kind,
      qpos,
      qvel: qpos.map(() => Math.fround(between(-speed, speed))),
      // A little beyond the range of the controls, to see them clamped.
      ctrl: Array.from({ length: oracle.nu }, () => Math.fround(between(-1.2, 1.2))),
    };
  });
}
