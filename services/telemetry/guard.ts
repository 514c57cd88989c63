// Which SQL the read-only endpoint lets through to the engine.
//
// The engine's own `readonly = 1` refuses writes, settings and most table functions. What it lets pass
// is refused here by looking at the statement's tokens: writing a result into a file, scalar functions
// that read files or call services, table functions that describe a source outside the store, and more
// than one statement. The reading of tokens is stricter than ClickHouse's where the two could differ
// (no `#` comments, no heredocs, nothing but ASCII outside of strings), so that nothing can be code to
// the engine and text to us.

import { EngineError } from "./store.ts";

/** A statement that may be asked, without its final semicolon. */
export interface Checked {
  sql: string;
  /** Format named by a FORMAT clause at the end. */
  format: string | undefined;
}

const firstWords = ["select", "with", "show", "describe", "desc", "explain", "exists", "from"];

/** Table functions that stay inside the store or need none. */
export const allowedTableFunctions: ReadonlySet<string> = new Set([
  "numbers",
  "numbers_mt",
  "zeros",
  "zeros_mt",
  "generate_series",
  "generateseries",
  "generaterandom",
  "primes",
  "values",
  "sqlstandardvalues",
  "view",
  "viewifpermitted",
  "merge",
  "null",
  "format", // as a scalar function it fills in a text; as a table function it reads its argument
]);

/** Scalar functions that read files, start programs or call other machines. */
const deniedFunctions =
  /^(file|catboostevaluate|ai[a-z]\w*|evalmlmethod|reversednsquery|logtrace|getclienthttpheader)$/;

/**
 * Checks one statement. `tableFunctions` are the names the engine knows (lower case): those that are
 * not allowed by name are refused, so a newer engine brings no new door. Throws EngineError with
 * ClickHouse's code for what it is: 164 READONLY, 62 SYNTAX_ERROR.
 */
export function checkReadOnly(sql: string, tableFunctions: ReadonlySet<string>): Checked {
  const tokens = tokenize(sql);
  while (tokens.at(-1)?.text === ";") tokens.pop();
  if (tokens.length === 0) throw syntaxError("Empty query");
  const last = tokens[tokens.length - 1];

  const opening = tokens.find(({ text }) => text !== "(");
  if (opening?.kind !== "word" || !firstWords.includes(opening.lower)) {
    throw readOnly(`expected SELECT, WITH, SHOW, DESCRIBE, EXISTS or EXPLAIN, came ${quote(sql)}`);
  }
  let format: string | undefined;
  tokens.forEach((token, i) => {
    const next = tokens[i + 1];
    if (token.text === ";") throw syntaxError("Multi-statements are not allowed");
    if (token.kind === "word" && token.lower === "into" && next?.lower === "outfile") {
      throw readOnly("INTO OUTFILE is not allowed");
    }
    const after = tokens[i + 2]?.lower;
    const atEnd = after === undefined || after === "settings";
    if (token.lower === "format" && next?.kind === "word" && atEnd) format = next.text;
    // A call through a parameter would name its function only later.
    if (token.text === "}" && next?.text === "(") throw readOnly("a parameter cannot be called");
    if (token.kind !== "word" && token.kind !== "quoted") return;
    if (deniedFunctions.test(token.lower)) {
      throw readOnly(`function ${token.text} is not allowed`);
    }
    const outside = tableFunctions.has(token.lower) && !allowedTableFunctions.has(token.lower);
    if (next?.text === "(" && outside) {
      throw readOnly(`table function ${token.text} is not allowed`);
    }
  });
  return { sql: sql.slice(0, last.end), format };
}

interface Token {
  kind: "word" | "quoted" | "string" | "sign";
  text: string; // content of a quoted name without its quotes
  lower: string;
  end: number; // position after the token
}

function tokenize(sql: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  const push = (kind: Token["kind"], text: string) =>
    tokens.push({ kind, text, lower: text.toLowerCase(), end: at });
  while (at < sql.length) {
    const char = sql[at];
    if (/[ \t\r\n\f\v]/.test(char)) {
      at++;
    } else if (sql.startsWith("--", at)) {
      const end = sql.indexOf("\n", at);
      at = end < 0 ? sql.length : end;
    } else if (sql.startsWith("/*", at)) {
      const end = sql.indexOf("*/", at + 2);
      if (end < 0) throw syntaxError("Comment is not closed");
      at = end + 2;
    } else if (char === "'" || char === '"' || char === "`") {
      const start = at;
      at = endOfQuoted(sql, at);
      push(char === "'" ? "string" : "quoted", unquote(sql.slice(start + 1, at - 1), char));
    } else if (/[A-Za-z0-9_]/.test(char)) {
      const start = at;
      while (at < sql.length && /[A-Za-z0-9_]/.test(sql[at])) at++;
      push("word", sql.slice(start, at));
    } else if (/[()[\]{},.;:?=<>!+*/%|&^~@-]/.test(char)) {
      at++;
      push("sign", char);
    } else {
      throw syntaxError(
        `unexpected ${JSON.stringify(char)} at position ${at + 1}: only strings and quoted names ` +
          `may hold it`,
      );
    }
  }
  return tokens;
}

/** Position after the closing quote; a doubled quote and what follows a backslash stay inside. */
function endOfQuoted(sql: string, start: number): number {
  const quoteMark = sql[start];
  for (let at = start + 1; at < sql.length; at++) {
    if (sql[at] === "\\") at++;
    else if (sql[at] === quoteMark) {
      if (sql[at + 1] === quoteMark) at++;
      else return at + 1;
    }
  }
  throw syntaxError(`Quote ${quoteMark} is not closed`);
}

/** Name inside quotes. An escape in a name has no honest use here, so it is refused. */
function unquote(text: string, quoteMark: string): string {
  if (quoteMark !== "'" && text.includes("\\")) {
    throw syntaxError("a quoted name may not hold a backslash");
  }
  return text;
}

const quote = (sql: string) => JSON.stringify(sql.trim().split(/\s/, 1)[0].slice(0, 40));

function readOnly(reason: string): EngineError {
  return new EngineError(
    164,
    `Code: 164. DB::Exception: Cannot execute query in readonly mode: ${reason}. (READONLY)`,
  );
}

function syntaxError(reason: string): EngineError {
  return new EngineError(62, `Code: 62. DB::Exception: Syntax error: ${reason}. (SYNTAX_ERROR)`);
}
