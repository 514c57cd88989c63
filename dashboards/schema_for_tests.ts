// What Grafana's schema says of a dashboard's JSON, put together from the types of its SDK, which Grafana
// generates from the schema: the dashboard, and for each kind of panel that we use its options and what is
// special about its fields. `deno check` compares dist/ with it (dashboards.test.ts).

import type * as barchart from "@grafana/grafana-foundation-sdk/barchart";
import type { DataSourceRef } from "@grafana/grafana-foundation-sdk/common";
import type * as sdk from "@grafana/grafana-foundation-sdk/dashboard";
import type * as logs from "@grafana/grafana-foundation-sdk/logs";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as table from "@grafana/grafana-foundation-sdk/table";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";
import type * as trend from "@grafana/grafana-foundation-sdk/trend";

/** As JSON has it: enums are their values, and nothing is a method. */
type Plain<T> = 0 extends 1 & T ? T // any
  : T extends string ? `${T}`
  : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T as T[K] extends () => void ? never : K]: Plain<T[K]> }
  : T;

/** A query of the ClickHouse data source in SQL. */
export interface StoredQuery {
  refId: string;
  datasource: DataSourceRef;
  pluginVersion: string;
  editorType: "sql";
  queryType: "timeseries" | "table" | "logs" | "traces";
  format: 0 | 1 | 2 | 3;
  rawSql: string;
}

type PanelOf<Type extends string, Options, Custom = never> =
  & Omit<Plain<sdk.Panel>, "type" | "options" | "fieldConfig" | "targets">
  & {
    type: Type;
    targets: StoredQuery[];
    options: Plain<Options>;
    fieldConfig: {
      defaults: Omit<Plain<sdk.FieldConfig>, "custom"> & { custom?: Partial<Plain<Custom>> };
      overrides: Plain<sdk.FieldConfigSource>["overrides"];
    };
  };

export type StoredPanel =
  | PanelOf<"timeseries", timeseries.Options, timeseries.FieldConfig>
  | PanelOf<"trend", trend.Options, trend.FieldConfig>
  | PanelOf<"table", table.Options, table.FieldConfig>
  | PanelOf<"stat", stat.Options>
  | PanelOf<"barchart", Partial<barchart.Options>, barchart.FieldConfig>
  | PanelOf<"logs", logs.Options>
  // The schema has nothing about the panel of traces.
  | PanelOf<"traces", Record<string, never>>
  | Plain<sdk.RowPanel>;

export type StoredDashboard = Omit<Plain<sdk.Dashboard>, "panels"> & { panels: StoredPanel[] };
