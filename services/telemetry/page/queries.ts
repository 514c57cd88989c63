// The questions the page asks, as SQL that runs the same on the embedded engine and on a server. Every
// one returns a bounded number of rows however much is stored; tests run each of them.

import type { Question } from "./ask.ts";

// ------------------------------------------------------------------------------------ list of runs

/** Which runs a list shows. Empty texts do not restrict. */
export interface Filter {
  /** Words that must all occur in the name, task, algorithm, …, seed, reason, tags or note. */
  search: string;
  tag: string;
  task: string;
  algorithm: string;
  preset: string;
  observation: string;
  state: string;
}
/** One value each a run; a run may have several tags. */
export const facets = ["task", "algorithm", "preset", "observation", "state"] as const;
export type Facet = typeof facets[number];
export const noFilter: Filter = {
  search: "",
  tag: "",
  task: "",
  algorithm: "",
  preset: "",
  observation: "",
  state: "",
};

export const sorts = {
  started: "started_at DESC",
  updated: "updated_at DESC",
  name: "run_id",
  task: "task, started_at DESC",
  algorithm: "algorithm, started_at DESC",
  preset: "preset, started_at DESC",
  observation: "observation, started_at DESC",
  seed: "seed, started_at DESC",
  state: "state, started_at DESC",
  epochs: "epochs DESC",
  newest: "newest DESC NULLS LAST",
  best: "best DESC NULLS LAST",
} as const;
export type Sort = keyof typeof sorts;

export const pageSize = 100;

// The page asks the tables behind the view `runs`: taking a view apart and together again costs the
// engine more than reading a hundred runs does.

/** One row per run, without its configuration. */
const plainRuns = (where = "") => `
    SELECT run_id, ifNull(toString(argMax(s.task, s.position)), '') AS task,
           ifNull(toString(argMax(s.algorithm, s.position)), '') AS algorithm,
           ifNull(toString(argMax(s.preset, s.position)), '') AS preset,
           ifNull(toString(argMax(s.observation, s.position)), '') AS observation,
           ifNull(toString(argMax(s.seed, s.position)), '') AS seed,
           toString(argMax(s.state, s.position)) AS state,
           argMax(ifNull(s.reason, ''), s.position) AS reason,
           toUInt32(ifNull(argMax(s.epochs, s.position), 0)) AS epochs,
           toUnixTimestamp64Milli(toDateTime64(min(s.time), 3)) / 1000 AS started_at,
           toUnixTimestamp64Milli(toDateTime64(max(s.time), 3)) / 1000 AS updated_at
    FROM run_states AS s ${where} GROUP BY run_id`;

/** The same with what people said of each, which is only joined where it is needed. */
const annotatedRuns = `
    SELECT p.*, a.tags AS tags, a.note AS note FROM (${plainRuns()}) AS p
    LEFT JOIN run_annotations AS a ON a.run_id = p.run_id`;

const newestReturns = `
    SELECT run_id, toNullable(argMax(return_mean, iteration)) AS newest,
           toNullable(argMax(return_ci95, iteration)) AS newest_ci95,
           toNullable(max(return_mean)) AS best,
           toUInt32(max(iteration)) AS evaluated_at, max(wall_time_s) AS wall_time_s
    FROM evaluations`;

/** Where runs come from, and what a filter asks of them. `tagged`: the tags are needed in any case. */
function filtered(
  filter: Filter,
  tagged = false,
): { from: string; where: string; parameters: Record<string, string> } {
  const words = filter.search.split(/\s+/).filter(Boolean).slice(0, 8);
  const text =
    "concat(run_id, ' ', task, ' ', algorithm, ' ', preset, ' ', observation, ' ', seed," +
    " ' ', state, ' ', reason, ' ', arrayStringConcat(tags, ' '), ' ', note)";
  const chosen = facets.filter((name) => filter[name] !== "");
  return {
    from: tagged || words.length > 0 || filter.tag !== "" ? annotatedRuns : plainRuns(),
    where: [
      "1",
      ...words.map((_, i) => `positionCaseInsensitiveUTF8(${text}, {word${i}:String}) > 0`),
      ...chosen.map((name) => `${name} = {${name}:String}`),
      ...(filter.tag === "" ? [] : ["has(tags, {tag:String})"]),
    ].join(" AND "),
    parameters: Object.fromEntries([
      ...words.map((word, i) => [`word${i}`, word]),
      ...chosen.map((name) => [name, filter[name]]),
      ...(filter.tag === "" ? [] : [["tag", filter.tag]]),
    ]),
  };
}

