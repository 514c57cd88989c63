// Random scenes for the comparison of pictures: every shape, kind of light and mode of camera, in
// words that both MuJoCo 3.14 and, by `forOldMujoco`, MuJoCo 2.2.2 understand.
import { Buffer } from "node:buffer";
import { type Element, element, toXml } from "./mjcf.ts";
import { generator } from "./states.ts";

export interface Scene {
  xml: string;
  /** Files that the XML names. */
  files: Map<string, Uint8Array>;
  /** A configuration that moves every body. */
  qpos: number[];
}

const bodies = 7;

export function randomScene(seed: number): Scene {
  const next = generator(seed);
  const between = (low: number, high: number) => low + (high - low) * next();
  const vector = (low: number, high: number) => [0, 0, 0].map(() => between(low, high));
  const one = <T>(values: readonly T[]): T => values[Math.floor(next() * values.length)];
  const colour = () => [...vector(0.2, 1), 1];
  const direction = (): number[] => {
    for (;;) {
      const v = vector(-1, 1);
      const length = Math.hypot(...v);
      if (length > 0.1 && length < 1) return v.map((x) => x / length);
    }
  };

  /** Extents are 5 to 40 cm, so that each shape covers many pixels. */
  const shape = (type: string, name: string): Element => {
    const size = {
      sphere: () => [between(0.1, 0.3)],
      capsule: () => [between(0.08, 0.2), between(0.1, 0.4)],
      ellipsoid: () => vector(0.08, 0.35),
      cylinder: () => [between(0.1, 0.3), between(0.05, 0.4)],
      box: () => vector(0.08, 0.3),
      mesh: () => undefined,
    }[type]!();
    const material = next() < 0.3 ? "matt" : undefined;
    return element("geom", {
      name,
      type,
      size,
      mesh: type === "mesh" ? "stone" : undefined,
      pos: vector(-0.1, 0.1),
      axisangle: [...direction(), between(0, 3)],
      material,
      rgba: material ? undefined : colour(),
      contype: 0,
      conaffinity: 0,
    });
  };
  const types = ["sphere", "capsule", "ellipsoid", "cylinder", "box", "mesh"];
  const moving = Array.from({ length: bodies }, (_, i) => {
    const cameras: Element[] = [];
    const camera = (mode: string, attributes: Record<string, string | number | number[]>) =>
      cameras.push(element("camera", { name: mode, mode, fovy: between(40, 80), ...attributes }));
    const away = () => {
      const [x, y] = direction();
      const length = Math.hypot(x, y);
      return [3 * x / length, 3 * y / length, between(0.3, 1)];
    };
    // Looks at the body from there, before anything moves.
    const looking = () => {
      const [x, y, z] = away();
      return { pos: [x, y, z], xyaxes: [-y, x, 0, -x * z, -y * z, x * x + y * y] };
    };
    if (i === 0) camera("track", looking());
    if (i === 1) camera("trackcom", looking());
    if (i === 2) camera("targetbody", { pos: away(), target: "body3" });
    if (i === 3) camera("targetbodycom", { pos: away(), target: "body4" });
    if (i === 4) cameras.push(element("camera", { name: "attached", fovy: 60, ...looking() }));
    const lights = i === 5
      ? [element("light", {
        type: "spot",
        mode: "targetbody",
        target: "body6",
        pos: [0, 0, 1.5],
        cutoff: 50,
        exponent: between(1, 10),
        attenuation: [1, between(0, 0.2), 0],
        diffuse: vector(0.2, 0.6),
        specular: [0, 0, 0],
        castshadow: false,
      })]
      : [];
    const child = i === 1 || i === 4
      ? [element("body", { name: `arm${i}`, pos: [0.3, 0, 0] }, [
        element("joint", { axis: [0, 1, 0] }),
        // MuJoCo 2.2.2 weighs meshes in its own way, and cameras follow the centre of mass of these.
        shape(one(types.slice(0, -1)), `arm${i}`),
      ])]
      : [];
    return element("body", { name: `body${i}`, pos: [i % 3 - 1, Math.floor(i / 3) - 1, 1] }, [
      element("freejoint", {}),
      // The first six show every shape.
      shape(i < types.length ? types[i] : one(types), `shape${i}`),
      ...cameras,
      ...lights,
      ...child,
    ]);
  });

  const stone = stoneMesh(next);
  const [rows, columns] = [9, 12];
  const hills = Buffer.alloc(8 + 4 * rows * columns);
  hills.writeInt32LE(rows, 0);
  hills.writeInt32LE(columns, 4);
  for (let i = 0; i < rows * columns; i++) hills.writeFloatLE(next(), 8 + 4 * i);

  const model = element("mujoco", { model: "scene" }, [
    element("visual", {}, [
      element("headlight", {
        active: next() < 0.7 ? 1 : 0,
        ambient: vector(0, 0.3),
        diffuse: vector(0, 0.4),
        specular: [0, 0, 0],
      }),
    ]),
    element("asset", {}, [
      element("hfield", { name: "hills", file: "hills.bin", size: [1, 0.8, 0.4, 0.1] }),
      element("mesh", { name: "stone", vertex: stone.vertices, face: stone.faces }),
      element("texture", {
        name: "squares",
        type: "2d",
        builtin: "checker",
        rgb1: vector(0.2, 0.9),
        rgb2: vector(0.2, 0.9),
        width: 256,
        height: 256,
      }),
      element("material", {
        name: "tiles",
        texture: "squares",
        texrepeat: [between(0.4, 1), between(0.4, 1)],
        texuniform: true,
      }),
      element("material", { name: "matt", rgba: colour(), emission: between(0, 0.3) }),
    ]),
    element("worldbody", {}, [
      element("light", {
        type: "directional",
        dir: [between(-1, 1), between(-1, 1), -1],
        ambient: vector(0, 0.1),
        diffuse: vector(0.1, 0.5),
        specular: [0, 0, 0],
        castshadow: false,
      }),
      element("light", {
        type: "point",
        pos: [between(-2, 2), between(-2, 2), between(2, 3)],
        attenuation: [1, 0, between(0, 0.1)],
        diffuse: vector(0.1, 0.5),
        specular: [0, 0, 0],
        castshadow: false,
      }),
      element("camera", {
        name: "fixed",
        pos: [0, -4, 1.5],
        xyaxes: [1, 0, 0, 0, 0.3, 1],
        fovy: 55,
      }),
      element("geom", {
        name: "floor",
        type: "plane",
        size: next() < 0.5 ? [0, 0, 0.1] : [2.5, 2, 0.1],
        material: "tiles",
        contype: 0,
        conaffinity: 0,
      }),
      element("geom", {
        name: "hills",
        type: "hfield",
        hfield: "hills",
        pos: [between(-1, 1), between(2, 3), 0.1],
        rgba: colour(),
        contype: 0,
        conaffinity: 0,
      }),
      ...moving,
    ]),
  ]);
  const qpos = moving.flatMap(({ children }, i) => {
    // The cameras of these turn with them and stay above the ground, which MuJoCo draws as glass when it
    // is seen from below.
    const upright = [2, 3, 4].includes(i);
    const [w, ...v] = [between(-1, 1), ...(upright ? [0, 0.03, 1] : direction())];
    const length = Math.hypot(w, ...v);
    // Apart from each other, so that no camera is inside a shape.
    const cell = [i % 3 - 1, Math.floor(i / 3) - 1, 0].map((k) => 1.1 * k);
    const place = vector(-0.2, 0.2).map((x, k) => x + cell[k] + (k === 2 ? 1 : 0));
    const arm = children.some(({ tag }) => tag === "body") ? [between(-2, 2)] : [];
    return [...place, w / length, ...v.map((x) => x / length), ...arm];
  });
  return { xml: toXml(model), files: new Map([["hills.bin", hills]]), qpos };
}

