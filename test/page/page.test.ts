/// <reference lib="dom" />
// The page as a person meets it: the real service on made-up runs, in Chromium. Pictures of every view
// are left in build/page/.

import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Recorder } from "@sdpg/common/record.ts";
import { seedStore } from "../../services/telemetry/seed_for_tests.ts";
import { startTestService, type TestService } from "../../services/telemetry/service_for_tests.ts";
import { accessibilityProblems, findChromium, launch, open, pictures, settled } from "./browser.ts";

const chromium = findChromium();
if (!chromium) console.warn("skipped: no Chromium here; SDPG_CHROMIUM may name one");

let home: string;
let service: TestService;
let browser: Browser;
const run = "hopper-sdpg-0";
/** Three seeds of two experiments. */
const six = [0, 1, 2].map((i) => `hopper-sdpg-${i}`)
  .concat([3, 4, 5].map((i) => `walker-sdpg-${i}`)).join(",");

const choose = (page: Page, label: string) =>
  page.getByRole("combobox", { name: label, exact: true });

/** Tags and a note, and a run that has begun and shown nothing yet. */
async function say(url: string): Promise<void> {
  const recorder = new Recorder({ url, service: "test" });
  recorder.annotation(run, { add: ["sweep", "baseline"], note: "fell over until the floor held" });
  recorder.annotation("hopper-sdpg-1", { add: ["sweep"] });
  recorder.run({ runId: "begun", state: "started", task: "hopper", algorithm: "sdpg" });
  expect(await recorder.flush(60_000)).toMatchObject({ dropped: 0 });
  await recorder.close();
}

const views: Record<string, string> = {
  runs: "#/runs?task=hopper&algorithm=sdpg",
  groups: "#/runs?by=experiment",
  tags: "#/runs?by=tag",
  compare: `#/compare?runs=${six}`,
  run: `#/run/${run}`,
  begun: "#/run/begun",
  difference: `#/difference?a=${run}&b=walker-sdpg-3`,
  sql: "#/sql?q=SELECT+iteration,+run_id,+return_mean+FROM+evaluations+" +
    "WHERE+run_id+LIKE+'hopper-sdpg-%25'+ORDER+BY+iteration",
};