export interface RunRow {
  run_id: string;
  task: string;
  algorithm: string;
  preset: string;
  observation: string;
  seed: string;
  state: string;
  reason: string;
  epochs: number;
  started_at: number;
  updated_at: number;
}

/** Orders that the times and names alone decide: which runs a page has is known before what they are. */
const pickedBy: Partial<Record<Sort, string>> = {
  started: "min(time) DESC",
  updated: "max(time) DESC",
  name: "run_id",
};

/** One page of runs. Returns are joined only where the order needs those of every run. */
export function runsPage(filter: Filter, sort: Sort, page: number): Question {
  const { from, where, parameters } = filtered(filter);
  const pick = where === "1" ? pickedBy[sort] : undefined;
  const limit = `LIMIT ${pageSize} OFFSET ${page * pageSize}`;
  if (pick !== undefined) {
    const names = `SELECT run_id FROM run_states GROUP BY run_id ORDER BY ${pick}, run_id ${limit}`;
    return {
      name: "runsPage",
      sql: `${plainRuns(`WHERE run_id IN (${names})`)} ORDER BY ${sorts[sort]}, run_id`,
    };
  }
  const byReturn = sort === "newest" || sort === "best";
  return {
    name: "runsPage",
    sql: `SELECT r.* FROM (${from}) AS r` +
      (byReturn
        ? ` LEFT JOIN (${newestReturns} GROUP BY run_id) AS e ON e.run_id = r.run_id`
        : "") +
      ` WHERE ${where.replaceAll("run_id", "r.run_id")} ` +
      `ORDER BY ${sorts[sort]}, r.run_id ${limit}`,
    parameters,
  };
}

export interface AnnotationRow {
  run_id: string;
  tags: string[];
  note: string;
}

/** What people said of these runs; no row where they said nothing. */
export function annotationsOf(runs: readonly string[]): Question {
  return {
    name: "annotationsOf",
    sql: "SELECT run_id, tags, note FROM run_annotations WHERE run_id IN ({runs:Array(String)})",
    parameters: { runs },
  };
}

export interface ReturnRow {
  run_id: string;
  newest: number | null;
  newest_ci95: number | null;
  best: number | null;
  evaluated_at: number;
  wall_time_s: number;
}

/** Newest and best evaluation of these runs. */
export function returnsOf(runs: readonly string[]): Question {
  return {
    name: "returnsOf",
    sql: `${newestReturns} WHERE run_id IN ({runs:Array(String)}) GROUP BY run_id`,
    parameters: { runs },
  };
}

export interface FacetRow extends Record<Facet, string> {
  runs: number;
}

/** How many runs there are of each kind: what the filters offer. */
export function facetCounts({ search, tag }: Filter): Question {
  const { from, where, parameters } = filtered({ ...noFilter, search, tag });
  return {
    name: "facetCounts",
    sql: `SELECT ${facets.join(", ")}, toUInt32(count()) AS runs FROM (${from}) ` +
      `WHERE ${where} GROUP BY ${facets.join(", ")} ORDER BY runs DESC LIMIT 2000`,
    parameters,
  };
}

export interface TagRow {
  tag: string;
  runs: number;
}

/** How many runs have each tag, among those that the rest of the filter leaves. */
export function tagCounts(filter: Filter): Question {
  const { from, where, parameters } = filtered({ ...filter, tag: "" }, true);
  return {
    name: "tagCounts",
    sql: `SELECT arrayJoin(tags) AS tag, toUInt32(count()) AS runs FROM (${from}) ` +
      `WHERE ${where} GROUP BY tag ORDER BY tag LIMIT 1000`,
    parameters,
  };
}

export const groupings = ["experiment", ...facets, "tag"] as const;
export type Grouping = typeof groupings[number];

/** The hash that ends an experiment's name (see the view): it tells configurations apart. */
const configurationName =
  "lower(hex(toUInt32(sipHash64(ifNull(argMax(s.observation, s.position), ''), " +
  "ifNull(argMax(s.configuration, s.position), '')))))";

