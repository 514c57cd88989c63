// Adam against the published formulas in plain TypeScript (double precision), and its state.

import { expect, test } from "vitest";
import { Adam, fromArray, ones, scope, type Tensor, TorchError, zeros } from "./mod.ts";

const values = (t: Tensor) => Array.from(t.toArray() as Iterable<number>, Number);

/** Kingma & Ba 2015, algorithm 1, with L2 weight decay in the gradient. */
function adam(
  start: number[],
  gradients: number[][],
  { lr = 0.1, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, decay = 0 },
): number[] {
  const [p, m, v] = [[...start], start.map(() => 0), start.map(() => 0)];
  gradients.forEach((gradient, step) => {
    for (let i = 0; i < p.length; i++) {
      const g = gradient[i] + decay * p[i];
      m[i] = beta1 * m[i] + (1 - beta1) * g;
      v[i] = beta2 * v[i] + (1 - beta2) * g * g;
      const mHat = m[i] / (1 - beta1 ** (step + 1));
      const vHat = v[i] / (1 - beta2 ** (step + 1));
      p[i] -= lr * mHat / (Math.sqrt(vHat) + eps);
    }
  });
  return p;
}

const START = [1, -2, 0.5, 3];
const GRADIENTS = [[0.1, -5, 0, 1e-4], [0.3, 4, 0, -2e-4], [-0.2, 1, 7, 3e-4], [0.1, 1, -7, 0]];

for (const dtype of ["float32", "float64"] as const) {
  for (const decay of [0, 0.01]) {
    test(`step() follows the formulas in ${dtype} with weight decay ${decay}`, () => {
      using _s = scope();
      const p = fromArray(START, [2, 2], { dtype }).requiresGrad_();
      using optimiser = new Adam([p], { lr: 0.1, weightDecay: decay });
      for (const g of GRADIENTS) {
        p.setGrad(fromArray(g, [2, 2], { dtype }));
        optimiser.step();
      }
      const expected = adam(START, GRADIENTS, { decay });
      values(p).forEach((x, i) =>
        expect(Math.abs(x - expected[i])).toBeLessThan(dtype === "float32" ? 2e-6 : 1e-12)
      );
    });
  }
}

test("step() moves only parameters that have a gradient; zeroGrad() forgets gradients", () => {
  using _s = scope();
  const a = ones([3]).requiresGrad_(), b = ones([3]).requiresGrad_();
  using optimiser = new Adam([a, b], { lr: 0.5 });
  a.sum().backward();
  optimiser.step();
  values(a).forEach((x) => expect(x).toBeCloseTo(0.5, 6)); // the first step has length lr
  expect(values(b)).toEqual([1, 1, 1]);
  optimiser.zeroGrad();
  expect(a.grad()).toBeNull();
});

test("a state put into another optimiser continues to the bit", () => {
  using _s = scope();
  const run = (p: Tensor, optimiser: Adam, gradients: number[][]) => {
    for (const g of gradients) {
      p.setGrad(fromArray(g, [4]));
      optimiser.step();
    }
  };
  const straight = fromArray(START, [4]).requiresGrad_();
  using one = new Adam([straight], { lr: 0.1 });
  run(straight, one, GRADIENTS);

  const before = fromArray(START, [4]).requiresGrad_();
  using first = new Adam([before], { lr: 0.1 });
  run(before, first, GRADIENTS.slice(0, 2));
  const after = before.detach().clone().requiresGrad_();
  using second = new Adam([after], { lr: 9 });
  second.setState(first.state());
  run(after, second, GRADIENTS.slice(2));
  expect(after.bytes()).toEqual(straight.bytes());
  expect(second.steps).toBe(4);
});

test("setState() refuses what does not fit, by name", () => {
  using _s = scope();
  using optimiser = new Adam([ones([3])], { lr: 0.1 });
  const good = optimiser.state();
  const { step: _step, ...missing } = good;
  expect(() => optimiser.setState(missing)).toThrow(/expected step/);
  expect(() => optimiser.setState({ ...good, "m/0": zeros([4]) })).toThrow(
    /m\/0 as float32\[3\], got float32\[4\]/,
  );
  expect(() => optimiser.setState({ ...good, "m/1": zeros([3]) })).toThrow(/no "m\/1"/);
  expect(() => new Adam([], { lr: -1 })).toThrow(TorchError);
});
