/// <reference lib="dom" />
// Chromium for the tests of the page: Debian's, driven over its own protocol.

import { fileURLToPath } from "node:url";
import axe from "axe-core";
import { type Browser, chromium, type Page } from "playwright-core";

/** Pictures of what was tested, for people to look at. */
export const pictures = fileURLToPath(new URL("../../build/page/", import.meta.url));

/** Chromium's path: SDPG_CHROMIUM, or where Debian puts it; undefined where neither is. */
export function findChromium(): string | undefined {
  const named = Deno.env.get("SDPG_CHROMIUM");
  if (named) return named;
  try {
    Deno.statSync("/usr/bin/chromium");
    return "/usr/bin/chromium";
  } catch {
    // Ubuntu has it as a snap only, which containers cannot run; there the tests are skipped.
    if (!/^ID=ubuntu/m.test(Deno.readTextFileSync("/etc/os-release"))) {
      throw new Error(
        "Cannot find /usr/bin/chromium: install the package chromium, or set SDPG_CHROMIUM",
      );
    }
    return undefined;
  }
}

/** Starts the browser. Root (containers) cannot have its sandbox; only our own page is opened. */
export function launch(executablePath: string): Promise<Browser> {
  Deno.mkdirSync(pictures, { recursive: true });
  const args = ["--disable-dev-shm-usage"].concat(Deno.uid() === 0 ? ["--no-sandbox"] : []);
  return chromium.launch({ executablePath, args });
}

export interface Opened extends AsyncDisposable {
  page: Page;
  /** Errors of scripts and refused requests since the page was opened. */
  troubles: string[];
}

export async function open(
  browser: Browser,
  url: string,
  options: { dark?: boolean; width?: number } = {},
): Promise<Opened> {
  const page = await browser.newPage({
    colorScheme: options.dark ? "dark" : "light",
    viewport: { width: options.width ?? 1280, height: 900 },
  });
  page.setDefaultTimeout(100_000); // a busy machine is slow, not wrong
  const troubles: string[] = [];
  page.on("pageerror", (error) => troubles.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") troubles.push(`${message.text()} ${message.location().url}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) troubles.push(request.url());
  });
  await page.goto(url);
  await settled(page);
  return { page, troubles, [Symbol.asyncDispose]: () => page.close() };
}

/** Resolves when the view has its heading and nothing in it is still being fetched. */
export async function settled(page: Page): Promise<void> {
  await page.waitForFunction(() =>
    document.querySelector("h1") !== null &&
    document.querySelector("[data-loading], [aria-busy]") === null &&
    document.querySelectorAll(".plot").length === document.querySelectorAll(".plot canvas").length
  );
}

/** What axe finds wrong, by all its rules or one: a line each with rule, meaning and place. */
export async function accessibilityProblems(page: Page, only?: string): Promise<string[]> {
  // Through the protocol, which the page's policy for scripts does not bind.
  await page.evaluate(axe.source);
  return await page.evaluate(async (only) => {
    // deno-lint-ignore no-explicit-any
    const { violations } = await (globalThis as any).axe.run(document, {
      runOnly: only ??
        ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
      resultTypes: ["violations"],
    });
    return violations.map((found: { id: string; help: string; nodes: { html: string }[] }) =>
      `${found.id}: ${found.help}: ${found.nodes.slice(0, 3).map(({ html }) => html).join(" | ")}`
    );
  }, only);
}
