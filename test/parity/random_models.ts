// Random MJCF models from a seed: trees of 2 to 12 bodies with every feature that the core claims
// to have, each present in a part of the models. Numbers are chosen so that the dynamics stay well
// conditioned (parts of 3 to 20 cm and the densities of wood to steel); everything else is free.
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import type { Situation } from "./answers.ts";
import { type Element, element, type Value } from "./mjcf.ts";
import { generator } from "./states.ts";

/** What may appear in a model. */
export const features = {
  joints: ["free", "ball", "slide", "hinge"],
  /** Of closed form in MuJoCo: cylinders against planes and spheres, ellipsoids against planes. */
  geoms: ["sphere", "capsule", "box", "cylinder", "ellipsoid"],
  floors: ["plane", "none"],
  condims: [1, 3, 4, 6],
  cones: ["pyramidal", "elliptic"],
  integrators: ["Euler", "implicitfast"],
  dynamics: ["none", "integrator", "filter", "filterexact"],
  /** Springs, dry friction, contacts between bodies named by the model, weight taken off, … */
  parts: [
    "frictionloss",
    "impratio",
    "pair",
    "exclude",
    "gravcomp",
    "gap",
    "actuatorfrcrange",
    "actuatorgravcomp",
    "ballmotor",
    "affinegain",
    "actearly",
    "balllimit",
    "flag",
  ],
};
export type Features = typeof features;

/** Draws from a seed. */
export class Draw {
  private readonly next: () => number;
  constructor(seed: number) {
    this.next = generator(seed);
    // Seeds that follow each other start far apart.
    for (let i = 0; i < 4; i++) this.next();
  }
  chance(p: number): boolean {
    return this.next() < p;
  }
  /** Four significant digits, so that a printed model is the model. */
  between(low: number, high: number): number {
    return Number((low + (high - low) * this.next()).toPrecision(4));
  }
  whole(low: number, high: number): number {
    return low + Math.floor((high - low + 1) * this.next());
  }
  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.next() * list.length)];
  }
  vector(size: number, length = 3): number[] {
    return Array.from({ length }, () => this.between(-size, size));
  }
  /** Uniform on the sphere of `length` coordinates. */
  direction(length = 3): number[] {
    for (;;) {
      const v = Array.from({ length }, () => 2 * this.next() - 1);
      const square = v.reduce((sum, x) => sum + x * x, 0);
      if (square > 0.01 && square < 1) {
        return v.map((x) => Number((x / Math.sqrt(square)).toFixed(5)));
      }
    }
  }
}

/** The model of a seed. */
export function randomModel(seed: number, allowed: Features = features): Element {
  return new Builder(seed, allowed).build();
}

/**
 * States of a model, in float32 numbers. What a joint or an actuator draws depends on its name, not
 * on its place, so that it stays when the shrinker removes others.
 */
export function randomStates(model: Model, seed: number, count: number): Required<Situation>[] {
  const joints = model.joints!;
  const actuators = model.actuators!;
  return Array.from({ length: count }, (_, k) => {
    // Near rest, anywhere, and anywhere at high speed, in turn.
    const [spread, speed] = [[0.1, 0.3], [1, 2], [1, 10]][k % 3];
    const drawFor = (name: string) => {
      let hash = seed * 1009 + k;
      for (const c of name) hash = Math.imul(hash ^ c.charCodeAt(0), 0x01000193);
      return new Draw(hash);
    };
    const qpos: number[] = [];
    const qvel: number[] = [];
    joints.name.forEach((name, j) => {
      const draw = drawFor(name);
      const home = model.qpos0.slice(joints.qposadr[j]);
      const turned = () => {
        const [x, y, z] = draw.direction();
        const half = spread * draw.between(0, 1.5);
        const q = [Math.cos(half), ...[x, y, z].map((a) => a * Math.sin(half))];
        return q;
      };
      switch (joints.type[j]) {
        case 0:
          qpos.push(...home.slice(0, 3).map((p) => p + spread * draw.between(-0.3, 0.3)));
          qpos.push(...turned());
          qvel.push(...draw.vector(speed, 6));
          break;
        case 1:
          qpos.push(...turned());
          qvel.push(...draw.vector(speed, 3));
          break;
        case 2:
          qpos.push(home[0] + spread * draw.between(-0.3, 0.3));
          qvel.push(draw.between(-speed, speed));
          break;
        default:
          qpos.push(home[0] + spread * draw.between(-1.4, 1.4));
          qvel.push(draw.between(-speed, speed));
      }
    });
    return {
      qpos: qpos.map(Math.fround),
      qvel: qvel.map(Math.fround),
      act: actuators.name.flatMap((name, i) =>
        actuators.actnum[i] > 0 ? [Math.fround(drawFor(`${name} act`).between(-1.2, 1.2))] : []
      ),
      ctrl: actuators.name.map((name) => Math.fround(drawFor(name).between(-1.5, 1.5))),
    };
  });
}

