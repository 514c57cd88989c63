// The spool on its own: what it gives back after a kill, a cut and a flipped byte.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { crc32 } from "node:zlib";
import { type Part, Spool, SpoolFull } from "./spool.ts";

let directory: string;
beforeEach(() => directory = Deno.makeTempDirSync({ prefix: "sdpg-spool-" }));
afterEach(() => Deno.removeSync(directory, { recursive: true }));

const part = (text: string, table = "scalars"): Part => ({
  table,
  rows: 1,
  format: "Native",
  bytes: new TextEncoder().encode(text),
});
const open = (limits = {}) => Spool.open(directory, limits);
const files = () => [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
/** Opens again as after a kill: nothing is closed. */
const textsOf = (spool: Spool) =>
  spool.pending.map((spooled) =>
    spool.read(spooled).map(({ table, bytes }) => `${table}:${new TextDecoder().decode(bytes)}`)
  );
/** The oldest batch goes to the store. */
const storeOne = async (spool: Spool) => await spool.done(await spool.begin(1, 1));

describe("Spool", () => {
  test("gives back what was not done, in order", async () => {
    const { spool } = open();
    await spool.append(["a"], [part("1\n")]);
    await storeOne(spool);
    await spool.append(["b", "c"], [part("1\n"), part("2\n", "otel_logs")]);
    await spool.append([], [part("ü\n")]);
    expect([spool.pendingRows, spool.oldestPending, spool.newest]).toEqual([3, 2, 3]);
    const { spool: again, damaged } = open();
    expect(damaged).toEqual([]);
    expect(textsOf(again)).toEqual([["scalars:1\n", "otel_logs:2\n"], ["scalars:ü\n"]]);
    expect(["a", "b", "c", "d"].map((id) => again.has(id))).toEqual([true, true, true, false]);
  });
  test("a group that was begun stays the same group with the same token, also after a kill", async () => {
    const { spool } = open();
    for (const text of ["1", "2", "3"]) await spool.append([], [part(text)]);
    const { token, batches } = await spool.begin(2, Infinity);
    expect(batches.map(({ sequence }) => sequence)).toEqual([1, 2]);
    await spool.append([], [part("4")]);
    expect(await spool.begin(100, Infinity)).toEqual({ token, batches });
    const { spool: again } = open();
    const group = await again.begin(100, Infinity);
    expect(group.token).toBe(token);
    expect(group.batches.map(({ sequence }) => sequence)).toEqual([1, 2]);
    await again.done(group);
    const { spool: third } = open();
    const rest = await third.begin(100, Infinity);
    expect(rest.token).not.toBe(token);
    expect(rest.batches.map(({ sequence }) => sequence)).toEqual([3, 4]);
    expect((await third.begin(1, 1)).batches.length).toBe(2); // what was begun is not made smaller
  });
  test("reads what an earlier checkout wrote: a batch is a group with its own token", async () => {
    const frame = (head: unknown, rows = "") => {
      const payload = new TextEncoder().encode(JSON.stringify(head) + "\n" + rows);
      const bytes = new Uint8Array(8 + payload.length);
      const view = new DataView(bytes.buffer);
      view.setUint32(0, payload.length, true);
      view.setUint32(4, crc32(payload), true);
      bytes.set(payload, 8);
      return bytes;
    };
    const batch = (n: number, token: string) =>
      frame({ batch: n, token, ids: [`id-${n}`], parts: [["scalars", 1, 4]] }, "[1]\n");
    const frames = [
      frame({ seen: ["old"] }),
      batch(1, "one"),
      batch(2, "two"),
      frame({ done: 1, forget: [] }),
      batch(3, "three"),
    ];
    Deno.writeFileSync(
      `${directory}/00000001.spool`,
      Uint8Array.from(frames.flatMap((f) => [...f])),
    );
    const { spool } = open();
    await spool.append([], [part("4")]);
    for (const token of ["two", "three"]) {
      const group = await spool.begin(100, Infinity);
      expect([group.token, group.batches.length]).toEqual([token, 1]);
      expect(spool.read(group.batches[0])[0].format).toBe("JSONCompactEachRow");
      await spool.done(group);
    }
    expect((await spool.begin(100, Infinity)).batches.map(({ sequence }) => sequence)).toEqual([4]);
    expect(spool.has("old") && spool.has("id-3")).toBe(true);
  });
  test("removes segments that are done, and remembers their requests", async () => {
    const { spool } = open({ segmentBytes: 400 });
    await spool.append(["kept"], [part("k".repeat(300) + "\n")]);
    const oldest = await spool.begin(1, 1);
    for (let i = 0; i < 20; i++) await spool.append([`id-${i}`], [part("x".repeat(300) + "\n")]);
    expect(files().length).toBeGreaterThan(15); // the oldest is still needed
    await spool.done(oldest);
    await spool.done(await spool.begin(100, Infinity));
    expect(files().length).toBeLessThan(3);
    const { spool: again } = open({ segmentBytes: 400 });
    expect(again.has("id-0") && again.has("kept")).toBe(true);
    expect(again.pending).toEqual([]);
    // Numbers go on: a later batch is not taken for an earlier one.
    await again.append([], [part("new\n")]);
    expect(textsOf(open().spool)).toEqual([["scalars:new\n"]]);
  });
  test("a frame that was cut off is as if it had not been written, wherever the cut is", async () => {
    const { spool } = open();
    await spool.append(["a"], [part("first\n")]);
    const path = `${directory}/00000001.spool`;
    const before = Deno.statSync(path).size;
    await spool.append(["b"], [part("second\n")]);
    const whole = Deno.readFileSync(path);
    for (let length = before; length < whole.length; length += 7) {
      Deno.removeSync(directory, { recursive: true });
      Deno.mkdirSync(directory);
      Deno.writeFileSync(path, whole.subarray(0, length));
      const { spool: again, damaged } = open();
      expect(damaged).toEqual([]);
      expect(textsOf(again)).toEqual([["scalars:first\n"]]);
      expect(again.has("b")).toBe(false);
    }
  });
  test("a flipped byte is found, told, and costs only its own batch", async () => {
    const { spool } = open({ keptBytes: 0 });
    await spool.append([], [part("one\n")]);
    await spool.append([], [part("two\n")]);
    await spool.append([], [part("three\n")]);
    const two = spool.pending[1];
    const path = `${directory}/00000001.spool`;
    const bytes = Deno.readFileSync(path);
    bytes[two.offset + two.length - 2] ^= 1;
    Deno.writeFileSync(path, bytes);
    expect(() => spool.read(two)).toThrow(/checksum is wrong/);
    const { spool: again, damaged } = open();
    expect(damaged).toEqual([`${path} at byte ${two.offset - 8}`]);
    expect(textsOf(again)).toEqual([["scalars:one\n"], ["scalars:three\n"]]);
  });
  test("takes nothing beyond its bound", async () => {
    const { spool } = open({ maxBytes: 1000 });
    await spool.append([], [part("x".repeat(600) + "\n")]);
    await expect(spool.append(["a"], [part("y".repeat(600) + "\n")])).rejects.toBeInstanceOf(
      SpoolFull,
    );
    expect(spool.has("a")).toBe(false);
    expect(spool.pending.map((each) => each.sequence)).toEqual([1]);
  });
});
