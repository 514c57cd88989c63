// Two renderers of the same model: ours through the C boundary of libgpu_sim.so, and MuJoCo's own
// through gpu-sim/tools/mujoco_render.cc, a process that answers states with pictures.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type Model, ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import { ImageKind, ViewSchema } from "@proto/sdpg/view/v1/view_pb.ts";
import { loadLibrary } from "./core.ts";

const built = (name: string) =>
  fileURLToPath(new URL(`../../build/gpu-sim/${name}`, import.meta.url));

/** Of one state and camera; rows from the top down. */
export interface Shown {
  rgb: Uint8Array; // [height, width, 3]
  depth: Float32Array; // [height, width] m along the camera's axis
  ids: Int32Array; // [height, width] geom, -1 for none
}

/** What both renderers are asked for. */
export interface Lens {
  width: number;
  height: number;
  /** Clipping planes, m. */
  near: number;
  far: number;
}

const symbols = {
  sdpg_render_open: {
    parameters: ["buffer", "usize", "buffer", "buffer", "usize"],
    result: "i32",
  },
  sdpg_render_draw: {
    parameters: [
      "pointer",
      "buffer",
      "usize",
      "buffer",
      "u64",
      "u32",
      "u64",
      "buffer",
      "buffer",
      "usize",
      "buffer",
      "usize",
    ],
    result: "i32",
  },
  sdpg_render_close: { parameters: ["pointer"], result: "void" },
} as const;

/** Our renderer. */
export class Pictures {
  private readonly lib = loadLibrary(symbols);
  private readonly scene: Deno.PointerValue;
  private readonly error = new Uint8Array(512);

  constructor(private readonly model: Model) {
    const bytes = toBinary(ModelSchema, model) as Uint8Array<ArrayBuffer>;
    const out = new BigUint64Array(1);
    this.check(this.lib.sdpg_render_open(bytes, BigInt(bytes.length), out, this.error, 512n));
    this.scene = Deno.UnsafePointer.create(out[0]);
  }

  [Symbol.dispose](): void {
    this.lib.sdpg_render_close(this.scene);
  }

  /** One frame of a view, as its bytes; `poses` [nbody, 7]. */
  frame(
    view: MessageInitShape<typeof ViewSchema>,
    poses: Float32Array<ArrayBuffer>,
    isa = "",
  ): Uint8Array<ArrayBuffer> {
    const { width = 0, height = 0, kind } = view;
    const pixels = new Uint8Array(width * height * (kind === ImageKind.RGB ? 3 : 4)).fill(0xcd);
    const bytes = toBinary(
      ViewSchema,
      create(ViewSchema, { name: "view", frames: 1, ...view }),
    ) as Uint8Array<ArrayBuffer>;
    this.check(
      this.lib.sdpg_render_draw(
        this.scene,
        bytes,
        BigInt(bytes.length),
        poses,
        0n,
        0,
        0n,
        new TextEncoder().encode(`${isa}\0`),
        pixels,
        BigInt(pixels.length),
        this.error,
        512n,
      ),
    );
    return pixels;
  }

  shown(camera: number, poses: Float32Array<ArrayBuffer>, lens: Lens): Shown {
    const view = { camera: this.model.cameras[camera].name, ...lens };
    const planes = this.frame({ ...view, kind: ImageKind.RGB }, poses);
    const pixels = lens.width * lens.height;
    const rgb = Uint8Array.from(planes, (_, i) => planes[i % 3 * pixels + Math.floor(i / 3)]);
    return {
      rgb,
      depth: new Float32Array(this.frame({ ...view, kind: ImageKind.DEPTH }, poses).buffer),
      ids: new Int32Array(this.frame({ ...view, kind: ImageKind.SEGMENTATION }, poses).buffer),
    };
  }

  private check(status: number): void {
    if (status === 0) return;
    const line = new TextDecoder().decode(this.error.subarray(0, this.error.indexOf(0)));
    throw new Error(`gpu-sim: status ${status}: ${line}`);
  }
}

/** Why MuJoCo's renderer cannot be asked, or undefined where it can. */
export function noMujocoPictures(): string | undefined {
  if (existsSync(built("mujoco_render"))) return undefined;
  return "build/gpu-sim/mujoco_render is missing: it needs libmujoco-dev and libosmesa6-dev, which " +
    "./sdpg test installs";
}

/** MuJoCo's renderer. */
export class MujocoPictures {
  private readonly child: Deno.ChildProcess;
  private readonly input: WritableStreamDefaultWriter<Uint8Array>;
  private readonly output: ReadableStreamBYOBReader;
  private readonly errors: Promise<string>;

