// Networks against the reference (sdpg.md 2.1): shapes, initial weights, parameterisations, copies, memory.

import { expect, test } from "vitest";
import {
  Adam,
  fromArray,
  Generator,
  liveTensors,
  mseLoss,
  randn,
  randperm,
  scope,
  type Tensor,
  TorchError,
  zeros,
} from "../torch/mod.ts";
import {
  type Camera,
  ConvEncoder,
  encoderCosts,
  SightEncoder,
  smallestPicture,
} from "./encoder.ts";
import { Mlp, orthogonal } from "./mlp.ts";
import { copyParameters, joined, lerpParameters } from "./parameters.ts";
import { GaussianPolicy, type StdKind } from "./policy.ts";
import { ValueNetwork } from "./value.ts";

const values = (t: Tensor) => Array.from(t.toArray() as Iterable<number>, Number);

function near(actual: readonly number[], expected: readonly number[], tolerance: number) {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => expect(Math.abs(x - expected[i])).toBeLessThanOrEqual(tolerance));
}

test("orthogonal() has orthonormal rows or columns times the gain, and signs of both kinds", () => {
  using _s = scope();
  using g = new Generator(1n);
  for (const [rows, columns] of [[64, 11], [3, 64], [16, 16], [1, 5], [5, 1]]) {
    const w = orthogonal(rows, columns, Math.SQRT2, g);
    expect(w.shape).toEqual([rows, columns]);
    const gram = rows >= columns ? w.transpose(0, 1).matmul(w) : w.matmul(w.transpose(0, 1));
    const n = Math.min(rows, columns);
    near(
      values(gram),
      Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? 2 : 0),
      3e-6,
    );
  }
  // Uniform over orthogonal matrices: without moving the signs of R's diagonal into Q, Q's first entry keeps one sign.
  const firsts = Array.from({ length: 64 }, () => values(orthogonal(4, 4, 1, g))[0]);
  const positive = firsts.filter((x) => x > 0).length;
  expect(positive).toBeGreaterThan(12);
  expect(positive).toBeLessThan(52);
});

test("a new Mlp has the published shapes, biases and norms, and the order of its parameters", () => {
  using g = new Generator(2n);
  using net = new Mlp({ input: 11, hidden: [64, 32], output: 3, outputGain: 0.01, generator: g });
  expect([...net.parameters()].map(([name, t]) => `${name} ${t}`)).toEqual([
    "hidden.0.weight float32[64, 11]",
    "hidden.0.bias float32[64]",
    "hidden.0.norm.weight float32[64]",
    "hidden.0.norm.bias float32[64]",
    "hidden.1.weight float32[32, 64]",
    "hidden.1.bias float32[32]",
    "hidden.1.norm.weight float32[32]",
    "hidden.1.norm.bias float32[32]",
    "output.weight float32[3, 32]",
    "output.bias float32[3]",
  ]);
  for (const [name, t] of net.parameters()) {
    expect(t.requiresGrad).toBe(true);
    if (name.endsWith("norm.weight")) expect(values(t).every((x) => x === 1)).toBe(true);
    else if (name.endsWith("bias")) expect(values(t).every((x) => x === 0)).toBe(true);
  }
  using _s = scope();
  expect(net.parameters().get("output.weight")!.norm().item()).toBeCloseTo(0.01 * Math.sqrt(3), 6);
});

test("with gain √2 the initial outputs have the reference's spread of about √2", () => {
  using _s = scope();
  using g = new Generator(3n);
  using net = new Mlp({ input: 11, hidden: [128, 64, 64], output: 3, generator: g });
  const spread = net.infer(randn([4000, 11], g)).square().mean().sqrt().item();
  expect(spread).toBeGreaterThan(1.1);
  expect(spread).toBeLessThan(1.7);
});