/**
 * Bits 1 and 2 let spheres meet cylinders and the floor meet cylinders and ellipsoids; what MuJoCo
 * collides by its iterative solver, to 1e-6 at best, stays apart.
 */
const masks = {
  sphere: { contype: 3 },
  cylinder: { contype: 0, conaffinity: 2 },
  ellipsoid: { contype: 0, conaffinity: 4 },
};

class Builder {
  private readonly draw: Draw;
  private readonly has: (part: string) => boolean;
  private readonly geomNames: string[] = [];
  private readonly bodyNames: string[] = [];
  private readonly joints: { name: string; type: string }[] = [];
  private readonly fixed = new Set<string>();
  private readonly apart = new Set<string>();
  private readonly integrator: string;
  private readonly condims: number[];
  private readonly geomTypes: string[];

  constructor(private readonly seed: number, private readonly allowed: Features) {
    this.draw = new Draw(seed);
    const present = new Set(allowed.parts.filter(() => this.draw.chance(0.4)));
    this.has = (part) => present.has(part);
    this.integrator = this.draw.pick(allowed.integrators);
    // Half of the models keep to one condim, and to two shapes.
    this.condims = this.draw.chance(0.5) ? [this.draw.pick(allowed.condims)] : allowed.condims;
    this.geomTypes = this.draw.chance(0.5)
      ? [this.draw.pick(allowed.geoms), this.draw.pick(allowed.geoms)]
      : allowed.geoms;
  }

  build(): Element {
    const { draw, allowed } = this;
    const floor = draw.pick(allowed.floors);
    const world = this.floor(floor);
    this.geomNames.forEach((name) => this.fixed.add(name));
    world.push(...this.trees());
    const options = element("option", {
      timestep: draw.pick([0.001, 0.002, 0.005, 0.01]),
      gravity: draw.chance(0.3) ? draw.vector(8) : undefined,
      integrator: this.integrator,
      cone: draw.pick(allowed.cones),
      impratio: this.has("impratio") ? draw.pick([0.3, 2, 10]) : undefined,
    }, this.has("flag") ? [this.flags()] : []);
    return element("mujoco", { model: `seed ${this.seed}` }, [
      element("compiler", { angle: "radian", autolimits: true }),
      options,
      ...(floor === "hfield" ? [element("asset", {}, [this.heights()])] : []),
      element("worldbody", {}, world),
      element("contact", {}, this.contacts()),
      element("actuator", {}, this.actuators()),
    ]);
  }

  private flags(): Element {
    const flags = [
      "frictionloss",
      "limit",
      "contact",
      "spring",
      "damper",
      "gravity",
      "clampctrl",
      "filterparent",
      "actuation",
      "refsafe",
      "eulerdamp",
      "constraint",
    ];
    const off = flags.filter(() => this.draw.chance(0.12));
    return element("flag", Object.fromEntries(off.map((flag) => [flag, "disable"])));
  }

  private floor(type: string): Element[] {
    const { draw } = this;
    const list: Element[] = [];
    if (type !== "none") {
      list.push(element("geom", {
        name: this.named("floor", this.geomNames),
        type,
        size: type === "plane" ? [0, 0, 1] : undefined,
        hfield: type === "hfield" ? "hills" : undefined,
        quat: draw.chance(0.3) ? [1, ...draw.vector(0.1)] : undefined,
        ...this.surface(),
        contype: 7,
        conaffinity: 1,
      }));
    }
    // Obstacles that do not move.
    for (let k = draw.whole(0, 2); k > 0; k--) list.push(this.geom(draw.vector(0.8)));
    return list;
  }

