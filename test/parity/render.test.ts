// Our pictures against those of MuJoCo's own renderer (2.2.2 through OSMesa): depth, silhouettes and
// colours of every task's cameras at the start of episodes and in random states, and of random scenes
// that hold every shape, kind of light and mode of camera. A failure prints the seed and where the
// worst pixel is; SDPG_RENDER_SEED=17 draws other states and scenes, SDPG_RENDER_STATES=10 fewer.
//
// MuJoCo draws triangles, so its round shapes are slightly smaller, and at their edges, where the
// surface turns away from the camera, the depth of few pixels may be off by more than the tolerance.
// Where two geoms lie in the same surface, which of them is seen is a matter of rounding.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import { compileModel } from "@sdpg/common/model/compile.ts";
import { Interpreter } from "@sdpg/common/task/interpret.ts";
import { loadTask } from "@sdpg/tasks/mod.ts";
import { Oracle } from "./oracle.ts";
import {
  type Agreement,
  agreement,
  forOldMujoco,
  type Lens,
  MujocoPictures,
  noMujocoPictures,
  Pictures,
} from "./pictures.ts";
import { randomScene } from "./scenes.ts";
import { generator, randomStates } from "./states.ts";

const SEED = Number(process.env.SDPG_RENDER_SEED ?? 2026);
const STATES = Number(process.env.SDPG_RENDER_STATES ?? 100);
/** Starts of episodes of every task, and states that the camera for people shows too. */
const STARTS = 3;
const WIDE = 5;
const SCENES = 6;
/** Slices of a round shape: at 200 our tolerances hold with room, at 100 just. */
const QUALITY = 120;

const lens: Lens = { width: 256, height: 256, near: 0.05, far: 50 };
const [PLANE, HFIELD, MESH] = [0, 1, 7];

const missing = noMujocoPictures();
if (missing !== undefined) console.warn(`render.test.ts is skipped: ${missing}`);

