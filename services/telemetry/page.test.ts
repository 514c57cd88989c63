// The page without a browser: what is served and what not, the questions it asks, the sums it does.

import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { byteRange, openPage, type Page } from "./page.ts";
import { meanBand, valueAt } from "./page/bands.ts";
import { differences, flat } from "./page/configuration.ts";
import { filmOf, inOrder } from "./page/films.ts";
import { phaseShares } from "./page/phases.ts";
import * as queries from "./page/queries.ts";
import type { Question } from "./page/ask.ts";
import { seedStore } from "./seed_for_tests.ts";
import { startTestService, type TestService } from "./service_for_tests.ts";

let home: string;
let service: TestService;
let page: Page;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-page-" });
  await seedStore(home, { runs: 60, epochs: 120 });
  service = await startTestService(home);
  page = openPage(home, () => Promise.resolve([200, "stored"]));
});
afterAll(async () => {
  await service?.kill();
  Deno.removeSync(home, { recursive: true });
});

const get = (path: string, init?: RequestInit) => {
  const url = new URL(path, "http://127.0.0.1");
  return page(new Request(url, init), url);
};

describe("openPage()", () => {
  test("serves modules without types, importing only what it serves too", async () => {
    const seen = new Set<string>();
    const visit = async (path: string) => {
      if (seen.has(path)) return;
      seen.add(path);
      const response = await get(path);
      const text = await response.text();
      expect(response.status, path).toBe(200);
      expect(response.headers.get("content-type"), path).toContain("text/javascript");
      for (
        const [, specifier] of text.matchAll(
          /(?:^(?:import|export)[^;]*? from |import\()"([^"]+)"/gm,
        )
      ) await visit(new URL(specifier, `http://host${path}`).pathname);
    };
    await visit("/ui/main.ts");
    expect([...seen]).toContain("/ui/lib/uPlot.esm.js");
    expect(seen.size).toBeGreaterThan(12);
    // index.html names all of them, so that none waits for another.
    const index = await (await get("/ui/")).text();
    const named = [...index.matchAll(/(?:href|src)="[0-9a-f]{16}\/([^"]+\.(?:ts|js))"/g)];
    expect(new Set(named.map(([, name]) => `/ui/${name}`))).toEqual(seen);
  });

  test("lets a browser keep what it has of this version, and no other", async () => {
    const index = await get("/ui/");
    const html = await index.text();
    const etag = index.headers.get("etag")!;
    expect(index.headers.get("cache-control")).toBe("no-cache");
    const again = await get("/ui/", { headers: { "if-none-match": etag } });
    expect([again.status, await again.text()]).toEqual([304, ""]);
    const other = await get("/ui/", { headers: { "if-none-match": '"other"' } });
    expect([other.status, await other.text()]).toEqual([200, html]);
    const main = /src="([^"]+main\.ts)"/.exec(html)![1];
    const script = await get(`/ui/${main}`);
    expect(script.headers.get("cache-control")).toContain("immutable");
    expect(await script.text()).toBe(await (await get("/ui/main.ts")).text());
    expect((await get("/ui/0123456789abcdef/main.ts")).status).toBe(404);
  });

  test("allows scripts, styles and requests of its own address only", async () => {
    for (const path of ["/ui/", "/ui/main.ts", "/ui/none", "/ui/videos/none"]) {
      const response = await get(path);
      await response.body?.cancel();
      const policy = response.headers.get("content-security-policy")!;
      expect(policy).toMatch(/default-src 'none'/);
      expect(policy).not.toMatch(/unsafe|\*|http|data:/);
      expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    }
  });

  test.each([
    "/ui/../main.ts",
    "/ui/%2e%2e/main.ts",
    "/ui/..%2fmain.ts",
    "/ui/page.test.ts",
    "/ui//etc/passwd",
    "/ui/videos/hopper-sdpg-0/../run.json",
    "/ui/videos/hopper-sdpg-0/..%2frun.json",
    "/ui/videos/..%2f..%2fetc/passwd",
    "/ui/videos/hopper-sdpg-0/notes.txt",
    "/ui/videos/hopper-sdpg-0/link.mp4",
  ])("refuses %s", async (path) => {
    const folder = join(home, "runs", "hopper-sdpg-0", "videos");
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeTextFileSync(join(folder, "notes.txt"), "secret");
    Deno.writeTextFileSync(join(home, "runs", "hopper-sdpg-0", "run.json"), "secret");
    const link = join(folder, "link.mp4");
    if (![...Deno.readDirSync(folder)].some(({ name }) => name === "link.mp4")) {
      Deno.symlinkSync("/etc/passwd", link);
    }
    expect((await get(path)).status).toBe(404);
  });

  test("refuses to change anything", async () => {
    expect((await get("/ui/", { method: "POST" })).status).toBe(405);
  });

  test("serves films whole and in parts", async () => {
    const folder = join(home, "runs", "walker-sdpg-3", "videos");
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeTextFileSync(join(folder, "best.mp4"), "0123456789");
    expect(await (await get("/ui/videos/walker-sdpg-3")).json()).toEqual(["best.mp4"]);
    const film = "/ui/videos/walker-sdpg-3/best.mp4";
    expect(await (await get(film)).text()).toBe("0123456789");
    const part = await get(film, { headers: { range: "bytes=3-5" } });
    expect([part.status, part.headers.get("content-range"), await part.text()])
      .toEqual([206, "bytes 3-5/10", "345"]);
    expect(await (await get(film, { headers: { range: "bytes=-2" } })).text()).toBe("89");
    expect((await get(film, { headers: { range: "bytes=20-" } })).status).toBe(416);
  });
});

