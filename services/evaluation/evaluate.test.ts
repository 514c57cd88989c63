import { expect, test } from "vitest";
import { simulateToy } from "../learner/toy_simulation.ts";
import { liveTensors, scope } from "../learner/torch/mod.ts";
import { evaluate, studentQuantile975 } from "./evaluate.ts";

const options = { nominals: 5, auxiliaries: 0, horizon: 8, seed: 4n, episodeLength: 30, limit: 9 };

test("evaluate() plays one full episode per environment and the same ones every time", async () => {
  const before = liveTensors();
  const simulation = simulateToy(options);
  const start = await simulation.snapshot();
  const run = () =>
    evaluate({
      simulation,
      start,
      act({ actor }, t) {
        using _scope = scope();
        return (actor.select(0, t).toArray() as Float32Array)
          .map((x) => -x).filter((_, i) => i % 2 === 0);
      },
      episodeLength: 30,
      rewardTerms: ["position", "effort"],
    });
  const first = await run();
  expect(await run()).toEqual(first);
  expect(first.lengths).toEqual([30, 30, 30, 30, 30]);
  expect(first.returns).toHaveLength(5);
  const mean = first.returns.reduce((a, b) => a + b) / 5;
  expect(first.returnMean).toBeCloseTo(mean, 12);
  const std = Math.sqrt(first.returns.reduce((a, b) => a + (b - mean) ** 2, 0) / 4);
  expect(first.returnStd).toBeCloseTo(std, 12);
  expect(first.returnCi95).toBeCloseTo(2.7764451 * std / Math.sqrt(5), 3);
  expect(first.rewardTerms.position + first.rewardTerms.effort).toBeCloseTo(first.returnMean, 5);
  await simulation.close();
  expect(liveTensors()).toBe(before);
});

test("an environment that falls early counts once, with its first episode", async () => {
  // Pushed with full force, every point leaves [-0.5, 0.5] after about a dozen steps.
  const simulation = simulateToy({ ...options, limit: 0.5 });
  const result = await evaluate({
    simulation,
    start: await simulation.snapshot(),
    act: () => new Float32Array(5).fill(2),
    episodeLength: 30,
    rewardTerms: ["position", "effort"],
  });
  expect(result.returns).toHaveLength(5);
  for (const length of result.lengths) expect(length).toBeLessThan(15);
  await simulation.close();
});

// Abramowitz and Stegun, table 26.10.
test.each([[1, 12.7062], [2, 4.30265], [3, 3.18245], [5, 2.57058], [15, 2.13145], [120, 1.97993]])(
  "Student's 0.975 quantile for %i degrees of freedom is %d",
  (degrees, expected) => {
    expect(Math.abs(studentQuantile975(degrees) / expected - 1)).toBeLessThan(5e-3);
  },
);
