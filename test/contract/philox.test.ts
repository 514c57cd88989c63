// The noise of a batch, computed a second time from its description (gpu-sim/src/batch/philox.h): anyone
// can reproduce any number of a rollout from (seed, epoch, step, environment, dimension).

import { expect, test } from "vitest";
import { Batch } from "../parity/batch.ts";
import { loadTask } from "@sdpg/tasks/mod.ts";

/** High and low word of the product of two 32-bit words. */
function multiply(a: number, b: number): [high: number, low: number] {
  const product = BigInt(a) * BigInt(b);
  return [Number(product >> 32n), Number(product & 0xffffffffn)];
}

/** Philox4x32-10: four random words from a counter of four words under a 64-bit key. */
function philox(counter: number[], key: bigint): number[] {
  let [c0, c1, c2, c3] = counter;
  let k0 = Number(key & 0xffffffffn);
  let k1 = Number(key >> 32n);
  for (let round = 0; round < 10; round++) {
    const [high0, low0] = multiply(0xd2511f53, c0);
    const [high1, low1] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** Standard normal `dimension` of an environment at step t of an epoch. */
function noise(seed: bigint, epoch: number, t: number, environment: number, dimension: number) {
  const block = (Math.floor(dimension / 4) | (1 << 28)) >>> 0;
  const words = philox([block, environment, t, epoch], seed);
  const pair = dimension % 4 < 2 ? 0 : 2;
  const u1 = ((words[pair] >>> 8) + 0.5) * 2 ** -24;
  const angle = 2 * Math.PI * (words[pair + 1] >>> 8) * 2 ** -24;
  return Math.sqrt(-2 * Math.log(u1)) * (dimension % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
}

test("philox gives the known answers of its authors", () => {
  const hex = (words: number[]) => words.map((word) => word.toString(16).padStart(8, "0"));
  expect(hex(philox([0, 0, 0, 0], 0n))).toEqual(["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]);
  expect(
    hex(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], 0x299f31d0a4093822n)),
  ).toEqual(["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]);
});

test("a batch draws the documented noise, walker's six dimensions in two blocks", async () => {
  const { model, program } = await loadTask("walker");
  const seed = 0xfedcba9876543210n, epoch = 41, members = 3;
  using batch = new Batch({
    model,
    task: program,
    nominals: 5,
    auxiliariesPerNominal: members - 1,
    horizon: 4,
    seed,
  });
  const actions = program.actionSize;
  batch.begin(epoch, false);
  for (let t = 0; t < 4; t++) {
    batch.step(t, new Float32Array(5 * actions), new Float32Array(actions).fill(-1));
    for (let e = 0; e < 5 * members; e++) {
      const drawn = batch.row("noise", t, e);
      for (let j = 0; j < actions; j++) {
        const expected = e % members === 0 ? 0 : noise(seed, epoch, t, e, j);
        expect(drawn[j], `t ${t}, environment ${e}, dimension ${j}`).toBeCloseTo(expected, 5);
      }
    }
  }
  batch.end();
});