test("forward() is Linear → ELU → LayerNorm per layer: an independent computation agrees", () => {
  using _s = scope();
  using g = new Generator(4n);
  using net = new Mlp({ input: 4, hidden: [6, 5], output: 2, generator: g });
  const x = randn([3, 4], g);
  const p = new Map([...net.parameters()].map(([name, t]) => [name, values(t)]));
  const linear = (h: number[], layer: string) => {
    const [w, b] = [p.get(`${layer}.weight`)!, p.get(`${layer}.bias`)!];
    return b.map((bias, n) => h.reduce((sum, v, k) => sum + v * w[n * h.length + k], bias));
  };
  const expected = Array.from({ length: 3 }, (_, row) => {
    let h = values(x).slice(4 * row, 4 * row + 4);
    for (const layer of ["hidden.0", "hidden.1"]) {
      h = linear(h, layer).map((z) => z > 0 ? z : Math.expm1(z));
      const mean = h.reduce((a, b) => a + b) / h.length;
      const variance = h.reduce((a, b) => a + (b - mean) ** 2, 0) / h.length;
      const [gain, shift] = [p.get(`${layer}.norm.weight`)!, p.get(`${layer}.norm.bias`)!];
      h = h.map((v, i) => (v - mean) / Math.sqrt(variance + 1e-5) * gain[i] + shift[i]);
    }
    return linear(h, "output");
  }).flat();
  near(values(net.forward(x)), expected, 2e-6);
  near(values(net.forwardComposed(x)), expected, 2e-6);
});

test("clone(), copyFrom() and lerp() copy values, not memory", () => {
  using _s = scope();
  using g = new Generator(5n);
  using net = new ValueNetwork({ input: 3, hidden: [4], generator: g });
  using target = net.clone();
  const x = randn([5, 3], g);
  expect(values(target.infer(x))).toEqual(values(net.infer(x)));
  const optimiser = new Adam([...net.parameters().values()], { lr: 0.1 });
  net.forward(x).square().sum().backward();
  optimiser.step();
  expect(values(target.infer(x))).not.toEqual(values(net.infer(x)));
  // The Polyak trap: retention α keeps α of the target, so the weight of the critic is 1 − α.
  const [old, fresh] = [target, net].map((n) => values(n.parameters().get("hidden.0.weight")!));
  target.lerp(net, 1 - 0.2);
  near(
    values(target.parameters().get("hidden.0.weight")!),
    old.map((w, i) => 0.2 * w + 0.8 * fresh[i]),
    1e-6,
  );
  target.lerp(net, 1);
  expect(values(target.infer(x))).toEqual(values(net.infer(x)));
  expect(() => target.lerp(net, 1.5)).toThrow(/0 to 1/);
  optimiser[Symbol.dispose]();
});

test("copyParameters() refuses other names and shapes and changes nothing then", () => {
  using _s = scope();
  const into = new Map([["a", zeros([2])], ["b", zeros([2])]]);
  const one = fromArray([1, 1], [2]);
  expect(() => copyParameters(into, new Map([["a", one]]))).toThrow(/"b" is missing/);
  expect(() => copyParameters(into, new Map([["a", one], ["b", zeros([3])]]))).toThrow(
    /"b": expected float32\[2\], got float32\[3\]/,
  );
  expect(() => lerpParameters(into, new Map([["a", one], ["b", one], ["c", one]]), 1)).toThrow(
    /no "c"/,
  );
  expect(values(into.get("a")!)).toEqual([0, 0]);
  expect([...joined({ p: into, q: into }).keys()]).toEqual(["p.a", "p.b", "q.a", "q.b"]);
});

const kinds: [StdKind, boolean, number[]][] = [
  ["fixed", false, [3]],
  ["state_independent", true, [3]],
  ["state_dependent", true, [7, 3]],
];
test.each(kinds)(
  "%s log-std: learnable %s, shape %j, starts at logStdInit",
  (std, learnable, shape) => {
    using _s = scope();
    using g = new Generator(6n);
    using policy = new GaussianPolicy({
      input: 5,
      hidden: [16],
      actions: 3,
      std,
      logStdInit: -1,
      generator: g,
    });
    const { mean, logStd } = policy.forward(randn([7, 5], g));
    expect(mean.shape).toEqual([7, 3]);
    expect(logStd.shape).toEqual(shape);
    expect(logStd.requiresGrad).toBe(learnable);
    // A state-dependent start differs from it by the output layer's small gain: 0.01 · features of norm 4.
    near(values(logStd), values(logStd).map(() => -1), std === "state_dependent" ? 0.2 : 0);
    expect(policy.parameters().has("log_std")).toBe(std === "state_independent");
    expect(policy.tensors().has("log_std")).toBe(std !== "state_dependent");
    using copy = policy.clone();
    const x = randn([7, 5], g);
    expect(values(copy.infer(x).mean)).toEqual(values(policy.infer(x).mean));
    expect(values(copy.infer(x).logStd)).toEqual(values(policy.infer(x).logStd));
  },
);