  /** @param mjcfPath a model of MuJoCo 2.2.2, see `forOldMujoco` */
  constructor(mjcfPath: string, private readonly lens: Lens, quality = 200) {
    const { width, height, near, far } = lens;
    this.child = new Deno.Command(built("mujoco_render"), {
      args: [mjcfPath, ...[width, height, near, far, quality].map(String)],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.input = this.child.stdin.getWriter();
    this.output = this.child.stdout.getReader({ mode: "byob" });
    this.errors = new Response(this.child.stderr).text();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.input.close().catch(() => {}); // A process that has died took its pipe along.
    await this.output.cancel();
    await this.child.status;
    await this.errors;
  }

  async shown(camera: number, qpos: number[]): Promise<Shown> {
    const pixels = this.lens.width * this.lens.height;
    await this.input.write(new TextEncoder().encode(`${camera} ${qpos.join(" ")}\n`))
      .catch(() => {}); // The read says why.
    const bytes = new Uint8Array(11 * pixels);
    for (let at = 0; at < bytes.length;) {
      const { done, value } = await this.output.read(new Uint8Array(bytes.length - at));
      if (done) throw new Error(`mujoco_render ended: ${(await this.errors).trim()}`);
      bytes.set(value, at);
      at += value.length;
    }
    const { buffer } = bytes;
    return {
      rgb: new Uint8Array(buffer, 0, 3 * pixels),
      depth: new Float32Array(buffer.slice(3 * pixels, 7 * pixels)),
      ids: new Int32Array(buffer.slice(7 * pixels)),
    };
  }
}

/** The same model for MuJoCo 2.2.2, which has other words for kinds of lights. */
export function forOldMujoco(xml: string): string {
  const words: Record<string, string> = {
    directional: 'directional="true"',
    point: 'directional="false" cutoff="180"',
    spot: 'directional="false"',
  };
  return xml.replace(
    /(<light\b[^>]*?)\btype="(\w+)"/g,
    (_, before, kind) => `${before}${words[kind]}`,
  );
}

// --------------------------------------------------------------------------------- comparison

/** Agreement of two pictures of one state. */
export interface Agreement {
  /**
   * Per geom: pixels that show it in both pictures, and in any. Where two geoms lie in the same surface
   * (within the tolerance of depth) either may be shown, and the pixel counts as both.
   */
  geoms: { both: number; either: number }[];
  /** Pixels that show the same geom, and those of them not at its edge: all neighbours show it too. */
  same: number;
  inner: number;
  /** Of `same` and of `inner`, those whose depths differ by more than 1 mm and 0.1 %. */
  sameOff: number;
  innerOff: number;
  /** The largest difference of depth of an inner pixel, in units of that tolerance. */
  depth: number;
  /** Colours compared, how many differ by more than 3 of 255 in a channel, and the largest difference. */
  colours: number;
  coloursOff: number;
  colour: number;
  /** Where the worst are. */
  worst: string;
}

/** Difference of depth allowed at a depth, m. */
const allowed = (z: number) => Math.max(1e-3, 1e-3 * z);

/**
 * Where a checker is compared: half the side in pixels of the square that must show one colour, since
 * OpenGL blurs the edges, and the depths in m between which that tells them: nearer the blur is wider
 * than the square, farther a pixel of ours may hit any of several squares that OpenGL mixes.
 */
const CHECKER_REACH = 2;
const CHECKER_DEPTHS = [0.5, 5] as const;

/**
 * @param coloured what of a geom's colours to compare: all; of a checker, only away from the squares'
 *   edges, which OpenGL blurs; nothing
 */
export function agreement(
  ours: Shown,
  theirs: Shown,
  { width, height }: Lens,
  coloured: readonly ("all" | "checker" | "none")[],
): Agreement {
  const geoms = coloured.map(() => ({ both: 0, either: 0 }));
  const result: Agreement = {
    geoms,
    same: 0,
    inner: 0,
    sameOff: 0,
    innerOff: 0,
    depth: 0,
    colours: 0,
    coloursOff: 0,
    colour: 0,
    worst: "",
  };
  /** Whether all pixels up to `reach` away hold. */
  const around = (p: number, reach: number, holds: (q: number) => boolean): boolean => {
    const [x, y] = [p % width, Math.floor(p / width)];
    if (x < reach || y < reach || x >= width - reach || y >= height - reach) return false;
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) {
        if (!holds(p + dy * width + dx)) return false;
      }
    }
    return true;
  };
  /** The light of our tasks falls on all of the ground alike, so a square is of one colour. */
  const oneSquare = (p: number) =>
    theirs.depth[p] > CHECKER_DEPTHS[0] && theirs.depth[p] < CHECKER_DEPTHS[1] &&
    [ours, theirs].every(({ rgb }) =>
      around(
        p,
        CHECKER_REACH,
        (q) => [0, 1, 2].every((k) => Math.abs(rgb[3 * q + k] - rgb[3 * p + k]) <= 1),
      )
    );
  for (let p = 0; p < width * height; p++) {
    const [a, b] = [ours.ids[p], theirs.ids[p]];
    const off = Math.abs(ours.depth[p] - theirs.depth[p]) / allowed(theirs.depth[p]);
    const tie = a !== b && a >= 0 && b >= 0 && off <= 1;
    for (const id of a === b ? [a] : [a, b]) {
      if (id < 0) continue;
      geoms[id].either++;
      if (a === b || tie) geoms[id].both++;
    }
    if (a !== b || a < 0) continue;
    result.same++;
    if (off > 1) result.sameOff++;
    if (!around(p, 1, (q) => ours.ids[q] === a && theirs.ids[q] === a)) continue;
    result.inner++;
    const place = `geom ${a} at (${p % width}, ${Math.floor(p / width)})`;
    if (off > 1) result.innerOff++;
    if (off > result.depth) {
      result.depth = off;
      if (off > 1) result.worst = `${place}: ${ours.depth[p]} m, MuJoCo ${theirs.depth[p]} m`;
    }
    if (coloured[a] === "none" || (coloured[a] === "checker" && !oneSquare(p))) continue;
    result.colours++;
    const [mine, other] = [ours, theirs].map(({ rgb }) => rgb.subarray(3 * p, 3 * p + 3));
    const difference = Math.max(...[0, 1, 2].map((k) => Math.abs(mine[k] - other[k])));
    if (difference > 3) result.coloursOff++;
    if (difference > result.colour) {
      result.colour = difference;
      if (difference > 3) result.worst = `${place}: rgb ${mine}, MuJoCo ${other}`;
    }
  }
  return result;
}
