// The small helpers every service leans on: names, flags, places, logs.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { didYouMean, editDistance, nearest } from "./suggest.ts";
import { flag, parseAddress, readFlags, UsageError } from "./service.ts";
import { logger, logLevel } from "./log.ts";
import {
  processStartTicks,
  readServices,
  runDirectory,
  sdpgHome,
  serviceEntry,
  servicesFile,
  withLock,
  writeFileAtomic,
  writeServices,
} from "./home.ts";

describe("nearest()", () => {
  test.each([
    ["hoper", "hopper"],
    ["Walker", "walker"],
    ["wlaker", "walker"],
    ["actor.learning_rat", "actor.learning_rate"],
  ])("%s is near %s", (name, expected) => {
    expect(nearest(name, ["walker", "hopper", "actor.learning_rate"])).toBe(expected);
  });
  test("is undefined when nothing is near", () => {
    expect(nearest("ant", ["walker", "hopper"])).toBeUndefined();
    expect(nearest("x", [])).toBeUndefined();
    expect(didYouMean("ant", ["hopper"])).toBe("");
    expect(didYouMean("hoper", ["hopper"])).toBe('; did you mean "hopper"?');
  });
  test("editDistance() knows insertions, deletions, substitutions and transpositions", () => {
    const cases: [string, string, number][] = [
      ["", "", 0],
      ["", "abc", 3],
      ["abc", "abc", 0],
      ["abc", "acb", 1],
      ["kitten", "sitting", 3],
      ["ca", "abc", 3], // optimal string alignment does not edit a transposed pair again
    ];
    for (const [a, b, distance] of cases) {
      expect([a, b, editDistance(a, b)]).toEqual([a, b, distance]);
      expect([b, a, editDistance(b, a)]).toEqual([b, a, distance]);
    }
  });
});

describe("readFlags()", () => {
  const specification = {
    "simulation": flag.address("address of gpu-sim"),
    "threads": flag.integer("threads", { min: 1, max: 64 }, 2),
    "telemetry": flag.optional(flag.url("address of telemetry")),
  };
  test("reads both spellings and fills in what is left out", () => {
    expect(readFlags(specification, ["--simulation", "127.0.0.1:5", "--threads=3"])).toEqual({
      simulation: "127.0.0.1:5",
      threads: 3,
      telemetry: undefined,
      listen: "127.0.0.1:0",
      exitWithParent: false,
      help: false,
    });
  });
  test.each([
    [["--simulaton", "x"], 'Cannot use --simulaton: unknown flag; did you mean "simulation"?'],
    [["--simulation", "x"], 'Cannot use --simulation "x": expected HOST:PORT'],
    [["--simulation", "h:99999"], 'Cannot use --simulation "h:99999": expected HOST:PORT'],
    [["--simulation"], "Cannot use --simulation: expected a value (HOST:PORT)"],
    [["--threads", "0"], 'Cannot use --threads "0": expected a whole number from 1 to 64'],
    [["--threads", "2.5"], 'Cannot use --threads "2.5": expected a whole number'],
    [["--threads=1", "--threads=2"], "Cannot use --threads twice"],
    [["--telemetry", "ftp://x"], 'Cannot use --telemetry "ftp://x": expected a http:// address'],
    [["word"], 'Cannot use argument "word": expected --flag value'],
    [["--exit-with-parent=1"], "Cannot use --exit-with-parent=…: it takes no value"],
    [[], "Cannot start without --simulation HOST:PORT"],
  ])("%j is refused", (args, message) => {
    expect(() => readFlags(specification, args)).toThrow(message);
    expect(() => readFlags(specification, args)).toThrow(UsageError);
  });
  test("parseAddress() takes names, IPv4 and IPv6", () => {
    expect(parseAddress("localhost:0")).toEqual({ host: "localhost", port: 0 });
    expect(parseAddress("[::1]:80")).toEqual({ host: "::1", port: 80 });
  });
});

describe("runService()", () => {
  test("stops what it started when nobody reads its ready line any more", async () => {
    const folder = Deno.makeTempDirSync({ prefix: "sdpg-service-" });
    const program = `
      import { runService } from "${new URL("./service.ts", import.meta.url)}";
      await runService({
        name: "telemetry", summary: "a test", flags: {}, args: [],
        async start() {
          Deno.writeTextFileSync("${folder}/starting", "");
          await new Promise((resolve) => setTimeout(resolve, 500)); // the parent is killed meanwhile
          setInterval(() => {}, 1000);
          return {
            address: "127.0.0.1:1",
            async stop() {
              await new Promise((resolve) => setTimeout(resolve, 50));
              Deno.writeTextFileSync("${folder}/stopped", "");
            },
          };
        },
      });`;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["eval", "--ext=ts", program],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    await child.stdout.cancel();
    await child.stderr.cancel();
    expect((await child.status).code).toBe(1);
    expect([...Deno.readDirSync(folder)].map(({ name }) => name).sort())
      .toEqual(["starting", "stopped"]);
    Deno.removeSync(folder, { recursive: true });
  });
});

