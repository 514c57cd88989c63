import { expect, test } from "vitest";
import { figures } from "./bench_evaluation.ts";

const epochs = (count: number, seconds: number, cpuSeconds: number) =>
  Array.from({ length: count }, () => ({ seconds, cpuSeconds }));

test("figures() takes ratios within a stretch, whatever the machine does between stretches", () => {
  // The second stretch is on a machine half as fast: nothing but the epoch's length may change.
  const stretches = [1, 2, 1].map((slow) => ({
    beside: epochs(3, 0.125 * slow, 0.25 * slow),
    alone: epochs(1, 0.1 * slow, 0.1 * slow),
  }));
  const found = figures(stretches);
  expect(found.stretches).toBe(3);
  expect(found.epoch_without_s).toEqual([0.1, 0.1, (0.1 + 0.2) / 2]);
  const close = (key: string, value: number) => {
    for (const each of found[key] as number[]) expect(each, key).toBeCloseTo(value, 12);
  };
  close("throughput_beside_an_evaluation", 0.8);
  // Four epochs took 3 x 0.125 + 0.1 s where four of 0.1 s would have been.
  close("throughput_with_evaluations", 0.4 / 0.475);
  // Two cores were busy instead of one, for 0.375 of 0.475 s.
  close("share_of_a_core_for_evaluations", 0.375 / 0.475);
});

test("figures() leaves out stretches that compare nothing, and refuses when none is left", () => {
  const whole = { beside: epochs(1, 0.2, 0.2), alone: epochs(1, 0.1, 0.1) };
  expect(figures([whole, { beside: epochs(4, 1, 1), alone: [] }]).stretches).toBe(1);
  expect(() => figures([{ beside: [], alone: epochs(2, 1, 1) }])).toThrow("No stretch");
});
