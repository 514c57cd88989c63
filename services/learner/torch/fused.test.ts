// Fused operators against their composed forms, against finite differences, and against themselves with another number
// of threads: float rounding apart from the composed form, not a bit apart from any other thread count.

import { afterAll, afterEach, describe, expect, test } from "vitest";
import {
  Adam,
  clipGradNorm,
  fromArray,
  Generator,
  type Kernels,
  mlpForward,
  mlpRegress,
  mseLoss,
  noGrad,
  randn,
  randperm,
  scope,
  setKernels,
  setNumThreads,
  type Tensor,
  TorchError,
  version,
  zeroGrad,
  zeros,
} from "./mod.ts";

import { sha256 } from "./safetensors.ts";

const EPS = 1e-5;
const best = version().kernels;
/** Every instruction set this CPU runs: a better one runs the lesser ones too. */
const sets = (["avx512", "avx2", "baseline"] as Kernels[]).slice(
  ["avx512", "avx2", "baseline"].indexOf(best),
);
afterAll(() => setNumThreads(1));
afterEach(() => setKernels(best));

/** Random parameters of all kinds, so that no gradient is zero by symmetry. */
function network(widths: number[], generator: Generator): Tensor[] {
  const parameters: Tensor[] = [];
  for (let l = 1; l < widths.length; l++) {
    const [k, n] = [widths[l - 1], widths[l]];
    parameters.push(randn([n, k], generator).div(Math.sqrt(k)), randn([n], generator).mul(0.2));
    if (l < widths.length - 1) {
      parameters.push(randn([n], generator).mul(0.2).add(1), randn([n], generator).mul(0.2));
    }
  }
  return parameters.map((p) => p.requiresGrad_());
}

function composed(x: Tensor, p: readonly Tensor[]): Tensor {
  let h = x;
  for (let i = 0; i + 2 < p.length; i += 4) {
    h = h.linear(p[i], p[i + 1]).elu().layerNorm([p[i].shape[0]], p[i + 2], p[i + 3], EPS);
  }
  return h.linear(p.at(-2)!, p.at(-1)!);
}

const bytes = (ts: Tensor[]) => ts.map((t) => sha256(t.bytes()));

function expectClose(actual: Tensor, expected: Tensor, relative: number) {
  const difference = actual.sub(expected).abs().max().item();
  const size = expected.abs().max().item();
  expect(difference).toBeLessThanOrEqual(relative * Math.max(size, 0.1));
}