test("regress() learns, and refuses another network's optimiser", () => {
  using _s = scope();
  using g = new Generator(7n);
  using critic = new ValueNetwork({ input: 4, hidden: [32, 32], generator: g });
  using other = critic.clone();
  using optimiser = new Adam([...critic.parameters().values()], { lr: 3e-3 });
  const x = randn([2000, 4], g);
  const y = x.select(1, 0).mul(x.select(1, 1)).add(x.select(1, 2).sin()).contiguous();
  const error = () => mseLoss(critic.infer(x), y).item();
  const before = error();
  for (let pass = 0; pass < 20; pass++) {
    critic.regress(optimiser, x, y, randperm(2000, g), { batchSize: 250, maxGradNorm: 1 });
  }
  expect(error()).toBeLessThan(0.1 * before);
  expect(() => other.regress(optimiser, x, y, randperm(2000, g), { batchSize: 250 })).toThrow(
    /exactly this network's parameters/,
  );
});

test("networks free everything they hold", () => {
  const before = liveTensors();
  {
    using g = new Generator(8n);
    using policy = new GaussianPolicy({ input: 5, hidden: [8, 8], actions: 2, generator: g });
    using copy = policy.clone();
    using critic = new ValueNetwork({ input: 5, hidden: [8], generator: g });
    using optimiser = new Adam([...policy.parameters().values()], { lr: 0.1 });
    for (let epoch = 0; epoch < 3; epoch++) {
      const during = liveTensors();
      {
        using _s = scope();
        const { mean, logStd } = policy.forward(randn([9, 5], g));
        mean.square().mean().add(logStd.exp().mean()).add(critic.forward(randn([9, 5], g)).mean())
          .backward();
        optimiser.step();
        optimiser.zeroGrad();
        copy.copyFrom(policy);
      }
      expect(liveTensors()).toBe(during);
    }
  }
  expect(liveTensors()).toBe(before);
});

test("a network of no width is refused", () => {
  expect(() => new Mlp({ input: 0, hidden: [], output: 1, generator: new Generator(1n) })).toThrow(
    TorchError,
  );
});

const camera = (size: number, name = "side"): Camera => ({
  name,
  channels: 9,
  rows: size,
  columns: size,
});
const pictures = (batch: number, size: number, g: Generator) =>
  randn([batch * 9 * size * size], g).mul(70).add(128).clamp(0, 255).to("uint8")
    .reshape([batch, 9, size, size]);

test("encoder drqv2 has the published shapes, initial weights and costs", () => {
  using _s = scope();
  using g = new Generator(9n);
  using encoder = new ConvEncoder("drqv2", camera(84), 128, g);
  expect([...encoder.parameters()].map(([name, t]) => `${name} ${t}`)).toEqual([
    "conv.0.weight float32[32, 9, 3, 3]",
    "conv.0.bias float32[32]",
    "conv.1.weight float32[32, 32, 3, 3]",
    "conv.1.bias float32[32]",
    "conv.2.weight float32[32, 32, 3, 3]",
    "conv.2.bias float32[32]",
    "conv.3.weight float32[32, 32, 3, 3]",
    "conv.3.bias float32[32]",
    "project.weight float32[128, 39200]",
    "project.bias float32[128]",
    "norm.weight float32[128]",
    "norm.bias float32[128]",
  ]);
  // Orthogonal rows of norm √2 for a convolution, of norm 1 for the projection.
  const gram = (name: string) => {
    const t = encoder.parameters().get(name)!;
    const matrix = t.reshape([t.shape[0], -1]);
    return values(matrix.matmul(matrix.transpose(0, 1)));
  };
  const identity = (n: number, scale: number) =>
    Array.from({ length: n * n }, (_, i) => i % (n + 1) === 0 ? scale : 0);
  near(gram("conv.0.weight"), identity(32, 2), 1e-5);
  near(gram("conv.2.weight"), identity(32, 2), 1e-5);
  near(gram("project.weight"), identity(128, 1), 1e-5);

  const costs = encoderCosts("drqv2", camera(84), 128);
  expect(costs.activations).toBe(185_472);
  expect(costs.multiplyAdds).toBe(42_280_992 + 39_200 * 128);
  expect(costs.parameters)
    .toBe([...encoder.parameters().values()].reduce((sum, t) => sum + t.numel, 0));
});

