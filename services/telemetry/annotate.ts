// What the page may write: tags and the note of a run, as POST /ui/annotations/<run> with the JSON of an
// Annotation. It becomes the event that ./sdpg tag sends, and goes the way of all events.
//
// Any web page that the person has open can make a browser send requests here, so only the page itself
// is served: a browser says of every POST where it comes from (Origin), and of most how that stands to
// here (Sec-Fetch-Site). Programs send events over OTLP instead.

import { type Annotation, annotationEvents, mostTags } from "@sdpg/common/annotation.ts";
import { isRunId } from "@sdpg/common/home.ts";
import { MalformedOtlp } from "@sdpg/common/otlp.ts";
import { Busy, type Ingest } from "./ingest.ts";
import { rowsOf } from "./rows.ts";
import type { Store } from "./store.ts";

/** Answers a request to annotate a run: a status, and one line for what is refused. */
export type Annotate = (request: Request, runId: string) => Promise<[status: number, text: string]>;

const shape = `{"add":["tag"],"remove":["tag"],"note":"text"}, each optional`;
const longestBody = 32 << 10; // bytes; a note of the longest in any script and all tags fit

/** @param nowMs milliseconds since 1970 */
export function annotator(
  store: Store,
  ingest: Pick<Ingest, "add" | "settled">,
  nowMs: () => number = () => performance.timeOrigin + performance.now(),
): Annotate {
  const source = `page-${crypto.randomUUID()}`;
  let sequence = 0n;
  let lastNs = 0n;
  // Never the same time twice, and never backwards: of two changes the later one holds.
  const clock = () => {
    const now = BigInt(Math.round(nowMs() * 1e6));
    return lastNs = now > lastNs ? now : lastNs + 1n;
  };
  return async (request, runId) => {
    if (!isFromPage(request)) return [403, "Only the page that is served here may write"];
    const type = request.headers.get("content-type")?.split(";")[0].trim().toLowerCase();
    if (type !== "application/json") {
      return [415, `Expected content-type application/json, came ${type ?? "none"}`];
    }
    const body = await textOf(request);
    if (body === undefined) return [413, `The request is too large: at most ${longestBody} bytes`];
    const annotation = annotationOf(body);
    if (typeof annotation === "string") return [400, annotation];
    const unknown: [number, string] = [404, `There is no run "${runId.slice(0, 80)}" in the store`];
    if (!isRunId(runId)) return unknown;
    const events = annotationEvents(annotation);
    if (events.length === 0) return [400, `Expected ${shape}, came nothing of it`];
    if (events.length > mostTags) return [400, `Expected at most ${mostTags} changes`];
    let rows;
    try {
      rows = rowsOf(events.map((attributes) => ({
        eventName: "rl.annotation",
        timeUnixNano: clock(),
        path: "annotation",
        resource: { "service.instance.id": source },
        attributes: { "rl.run.id": runId, "rl.sequence": ++sequence, ...attributes },
      })));
    } catch (error) {
      if (error instanceof MalformedOtlp) return [400, error.message];
      throw error;
    }
    try {
      await ingest.settled(); // a run that has just been told of is known
      const found = await store.rows(
        "SELECT 1 AS there FROM run_states WHERE run_id = {run:String} LIMIT 1",
        { run: runId },
      );
      if (found.length === 0) return unknown;
      await ingest.add(() => ({ rows }));
    } catch (error) {
      const why = error instanceof Busy ? error.message : "The store does not answer";
      return [503, `${why}; try again`];
    }
    return [200, "stored"];
  };
}

/** Whether a browser says that this origin's own page sends the request. */
function isFromPage({ headers }: Request): boolean {
  const site = headers.get("sec-fetch-site");
  if (site !== null && site !== "same-origin") return false;
  const origin = headers.get("origin") ?? "";
  return URL.canParse(origin) && new URL(origin).host === headers.get("host") &&
    /^https?:$/.test(new URL(origin).protocol);
}

/** The body as text; undefined as soon as it is longer than it may be. */
async function textOf(request: Request): Promise<string | undefined> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of request.body ?? []) {
    bytes += chunk.length;
    if (bytes > longestBody) return undefined;
    chunks.push(chunk);
  }
  return await new Blob(chunks as Uint8Array<ArrayBuffer>[]).text();
}

/** What a body asks for, or one line that says what is wrong with it. */
function annotationOf(body: string): Annotation | string {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return `Expected JSON like ${shape}`;
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return `Expected ${shape}, came ${JSON.stringify(value).slice(0, 60)}`;
  }
  const { add, remove, note, ...other } = value as Record<string, unknown>;
  const [unknown] = Object.keys(other);
  if (unknown !== undefined) return `Expected ${shape}, came "${unknown.slice(0, 60)}"`;
  const isTexts = (list: unknown) =>
    list === undefined ||
    (Array.isArray(list) && list.every((item) => typeof item === "string"));
  if (!isTexts(add) || !isTexts(remove)) return `Expected lists of texts in add and remove`;
  if (note !== undefined && typeof note !== "string") return "Expected a text in note";
  return { add, remove, note } as Annotation;
}
