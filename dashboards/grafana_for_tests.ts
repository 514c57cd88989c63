// What Grafana and its ClickHouse data source do to a query before it is sent, for tests: first the data
// source's $__conditionalAll, then Grafana puts in the values of variables, then the data source's backend
// expands the macros of time. As far as our dashboards use them; anything else throws.

export type Value = string | string[];
export type Values = Record<string, Value>;

export interface Asked {
  /** What is chosen; ["$__all"] is "All". */
  values: Values;
  /** What there is to choose from, which "All" stands for. */
  options?: Record<string, string[]>;
  fromMs: number;
  toMs: number;
  intervalMs: number;
}

/**
 * What is chosen where a dashboard opens: everything, where there can be more than one. Runs, experiments and
 * the time are those of a store.
 */
export const opened = (
  dashboard: string,
  runs: string[],
  [fromMs, toMs]: [number, number],
  values: Values = {},
): Asked => ({
  values: {
    ...Object.fromEntries(
      ["task", "algorithm", "preset", "seed", "service", "gpu"].map((name) => [name, ["$__all"]]),
    ),
    run: dashboard === "run" ? runs[0] : ["$__all"],
    experiment: "",
    curve: dashboard === "run" ? "critic_loss" : "evaluation",
    axis: "wall_time_s",
    threshold: "3000",
    epoch: "newest",
    side: "client",
    ...values,
  },
  options: { run: runs },
  fromMs,
  toMs,
  intervalMs: 10_000,
});

/** The statement that reaches the store. */
export function sentBy(rawSql: string, asked: Asked): string {
  return expandMacros(interpolate(applyConditionalAll(rawSql, asked.values), asked), asked);
}

/** `$__conditionalAll(condition, $variable)`: the condition, or 1=1 while "All" or nothing is chosen. */
export function applyConditionalAll(rawSql: string, values: Values): string {
  const macro = "$__conditionalAll(";
  let sql = rawSql;
  for (let at = sql.lastIndexOf(macro); at >= 0; at = sql.lastIndexOf(macro)) {
    const [condition, variable] = macroArguments(sql, at + macro.length);
    const name = /\$(\w+)/.exec(variable)![1];
    if (!Object.hasOwn(values, name)) throw new Error(`No variable ${name}: ${rawSql}`);
    const value = values[name].toString();
    const all = value === "" || value === "$__all";
    const call = `${macro}${condition},${variable})`;
    // With a function: in a text, `$` would mean something to replace().
    sql = sql.replace(call, () => all ? "1=1" : condition);
  }
  return sql;
}

/** Arguments of a macro from behind its parenthesis on; like the data source, blind to quotes. */
function macroArguments(sql: string, start: number): string[] {
  const found: string[] = [];
  let depth = 1;
  let from = start;
  for (let at = start; at < sql.length; at++) {
    if (sql[at] === "(") depth++;
    else if (sql[at] === ")") depth--;
    if (depth === 0 || (depth === 1 && sql[at] === ",")) {
      found.push(sql.slice(from, at));
      from = at + 1;
    }
    if (depth === 0) break;
  }
  if (depth !== 0 || found.length !== 2) {
    throw new Error(`Expected two arguments: ${sql.slice(start)}`);
  }
  return found;
}

/** Grafana's syntax of variables: $name, [[name:format]], ${name.field:format}. */
const variablePattern =
  /\$(\w+)|\[\[(\w+?)(?::(\w+))?\]\]|\${(\w+)((?:\.[^:^{}\[\]]+)?)(?::([^}]+))?}/g;

export function interpolate(text: string, { values, options }: Omit<Asked, "fromMs">): string {
  return text.replace(variablePattern, (match, plain, old, oldFormat, name, field, format) => {
    const variable = plain ?? old ?? name;
    if (!Object.hasOwn(values, variable)) return match; // a macro of the data source, or nothing
    if (field) throw new Error(`Fields of variables are not used here: ${match}`);
    let value = values[variable];
    if (value === "$__all" || value[0] === "$__all") value = options?.[variable] ?? [];
    return formatted(value, format ?? oldFormat);
  });
}

/** Grafana's formats of values, those that matter here. */
function formatted(value: Value, format: string | undefined): string {
  switch (format) {
    case "percentencode":
      return strictlyEncoded(Array.isArray(value) ? `{${value.join(",")}}` : value);
    case "singlequote": {
      const quoted = (one: string) => `'${one.replaceAll("'", "\\'")}'`;
      return Array.isArray(value) ? value.map(quoted).join(",") : quoted(value);
    }
    case "sqlstring": {
      const quoted = (one: string) => `'${one.replaceAll("'", "''").replaceAll('"', '\\"')}'`;
      return Array.isArray(value) ? value.map(quoted).join(",") : quoted(value);
    }
    case "text":
      return Array.isArray(value) ? value.join(" + ") : value;
    // What the data source passes for queries that name no format.
    case undefined:
      return Array.isArray(value) ? `'${value.join("','")}'` : value;
    default:
      throw new Error(`Format ${format} is not used here`);
  }
}

/** RFC 3986: what encodeURIComponent leaves, without !'()*. */
const strictlyEncoded = (text: string) =>
  encodeURIComponent(text).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );

/** Macros of the data source's backend. It looks for them everywhere, also inside literals. */
export function expandMacros(
  sql: string,
  { fromMs, toMs, intervalMs }: Pick<Asked, "fromMs" | "toMs" | "intervalMs">,
): string {
  const time = (ms: number) => `toDateTime(${Math.floor(ms / 1000)})`;
  const seconds = Math.floor(Math.max(intervalMs / 1000, 1));
  const macros: Record<string, (argument: string) => string> = {
    fromTime: () => time(fromMs),
    toTime: () => time(toMs),
    timeFilter: (column) => `${column} >= ${time(fromMs)} AND ${column} <= ${time(toMs)}`,
    timeInterval: (column) =>
      `toStartOfInterval(toDateTime(${column}), INTERVAL ${seconds} second)`,
    interval_s: () => String(seconds),
  };
  return sql.replace(/\$__(\w+)(?:\(([^()]*)\))?/g, (match, name, argument) => {
    const expand = macros[name];
    if (expand === undefined) throw new Error(`Macro ${match} is not used here`);
    const takesOne = name === "timeFilter" || name === "timeInterval";
    if (takesOne !== (argument !== undefined)) throw new Error(`Wrong arguments: ${match}`);
    return expand(argument);
  });
}
