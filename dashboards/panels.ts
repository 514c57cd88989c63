// The panels that our dashboards are made of: each has a title, a description, a unit and a word for when
// there is nothing to show. Widths are columns of Grafana's grid, which has 24.

import type { Builder } from "@grafana/grafana-foundation-sdk/cog";
import * as barchart from "@grafana/grafana-foundation-sdk/barchart";
import * as common from "@grafana/grafana-foundation-sdk/common";
import * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import * as logs from "@grafana/grafana-foundation-sdk/logs";
import * as stat from "@grafana/grafana-foundation-sdk/stat";
import * as table from "@grafana/grafana-foundation-sdk/table";
import * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";
import * as trend from "@grafana/grafana-foundation-sdk/trend";
import { chosenDataSource, type Format, SqlQuery } from "./clickhouse.ts";

export interface PanelText {
  title: string;
  /** What it shows, how it is computed, and what to look for. */
  description: string;
  sql: string;
  /** Shown instead of an empty panel: what is missing and what brings it. */
  empty: string;
  width: number;
  height?: number;
  /** One of Grafana's units, "short" unless said. */
  unit?: string;
}

/** What all builders of panels have in common, as far as it is used here. */
interface AnyPanel {
  title(text: string): this;
  description(text: string): this;
  datasource(reference: common.DataSourceRef): this;
  span(width: number): this;
  height(height: number): this;
  unit(unit: string): this;
  noValue(text: string): this;
  withTarget(query: SqlQuery): this;
}

function filled<P extends AnyPanel>(panel: P, text: PanelText, format: Format): P {
  return panel.title(text.title).description(text.description).datasource(chosenDataSource)
    .span(text.width).height(text.height ?? 9).unit(text.unit ?? "short").noValue(text.empty)
    .withTarget(new SqlQuery(text.sql, format));
}

const legend = (calculations: string[] = []) =>
  new common.VizLegendOptionsBuilder().showLegend(true)
    .displayMode(
      calculations.length > 0 ? common.LegendDisplayMode.Table : common.LegendDisplayMode.List,
    )
    .placement(common.LegendPlacement.Bottom).calcs(calculations);
const tooltip = () =>
  new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi)
    .sort(common.SortOrder.Descending);
const stacked = () =>
  new common.StackingConfigBuilder().mode(common.StackingMode.Normal).group("A");
const palette = () =>
  new dashboard.FieldColorBuilder().mode(dashboard.FieldColorModeId.PaletteClassic);

/**
 * Values over time. The statement answers with columns time, series (a text) and value; in order of time, as
 * the data source asks for.
 */
export const overTime = (
  text: PanelText & { stacked?: boolean; min?: number; max?: number; calculations?: string[] },
) => {
  const panel = filled(new timeseries.PanelBuilder(), text, "timeseries")
    .displayName("${__field.labels.series}").colorScheme(palette()).lineWidth(1)
    .fillOpacity(text.stacked ? 40 : 8).showPoints(common.VisibilityMode.Auto).spanNulls(60_000)
    .legend(legend(text.calculations ?? ["lastNotNull", "max"])).tooltip(tooltip())
    .min(text.min ?? 0);
  if (text.max !== undefined) panel.max(text.max);
  if (text.stacked) panel.stacking(stacked());
  return panel;
};

/**
 * Values over a number that grows: an axis of the record. The statement answers with columns x, series (a
 * text) and value, in order of x; Grafana makes a column of each series, named like it.
 */
export const overAxis = (text: PanelText & { xTitle?: string; stacked?: boolean }) => {
  const x = "x\\series"; // what the transformation calls the column of x
  const panel = filled(new trend.PanelBuilder(), text, "table")
    .xField(x).colorScheme(palette()).lineWidth(2).fillOpacity(text.stacked ? 40 : 0)
    .showPoints(common.VisibilityMode.Auto).pointSize(4).spanNulls(true)
    .legend(legend(["lastNotNull", "max"])).tooltip(tooltip())
    .withTransformation({
      id: "groupingToMatrix",
      options: { columnField: "series", rowField: "x", valueField: "value", emptyValue: "null" },
    })
    .overrideByName(x, [
      { id: "displayName", value: text.xTitle ?? "${axis:text}" },
      { id: "unit", value: "short" },
    ]);
  if (text.stacked) panel.stacking(stacked());
  return panel;
};

