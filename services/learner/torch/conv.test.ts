// The fused image encoder against libtorch's own convolutions, against a convolution written out in this file, and
// against itself with another number of threads.

import { afterAll, afterEach, describe, expect, test } from "vitest";
import {
  convEncode,
  fromArray,
  Generator,
  type Kernels,
  noGrad,
  randn,
  scope,
  setKernels,
  setNumThreads,
  type Tensor,
  TorchError,
  version,
  zeroGrad,
} from "./mod.ts";
import { sha256 } from "./safetensors.ts";

const best = version().kernels;
const sets = (["avx512", "avx2", "baseline"] as Kernels[]).slice(
  ["avx512", "avx2", "baseline"].indexOf(best),
);
afterAll(() => setNumThreads(1));
afterEach(() => setKernels(best));

/** Convolutions as [outputs, window, stride], then the width of the projection. */
interface Case {
  picture: [channels: number, rows: number, columns: number];
  layers: [outputs: number, window: number, stride: number][];
  features: number;
  batch: number;
}

const cases: Case[] = [
  {
    picture: [9, 84, 84],
    layers: [[32, 3, 2], [32, 3, 1], [32, 3, 1], [32, 3, 1]],
    features: 50,
    batch: 2,
  },
  { picture: [9, 42, 42], layers: [[32, 4, 4], [32, 3, 2]], features: 64, batch: 29 },
  { picture: [3, 20, 31], layers: [[5, 2, 2], [17, 3, 1], [33, 1, 1]], features: 7, batch: 13 },
  { picture: [1, 9, 8], layers: [[1, 5, 3]], features: 1, batch: 1 },
  { picture: [2, 12, 40], layers: [[48, 7, 2]], features: 100, batch: 25 },
];

function make({ picture, layers, features, batch }: Case, generator: Generator) {
  const size = batch * picture.reduce((a, b) => a * b);
  const bytes = randn([size], generator).mul(70).add(128).clamp(0, 255).to("uint8");
  const pictures = bytes.reshape([batch, ...picture]);
  const centre = randn(picture, generator).mul(0.2).add(0.5);
  const parameters: Tensor[] = [];
  let [channels, rows, columns] = picture;
  for (const [outputs, window, stride] of layers) {
    const inputs = channels * window * window;
    parameters.push(
      randn([outputs, channels, window, window], generator).div(Math.sqrt(inputs / 4)),
      randn([outputs], generator).mul(0.2),
    );
    channels = outputs;
    rows = Math.floor((rows - window) / stride) + 1;
    columns = Math.floor((columns - window) / stride) + 1;
  }
  const flat = channels * rows * columns;
  parameters.push(
    randn([features, flat], generator).div(Math.sqrt(flat)),
    randn([features], generator),
  );
  parameters.forEach((p) => p.requiresGrad_());
  return { pictures, centre, parameters, strides: layers.map(([, , stride]) => stride) };
}

function composed(
  pictures: Tensor,
  centre: Tensor,
  p: readonly Tensor[],
  strides: readonly number[],
): Tensor {
  let h = pictures.to("float32").div(255).sub(centre);
  strides.forEach((stride, l) => h = h.conv2d(p[2 * l], p[2 * l + 1], { stride }).relu());
  return h.flatten(1).linear(p.at(-2)!, p.at(-1)!);
}

function expectClose(actual: Tensor, expected: Tensor, relative: number) {
  expect(actual.shape).toEqual(expected.shape);
  const difference = actual.sub(expected).abs().max().item();
  const size = expected.abs().max().item();
  expect(difference).toBeLessThanOrEqual(relative * Math.max(size, 1e-3));
}

const hashes = (ts: Tensor[]) => ts.map((t) => sha256(t.bytes()));

