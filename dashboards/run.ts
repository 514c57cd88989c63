// "One run": everything that is known of a run, down to the spans of one of its epochs. Its curves are over
// the chosen axis, and its logs and traces are looked for in the run's own time, whatever time is shown.

import { chosen, chosenAxis, chosenStep, withAxis } from "./clickhouse.ts";
import { makeDashboard } from "./dashboard.ts";
import { logLines, number, overAxis, row, rows, trace } from "./panels.ts";
import * as variables from "./variables.ts";

const run = chosen("run");
const ofRun = `scalars AS s WHERE s.run_id = ${run}`;
const noRun = "No run of this name";

const fact = (
  title: string,
  description: string,
  sql: string,
  more: Partial<Parameters<typeof number>[0]> = {},
) => number({ title, description, sql, empty: "–", width: 3, ...more });

const facts = [
  fact(
    "State",
    "started, running, done, stopped, failed or interrupted; a run that says running while nothing moves " +
      "below has lost its processes",
    `SELECT toString(state) AS state FROM runs WHERE run_id = ${run}`,
    { text: true },
  ),
  fact("Epochs", "Epochs trained", `SELECT epochs FROM run_progress WHERE run_id = ${run}`, {
    unit: "locale",
  }),
  fact(
    "Training return",
    "Mean of the newest 100 finished episodes of nominal environments",
    `SELECT return FROM run_progress WHERE run_id = ${run}`,
    { unit: "locale", decimals: 0 },
  ),
  fact(
    "Best evaluation",
    "The highest mean return of an evaluation, 16 episodes unless configured otherwise",
    `SELECT best FROM evaluation_summary(last = 1) WHERE run_id = ${run}`,
    { unit: "locale", decimals: 0 },
  ),
  fact(
    "Training time",
    "Wall-clock of training, without the services' start, over all resumptions",
    `SELECT wall_time_s FROM run_progress WHERE run_id = ${run}`,
    { unit: "s" },
  ),
  fact(
    "Steps/s (total)",
    "Environment steps, auxiliary environments included, per second of training time",
    `SELECT env_steps_total_per_s FROM throughput WHERE run_id = ${run}`,
    { unit: "short" },
  ),
  fact(
    "Peak memory",
    "Most proportional set size of all services together in any second",
    `SELECT peak_bytes FROM peak_memory WHERE run_id = ${run} AND service = 'all'`,
    { unit: "decbytes" },
  ),
  fact(
    "Faults",
    "Contained faults of all kinds; the table below has them by kind",
    `SELECT sum(count) AS faults FROM faults WHERE run_id = ${run}`,
    { unit: "locale", warn: 1, alarm: 1000 },
  ),
];

const returns = overAxis({
  title: "${run}: return",
  description:
    "Evaluations (the deterministic policy from its own starts: mean, and the lowest and highest of the " +
    "episodes) and the training return, the mean of the last 100 episodes of nominal environments.",
  empty: noRun,
  width: 16,
  height: 11,
  sql: `
      ${withAxis}
      SELECT x, series, value
      FROM (
          SELECT ${chosenAxis("e")} AS x, part.1 AS series, part.2 AS value
          FROM evaluations AS e
          ARRAY JOIN [('evaluation', e.return_mean), ('lowest episode', e.return_min),
                      ('highest episode', e.return_max)] AS part
          WHERE e.run_id = ${run}
          UNION ALL
          SELECT avg(p.at) AS x, 'training' AS series, avg(p.reached) AS value
          FROM (
              SELECT ${chosenAxis("s")} AS at, s.value AS reached FROM scalars AS s
              WHERE s.run_id = ${run} AND s.name = 'rewards' AND isFinite(s.value)
          ) AS p
          GROUP BY floor(p.at / ${chosenStep(400, ofRun)})
      )
      WHERE isFinite(x) AND isFinite(value)
      ORDER BY x, series`,
})
  .overrideByRegexp("episode$", [
    { id: "custom.lineWidth", value: 1 },
    { id: "custom.lineStyle", value: { fill: "dash", dash: [4, 4] } },
  ]);