/** Rows. `columns` say what is special about a column: its unit, its title, where a click leads. */
export const rows = (
  text: PanelText & {
    columns?: Record<string, { title?: string; unit?: string; decimals?: number; link?: Link }>;
    sortBy?: string;
  },
) => {
  const panel = filled(new table.PanelBuilder(), text, "table")
    .filterable(true).align(common.FieldTextAlignment.Auto).showHeader(true);
  for (const [name, column] of Object.entries(text.columns ?? {})) {
    // The panel's word for nothing would stand in every cell that is empty.
    const properties: dashboard.DynamicConfigValue[] = [{ id: "noValue", value: "–" }];
    if (column.title) properties.push({ id: "displayName", value: column.title });
    if (column.unit) properties.push({ id: "unit", value: column.unit });
    if (column.decimals !== undefined) {
      properties.push({ id: "decimals", value: column.decimals });
    }
    if (column.link) {
      properties.push({
        id: "links",
        value: [{ title: column.link.title, url: column.link.url, targetBlank: false }],
      });
    }
    panel.overrideByName(name, properties);
  }
  if (text.sortBy) {
    panel.sortBy([new common.TableSortByFieldStateBuilder().displayName(text.sortBy).desc(true)]);
  }
  return panel;
};

export interface Link {
  title: string;
  url: string;
}

/** A number, large. The statement answers with one row of one column; a text is shown as it is. */
export const number = (
  text: PanelText & {
    text?: boolean;
    /** From which value on it is orange and red. */
    warn?: number;
    alarm?: number;
    decimals?: number;
  },
) => {
  const steps: dashboard.Threshold[] = [{ value: null, color: "text" }];
  if (text.warn !== undefined) steps.push({ value: text.warn, color: "orange" });
  if (text.alarm !== undefined) steps.push({ value: text.alarm, color: "red" });
  const panel = filled(new stat.PanelBuilder(), { height: 4, ...text }, "table")
    .graphMode(common.BigValueGraphMode.None).colorMode(common.BigValueColorMode.Value)
    .textMode(common.BigValueTextMode.Value)
    .reduceOptions(
      new common.ReduceDataOptionsBuilder().values(false).calcs(["lastNotNull"])
        .fields(text.text ? "/.*/" : ""),
    )
    .thresholds(
      new dashboard.ThresholdsConfigBuilder().mode(dashboard.ThresholdsMode.Absolute).steps(steps),
    )
    .colorScheme(new dashboard.FieldColorBuilder().mode(dashboard.FieldColorModeId.Thresholds));
  if (text.decimals !== undefined) panel.decimals(text.decimals);
  return panel;
};

/** Bars of parts: the first column, a text, names the bar; every other one is a part of it. */
export const bars = (text: PanelText & { xField: string }) =>
  filled(new barchart.PanelBuilder(), text, "table")
    .xField(text.xField).orientation(common.VizOrientation.Horizontal)
    .stacking(common.StackingMode.Normal).showValue(common.VisibilityMode.Never)
    .colorScheme(palette()).legend(legend()).tooltip(tooltip()).fillOpacity(80);

/** Lines that services logged: columns timestamp, body, level, labels, newest first. */
export const logLines = (text: PanelText) =>
  filled(new logs.PanelBuilder(), text, "logs").showTime(true).wrapLogMessage(true)
    .enableLogDetails(true).sortOrder(common.LogsSortOrder.Descending)
    .overrideByName("traceID", [{ id: "noValue", value: "–" }]);

/** A trace as a tree of spans. The SDK has no builder of this panel, only the one of all panels. */
export const trace = (text: PanelText) =>
  filled(new dashboard.PanelBuilder().type("traces").options({}), text, "traces");

/** A heading over the panels that follow. */
export const row = (title: string) => new dashboard.RowBuilder(title);

export type Part = Builder<dashboard.Panel> | dashboard.RowBuilder;
