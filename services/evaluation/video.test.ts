// Frames and videos: PNG bytes decoded by the format's own rules, layout and letters by hand, and what
// ffmpeg is given, by a stand-in that keeps it.
import { Buffer } from "node:buffer";
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, inflateSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import {
  drawText,
  encodePng,
  fromDepth,
  fromPlanes,
  fromSegmentation,
  type Picture,
  sideBySide,
  textHeight,
  VideoError,
  VideoWriter,
} from "./video.ts";

const folder = mkdtempSync(join(tmpdir(), "sdpg-video-"));
afterAll(() => rmSync(folder, { recursive: true }));

function noise(width: number, height: number): Picture {
  const rgb = Uint8Array.from({ length: 3 * width * height }, (_, i) => (i * i * 31 + 7 * i) % 251);
  return { width, height, rgb };
}

/** Reads a PNG of 8-bit RGB whose rows all use the filters 0 (none) or 2 (up). */
function decode(bytes: Uint8Array): Picture {
  const data = Buffer.from(bytes);
  expect(data.subarray(0, 8).toString("latin1")).toBe("\x89PNG\r\n\x1a\n");
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < data.length;) {
    const length = data.readUInt32BE(at);
    const body = data.subarray(at + 4, at + 8 + length);
    expect(data.readUInt32BE(at + 8 + length)).toBe(crc32(body));
    chunks.set(body.toString("latin1", 0, 4), body.subarray(4));
    at += 12 + length;
  }
  expect([...chunks.keys()]).toEqual(["IHDR", "IDAT", "IEND"]);
  const header = chunks.get("IHDR")!;
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  expect([...header.subarray(8)]).toEqual([8, 2, 0, 0, 0]);
  const rows = inflateSync(chunks.get("IDAT")!);
  expect(rows.length).toBe(height * (3 * width + 1));
  const rgb = new Uint8Array(3 * width * height);
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (3 * width + 1)];
    expect([0, 2]).toContain(filter);
    for (let i = 0; i < 3 * width; i++) {
      const above = y > 0 && filter === 2 ? rgb[(y - 1) * 3 * width + i] : 0;
      rgb[y * 3 * width + i] = rows[y * (3 * width + 1) + 1 + i] + above;
    }
  }
  return { width, height, rgb };
}

function pixel({ width, rgb }: Picture, x: number, y: number): number[] {
  return [...rgb.subarray(3 * (y * width + x), 3 * (y * width + x) + 3)];
}

test("encodePng() keeps every pixel", () => {
  for (const [width, height] of [[1, 1], [7, 5], [84, 84]]) {
    const picture = noise(width, height);
    expect(decode(encodePng(picture))).toEqual(picture);
  }
});

test("fromPlanes(), fromDepth() and fromSegmentation() make pictures of image arrays", () => {
  expect(fromPlanes(Uint8Array.of(1, 2, 3, 4, 5, 6), 2, 1).rgb).toEqual(
    Uint8Array.of(1, 3, 5, 2, 4, 6),
  );
  expect(fromDepth(Float32Array.of(0, 5, 10, 40), 4, 1, 10).rgb).toEqual(
    Uint8Array.of(255, 255, 255, 128, 128, 128, 0, 0, 0, 0, 0, 0),
  );
  const ids = fromSegmentation(Int32Array.of(-1, 3, 4, 3), 2, 2);
  expect(pixel(ids, 0, 0)).toEqual([0, 0, 0]);
  expect(pixel(ids, 1, 0)).toEqual(pixel(ids, 1, 1));
  expect(pixel(ids, 1, 0)).not.toEqual(pixel(ids, 0, 1));
  expect(Math.min(...pixel(ids, 1, 0), ...pixel(ids, 0, 1))).toBeGreaterThanOrEqual(64);
});

test("sideBySide() enlarges the lower picture by a whole factor and centres it", () => {
  const [small, big] = [noise(3, 2), noise(4, 5)];
  const both = sideBySide([small, big], 1);
  expect([both.width, both.height]).toEqual([3 * 2 + 1 + 4, 5]);
  for (let y = 0; y < 4; y++) {
    for (let x = 0; x < 6; x++) {
      expect(pixel(both, x, y)).toEqual(pixel(small, x >> 1, y >> 1));
    }
  }
  expect(pixel(both, 0, 4)).toEqual([24, 24, 24]); // 4 of 5 rows: the odd one is below
  expect(pixel(both, 6, 2)).toEqual([24, 24, 24]); // the gap
  expect(pixel(both, 7, 0)).toEqual(pixel(big, 0, 0));
  expect(pixel(both, 10, 4)).toEqual(pixel(big, 3, 4));
});

