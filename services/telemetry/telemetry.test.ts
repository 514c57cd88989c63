// The recorder against the real service, both as processes of their own: what was recorded is stored
// exactly once, through kills of the service, full queues and refusals.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fileURLToPath } from "node:url";
import { Recorder } from "@sdpg/common/record.ts";
import { testSeed } from "@sdpg/common/seed_for_tests.ts";
import { iterationSpan, iterationTrace } from "@sdpg/common/trace.ts";
import { freePort, startTestService, type TestService } from "./service_for_tests.ts";
import { drawCurves, meanOf, plotRuns, readCurves, scale } from "./plot.ts";

let home: string;
let service: TestService;
const listen = `127.0.0.1:${freePort()}`;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-telemetry-" });
  service = await startTestService(home, listen);
});
afterAll(async () => {
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

const record = (recorder: Recorder, runId: string, iteration: number, names = 60) =>
  recorder.iteration({
    runId,
    iteration,
    envStepsNominal: iteration * 2048,
    envStepsTotal: iteration * 131072,
    imagesRendered: 0,
    wallTimeS: iteration * 0.5,
    gpuSeconds: 0,
    scalars: Object.fromEntries(
      Array.from({ length: names }, (_, k) => [`name_${k}`, iteration * 1000 + k]),
    ),
  });
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe("Recorder", () => {
  test("every kind of row arrives as it was given", async () => {
    const recorder = new Recorder({ url: service.url, service: "learner" });
    recorder.run({
      runId: "kinds",
      state: "started",
      task: "hopper",
      algorithm: "sdpg",
      preset: "cpu",
      observation: "state",
      seed: 3,
      configuration: { lr: 0.002, big: 1n << 60n },
      codeVersion: "abc123",
      hardware: { cores: 2 },
    });
    recorder.run({ runId: "kinds", state: "done", epochs: 12, stateHash: "ff", checkpoint: "/c" });
    recorder.evaluation({
      runId: "kinds",
      iteration: 12,
      envStepsNominal: 1,
      envStepsTotal: 2,
      imagesRendered: 3,
      wallTimeS: 4.5,
      gpuSeconds: 0.25,
      returns: [1.5, 2.5],
      lengths: [10, 12],
    });
    recorder.resources({
      runId: "kinds",
      service: "gpu-sim",
      pid: 4321,
      cpuSeconds: 1.25,
      residentBytes: 1e9,
      proportionalBytes: 9e8,
      sharedBytes: 1e8,
    });
    recorder.fault({
      runId: "kinds",
      service: "gpu-sim",
      kind: "non_finite",
      iteration: 3,
      count: 2,
    });
    recorder.annotation("kinds", { add: ["kept", "gone"], note: "said" });
    recorder.annotation("kinds", { remove: ["gone"] });
    await recorder.flush(60_000);
    await recorder.close();
    const ask = async (sql: string) =>
      JSON.stringify(JSON.parse(await service.ask(sql + " FORMAT JSONCompactEachRow")));
    expect(
      await ask(
        "SELECT task, algorithm, preset, observation, toString(seed), state, epochs, configuration, " +
          "code_version, hardware, state_hash, checkpoint FROM runs WHERE run_id = 'kinds'",
      ),
    ).toBe(JSON.stringify([
      "hopper",
      "sdpg",
      "cpu",
      "state",
      "3",
      "done",
      12,
      '{"lr":0.002,"big":"1152921504606846976"}',
      "abc123",
      '{"cores":2}',
      "ff",
      "/c",
    ]));
    expect(
      await ask(
        "SELECT iteration, env_steps_nominal, env_steps_total, images_rendered, wall_time_s, " +
          "gpu_seconds, episodes, return_mean, length_mean FROM evaluations WHERE run_id = 'kinds'",
      ),
    ).toBe("[12,1,2,3,4.5,0.25,2,2,11]");
    expect(
      await ask(
        "SELECT service, pid, cpu_seconds, resident_bytes, proportional_bytes, shared_bytes, " +
          "abs(dateDiff('second', time, now())) < 60 FROM resources WHERE run_id = 'kinds'",
      ),
    ).toBe('["gpu-sim",4321,1.25,1000000000,900000000,100000000,1]');
    expect(await ask("SELECT tags, note FROM runs WHERE run_id = 'kinds'"))
      .toBe('[["kept"],"said"]');
    expect(await ask("SELECT service, kind, iteration, count FROM faults WHERE run_id = 'kinds'"))
      .toBe('["gpu-sim","non_finite",3,2]');
  });

  test("kill -9 of the service while rows stream in: every row is there exactly once", async () => {
    const seed = testSeed & 0xffff;
    let state = seed || 1;
    const random = () => ((state = (state * 48271) % 0x7fffffff) / 0x7fffffff);
    const recorder = new Recorder({ url: service.url, service: "learner", intervalMs: 20 });
    let iteration = 0;
    let going = true;
    const producer = (async () => {
      while (going) {
        record(recorder, "killed", ++iteration);
        await pause(5);
      }
    })();
    for (let kill = 0; kill < 3; kill++) {
      await pause(200 + random() * 600);
      await service.kill("SIGKILL");
      service = await startTestService(home, listen);
    }
    await pause(300);
    going = false;
    await producer;
    const { sent, dropped } = await recorder.flush(60_000);
    await recorder.close();
    expect({ sent, dropped }, `seed ${seed}`).toEqual({ sent: iteration, dropped: 0 });
    const n = iteration;
    expect(
      await service.ask(
        "SELECT count(), uniqExact(iteration, name), max(iteration), sum(toInt64(value)) " +
          "FROM scalars WHERE run_id = 'killed'",
      ),
      `seed ${seed}`,
    ).toBe(
      [n * 60, n * 60, n, 60 * 1000 * (n * (n + 1) / 2) + n * (59 * 60 / 2)].join("\t"),
    );
  });

  test("a replay by a resumed process changes nothing", async () => {
    for (const [from, to] of [[1, 40], [21, 60]]) {
      const recorder = new Recorder({ url: service.url, service: "learner" });
      for (let i = from; i <= to; i++) record(recorder, "resumed", i, 3);
      await recorder.close();
    }
    expect(
      await service.ask(
        "SELECT name, count(), uniqExact(iteration) FROM scalars WHERE run_id = 'resumed' " +
          "GROUP BY name ORDER BY name",
      ),
    ).toBe("name_0\t60\t60\nname_1\t60\t60\nname_2\t60\t60");
  });

  test("rows unsent at a checkpoint are stored by the process that resumes from it", async () => {
    const nobody = { url: `http://127.0.0.1:${freePort()}`, service: "learner" };
    const killed = new Recorder(nobody);
    record(killed, "other-run", 1, 2);
    for (let i = 1; i <= 3; i++) record(killed, "checkpointed", i, 2);
    killed.fault({ runId: "checkpointed", service: "learner", kind: "x" });
    killed.span({ // named as the events are
      ...{ ...iterationTrace("checkpointed", 1), name: iterationSpan, runId: "checkpointed" },
      ...{ iteration: 1, startMs: 0, seconds: 1 },
    });
    const unsent = JSON.parse(JSON.stringify(killed.unsent("checkpointed")));
    expect(unsent).toHaveLength(3);
    const resumed = new Recorder({ url: service.url, service: "learner" });
    resumed.restore(unsent);
    for (let i = 4; i <= 5; i++) record(resumed, "checkpointed", i, 2);
    resumed.restore(unsent); // and not doubled when they had been stored after all
    expect((await resumed.flush(60_000)).dropped).toBe(0);
    await resumed.close();
    void killed.close();
    expect(
      await service.ask(
        "SELECT count(), uniqExact(iteration) FROM scalars WHERE run_id = 'checkpointed'",
      ),
    ).toBe("10\t5");
  });

  test("questions are answered while rows stream in, also during a long one", async () => {
    const recorder = new Recorder({ url: service.url, service: "learner", intervalMs: 20 });
    const long = service.ask("SELECT sum(sleepEachRow(0.02)) FROM numbers(100)"); // 2 s
    let seen = 0;
    for (let i = 1; i <= 20; i++) {
      record(recorder, "live", i, 10);
      await pause(50);
      const now = Number(await service.ask("SELECT count() FROM scalars WHERE run_id = 'live'"));
      expect(now).toBeGreaterThanOrEqual(seen);
      seen = now;
    }
    await recorder.close();
    expect(seen).toBeGreaterThan(0);
    expect(await service.ask("SELECT count() FROM scalars WHERE run_id = 'live'")).toBe("200");
    expect(await long).toBe("0");
  });

  test(
    "an absent service never fails the caller; drops are counted and reported",
    async () => {
      const port = freePort();
      const recorder = new Recorder({
        url: `http://127.0.0.1:${port}`,
        service: "learner",
        maxQueuedBytes: 20_000,
        intervalMs: 10,
      });
      for (let i = 1; i <= 200; i++) record(recorder, "away", i, 10);
      const kept = recorder.queued;
      expect(kept).toBeGreaterThan(1);
      expect(kept).toBeLessThan(200);
      expect(await recorder.flush(100)).toEqual({ sent: 0, dropped: 200 - kept });
      const other = Deno.makeTempDirSync({ prefix: "sdpg-telemetry-" });
      const late = await startTestService(other, `127.0.0.1:${port}`);
      while (recorder.queued > 0) await pause(20);
      await recorder.close();
      // the oldest rows were kept
      expect(await late.ask("SELECT count(), uniqExact(iteration), max(iteration) FROM scalars"))
        .toBe([kept * 10, kept, kept].join("\t"));
      expect(await late.ask("SELECT kind, count FROM faults")).toBe(
        `telemetry_dropped\t${200 - kept}`,
      );
      await late.kill();
      Deno.removeSync(other, { recursive: true });
    },
  );

  test("one refused row does not take its neighbours with it", async () => {
    const recorder = new Recorder({ url: service.url, service: "learner", intervalMs: 50 });
    record(recorder, "neighbours", 1, 2);
    recorder.iteration({
      runId: "neighbours",
      iteration: 2,
      envStepsNominal: 0,
      envStepsTotal: 0,
      imagesRendered: 0,
      wallTimeS: NaN, // an axis has to be a number
      gpuSeconds: 0,
      scalars: { a: 1 },
    });
    record(recorder, "neighbours", 3, 2);
    expect(await recorder.flush(60_000)).toEqual({ sent: 2, dropped: 1 });
    recorder.iteration({ runId: "neighbours", iteration: 0.5 } as never); // not even encodable
    expect(await recorder.flush(100)).toEqual({ sent: 2, dropped: 2 });
    await recorder.close();
    expect(
      await service.ask(
        "SELECT groupUniqArray(iteration) FROM scalars WHERE run_id = 'neighbours'",
      ),
    ).toMatch(/^\[(1,3|3,1)\]$/);
  });
});

describe("OTLP endpoint", () => {
  const post = (body: string, headers: Record<string, string> = {}) =>
    fetch(`${service.url}/v1/logs`, {
      method: "POST",
      body,
      headers: { "content-type": "application/json", ...headers },
    });
  const rowsNow = () =>
    service.ask("SELECT (SELECT count() FROM scalars) + (SELECT count() FROM run_states)");

  test.each([
    ["text that is no JSON", "{", 400, /no JSON/],
    ["JSON that is no request", "[1]", 400, /expected an object/],
    [
      "an unknown event",
      '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"rl.x","timeUnixNano":"1"}]}]}]}',
      400,
      /unknown event "rl.x"/,
    ],
    ["deep nesting", `{"resourceLogs":${"[".repeat(50_000)}${"]".repeat(50_000)}}`, 400, /./],
  ])("%s is 400 with the reason and stores nothing", async (_, body, status, reason) => {
    const before = await rowsNow();
    const response = await post(body);
    expect(response.status).toBe(status);
    expect((await response.json()).message).toMatch(reason);
    expect(await rowsNow()).toBe(before);
  });
  test("another encoding is 415, too much is 413, an empty request is fine", async () => {
    expect((await post("{}", { "content-type": "text/plain" })).status).toBe(415);
    expect((await post("{}", { "content-encoding": "br" })).status).toBe(415);
    expect((await post(" ".repeat((16 << 20) + 1))).status).toBe(413);
    expect((await post("{}")).status).toBe(200);
    expect((await fetch(`${service.url}/v1/logs`)).status).toBe(405);
  });
  test("random bytes never end the service", async () => {
    const seed = testSeed;
    let state = seed || 1;
    const random = () => ((state ^= state << 13, state ^= state >>> 17, state ^= state << 5) >>> 0);
    const good =
      '{"resourceLogs":[{"resource":{"attributes":[{"key":"service.instance.id","value":' +
      '{"stringValue":"s"}}]},"scopeLogs":[{"logRecords":[{"eventName":"rl.run","timeUnixNano":"1",' +
      '"attributes":[{"key":"rl.run.id","value":{"stringValue":"fuzz"}}]}]}]}]}';
    for (let i = 0; i < 300; i++) {
      const bytes = new TextEncoder().encode(good);
      for (let k = 0; k <= random() % 4; k++) bytes[random() % bytes.length] = random() & 255;
      const response = await post(bytes as unknown as string);
      // 200 where a byte of an optional name was hit: unknown fields mean nothing
      expect([200, 400], `seed ${seed}, request ${i}: ${await response.text()}`)
        .toContain(response.status);
    }
    expect(await service.ask("SELECT count() FROM run_states WHERE run_id = 'fuzz'")).toBe("0");
  });
});

describe("the service", () => {
  test("refuses a store that another one has open", async () => {
    await expect(startTestService(home)).rejects.toThrow(
      new RegExp(`Cannot open the store at ${home}/store: process ${service.pid} has it open`),
    );
  });
  test("refuses an address in use and wrong flags in one line", async () => {
    const other = Deno.makeTempDirSync({ prefix: "sdpg-telemetry-" });
    await expect(startTestService(other, listen)).rejects.toThrow(
      `Cannot listen on ${listen}: the address is in use`,
    );
    await expect(startTestService(other, "nonsense")).rejects.toThrow(
      'Cannot use --listen "nonsense": expected HOST:PORT',
    );
    Deno.removeSync(other, { recursive: true });
  });
  test("ends with 2 for wrong usage, 0 for --help and for the end of its stdin", async () => {
    const other = Deno.makeTempDirSync({ prefix: "sdpg-telemetry-" });
    const main = fileURLToPath(new URL("./main.ts", import.meta.url));
    const run = (args: string[], stdin: "null" | "piped" = "null") =>
      new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", main, ...args],
        stdin,
        stdout: "piped",
        stderr: "piped",
      });
    const wrong = await run(["--hom", other]).output();
    expect(wrong.code).toBe(2);
    expect(new TextDecoder().decode(wrong.stderr)).toBe(
      'Cannot use --hom: unknown flag; did you mean "home"?\n',
    );
    const help = await run(["--help"]).output();
    expect(help.code).toBe(0);
    expect(new TextDecoder().decode(help.stdout)).toContain("--home PATH");
    const child = run(["--home", other, "--exit-with-parent"], "piped").spawn();
    const errors = new Response(child.stderr).text();
    const lines = child.stdout.getReader();
    expect(new TextDecoder().decode((await lines.read()).value)).toMatch(
      /^{"event":"listening","service":"telemetry","address":"127\.0\.0\.1:\d+"}\n$/,
    );
    await child.stdin.close();
    expect((await child.status).code).toBe(0);
    await lines.cancel();
    await errors;
    Deno.removeSync(other, { recursive: true });
  });
  test("stores what it took before it ends on SIGTERM", async () => {
    const recorder = new Recorder({ url: service.url, service: "learner" });
    record(recorder, "sigterm", 1, 5);
    expect((await recorder.flush(60_000)).sent).toBe(1);
    await service.kill("SIGTERM");
    service = await startTestService(home, listen);
    expect(await service.ask("SELECT count() FROM scalars WHERE run_id = 'sigterm'")).toBe("5");
    await recorder.close();
  });
});

