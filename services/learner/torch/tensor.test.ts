// Operators against values worked out by hand or by plain TypeScript, gradients against finite differences, and the
// errors a person would see.

import { describe, expect, test } from "vitest";
import {
  arange,
  cat,
  clipGradNorm,
  eye,
  fromArray,
  fromBytes,
  full,
  Generator,
  lambdaReturn,
  liveTensors,
  mseLoss,
  noGrad,
  ones,
  rand,
  randn,
  randperm,
  scope,
  scoped,
  setNumThreads,
  stack,
  type Tensor,
  TorchError,
  version,
  where,
  zeros,
} from "./mod.ts";

const values = (t: Tensor) => Array.from(t.toArray() as Iterable<number | bigint>, Number);
const list = (x: number[], shape = [x.length]) => fromArray(x, shape, { dtype: "float64" });

function near(actual: readonly number[], expected: readonly number[], tolerance = 1e-12) {
  expect(actual.length).toBe(expected.length);
  actual.forEach((x, i) => expect(Math.abs(x - expected[i])).toBeLessThanOrEqual(tolerance));
}

describe("operators", () => {
  test("elementwise operators broadcast and follow plain arithmetic", () => {
    using _s = scope();
    const a = list([1, -2, 3, 0.5, -0.25, 2], [2, 3]);
    const b = list([2, 4, -0.5]);
    const both = (f: (x: number, y: number) => number) =>
      values(a).map((x, i) => f(x, values(b)[i % 3]));
    near(values(a.add(b)), both((x, y) => x + y));
    near(values(a.sub(b)), both((x, y) => x - y));
    near(values(a.mul(b)), both((x, y) => x * y));
    near(values(a.div(b)), both((x, y) => x / y));
    near(values(a.minimum(b)), both(Math.min));
    near(values(a.maximum(b)), both(Math.max));
    near(values(a.lt(b)), both((x, y) => +(x < y)));
    near(values(a.ge(b)), both((x, y) => +(x >= y)));
    near(values(a.rsub(1)), values(a).map((x) => 1 - x));
    near(values(a.minimum(0.5)), values(a).map((x) => Math.min(x, 0.5)));
    near(values(a.clamp(-1, 1)), values(a).map((x) => Math.min(1, Math.max(-1, x))));
    near(values(a.clamp(undefined, 1)), values(a).map((x) => Math.min(1, x)));
    near(values(a.clamp(b.neg(), b.abs())), both((x, y) => Math.min(Math.abs(y), Math.max(-y, x))));
  });

  test("unary operators follow Math", () => {
    using _s = scope();
    const x = [-2, -0.5, 0, 0.75, 3];
    const t = list(x);
    near(values(t.exp()), x.map(Math.exp));
    near(values(t.tanh()), x.map(Math.tanh));
    near(values(t.abs().sqrt()), x.map((v) => Math.sqrt(Math.abs(v))));
    near(values(t.sigmoid()), x.map((v) => 1 / (1 + Math.exp(-v))));
    near(values(t.elu()), x.map((v) => v > 0 ? v : Math.expm1(v)));
    near(values(t.relu()), x.map((v) => Math.max(0, v)));
    near(values(t.sign()), x.map(Math.sign));
    near(values(t.square().add(1).log()), x.map((v) => Math.log(v * v + 1)));
    near(values(fromArray([1, NaN, Infinity], [3]).isfinite()), [1, 0, 0]);
  });

  test("var() and std() divide by n − 1 unless told otherwise", () => {
    using _s = scope();
    const t = list([0, 1, -2, 4]); // reference/sdpg.md 1.6: s = 2.5
    expect(t.std().item()).toBeCloseTo(2.5, 12);
    expect(t.var(0, { unbiased: false }).item()).toBeCloseTo(6.25 * 3 / 4, 12);
    expect(t.reshape([2, 2]).var(1, { keepdim: true }).shape).toEqual([2, 1]);
  });

  test("reductions take one dimension, several or all", () => {
    using _s = scope();
    const t = arange(24).reshape([2, 3, 4]).to("float64");
    expect(t.sum().item()).toBe(276);
    expect(t.sum([0, 2]).shape).toEqual([3]);
    near(values(t.sum([0, 2])), [60, 92, 124]);
    near(values(t.mean(1).select(0, 0)), [4, 5, 6, 7]);
    near(values(t.max(2, true)), [3, 7, 11, 15, 19, 23]);
    near(values(t.argmax(0).select(0, 0)), [1, 1, 1, 1]);
    near(values(t.cumsum(2).select(0, 0).select(0, 1)), [4, 9, 15, 22]);
    expect(t.norm().item()).toBeCloseTo(Math.sqrt(4324), 9);
  });

  test("shapes: slice, select, gather, topk, repeatInterleave, flip, cat, stack", () => {
    using _s = scope();
    const t = arange(12).reshape([3, 4]);
    near(values(t.slice(1, 1, 4, 2)), [1, 3, 5, 7, 9, 11]);
    near(values(t.transpose(0, 1).select(0, 2)), [2, 6, 10]);
    near(values(t.indexSelect(0, fromArray([2, 0], [2], { dtype: "int64" }))), [
      8,
      9,
      10,
      11,
      0,
      1,
      2,
      3,
    ]);
    near(
      values(t.gather(1, fromArray([3, 0, 1], [3, 1], { dtype: "int64" }))),
      [3, 4, 9],
    );
    const { values: largest, indices } = list([3, 9, -1, 7]).topk(2, 0);
    near(values(largest), [9, 7]);
    near(values(indices), [1, 3]);
    near(values(arange(2).repeatInterleave(3, 0)), [0, 0, 0, 1, 1, 1]);
    near(values(t.flip([0]).select(0, 0)), [8, 9, 10, 11]);
    expect(cat([t, t], 1).shape).toEqual([3, 8]);
    expect(stack([t, t], 0).shape).toEqual([2, 3, 4]);
    expect(t.unsqueeze(1).expand([-1, 5, -1]).shape).toEqual([3, 5, 4]);
    expect(t.permute([1, 0]).shape).toEqual([4, 3]);
  });

  test("whole numbers keep integer tensors integer; fractions do not", () => {
    using _s = scope();
    expect(arange(3).add(1).dtype).toBe("int64");
    expect(arange(3).add(0.5).dtype).toBe("float32");
    expect(ones([2], { dtype: "float64" }).mul(0.1).dtype).toBe("float64");
    expect(where(arange(3).gt(0), 0, ones([3])).dtype).toBe("float32");
  });

  test("views share storage and in-place operators change it", () => {
    using _s = scope();
    const t = zeros([2, 3]);
    t.select(0, 1).fill_(2).add_(1).mul_(fromArray([1, 2, 3], [3]));
    near(values(t), [0, 0, 0, 3, 6, 9]);
    t.slice(1, 0, 1).copy_(full([2, 1], 7));
    near(values(t), [7, 0, 0, 7, 6, 9]);
    t.lerp_(zeros([2, 3]), 0.5).clamp_(1, 4);
    near(values(t), [3.5, 1, 1, 3.5, 3, 4]);
  });

  test("arrays go in and out unchanged in every dtype", () => {
    using _s = scope();
    expect(fromArray(new Float32Array([0.1, -0]), [2]).toArray()).toEqual(
      new Float32Array([0.1, -0]),
    );
    expect(fromArray([0.1], [1], { dtype: "float64" }).toArray()).toEqual(new Float64Array([0.1]));
    expect(fromArray(new BigInt64Array([2n ** 62n]), [1]).toArray()).toEqual(
      new BigInt64Array([2n ** 62n]),
    );
    expect(fromArray(new Int32Array([-5]), [1]).toArray()).toEqual(new Int32Array([-5]));
    expect(fromArray([0, 1, 1], [3], { dtype: "bool" }).toArray()).toEqual(
      new Uint8Array([0, 1, 1]),
    );
    const wide = new Float32Array([9, 1, 2, 9]).subarray(1, 3);
    near(values(fromArray(wide, [2])), [1, 2]);
    near(values(arange(6).reshape([2, 3]).transpose(0, 1)), [0, 3, 1, 4, 2, 5]);
  });

  test("denormals are flushed inside operators and kept in JavaScript", () => {
    using _s = scope();
    const tiny = fromArray(new Float32Array([1e-20]), [1]);
    expect(tiny.mul(tiny).item()).toBe(0);
    const five = Number("5e-324");
    expect(five * 1).toBeGreaterThan(0);
  });
});

