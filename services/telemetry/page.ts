// The web page of the store, under /ui/: files of page/ and the libraries they import, and the videos
// of runs. All data the page shows it asks with read-only SQL at this same address; what it may write is
// what people say of runs (annotate.ts).
//
// The page's modules are TypeScript. They are served with their types blanked out (positions stay, so
// an error in the browser names the line of the source) and nothing is bundled or fetched from outside.
//
// index.html is asked for every time. All else it names below a hash of all files together, so that a
// browser keeps what it has of this version and never mixes two; and it names every module, so that
// none is waited for until another one that imports it has come.

import { createHash } from "node:crypto";
import { stripTypeScriptTypes } from "node:module";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isRunId, runDirectory } from "@sdpg/common/home.ts";
import type { Annotate } from "./annotate.ts";

/** What the page's modules import from elsewhere, as they write it, and the file that it is. */
const libraries: Record<string, string> = {
  "uplot": "../../node_modules/uplot/dist/uPlot.esm.js",
  "../../cli/format.ts": "../cli/format.ts",
  "../../common/annotation.ts": "../common/annotation.ts",
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
  ".gif": "image/gif",
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

/** The page of a home; its files are read once, when something is first asked for. */
export function openPage(home: string, annotate: Annotate): Page {
  let read: Promise<Site> | undefined;
  return async (request, url) => {
    const annotated = /^\/ui\/annotations\/([^/]*)$/.exec(url.pathname)?.[1];
    if (annotated !== undefined) {
      if (request.method !== "POST") return plain(405, "Expected POST\n", { allow: "POST" });
      const [status, text] = await annotate(request, annotated);
      return plain(status, `${text}\n`);
    }
    if (request.method !== "GET") return plain(405, "Expected GET\n", { allow: "GET" });
    if (url.pathname === "/ui") return plain(308, "", { location: "/ui/" });
    const asked = url.pathname.slice("/ui/".length);
    if (asked.startsWith("videos/")) {
      return await videos(home, asked.slice("videos/".length), request);
    }
    const { version, files } = await (read ??= readSite());
    const versioned = asked.startsWith(`${version}/`);
    const name = versioned ? asked.slice(version.length + 1) : asked || "index.html";
    const content = files.get(name);
    if (content === undefined) return plain(404, `There is no ${url.pathname} here\n`);
    if (versioned) return file(name, content, { "cache-control": cachedForEver });
    const etag = `"${version}"`;
    return request.headers.get("if-none-match") === etag
      ? new Response(null, { status: 304, headers: { ...headers, etag } })
      : file(name, content, { etag });
  };
}

const cachedForEver = "public, max-age=31536000, immutable";

const file = (name: string, content: string, extra: Record<string, string>) =>
  new Response(content, {
    headers: { ...headers, "content-type": contentTypes[extname(name)], ...extra },
  });

interface Site {
  /** Hash of all files. */
  version: string;
  /** What is served by name. */
  files: Map<string, string>;
}

async function readSite(): Promise<Site> {
  const files = new Map(
    await Promise.all([...listFiles()].map(async ([name, path]) => {
      const text = await Deno.readTextFile(path);
      return [name, name.endsWith(".ts") ? browserModule(text, name) : text] as const;
    })),
  );
  const hash = createHash("sha256");
  for (const [name, content] of [...files].sort(([a], [b]) => a < b ? -1 : 1)) {
    hash.update(`${name}\n${content}\n`);
  }
  const version = hash.digest("hex").slice(0, 16);
  files.set("index.html", indexOf(files, version));
  return { version, files };
}

/** index.html with versioned addresses, and with every module that its script may come to need. */
function indexOf(files: ReadonlyMap<string, string>, version: string): string {
  const modules = [...files.keys()].filter((name) => /\.(ts|js)$/.test(name) && name !== "main.ts");
  const preloads = modules.map((name) => `<link rel="modulepreload" href="${version}/${name}">`);
  return files.get("index.html")!
    .replace(
      /(href|src)="([^"#]+)"/g,
      (whole, attribute, name) => files.has(name) ? `${attribute}="${version}/${name}"` : whole,
    )
    .replace("</head>", `  ${preloads.join("\n    ")}\n  </head>`);
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
function browserModule(source: string, name: string): string {
  const folder = name.startsWith("lib/") ? "../" : "./";
  return stripTypeScriptTypes(source).replace(
    /(\bfrom ")([^"]+)(";)/g,
    (whole, before, specifier, after) =>
      Object.hasOwn(libraries, specifier)
        ? `${before}${folder}${libraryName(libraries[specifier])}${after}`
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
      .filter(({ isFile, name }) => isFile && /^[\w-][\w.-]*\.(mp4|webp|gif)$/.test(name))
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