/** A ball of 80 triangles with dents: an icosahedron, divided once, its corners moved in and out. */
function stoneMesh(next: () => number): { vertices: number[]; faces: number[] } {
  const g = (1 + Math.sqrt(5)) / 2;
  const corners = [
    [-1, g, 0],
    [1, g, 0],
    [-1, -g, 0],
    [1, -g, 0],
    [0, -1, g],
    [0, 1, g],
    [0, -1, -g],
    [0, 1, -g],
    [g, 0, -1],
    [g, 0, 1],
    [-g, 0, -1],
    [-g, 0, 1],
  ];
  const edge = (a: number[], b: number[]) => Math.hypot(...a.map((x, k) => x - b[k])) < 2.01;
  const faces: number[][] = [];
  const middles = new Map<string, number>();
  const middle = (i: number, j: number): number => {
    const key = [Math.min(i, j), Math.max(i, j)].join();
    let at = middles.get(key);
    if (at === undefined) {
      at = corners.push(corners[i].map((x, k) => (x + corners[j][k]) / 2)) - 1;
      middles.set(key, at);
    }
    return at;
  };
  for (let i = 0; i < 12; i++) {
    for (let j = i + 1; j < 12; j++) {
      for (let k = j + 1; k < 12; k++) {
        const [a, b, c] = [i, j, k].map((v) => corners[v]);
        if (!edge(a, b) || !edge(b, c) || !edge(a, c)) continue;
        const normal = [0, 1, 2].map((x) => {
          const [y, z] = [(x + 1) % 3, (x + 2) % 3];
          return (b[y] - a[y]) * (c[z] - a[z]) - (b[z] - a[z]) * (c[y] - a[y]);
        });
        const outwards = normal.reduce((sum, n, x) => sum + n * a[x], 0) > 0;
        const [u, v, w] = outwards ? [i, j, k] : [i, k, j];
        const [uv, vw, wu] = [middle(u, v), middle(v, w), middle(w, u)];
        faces.push([u, uv, wu], [uv, v, vw], [wu, vw, w], [uv, vw, wu]);
      }
    }
  }
  const vertices = corners.map((corner) => {
    const radius = 0.15 + 0.15 * next();
    const length = Math.hypot(...corner);
    return corner.map((x) => x * radius / length);
  });
  return { vertices: vertices.flat(), faces: faces.flat() };
}
