// The web page of the store, under /ui/: files of page/ and the two libraries they import, and the
// videos of runs. It is static: all data the page shows it asks with read-only SQL at this same address.
//
// The page's modules are TypeScript. They are served with their types blanked out (positions stay, so
// an error in the browser names the line of the source) and nothing is bundled or fetched from outside.

import { stripTypeScriptTypes } from "node:module";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isRunId, runDirectory } from "@sdpg/common/home.ts";

/** What the page's modules import from elsewhere, as they write it, and the file that it is. */
const libraries: Record<string, string> = {
  "uplot": "../../node_modules/uplot/dist/uPlot.esm.js",
  "../../cli/format.ts": "../cli/format.ts",
  "../../common/student.ts": "../common/student.ts",
};
const styles = { "uPlot.min.css": "../../node_modules/uplot/dist/uPlot.min.css" };

const contentTypes: Record<string, string> = {
  ".html": "text/html; charset=UTF-8",
  ".css": "text/css; charset=UTF-8",
  ".svg": "image/svg+xml",
  ".ts": "text/javascript; charset=UTF-8",
  ".js": "text/javascript; charset=UTF-8",
  ".mp4": "video/mp4",
  ".webp": "image/webp",
};

/**
 * Nothing but this address: no script that the service did not serve, no frame around the page, no
 * request to anywhere else. uPlot sets styles through the object model, which needs no exception.
 */
const headers = {
  "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; " +
    "img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
    "frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-cache",
};

/** Answers requests whose path begins with /ui. */
export type Page = (request: Request, url: URL) => Promise<Response>;

/** The page of a home; its files are read once, when they are first asked for. */
export function openPage(home: string): Page {
  const files = listFiles();
  const read = new Map<string, string>();
  return async (request, url) => {
    if (request.method !== "GET") return plain(405, "Expected GET\n", { allow: "GET" });
    if (url.pathname === "/ui") return plain(308, "", { location: "/ui/" });
    const name = url.pathname.slice("/ui/".length) || "index.html";
    if (name.startsWith("videos/")) {
      return await videos(home, name.slice("videos/".length), request);
    }
    const path = files.get(name);
    if (path === undefined) return plain(404, `There is no ${url.pathname} here\n`);
    const type = contentTypes[extname(path)];
    let content = read.get(name);
    if (content === undefined) {
      const text = await Deno.readTextFile(path);
      content = extname(path) === ".ts" ? browserModule(text) : text;
      read.set(name, content);
    }
    return new Response(content, { headers: { ...headers, "content-type": type } });
  };
}

/** Served name to path. Only what is listed here is ever read. */
function listFiles(): Map<string, string> {
  const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
  const files = new Map<string, string>();
  for (const { name } of Deno.readDirSync(here("./page"))) {
    if (!name.endsWith(".test.ts")) files.set(name, here(`./page/${name}`));
  }
  for (const path of Object.values(libraries)) files.set(libraryName(path), here(path));
  for (const [name, path] of Object.entries(styles)) files.set(`lib/${name}`, here(path));
  return files;
}

const libraryName = (path: string) => `lib/${path.slice(path.lastIndexOf("/") + 1)}`;

/** TypeScript as a browser reads it: without types, and importing libraries from where they are served. */
function browserModule(source: string): string {
  return stripTypeScriptTypes(source).replace(
    /(\bfrom ")([^"]+)(";)/g,
    (whole, before, specifier, after) =>
      Object.hasOwn(libraries, specifier)
        ? `${before}/ui/${libraryName(libraries[specifier])}${after}`
        : whole,
  );
}

// ---------------------------------------------------------------------------------------- videos

/** "<run>" lists the films of a run as JSON; "<run>/<name>" is one of them, in parts if asked so. */
async function videos(home: string, name: string, request: Request): Promise<Response> {
  const [runId, file, ...more] = name.split("/");
  const known = isRunId(runId) && more.length === 0 ? filmsOf(home, runId) : undefined;
  if (known && file === undefined) return Response.json(known, { headers });
  if (!known?.includes(file)) return plain(404, `There is no video ${name} here\n`);
  const path = join(runDirectory(home, runId), "videos", file);
  const opened = await Deno.open(path);
  const { size } = await opened.stat();
  const range = byteRange(request.headers.get("range"), size);
  if (range === undefined) {
    opened.close();
    return plain(416, "Expected a range within the file\n", { "content-range": `bytes */${size}` });
  }
  const { from, to, partial } = range;
  await opened.seek(from, Deno.SeekMode.Start);
  let left = to - from + 1;
  const body = opened.readable.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        const part = chunk.subarray(0, left);
        left -= part.length;
        if (part.length > 0) controller.enqueue(part);
        if (left === 0) controller.terminate();
      },
    }),
  );
  return new Response(body, {
    status: partial ? 206 : 200,
    headers: {
      ...headers,
      "content-type": contentTypes[extname(file)],
      "content-length": String(to - from + 1),
      "accept-ranges": "bytes",
      ...(partial ? { "content-range": `bytes ${from}-${to}/${size}` } : {}),
    },
  });
}

/** Names of the films in a run's folder, sorted. Links are not followed. */
function filmsOf(home: string, runId: string): string[] {
  try {
    return [...Deno.readDirSync(join(runDirectory(home, runId), "videos"))]
      .filter(({ isFile, name }) => isFile && /^[\w-][\w.-]*\.(mp4|webp)$/.test(name))
      .map(({ name }) => name).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** First and last byte of a Range header; all of the file without one; undefined where it has no such. */
export function byteRange(
  header: string | null,
  size: number,
): { from: number; to: number; partial: boolean } | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!match || (match[1] === "" && match[2] === "")) {
    return { from: 0, to: size - 1, partial: false };
  }
  const from = match[1] === "" ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const to = match[1] === "" || match[2] === "" ? size - 1 : Math.min(size - 1, Number(match[2]));
  return from <= to ? { from, to, partial: true } : undefined;
}

const plain = (status: number, body: string, extra: Record<string, string> = {}) =>
  new Response(body, {
    status,
    headers: { ...headers, "content-type": "text/plain; charset=UTF-8", ...extra },
  });