describe.skipIf(!chromium)("the page", () => {
  beforeAll(async () => {
    home = Deno.makeTempDirSync({ prefix: "sdpg-page-" });
    await seedStore(home, { runs: 150, epochs: 60 });
    const videos = join(home, "runs", run, "videos");
    Deno.mkdirSync(videos, { recursive: true });
    Deno.copyFileSync(
      new URL("../../docs/figures/hopper-pixels.webp", import.meta.url),
      join(videos, "best.webp"),
    );
    Deno.copyFileSync(
      join(videos, "best.webp"),
      join(videos, "epoch-60-seed-7-return-1602.0.webp"),
    );
    service = await startTestService(home);
    await say(service.url);
    browser = await launch(chromium!);
  });
  afterAll(async () => {
    await browser?.close();
    await service?.kill();
    if (home) Deno.removeSync(home, { recursive: true });
  });

  const address = (hash: string) => `${service.url}/ui/${hash}`;

  for (const [name, hash] of Object.entries(views)) {
    test(`view "${name}" is accessible in light, dark and narrow, without an error`, async () => {
      for (const kind of ["light", "dark", "narrow"]) {
        await using opened = await open(browser, address(hash), {
          dark: kind === "dark",
          width: kind === "narrow" ? 390 : 1280,
        });
        const { page, troubles } = opened;
        await page.screenshot({ path: join(pictures, `${name}-${kind}.png`), fullPage: true });
        // Dark differs from light in colours only.
        if (kind !== "narrow") {
          const rule = kind === "dark" ? "color-contrast" : undefined;
          expect(await accessibilityProblems(page, rule), `${name} ${kind}`).toEqual([]);
        }
        expect(troubles, `${name} ${kind}`).toEqual([]);
        // Tables scroll in themselves; the page never sideways.
        const { wide, shown } = await page.evaluate(() => ({
          wide: document.documentElement.scrollWidth,
          shown: document.documentElement.clientWidth,
        }));
        expect(wide, `${name} ${kind}`).toBeLessThanOrEqual(shown);
      }
    });
  }

  test("runs are found, filtered, sorted and chosen", async () => {
    await using opened = await open(browser, address("#/runs"));
    const { page } = opened;
    const names = () => page.locator("tbody th > a").allTextContents();
    expect(await names()).toHaveLength(100);
    await page.getByRole("button", { name: "Next page" }).click();
    await page.getByText("Runs 101 to 151").waitFor();

    await page.getByLabel("search").fill("HOPPER ppo");
    await page.waitForFunction(() => document.querySelectorAll("tbody tr").length < 20);
    for (const name of await names()) expect(name).toContain("hopper-ppo");
    await page.getByLabel("search").fill("");
    await choose(page, "state").selectOption("failed");
    const failed = Number(await service.ask("SELECT count() FROM runs WHERE state = 'failed'"));
    await expect.poll(async () => (await names()).length).toBe(failed);

    await page.getByRole("button", { name: "best return" }).click();
    await page.locator("th[aria-sort=descending]", { hasText: "best return" }).waitFor();
    const best = await service.ask(
      "SELECT run_id FROM evaluations WHERE run_id IN (SELECT run_id FROM runs WHERE state = 'failed') " +
        "GROUP BY run_id ORDER BY max(return_mean) DESC LIMIT 2",
    );
    expect((await names()).slice(0, 2)).toEqual(best.split("\n"));

    // What is in the address is enough to come back to the same list.
    await page.reload();
    await settled(page);
    expect((await names()).slice(0, 2)).toEqual(best.split("\n"));
    for (const name of best.split("\n")) await page.getByLabel(`Choose ${name}`).check();
    await page.getByRole("link", { name: "Compare 2 runs" }).click();
    await page.getByRole("heading", { name: "Compare runs" }).waitFor();
    await settled(page);
    expect(await names()).toHaveLength(2);
  });

  test("a comparison shows what the store holds, on the axis and scalar that are chosen", async () => {
    await using opened = await open(browser, address(`#/compare?runs=${six}`));
    const { page } = opened;
    expect(await page.locator("ul.legend li").allTextContents()).toEqual(["hopper", "walker"]);
    await choose(page, "against").selectOption("iteration");
    await choose(page, "curve").selectOption("policy_std");
    await page.getByText("policy_std against epochs").first().waitFor();
    await settled(page);
    expect(page.url()).toContain("metric=policy_std&axis=iteration");
    await page.getByText("Values as a table").click();
    // 0.6 − 0.4 · progress, without noise: 0.2 at the end, and no difference between seeds. The table is
    // made when it is opened.
    await expect.poll(
      async () => (await page.locator("figure tbody tr").allTextContents()).at(-1),
    ).toBe("60.000.2 ± 00.2 ± 0");
  });

  test("a chart is read and an entry switched off by keyboard", async () => {
    await using opened = await open(browser, address(`#/compare?runs=${six}`));
    const { page } = opened;
    await page.locator(".plot").focus();
    for (let i = 0; i < 3; i++) await page.keyboard.press("PageDown");
    await page.locator(".readout", { hasText: "hopper" }).waitFor();
    await page.getByRole("button", { name: "walker", exact: true }).focus();
    await page.keyboard.press("Space");
    expect(
      await page.getByRole("button", { name: "walker", exact: true }).getAttribute("aria-pressed"),
    ).toBe(
      "false",
    );
    await page.locator(".plot").focus();
    await page.keyboard.press("ArrowLeft");
    await page.waitForFunction(() =>
      !document.querySelector(".readout")!.textContent!.includes("walker")
    );
  });

  test("tags and the note are written by keyboard, found, and shown elsewhere", async () => {
    await using opened = await open(browser, address("#/run/walker-sdpg-3"));
    const { page } = opened;
    const said = page.locator(".annotations [role=status]");
    await page.getByLabel("add tags").focus();
    await page.keyboard.type("by-hand two");
    await page.keyboard.press("Enter");
    await said.filter({ hasText: "Tagged by-hand, two." }).waitFor();
    const tags = () => page.locator(".annotations .tags a").allTextContents();
    expect(await tags()).toEqual(["by-hand", "two"]);
    // A name that cannot be is refused in a line, and stays to be mended.
    await page.keyboard.type("-old");
    await page.keyboard.press("Enter");
    await said.filter({ hasText: 'Cannot use tag "-old": expected letters' }).waitFor();
    expect(await page.getByLabel("add tags").inputValue()).toBe("-old");
    await page.getByRole("button", { name: "Remove tag two" }).focus();
    await page.keyboard.press("Enter");
    await said.filter({ hasText: "Tag two was removed." }).waitFor();
    expect(await tags()).toEqual(["by-hand"]);
    // The button is gone; the focus is not lost with it.
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("INPUT");
    await page.getByLabel("note", { exact: true }).fill("<i>as typed</i>");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await said.filter({ hasText: "The note is stored." }).waitFor();
    expect(await service.ask("SELECT tags, note FROM runs WHERE run_id = 'walker-sdpg-3'"))
      .toBe("['by-hand']\t<i>as typed</i>");
    expect(await accessibilityProblems(page)).toEqual([]);

    await page.getByRole("link", { name: "by-hand" }).press("Enter");
    await page.getByRole("heading", { name: "Runs" }).waitFor();
    await settled(page);
    expect(await page.locator("tbody th > a").allTextContents()).toEqual(["walker-sdpg-3"]);
    await page.getByText("<i>as typed</i>").waitFor();
    await page.getByLabel("Choose walker-sdpg-3").check();
    await page.getByLabel("tag them").fill("chosen");
    await page.keyboard.press("Enter");
    await page.getByRole("link", { name: "chosen" }).waitFor();
    await choose(page, "tag").selectOption({ label: "chosen (1)" });
    await page.waitForURL(/tag=chosen/);
    expect(opened.troubles).toEqual([]);
  });

  test("a run shows its charts, fault, film and settings; text of the store stays text", async () => {
    await using opened = await open(browser, address(`#/run/${run}`));
    const { page } = opened;
    expect(await page.locator(".plot canvas").count()).toBe(5);
    await page.getByText("a made-up message <b>not bold</b>").waitFor();
    await page.getByText("Epoch 60: return 1602 seed 7").waitFor();
    const film = page.getByAltText(`Film best.webp of ${run}`);
    await film.scrollIntoViewIfNeeded();
    await page.waitForFunction(() =>
      [...document.querySelectorAll("img")].some((image) => image.naturalWidth > 100)
    );
    await page.getByRole("row", { name: "actor.lr 0.001" }).waitFor();
  });

  test("the SQL box shows rows, a chart, and ClickHouse's own error", async () => {
    await using opened = await open(browser, address("#/sql"));
    const { page } = opened;
    const box = page.getByLabel("statement");
    await box.fill("SELECT number, number * number AS square FROM numbers(20)");
    await box.press("Control+Enter");
    await page.getByRole("cell", { name: "361" }).waitFor();
    await settled(page);
    expect(await page.locator(".plot canvas").count()).toBe(1);
    await box.fill("SELECT * FROM no_such_table");
    await box.press("Control+Enter");
    const error = page.getByRole("alert");
    await error.waitFor();
    expect(await error.textContent()).toMatch(/^Code: 60\. DB::Exception: .*no_such_table/);
    await box.fill("DROP TABLE scalars");
    await box.press("Control+Enter");
    await error.filter({ hasText: "READONLY" }).waitFor();
  });

  test("an unknown run, view and comparison are said in words", async () => {
    for (
      const [hash, words] of [
        ["#/run/none", 'There is no run "none" in the store.'],
        ["#/nowhere", "There is no view “nowhere”."],
        ["#/compare?runs=none", "None of these runs has evaluated return yet."],
      ]
    ) {
      await using opened = await open(browser, address(hash));
      await opened.page.getByText(words).waitFor();
    }
  });

  test("a new run appears in the list by itself", async () => {
    await using opened = await open(browser, address("#/runs?q=arrived-later"));
    const { page } = opened;
    await page.getByText("No run is like that.").waitFor();
    const attribute = (key: string, value: Record<string, string>) => ({ key, value });
    const response = await fetch(`${service.url}/v1/logs`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        resourceLogs: [{
          resource: { attributes: [attribute("service.instance.id", { stringValue: "later" })] },
          scopeLogs: [{
            logRecords: [{
              eventName: "rl.run",
              timeUnixNano: "1790000000000000000",
              attributes: [
                attribute("rl.run.id", { stringValue: "arrived-later" }),
                attribute("rl.run.state", { stringValue: "running" }),
                attribute("rl.sequence", { intValue: "1" }),
              ],
            }],
          }],
        }],
      }),
    });
    expect(response.status).toBe(200);
    await page.getByRole("link", { name: "arrived-later" }).waitFor();
  });
});
