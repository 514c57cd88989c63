// What the SDK does not have: queries of Grafana's ClickHouse data source, and how a dashboard's variables
// get into their SQL. A value of a variable is whatever an address says (?var-run=…), so it enters SQL in
// one way only: percent-encoded inside a literal, which holds no quote, backslash or dollar sign, and
// decoded by ClickHouse. `${run:singlequote}` would not do: it leaves backslashes alone, which escape in
// ClickHouse, and the data source looks for its macros inside literals too.

import type { Builder, Dataquery } from "@grafana/grafana-foundation-sdk/cog";
import type { DataSourceRef } from "@grafana/grafana-foundation-sdk/common";

export const pluginId = "grafana-clickhouse-datasource";
/** The data source that `dist/provisioning` brings; dashboards may choose another one. */
export const dataSourceUid = "sdpg";
/** The data source chosen at the top of a dashboard. */
export const chosenDataSource: DataSourceRef = { type: pluginId, uid: "${datasource}" };

/** What a query's answer is made into, by the numbers of the data source. */
export const formats = { timeseries: 0, table: 1, logs: 2, traces: 3 } as const;
export type Format = keyof typeof formats;

/** A query as the data source stores it (its version 4). */
export interface ClickHouseQuery extends Dataquery {
  refId: string;
  datasource: DataSourceRef;
  pluginVersion: string;
  editorType: "sql";
  queryType: Format;
  format: number;
  rawSql: string;
}

/** Builder of a query written in SQL, as the SDK expects one. */
export class SqlQuery implements Builder<ClickHouseQuery> {
  constructor(
    private readonly sql: string,
    private readonly format: Format,
    private readonly datasource: DataSourceRef = chosenDataSource,
    private readonly refId = "A",
  ) {}

  build(): ClickHouseQuery {
    return {
      refId: this.refId,
      datasource: this.datasource,
      pluginVersion: "4.0.0",
      editorType: "sql",
      queryType: this.format,
      format: formats[this.format],
      rawSql: trimmed(this.sql),
    } as ClickHouseQuery; // the SDK's mark of a query is a method, which JSON has not
  }
}

/** A template text without the indentation that it has in the source. */
function trimmed(text: string): string {
  const lines = text.replace(/^\n/, "").trimEnd().split("\n");
  const indent = Math.min(
    ...lines.filter((line) => line.trim()).map((line) => line.search(/\S/)),
  );
  return lines.map((line) => line.slice(indent)).join("\n");
}

/** SQL for the value of a variable that has one. */
export const chosen = (variable: string) => `decodeURLComponent('\${${variable}:percentencode}')`;

/**
 * SQL for the list of values of a variable that may have many. Grafana writes them as {a,b}: a value with
 * a comma or with braces at its ends cannot be chosen, which names of tasks, runs and services have not.
 */
export const chosenList = (variable: string) =>
  `splitByChar(',', trim(BOTH '{}' FROM ${chosen(variable)}))`;

/**
 * SQL condition: the column has one of a variable's values. Everything while "All" is chosen, also what
 * came after the dashboard was opened.
 */
export const isChosen = (column: string, variable: string) =>
  `$__conditionalAll(${column} IN (${chosenList(variable)}), $${variable})`;

/** The chosen runs, always listed: the views of runs take a list. */
export const runs = chosenList("run");

/** The axes of the record, by what people call them. */
export const axes = {
  "Training time (s)": "wall_time_s",
  "Environment steps (total)": "env_steps_total",
  "Environment steps (nominal)": "env_steps_nominal",
  "Images rendered": "images_rendered",
  "GPU time (s)": "gpu_seconds",
  "Epochs": "iteration",
} as const;

/** Beginning of a statement that uses `chosenAxis`. */
export const withAxis = `WITH ${chosen("axis")} AS axis`;

/**
 * SQL for the chosen axis of a row. The variable's value is compared, and is never a name in the statement;
 * of a value that is no axis there is nothing to see.
 */
export const chosenAxis = (table: string) =>
  `multiIf(${
    Object.values(axes).map((column) => `axis = '${column}', toFloat64(${table}.${column})`)
      .join(", ")
  }, nan)`;

/**
 * SQL for a distance on the chosen axis of which the longest of some rows has `points`. `rows` are of a table
 * or view with the axes, named s: no more than the panel reads anyway.
 */
export const chosenStep = (points: number, rows: string) =>
  `(${withAxis} SELECT greatest(max(${chosenAxis("s")}) / ${points}, 1e-9) FROM ${rows})`;