export interface GroupRow extends Partial<Record<Facet, string>> {
  configuration?: string;
  tag?: string;
  runs: number;
  /** The newest 100 of them. */
  names: string[];
  active: number;
  updated_at: number;
  newest_mean: number | null;
  best: number | null;
}

/** Runs by what they share; an experiment (see the view) is what differs in nothing but the seed. */
export function groupedRuns(filter: Filter, grouping: Grouping): Question {
  const { from, where, parameters } = filtered(filter, grouping === "tag");
  const keys = grouping === "experiment"
    ? ["task", "algorithm", "preset", "observation", "configuration"]
    : [grouping];
  const tags = grouping === "tag" ? "arrayJoin(if(empty(r.tags), [''], r.tags)) AS tag, " : "";
  const experiments = grouping === "experiment"
    ? `LEFT JOIN (SELECT run_id, ${configurationName} AS configuration FROM run_states AS s ` +
      "GROUP BY run_id) AS x ON x.run_id = r.run_id"
    : "";
  return {
    name: "groupedRuns",
    sql: `SELECT ${tags || `${keys.join(", ")}, `}toUInt32(count()) AS runs,
       arraySlice(arrayReverseSort(groupArray((started_at, r.run_id))).2, 1, 100) AS names,
       toUInt32(countIf(state IN ('started', 'running'))) AS active,
       max(r.updated_at) AS updated_at, avg(newest) AS newest_mean, max(e.best) AS best
FROM (${from}) AS r
LEFT JOIN (${newestReturns} GROUP BY run_id) AS e ON e.run_id = r.run_id
${experiments}
WHERE ${where.replaceAll("run_id", "r.run_id")}
GROUP BY ${keys.join(", ")} ORDER BY updated_at DESC LIMIT 500`,
    parameters,
  };
}

// ------------------------------------------------------------------------------------------ curves

export const axes = {
  wall_time_s: { label: "wall clock", unit: "min", divisor: 60 },
  env_steps_total: { label: "environment steps with auxiliaries", unit: "million", divisor: 1e6 },
  env_steps_nominal: { label: "nominal environment steps", unit: "million", divisor: 1e6 },
  images_rendered: { label: "images rendered", unit: "million", divisor: 1e6 },
  gpu_seconds: { label: "GPU time", unit: "min", divisor: 60 },
  iteration: { label: "epochs", unit: "", divisor: 1 },
} as const;
export type Axis = keyof typeof axes;

/** What a chart shows of several runs: about so many points in all. */
export const pointsPerChart = 1000;
/** Runs one chart draws at most. */
export const runsPerChart = 100;

export interface PointRow {
  run_id: string;
  x: number;
  y: number;
  low: number;
  high: number;
}

/** The name under which the evaluated return is asked for, next to the names of scalars. */
export const evaluatedReturn = "evaluation";

/**
 * Curves of runs on an axis, thinned where they are stored: the axis is cut into equal pieces and each
 * piece that has values is one point, their mean. So neither the number of scalars nor how they are
 * spread over the axis changes what is returned: at most 1000 points, or ten for each of many runs.
 * low and high bound the values of a piece.
 */
export function curves(runs: readonly string[], metric: string, axis: Axis): Question {
  const some = runs.slice(0, runsPerChart);
  const pieces = Math.max(10, Math.floor(pointsPerChart / Math.max(1, some.length)));
  const source = metric === evaluatedReturn
    ? `SELECT run_id, toFloat64(${axis}) AS x, return_mean AS y FROM evaluations ` +
      "WHERE run_id IN ({runs:Array(String)})"
    : `SELECT run_id, toFloat64(${axis}) AS x, value AS y FROM scalars ` +
      "WHERE run_id IN ({runs:Array(String)}) AND name = {name:String} AND isFinite(value)";
  return {
    name: "curves",
    sql: `WITH (SELECT max(x) FROM (${source})) AS top
SELECT toString(run_id) AS run_id, avg(p.x) AS x, avg(p.y) AS y, min(p.y) AS low, max(p.y) AS high
FROM (${source}) AS p
GROUP BY run_id, least(floor(p.x * ${pieces} / if(top > 0, top, 1)), ${pieces - 1}) AS piece
ORDER BY run_id, x`,
    parameters: { runs: some, ...(metric === evaluatedReturn ? {} : { name: metric }) },
  };
}