describe("log", () => {
  afterEach(() => vi.unstubAllEnvs());
  test("writes one JSON object a line with the fields of logger and call", () => {
    const lines: string[] = [];
    const log = logger("learner", { run: "a" }, (line) => lines.push(line)).with({ part: "x" });
    log.info("two\nlines", { n: 1n, error: new TypeError("bad") });
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0])).toMatchObject({
      level: "info",
      service: "learner",
      message: "two\nlines",
      run: "a",
      part: "x",
      n: "1",
      error: { name: "TypeError", message: "bad" },
    });
  });
  test("SDPG_LOG chooses the level, and a wrong one is named", () => {
    vi.stubEnv("SDPG_LOG", "warn");
    const lines: string[] = [];
    const log = logger("learner", {}, (line) => lines.push(line));
    log.info("quiet");
    log.warn("loud");
    expect(lines.map((line) => JSON.parse(line).message)).toEqual(["loud"]);
    expect(() => logLevel("loud")).toThrow("expected one of debug, info, warn, error, off");
  });
});

describe("home", () => {
  let home: string;
  beforeEach(() => void (home = Deno.makeTempDirSync({ prefix: "sdpg-home-" })));
  afterEach(() => {
    vi.unstubAllEnvs();
    Deno.removeSync(home, { recursive: true });
  });

  test("SDPG_HOME wins over the checkout's .sdpg", () => {
    vi.stubEnv("SDPG_HOME", "/somewhere");
    expect(sdpgHome()).toBe("/somewhere");
    vi.stubEnv("SDPG_HOME", "");
    expect(sdpgHome()).toMatch(/\/\.sdpg$/);
  });
  test("runDirectory() lets no path through", () => {
    expect(runDirectory("/h", "hopper-1")).toBe("/h/runs/hopper-1");
    for (const bad of ["", "..", "a/b", "-a", "A", "a".repeat(65)]) {
      expect(() => runDirectory("/h", bad)).toThrow("as a run's name");
    }
  });
  test("readServices() lists only processes that are still the same", () => {
    expect(readServices(home)).toEqual([]);
    const alive = serviceEntry("learner", "127.0.0.1:1", Deno.pid);
    const reused = { ...alive, startTicks: alive.startTicks - 1 };
    const gone = { ...alive, pid: 0x3fffffff };
    writeServices(home, [alive, reused, gone]);
    expect(readServices(home)).toEqual([alive]);
    writeServices(home, []);
    expect(() => Deno.statSync(servicesFile(home))).toThrow(Deno.errors.NotFound);
    expect(() => serviceEntry("learner", "x", 0x3fffffff)).toThrow("is not running");
  });
  test("a damaged services.json is named", () => {
    Deno.writeTextFileSync(servicesFile(home), '[{"service":"learner"}]');
    expect(() => readServices(home)).toThrow(`Cannot read ${servicesFile(home)}`);
  });
  test("processStartTicks() tells a process from none", () => {
    expect(processStartTicks(Deno.pid)).toBeGreaterThan(0);
    expect(processStartTicks(0x3fffffff)).toBeUndefined();
  });
  test("withLock() lets one at a time in and opens again after an error", async () => {
    let inside = 0;
    let most = 0;
    const work = () =>
      withLock(home, "x", async () => {
        most = Math.max(most, ++inside);
        await new Promise((resolve) => setTimeout(resolve, 5));
        inside--;
      });
    await Promise.all([work(), work(), work()]);
    expect(most).toBe(1);
    await expect(withLock(home, "x", () => Promise.reject(new Error("no")))).rejects.toThrow("no");
    await work();
  });
  test("writeFileAtomic() replaces a file and leaves nothing else", () => {
    const path = `${home}/file`;
    writeFileAtomic(path, "old");
    writeFileAtomic(path, new TextEncoder().encode("new"));
    expect(Deno.readTextFileSync(path)).toBe("new");
    expect([...Deno.readDirSync(home)].map(({ name }) => name)).toEqual(["file"]);
    expect(() => writeFileAtomic(`${home}/none/file`, "x")).toThrow(Deno.errors.NotFound);
  });
});