describe("lambdaReturn()", () => {
  const cases: [number[], number[], number[], number[]][] = [ // reference/sdpg.md 1.5, γ = 0.9, λ = 0.5
    [[1, 2, 3], [10, 20, 30], [0, 0, 1], [16.525, 24.5, 30]],
    [[1, 2, 3], [10, 0, 30], [0, 1, 1], [6.4, 2, 30]],
    [[1, 2, 3, 4], [10, 20, 30, 40], [0, 1, 0, 1], [14.5, 20, 34.5, 40]],
  ];
  test.each(cases)("gives the published vectors for r %j, V' %j, d %j", (r, v, d, expected) => {
    using _s = scope();
    const column = [r.length, 1];
    near(
      values(lambdaReturn(list(r, column), list(v, column), list(d, column), 0.9, 0.5)),
      expected,
    );
  });

  test("equals the three-accumulator recursion, and the discounted return at λ = 1", () => {
    using _s = scope();
    const generator = new Generator(7n);
    const [T, E, gamma] = [13, 50, 0.97];
    const r = randn([T, E], generator, { dtype: "float64" });
    const v = randn([T, E], generator, { dtype: "float64" });
    const d = rand([T, E], generator).lt(0.2);
    d.select(0, T - 1).fill_(1);
    for (const lambda of [0, 0.3, 0.95]) {
      const expected = threeAccumulators(values(r), values(v), values(d), T, E, gamma, lambda);
      near(values(lambdaReturn(r, v, d, gamma, lambda)), expected.J, 1e-10);
      near(values(lambdaReturn(r, v, d, gamma, 1)), expected.B, 1e-10);
    }
    generator[Symbol.dispose]();
  });

  /** The recursion of the official implementation, reference/sdpg.md 1.5. */
  function threeAccumulators(
    r: number[],
    v: number[],
    d: number[],
    T: number,
    E: number,
    gamma: number,
    lambda: number,
  ) {
    const J = new Array<number>(T * E), B = new Array<number>(T * E);
    for (let e = 0; e < E; e++) {
      let [a, b, bar] = [0, 0, 1];
      for (let t = T - 1; t >= 0; t--) {
        const i = t * E + e;
        bar = lambda * bar * (1 - d[i]) + d[i];
        a = (1 - d[i]) *
          (lambda * gamma * a + gamma * v[i] + (1 - bar) / (1 - lambda) * r[i]);
        b = r[i] + gamma * (d[i] * v[i] + (1 - d[i]) * b);
        J[i] = (1 - lambda) * a + bar * b;
        B[i] = b;
      }
    }
    return { J, B };
  }
});

