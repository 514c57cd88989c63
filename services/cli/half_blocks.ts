// Pictures as text: every character is an upper half block, whose foreground is one pixel and whose
// background the one below it. A character is about twice as high as wide, so pixels are squares.

import type { Picture } from "../evaluation/video.ts";

const escape = "\x1b[";

/**
 * Lines of a picture; an odd last row of pixels is left out.
 *
 * @param trueColour 24 bits a colour; else the nearest of xterm's cube of 216 colours and 24 greys
 */
export function halfBlocks({ width, height, rgb }: Picture, trueColour: boolean): string[] {
  const colour = (x: number, y: number) => {
    const [r, g, b] = rgb.subarray(3 * (y * width + x), 3 * (y * width + x) + 3);
    return trueColour ? `2;${r};${g};${b}` : `5;${nearest256(r, g, b)}`;
  };
  const lines: string[] = [];
  for (let y = 0; y + 1 < height; y += 2) {
    let line = "";
    let before = "";
    for (let x = 0; x < width; x++) {
      // A colour is said where it changes: most pixels are like their neighbours.
      const colours = `38;${colour(x, y)};48;${colour(x, y + 1)}`;
      line += colours === before ? "▀" : `${escape}${colours}m▀`;
      before = colours;
    }
    lines.push(`${line}${escape}0m`);
  }
  return lines;
}

/** Values of the six levels of a channel of xterm's colour cube. */
const levels = [0, 95, 135, 175, 215, 255];

/** Number of the nearest of xterm's colours 16 to 255. */
function nearest256(r: number, g: number, b: number): number {
  const level = (v: number) =>
    levels.reduce((best, l, i) => Math.abs(l - v) < Math.abs(levels[best] - v) ? i : best, 0);
  const cube = [level(r), level(g), level(b)];
  const grey = Math.min(23, Math.max(0, Math.round(((r + g + b) / 3 - 8) / 10)));
  const distance = (x: number, y: number, z: number) => (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2;
  const value = 8 + 10 * grey;
  return distance(value, value, value) < distance(levels[cube[0]], levels[cube[1]], levels[cube[2]])
    ? 232 + grey
    : 16 + 36 * cube[0] + 6 * cube[1] + cube[2];
}

/** A picture at another size, each pixel the mean of the area that it covers. */
export function scaled(
  { width, height, rgb }: Picture,
  toWidth: number,
  toHeight: number,
): Picture {
  const out = new Uint8Array(3 * toWidth * toHeight);
  for (let y = 0; y < toHeight; y++) {
    for (let x = 0; x < toWidth; x++) {
      const [left, right] = [x * width / toWidth, (x + 1) * width / toWidth];
      const [top, bottom] = [y * height / toHeight, (y + 1) * height / toHeight];
      const sum = [0, 0, 0];
      for (let j = Math.floor(top); j < bottom; j++) {
        for (let i = Math.floor(left); i < right; i++) {
          const share = (Math.min(right, i + 1) - Math.max(left, i)) *
            (Math.min(bottom, j + 1) - Math.max(top, j));
          for (let c = 0; c < 3; c++) sum[c] += share * rgb[3 * (j * width + i) + c];
        }
      }
      const area = (right - left) * (bottom - top);
      for (let c = 0; c < 3; c++) out[3 * (y * toWidth + x) + c] = Math.round(sum[c] / area);
    }
  }
  return { width: toWidth, height: toHeight, rgb: out };
}

/** Pictures in a row, all of one height, as large as fits. */
export function fitted(pictures: readonly Picture[], width: number, height: number): Picture[] {
  const ratios = pictures.map((picture) => picture.width / picture.height);
  const room = width - gap * (pictures.length - 1);
  const high = Math.floor(Math.min(height, room / ratios.reduce((a, b) => a + b, 0)) / 2) * 2;
  return pictures.map((picture, i) =>
    scaled(picture, Math.max(1, Math.floor(high * ratios[i])), Math.max(2, high))
  );
}

/** Characters between two pictures. */
const gap = 1;

/** Lines of pictures of one height beside each other. */
export function besideEachOther(pictures: readonly Picture[], trueColour: boolean): string[] {
  const columns = pictures.map((picture) => halfBlocks(picture, trueColour));
  return columns[0].map((_, row) => columns.map((lines) => lines[row]).join(" ".repeat(gap)));
}