test("an encoder's output is tanh of a LayerNorm of what libtorch's own convolutions give", () => {
  using _s = scope();
  using g = new Generator(10n);
  for (const kind of ["drqv2", "small"] as const) {
    for (const size of [smallestPicture(kind), 33]) {
      using encoder = new ConvEncoder(kind, camera(size), 20, g);
      const x = pictures(5, size, g);
      const y = encoder.forward(x);
      expect(y.shape).toEqual([5, 20]);
      near(values(y), values(encoder.forwardComposed(x)), 2e-4);
    }
    const least = smallestPicture(kind);
    expect(() => new ConvEncoder(kind, camera(least - 1), 20, g)).toThrow(
      `camera "side": encoder ${kind} needs pictures of at least ${least} × ${least}`,
    );
  }
});

test("an encoder may subtract its pictures' mean in place of ½, and hands it on", () => {
  using _s = scope();
  using g = new Generator(12n);
  using encoder = new ConvEncoder("small", camera(22), 20, g);
  const x = pictures(150, 22, g);
  const before = values(encoder.forward(x));
  near(before, values(encoder.forwardComposed(x)), 2e-4);
  encoder.centreOn(x);
  const mean = x.to("float64").mean(0).div(255);
  const centre = encoder.tensors().get("centre")!;
  near(values(centre), values(mean.to("float32")), 1e-6);
  const after = values(encoder.forward(x));
  expect(after).not.toEqual(before);
  near(after, values(encoder.forwardComposed(x)), 2e-4);
  using copy = encoder.clone();
  expect(values(copy.forward(x))).toEqual(after);
  // No optimiser may change it.
  expect([...encoder.parameters().keys()]).not.toContain("centre");
});

test("a policy sees its cameras and a vector, learns through them, and copies all of it", () => {
  const before = liveTensors();
  {
    using _s = scope();
    using g = new Generator(11n);
    using policy = new GaussianPolicy({
      input: {
        cameras: [camera(16, "left"), camera(24, "right")],
        vector: 3,
        kind: "small",
        features: 8,
      },
      hidden: [12],
      actions: 2,
      generator: g,
    });
    const sight = {
      pictures: [pictures(6, 16, g), pictures(6, 24, g)],
      vector: randn([6, 3], g),
    };
    using copy = policy.clone();
    const target = randn([6, 2], g);
    const error = () => mseLoss(policy.infer(sight).mean, target).item();
    const first = error();
    using optimiser = new Adam([...policy.parameters().values()], { lr: 3e-3 });
    for (let i = 0; i < 60; i++) {
      using _step = scope();
      optimiser.zeroGrad();
      mseLoss(policy.forward(sight).mean, target).backward();
      optimiser.step();
    }
    expect(error()).toBeLessThan(0.1 * first);
    // Every source has a say, and every parameter but the log-std has moved.
    const mean = values(policy.infer(sight).mean);
    const other = (change: Partial<typeof sight>) =>
      values(policy.infer({ ...sight, ...change }).mean);
    expect(other({ vector: randn([6, 3], g) })).not.toEqual(mean);
    expect(other({ pictures: [pictures(6, 16, g), sight.pictures[1]] })).not.toEqual(mean);
    expect(other({ pictures: [sight.pictures[0], pictures(6, 24, g)] })).not.toEqual(mean);
    for (const [name, t] of policy.parameters()) {
      if (name === "log_std") continue;
      expect(values(t), name).not.toEqual(values(copy.parameters().get(name)!));
    }
    copy.lerp(policy, 1);
    expect(values(copy.infer(sight).mean)).toEqual(mean);
    expect(() => policy.infer(sight.vector)).toThrow("expected pictures, got float32[6, 3]");
    expect(() => policy.infer({ pictures: sight.pictures })).toThrow(
      "expected 2 cameras and a vector of 3, got 2 and 0",
    );
    expect(() =>
      new SightEncoder({ cameras: [], vector: 3, kind: "small", features: 8, generator: g })
    ).toThrow("no camera was given");
  }
  expect(liveTensors()).toBe(before);
});
