import { expect, test } from "vitest";
import { EpisodeMeter } from "./episodes.ts";
import { scope } from "./torch/mod.ts";

/** One step of two nominals. */
const step = (reward: number[], ended: number[], progress: number[], faults = [0, 0]) => ({
  reward,
  ended,
  progress,
  faults,
});

test("EpisodeMeter averages finished episodes, also those that span segments", () => {
  const meter = new EpisodeMeter(2);
  meter.add(step([1, 10], [0, 0], [1, 1]));
  expect(meter.means()).toBeUndefined();
  meter.add(step([2, 20], [1, 0], [2, 2]));
  expect(meter.means()).toEqual({ return: 3, length: 2 });
  meter.add(step([5, 30], [0, 1], [1, 3]));
  expect(meter.means()).toEqual({ return: (3 + 60) / 2, length: 2.5 });
  expect(meter.finished).toBe(2);
});

test("EpisodeMeter leaves out episodes that ended in a fault, and counts them as finished", () => {
  const meter = new EpisodeMeter(2);
  meter.add(step([1, 10], [1, 1], [1, 1], [1, 0]));
  expect(meter.means()).toEqual({ return: 10, length: 1 });
  expect(meter.finished).toBe(2);
  meter.add(step([7, 20], [1, 1], [1, 1], [0, 4]));
  expect(meter.means()).toEqual({ return: 8.5, length: 1 });
  expect(meter.finished).toBe(4);
});

test("EpisodeMeter keeps the newest of its capacity and goes on from a saved state", () => {
  using _scope = scope();
  const meter = new EpisodeMeter(1, 3);
  for (let n = 1; n <= 5; n++) {
    meter.add({ reward: [n], ended: [1], progress: [n], faults: [0] });
  }
  expect(meter.means()).toEqual({ return: 4, length: 4 });
  meter.add({ reward: [100], ended: [0], progress: [1], faults: [0] });
  const other = new EpisodeMeter(1, 3);
  other.load(meter.state());
  for (const one of [meter, other]) {
    one.add({ reward: [1], ended: [1], progress: [2], faults: [0] });
    expect(one.means()).toEqual({ return: (4 + 5 + 101) / 3, length: (4 + 5 + 2) / 3 });
    expect(one.finished).toBe(6);
  }
});