describe("gradients", () => {
  // Central differences in float64: error of order h² ≈ 1e-10 and rounding 1e-16 / h.
  const h = 1e-5;
  const check = (f: (x: Tensor) => Tensor, shape: number[], seed: bigint) => {
    using _s = scope();
    using generator = new Generator(seed);
    const x = rand(shape, generator, { dtype: "float64" }).add(0.2).requiresGrad_();
    const y = f(x);
    y.backward();
    const analytic = values(x.grad()!);
    const flat = x.detach().clone().reshape([-1]);
    for (let i = 0; i < analytic.length; i++) {
      const at = (delta: number) => {
        using _inner = scope();
        const moved = flat.clone();
        moved.select(0, i).add_(delta);
        return f(moved.reshape(shape)).item();
      };
      const numeric = (at(h) - at(-h)) / (2 * h);
      expect(Math.abs(analytic[i] - numeric)).toBeLessThan(1e-7 * (1 + Math.abs(numeric)));
    }
  };

  const cases: [string, (x: Tensor) => Tensor, number[]][] = [
    ["elementwise", (x) => x.exp().mul(x.tanh()).div(x.square().add(1)).sum(), [2, 3]],
    ["log, sqrt, pow", (x) => x.log().add(x.sqrt()).mul(x.pow(3)).mean(), [5]],
    ["elu", (x) => x.sub(0.7).elu().square().sum(), [6]],
    ["matmul", (x) => x.matmul(x.transpose(0, 1)).tanh().sum(), [3, 2]],
    [
      "layerNorm",
      (x) => x.layerNorm([4]).mul(arange(4).to("float64")).square().sum(),
      [3, 4],
    ],
    ["std, var", (x) => x.std(1).add(x.var(1)).sum(), [2, 5]],
    ["slice, cat", (x) => cat([x.slice(0, 1, 3), x.square()], 0).square().sum(), [4, 2]],
    [
      "where, clamp",
      (x) => where(x.gt(0.5), x.square(), x.clamp(0.3, 0.9)).sum(),
      [7],
    ],
    ["sin, cos, sigmoid", (x) => x.sin().mul(x.cos()).add(x.sigmoid()).sum(), [5]],
  ];
  test.each(cases)("%s matches finite differences", (_name, f, shape) => check(f, shape, 11n));

  test("accumulate over calls, can be set and forgotten", () => {
    using _s = scope();
    const x = ones([2]).requiresGrad_();
    x.mul(3).sum().backward();
    x.mul(4).sum().backward();
    near(values(x.grad()!), [7, 7]);
    x.setGrad(fromArray([1, 2], [2]));
    near(values(x.grad()!), [1, 2]);
    x.setGrad(null);
    expect(x.grad()).toBeNull();
    expect(() => x.setGrad(ones([3]))).toThrow(/float32\[2\], float32\[3\]/);
  });

  test("noGrad() records nothing and restores recording after an error", () => {
    using _s = scope();
    const x = ones([2]).requiresGrad_();
    expect(noGrad(() => x.mul(2).requiresGrad)).toBe(false);
    expect(() =>
      noGrad(() => {
        throw new Error("inside");
      })
    ).toThrow("inside");
    expect(x.mul(2).requiresGrad).toBe(true);
    expect(() => noGrad(() => Promise.resolve())).toThrow(TorchError);
  });

  test("clipGradNorm() scales to the norm and reports the norm before", () => {
    using _s = scope();
    const a = zeros([2]).requiresGrad_(), b = zeros([1]).requiresGrad_();
    a.setGrad(fromArray([3, 0], [2]));
    b.setGrad(fromArray([4], [1]));
    expect(clipGradNorm([a, b], 10)).toBeCloseTo(5, 6);
    near(values(a.grad()!), [3, 0]);
    expect(clipGradNorm([a, b], 1)).toBeCloseTo(5, 6);
    near([...values(a.grad()!), ...values(b.grad()!)], [0.6, 0, 0.8], 1e-6);
    const unused = zeros([2]).requiresGrad_();
    expect(clipGradNorm([unused], 1)).toBe(0);
  });

  test("mseLoss() is the mean of squared differences", () => {
    using _s = scope();
    expect(mseLoss(list([1, 2, 3]), list([1, 0, 6])).item()).toBeCloseTo(13 / 3, 12);
  });
});

