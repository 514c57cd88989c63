import { afterEach, beforeEach, expect, test } from "vitest";
import { join } from "node:path";
import {
  type CheckpointContent,
  CheckpointError,
  Checkpoints,
  disk,
  hashState,
  openCheckpoint,
  openGroups,
  type Storage,
} from "./checkpoint.ts";
import { fromArray, liveTensors, scope } from "./torch/mod.ts";

let directory: string;
beforeEach(() => directory = Deno.makeTempDirSync());
afterEach(() => Deno.removeSync(directory, { recursive: true }));

/** A small checkpoint; its tensors belong to the caller's scope. */
function content(epoch: number): CheckpointContent {
  return {
    epoch,
    groups: new Map([
      ["actor", new Map([["weight", fromArray(Float32Array.of(epoch, 2, -0), [3])]])],
      ["counters", new Map([["counters", fromArray(new Float64Array([epoch, 1e300]), [2])]])],
    ]),
    simulation: Uint8Array.from({ length: 300 }, (_, i) => i * epoch),
    meta: { seed: "18446744073709551615", best: null, wall_time_s: 0.1 + epoch },
  };
}

function write(checkpoints: Checkpoints, epoch: number, best = false): string {
  using _scope = scope();
  return checkpoints.write(content(epoch), { best });
}

function epochOfNewest(checkpoints: Checkpoints) {
  const { checkpoint, skipped } = checkpoints.newest();
  return { epoch: checkpoint.epoch, skipped };
}

test("a checkpoint reads back bit for bit", () => {
  const before = liveTensors();
  {
    using _scope = scope();
    const written = content(7);
    const path = new Checkpoints(directory).write(written);
    expect(path).toBe(join(directory, "00000007"));
    const read = openCheckpoint(path);
    const groups = read.groups();
    expect(read.meta).toEqual(written.meta);
    expect(read.simulation).toEqual(written.simulation);
    expect(hashState(groups, read.simulation)).toBe(hashState(written.groups, written.simulation));
    expect(Object.is(groups.get("actor")!.get("weight")!.toArray()[2], -0)).toBe(true);
  }
  expect(liveTensors()).toBe(before);
});

test("openGroups() reads the groups that are chosen, and damage elsewhere is nothing to it", () => {
  const path = write(new Checkpoints(directory), 7);
  Deno.removeSync(join(path, "simulation.bin"));
  expect(() => openCheckpoint(path)).toThrow("simulation.bin is missing");
  const seen: string[][] = [];
  const read = (...groups: string[]) =>
    openGroups(path, (there) => {
      seen.push([...there].sort());
      return groups;
    });
  {
    using _scope = scope();
    expect([...read("actor").groups().keys()]).toEqual(["actor"]);
    expect(seen[0]).toEqual([...content(7).groups.keys()].sort());
  }
  expect(() => read("average")).toThrow("average.safetensors is not listed");
  Deno.writeFileSync(join(path, "actor.safetensors"), new Uint8Array(3));
  expect(() => read("actor")).toThrow(/actor\.safetensors has 3 bytes, expected \d+/);
});

test("the two newest are kept, and the best", () => {
  const checkpoints = new Checkpoints(directory);
  for (const epoch of [1, 2, 3, 4, 5]) write(checkpoints, epoch, epoch === 2);
  const names = [...Deno.readDirSync(directory)].map((e) => e.name).sort();
  expect(names).toEqual(["00000002", "00000004", "00000005", "best"]);
  expect(checkpoints.bestPath()).toBe(join(directory, "00000002"));
  expect(checkpoints.newestPath()).toBe(join(directory, "00000005"));
});

test("without any checkpoint newest() says so", () => {
  expect(() => new Checkpoints(join(directory, "none")).newest()).toThrow(CheckpointError);
  expect(() => new Checkpoints(join(directory, "none")).newest()).toThrow("there is no checkpoint");
});

