// Contacts of every pair of shapes against MuJoCo: two bodies with six joints each, poses of three
// kinds (any, nearly parallel, exactly aligned) from apart to deeply inside, both precisions.
//
// Where MuJoCo has a closed form, contacts agree one by one. Where it runs its convex solver (to
// ccd_tolerance 1e-6, within ccd_iterations), ours is the geometric answer (proved by
// gpu-sim/tests/core/collision_test.cc) and what is tested is how far MuJoCo's is from it.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { compileModel } from "@sdpg/common/model/compile.ts";
import { type Contact, Core } from "./core.ts";
import { Oracle } from "./oracle.ts";
import { generator } from "./states.ts";

const SEED = 90210;
/** Models with sizes of their own, and poses of each. */
const [MODELS, POSES] = [4, 54];

/**
 * Largest differences allowed, in m. `closed`: of every contact, also in components of the frame.
 * `convex`: of the distance from MuJoCo's, in half and in nine of ten contacts (the rest is where its
 * solver ran out of iterations, deep inside). `counted`: MuJoCo's box on a height field gives depths
 * that do not separate the two, so only the number of contacts is compared. docs/physics.md shows the
 * same table.
 */
type Rule =
  | { closed: { float64: number; float32: number } }
  | { convex: { half: number; nine: number } }
  | { counted: true };
const KINDS: Record<string, Rule> = {
  "plane-sphere": { closed: { float64: 1e-10, float32: 2e-6 } },
  "plane-capsule": { closed: { float64: 1e-10, float32: 2e-6 } },
  "plane-ellipsoid": { closed: { float64: 1e-10, float32: 2e-6 } },
  "plane-cylinder": { closed: { float64: 1e-10, float32: 1e-4 } },
  "plane-box": { closed: { float64: 1e-10, float32: 2e-6 } },
  "sphere-sphere": { closed: { float64: 1e-10, float32: 1e-5 } },
  "sphere-capsule": { closed: { float64: 1e-10, float32: 1e-4 } },
  "sphere-cylinder": { closed: { float64: 1e-10, float32: 1e-4 } },
  "sphere-box": { closed: { float64: 1e-10, float32: 1e-4 } },
  "capsule-capsule": { closed: { float64: 1e-10, float32: 1e-3 } },
  "capsule-box": { closed: { float64: 1e-10, float32: 1e-3 } },
  "box-box": { closed: { float64: 1e-10, float32: 1e-4 } },
  "sphere-ellipsoid": { convex: { half: 1e-6, nine: 2e-3 } },
  "capsule-ellipsoid": { convex: { half: 1e-6, nine: 1e-4 } },
  "capsule-cylinder": { convex: { half: 1e-6, nine: 2e-6 } },
  "ellipsoid-ellipsoid": { convex: { half: 2e-5, nine: 3e-3 } },
  "ellipsoid-cylinder": { convex: { half: 1e-6, nine: 5e-6 } },
  "ellipsoid-box": { convex: { half: 1e-6, nine: 2e-6 } },
  "cylinder-cylinder": { convex: { half: 1e-6, nine: 2e-6 } },
  "cylinder-box": { convex: { half: 1e-6, nine: 2e-6 } },
  "hfield-sphere": { convex: { half: 1e-6, nine: 2e-6 } },
  "hfield-capsule": { convex: { half: 1e-6, nine: 2e-6 } },
  "hfield-ellipsoid": { convex: { half: 1e-6, nine: 2e-6 } },
  "hfield-cylinder": { convex: { half: 1e-6, nine: 2e-6 } },
  "hfield-box": { counted: true },
};
const PRECISIONS = ["float64", "float32"] as const;
type Precision = typeof PRECISIONS[number];
/** Compiling and MuJoCo's own evaluation take most of it. */
const TIMEOUT_MS = 60_000;