describe("errors", () => {
  test("name the action and the operands' dtypes and shapes", () => {
    using _s = scope();
    const cases: [() => unknown, RegExp][] = [
      [
        () => ones([2, 3]).matmul(ones([4, 5])),
        /^Cannot run matmul\(float32\[2, 3\], float32\[4, 5\]\): /,
      ],
      [() => ones([2]).add(ones([3])), /^Cannot run add\(float32\[2\], float32\[3\]\): /],
      [() => ones([6]).reshape([4]), /^Cannot run reshape\(float32\[6\], 1, 4\): /],
      [() => cat([ones([2, 2]), ones([3, 3])], 0), /float32\[2, 2\], float32\[3, 3\]/],
      [() => ones([2]).item(), /item\(float32\[2\]\): expected exactly one element/],
      [() => zeros([2]).backward(), /^Cannot run backward\(float32\[2\]\)/],
      [() => fromBytes(new Uint8Array(7), "float32", [2]), /float32\[2\] needs 8 bytes, got 7/],
      [() => zeros([-1]), /zeros\(0, 1, -1\)/],
      [() => fromArray([1], [0.5]), /whole numbers/],
      [() => lambdaReturn(ones([2, 2]), ones([2, 2]), ones([2, 3]), 1, 1), /one shape \[T, E\]/],
      [() => zeros([1], { dtype: "half" as "float32" }), /dtype "half": expected one of float32/],
      [() => setNumThreads(0), /expected 1 to 256, got 0/],
      [() => fromArray([1, 2], [2 ** 40, 2 ** 40]), /more elements than memory can hold/],
    ];
    for (const [f, message] of cases) {
      expect(f).toThrow(TorchError);
      expect(f).toThrow(message);
    }
    for (const [f] of cases) {
      try {
        f();
      } catch (error) {
        expect((error as Error).message).not.toContain("\n");
      }
    }
  });

  test("a freed tensor is refused, and freeing twice is harmless", () => {
    const t = ones([2]);
    t[Symbol.dispose]();
    t[Symbol.dispose]();
    expect(() => t.add(1)).toThrow(/freed/);
    expect(() => t.shape).toThrow(/freed/);
    // The slot is used again: the stale handle must not reach the new tensor.
    using other = ones([3]);
    expect(() => t.add(1)).toThrow(/freed/);
    expect(other.shape).toEqual([3]);
  });
});

