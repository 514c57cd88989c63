// The same bits, whatever the number of threads, the place of an environment in its batch, and the
// run: rollouts of 1000 control steps of every task, compared by their hashes.
import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { listTasks, loadTask, type Task } from "@sdpg/tasks/mod.ts";
import { Batch } from "./batch.ts";
import { Core } from "./core.ts";
import { generator } from "./states.ts";

const SEED = 2026;
const SEGMENTS = 10;
const HORIZON = 100;
const NOMINALS = 5;
const AUXILIARIES = 6; // 35 environments: groups straddle blocks, the last block is not full

/** SHA-256 over the rollout buffer after every segment. */
function rolloutHash(task: Task, threads: number): string {
  using batch = new Batch({
    model: task.model,
    task: task.program,
    nominals: NOMINALS,
    auxiliariesPerNominal: AUXILIARIES,
    horizon: HORIZON,
    seed: BigInt(SEED),
  }, threads);
  const next = generator(SEED);
  const hash = createHash("sha256");
  const logStd = new Float32Array(task.actionSize).fill(-0.5);
  for (let segment = 0; segment < SEGMENTS; segment++) {
    batch.begin(segment, false);
    for (let t = 0; t < HORIZON; t++) {
      const mean = Float32Array.from(
        { length: NOMINALS * task.actionSize },
        () => 2 * next() - 1,
      );
      batch.step(t, mean, logStd);
    }
    batch.end();
    for (const { values } of batch.tensors.values()) {
      hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    }
  }
  return hash.digest("hex");
}

/**
 * SHA-256 over the states of one environment that is put at `place` of `environments`; the others
 * start elsewhere, are driven otherwise and differ from call to call.
 */
function trajectoryHash(task: Task, place: number, environments: number, threads: number): string {
  const { model } = task;
  using core = new Core(model, environments, "float32", "", threads);
  const own = generator(SEED);
  const others = generator(SEED + 1 + place);
  const rows = (length: number, one: () => number, other: () => number) =>
    Array.from(
      { length: environments },
      (_, e) => Array.from({ length }, e === place ? one : other),
    );
  const around = (next: () => number, scale: number) => () => scale * (2 * next() - 1);
  const free = model.joints!.type[0] === 0;
  const qpos = rows(core.nq, around(own, 0.3), around(others, 0.6)).map((row) =>
    row.map((offset, i) => {
      const start = model.qpos0[i] + offset;
      return free && i >= 3 && i < 7 ? start + (i === 3 ? 1 : 0) : start;
    })
  );
  core.set(qpos, rows(core.nv, around(own, 1), around(others, 3)), rows(core.nu, own, others));
  const hash = createHash("sha256");
  for (let t = 0; t < SEGMENTS * HORIZON; t++) {
    core.setCtrl(rows(core.nu, around(own, 0.7), around(others, 1)));
    core.step(2);
    if (t % 20 !== 19) continue;
    const state = core.get();
    hash.update(Float64Array.from([...state[place].qpos, ...state[place].qvel]));
  }
  return hash.digest("hex");
}

describe.each(listTasks())("%s", (name) => {
  test("rolls out to the same bits on 1 and 2 threads, run after run", async () => {
    const task = await loadTask(name);
    const hash = rolloutHash(task, 1);
    expect(rolloutHash(task, 2)).toBe(hash);
    expect(rolloutHash(task, 2)).toBe(hash);
    // The hash does tell rollouts apart.
    const other = await loadTask(name === "hopper" ? "walker" : "hopper");
    expect(rolloutHash(other, 1)).not.toBe(hash);
  });

  test("an environment moves alike at any place of a batch, beside anybody", async () => {
    const task = await loadTask(name);
    const places: [place: number, environments: number, threads: number][] = [
      [0, 1, 1],
      [0, 33, 1],
      [7, 33, 2],
      [15, 16, 1],
      [32, 33, 2],
    ];
    const hashes = places.map(([place, count, threads]) =>
      trajectoryHash(task, place, count, threads)
    );
    expect(new Set(hashes).size).toBe(1);
  });
});
