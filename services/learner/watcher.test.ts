import { expect, test } from "vitest";
import type { EpochEvent, EvaluationEvent, RunEvent } from "./run.ts";
import { Watcher } from "./watcher.ts";

const epoch = (n: number) =>
  ({
    kind: "epoch",
    epoch: n,
    envStepsNominal: n,
    envStepsTotal: n,
    imagesRendered: 0,
    wallTimeS: n,
    gpuSeconds: 0,
    scalars: {},
    phases: [],
    startMs: 0,
    endMs: 0,
    faults: {},
    episodes: undefined,
  }) satisfies EpochEvent;
const evaluation = (n: number) =>
  ({
    ...epoch(n),
    kind: "evaluation",
    returns: [1],
    lengths: [1],
    returnMean: 1,
    returnStd: 0,
    returnCi95: 0,
    lengthMean: 1,
    rewardTerms: {},
    lasted: 0,
    faulted: 0,
  }) satisfies EvaluationEvent;
const done = { kind: "done", epochs: 9, return: 1, stateHash: "h", checkpoint: "c" } as const;

/** What a watcher is sent up to its end, as "epoch 3", "done", ... */
async function received(watcher: Watcher, signal = new AbortController().signal) {
  const names: string[] = [];
  for await (const event of watcher.events(signal)) {
    names.push("epoch" in event.value ? `${event.case} ${event.value.epoch}` : event.case);
  }
  return names;
}
const offer = (watcher: Watcher, ...events: RunEvent[]) => events.forEach((e) => watcher.offer(e));

test("with credit every event arrives in order, done last", async () => {
  const watcher = new Watcher();
  watcher.grant(100);
  offer(watcher, epoch(1), epoch(2), evaluation(2), epoch(3));
  watcher.end({ done });
  expect(await received(watcher)).toEqual([
    "epoch 1",
    "epoch 2",
    "evaluation 2",
    "epoch 3",
    "done",
  ]);
});

test("epochs that find no credit are merged into the newest; evaluations and the end wait", async () => {
  const watcher = new Watcher();
  watcher.grant(2);
  offer(watcher, epoch(1), epoch(2), epoch(3), evaluation(3), epoch(4), epoch(5), epoch(6));
  watcher.end({ done });
  const names = received(watcher);
  await new Promise((resolve) => setTimeout(resolve, 10));
  watcher.grant(10);
  expect(await names).toEqual(["epoch 1", "epoch 2", "evaluation 3", "epoch 6", "done"]);
});

test("without any credit nothing is sent; a watcher that leaves ends the stream", async () => {
  const watcher = new Watcher();
  const leave = new AbortController();
  offer(watcher, epoch(1));
  watcher.end({ failed: "reason" });
  const names = received(watcher, leave.signal);
  await new Promise((resolve) => setTimeout(resolve, 10));
  leave.abort();
  expect(await names).toEqual([]);
});

test("after the end nothing follows", async () => {
  const watcher = new Watcher();
  watcher.grant(10);
  watcher.end({ failed: "reason" });
  watcher.end({ done });
  offer(watcher, epoch(1));
  expect(await received(watcher)).toEqual(["failed"]);
});