describe("scopes", () => {
  test("free what was made in them, except what is kept", () => {
    const before = liveTensors();
    let kept: Tensor;
    {
      using s = scope();
      const a = ones([4]);
      a.add(1).mul(2);
      kept = s.keep(a.add(5));
      expect(liveTensors()).toBe(before + 4);
    }
    expect(liveTensors()).toBe(before + 1);
    expect(kept.sum().dtype).toBe("float32");
    kept[Symbol.dispose]();
    expect(liveTensors()).toBe(before + 1); // the sum has no scope: it lives until it is disposed
  });

  test("keep() hands a tensor to the scope around, scoped() returns nested results", () => {
    const before = liveTensors();
    {
      using _outer = scope();
      const { pair, named } = scoped(() => ({
        pair: [ones([1]).add(1), ones([1])],
        named: new Map([["x", zeros([2])]]),
      }));
      expect(pair[0].item()).toBe(2);
      expect(named.get("x")!.shape).toEqual([2]);
      expect(liveTensors()).toBe(before + 3);
    }
    expect(liveTensors()).toBe(before);
  });

  test("free on the way out of an error, and refuse async functions and crossed scopes", () => {
    const before = liveTensors();
    expect(() =>
      scoped(() => {
        ones([1]);
        throw new Error("inside");
      })
    ).toThrow("inside");
    expect(() => scoped(() => Promise.resolve(1))).toThrow(/async/);
    const outer = scope(), inner = scope();
    expect(() => outer[Symbol.dispose]()).toThrow(/reverse order/);
    inner[Symbol.dispose]();
    outer[Symbol.dispose]();
    expect(liveTensors()).toBe(before);
  });

  test("persist() takes a tensor out of every scope", () => {
    const before = liveTensors();
    let t: Tensor;
    {
      using _s = scope();
      t = ones([2]).persist();
    }
    expect(t.sum().item()).toBe(2);
    t[Symbol.dispose]();
    expect(liveTensors()).toBe(before + 1);
  });
});