describe("plot", () => {
  test("draws evaluations of several runs with axes and units", async () => {
    const recorder = new Recorder({ url: service.url, service: "learner" });
    for (const [seed, runId] of ["plot-a", "plot-b", "plot-c"].entries()) {
      recorder.run({ runId, state: "done", task: "hopper", algorithm: "sdpg", preset: "cpu" });
      for (let i = 1; i <= 10; i++) {
        recorder.evaluation({
          runId,
          iteration: i * 10,
          envStepsNominal: i * 1e4,
          envStepsTotal: i * 1e6,
          imagesRendered: 0,
          wallTimeS: i * 60,
          gpuSeconds: 0,
          returns: [i * 100 + seed, i * 100 - seed],
          lengths: [1, 1],
        });
      }
    }
    await recorder.close();
    const out = `${home}/curve.svg`;
    expect(await plotRuns({ url: service.url, runs: ["plot-a", "plot-b", "plot-c"], out })).toBe(3);
    const svg = Deno.readTextFileSync(out);
    expect(svg).toMatch(/^<svg [^>]*role="img"/);
    expect(svg.match(/class="seed"/g)).toHaveLength(6); // three seeds on two axes
    expect(svg.match(/<path class="mean"/g)).toHaveLength(2);
    for (const words of ["wall clock (min)", "(million)", "hopper: evaluated return", "3 runs"]) {
      expect(svg).toContain(words);
    }
    expect(svg).toContain("prefers-color-scheme: dark");
    Deno.removeSync(out);
  });
  test("refuses a run the store does not have, and names the nearest", async () => {
    await expect(
      readCurves({ url: service.url, runs: ["plot-x"], metric: "evaluation" }),
    ).rejects.toThrow(/has no such run; did you mean "plot-[abc]"\?/);
    await expect(plotRuns({ url: service.url, runs: ["plot-a"], out: "a.png" }))
      .rejects.toThrow("ending in .svg");
    await expect(readCurves({ url: service.url, runs: ["plot-a"], metric: "rewards" }))
      .rejects.toThrow('run "plot-a": it has no rewards yet');
  });
  test("scale() covers the range with round ticks, meanOf() averages where all lines are", () => {
    const { ticks, map } = scale(0, 3.7, 0, 100);
    expect(ticks[0]).toBe(0);
    expect(ticks.at(-1)).toBeGreaterThanOrEqual(3.7);
    expect([map(ticks[0]), map(ticks.at(-1)!)]).toEqual([0, 100]);
    const lines = [[{ x: 0, y: 0 }, { x: 2, y: 2 }], [{ x: 1, y: 5 }, { x: 3, y: 5 }]];
    const mean = meanOf(lines, 2);
    expect(mean).toEqual([{ x: 1, y: 3 }, { x: 1.5, y: 3.25 }, { x: 2, y: 3.5 }]);
  });
  test("drawCurves() escapes names and gives the same bytes for the same curves", () => {
    const point = {
      value: 1,
      wall_time_s: 60,
      env_steps_total: 1,
      env_steps_nominal: 1,
      images_rendered: 0,
      gpu_seconds: 0,
      iteration: 1,
    };
    const curves = [{ runId: "a", task: "<b>", group: "x & y", points: [point] }];
    const svg = drawCurves(curves, ["iteration"], "evaluation");
    expect(svg).not.toContain("<b>");
    expect(svg).toBe(drawCurves(curves, ["iteration"], "evaluation"));
  });
});
