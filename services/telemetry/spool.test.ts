// The spool on its own: what it gives back after a kill, a cut and a flipped byte.

import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Part, Spool, SpoolFull } from "./spool.ts";

let directory: string;
beforeEach(() => directory = Deno.makeTempDirSync({ prefix: "sdpg-spool-" }));
afterEach(() => Deno.removeSync(directory, { recursive: true }));

const part = (text: string, table = "scalars"): Part => ({
  table,
  rows: 1,
  bytes: new TextEncoder().encode(text),
});
const open = (limits = {}) => Spool.open(directory, limits);
const files = () => [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
/** Opens again as after a kill: nothing is closed. */
const textsOf = (spool: Spool) =>
  spool.pending.map((spooled) =>
    spool.read(spooled).parts.map(({ table, bytes }) =>
      `${table}:${new TextDecoder().decode(bytes)}`
    )
  );

describe("Spool", () => {
  test("gives back what was not done, in order, with its token", async () => {
    const { spool } = open();
    const first = await spool.append(["a"], [part("1\n"), part("2\n", "otel_logs")]);
    const second = await spool.append(["b", "c"], [part("ü\n")]);
    await spool.append([], [part("3\n")]);
    await spool.done(second.sequence);
    const { spool: again, damaged } = open();
    expect(damaged).toEqual([]);
    expect(textsOf(again)).toEqual([["scalars:1\n", "otel_logs:2\n"], ["scalars:3\n"]]);
    expect(again.read(again.pending[0]).token).toBe(first.batch.token);
    expect(["a", "b", "c", "d"].map((id) => again.has(id))).toEqual([true, true, true, false]);
  });
  test("forgets the requests of a batch that was refused", async () => {
    const { spool } = open();
    const { sequence } = await spool.append(["a"], [part("1\n")]);
    await spool.refused(sequence, ["a"]);
    expect(spool.has("a")).toBe(false);
    const { spool: again } = open();
    expect([again.has("a"), again.pending]).toEqual([false, []]);
  });
  test("removes segments that are done, and remembers their requests", async () => {
    const { spool } = open({ segmentBytes: 400 });
    const kept = await spool.append(["kept"], [part("k".repeat(300) + "\n")]);
    for (let i = 0; i < 20; i++) {
      const { sequence } = await spool.append([`id-${i}`], [part("x".repeat(300) + "\n")]);
      await spool.done(sequence);
    }
    expect(files().length).toBeGreaterThan(15); // the oldest is still needed
    await spool.done(kept.sequence);
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
    const { spool } = open();
    await spool.append([], [part("one\n")]);
    const two = await spool.append([], [part("two\n")]);
    await spool.append([], [part("three\n")]);
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
    const { sequence } = await spool.append([], [part("x".repeat(600) + "\n")]);
    await expect(spool.append(["a"], [part("y".repeat(600) + "\n")])).rejects.toBeInstanceOf(
      SpoolFull,
    );
    expect(spool.has("a")).toBe(false);
    expect(spool.pending.map((each) => each.sequence)).toEqual([sequence]);
  });
});
