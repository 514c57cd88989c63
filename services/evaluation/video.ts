// Frames and what is made of them: pictures of the simulator's image arrays, several views side by
// side, words in them, PNG files, and videos by ffmpeg, which gets the frames through a pipe. Where
// there is no ffmpeg the frames are kept as PNG files, with a line that says how to make the video.
import { createHash } from "node:crypto";
import { Buffer } from "node:buffer";
import { extname, join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { glyphHeight, glyphPixel, glyphWidth } from "./font.ts";

/** Pixels, rows from the top down. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array; // [height, width, 3]
}

export type Colour = readonly [red: number, green: number, blue: number]; // 0 to 255

/** A picture that cannot be made or written; one line. */
export class VideoError extends Error {
  override readonly name = "VideoError";
}

// ---------------------------------------------------------------------- from the image arrays

/** Of one RGB frame as the simulator draws it: uint8 [3, height, width]. */
export function fromPlanes(planes: Uint8Array, width: number, height: number): Picture {
  const pixels = width * height;
  const rgb = new Uint8Array(3 * pixels);
  for (let c = 0; c < 3; c++) {
    for (let p = 0; p < pixels; p++) rgb[3 * p + c] = planes[c * pixels + p];
  }
  return { width, height, rgb };
}

/** Of one depth frame, float32 [height, width] in m: white at 0, black at `far` and beyond. */
export function fromDepth(
  depth: Float32Array,
  width: number,
  height: number,
  far: number,
): Picture {
  const rgb = new Uint8Array(3 * width * height);
  depth.forEach((z, p) => rgb.fill(Math.round(255 * Math.max(0, 1 - z / far)), 3 * p, 3 * p + 3));
  return { width, height, rgb };
}

/** Of one segmentation frame, int32 [height, width] of geom ids: a colour each, black for none. */
export function fromSegmentation(ids: Int32Array, width: number, height: number): Picture {
  const rgb = new Uint8Array(3 * width * height);
  const colours = new Map<number, Uint8Array>();
  ids.forEach((id, p) => {
    if (id < 0) return;
    let colour = colours.get(id);
    if (!colour) {
      // Bright enough to differ from the background, and the same for an id in every picture.
      colour = createHash("sha256").update(String(id)).digest().subarray(0, 3)
        .map((v) => 64 + v * 191 / 255);
      colours.set(id, colour);
    }
    rgb.set(colour, 3 * p);
  });
  return { width, height, rgb };
}

// ------------------------------------------------------------------------------------- layout

const backdrop = 24;

/**
 * Pictures in a row, as high as the highest. Lower ones are enlarged by whole factors, so that their
 * pixels stay squares, and stand in the middle.
 */
export function sideBySide(pictures: readonly Picture[], gap = 4): Picture {
  const height = Math.max(...pictures.map((picture) => picture.height));
  const factors = pictures.map((picture) => Math.floor(height / picture.height));
  const width = pictures.reduce((sum, p, i) => sum + factors[i] * p.width, 0) +
    gap * (pictures.length - 1);
  const rgb = new Uint8Array(3 * width * height).fill(backdrop);
  let left = 0;
  pictures.forEach((picture, i) => {
    const f = factors[i];
    const top = Math.floor((height - f * picture.height) / 2);
    for (let y = 0; y < f * picture.height; y++) {
      for (let x = 0; x < f * picture.width; x++) {
        const from = 3 * (Math.floor(y / f) * picture.width + Math.floor(x / f));
        rgb.set(picture.rgb.subarray(from, from + 3), 3 * ((top + y) * width + left + x));
      }
    }
    left += f * picture.width + gap;
  });
  return { width, height, rgb };
}

/** Height of lines drawn at a scale, in pixels. */
export function textHeight(lines: number, scale: number): number {
  return scale * (lines * (glyphHeight + 2) + 2);
}

/**
 * Writes lines into a picture, white on a darkened box, from (left, top) on. What does not fit is cut
 * off. ASCII; `scale` is the size of one of the font's pixels.
 */
export function drawText(
  picture: Picture,
  lines: readonly string[],
  { left = 0, top = 0, scale = 2, colour = [255, 255, 255] as Colour } = {},
): void {
  const { width, height, rgb } = picture;
  const boxWidth = scale * (Math.max(...lines.map((l) => l.length)) * (glyphWidth + 1) + 3);
  const boxHeight = textHeight(lines.length, scale);
  const inside = (x: number, y: number) => x >= 0 && x < width && y >= 0 && y < height;
  for (let y = top; y < top + boxHeight; y++) {
    for (let x = left; x < left + boxWidth; x++) {
      if (!inside(x, y)) continue;
      const at = 3 * (y * width + x);
      for (let c = 0; c < 3; c++) rgb[at + c] = rgb[at + c] >> 2;
    }
  }
  lines.forEach((line, row) => {
    for (let i = 0; i < line.length * (glyphWidth + 1) * glyphHeight; i++) {
      const [column, y] = [Math.floor(i / glyphHeight), i % glyphHeight];
      const [at, x] = [Math.floor(column / (glyphWidth + 1)), column % (glyphWidth + 1)];
      if (x === glyphWidth || !glyphPixel(line[at], x, y)) continue;
      for (let k = 0; k < scale * scale; k++) {
        const px = left + scale * (column + 2) + k % scale;
        const py = top + scale * (row * (glyphHeight + 2) + y + 2) + Math.floor(k / scale);
        if (inside(px, py)) rgb.set(colour, 3 * (py * width + px));
      }
    }
  });
}

// ---------------------------------------------------------------------------------------- PNG

/** The bytes of a PNG file. */
export function encodePng({ width, height, rgb }: Picture): Uint8Array {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8); // 8 bits of red, green and blue
  // Rows as differences to the row above, which flat colours make almost all zeros.
  const stride = 3 * width;
  const rows = Buffer.alloc((stride + 1) * height);
  for (let y = 0; y < height; y++) {
    const at = (stride + 1) * y;
    rows[at] = 2; // the filter "up"
    for (let i = 0; i < stride; i++) {
      rows[at + 1 + i] = rgb[y * stride + i] - (y > 0 ? rgb[(y - 1) * stride + i] : 0);
    }
  }
  const chunk = (type: string, data: Uint8Array) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(crc32(body), 4);
    return [ends.subarray(0, 4), body, ends.subarray(4)];
  };
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    ...chunk("IHDR", header),
    ...chunk("IDAT", deflateSync(rows, { level: 9 })),
    ...chunk("IEND", new Uint8Array()),
  ]);
}