const folder = mkdtempSync(join(tmpdir(), "sdpg-render-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Pictures of many states, judged together. */
class Judge {
  readonly failures: string[] = [];
  readonly sums = { pictures: 0, same: 0, sameOff: 0, colours: 0, coloursOff: 0 };
  readonly largest = { depth: 0, colour: 0 };
  lowestOverlap = 1;

  /** @param off share of a picture's inner depths and of its colours that may be off */
  constructor(
    private readonly model: Model,
    private readonly off: { depths: number; colours: number },
  ) {}

  add(what: string, result: Agreement): void {
    this.sums.pictures++;
    for (const key of ["same", "sameOff", "colours", "coloursOff"] as const) {
      this.sums[key] += result[key];
    }
    this.largest.depth = Math.max(this.largest.depth, result.depth);
    this.largest.colour = Math.max(this.largest.colour, result.colour);
    if (result.innerOff > this.off.depths * result.inner) {
      this.failures.push(`${what}: depth of ${result.innerOff} pixels: ${result.worst}`);
    }
    if (result.coloursOff > this.off.colours * result.colours) {
      this.failures.push(`${what}: colours of ${result.coloursOff} pixels: ${result.worst}`);
    }
    result.geoms.forEach(({ both, either }, g) => {
      // A hundredth of a small geom is less than a pixel: two may differ in any.
      if (either - both <= 2) return;
      this.lowestOverlap = Math.min(this.lowestOverlap, both / either);
      if (both / either >= 0.99) return;
      const name = this.model.geoms!.name[g];
      this.failures.push(`${what}: silhouette of ${name}: ${both} of ${either} pixels`);
    });
  }
}

/** The model that MuJoCo 2.2.2 reads, beside the files it names. */
function oldModel(xml: string, name: string): string {
  const path = join(folder, `${name}-old.xml`);
  writeFileSync(path, forOldMujoco(xml));
  return path;
}

const title = `%s as MuJoCo draws it (seed ${SEED})`;
describe.skipIf(missing !== undefined).each(["hopper", "walker", "ant", "humanoid"])(
  title,
  { timeout: 1_200_000 },
  (name) => {
    test("depth, silhouettes and colours agree", async () => {
      const task = await loadTask(name);
      const { model } = task;
      const path = fileURLToPath(new URL(`../../tasks/${name}/model.xml`, import.meta.url));
      using oracle = await Oracle.load(path);
      using ours = new Pictures(model);
      await using theirs = new MujocoPictures(
        oldModel(readFileSync(path, "utf8"), name),
        lens,
        QUALITY,
      );
      const next = generator(SEED);
      const interpreter = new Interpreter(task.program);
      const starts = Array.from({ length: STARTS }, () => {
        const start = {
          qpos: Float32Array.from(model.qpos0),
          qvel: new Float32Array(oracle.nv),
          ctrl: new Float32Array(oracle.nu),
          action: new Float32Array(oracle.nu),
          xpos: new Float32Array(3 * model.bodies!.name.length),
          xquat: new Float32Array(4 * model.bodies!.name.length),
          xipos: new Float32Array(3 * model.bodies!.name.length),
          progress: 0,
          uniforms: Float32Array.from({ length: 64 }, next),
        };
        interpreter.reset(start);
        return Array.from(start.qpos);
      });
      // MuJoCo draws the ground as glass when it is seen from below; no episode goes on down there.
      const torso = model.cameras[0].bodyid;
      const above = (qpos: number[]) =>
        oracle.poses(qpos)[7 * torso + 2] + model.cameras[0].pos0[2] > 0.05;
      const states = randomStates(oracle, model, 4 * STATES, SEED)
        .map(({ qpos }) => qpos).filter(above).slice(0, STATES);
      expect(states.length).toBe(STATES);

      const judge = new Judge(model, { depths: 0, colours: 0 });
      const coloured = model.geoms!.type.map((type) => type === PLANE ? "checker" : "all");
      for (const [i, qpos] of [...starts, ...states].entries()) {
        for (const camera of i < STARTS + WIDE ? [0, 1] : [0]) {
          const what = `state ${i}, camera ${model.cameras[camera].name}`;
          judge.add(
            what,
            agreement(
              ours.shown(camera, oracle.poses(qpos), lens),
              await theirs.shown(camera, qpos),
              lens,
              coloured as ("all" | "checker")[],
            ),
          );
        }
      }
      const { sums, largest, lowestOverlap } = judge;
      console.log(JSON.stringify({ name, sums, largest, lowestOverlap }));
      expect(judge.failures).toEqual([]);
      expect(sums.sameOff / sums.same).toBeLessThan(1e-4);
      // Among them much of the ground: the near half of it, away from the edges of squares.
      expect(sums.colours / sums.same).toBeGreaterThan(0.3);
    });
  },
);

describe.skipIf(missing !== undefined)(`random scenes (seed ${SEED})`, () => {
  test.each(Array.from({ length: SCENES }, (_, i) => SEED + i))(
    "scene %i agrees through every camera",
    async (seed) => {
      const scene = randomScene(seed);
      const path = join(folder, `scene${seed}.xml`);
      writeFileSync(path, scene.xml);
      for (const [name, bytes] of scene.files) writeFileSync(join(folder, name), bytes);
      const model = await compileModel(path);
      using oracle = await Oracle.load(path);
      using ours = new Pictures(model);
      await using theirs = new MujocoPictures(oldModel(scene.xml, `scene${seed}`), lens, 200);
      // The edge of a spot's cone is a step, which OpenGL's corners make a slope, and so are edges between
      // the faces of a box, at which the side that is seen is a matter of rounding. Where a height field
      // or a mesh hides a part of itself it has edges that are not known as such.
      const judge = new Judge(model, { depths: 1e-4, colours: 0.01 });
      // OpenGL mixes the light of corners: meshes and height fields have few and MuJoCo bends their
      // normals, and the checker of this ground ends in blurred lines at any distance.
      const coloured = model.geoms!.type.map((type) =>
        [PLANE, HFIELD, MESH].includes(type) ? "none" : "all"
      );
      for (let camera = 0; camera < model.cameras.length; camera++) {
        const theirPicture = await theirs.shown(camera, scene.qpos);
        // A camera inside a shape sees its back, which MuJoCo does not draw.
        if (Math.min(...theirPicture.depth) < 4 * lens.near) continue;
        judge.add(
          `camera ${model.cameras[camera].name}`,
          agreement(
            ours.shown(camera, oracle.poses(scene.qpos), lens),
            theirPicture,
            lens,
            coloured as ("all" | "none")[],
          ),
        );
      }
      const { sums, largest, lowestOverlap } = judge;
      console.log(JSON.stringify({ seed, sums, largest, lowestOverlap }));
      expect(judge.failures).toEqual([]);
      expect(sums.pictures).toBeGreaterThanOrEqual(4);
      expect(sums.colours).toBeGreaterThan(5000);
      expect(sums.sameOff / sums.same).toBeLessThan(1e-4);
    },
  );
});