describe("mlpForward()", () => {
  const shapes: [number[], number][] = [
    [[11, 64, 64, 1], 1000],
    [[11, 64, 64, 3], 64],
    [[17, 128, 65, 33, 2], 700],
    [[5, 1], 70], // no hidden layer
    [[3, 7, 4], 1],
    [[1, 3, 1], 65],
    [[40, 300, 6], 130],
  ];
  test.each(shapes)("%j on %d samples: values and gradients as composed", (widths, rows) => {
    using _s = scope();
    using g = new Generator(17n);
    const p = network(widths, g);
    const x = randn([rows, widths[0]], g).requiresGrad_();
    const weight = randn([rows, widths.at(-1)!], g);
    const run = (f: (x: Tensor, p: Tensor[]) => Tensor) => {
      zeroGrad([x, ...p]);
      const y = f(x, p);
      y.mul(weight).sum().backward();
      return [y.detach(), ...[x, ...p].map((t) => t.grad()!.clone())];
    };
    const expected = run(composed);
    for (const set of sets) {
      setKernels(set);
      setNumThreads(1);
      const actual = run((x, p) => mlpForward(x, p, EPS));
      actual.forEach((t, i) => expectClose(t, expected[i], 1e-5));
      for (const threads of [2, 3]) {
        setNumThreads(threads);
        expect(bytes(run((x, p) => mlpForward(x, p, EPS)))).toEqual(bytes(actual));
      }
    }
  });

  test("leading dimensions pass through and a row's result does not depend on its neighbours", () => {
    using _s = scope();
    using g = new Generator(18n);
    const p = network([5, 16, 2], g);
    const x = randn([3, 50, 5], g);
    const y = mlpForward(x, p, EPS);
    expect(y.shape).toEqual([3, 50, 2]);
    const alone = mlpForward(x.select(0, 1).slice(0, 7, 8), p, EPS);
    expect(alone.bytes()).toEqual(y.select(0, 1).slice(0, 7, 8).bytes());
    const none = mlpForward(zeros([0, 5]), p, EPS);
    expect(none.shape).toEqual([0, 2]);
  });

  test("inference has the bits of the forward pass", () => {
    using _s = scope();
    using g = new Generator(19n);
    const p = network([11, 64, 64, 3], g);
    const x = randn([200, 11], g);
    const recorded = mlpForward(x, p, EPS);
    expect(recorded.requiresGrad).toBe(true);
    const inferred = noGrad(() => mlpForward(x, p, EPS));
    expect(inferred.requiresGrad).toBe(false);
    expect(inferred.bytes()).toEqual(recorded.bytes());
  });

  test("ELU keeps small negative numbers and saturates at −1", () => {
    using _s = scope();
    // Two units, z and 0, so that LayerNorm leaves something of e = ELU(z) to see.
    const inputs = [-1e-6, -1e-3, -0.3, -1, -10, -80, -200, 0, 1e-6, 5];
    const big = 1e3; // ε large against the spread: LayerNorm becomes (e − mean) / √ε, linear in e
    const p = [[1, 0], [0, 0], [1, 1], [0, 0], [1, -1], [0]].map((v, i) =>
      fromArray(v, [[2, 1], [2], [2], [2], [1, 2], [1]][i])
    );
    for (const set of sets) {
      setKernels(set);
      const y = noGrad(() => mlpForward(fromArray(inputs, [inputs.length, 1]), p, big));
      Array.from(y.toArray() as Float32Array).forEach((value, i) => {
        const e = inputs[i] > 0 ? inputs[i] : Math.expm1(Math.fround(inputs[i]));
        const exact = e / Math.sqrt(e * e / 4 + big); // mean e/2, variance e²/4, difference e
        expect(Math.abs(value - exact)).toBeLessThanOrEqual(1e-6 * Math.abs(exact));
      });
    }
  });

  test("gradients match finite differences of a double-precision computation", () => {
    using _s = scope();
    using g = new Generator(20n);
    const p = network([3, 5, 4, 2], g);
    const x = randn([6, 3], g).requiresGrad_();
    mlpForward(x, p, EPS).square().sum().backward();
    const doubles = [x, ...p].map((t) => t.detach().to("float64"));
    const loss = () => composed(doubles[0], doubles.slice(1)).square().sum().item();
    const h = 1e-6;
    [x, ...p].forEach((t, which) => {
      const gradient = t.grad()!.toArray() as Float32Array;
      const flat = doubles[which].reshape([-1]); // a view
      for (let i = 0; i < gradient.length; i++) {
        const at = flat.select(0, i);
        at.add_(h);
        const above = loss();
        at.add_(-2 * h);
        const below = loss();
        at.add_(h);
        const numeric = (above - below) / (2 * h);
        expect(Math.abs(gradient[i] - numeric)).toBeLessThan(2e-4 * (1 + Math.abs(numeric)));
      }
    });
  });

  test("refuses what does not fit, with both shapes", () => {
    using _s = scope();
    using g = new Generator(21n);
    const p = network([5, 8, 2], g);
    expect(() => mlpForward(zeros([4, 6]), p, EPS)).toThrow(
      /weight of hidden layer 0: expected \[N, 6\], got float32\[8, 5\]/,
    );
    expect(() => mlpForward(zeros([4, 5], { dtype: "float64" }), p, EPS)).toThrow(/float32 input/);
    expect(() => mlpForward(zeros([4, 5]), p.slice(1), EPS)).toThrow(/4 parameters a hidden layer/);
    const wrong = [...p.slice(0, 3), zeros([7]), ...p.slice(4)];
    expect(() => mlpForward(zeros([4, 5]), wrong, EPS)).toThrow(/expected \[8\], got float32\[7\]/);
  });
});