export interface FactsRow extends RunRow {
  /** Tells configurations apart; runs of the same differ in nothing but the seed. */
  configuration: string;
}

/** What is known of the runs that are compared. */
export function factsOf(runs: readonly string[]): Question {
  const these = plainRuns("WHERE run_id IN ({runs:Array(String)})");
  return {
    name: "factsOf",
    sql: these.replace("SELECT run_id,", `SELECT run_id, ${configurationName} AS configuration,`),
    parameters: { runs: runs.slice(0, runsPerChart) },
  };
}

/** Names of the newest runs: what a comparison begins with when none was chosen. */
export function newestRuns(count: number): Question {
  return {
    name: "newestRuns",
    sql: "SELECT run_id FROM evaluations GROUP BY run_id ORDER BY max(time) DESC, run_id " +
      `LIMIT ${Math.floor(count)}`,
  };
}

/** Names of the scalars that these runs have. */
export function scalarNames(runs: readonly string[]): Question {
  return {
    name: "scalarNames",
    sql: "SELECT DISTINCT toString(name) AS name FROM scalars " +
      "WHERE run_id IN ({runs:Array(String)}) ORDER BY name LIMIT 5000",
    parameters: { runs: runs.slice(0, 5) },
  };
}

// ----------------------------------------------------------------------------------------- one run

export interface SummaryRow extends RunRow {
  configuration: string;
  hardware: string;
  code_version: string;
  state_hash: string;
  checkpoint: string;
}

export function runSummary(run: string): Question {
  const more = ["configuration", "hardware", "code_version", "state_hash", "checkpoint"]
    .map((name) => `ifNull(argMax(s.${name}, s.position), '') AS ${name}`);
  return {
    name: "runSummary",
    sql: plainRuns("WHERE run_id = {run:String}")
      .replace("SELECT run_id,", `SELECT run_id, ${more.join(", ")},`),
    parameters: { run },
  };
}

export interface ProgressRow {
  iteration: number;
  wall_time_s: number;
  env_steps_total: number;
  env_steps_nominal: number;
  images_rendered: number;
  gpu_seconds: number;
}

/** The newest point of a run on every axis. */
export function progressOf(run: string): Question {
  return {
    name: "progressOf",
    sql: `SELECT toUInt32(max(iteration)) AS iteration, max(wall_time_s) AS wall_time_s,
       toFloat64(max(env_steps_total)) AS env_steps_total,
       toFloat64(max(env_steps_nominal)) AS env_steps_nominal,
       toFloat64(max(images_rendered)) AS images_rendered, max(gpu_seconds) AS gpu_seconds
FROM scalars WHERE run_id = {run:String} AND name = 'rewards' HAVING count() > 0`,
    parameters: { run },
  };
}

export interface NamedPointRow {
  name: string;
  x: number;
  y: number;
}

/**
 * Scalars of one run whose names begin alike, on an axis that is cut into a hundred pieces: their mean
 * in each piece, or their sum (for shares of what does not occur in every epoch).
 */
export function family(run: string, prefix: string, axis: Axis, of: "avg" | "sum"): Question {
  const source = `SELECT name, toFloat64(${axis}) AS x, value AS y FROM scalars ` +
    "WHERE run_id = {run:String} AND startsWith(name, {prefix:String}) AND isFinite(value)";
  return {
    name: "family",
    sql: `WITH (SELECT max(x) FROM (${source})) AS top
SELECT toString(name) AS name, (piece + 0.5) * top / 100 AS x, ${of}(p.y) AS y FROM (${source}) AS p
GROUP BY name, least(floor(p.x * 100 / if(top > 0, top, 1)), 99) AS piece
ORDER BY x, name LIMIT 10000`,
    parameters: { run, prefix },
  };
}

export interface EvaluationRow {
  x: number;
  mean: number;
  ci95: number | null;
  low: number;
  high: number;
}

