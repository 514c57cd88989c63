// Questions to the store: ClickHouse's HTTP interface at the address that served the page.
//
// The service works on two questions at a time and a training shares its processor, so at most two are
// under way from here; the others wait. A question whose view is gone is not asked any more.

/** The store said no; `message` is ClickHouse's own text. */
export class StoreError extends Error {
  override name = "StoreError";
}

/** A statement with the values of its `{name:Type}` parameters. */
export interface Question {
  /** Tells a question from others where someone measures them. */
  name?: string;
  sql: string;
  parameters?: Record<string, string | number | readonly string[]>;
}

const maxRunning = 2;
let running = 0;
const waiting: (() => void)[] = [];

/** Answer as text in a format of ClickHouse's. */
export async function askText(
  { name, sql, parameters = {} }: Question,
  format: string,
  signal: AbortSignal,
): Promise<string> {
  if (running >= maxRunning) await new Promise<void>((resolve) => waiting.push(resolve));
  running++;
  try {
    signal.throwIfAborted();
    const search = new URLSearchParams({ default_format: format });
    if (name !== undefined) search.set("log_comment", name);
    for (const [key, value] of Object.entries(parameters)) {
      search.set(`param_${key}`, parameterText(value));
    }
    const response = await fetch(`/?${search}`, { method: "POST", body: sql, signal });
    const text = await response.text();
    if (!response.ok) throw new StoreError(text.trim());
    return text;
  } finally {
    running--;
    waiting.shift()?.();
  }
}

/** Rows of an answer, an object each. */
export async function ask<Row>(question: Question, signal: AbortSignal): Promise<Row[]> {
  const text = await askText(question, "JSONEachRow", signal);
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as Row);
}

/** A value as ClickHouse reads one in a request: text escaped as in TabSeparated, lists as literals. */
function parameterText(value: string | number | readonly string[]): string {
  if (typeof value === "number") return String(value);
  if (typeof value === "string") return value.replace(/[\\\t\n\r]/g, (char) => escapes[char]);
  const quoted = value.map((item) => `'${item.replace(/[\\']/g, (char) => `\\${char}`)}'`);
  return `[${quoted.join(",")}]`;
}

const escapes: Record<string, string> = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };
