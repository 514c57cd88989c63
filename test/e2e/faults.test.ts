// A fault of one environment from end to end: a number that is not finite is put into a nominal's
// state, in the simulator's part of a checkpoint, as a bug of the physics might leave it. The run
// that goes on from there tells of the fault, records it, and trains to its end.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { ask, events, sdpg, temporaryHome, tiny } from "./command.ts";

const home = temporaryHome();
afterAll(() => home[Symbol.asyncDispose]());

/** Bytes of a snapshot's header, and where its checksum is (gpu-sim/src/batch/snapshot.cc). */
const HEADER_BYTES = 160;
const CHECKSUM_AT = 24;

/** FNV-1a over the snapshot's body. */
function checksum(bytes: Uint8Array): bigint {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return hash;
}

const sha256 = (bytes: Uint8Array | string) => createHash("sha256").update(bytes).digest("hex");

/** Writes NaN over the first coordinate of environment 0, and mends every checksum on the way. */
function poison(checkpoint: string): void {
  const path = join(checkpoint, "simulation.bin");
  const bytes = Deno.readFileSync(path);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  expect(Number.isFinite(view.getFloat32(HEADER_BYTES, true))).toBe(true);
  view.setFloat32(HEADER_BYTES, NaN, true);
  view.setBigUint64(CHECKSUM_AT, checksum(bytes.subarray(HEADER_BYTES)), true);
  Deno.writeFileSync(path, bytes);
  const manifestPath = join(checkpoint, "manifest.json");
  const { manifest } = JSON.parse(Deno.readTextFileSync(manifestPath));
  manifest.files["simulation.bin"] = { bytes: bytes.length, sha256: sha256(bytes) };
  const line = JSON.stringify(manifest);
  Deno.writeTextFileSync(manifestPath, `{"manifest":${line},"sha256":"${sha256(line)}"}\n`);
}

test("a fault is a row of the store, and training goes on", async () => {
  const first = await sdpg(
    home.path,
    ...["train", "hopper", "--epochs=2", "--run=poisoned", "--json", ...tiny],
  );
  expect(first.code, first.stderr).toBe(0);
  poison(events(first.stdout).at(-1).checkpoint);

  const second = await sdpg(home.path, "resume", "poisoned", "--epochs=5", "--threads=1", "--json");
  expect(second.code, second.stderr).toBe(0);
  const told = events(second.stdout);
  const epochs = told.filter(({ event }) => event === "epoch");
  expect(epochs.map(({ epoch }) => epoch)).toEqual([3, 4, 5]);
  const scalars = await ask(
    home.path,
    `SELECT iteration, anyIf(value, name = 'faults/non_finite') AS faults,
       countIf(isNaN(value) OR isInfinite(value)) AS bad, anyIf(value, name = 'skipped_updates') AS skipped
     FROM scalars WHERE run_id = 'poisoned' GROUP BY iteration ORDER BY iteration`,
  );
  // Environment 0 is a nominal: its three auxiliaries began the segment as copies of it.
  expect(scalars.map(({ faults }) => faults)).toEqual([0, 0, 4, 0, 0]);
  for (const { bad, skipped } of scalars) expect([bad, skipped]).toEqual([0, 0]);

  const rows = await ask(
    home.path,
    "SELECT service, kind, iteration, count FROM faults WHERE run_id = 'poisoned'",
  );
  expect(rows).toEqual([{ service: "gpu-sim", kind: "non_finite", iteration: 3, count: 4 }]);
  const [run] = await ask(home.path, "SELECT state, epochs FROM runs WHERE run_id = 'poisoned'");
  expect(run).toEqual({ state: "done", epochs: 5 });
});