  private heights(): Element {
    const { draw } = this;
    const [nrow, ncol] = [draw.whole(4, 9), draw.whole(4, 9)];
    return element("hfield", {
      name: "hills",
      nrow,
      ncol,
      size: [draw.between(0.8, 2), draw.between(0.8, 2), draw.between(0.05, 0.3), 0.1],
      elevation: Array.from({ length: nrow * ncol }, () => draw.between(0, 1)),
    });
  }

  /** Bodies in the order of the tree, each hung on one that is there already. */
  private trees(): Element[] {
    const { draw } = this;
    const roots: Element[] = [];
    const all: Element[] = [];
    for (let k = draw.whole(2, 12); k > 0; k--) {
      const isRoot = all.length === 0 || draw.chance(0.15);
      const name = this.named("body", this.bodyNames);
      const body = element("body", {
        name,
        pos: isRoot
          ? [...draw.vector(0.6, 2), draw.between(0, 1)]
          : draw.direction().map((x) => Number((x * draw.between(0.1, 0.3)).toPrecision(4))),
        quat: draw.chance(0.5) ? draw.direction(4) : undefined,
        gravcomp: this.has("gravcomp") && draw.chance(0.4)
          ? draw.pick([1, 0.5, draw.between(0, 2)])
          : undefined,
      });
      // Welded bodies only inside a tree, so that the tree can move at all.
      if (isRoot || !draw.chance(0.1)) body.children.push(...this.bodyJoints(isRoot));
      body.children.push(this.geom(draw.vector(0.05)));
      if (draw.chance(0.3)) body.children.push(this.geom(draw.vector(0.15)));
      if (draw.chance(0.2)) body.children.unshift(this.inertial());
      if (isRoot) roots.push(body);
      else draw.pick(all).children.push(body);
      all.push(body);
    }
    return roots;
  }

  private inertial(): Element {
    const { draw } = this;
    // The moments of a solid block, which any rotation leaves those of a possible body.
    const [x, y, z] = [0, 0, 0].map(() => draw.between(0.05, 0.2));
    const mass = draw.between(0.3, 5);
    const moments = [y * y + z * z, x * x + z * z, x * x + y * y].map((square) =>
      Number((mass * square / 3).toPrecision(5))
    );
    return element("inertial", {
      pos: draw.vector(0.05),
      quat: draw.chance(0.7) ? draw.direction(4) : undefined,
      mass,
      diaginertia: moments,
    });
  }

  private bodyJoints(isRoot: boolean): Element[] {
    const { draw, allowed } = this;
    const rotations = allowed.joints.filter((type) => type === "ball" || type === "hinge");
    if (isRoot && allowed.joints.includes("free") && draw.chance(0.6)) return [this.joint("free")];
    const kind = draw.whole(0, 9);
    if (kind < 5) return [this.joint(draw.pick(rotations))];
    const simple = allowed.joints.filter((type) => type === "slide" || type === "hinge");
    if (kind < 9) {
      // Near the three axes, since parallel joints of one body would make the inertia singular.
      const first = draw.whole(0, 2);
      return Array.from({ length: draw.whole(1, 3) }, (_, k) => {
        const axis = draw.vector(0.3).map((x, i) => i === (first + k) % 3 ? 1 : x);
        return this.joint(draw.pick(simple), { axis, armature: draw.between(0.005, 0.1) });
      });
    }
    return [this.joint("slide"), this.joint(draw.pick(rotations))];
  }

