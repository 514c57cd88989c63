import { expect, test } from "vitest";
import type { Picture } from "../evaluation/video.ts";
import { besideEachOther, fitted, halfBlocks, scaled } from "./half_blocks.ts";

const [red, blue, black, white] = [[255, 0, 0], [0, 0, 255], [0, 0, 0], [255, 255, 255]];

function picture(rows: number[][][]): Picture {
  return { width: rows[0].length, height: rows.length, rgb: Uint8Array.from(rows.flat(2)) };
}

test("halfBlocks() puts two rows into a line and says a colour where it changes", () => {
  const lines = halfBlocks(picture([[red, red, blue], [black, black, black]]), true);
  expect(lines).toEqual([
    "\x1b[38;2;255;0;0;48;2;0;0;0m▀▀\x1b[38;2;0;0;255;48;2;0;0;0m▀\x1b[0m",
  ]);
});

test("halfBlocks() takes the nearest of xterm's colours where there are no others", () => {
  // 196, 21, 16 and 231 are the corners of the cube; 128 lies beside grey 244 (#808080).
  expect(halfBlocks(picture([[red, white], [blue, black]]), false)).toEqual([
    "\x1b[38;5;196;48;5;21m▀\x1b[38;5;231;48;5;16m▀\x1b[0m",
  ]);
  expect(halfBlocks(picture([[[128, 128, 128]], [[96, 0, 134]]]), false)[0])
    .toContain("38;5;244;48;5;54m"); // 16 + 36 * 1 + 0 + 2
});

test("scaled() takes means over areas, also of parts of pixels", () => {
  const wide = picture([[[0, 0, 0], [90, 30, 3], [30, 90, 6]]]);
  expect([...scaled(wide, 1, 1).rgb]).toEqual([40, 40, 3]);
  // The middle pixel is shared half and half.
  expect([...scaled(wide, 2, 1).rgb]).toEqual([30, 10, 1, 50, 70, 5]);
  expect(scaled(wide, 3, 1)).toEqual(wide);
  expect([...scaled(wide, 6, 2).rgb.subarray(18, 24)]).toEqual([0, 0, 0, 0, 0, 0]);
});

test("fitted() fills the width or the height, whichever is reached first", () => {
  const flat = (width: number, height: number): Picture => ({
    width,
    height,
    rgb: new Uint8Array(3 * width * height),
  });
  const sizes = (width: number, height: number) =>
    fitted([flat(42, 42), flat(320, 240)], width, height).map((p) => [p.width, p.height]);
  expect(sizes(80, 44)).toEqual([[32, 32], [42, 32]]);
  expect(sizes(300, 44)).toEqual([[44, 44], [58, 44]]);
  const lines = besideEachOther(fitted([flat(42, 42), flat(320, 240)], 80, 44), true);
  expect(lines.length).toBe(16);
  // deno-lint-ignore no-control-regex
  for (const line of lines) expect(line.replaceAll(/\x1b\[[\d;]*m/g, "").length).toBe(32 + 1 + 42);
});
