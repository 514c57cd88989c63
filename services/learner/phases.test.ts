import { expect, test } from "vitest";
import { loadTask } from "@sdpg/tasks/mod.ts";
import { Phases, secondsByName } from "./phases.ts";
import { configureTraining, type EpochEvent, TrainingRun } from "./run.ts";
import { coreIsBuilt, simulateInProcess } from "./simulation_in_process.ts";

test("Phases adds up what comes again, and keeps when it first began", () => {
  const phases = new Phases("gpu-sim");
  phases.addTimings([
    timing("physics", 1_000_000_000n, 1_250_000_000n),
    timing("physics", 3_000_000_000n, 3_500_000_000n),
  ]);
  phases.addTimings([timing("render", 2_000_000_000n, 2_500_000_000n)], "render");
  phases.addTimings([timing("render", 2_000_000_000n, 2_250_000_000n)]);
  const all = new Phases();
  all.addAll(phases, "rollout/simulation");
  expect([...all]).toEqual([
    {
      ...{ name: "rollout/simulation/physics", service: "gpu-sim" },
      ...{ seconds: 0.75, startMs: 1000, count: 2 },
    },
    {
      ...{ name: "rollout/simulation/render", service: "render" },
      ...{ seconds: 0.5, startMs: 2000, count: 1 },
    },
    {
      ...{ name: "rollout/simulation/render", service: "gpu-sim" },
      ...{ seconds: 0.25, startMs: 2000, count: 1 },
    },
  ]);
  expect(secondsByName(all)).toEqual({
    ...{ "rollout/simulation/physics": 0.75, "rollout/simulation/render": 0.75 },
  });
});

const timing = (phase: string, startUnixNano: bigint, endUnixNano: bigint) =>
  ({ $typeName: "sdpg.sim.v1.Timing", phase, startUnixNano, endUnixNano }) as const;

test.skipIf(!coreIsBuilt())("phases explain at least 95 % of the time of epochs", async () => {
  const config = configureTraining([], {
    ...{ nominals: "8", auxiliaries: "15", horizon: "16" },
    ...{ "evaluation.every": "4", "evaluation.episodes": "2" },
  });
  const run = await TrainingRun.start({
    task: await loadTask("hopper"),
    config,
    seed: 1n,
    simulate: (batch) => simulateInProcess(batch, 1),
    epochs: 12,
    seconds: 0,
  });
  const epochs: EpochEvent[] = [];
  try {
    for await (const event of run.events()) {
      if (event.kind !== "epoch") continue;
      epochs.push(event);
      // A watcher that takes its time holds training up, and is among the phases too.
      if (event.epoch === 6) await new Promise((resolve) => setTimeout(resolve, 50));
    }
  } finally {
    await run.close();
  }
  const first = epochs.shift()!; // with the first come torch's and the engine's own first times
  const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
  const whole = sum(epochs.map(({ startMs, endMs }) => endMs - startMs)) / 1e3;
  const explained = epochs.map(({ phases, startMs, endMs }) => {
    const top = phases.filter(({ name }) => !name.includes("/"));
    return sum(top.map(({ seconds }) => seconds)) / ((endMs - startMs) / 1e3);
  }).sort((a, b) => a - b);
  // Of the middle one: a busy machine may stop any single epoch between two phases.
  expect(explained[Math.floor(explained.length / 2)]).toBeGreaterThan(0.95);
  expect(explained.at(-1)).toBeLessThan(1.001);
  // The epochs follow each other without a gap, and are all the time there was.
  expect(whole).toBeCloseTo((epochs.at(-1)!.endMs - epochs[0].startMs) / 1e3, 6);
  expect(epochs.at(-1)!.wallTimeS - first.wallTimeS).toBeCloseTo(whole, 6);
  // A part never takes longer than the whole of which it is one.
  for (const { phases } of epochs) {
    for (const { name, seconds } of phases) {
      const whole = phases.find((phase) => phase.name === name.slice(0, name.lastIndexOf("/")));
      if (name.includes("/")) expect(seconds).toBeLessThanOrEqual(whole!.seconds * 1.001);
    }
  }
});