/** Means of scalars in a four-hundredth of the axis, each under a part of its name. */
const scalars = (series: string, condition: string) => `
      ${withAxis}
      SELECT avg(at) AS x, series, avg(number) AS value
      FROM (
          SELECT ${chosenAxis("s")} AS at, ${series} AS series, s.value AS number
          FROM scalars AS s
          WHERE s.run_id = ${run} AND ${condition} AND isFinite(s.value)
      )
      WHERE isFinite(at)
      GROUP BY series, floor(at / ${chosenStep(400, ofRun)})
      ORDER BY x, series`;

const anyScalar = overAxis({
  title: "${run}: ${curve}",
  description:
    "The scalar chosen above (evaluation stands in the panel beside it), the mean of its values in a " +
    "four-hundredth of the axis.",
  empty: "This run has no scalar of that name: choose another curve above",
  width: 8,
  height: 11,
  sql: scalars("toString(s.name)", `s.name = ${chosen("curve")}`),
});

const rewardTerms = overAxis({
  title: "Reward by term",
  description:
    "What a nominal environment earned by each term in a segment, mean over nominals; the terms add up to " +
    "rollout_reward.",
  empty: "This run recorded no reward terms",
  width: 12,
  sql: scalars(
    "substring(toString(s.name), length('reward_term/') + 1)",
    "startsWith(s.name, 'reward_term/')",
  ),
});

const phases = overAxis({
  title: "Seconds of an epoch by phase",
  description:
    "Where an epoch's time goes, as it changes: phases that add up. A part that grows alone says where to " +
    "look.",
  empty: "This run recorded no phases",
  width: 12,
  unit: "s",
  stacked: true,
  sql: scalars(
    "substring(toString(s.name), length('phase/') + 1)",
    "startsWith(s.name, 'phase/') AND countSubstrings(s.name, '/') = 1",
  ),
});

const shares = rows({
  title: "Phase shares",
  description:
    "The run's whole training time by phase. rollout/simulation is a part of rollout; those of depth 1 and " +
    "(other) add up to everything.",
  empty: "This run recorded no phases",
  width: 12,
  columns: {
    phase: { title: "Phase" },
    depth: { title: "Depth" },
    seconds_per_epoch: { title: "Seconds an epoch", unit: "s" },
    share: { title: "Share", unit: "percentunit", decimals: 1 },
  },
  sql: `
      SELECT phase, depth, seconds / epochs AS seconds_per_epoch, share
      FROM phase_shares
      WHERE run_id = ${run}
      ORDER BY seconds DESC`,
});

const throughput = overAxis({
  title: "Throughput",
  description:
    "Environment steps (total) and images per second of training time, between the points of a hundredth of " +
    "the axis. A fall while another program runs is the machine's; one that stays is worth a look at the " +
    "phases.",
  empty: noRun,
  width: 12,
  sql: `
      ${withAxis}
      SELECT x, part.1 AS series, part.2 AS value
      FROM (
          SELECT x, arrayJoin([
                     ('steps/s (total)', (steps - lagInFrame(steps, 1, 0) OVER w) / seconds),
                     ('images/s', (images - lagInFrame(images, 1, 0) OVER w) / seconds)]) AS part
          FROM (
              SELECT x, steps, images, wall - lagInFrame(wall, 1, 0) OVER (ORDER BY x) AS seconds
              FROM (
                  SELECT max(at) AS x, max(env_steps_total) AS steps, max(images_rendered) AS images,
                         max(wall_time_s) AS wall
                  FROM (
                      SELECT ${chosenAxis("s")} AS at, s.env_steps_total AS env_steps_total,
                             s.images_rendered AS images_rendered, s.wall_time_s AS wall_time_s
                      FROM scalars AS s
                      WHERE s.run_id = ${run}
                  )
                  WHERE isFinite(at)
                  GROUP BY floor(at / ${chosenStep(100, ofRun)})
              )
          )
          WHERE seconds > 0
          WINDOW w AS (ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
      )
      ORDER BY x, series`,
});