/** Evaluations of one run, at most 300 points: the interval is that of the episodes of an evaluation. */
export function evaluationsOf(run: string, axis: Axis): Question {
  const source =
    `SELECT toFloat64(${axis}) AS x, return_mean, return_ci95, return_min, return_max ` +
    "FROM evaluations WHERE run_id = {run:String}";
  return {
    name: "evaluationsOf",
    sql: `WITH (SELECT max(x) FROM (${source})) AS top
SELECT avg(p.x) AS x, avg(return_mean) AS mean, avg(return_ci95) AS ci95, min(return_min) AS low,
       max(return_max) AS high
FROM (${source}) AS p
GROUP BY least(floor(p.x * 300 / if(top > 0, top, 1)), 299) AS piece ORDER BY x`,
    parameters: { run },
  };
}

export interface MemoryRow {
  service: string;
  x: number; // seconds since the first sample
  y: number; // bytes
}

/** Proportional set size of each service, the greatest of each of 250 pieces of time. */
export function memoryOf(run: string): Question {
  return {
    name: "memoryOf",
    sql: `WITH (SELECT (min(time), greatest(1, dateDiff('millisecond', min(time), max(time))))
              FROM resources WHERE run_id = {run:String}) AS span
SELECT service, piece * span.2 / 250000 AS x, max(bytes) AS y
FROM (SELECT toString(service) AS service, time, pid, proportional_bytes AS bytes
      FROM resources WHERE run_id = {run:String})
GROUP BY service, least(intDiv(dateDiff('millisecond', span.1, time) * 250, span.2), 249) AS piece
ORDER BY x, service`,
    parameters: { run },
  };
}

export interface FaultRow {
  service: string;
  kind: string;
  count: number;
  first: number;
  last: number;
  message: string;
}

export function faultsOf(run: string): Question {
  return {
    name: "faultsOf",
    sql:
      `SELECT toString(service) AS service, toString(kind) AS kind, toFloat64(sum(count)) AS count,
       toUInt32(min(iteration)) AS first, toUInt32(max(iteration)) AS last,
       argMax(message, time) AS message
FROM faults WHERE run_id = {run:String} GROUP BY service, kind ORDER BY count DESC LIMIT 200`,
    parameters: { run },
  };
}

/** Configurations of runs, as JSON. */
export function configurationsOf(runs: readonly string[]): Question {
  return {
    name: "configurationsOf",
    sql: "SELECT run_id, ifNull(configuration, '') AS configuration, ifNull(code_version, '') AS " +
      "code_version, ifNull(hardware, '') AS hardware, ifNull(toString(task), '') AS task, " +
      "ifNull(toString(algorithm), '') AS algorithm, ifNull(toString(preset), '') AS preset, " +
      "ifNull(toString(observation), '') AS observation, ifNull(toString(seed), '') AS seed " +
      "FROM runs WHERE run_id IN ({runs:Array(String)})",
    parameters: { runs },
  };
}

export interface SpanRow {
  id: string;
  parent: string;
  name: string;
  service: string;
  start_ms: number; // since the first span of the trace
  duration_ms: number;
  status: string;
}

/** Spans of the trace of one epoch; no epoch means the newest. Repeated epochs have the same ids. */
export function traceOf(run: string, iteration: number | undefined): Question {
  const epoch = iteration === undefined
    ? "(SELECT max(iteration) FROM scalars WHERE run_id = {run:String} AND name = 'rewards')"
    : "{iteration:UInt64}";
  return {
    name: "traceOf",
    sql: `SELECT SpanId AS id, ParentSpanId AS parent,
       if(SpanAttributes['rl.phase'] = '', toString(SpanName), SpanAttributes['rl.phase']) AS name,
       toString(ServiceName) AS service, Duration / 1e6 AS duration_ms, toString(StatusCode) AS status,
       (toUnixTimestamp64Nano(Timestamp) - min(toUnixTimestamp64Nano(Timestamp)) OVER ()) / 1e6 AS start_ms
FROM otel_traces
WHERE TraceId = lower(hex(substring(SHA256(concat({run:String}, ' ', toString(${epoch}))), 1, 16)))
ORDER BY start_ms, duration_ms DESC LIMIT 1 BY SpanId LIMIT 1000`,
    parameters: iteration === undefined ? { run } : { run, iteration },
  };
}