  private joint(type: string, fixed: Record<string, Value> = {}): Element {
    const { draw } = this;
    const name = `joint${this.joints.length}`;
    this.joints.push({ name, type });
    const some = <T extends Value>(p: number, value: () => T) =>
      draw.chance(p) ? value() : undefined;
    const angular = type === "ball" || type === "hinge";
    const common = {
      name,
      type,
      stiffness: some(0.3, () => draw.between(0, 20)),
      damping: some(0.6, () => draw.between(0, 2)),
      armature: some(0.5, () => draw.between(0, 0.1)),
      frictionloss: this.has("frictionloss") ? some(0.4, () => draw.between(0, 3)) : undefined,
      solreffriction: this.has("frictionloss") ? some(0.3, () => this.solref()) : undefined,
      solimpfriction: this.has("frictionloss") ? some(0.3, () => this.solimp()) : undefined,
    };
    if (type === "free") return element("joint", common);
    const limited = draw.chance(0.6) &&
      (type !== "ball" || this.allowed.parts.includes("balllimit"));
    const low = -draw.between(0.05, 1.2) * (angular ? 1 : 0.2);
    const limits = limited
      ? {
        range: type === "ball"
          ? [0, draw.between(0.2, 1.5)]
          : [low, draw.between(0.05, 1.2) * (angular ? 1 : 0.2)].map((x) =>
            Number(x.toPrecision(4))
          ),
        margin: some(0.3, () => draw.between(0, 0.05)),
        solreflimit: some(0.4, () => this.solref()),
        solimplimit: some(0.4, () => this.solimp()),
      }
      : {};
    if (type === "ball") {
      return element("joint", { ...common, ...limits, pos: some(0.5, () => draw.vector(0.1)) });
    }
    return element("joint", {
      ...common,
      ...limits,
      axis: draw.chance(0.3) ? draw.pick([[1, 0, 0], [0, 1, 0], [0, 0, 1]]) : draw.direction(),
      pos: some(0.5, () => draw.vector(0.1)),
      ref: some(0.2, () => draw.between(-0.3, 0.3)),
      springref: some(0.3, () => draw.between(-0.5, 0.5)),
      ...fixed,
      actuatorfrcrange: this.has("actuatorfrcrange")
        ? some(0.5, () => [-draw.between(0.1, 5), draw.between(0.1, 5)])
        : undefined,
      actuatorgravcomp: this.has("actuatorgravcomp") ? some(0.5, () => true) : undefined,
    });
  }

  private geom(pos: number[]): Element {
    const { draw } = this;
    const type = draw.pick(this.geomTypes);
    const size = {
      sphere: [draw.between(0.03, 0.12)],
      capsule: [draw.between(0.02, 0.08), draw.between(0.05, 0.2)],
      cylinder: [draw.between(0.03, 0.12), draw.between(0.03, 0.15)],
      box: [0, 0, 0].map(() => draw.between(0.03, 0.15)),
      ellipsoid: [0, 0, 0].map(() => draw.between(0.03, 0.15)),
    }[type];
    const name = this.named("geom", this.geomNames);
    if (type === "cylinder" || type === "ellipsoid") this.apart.add(name);
    return element("geom", {
      name,
      type,
      size,
      pos,
      quat: type === "sphere" || draw.chance(0.2) ? undefined : draw.direction(4),
      density: draw.between(300, 3000),
      ...this.surface(),
      ...masks[type as keyof typeof masks],
    });
  }

  /** What decides whether and how a geom meets others. */
  private surface(): Record<string, Value | undefined> {
    const { draw } = this;
    const some = <T extends Value>(p: number, value: () => T) =>
      draw.chance(p) ? value() : undefined;
    const margin = draw.chance(0.25) ? draw.between(0, 0.03) : undefined;
    return {
      condim: draw.pick(this.condims),
      friction: some(0.7, () => [
        draw.between(0.1, 2),
        draw.between(0.001, 0.1),
        draw.between(0.0001, 0.05),
      ]),
      priority: some(0.2, () => draw.whole(-1, 2)),
      solmix: some(0.3, () => draw.pick([0, 0.5, 2, draw.between(0, 3)])),
      solref: some(0.4, () => this.solref()),
      solimp: some(0.4, () => this.solimp()),
      margin,
      gap: this.has("gap") ? some(0.4, () => draw.between(0, 0.02)) : undefined,
      contype: some(0.15, () => draw.whole(0, 1)),
      conaffinity: some(0.15, () => draw.whole(0, 1)),
    };
  }

  private solref(): number[] {
    const { draw } = this;
    return draw.chance(0.3)
      ? [-draw.between(100, 5000), -draw.between(5, 100)]
      : [draw.between(0.003, 0.06), draw.between(0.4, 1.6)];
  }

  private solimp(): number[] {
    const { draw } = this;
    return [
      draw.between(0.3, 0.95),
      draw.between(0.6, 0.99),
      draw.between(0.001, 0.05),
      draw.between(0.1, 0.9),
      draw.pick([1, 2, 3, draw.between(1, 5)]),
    ];
  }