// -------------------------------------------------------------------------------------- video

/** Arguments of ffmpeg that write a kind of file; all of them play again and again where that can be said. */
const formats: Record<string, readonly string[]> = {
  // Sizes of H.264 with its usual colours are even.
  ".mp4": [
    "-vf",
    "pad=ceil(iw/2)*2:ceil(ih/2)*2",
    "-c:v",
    "libx264",
    "-crf",
    "20",
    "-pix_fmt",
    "yuv420p",
    "-movflags",
    "+faststart",
  ],
  ".webp": ["-c:v", "libwebp_anim", "-lossless", "0", "-quality", "75", "-loop", "0"],
  ".gif": ["-vf", "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=none", "-loop", "0"],
};

/** Endings of the files a VideoWriter makes. */
export const videoEndings: readonly string[] = Object.keys(formats);

export interface WrittenVideo {
  /** The video, or the folder of its frames. */
  path: string;
  frames: number;
  /** Where there are only frames: a line that says why, and how to make the video of them. */
  note?: string;
}

/** Writes frames of one size to a video, one after another. */
export class VideoWriter {
  #frames = 0;
  #size: { width: number; height: number } | undefined;
  #child: Deno.ChildProcess | undefined;
  #input: WritableStreamDefaultWriter<Uint8Array> | undefined;
  #errors: Promise<string> | undefined;
  #ended = false;
  /** Where the frames go when there is no ffmpeg. */
  #folder: string | undefined;