describe("drawText()", () => {
  test("draws the letters of the font on a darkened box and nothing outside it", () => {
    const picture = { width: 20, height: 14, rgb: new Uint8Array(3 * 20 * 14).fill(200) };
    drawText(picture, ["L1"], { left: 1, top: 1, scale: 1 });
    const rows = Array.from(
      { length: 14 },
      (_, y) =>
        Array.from(
          { length: 20 },
          (_, x) => ({ 255: "#", 50: ".", 200: " " })[pixel(picture, x, y)[0]],
        )
          .join("").trimEnd(),
    );
    expect(rows).toEqual([
      "",
      " ...............",
      " ...............",
      " ..#.......#....",
      " ..#......##....",
      " ..#.......#....",
      " ..#.......#....",
      " ..#.......#....",
      " ..#.......#....",
      " ..#####..###...",
      " ...............",
      " ...............",
      "",
      "",
    ]);
    expect(textHeight(1, 1)).toBe(11);
  });

  test("cuts off what does not fit", () => {
    const picture = noise(10, 10);
    drawText(picture, ["a long line", "and more"], { left: -5, top: 4, scale: 3 });
    expect(picture.rgb.length).toBe(300);
    expect(pixel(picture, 9, 3)).toEqual(pixel(noise(10, 10), 9, 3));
  });
});

describe("VideoWriter", () => {
  /** A program that stands for ffmpeg. */
  function program(name: string, script: string): string {
    const path = join(folder, name);
    writeFileSync(path, `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  }

  test("gives ffmpeg every frame through a pipe, with size and rate", async () => {
    const tool = program("keeps", 'for last; do :; done; echo "$@" >"$last.args"; cat >"$last"');
    const out = join(folder, "kept.mp4");
    const writer = new VideoWriter(out, 25, tool);
    const frames = [noise(4, 2), noise(4, 2), noise(4, 2)];
    for (const frame of frames) await writer.write(frame);
    expect(await writer.close()).toEqual({ path: out, frames: 3 });
    expect(readFileSync(out)).toEqual(Buffer.concat(frames.map(({ rgb }) => rgb)));
    expect(readFileSync(`${out}.args`, "utf8")).toMatch(
      /-f rawvideo -pix_fmt rgb24 -s 4x2 -framerate 25 -i - .*libx264/,
    );
  });

  test("keeps the frames as PNG and says how to get the video where there is no ffmpeg", async () => {
    const writer = new VideoWriter(join(folder, "walk.webp"), 20, "no-such-ffmpeg");
    const frames = [noise(4, 2), noise(4, 2)];
    frames[1].rgb[0] ^= 255;
    for (const frame of frames) await writer.write(frame);
    const { path, frames: count, note } = await writer.close();
    expect([path, count]).toEqual([join(folder, "walk-frames"), 2]);
    expect(readdirSync(path)).toEqual(["frame-000000.png", "frame-000001.png"]);
    expect(decode(readFileSync(join(path, "frame-000001.png")))).toEqual(frames[1]);
    expect(note).toMatch(
      /no-such-ffmpeg is not installed.* ffmpeg -framerate 20 -i '.*frame-%06d\.png' .*walk\.webp'$/,
    );
  });

  test("says with ffmpeg's last words why it failed", async () => {
    const writer = new VideoWriter(
      join(folder, "x.gif"),
      20,
      program("fails", 'cat >/dev/null; echo first >&2; echo "no such encoder" >&2; exit 3'),
    );
    await writer.write(noise(4, 2));
    await expect(writer.close()).rejects.toThrow(
      /Cannot write .*x\.gif: ffmpeg ended with exit code 3: no such encoder/,
    );
  });

  test("says so when ffmpeg goes away while frames are written", async () => {
    const writer = new VideoWriter(join(folder, "y.gif"), 20, program("goes", "exit 4"));
    const frames = async () => {
      for (let i = 0; i < 50; i++) await writer.write(noise(200, 200));
      await writer.close();
    };
    await expect(frames()).rejects.toThrow(/ended with exit code 4: it said nothing/);
    await writer.abort();
  });

  test("refuses other endings, frames of another size and videos without frames", async () => {
    expect(() => new VideoWriter("a.avi", 20)).toThrow(/ends with \.mp4, \.webp, \.gif/);
    const writer = new VideoWriter(join(folder, "z.gif"), 20, "no-such-ffmpeg");
    await expect(writer.close()).rejects.toThrow(VideoError);
    await writer.write(noise(4, 2));
    await expect(writer.write(noise(2, 4))).rejects.toThrow(/frame 1 .*expected 4x2, got 2x4/);
  });

  test("removes what it has begun when it is given up", async () => {
    const tool = program("begins", 'for last; do :; done; echo begun >"$last"; cat >/dev/null');
    const out = join(folder, "aborted.mp4");
    const writer = new VideoWriter(out, 25, tool);
    await writer.write(noise(4, 2));
    while (!existsSync(out)) await new Promise((resolve) => setTimeout(resolve, 10));
    await writer.abort();
    expect(existsSync(out)).toBe(false);
  });
});
