// Wrong usage: exit code 2, one line on stderr, the nearest valid name, nothing started.

import { afterAll, describe, expect, test } from "vitest";
import { root, sdpg, temporaryHome } from "./command.ts";

const home = temporaryHome();
afterAll(() => home[Symbol.asyncDispose]());

const wrong: [args: string, hint: string][] = [
  ["train hoper", `did you mean "hopper"?`],
  ["train", "expected ant or hopper or humanoid or walker"],
  ["train hopper walker", `Cannot use "walker"`],
  ["train genesis/hopper", "write hopper"],
  ["train hopper --algo spdg", `did you mean "sdpg"?`],
  ["train hopper --obs rgb", "expected pixels or state"],
  ["train hopper --preset papr", `did you mean "paper"?`],
  ["train hopper --sed 3", `did you mean "--seed"?`],
  ["train hopper --seed -3", "expected a whole number"],
  ["train hopper --epochs 0", "expected a whole number, 1 or more"],
  ["train hopper --minutes soon", "expected a number above 0"],
  ["train hopper --run Upper", "expected a-z, 0-9 and -"],
  ["train hopper --num_envs 4096", "nominals"],
  ["trian hopper", `did you mean "train"?`],
  ["resume nothing", `Cannot find run "nothing"`],
  ["eval", "Cannot eval without"],
  ["render hopper", "Cannot render without --out FILE"],
  ["render hoper --out a.png", `did you mean "hopper"?`],
  ["render hopper --out a.bmp", "ends with .png, .mp4, .webp, .gif"],
  ["render hopper --out a.png --camera sied", `expected side or wide; did you mean "side"?`],
  ["render hopper --out a.png --size 84", "WIDTHxHEIGHT in pixels"],
  ["render hopper --out a.png --size 0x5000", "1 to 4096 each"],
  ["render hopper --out a.png --kind rbg", `did you mean "rgb"?`],
  ["sql", "Cannot sql without <query>"],
  ["plot", "Cannot plot without <run>"],
  ["runs --state doen", `did you mean "done"?`],
  ["runs --tsk hopper", `did you mean "--task"?`],
  ["show", "Cannot show without <run>"],
  ["compare", "Cannot compare without <run>"],
  ["compare a --axis wall_time", `did you mean "wall_time_s"?`],
  ["compare a --thresholds many", "expected returns like 1000,3000"],
  ["compare a --last 0", "expected a whole number, 1 or more"],
  ["tag", "Cannot tag without <run|+tag|-tag>"],
  ["tag +sweep", "Cannot tag without a run"],
  ["tag a +two,words", `Cannot use tag "two,words": expected letters, digits and . _ / : -`],
  ["tag a +b -b", `Cannot both give and take away tag "b"`],
  ["note a b c", `Cannot use "c": note takes <run> <text>`],
  ["compare a a", `Cannot compare run "a" with itself`],
  ["export a --format csvv --out x", `did you mean "csv"?`],
  ["export a --out x", "Cannot export without --format"],
  ["export a --format csv", "Cannot export without --out"],
  ["export a --format csv --out x --axis iteration", "its rows have every axis"],
  ["export a --format tensorboard --out x --table curves", "it takes curves only"],
  ["test everything", "Cannot find the suite"],
  ["bench speed", "Cannot find the bench"],
  ["down now", "takes no argument"],
];

describe("wrong usage", () => {
  test.each(wrong)("sdpg %s", async (args, hint) => {
    const { code, stdout, stderr } = await sdpg(home.path, ...args.split(" "));
    expect(stderr).toContain(hint);
    expect(stderr.trimEnd().split("\n").length).toBe(1);
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });

  test(
    "a wrong configuration key or value is refused by the learner with the nearest key",
    async () => {
      const key = await sdpg(home.path, "train", "hopper", "actor.lrr=1");
      expect(key.stderr).toMatch(/actor\.lrr.*"actor\.lr"/);
      expect(key.code).toBe(2);
      const value = await sdpg(home.path, "train", "hopper", "actor.lr=fast");
      expect(value.stderr).toMatch(/actor\.lr.*expected.*fast/);
      expect(value.code).toBe(2);
      const option = await sdpg(home.path, "train", "ant", "task.variant=publishd");
      expect(option.stderr).toMatch(/variant.*corrected or published.*"published"/);
      expect(option.code).toBe(2);
      const unknown = await sdpg(home.path, "train", "hopper", "task.cap=1");
      expect(unknown.stderr).toMatch(/'cap' is not one of its options.*height_cap/);
      expect(unknown.code).toBe(2);
      expect(() => Deno.statSync(`${home.path}/services.json`)).toThrow(Deno.errors.NotFound);
    },
  );
});

describe("--help", () => {
  const verbs = "train resume eval runs sql plot tasks algorithms up down doctor test bench";
  test.each(verbs.split(" "))("%s explains itself", async (verb) => {
    const { code, stdout, stderr } = await sdpg(home.path, verb, "--help");
    expect(stdout).toContain(`usage: ./sdpg ${verb}`);
    expect(stdout).toContain("examples:");
    expect([code, stderr]).toEqual([0, ""]);
  });

  test("names every command", async () => {
    const { stdout } = await sdpg(home.path, "--help");
    for (const verb of verbs.split(" ")) {
      expect(stdout).toMatch(new RegExp(`^  .*\\b${verb}\\b`, "m"));
    }
  });
});

describe("the launcher", () => {
  const launch = (args: string[], env: Record<string, string> = {}) =>
    new Deno.Command(`${root}/sdpg`, { args, env: { SDPG_HOME: home.path, ...env } }).output();

  test("adds less than twice the command's own start once everything is built", async () => {
    await launch(["train", "hoper"]); // builds where something has changed
    const secondsOf = async (command: () => Promise<{ code: number }>) => {
      const started = performance.now();
      expect((await command()).code).toBe(2);
      return (performance.now() - started) / 1000;
    };
    const [own, launched]: [number[], number[]] = [[], []];
    for (let i = 0; i < 5; i++) {
      own.push(await secondsOf(() => sdpg(home.path, "train", "hoper")));
      launched.push(await secondsOf(() => launch(["train", "hoper"])));
    }
    expect(Math.min(...launched)).toBeLessThan(3 * Math.min(...own));
  });

  test("refuses to install with SDPG_NO_INSTALL=1, naming what is missing", async () => {
    await using empty = temporaryHome();
    // A copy without node_modules, and a PATH without the pinned Deno.
    Deno.copyFileSync(`${root}/sdpg`, `${empty.path}/sdpg`);
    Deno.chmodSync(`${empty.path}/sdpg`, 0o755);
    const { code, stderr } = await new Deno.Command(`${empty.path}/sdpg`, {
      args: ["runs"],
      env: { SDPG_NO_INSTALL: "1", PATH: "/usr/bin:/bin" },
    }).output();
    expect(code).toBe(1);
    expect(new TextDecoder().decode(stderr)).toMatch(/missing: .*SDPG_NO_INSTALL=1 forbids/);
  });
});