const memory = overAxis({
  title: "Memory by service",
  description:
    "Proportional set size of each service over the seconds since the run began, stacked: the upper edge is " +
    "what the machine gives.",
  empty: "No samples of this run's processes",
  width: 12,
  unit: "decbytes",
  stacked: true,
  xTitle: "Seconds since the run began",
  sql: `
      WITH (SELECT min(second) FROM memory WHERE run_id = ${run}) AS began,
           (SELECT greatest(dateDiff('second', min(second), max(second)) / 300, 1)
            FROM memory WHERE run_id = ${run}) AS step
      SELECT floor(dateDiff('second', began, second) / step) * step AS x, toString(service) AS series,
             max(bytes) AS value
      FROM memory
      WHERE run_id = ${run} AND service != 'all'
      GROUP BY x, series
      ORDER BY x, series`,
});

const faults = rows({
  title: "Faults by kind",
  description:
    "What went wrong and was contained. non_finite, overflow and not_converged are simulation states that " +
    "were reset; telemetry_dropped rows are missing from this store.",
  empty: "No faults",
  width: 12,
  columns: {
    kind: { title: "Kind" },
    service: { title: "Service" },
    times: { title: "Times" },
    first_epoch: { title: "First epoch" },
    last_epoch: { title: "Last epoch" },
    newest: { title: "Newest" },
    message: { title: "Newest message" },
  },
  sql: `
      SELECT toString(kind) AS kind, toString(service) AS service, sum(count) AS times,
             min(iteration) AS first_epoch, max(iteration) AS last_epoch, max(time) AS newest,
             argMax(message, time) AS message
      FROM faults
      WHERE run_id = ${run}
      GROUP BY kind, service
      ORDER BY times DESC`,
});

/** The run's own time, with a minute on both sides: logs and traces are stored by day. */
const inItsTime = (column: string) =>
  `${column} >= (SELECT min(started_at) FROM runs WHERE run_id = ${run}) - INTERVAL 1 MINUTE
        AND ${column} <= (SELECT max(updated_at) FROM runs WHERE run_id = ${run}) + INTERVAL 30 DAY`;

const logOfRun = logLines({
  title: "Log",
  description:
    "The newest thousand lines that the services of this run logged (info and above unless SDPG_LOG=debug). " +
    "Kept for 30 days.",
  empty: "No lines: they are kept for 30 days, and only ./sdpg train and resume send them",
  width: 24,
  height: 10,
  sql: `
      SELECT Timestamp AS timestamp, Body AS body, lower(SeverityText) AS level,
             mapUpdate(LogAttributes, map('service', toString(ServiceName))) AS labels, TraceId AS traceID
      FROM otel_logs
      WHERE LogAttributes['rl.run.id'] = ${run}
        AND ${inItsTime("Timestamp")}
      ORDER BY timestamp DESC
      LIMIT 1000`,
});

const rootSpan = `ServiceName = 'learner' AND SpanName = 'rl.iteration'
        AND SpanAttributes['rl.run.id'] = ${run}
        AND ${inItsTime("Timestamp")}`;

const slowest = rows({
  title: "Slowest epochs",
  description:
    "The hundred longest epochs that still have a trace (30 days). A click on the epoch shows its trace " +
    "below.",
  empty: "No traces of this run: they are kept for 30 days",
  width: 8,
  height: 12,
  columns: {
    epoch: {
      title: "Epoch",
      link: {
        title: "Show its trace",
        url: "/d/sdpg-run?var-epoch=${__value.raw:percentencode}&var-run=${run:percentencode}" +
          "&var-axis=${axis:percentencode}&var-datasource=${datasource:percentencode}&${__url_time_range}",
      },
    },
    began: { title: "Began" },
    seconds: { title: "Length", unit: "s" },
  },
  sql: `
      SELECT SpanAttributes['rl.iteration'] AS epoch, Timestamp AS began, Duration / 1e9 AS seconds
      FROM otel_traces
      WHERE ${rootSpan}
      ORDER BY Duration DESC
      LIMIT 100`,
});