describe("convEncode()", () => {
  test.each(sets.flatMap((set) => cases.map((c) => [set, c] as const)))(
    "%s, %j: values and gradients as composed",
    (set, c) => {
      setKernels(set);
      using _s = scope();
      using g = new Generator(23n);
      const { pictures, centre, parameters, strides } = make(c, g);
      const weight = randn([c.batch, c.features], g);
      const expected = composed(pictures, centre, parameters, strides);
      expected.mul(weight).sum().backward();
      const gradients = parameters.map((p) => p.grad()!.clone());
      zeroGrad(parameters);
      const actual = convEncode(pictures, centre, parameters, strides);
      actual.mul(weight).sum().backward();
      expectClose(actual, expected, 2e-5);
      parameters.forEach((p, i) => expectClose(p.grad()!, gradients[i], 2e-4));
      expect(hashes([noGrad(() => convEncode(pictures, centre, parameters, strides))]))
        .toEqual(hashes([actual]));
    },
  );

  test("gradients are the same whether activations were kept or computed again", () => {
    using _s = scope();
    using g = new Generator(37n);
    // 636 kB of maps a picture: 96 of them fit 64 MiB, 192 do not.
    const c: Case = {
      picture: [1, 72, 72],
      layers: [[16, 2, 1], [16, 2, 1]],
      features: 2,
      batch: 192,
    };
    const { pictures, centre, parameters, strides } = make(c, g);
    const weight = randn([192, 2], g);
    const part = (first: number, end: number) => {
      zeroGrad(parameters);
      convEncode(pictures.slice(0, first, end), centre, parameters, strides)
        .mul(weight.slice(0, first, end)).sum().backward();
      return parameters.map((p) => p.grad()!.clone());
    };
    const again = part(0, 192);
    const [left, right] = [part(0, 96), part(96, 192)];
    again.forEach((gradient, i) => expectClose(left[i].add(right[i]), gradient, 1e-4));
  });

  test("a convolution written out by hand", () => {
    using _s = scope();
    // One picture of 1 × 3 × 4 bytes, a 2 × 2 window of stride 1, a projection that picks and mixes.
    const bytes = [0, 51, 102, 153, 204, 255, 10, 20, 30, 40, 50, 60];
    const pictures = fromArray(new Uint8Array(bytes), [1, 1, 3, 4]);
    const window = [1, -2, 3, 0.5];
    const mix = [1, 2, 3, -1, -2, -3];
    const centre = bytes.map((_, i) => 0.05 * i);
    const x = bytes.map((b, i) => b / 255 - centre[i]);
    const map = [];
    for (let y = 0; y < 2; y++) {
      for (let c = 0; c < 3; c++) {
        const at = 4 * y + c;
        const sum = window[0] * x[at] + window[1] * x[at + 1] + window[2] * x[at + 4] +
          window[3] * x[at + 5] + 0.1;
        map.push(Math.max(0, sum));
      }
    }
    const expected = map.reduce((sum, v, i) => sum + v * mix[i], -0.25);
    const y = convEncode(pictures, fromArray(new Float32Array(centre), [1, 3, 4]), [
      fromArray(new Float32Array(window), [1, 1, 2, 2]),
      fromArray(new Float32Array([0.1]), [1]),
      fromArray(new Float32Array(mix), [1, 6]),
      fromArray(new Float32Array([-0.25]), [1]),
    ], [1]);
    expect(y.item()).toBeCloseTo(expected, 5);
  });

  test("no bit depends on the number of threads, nor a picture on its neighbours", () => {
    using _s = scope();
    using g = new Generator(29n);
    const { pictures, centre, parameters, strides } = make({ ...cases[1], batch: 301 }, g);
    const run = (threads: number) => {
      setNumThreads(threads);
      zeroGrad(parameters);
      const y = convEncode(pictures, centre, parameters, strides);
      y.square().sum().backward();
      return hashes([y, ...parameters.map((p) => p.grad()!)]);
    };
    const one = run(1);
    expect(run(2)).toEqual(one);
    expect(run(5)).toEqual(one);
    const whole = noGrad(() => convEncode(pictures, centre, parameters, strides));
    const part = noGrad(() => convEncode(pictures.slice(0, 100, 101), centre, parameters, strides));
    expect(hashes([part])).toEqual(hashes([whole.slice(0, 100, 101).contiguous()]));
  });

  test("refuses what does not fit, with the shapes", () => {
    using _s = scope();
    using g = new Generator(31n);
    const { pictures, centre, parameters, strides } = make(cases[1], g);
    expect(() => convEncode(pictures.to("float32"), centre, parameters, strides)).toThrow(
      /uint8 tensor \[B, C, H, W\].*float32/,
    );
    expect(() => convEncode(pictures, centre, parameters, [4])).toThrow(
      /expected at least 2 numbers/,
    );
    expect(() => convEncode(pictures, centre, parameters, [4, 1])).toThrow(
      /the projection does not fit a map of 32 × 8 × 8/,
    );
    expect(() =>
      convEncode(
        pictures.slice(2, 0, 3).contiguous(),
        centre.slice(1, 0, 3).contiguous(),
        parameters,
        strides,
      )
    ).toThrow(
      /convolution 0 does not fit a map of 9 × 3 × 42/,
    );
    expect(() => convEncode(pictures, centre, parameters, [4, 0])).toThrow(TorchError);
    expect(() => convEncode(pictures, centre.slice(0, 0, 3), parameters, strides)).toThrow(
      /the centre must be a contiguous float32 tensor of a picture's shape/,
    );
  });
});