test("every flipped bit, truncation and missing file is found, and the one before is used", () => {
  const checkpoints = new Checkpoints(directory);
  write(checkpoints, 1);
  const path = write(checkpoints, 2);
  const seed = 20261122;
  let random = seed;
  const draw = (n: number) => (random = (random * 1103515245 + 12345) % 2147483648) % n;
  for (const { name } of Deno.readDirSync(path)) {
    const file = join(path, name);
    const whole = Deno.readFileSync(file);
    const expectFallback = (what: string) => {
      const { epoch, skipped } = epochOfNewest(checkpoints);
      expect(epoch, `${what} of ${name}, seed ${seed}`).toBe(1);
      expect(skipped).toHaveLength(1);
      expect(skipped[0]).toContain(path);
    };
    // Every bit of small files would take minutes; 40 positions drawn from the seed, first and last.
    const positions = [
      0,
      whole.length - 1,
      ...Array.from({ length: 40 }, () => draw(whole.length)),
    ];
    for (const at of positions) {
      const damaged = whole.slice();
      damaged[at] ^= 1 << draw(8);
      Deno.writeFileSync(file, damaged);
      expectFallback(`bit flip at ${at}`);
    }
    for (const length of [0, 1, whole.length >> 1, whole.length - 1]) {
      Deno.writeFileSync(file, whole.subarray(0, length));
      expectFallback(`truncation to ${length}`);
    }
    Deno.writeFileSync(file, new Uint8Array([...whole, 0]));
    expectFallback("a byte too many");
    Deno.removeSync(file);
    expectFallback("absence");
    Deno.writeFileSync(file, whole);
    expect(epochOfNewest(checkpoints)).toEqual({ epoch: 2, skipped: [] });
  }
});

test("two files swapped are found", () => {
  const checkpoints = new Checkpoints(directory);
  const path = write(checkpoints, 1);
  const [a, b] = ["actor.safetensors", "counters.safetensors"].map((name) => join(path, name));
  Deno.renameSync(a, `${a}.moved`);
  Deno.renameSync(b, a);
  Deno.renameSync(`${a}.moved`, b);
  expect(() => checkpoints.newest()).toThrow("every checkpoint is damaged");
});

test("a failure of any disk operation leaves the previous checkpoint valid and the next one possible", () => {
  write(new Checkpoints(directory), 1);
  const operations = ["makeDirectory", "writeSynced", "syncDirectory", "rename", "remove"] as const;
  for (let failing = 0;; failing++) {
    // The k-th disk operation fails as a full disk does; from then on everything works again.
    let count = 0;
    const failingDisk: Storage = { ...disk };
    for (const name of operations) {
      failingDisk[name] = ((...args: [string, never]) => {
        if (count++ === failing) throw new Error("No space left on device (os error 28)");
        return (disk[name] as (...a: unknown[]) => void)(...args);
      }) as never;
    }
    const checkpoints = new Checkpoints(directory, failingDisk);
    let failed = false;
    try {
      write(checkpoints, 2, true);
    } catch (error) {
      failed = true;
      expect(error).toBeInstanceOf(CheckpointError);
      expect((error as Error).message).toContain("No space left on device");
      // Old or new, never a part.
      const { epoch, skipped } = epochOfNewest(new Checkpoints(directory));
      expect([1, 2]).toContain(epoch);
      expect(skipped).toEqual([]);
    }
    write(new Checkpoints(directory), 2, true);
    expect(epochOfNewest(new Checkpoints(directory))).toEqual({ epoch: 2, skipped: [] });
    expect([...Deno.readDirSync(directory)].filter((e) => e.name.startsWith("tmp-"))).toEqual([]);
    Deno.removeSync(join(directory, "00000002"), { recursive: true });
    if (!failed && count <= failing) break;
  }
});

test("a crash after each disk operation leaves an old or a new checkpoint, never a part", () => {
  write(new Checkpoints(directory), 1);
  for (let last = 0;; last++) {
    let count = 0;
    class Crash extends Error {}
    const crashing: Storage = { ...disk };
    for (
      const name of ["makeDirectory", "writeSynced", "syncDirectory", "rename", "remove"] as const
    ) {
      crashing[name] = ((...args: unknown[]) => {
        // After the crash nothing reaches the disk any more, cleaning up included.
        if (count++ >= last) throw new Crash();
        return (disk[name] as (...a: unknown[]) => void)(...args);
      }) as never;
    }
    try {
      write(new Checkpoints(directory, crashing), 2);
    } catch (error) {
      expect(error).toBeInstanceOf(CheckpointError);
    }
    const { epoch, skipped } = epochOfNewest(new Checkpoints(directory));
    expect([1, 2]).toContain(epoch);
    expect(skipped).toEqual([]);
    if (count <= last) break;
    if (epoch === 2) Deno.removeSync(join(directory, "00000002"), { recursive: true });
  }
});