describe("generators", () => {
  test("same seed, same numbers; a state continues exactly", () => {
    using _s = scope();
    using a = new Generator(123n), b = new Generator(123n), c = new Generator(124n);
    const first = values(randn([100], a));
    expect(values(randn([100], b))).toEqual(first);
    expect(values(randn([100], c))).not.toEqual(first);
    randn([7], a); // an odd count leaves half of a normal pair waiting in the state
    const state = a.state();
    const expected = [...values(randn([9], a)), ...values(randperm(9, a)), ...values(rand([3], a))];
    b.setState(state);
    expect([...values(randn([9], b)), ...values(randperm(9, b)), ...values(rand([3], b))]).toEqual(
      expected,
    );
    expect(() => b.setState(state.subarray(1))).toThrow(TorchError);
    expect(() => new Generator(-1n)).toThrow(/0 to 2\^64/);
  });

  test("numbers have the moments they should", () => {
    using _s = scope();
    using g = new Generator(5n);
    const n = 200_000, x = randn([n], g, { dtype: "float64" }), u = rand([n], g);
    expect(Math.abs(x.mean().item())).toBeLessThan(5 / Math.sqrt(n));
    expect(Math.abs(x.var().item() - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
    expect(Math.abs(u.mean().item() - 0.5)).toBeLessThan(5 / Math.sqrt(12 * n));
    expect(values(randperm(1000, g)).sort((p, q) => p - q)).toEqual(values(arange(1000)));
  });
});

test("eye(), qr(): Q is orthonormal and QR gives the matrix back", () => {
  using _s = scope();
  using g = new Generator(3n);
  const a = randn([5, 3], g, { dtype: "float64" });
  const { q, r } = a.qr();
  near(values(q.transpose(0, 1).matmul(q)), values(eye(3)), 1e-12);
  near(values(q.matmul(r)), values(a), 1e-12);
});

test("conv2d() agrees with a direct sum", () => {
  using _s = scope();
  using g = new Generator(4n);
  const x = randn([1, 2, 5, 6], g, { dtype: "float64" });
  const w = randn([3, 2, 3, 3], g, { dtype: "float64" });
  const b = randn([3], g, { dtype: "float64" });
  const y = x.conv2d(w, b, { stride: 2, padding: 1 });
  expect(y.shape).toEqual([1, 3, 3, 3]);
  const [X, W, B] = [values(x), values(w), values(b)];
  const expected: number[] = [];
  for (let o = 0; o < 3; o++) {
    for (let i = 0; i < 3; i++) {
      for (let j = 0; j < 3; j++) {
        let sum = B[o];
        for (let c = 0; c < 2; c++) {
          for (let p = 0; p < 3; p++) {
            for (let q = 0; q < 3; q++) {
              const [r, s] = [2 * i + p - 1, 2 * j + q - 1];
              if (r >= 0 && r < 5 && s >= 0 && s < 6) {
                sum += X[(c * 5 + r) * 6 + s] * W[((o * 2 + c) * 3 + p) * 3 + q];
              }
            }
          }
        }
        expected.push(sum);
      }
    }
  }
  near(values(y), expected, 1e-12);
});

test("version() names libtorch and a fast BLAS", () => {
  const { torch, blas, parallel, kernels } = version();
  expect(kernels).toMatch(/^(avx512|avx2|baseline)$/);
  expect(torch).toMatch(/^\d+\.\d+/);
  expect(blas).toMatch(/OpenBLAS|MKL/);
  expect(parallel).toMatch(/threads/);
});