  private contacts(): Element[] {
    const { draw } = this;
    const list: Element[] = [];
    const two = (names: string[]) => {
      const first = draw.pick(names);
      return [first, draw.pick(names.filter((name) => name !== first))];
    };
    if (this.has("exclude") && this.bodyNames.length > 1) {
      for (let k = draw.whole(1, 3); k > 0; k--) {
        const [body1, body2] = two(this.bodyNames);
        list.push(element("exclude", { body1, body2 }));
      }
    }
    if (this.has("pair") && this.geomNames.length > this.apart.size + 1) {
      const seen = new Set<string>();
      for (let k = draw.whole(1, 4); k > 0; k--) {
        const [geom1, geom2] = two(this.geomNames.filter((name) => !this.apart.has(name)));
        // MuJoCo stops at a contact of two geoms that cannot move.
        if (this.fixed.has(geom1) && this.fixed.has(geom2)) continue;
        const key = [geom1, geom2].sort().join();
        if (seen.has(key)) continue;
        seen.add(key);
        list.push(element("pair", {
          geom1,
          geom2,
          condim: draw.pick(this.condims),
          friction: draw.chance(0.6)
            ? [
              draw.between(0.1, 2),
              draw.between(0.1, 2),
              draw.between(0.001, 0.1),
              draw.between(0.0001, 0.05),
              draw.between(0.0001, 0.05),
            ]
            : undefined,
          solref: draw.chance(0.4) ? this.solref() : undefined,
          solreffriction: draw.chance(0.3) ? this.solref() : undefined,
          solimp: draw.chance(0.4) ? this.solimp() : undefined,
          margin: draw.chance(0.4) ? draw.between(0, 0.03) : undefined,
          gap: this.has("gap") && draw.chance(0.4) ? draw.between(0, 0.02) : undefined,
        }));
      }
    }
    return list;
  }

  private actuators(): Element[] {
    const { draw } = this;
    const some = <T extends Value>(p: number, value: () => T) =>
      draw.chance(p) ? value() : undefined;
    const range = (most: number) => [-draw.between(0.1, most), draw.between(0.1, most)];
    return this.joints.flatMap(({ name, type }, i) => {
      const simple = type === "hinge" || type === "slide";
      if (!simple && !this.has("ballmotor")) return [];
      if (!draw.chance(0.6)) return [];
      const common = {
        name: `actuator${i}`,
        joint: name,
        gear: simple
          ? some(0.5, () => draw.between(-5, 5))
          : draw.vector(3, type === "ball" ? 3 : 6),
        ctrlrange: some(0.5, () => range(1.5)),
        forcerange: some(0.4, () => range(8)),
      };
      if (!simple) return [element("motor", common)];
      switch (draw.whole(0, 4)) {
        case 0:
          return [element("motor", common)];
        case 1:
          return [element("position", {
            ...common,
            kp: draw.between(1, 60),
            kv: some(0.5, () => draw.between(0, 5)),
            timeconst: this.allowed.dynamics.includes("filterexact")
              ? some(0.3, () => draw.between(0.01, 0.3))
              : undefined,
          })];
        case 2:
          return [element("velocity", { ...common, kv: draw.between(0.1, 8) })];
        default: {
          const dyntype = draw.pick(this.allowed.dynamics);
          // A force that grows with the speed makes the matrix of implicitfast indefinite.
          const rate = draw.between(-1, 1) * (this.integrator === "Euler" ? 3 : 1e-3);
          return [element("general", {
            ...common,
            dyntype,
            dynprm: dyntype === "none" ? undefined : draw.between(0.01, 0.3),
            actrange: dyntype === "none" ? undefined : some(0.5, () => range(1)),
            actearly: dyntype !== "none" && this.has("actearly")
              ? some(0.5, () => true)
              : undefined,
            ...(this.has("affinegain") && draw.chance(0.5)
              ? { gaintype: "affine", gainprm: [draw.between(0, 10), draw.between(-3, 3), rate] }
              : { gainprm: draw.between(-10, 10) }),
            ...(draw.chance(0.5)
              ? {
                biastype: "affine",
                biasprm: [draw.between(-2, 2), -draw.between(0, 20), -draw.between(0, 3)],
              }
              : {}),
          })];
        }
      }
    });
  }

  private named(kind: string, list: string[]): string {
    const name = `${kind}${list.length}`;
    list.push(name);
    return name;
  }
}
