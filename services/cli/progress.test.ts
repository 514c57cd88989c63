import { create } from "@bufbuild/protobuf";
import { EpochSchema } from "@proto/sdpg/learner/v1/learner_pb.ts";
import { describe, expect, test } from "vitest";
import { render } from "./dashboard.ts";
import { duration, metric, number, sparkline, table } from "./format.ts";
import { parseSamples } from "./procfs.ts";
import { Progress } from "./progress.ts";

const facts = {
  runId: "hopper-1",
  task: "hopper",
  algorithm: "sdpg",
  preset: "cpu",
  seed: "0",
  epochs: 10,
  seconds: undefined,
  home: "/nowhere",
};

/** An epoch of 1 s: 0.4 s simulator, 0.1 s inference, 0.5 s update. */
function epoch(n: number, more: Record<string, unknown> = {}) {
  return create(EpochSchema, {
    epoch: BigInt(n),
    return: n * 10,
    episodeLength: 100,
    envStepsNominal: BigInt(n * 100),
    envStepsTotal: BigInt(n * 1000),
    wallTimeS: n,
    phases: {
      rollout: 0.5,
      "rollout/simulation": 0.4,
      "rollout/policy": 0.1,
      critic: 0.5,
      ...(n === 2 ? { evaluate: 1 } : {}),
    },
    ...more,
  });
}

describe("Progress", () => {
  test("throughput() divides steps by the simulator, the rollout and the training time", () => {
    const progress = new Progress(facts);
    progress.addEpoch(epoch(1));
    progress.addEpoch(epoch(2)); // its evaluation does not count as training
    const speed = progress.throughput()!;
    expect(speed.physics).toBeCloseTo(2500);
    expect(speed.inference).toBeCloseTo(2000);
    expect(speed.update).toBeCloseTo(1000);
  });

  test("throughput() of a resumed run counts only what was seen", () => {
    const progress = new Progress(facts);
    progress.addEpoch(epoch(7));
    progress.addEpoch(epoch(8));
    expect(progress.throughput()!.update).toBeCloseTo(1000);
  });

  test("secondsLeft() follows the nearer of the two limits", () => {
    const progress = new Progress(facts);
    progress.addEpoch(epoch(1));
    expect(progress.secondsLeft()).toBeCloseTo(9);
    const short = new Progress({ ...facts, seconds: 5 });
    short.addEpoch(epoch(1));
    expect(short.secondsLeft()).toBeCloseTo(4);
    expect(new Progress(facts).secondsLeft()).toBeUndefined();
  });

  test("timeTree() puts parts under their whole and sums the tops to one", () => {
    const progress = new Progress(facts);
    progress.addEpoch(epoch(1));
    const tree = progress.timeTree();
    expect(tree.map(({ phase }) => phase))
      .toEqual(["rollout", "rollout/simulation", "rollout/policy", "critic"]);
    const tops = tree.filter(({ depth }) => depth === 0);
    expect(tops.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1);
  });
});

describe("render()", () => {
  const progress = new Progress(facts);
  progress.addEpoch(epoch(1));
  progress.addEpoch(epoch(2));
  progress.memory.set("learner", {
    threads: 1,
    pid: 1,
    cpuSeconds: 1,
    residentBytes: 3e8,
    proportionalBytes: 2.5e8,
    sharedBytes: 5e7,
  });

  test("never exceeds the width it is given, whatever it is", () => {
    for (const columns of [1, 10, 20, 40, 80, 200]) {
      for (const line of render(progress, columns, "a note that is rather long", false)) {
        expect(line.length).toBeLessThanOrEqual(columns);
      }
    }
  });

  test("shows the figures, and no escape sequence without colour", () => {
    const text = render(progress, 100, "note", false).join("\n");
    for (const part of ["20.00", "best", "2 of 10", "learner 250 MB", "together 250 MB", "note"]) {
      expect(text).toContain(part);
    }
    expect(text).toMatch(/physics 2\.50 k +\+ inference 2\.00 k +\+ update 1\.00 k/);
    expect(text).not.toContain("\x1b");
    expect(render(progress, 100, "note", true).join("\n")).toContain("\x1b[1m");
  });

  test("draws before the first epoch", () => {
    expect(render(new Progress(facts), 80, "", false).join("\n")).toContain("waiting");
  });
});

describe("format", () => {
  test("number(), metric(), duration() read well at every size", () => {
    expect([12345.6, 123.45, 1.2345, 0.0123456, -3].map(number))
      .toEqual(["12346", "123.5", "1.23", "0.01235", "-3.00"]);
    expect([12, 1234, 1234567, 2.5e9].map(metric)).toEqual(["12", "1.23 k", "1.23 M", "2.50 G"]);
    expect([5, 65, 3723].map(duration)).toEqual(["0:05", "1:05", "1:02:03"]);
  });

  test("sparkline() spans low to high, and joins values where there are more than columns", () => {
    expect(sparkline([0, 7], 10)).toBe("▁█");
    expect(sparkline([0, 0, 7, 7], 2)).toBe("▁█");
    expect(sparkline([], 10)).toBe("");
    expect(sparkline([5, 5], 4)).toBe("▁▁");
  });

  test("table() puts numbers to the right", () => {
    expect(table(["name", "n"], [["a", "1"], ["bb", "10"]])).toBe("name   n\na      1\nbb    10");
  });
});

test("parseSamples() reads stat and smaps_rollup, also with spaces in the command", () => {
  const stat = (pid: number, name: string) =>
    `${pid} (${name}) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 9 0 12345 1 2\n`;
  const rollup = (rss: number, pss: number) =>
    `00400000-7ffe ---p 00000000 00:00 0 [rollup]\nRss: ${rss} kB\nPss: ${pss} kB\n` +
    `Pss_Dirty: 1 kB\nShared_Clean: 5 kB\nShared_Dirty: 6 kB\nPrivate_Clean: 7 kB\n`;
  const text = stat(10, "a b) c") + rollup(100, 60) + stat(11, "gone");
  expect(parseSamples(text)).toEqual([{
    pid: 10,
    threads: 9,
    cpuSeconds: 3,
    residentBytes: 102400,
    proportionalBytes: 61440,
    sharedBytes: 11264,
  }]);
});