  /**
   * @param path ends with one of `videoEndings`
   * @param framesPerSecond of the video
   * @param ffmpeg the program
   */
  constructor(
    private readonly path: string,
    private readonly framesPerSecond: number,
    private readonly ffmpeg = "ffmpeg",
  ) {
    if (!videoEndings.includes(extname(path))) {
      throw new VideoError(
        `Cannot write "${path}": expected a name that ends with ${videoEndings.join(", ")}`,
      );
    }
  }

  /** Adds a frame; resolves when ffmpeg has taken it, so that at most one waits in memory. */
  async write(picture: Picture): Promise<void> {
    const { width, height, rgb } = picture;
    this.#size ??= this.#open(width, height);
    if (width !== this.#size.width || height !== this.#size.height) {
      throw new VideoError(
        `Cannot add frame ${this.#frames} to ${this.path}: expected ${this.#size.width}x` +
          `${this.#size.height}, got ${width}x${height}`,
      );
    }
    if (this.#folder !== undefined) {
      await Deno.writeFile(join(this.#folder, frameName(this.#frames)), encodePng(picture));
    } else {
      await this.#input!.write(rgb).catch(() => this.#failed());
    }
    this.#frames++;
  }

  /** Finishes the file. */
  async close(): Promise<WrittenVideo> {
    if (this.#frames === 0) throw new VideoError(`Cannot write ${this.path}: it has no frames`);
    if (this.#folder !== undefined) {
      const frames = join(this.#folder, frameName(undefined));
      return {
        path: this.#folder,
        frames: this.#frames,
        note: `${this.ffmpeg} is not installed, so the frames are in ${this.#folder}; for the ` +
          `video: apt-get install ffmpeg, then ffmpeg -framerate ${this.framesPerSecond} -i ` +
          `'${frames}' ${formats[extname(this.path)].map(quoted).join(" ")} '${this.path}'`,
      };
    }
    await this.#input!.close().catch(() => this.#failed());
    if (!(await this.#child!.status).success) await this.#failed();
    return { path: this.path, frames: this.#frames };
  }

  /** Gives up: what has been written so far is removed where that can be. */
  async abort(): Promise<void> {
    if (this.#child === undefined) return;
    await this.#input!.abort().catch(() => {}); // It may have gone already.
    if (!this.#ended) this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#errors;
    await Deno.remove(this.path).catch(() => {}); // It may not have been begun.
  }

  #open(width: number, height: number) {
    try {
      this.#child = new Deno.Command(this.ffmpeg, {
        args: [
          ..."-v error -y -f rawvideo -pix_fmt rgb24".split(" "),
          "-s",
          `${width}x${height}`,
          "-framerate",
          String(this.framesPerSecond),
          "-i",
          "-",
          ...formats[extname(this.path)],
          this.path,
        ],
        stdin: "piped",
        stdout: "null",
        stderr: "piped",
      }).spawn();
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      this.#folder = this.path.slice(0, -extname(this.path).length) + "-frames";
      Deno.mkdirSync(this.#folder, { recursive: true });
      return { width, height };
    }
    this.#input = this.#child.stdin.getWriter();
    this.#errors = new Response(this.#child.stderr).text();
    void this.#child.status.then(() => this.#ended = true);
    return { width, height };
  }

  async #failed(): Promise<never> {
    const { code } = await this.#child!.status;
    const said = (await this.#errors!).trim().split("\n").at(-1) || "it said nothing";
    throw new VideoError(`Cannot write ${this.path}: ffmpeg ended with exit code ${code}: ${said}`);
  }
}

/** Name of a frame's file; without a number, ffmpeg's pattern of all of them. */
function frameName(index: number | undefined): string {
  return `frame-${index === undefined ? "%06d" : String(index).padStart(6, "0")}.png`;
}

function quoted(argument: string): string {
  return /^[\w+.:-]+$/.test(argument) ? argument : `'${argument}'`;
}
