import { expect, test } from "vitest";
import { learningRate } from "./schedules.ts";

const published = { lr: 2e-3, epochs: 10_000, warmupEpochs: 100, lrMin: 1e-5 };

// Check values of 1.11.
test.each([
  [0, 0],
  [1, 2.0202e-5],
  [99, 2e-3],
  [100, 2e-3],
  [5000, 1.02079e-3],
  [9999, 1.000005e-5],
  [10_000, 1e-5],
  [20_000, 1e-5],
])("cosine with warm-up at epoch %i is %d", (epoch, expected) => {
  expect(learningRate("cosine", epoch, published)).toBeCloseTo(expected, 8);
});

test("cosine warm-up can start from a share of the rate", () => {
  expect(learningRate("cosine", 0, { ...published, warmupStart: 0.25 })).toBeCloseTo(5e-4, 12);
  expect(learningRate("cosine", 99, { ...published, warmupStart: 0.25 })).toBeCloseTo(2e-3, 12);
  expect(learningRate("cosine", 0, { ...published, warmupEpochs: 0 })).toBeCloseTo(2e-3, 12);
});

test("linear falls from 1 to a tenth over the epochs and stays there", () => {
  const options = { lr: 1e-3, epochs: 100 };
  expect(learningRate("linear", 0, options)).toBe(1e-3);
  expect(learningRate("linear", 50, options)).toBeCloseTo(5.5e-4, 12);
  expect(learningRate("linear", 100, options)).toBeCloseTo(1e-4, 12);
  expect(learningRate("linear", 1000, options)).toBeCloseTo(1e-4, 12);
});

test("constant is constant", () => {
  expect(learningRate("constant", 12_345, { lr: 3e-4, epochs: 10 })).toBe(3e-4);
});
