// A shared memory object is a file under /dev/shm: what is written there is seen by the tensor, and the other way round.

import { afterEach, expect, test } from "vitest";
import { mapSharedMemory, scope } from "./mod.ts";

const name = `/sdpg-test-${Deno.pid}`;
const file = `/dev/shm${name}`;

afterEach(() => {
  try {
    Deno.removeSync(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
});

test("tensor() views the memory in place", () => {
  Deno.writeFileSync(file, new Uint8Array(new Float32Array([1, 2, 3, 4, 5, 6]).buffer));
  using memory = mapSharedMemory(name, 24);
  {
    using _s = scope();
    const t = memory.tensor("float32", [2, 2], 8);
    expect(Array.from(t.toArray() as Float32Array)).toEqual([3, 4, 5, 6]);
    t.mul_(10);
    expect(Array.from(new Float32Array(Deno.readFileSync(file).buffer))).toEqual([
      1,
      2,
      30,
      40,
      50,
      60,
    ]);
    expect(() => memory.tensor("float32", [2, 2], 12)).toThrow(/it ends at 28, the memory at 24/);
    expect(() => memory.tensor("float32", [1], 2)).toThrow(/not aligned/);
  }
});

test("mapSharedMemory() says what is wrong, and an unmapped object is refused", () => {
  expect(() => mapSharedMemory("/sdpg-no-such-object", 8)).toThrow(
    /map shared memory: \/sdpg-no-such-object: No such file/,
  );
  Deno.writeFileSync(file, new Uint8Array(8));
  expect(() => mapSharedMemory(name, 9)).toThrow(/at least 9 bytes, it has 8/);
  const memory = mapSharedMemory(name, 8);
  memory[Symbol.dispose]();
  memory[Symbol.dispose]();
  expect(() => memory.tensor("uint8", [8], 0)).toThrow(/unmapped/);
});
