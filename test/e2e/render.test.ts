// ./sdpg render: the same picture for the same seed, videos with or without ffmpeg, nothing left behind.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { inflateSync } from "node:zlib";
import { afterAll, expect, test } from "vitest";
import { sdpg, temporaryHome } from "./command.ts";

const home = temporaryHome();
afterAll(() => home[Symbol.asyncDispose]());

const size = ["--size", "40x30"];

/** Draws to a file of a name; its bytes. */
async function drawn(name: string, ...args: string[]): Promise<Uint8Array> {
  const out = join(home.path, name);
  const { code, stdout, stderr } = await sdpg(home.path, "render", ...args, ...size, "--out", out);
  expect(stderr).toBe("");
  expect([code, stdout.trim()]).toEqual([0, out]);
  return readFileSync(out);
}

/** Width, height and the bytes of the rows of a PNG with one block of data. */
function png(bytes: Uint8Array): { width: number; height: number; rows: Uint8Array } {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = data.getUint32(33);
  return {
    width: data.getUint32(16),
    height: data.getUint32(20),
    rows: inflateSync(bytes.subarray(41, 41 + length)),
  };
}

test("the same seed and steps draw the same picture, others another", async () => {
  const start = await drawn("a.png", "hopper");
  expect(await drawn("b.png", "hopper")).toEqual(start);
  expect(await drawn("c.png", "hopper", "--seed", "1")).not.toEqual(start);
  // Across the border of a segment, after which the picture is the next one's first.
  const later = await Promise.all(
    [3, 4, 5, 4].map((n, i) => drawn(`later${i}.png`, "hopper", "--steps", String(n))),
  );
  expect(later[1]).toEqual(later[3]);
  expect(new Set([start, ...later].map(String)).size).toBe(4);
  expect(png(start)).toMatchObject({ width: 40, height: 30 });
});

test("several cameras stand side by side, and every kind can be drawn", async () => {
  const both = await drawn("both.png", "walker", "--camera", "side,wide");
  expect(png(both)).toMatchObject({ width: 84, height: 30 });
  const kinds = await Promise.all(
    ["rgb", "depth", "segmentation"].map((kind) => drawn(`${kind}.png`, "walker", "--kind", kind)),
  );
  expect(new Set(kinds.map(String)).size).toBe(3);
  for (const kind of kinds) expect(new Set(png(kind).rows).size).toBeGreaterThan(4);
});

test(
  "a video has every other frame, or they are kept with a line that says what to do",
  async () => {
    const out = join(home.path, "walk.mp4");
    const { code, stdout, stderr } = await sdpg(
      home.path,
      ...["render", "ant", "--steps", "9", ...size, "--out", out],
    );
    expect(code).toBe(0);
    // 100 control steps a second, 50 frames: before steps 0, 2, 4, 6 and 8.
    if (existsSync(out)) {
      expect(stdout.trim()).toBe(`${out}: 5 frames`);
      expect(stderr).toBe("");
    } else {
      const frames = join(home.path, "walk-frames");
      expect(stdout.trim()).toBe(`${frames}: 5 frames`);
      expect(stderr).toMatch(/^sdpg: ffmpeg is not installed.*apt-get install ffmpeg.*\n$/);
      expect(readdirSync(frames).length).toBe(5);
    }
  },
);

test("a file that cannot be written is one line", async () => {
  const out = join(home.path, "no/such/folder.png");
  const { code, stderr } = await sdpg(home.path, "render", "hopper", ...size, "--out", out);
  expect([code, stderr.trim().split("\n").length]).toEqual([1, 1]);
  expect(stderr).toContain(`Cannot write ${out}`);
});