describe("mlpRegress()", () => {
  /** The same pass from composed operators. */
  function passComposed(
    p: Tensor[],
    optimiser: Adam,
    x: Tensor,
    y: Tensor,
    order: Tensor,
    batch: number,
    maxGradNorm: number,
  ) {
    const losses: number[] = [], norms: number[] = [];
    for (let start = 0; start < order.shape[0]; start += batch) {
      using _s = scope();
      const rows = order.slice(0, start, Math.min(start + batch, order.shape[0]));
      const loss = mseLoss(
        composed(x.indexSelect(0, rows), p).squeeze(-1),
        y.indexSelect(0, rows),
      );
      optimiser.zeroGrad();
      loss.backward();
      norms.push(clipGradNorm(p, maxGradNorm));
      optimiser.step();
      losses.push(loss.item());
    }
    return { losses, norms };
  }

  function problem(seed: bigint) {
    using g = new Generator(seed);
    const x = randn([1500, 11], g), y = randn([1500], g).add(x.select(1, 0).mul(2));
    const p = network([11, 64, 64, 1], g);
    return { x, y, p, order: randperm(1500, g) };
  }
  const copies = (p: Tensor[]) => p.map((t) => t.detach().clone().requiresGrad_());

  test.each(sets)(
    "%s: parameters, moments, reports follow the composed pass to rounding",
    (set) => {
      using _s = scope();
      setKernels(set);
      const { x, y, p, order } = problem(31n);
      const q = copies(p);
      using fused = new Adam(p, { lr: 1e-3 }), plain = new Adam(q, { lr: 1e-3 });
      // 1500 = 3 · 400 + 300: the last mini-batch is shorter. Norm 1 clips, as at the start of training.
      const result = mlpRegress(fused, x, y, order, { batchSize: 400, maxGradNorm: 1, eps: EPS });
      const { losses, norms } = passComposed(q, plain, x, y, order, 400, 1);
      expect(result.steps).toBe(4);
      expect(fused.steps).toBe(4);
      expect(norms[0]).toBeGreaterThan(1);
      const mean = (losses[0] + losses[1] + losses[2]) * 400 / 1500 + losses[3] * 300 / 1500;
      expect(result.loss).toBeCloseTo(mean, 4);
      expect(result.lastLoss).toBeCloseTo(losses[3], 4);
      expect(result.gradNorm).toBeCloseTo(norms.reduce((a, b) => a + b) / 4, 3);
      // Adam divides by √v̂, which magnifies rounding of near-zero gradients: compare with the step size.
      p.forEach((t, i) => {
        expect(t.sub(q[i]).abs().max().item()).toBeLessThan(2e-2 * 4 * 1e-3);
        expectClose(fused.m[i], plain.m[i], 1e-3);
        expectClose(fused.v[i], plain.v[i], 1e-3);
      });
    },
  );

  test("any number of threads gives the same bits, and passes reduce the loss", () => {
    using _s = scope();
    const { x, y, p, order } = problem(32n);
    const runs = [1, 2, 3, 5].map((threads) => {
      setNumThreads(threads);
      const q = copies(p);
      using optimiser = new Adam(q, { lr: 1e-3 });
      const results = Array.from(
        { length: 8 },
        () => mlpRegress(optimiser, x, y, order, { batchSize: 512, maxGradNorm: 1, eps: EPS }),
      );
      expect(results[7].loss).toBeLessThan(0.8 * results[0].loss);
      return { results, state: bytes([...q, ...optimiser.m, ...optimiser.v]) };
    });
    for (const run of runs.slice(1)) expect(run).toEqual(runs[0]);
  });

  test("part of an order trains on those rows only", () => {
    using _s = scope();
    const { x, y, p, order } = problem(33n);
    const q = copies(p);
    const some = order.slice(0, 0, 100);
    const mask = zeros([1500]);
    for (const row of some.toArray() as BigInt64Array) mask.select(0, Number(row)).fill_(1);
    const far = x.mul(mask.unsqueeze(1)).add(mask.rsub(1).unsqueeze(1).mul(1e6));
    using a = new Adam(p, { lr: 1e-3 }), b = new Adam(q, { lr: 1e-3 });
    mlpRegress(a, x, y, some, { batchSize: 64, eps: EPS });
    mlpRegress(b, far, y, some, { batchSize: 64, eps: EPS });
    expect(bytes(q)).toEqual(bytes(p));
  });

  test("a mini-batch without a finite gradient is left out", () => {
    using _s = scope();
    const { x, y, p } = problem(34n);
    const q = copies(p);
    const bad = y.clone();
    bad.select(0, 5).fill_(NaN);
    const all = fromArray(BigInt64Array.from({ length: 200 }, (_, i) => BigInt(i)), [200]);
    using a = new Adam(p, { lr: 1e-3 }), b = new Adam(q, { lr: 1e-3 });
    const result = mlpRegress(a, x, bad, all, { batchSize: 100, maxGradNorm: 1, eps: EPS });
    expect(result.steps).toBe(1);
    expect(Number.isFinite(result.loss)).toBe(true);
    mlpRegress(b, x, y, all.slice(0, 100, 200), { batchSize: 100, maxGradNorm: 1, eps: EPS });
    expect(bytes(p)).toEqual(bytes(q));
  });

  test("refuses rows that do not exist, wrong shapes and networks with several outputs", () => {
    using _s = scope();
    using g = new Generator(35n);
    const p = network([4, 8, 1], g);
    using optimiser = new Adam(p, { lr: 1e-3 });
    const options = { batchSize: 4, eps: EPS };
    const order = (rows: bigint[]) => fromArray(BigInt64Array.from(rows), [rows.length]);
    const before = bytes(p);
    expect(() => mlpRegress(optimiser, zeros([3, 4]), zeros([3]), order([0n, 3n]), options))
      .toThrow(
        /order holds 3, the input has 3 rows/,
      );
    expect(() => mlpRegress(optimiser, zeros([3, 4]), zeros([2]), order([0n]), options)).toThrow(
      /input \[B, D\] and target \[B\]/,
    );
    expect(() => mlpRegress(optimiser, zeros([3, 5]), zeros([3]), order([0n]), options)).toThrow(
      TorchError,
    );
    using two = new Adam(network([4, 8, 2], g), { lr: 1e-3 });
    expect(() => mlpRegress(two, zeros([3, 4]), zeros([3]), order([0n]), options)).toThrow(
      /one output/,
    );
    expect(bytes(p)).toEqual(before);
    expect(optimiser.steps).toBe(0);
  });
});
