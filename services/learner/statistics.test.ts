import { create } from "@bufbuild/protobuf";
import { type Observation, ObservationSchema } from "@proto/sdpg/task/v1/task_pb.ts";
import { expect, test } from "vitest";
import { ObservationStatistics, RunningStatistics } from "./statistics.ts";
import { fromArray, Generator, randn, scope, type Tensor, zeros } from "./torch/mod.ts";

test("RunningStatistics.merge() of batches equals the moments of all samples", () => {
  const samples = [3, -1, 4, 1, -5, 9, 2, 6, 5, 3.5];
  const statistics = new RunningStatistics(1);
  statistics.count = 0;
  for (const [from, to] of [[0, 3], [3, 4], [4, 10]]) {
    const batch = samples.slice(from, to);
    const mean = batch.reduce((a, b) => a + b) / batch.length;
    const variance = batch.reduce((a, b) => a + (b - mean) ** 2, 0) / batch.length;
    statistics.merge([mean], [variance], batch.length);
  }
  expect(statistics.mean[0]).toBeCloseTo(2.75, 12);
  expect(statistics.variance[0]).toBeCloseTo(
    samples.reduce((a, b) => a + (b - 2.75) ** 2, 0) / samples.length,
    12,
  );
});

test("RunningStatistics starts at mean 0, variance 1 with a count of 1e-4", () => {
  const statistics = new RunningStatistics(1);
  statistics.merge([10], [4], 1);
  expect(statistics.mean[0]).toBeCloseTo(10 / 1.0001, 9);
  const expected = (1e-4 + 4 + 100 * 1e-4 / 1.0001) / 1.0001;
  expect(statistics.variance[0]).toBeCloseTo(expected, 9);
});

/** Merges raw observations as the learner does: normalised by the frozen copy first. */
function merge(
  statistics: ObservationStatistics,
  privileged: Tensor,
  actor: Tensor,
  members: number,
  weighting: "all" | "nominal",
) {
  const frozen = statistics.freeze();
  using _privileged = frozen.privileged;
  using _actor = frozen.actor;
  statistics.merge(
    {
      privileged: frozen.privileged.normalise(privileged),
      actor: actor.shape[2] === 0 ? actor : frozen.actor.normalise(actor),
    },
    frozen,
    members,
    weighting,
  );
}

const observation = (init: Partial<Observation>) => create(ObservationSchema, init as Observation);

test("ObservationStatistics normalises each observation where it stands, or leaves it alone", () => {
  using _scope = scope();
  const statistics = new ObservationStatistics([
    observation({ name: "own", length: 1, actor: true, normalise: true }),
    observation({ name: "shared", length: 2, actor: true, privileged: true, normalise: true }),
    observation({ name: "raw", length: 1, privileged: true, normalise: false }),
  ]);
  // Privileged is [shared 2, raw 1], actor is [own 1, shared 2]; 2 groups of 2 members, 2 slots.
  using generator = new Generator(5n);
  const privileged = randn([2, 4, 3], generator).mul(3).add(1);
  const actor = randn([2, 2, 3], generator).sub(2);
  merge(statistics, privileged, actor, 2, "all");
  const { privileged: frozen, actor: frozenActor } = statistics.freeze();

  const p = [...privileged.toArray() as Float32Array];
  const column = (values: number[], width: number, c: number) =>
    values.filter((_, i) => i % width === c);
  const moments = (values: number[]) => {
    const mean = values.reduce((a, b) => a + b) / values.length;
    return [mean, Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length)];
  };
  for (const c of [0, 1]) {
    const [mean, deviation] = moments(column(p, 3, c));
    for (const [normaliser, at] of [[frozen, c], [frozenActor, c + 1]] as const) {
      expect(Number(normaliser.mean.toArray()[at])).toBeCloseTo(mean, 3);
      expect(Number(normaliser.deviation.toArray()[at])).toBeCloseTo(deviation, 3);
    }
  }
  const [mean] = moments(column([...actor.toArray() as Float32Array], 3, 0));
  expect(Number(frozenActor.mean.toArray()[0])).toBeCloseTo(mean, 3);
  expect(Number(frozen.mean.toArray()[2])).toBe(0);
  expect(Number(frozen.deviation.toArray()[2])).toBe(1);
});

test("nominal weighting counts the first member of each group only", () => {
  using _scope = scope();
  const statistics = new ObservationStatistics([
    observation({ name: "x", length: 1, privileged: true, normalise: true }),
  ]);
  const privileged = fromArray(Float32Array.from([1, 100, 3, 100]), [1, 4, 1]);
  merge(statistics, privileged, zeros([1, 2, 0]), 2, "nominal");
  using frozen = statistics.freeze().privileged;
  expect(Number(frozen.mean.toArray()[0])).toBeCloseTo(2, 3);
});

test("load() of state() restores the statistics exactly", () => {
  using _scope = scope();
  const observations = [observation({ name: "x", length: 2, privileged: true, normalise: true })];
  const one = new ObservationStatistics(observations);
  using generator = new Generator(1n);
  merge(one, randn([3, 8, 2], generator), zeros([3, 2, 0]), 4, "all");
  const other = new ObservationStatistics(observations);
  other.load(one.state());
  const more = randn([3, 8, 2], generator);
  for (const statistics of [one, other]) merge(statistics, more, zeros([3, 2, 0]), 4, "all");
  expect([...other.state()].map(([n, t]) => [n, t.toArray()])).toEqual(
    [...one.state()].map(([n, t]) => [n, t.toArray()]),
  );
});