const folder = mkdtempSync(join(tmpdir(), "collision-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Numbers of a size that count. */
const SIZES: Record<string, number> = { sphere: 1, capsule: 2, ellipsoid: 3, cylinder: 2, box: 3 };

const joints = [
  ...["1 0 0", "0 1 0", "0 0 1"].map((axis) => `<joint type="slide" axis="${axis}"/>`),
  ...["0 0 1", "0 1 0", "1 0 0"].map((axis) => `<joint type="hinge" axis="${axis}"/>`),
].join("");

type PoseKind = "any" | "nearly parallel" | "aligned";
const poseKinds: PoseKind[] = ["any", "nearly parallel", "aligned"];

interface Scene {
  path: string;
  poses: { kind: PoseKind; qpos: number[] }[];
}

/** Models of one pair and poses of each, from apart to deeply inside. */
function scenes(pair: string, options: { margin?: number; gap?: number } = {}): Scene[] {
  const next = generator(SEED + Object.keys(KINDS).indexOf(pair));
  const between = (low: number, high: number) => low + (high - low) * next();
  const [type1, type2] = pair.split("-");
  const fixed = type1 === "plane" || type1 === "hfield";
  const extra = `margin="${options.margin ?? 0}" gap="${options.gap ?? 0}"`;
  return Array.from({ length: MODELS }, (_, m) => {
    const size = (type: string) =>
      Array.from({ length: SIZES[type] }, () => Math.fround(between(0.1, 0.6)));
    const size1 = fixed ? [5, 5, 1] : size(type1), size2 = size(type2);
    const heights = Array.from({ length: 9 * 7 }, () => between(0, 1).toFixed(3));
    const geom1 = type1 === "hfield"
      ? `<geom type="hfield" hfield="ground" euler="0.2 -0.1 0.3" ${extra}/>`
      : `<geom type="${type1}" size="${size1.join(" ")}" ${extra}/>`;
    const geom2 = `<geom type="${type2}" size="${size2.join(" ")}" ${extra}/>`;
    const path = join(folder, `${pair}-${m}.xml`);
    writeFileSync(
      path,
      `<mujoco><compiler angle="radian"/>
        ${
        type1 === "hfield"
          ? `<asset><hfield name="ground" nrow="9" ncol="7" size="1.5 1.8 0.4 0.2" ` +
            `elevation="${heights.join(" ")}"/></asset>`
          : ""
      }
        <worldbody>${fixed ? geom1 : `<body>${joints}${geom1}</body>`}
          <body>${joints}${geom2}</body></worldbody></mujoco>`,
    );
    const poses = Array.from({ length: POSES }, (_, i) => {
      const kind = poseKinds[i % 3];
      const angle = () =>
        kind === "any" ? between(-Math.PI, Math.PI) : Math.round(between(-2, 2)) * Math.PI / 2 +
          (kind === "aligned" ? 0 : between(-0.03, 0.03));
      const pose = () => [
        ...[0, 0, 0].map(() => between(-0.1, 0.1)),
        ...[0, 0, 0].map(angle),
      ];
      const first = fixed ? [] : pose(), second = pose();
      if (fixed) {
        second[2] = between(-0.2, 1) * Math.hypot(...size2);
        if (type1 === "hfield") {
          second[0] = between(-1, 1);
          second[1] = between(-1, 1);
          second[2] += 0.2;
        }
      } else {
        const way = [between(-1, 1), between(-1, 1), between(-1, 1)];
        const reach = between(0, 1) * (Math.hypot(...size1) + Math.hypot(...size2));
        way.forEach((x, k) => second[k] += x / Math.hypot(...way) * reach);
      }
      return { kind, qpos: [...first, ...second].map(Math.fround) };
    });
    return { path, poses };
  });
}

const apart = (a: number[], b: number[]) => Math.hypot(...a.map((x, k) => x - b[k]));
const deepest = (contacts: Contact[]) => Math.min(...contacts.map((c) => c.dist));

/** Calls `compare` with MuJoCo's contacts and ours at every pose, in both precisions. */
async function everyPose(
  pair: string,
  options: { margin?: number; gap?: number },
  compare: (precision: Precision, theirs: Contact[], ours: Contact[], pose: Pose) => void,
): Promise<void> {
  for (const [m, scene] of scenes(pair, options).entries()) {
    const model = await compileModel(scene.path);
    using oracle = await Oracle.load(scene.path);
    const theirs = scene.poses.map(({ qpos }) => {
      oracle.set(qpos, qpos.map(() => 0), []);
      return oracle.forward().contacts;
    });
    for (const precision of PRECISIONS) {
      using core = new Core(model, scene.poses.length, precision);
      const still = scene.poses.map(({ qpos }) => qpos.map(() => 0));
      core.set(scene.poses.map(({ qpos }) => qpos), still, scene.poses.map(() => []));
      const ours = core.forward();
      expect(core.status()).toEqual(scene.poses.map(() => 0));
      scene.poses.forEach(({ kind }, i) =>
        compare(precision, theirs[i], ours[i].contacts, { kind, name: `model ${m} pose ${i}` })
      );
    }
  }
}
interface Pose {
  kind: PoseKind;
  name: string;
}

/** The value that `part` of the numbers do not exceed. */
const share = (numbers: number[], part: number) =>
  numbers.toSorted((a, b) => a - b)[Math.floor(part * (numbers.length - 1))] ?? 0;

/** Compares contact by contact; returns what differs by more than the limits. */
async function compareClosed(
  pair: string,
  limits: Record<Precision, number>,
  options: { margin?: number; gap?: number },
): Promise<string[]> {
  const errors: string[] = [];
  const worst = { float64: 0, float32: 0 };
  let touching = 0;
  await everyPose(pair, options, (precision, theirs, all, { kind, name }) => {
    const limit = limits[precision], margin = 2 * (options.margin ?? 0);
    // Within the gap MuJoCo reports contacts that exert nothing; the core leaves them out.
    const acting = theirs.filter((contact) => !(contact.dist >= margin));
    if (acting.length > 0) touching++;
    const note = (what: string, error: number) => {
      worst[precision] = Math.max(worst[precision], error);
      if (!(error <= limit)) errors.push(`${precision} ${name}: ${what} differs by ${error}`);
    };
    // Exactly aligned, rounding chooses among equals: then only the depth must agree, as far as the
    // direction of a tilt of 1e-8 is known.
    if (kind === "aligned" && acting.length > 0 && all.length > 0) {
      if (Math.abs(deepest(acting) - deepest(all)) > Math.max(limit, 1e-8)) {
        errors.push(`${precision} ${name}: depth ${deepest(acting)}, got ${deepest(all)}`);
      }
    } else if (acting.length !== all.length) {
      errors.push(`${precision} ${name}: ${acting.length} contacts, got ${all.length}`);
    } else {
      acting.forEach((contact, i) => {
        note("distance", Math.abs(contact.dist - all[i].dist));
        note("position", apart(contact.pos, all[i].pos));
        note("frame", apart(contact.frame, all[i].frame));
      });
    }
  });
  console.log(JSON.stringify({ pair, ...options, touching, ...worst }));
  expect(touching).toBeGreaterThan(80);
  return errors;
}

for (const [pair, rule] of Object.entries(KINDS)) {
  test(`${pair} agrees with MuJoCo (seed ${SEED})`, async () => {
    if ("closed" in rule) {
      const errors = await compareClosed(pair, rule.closed, {});
      expect(errors.slice(0, 5), `${errors.length} differences`).toEqual([]);
      return;
    }
    let touching = 0, uneven = 0;
    const distances: Record<Precision, number[]> = { float64: [], float32: [] };
    const positions: Record<Precision, number[]> = { float64: [], float32: [] };
    await everyPose(pair, {}, (precision, theirs, ours, { kind }) => {
      if (theirs.length > 0) touching++;
      if (kind === "aligned") return; // any point of a face is as good
      if (theirs.length !== ours.length) {
        uneven++;
        return;
      }
      for (const contact of theirs) {
        const nearest = ours.reduce((a, b) =>
          apart(a.pos, contact.pos) <= apart(b.pos, contact.pos) ? a : b
        );
        distances[precision].push(Math.abs(contact.dist - nearest.dist));
        positions[precision].push(apart(contact.pos, nearest.pos));
      }
    });
    const summary = (numbers: number[]) => [0.5, 0.9, 1].map((part) => share(numbers, part));
    console.log(JSON.stringify({
      pair,
      touching,
      uneven,
      distance: summary(distances.float64),
      position: summary(positions.float64),
      distance32: summary(distances.float32),
    }));
    expect(touching).toBeGreaterThan(160);
    expect(uneven).toBeLessThan(0.06 * 2 * MODELS * POSES);
    if ("counted" in rule) return;
    expect(share(distances.float64, 0.5)).toBeLessThan(rule.convex.half);
    expect(share(distances.float64, 0.9)).toBeLessThan(rule.convex.nine);
    // In float32 which four of many touches of a flat contact are kept may differ.
    expect(share(distances.float32, 0.5)).toBeLessThan(rule.convex.half);
  }, TIMEOUT_MS);
}

for (const pair of ["plane-cylinder", "sphere-box", "capsule-capsule", "box-box"]) {
  test(`${pair} with margin and gap agrees with MuJoCo (seed ${SEED})`, async () => {
    const rule = KINDS[pair] as Extract<Rule, { closed: unknown }>;
    const errors = await compareClosed(pair, rule.closed, { margin: 0.03, gap: 0.02 });
    expect(errors.slice(0, 5), `${errors.length} differences`).toEqual([]);
  }, TIMEOUT_MS);
}