// ------------------------------------------------------------------------------------------ writing

/** A request as the page sends it, or as `headers` say. */
async function annotate(
  run: string,
  annotation: unknown,
  headers: Record<string, string | undefined> = {},
): Promise<[status: number, text: string]> {
  const all = {
    "origin": service.url,
    "sec-fetch-site": "same-origin",
    "content-type": "application/json",
    ...headers,
  };
  const response = await fetch(`${service.url}/ui/annotations/${run}`, {
    method: "POST",
    headers: Object.fromEntries(Object.entries(all).filter(([, v]) => v !== undefined)) as Record<
      string,
      string
    >,
    body: typeof annotation === "string" ? annotation : JSON.stringify(annotation),
  });
  return [response.status, await response.text()];
}

describe("POST /ui/annotations/<run>", () => {
  const run = "hopper-sdpg-0";
  const good = { add: ["hostile"] };

  test.each<[string, Record<string, string | undefined>, number]>([
    ["another origin", { origin: "http://evil.example" }, 403],
    ["another port", { origin: "http://127.0.0.1:1" }, 403],
    ["a sandboxed frame", { origin: "null" }, 403],
    ["a scheme of its own", { origin: "chrome-extension://abc" }, 403],
    ["no origin", { origin: undefined }, 403],
    ["another site that lies about its origin", { "sec-fetch-site": "cross-site" }, 403],
    ["a sibling", { "sec-fetch-site": "same-site" }, 403],
    ["a person who typed the address", { "sec-fetch-site": "none" }, 403],
    ["a form", { "content-type": "application/x-www-form-urlencoded" }, 415],
    ["a form that looks like JSON", { "content-type": "text/plain" }, 415],
    ["nothing said", { "content-type": "multipart/form-data; boundary=x" }, 415],
  ])("refuses %s", async (_, headers, status) => {
    expect((await annotate(run, good, headers))[0]).toBe(status);
  });

  test.each<[unknown, number, RegExp]>([
    ["{", 400, /^Expected JSON like \{"add":/],
    ["[]", 400, /came \[\]/],
    ["null", 400, /came null/],
    [{}, 400, /came nothing of it/],
    [{ add: "sweep" }, 400, /lists of texts/],
    [{ add: [1] }, 400, /lists of texts/],
    [{ note: 1 }, 400, /a text in note/],
    [{ tags: ["x"] }, 400, /came "tags"/],
    [{ add: ["two words"] }, 400, /rl\.tag, came two words/],
    [{ add: ["-old"] }, 400, /letter or digit first.*came -old/],
    [{ add: ["<script>"] }, 400, /came <script>/],
    [{ add: ["x".repeat(41)] }, 400, /up to 40/],
    [{ add: Array.from({ length: 51 }, (_, i) => `t${i}`) }, 400, /at most 50 changes/],
    [{ note: "x".repeat(4001) }, 400, /at most 4000 characters/],
    [{ note: "x".repeat(40_000) }, 413, /at most 32768 bytes/],
  ])("refuses %j with one line", async (body, status, text) => {
    const answer = await annotate(run, body);
    expect(answer[0]).toBe(status);
    expect(answer[1]).toMatch(text);
    expect(answer[1].trimEnd()).not.toContain("\n");
  });

  test("refuses a run that is not there, and other methods", async () => {
    expect(await annotate("none", good)).toEqual([404, 'There is no run "none" in the store\n']);
    expect((await annotate("..%2fhopper", good))[0]).toBe(404);
    const got = await fetch(`${service.url}/ui/annotations/${run}`);
    expect([got.status, got.headers.get("allow"), await got.text()])
      .toEqual([405, "POST", "Expected POST\n"]);
    // A browser asks first before it sends JSON from elsewhere: no header of the answer allows it.
    const preflight = await fetch(`${service.url}/ui/annotations/${run}`, {
      method: "OPTIONS",
      headers: { "origin": "http://evil.example", "access-control-request-method": "POST" },
    });
    await preflight.body?.cancel();
    expect([preflight.status, preflight.headers.get("access-control-allow-origin")])
      .toEqual([405, null]);
    expect(await service.ask("SELECT count() FROM annotations WHERE tag = 'hostile'")).toBe("0");
  });
});

test("byteRange() gives all of a file for what is no range", () => {
  expect(byteRange("lines=1-2", 10)).toEqual({ from: 0, to: 9, partial: false });
  expect(byteRange("bytes=5-2", 10)).toBeUndefined();
});

// --------------------------------------------------------------------------------------- questions

async function rows<Row>({ sql, parameters = {} }: Question): Promise<Row[]> {
  const search = new URLSearchParams({ default_format: "JSONEachRow" });
  for (const [name, value] of Object.entries(parameters)) {
    search.set(
      `param_${name}`,
      Array.isArray(value) ? `[${value.map((item) => `'${item}'`).join(",")}]` : String(value),
    );
  }
  const response = await fetch(`${service.url}/?${search}`, { method: "POST", body: sql });
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return text.split("\n").filter(Boolean).map((line) => JSON.parse(line) as Row);
}

const all = queries.noFilter;

describe("questions of the page", () => {
  test("every order and every grouping answers, with all runs in it", async () => {
    for (const sort of Object.keys(queries.sorts) as queries.Sort[]) {
      const found = await rows<queries.RunRow>(queries.runsPage(all, sort, 0));
      expect(new Set(found.map(({ run_id }) => run_id)).size, sort).toBe(60);
    }
    for (const grouping of queries.groupings) {
      const found = await rows<queries.GroupRow>(queries.groupedRuns(all, grouping));
      expect(found.reduce((sum, { runs }) => sum + runs, 0), grouping).toBe(60);
    }
    const experiments = await rows<queries.GroupRow>(queries.groupedRuns(all, "experiment"));
    expect(experiments.map(({ runs }) => runs)).toEqual(Array(20).fill(3));
  });

  test("filters and words restrict together; quotes in a word are text", async () => {
    const filter = { ...all, search: "DONE hopper", algorithm: "sdpg" };
    const found = await rows<queries.RunRow>(queries.runsPage(filter, "name", 0));
    expect(found.length).toBeGreaterThan(0);
    for (const run of found) {
      expect([run.task, run.algorithm, run.state]).toEqual(["hopper", "sdpg", "done"]);
    }
    expect(await rows(queries.runsPage({ ...all, search: "' OR 1 --" }, "name", 0))).toEqual([]);
    const counts = await rows<queries.FacetRow>(queries.facetCounts({ ...all, search: "hopper" }));
    expect(new Set(counts.map(({ task }) => task))).toEqual(new Set(["hopper"]));
  });

  test("tags and notes are found, counted and grouped by", async () => {
    const said = {
      "ant-sdpg-6": { add: ["swept", "good/a"], note: "slippery floor" },
      "ant-sdpg-7": { add: ["swept"] },
      "walker-sdpg-3": { add: ["swept", "other"], remove: ["other"] },
    };
    for (const [run, annotation] of Object.entries(said)) {
      expect(await annotate(run, annotation), run).toEqual([200, "stored\n"]);
    }
    // The other way round: what was taken away came last.
    await annotate("walker-sdpg-3", { remove: ["other"] });
    const named = async (filter: Partial<queries.Filter>) =>
      (await rows<queries.RunRow>(queries.runsPage({ ...all, ...filter }, "name", 0)))
        .map(({ run_id }) => run_id);
    expect(await named({ tag: "swept" })).toEqual(Object.keys(said));
    expect(await named({ tag: "swept", task: "ant" })).toEqual(["ant-sdpg-6", "ant-sdpg-7"]);
    expect(await named({ search: "FLOOR good/A" })).toEqual(["ant-sdpg-6"]);
    expect(await named({ tag: "other" })).toEqual([]);
    expect(await rows(queries.tagCounts(all))).toEqual([
      { tag: "good/a", runs: 1 },
      { tag: "swept", runs: 3 },
    ]);
    expect(await rows(queries.tagCounts({ ...all, task: "ant", search: "slippery" }))).toEqual([
      { tag: "good/a", runs: 1 },
      { tag: "swept", runs: 1 },
    ]);
    const groups = await rows<queries.GroupRow>(queries.groupedRuns(all, "tag"));
    expect(Object.fromEntries(groups.map(({ tag, runs }) => [tag, runs])))
      .toEqual({ "": 57, swept: 3, "good/a": 1 });
    expect(await rows(queries.annotationsOf(Object.keys(said)))).toHaveLength(3);
    expect(await service.ask("SELECT tags, note FROM runs WHERE run_id = 'ant-sdpg-6'"))
      .toBe("['good/a','swept']\tslippery floor");
    expect(await service.ask("SELECT tags, note FROM runs WHERE run_id = 'ant-sdpg-8'")).toBe("[]");
    // An empty note takes the one before away; both are still known.
    await annotate("ant-sdpg-6", { note: "" });
    expect(await service.ask("SELECT note = '' FROM runs WHERE run_id = 'ant-sdpg-6'")).toBe("1");
    expect(await service.ask("SELECT count() FROM annotations WHERE tag = ''")).toBe("2");
  });

  test("curves are thinned to about a thousand points with every run in them", async () => {
    const names = (await rows<queries.RunRow>(queries.runsPage(all, "name", 0)))
      .map(({ run_id }) => run_id);
    for (const axis of Object.keys(queries.axes) as queries.Axis[]) {
      const points = await rows<queries.PointRow>(queries.curves(names, "rewards", axis));
      expect(points.length, axis).toBeLessThanOrEqual(queries.pointsPerChart);
      expect(new Set(points.map(({ run_id }) => run_id)).size, axis).toBe(60);
    }
    // Without noise 0.6 − 0.4 · progress: the mean of a piece lies on the line at the mean epoch.
    const [name] = names;
    for (
      const { x, y } of await rows<queries.PointRow>(
        queries.curves([name], "policy_std", "iteration"),
      )
    ) expect(y).toBeCloseTo(0.6 - 0.4 * x / 120, 9);
    const evaluations = await rows<queries.PointRow>(
      queries.curves([name], queries.evaluatedReturn, "wall_time_s"),
    );
    expect(evaluations).toHaveLength(12);
  });

  test("everything a run's view asks answers", async () => {
    const run = "hopper-sdpg-0";
    const [summary] = await rows<queries.SummaryRow>(queries.runSummary(run));
    expect(JSON.parse(summary.configuration).discount).toBe(0.99);
    const [progress] = await rows<queries.ProgressRow>(queries.progressOf(run));
    expect(progress).toMatchObject({ iteration: 120, env_steps_total: 120 * 32768 });
    expect(await rows(queries.progressOf("none"))).toEqual([]);
    expect(await rows(queries.evaluationsOf(run, "iteration"))).toHaveLength(12);
    const phases = await rows<queries.NamedPointRow>(
      queries.family(run, "phase/", "iteration", "sum"),
    );
    expect(new Set(phases.map(({ name }) => name)).size).toBe(8);
    const memory = await rows<queries.MemoryRow>(queries.memoryOf(run));
    expect(memory.length).toBeLessThanOrEqual(1000);
    const learner = memory.filter(({ service }) => service === "learner").map(({ y }) => y);
    expect(Math.max(...learner)).toBeCloseTo(380e6 * (1 + 0.1 * 299 / 300), -1);
    expect(await rows(queries.faultsOf(run))).toMatchObject([{ kind: "non_finite", count: 2 }]);
    expect(await rows(queries.traceOf(run, 3))).toEqual([]);
    // The seed has one trace: that of the first run's newest epoch.
    for (const epoch of [120, undefined]) {
      const spans = await rows<queries.SpanRow>(queries.traceOf(run, epoch));
      expect(spans.map(({ name, start_ms, duration_ms }) => [name, start_ms, duration_ms])).toEqual(
        [
          ["rl.iteration", 0, 250],
          ["rollout", 0, 150],
          ["rollout/simulation/physics", 10, 90],
          ["actor", 150, 60],
        ],
      );
    }
    expect(await rows(queries.annotationsOf([run]))).toEqual([]);
    expect(await rows(queries.scalarNames([run]))).toHaveLength(15);
    expect(await rows(queries.factsOf([run, "walker-sdpg-3"]))).toHaveLength(2);
    expect(await rows(queries.configurationsOf([run, "walker-sdpg-3"]))).toHaveLength(2);
    expect(await rows(queries.newestRuns(6))).toHaveLength(6);
    expect(await rows(queries.returnsOf([run]))).toHaveLength(1);
  });
});

// -------------------------------------------------------------------------------------------- sums

test("meanBand() is Student's interval where all seeds have data", () => {
  const line = (y: number, to: number) => [{ x: 0, y }, { x: to, y }];
  const band = meanBand([line(1, 10), line(2, 8), line(3, 12)], 4);
  expect(band.map(({ x }) => x)).toEqual([0, 2, 4, 6, 8]);
  // Three values 1, 2, 3: mean 2, standard deviation 1, t(0.975, 2) = 4.302653.
  for (const point of band) {
    expect(point.y).toBeCloseTo(2, 12);
    expect(point.high - point.y).toBeCloseTo(4.302653 / Math.sqrt(3), 6);
    expect(point.y - point.low).toBeCloseTo(4.302653 / Math.sqrt(3), 6);
  }
  expect(meanBand([line(1, 10)])).toEqual([]);
  expect(meanBand([line(1, 10), []])).toEqual([]);
});

test("valueAt() is linear between points and nothing outside", () => {
  const points = [{ x: 0, y: 0 }, { x: 2, y: 4 }, { x: 3, y: 0 }];
  expect([-1, 0, 1, 2, 2.5, 3, 4].map((x) => valueAt(points, x)))
    .toEqual([undefined, 0, 2, 4, 2, 0, undefined]);
});

test("phaseShares() counts every second once", () => {
  const shares = phaseShares([
    { name: "phase/rollout", x: 1, y: 6 },
    { name: "phase/rollout/simulation", x: 1, y: 4 },
    { name: "phase/rollout/simulation/physics", x: 1, y: 3 },
    { name: "phase/actor", x: 1, y: 4 },
  ]);
  expect(Object.fromEntries([...shares].map(([name, [{ y }]]) => [name, Math.round(y)]))).toEqual({
    "actor": 40,
    "rollout/simulation/physics": 30,
    "rollout": 20,
    "rollout/simulation": 10,
  });
});

test("phaseShares() gives a phase nothing where it did not come, so that all add up to 100 % everywhere", () => {
  const shares = phaseShares([1, 2, 3, 4].flatMap((x) => [
    { name: "phase/actor", x, y: 3 },
    ...(x === 1 || x === 4 ? [{ name: "phase/checkpoint", x, y: 1 }] : []),
  ]));
  expect(shares.get("checkpoint")).toEqual([25, 0, 0, 25].map((y, i) => ({ x: i + 1, y })));
  for (const x of [1, 1.5, 2, 3, 3.5, 4]) {
    expect([...shares.values()].reduce((sum, line) => sum + valueAt(line, x)!, 0)).toBeCloseTo(100);
  }
});

test("filmOf() reads what eval wrote in the name, and leaves other names alone", () => {
  expect(filmOf("epoch-400-seed-7-return-3812.5.mp4")).toMatchObject({
    epoch: 400,
    details: "seed 7",
    return: 3812.5,
  });
  expect(filmOf("epoch-5-seed-0-camera-side-height-180-seconds-1-3.4-return--2.0.webp"))
    .toMatchObject({
      epoch: 5,
      details: "seed 0, camera side, height 180, seconds 1-3.4",
      return: -2,
    });
  const names = ["best.webp", "epoch-9-seed-0-return-1.mp4", "epoch-10-seed-0-return-1.mp4"];
  expect(names.map(filmOf).sort(inOrder).map(({ epoch }) => epoch)).toEqual([10, 9, undefined]);
});

test("differences() names keys by their path, also those that only one has", () => {
  const a = flat('{"actor":{"lr":0.1,"hidden":[1,2]},"same":true}');
  const b = flat('{"actor":{"lr":0.2,"hidden":[1,2]},"same":true,"more":"x"}');
  expect(differences(a, b)).toEqual([
    { key: "actor.lr", a: "0.1", b: "0.2" },
    { key: "more", a: undefined, b: "x" },
  ]);
  expect(flat("not JSON").size).toBe(0);
});
