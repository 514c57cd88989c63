/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
// Entry of the page: the address after # names the view; one is shown at a time, and what it still
// waits for is given up when the next takes over.

import { errorBox, h } from "./dom.ts";
import { sizeOfStore, type View } from "./view.ts";

/** Each is started when it is first shown; the browser has fetched them by then (index.html). */
const views: Record<string, () => Promise<View>> = {
  runs: async () => (await import("./runs.ts")).runs,
  compare: async () => (await import("./compare.ts")).compare,
  run: async () => (await import("./run.ts")).run,
  difference: async () => (await import("./difference.ts")).difference,
  sql: async () => (await import("./sql.ts")).sql,
};
const refreshMs = 4000;

let current = new AbortController();

async function show(first: boolean): Promise<void> {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name = "", argument = ""] = path.split("/");
  const load = Object.hasOwn(views, name || "runs") ? views[name || "runs"] : undefined;
  const content = document.querySelector("main")!;
  content.replaceChildren();
  for (const link of document.querySelectorAll<HTMLAnchorElement>("header nav a")) {
    const here = link.hash === `#/${name || "runs"}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!load) {
    content.append(h("h1", {}, "Nothing is here"), h("p", {}, `There is no view “${name}”.`));
    return;
  }
  let reload: (() => Promise<void>) | undefined;
  content.dataset.loading = "";
  try {
    const view = await load();
    if (signal.aborted) return;
    await view({
      content,
      argument: decodeURIComponent(argument),
      parameters: new URLSearchParams(search),
      signal,
      title(text) {
        document.title = `${text} · SDPG`;
        content.prepend(h("h1", {}, text));
        // Whoever moved here by keyboard or hears the page goes on at the new content.
        if (!first) content.focus({ preventScroll: true });
      },
      remember(parameters) {
        const kept = Object.entries(parameters).filter(([, value]) => value !== "");
        const query = new URLSearchParams(kept).toString();
        history.replaceState(null, "", `#/${path || "runs"}${query ? `?${query}` : ""}`);
      },
      onGrowth: (again) => reload = again,
    });
  } catch (error) {
    if (!signal.aborted) content.append(errorBox(error));
  }
  if (!signal.aborted) delete content.dataset.loading;
  if (reload) await watch(reload, signal);
}

async function watch(reload: () => Promise<void>, signal: AbortSignal): Promise<void> {
  const live = document.querySelector("#live")!;
  let size = await sizeOfStore(signal).catch(() => "");
  while (!signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, refreshMs));
    if (signal.aborted || document.hidden) continue;
    try {
      const now = await sizeOfStore(signal);
      if (now !== size) await reload();
      size = now;
      live.textContent = "";
    } catch {
      if (!signal.aborted) live.textContent = "The telemetry service does not answer";
    }
  }
}

// What a view that was left still waited for was given up on purpose.
addEventListener("unhandledrejection", (event) => {
  if (event.reason instanceof DOMException && event.reason.name === "AbortError") {
    event.preventDefault();
  }
});
addEventListener("hashchange", () => show(false));
show(true);