/** The trace of an epoch is named by run and epoch (docs/telemetry.md). */
const traceId = `if(${chosen("epoch")} = 'newest',
            (SELECT argMax(TraceId, Timestamp) FROM otel_traces WHERE ${rootSpan}),
            lower(hex(substring(SHA256(concat(${run}, ' ', ${chosen("epoch")})), 1, 16))))`;

const spans = rows({
  title: "Spans of epoch ${epoch}",
  description:
    "The phases of the epoch chosen above or in the table beside: a phase that comes at every step is one " +
    "span, times says how often it came and length is their sum.",
  empty: "No trace of this epoch: it is kept for 30 days",
  width: 16,
  height: 12,
  columns: {
    phase: { title: "Phase" },
    service: { title: "Service" },
    after: { title: "Began after", unit: "ms" },
    length: { title: "Length", unit: "ms" },
    share: { title: "Share of the epoch", unit: "percentunit", decimals: 1 },
    times: { title: "Times" },
  },
  sql: `
      SELECT phase, service, (began - min(began) OVER ()) / 1e6 AS after, nanoseconds / 1e6 AS length,
             nanoseconds / max(if(phase = '(epoch)', nanoseconds, 0)) OVER () AS share, times
      FROM (
          SELECT SpanId, any(if(SpanName = 'rl.iteration', '(epoch)', SpanAttributes['rl.phase'])) AS phase,
                 any(toString(ServiceName)) AS service, any(toUnixTimestamp64Nano(Timestamp)) AS began,
                 any(Duration) AS nanoseconds, any(SpanAttributes['rl.phase.count']) AS times
          FROM otel_traces
          WHERE TraceId = ${traceId}
          GROUP BY SpanId
      )
      ORDER BY began, length DESC`,
});

const traceOfEpoch = trace({
  title: "Trace of epoch ${epoch}",
  description:
    "The same spans as a tree over time, across all services that had a part in the epoch; the evaluation of " +
    "its checkpoint ends long after it.",
  empty: "No trace of this epoch: it is kept for 30 days",
  width: 24,
  height: 14,
  sql: `
      SELECT TraceId AS traceID, SpanId AS spanID, any(ParentSpanId) AS parentSpanID,
             any(toString(ServiceName)) AS serviceName, any(toString(SpanName)) AS operationName,
             any(toUnixTimestamp64Nano(Timestamp)) / 1e6 AS startTime, any(Duration) / 1e6 AS duration,
             arrayMap(key -> map('key', key, 'value', any(SpanAttributes)[key]),
                      mapKeys(any(SpanAttributes))) AS tags,
             arrayMap(key -> map('key', key, 'value', any(ResourceAttributes)[key]),
                      mapKeys(any(ResourceAttributes))) AS serviceTags
      FROM otel_traces
      WHERE TraceId = ${traceId}
      GROUP BY traceID, spanID
      ORDER BY startTime, duration DESC
      LIMIT 1000`,
});

export const oneRun = makeDashboard({
  uid: "sdpg-run",
  title: "SDPG: one run",
  description:
    "A run in depth: curve, reward terms, phases, throughput, memory, faults, log, traces",
  variables: [
    ...variables.oneRun(),
    variables.curve("critic_loss"),
    variables.axis(),
    variables.epoch(),
  ],
  parts: [
    ...facts,
    row("Learning"),
    returns,
    anyScalar,
    rewardTerms,
    throughput,
    row("Where the time and the memory go"),
    phases,
    shares,
    memory,
    faults,
    row("Log"),
    logOfRun,
    row("Traces"),
    slowest,
    spans,
    traceOfEpoch,
  ],
});
