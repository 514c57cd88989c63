// What can be chosen at the top of a dashboard. Each list is asked of the store and narrows the ones after it:
// task, algorithm, preset, seed, run.

import * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import {
  axes,
  chosenDataSource,
  type ClickHouseQuery,
  isChosen,
  pluginId,
  runs,
  SqlQuery,
} from "./clickhouse.ts";

const { VariableRefresh, VariableHide } = dashboard;

/** Where the data comes from: every ClickHouse data source that Grafana has. */
export const datasource = () =>
  new dashboard.DatasourceVariableBuilder("datasource").label("Data source").type(pluginId)
    .description("The telemetry service, or a ClickHouse server with its tables");

interface Asked {
  name: string;
  label: string;
  description: string;
  sql: string;
  /** Any number of values, and all of them unless some are chosen. */
  many?: boolean;
  hidden?: boolean;
  /** The value before anybody chose one. */
  first?: string;
}

/** A variable whose values are asked of the store. */
function asked({ name, label, description, sql, many = true, hidden, first }: Asked) {
  const query = new SqlQuery(sql, "table").build() as ClickHouseQuery;
  const { refId: _refId, datasource: _datasource, ...stored } = query;
  const variable = new dashboard.QueryVariableBuilder(name).label(label).description(description)
    .datasource(chosenDataSource).query(stored).definition(query.rawSql)
    .refresh(VariableRefresh.OnTimeRangeChanged).multi(many).includeAll(many)
    .hide(hidden ? VariableHide.HideVariable : VariableHide.DontHide);
  if (many) variable.current({ text: ["All"], value: ["$__all"] });
  else if (first !== undefined) variable.current({ text: first, value: first });
  return variable;
}

const ofRuns = (column: string, ...narrowedBy: string[]) =>
  ["algorithm != 'bench'", ...narrowedBy.map((name) => isChosen(`toString(${name})`, name))]
    .reduce((sql, condition) => `${sql}\n  AND ${condition}`, `FROM runs\nWHERE ${column} != ''`);

const task = () =>
  asked({
    name: "task",
    label: "Task",
    description: "What is learned",
    sql: `SELECT DISTINCT toString(task) AS name\n${ofRuns("task")}\nORDER BY name`,
  });
const algorithm = () =>
  asked({
    name: "algorithm",
    label: "Algorithm",
    description: "What learns",
    sql: `SELECT DISTINCT toString(algorithm) AS name\n${
      ofRuns("algorithm", "task")
    }\nORDER BY name`,
  });
const preset = () =>
  asked({
    name: "preset",
    label: "Preset",
    description: "Which set of defaults",
    sql: `SELECT DISTINCT toString(preset) AS name\n${
      ofRuns("preset", "task", "algorithm")
    }\nORDER BY name`,
  });
const seed = () =>
  asked({
    name: "seed",
    label: "Seed",
    description: "Runs that differ only in the seed are one experiment",
    sql: `SELECT DISTINCT toString(seed) AS name\n${
      ofRuns("toString(seed)", "task", "algorithm", "preset")
    }\nORDER BY toUInt64(name)`,
  });

const newestRuns = `SELECT run_id\n${
  ofRuns("run_id", "task", "algorithm", "preset", "seed")
}\nORDER BY started_at DESC\nLIMIT 1000`;

/** Runs by what they are; the thousand that began last. */
export const manyRuns = () => [
  task(),
  algorithm(),
  preset(),
  seed(),
  asked({
    name: "run",
    label: "Run",
    description: "The runs compared: the newest 1000 of what is chosen before",
    sql: newestRuns,
  }),
];

/** One run by what it is; the newest unless one is chosen. */
export const oneRun = () => [
  task(),
  algorithm(),
  preset(),
  seed(),
  asked({
    name: "run",
    label: "Run",
    description: "The run shown: the newest of what is chosen before, unless one is named",
    sql: newestRuns,
    many: false,
  }),
];

/** The axis of curves. */
export const axis = (first: keyof typeof axes = "Training time (s)") =>
  new dashboard.CustomVariableBuilder("axis").label("Axis")
    .description("What a curve is drawn over; no single axis is fair to every algorithm")
    .values(Object.entries(axes).map(([text, column]) => `${text} : ${column}`).join(", "))
    .options(
      Object.entries(axes).map(([text, value]) => ({ text, value, selected: text === first })),
    )
    .current({ text: first, value: axes[first] });

/** The curve compared: the evaluated return, or a scalar by name. */
export const curve = (first = "evaluation") =>
  asked({
    name: "curve",
    label: "Curve",
    description: "The evaluated return, or any scalar that a run records",
    sql: `
      SELECT DISTINCT toString(name) AS name
      FROM curves
      WHERE run_id IN (${runs})
      ORDER BY name != 'evaluation', name`,
    many: false,
    first,
  });

/** The experiments of the chosen runs: what panels are repeated by. */
export const experiment = () =>
  asked({
    name: "experiment",
    label: "Experiment",
    description:
      "Runs that differ in nothing but the seed; each of the newest twelve has its own panels",
    sql: `
      SELECT experiment
      FROM experiments AS e
      INNER JOIN runs AS r ON r.run_id = e.run_id
      WHERE e.run_id IN (${runs})
      GROUP BY experiment
      ORDER BY max(r.started_at) DESC
      LIMIT 12`,
  });

export const threshold = () =>
  new dashboard.TextBoxVariableBuilder("threshold").label("Return to reach")
    .description("A number: the table says when an evaluation was first at least that")
    .defaultValue("3000").current({ text: "3000", value: "3000" });

export const epoch = () =>
  new dashboard.TextBoxVariableBuilder("epoch").label("Epoch of the trace")
    .description("A number, or newest; a click on an epoch in the table below sets it")
    .defaultValue("newest").current({ text: "newest", value: "newest" });

/** Services that sent metrics in the time shown. */
export const service = () =>
  asked({
    name: "service",
    label: "Service",
    description: "Services that sent metrics in the time shown",
    sql: `
      SELECT DISTINCT toString(ServiceName) AS name
      FROM otel_metrics_gauge
      WHERE $__timeFilter(TimeUnix)
      ORDER BY name`,
  });

/** Graphics processors that sent metrics in the time shown. */
export const gpu = () =>
  asked({
    name: "gpu",
    label: "GPU",
    description: "Graphics processors measured in the time shown",
    sql: `
      SELECT DISTINCT Attributes['hw.id'] AS id, concat(Attributes['hw.name'], ' ', right(id, 6)) AS name
      FROM otel_metrics_gauge
      WHERE $__timeFilter(TimeUnix) AND startsWith(MetricName, 'hw.gpu.')
      ORDER BY name`,
  });

/** Who counts a call. */
export const side = () =>
  new dashboard.CustomVariableBuilder("side").label("Calls counted by")
    .description("The caller sees every call, also of gpu-sim and of a service that is away")
    .values("the caller : client, the one called : server")
    .options([
      { text: "the caller", value: "client", selected: true },
      { text: "the one called", value: "server", selected: false },
    ])
    .current({ text: "the caller", value: "client" });
