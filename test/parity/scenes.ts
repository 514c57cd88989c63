// Random scenes for the comparison of pictures: every primitive, kind of light and mode of camera, in
// words that both MuJoCo 3.14 and, by `forOldMujoco`, MuJoCo 2.2.2 understand.
import { type Element, element, toXml } from "./mjcf.ts";
import { generator } from "./states.ts";

export interface Scene {
  xml: string;
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
    }[type]!();
    const material = next() < 0.3 ? "matt" : undefined;
    return element("geom", {
      name,
      type,
      size,
      pos: vector(-0.1, 0.1),
      axisangle: [...direction(), between(0, 3)],
      material,
      rgba: material ? undefined : colour(),
      contype: 0,
      conaffinity: 0,
    });
  };
  const types = ["sphere", "capsule", "ellipsoid", "cylinder", "box"];
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
        shape(one(types), `arm${i}`),
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
  return { xml: toXml(model), qpos };
}
