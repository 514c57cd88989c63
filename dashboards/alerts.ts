// Alert rules. Each asks for a number by run or service and fires where it is above a limit. The windows are
// written in SQL (now() - INTERVAL …) and templates say {{ .Labels.run }}: Grafana takes a dollar sign in a
// provisioning file for an environment variable.

import * as alerting from "@grafana/grafana-foundation-sdk/alerting";
import * as expr from "@grafana/grafana-foundation-sdk/expr";
import { dashboards } from "./all.ts";
import { dataSourceUid, pluginId, SqlQuery } from "./clickhouse.ts";

export interface Alert {
  uid: string;
  title: string;
  /** Columns of text, which become labels, and one number. */
  sql: string;
  /** Fires above it. */
  above: number;
  /** How long it has to stay above. */
  for: string;
  severity: "warning" | "critical";
  summary: string;
  description: string;
  /** What a person does first. */
  action: string;
  /** The panel that shows it: a dashboard's file and the panel's title. */
  panel: readonly [dashboard: string, title: string];
}

const ownDataSource = { type: pluginId, uid: dataSourceUid };
const running = "state IN ('started', 'running')";

export const alerts: Alert[] = [
  {
    uid: "sdpg-non-finite",
    panel: ["run", "${run}: ${curve}"],
    title: "Numbers that are not finite",
    above: 0,
    for: "0s",
    severity: "critical",
    summary: "{{ .Labels.run }}: {{ .Labels.what }} is not a finite number",
    description:
      "A scalar of one of the newest epochs (10 minutes) of {{ .Labels.run }} is NaN or infinite: a " +
      "loss, a gradient or a return has left the numbers, and what is trained from here on is worth nothing.",
    action:
      "Stop the run, look at the scalars before the first such epoch on the dashboard of the run, and resume " +
      "from an older checkpoint with a smaller actor.lr or critic.lr.",
    sql: `
      SELECT toString(run_id) AS run, toString(name) AS what, toFloat64(countIf(NOT isFinite(value))) AS times
      FROM scalars
      WHERE time > now() - INTERVAL 10 MINUTE
      GROUP BY run, what
      HAVING times > 0
      ORDER BY run, what
      LIMIT 100`,
  },
  {
    uid: "sdpg-fault-rate",
    panel: ["mesh", "Faults by kind"],
    title: "Many simulation faults",
    above: 1e-4,
    for: "2m",
    severity: "warning",
    summary: "{{ .Labels.run }}: many faults of kind {{ .Labels.kind }}",
    description:
      "More than one in ten thousand environment steps of {{ .Labels.run }} in the last 10 minutes ended " +
      "in a contained fault ({{ .Labels.kind }}). Their episodes are cut, which biases the returns.",
    action:
      "See which epochs on the dashboard of the run. non_finite: lower the control range or the time step of " +
      "the model; overflow: its contacts need more room; not_converged: more solver iterations.",
    sql: `
      SELECT toString(f.run_id) AS run, toString(f.kind) AS kind,
             toFloat64(sum(f.count)) / greatest(any(s.steps), 1) AS share
      FROM faults AS f
      INNER JOIN (
          SELECT run_id, max(env_steps_total) - min(env_steps_total) AS steps
          FROM scalars WHERE time > now() - INTERVAL 10 MINUTE GROUP BY run_id
      ) AS s ON s.run_id = f.run_id
      WHERE f.time > now() - INTERVAL 10 MINUTE AND f.kind IN ('non_finite', 'overflow', 'not_converged')
      GROUP BY run, kind
      ORDER BY run, kind`,
  },
  {
    uid: "sdpg-throughput-drop",
    panel: ["run", "Throughput"],
    title: "Training has become slow",
    above: 0.5,
    for: "3m",
    severity: "warning",
    summary: "{{ .Labels.run }} trains at less than half its speed",
    description:
      "The environment steps per second of {{ .Labels.run }} in the last 5 minutes are less than half of " +
      "what they were in the 30 minutes before. The value is the share that is missing.",
    action:
      "Look at the phases of an epoch on the dashboard of the run: if all have grown, another program uses the " +
      "cores or the GPU; if one has, that service is at fault (its log is on the same page).",
    sql: `
      SELECT toString(run_id) AS run,
             1 - (maxIf(steps, newer) - minIf(steps, newer)) / (maxIf(at, newer) - minIf(at, newer))
                 / ((maxIf(steps, NOT newer) - minIf(steps, NOT newer))
                    / (maxIf(at, NOT newer) - minIf(at, NOT newer))) AS missing
      FROM (
          SELECT run_id, toFloat64(env_steps_total) AS steps, toUnixTimestamp64Milli(time) / 1000 AS at,
                 time > now() - INTERVAL 5 MINUTE AS newer
          FROM scalars
          WHERE time > now() - INTERVAL 35 MINUTE
          GROUP BY run_id, env_steps_total, time
      )
      WHERE run_id IN (SELECT run_id FROM runs WHERE ${running})
      GROUP BY run_id
      HAVING countIf(newer) >= 2 AND uniqExactIf(at, NOT newer) >= 20 AND isFinite(missing)
      ORDER BY run`,
  },
  {
    uid: "sdpg-memory-slope",
    panel: ["resources", "Memory by service"],
    title: "Memory keeps growing",
    above: 200e6,
    for: "10m",
    severity: "warning",
    summary: "{{ .Labels.service }} of {{ .Labels.run }} grows by more than 200 MB an hour",
    description:
      "A straight line through the last 30 minutes of the memory (proportional set size) of " +
      "{{ .Labels.service }} rises by more than 200 MB an hour; the value is bytes an hour. The first 10 minutes " +
      "of a run are left out: buffers are still being filled then.",
    action:
      "Compare the line over the whole run on the dashboard of memory. If it has no end, stop before the " +
      "machine swaps and resume (./sdpg resume goes on to the same bits), and file the run's name with it.",
    sql: `
      SELECT toString(run_id) AS run, toString(service) AS service,
             simpleLinearRegression(toUnixTimestamp(second), toFloat64(bytes)).1 * 3600 AS slope
      FROM memory
      INNER JOIN (SELECT run_id, started_at FROM runs WHERE ${running}) AS r USING (run_id)
      WHERE service != 'all' AND second > now() - INTERVAL 30 MINUTE
        AND second > r.started_at + INTERVAL 10 MINUTE
      GROUP BY run, service
      HAVING count() >= 20 AND max(second) - min(second) >= 900 AND isFinite(slope)
      ORDER BY run, service`,
  },
  {
    uid: "sdpg-stalled-run",
    panel: ["mesh", "Runs in progress"],
    title: "A run stands still",
    above: 600,
    for: "0s",
    severity: "critical",
    summary: "{{ .Labels.run }} has sent nothing for ten minutes",
    description:
      "{{ .Labels.run }} says that it is running, and neither an epoch nor a sample of its processes has " +
      "come for more than ten minutes (the value is seconds): its processes are gone or cut off.",
    action:
      "Run ./sdpg runs on its machine. If it says interrupted, ./sdpg resume goes on; if the processes live, " +
      "look at what they send to (./sdpg doctor, the telemetry service's log).",
    sql: `
      SELECT toString(r.run_id) AS run,
             toFloat64(dateDiff('second', greatest(r.updated_at, ifNull(s.newest, r.updated_at),
                                                   ifNull(m.newest, r.updated_at)), now64(9))) AS silent
      FROM runs AS r
      LEFT JOIN (
          SELECT run_id, toNullable(max(time)) AS newest FROM scalars
          WHERE run_id IN (SELECT run_id FROM runs WHERE ${running}) GROUP BY run_id
      ) AS s
        ON s.run_id = r.run_id
      LEFT JOIN (
          SELECT run_id, toNullable(max(time)) AS newest FROM resources
          WHERE run_id IN (SELECT run_id FROM runs WHERE ${running}) GROUP BY run_id
      ) AS m
        ON m.run_id = r.run_id
      WHERE ${running} AND r.updated_at > now() - INTERVAL 7 DAY
      ORDER BY run`,
  },
  {
    uid: "sdpg-stalled-stream",
    panel: ["mesh", "Runs in progress"],
    title: "Epochs do not arrive",
    above: 300,
    for: "0s",
    severity: "critical",
    summary: "The processes of {{ .Labels.run }} live, and no epoch has come for five minutes",
    description:
      "Samples of the processes of {{ .Labels.run }} keep coming and epochs do not (the value is seconds " +
      "since the newest): the stream between learner and simulator hangs, or the learner's rows do not get here.",
    action:
      "Look at the log and at the queue of the learner (dashboard of the mesh). A queue that grows: the " +
      "telemetry service; an empty one: ./sdpg down, then ./sdpg resume.",
    sql: `
      SELECT toString(r.run_id) AS run,
             toFloat64(dateDiff('second', greatest(r.updated_at, ifNull(s.newest, r.updated_at)), now64(9)))
                 AS silent
      FROM runs AS r
      INNER JOIN (
          SELECT run_id, max(time) AS newest FROM resources
          WHERE time > now() - INTERVAL 2 MINUTE GROUP BY run_id
      ) AS m ON m.run_id = r.run_id
      LEFT JOIN (
          SELECT run_id, toNullable(max(time)) AS newest FROM scalars
          WHERE run_id IN (SELECT run_id FROM runs WHERE ${running}) GROUP BY run_id
      ) AS s
        ON s.run_id = r.run_id
      WHERE ${running}
      ORDER BY run`,
  },
  {
    uid: "sdpg-telemetry-dropped",
    panel: ["mesh", "Rows dropped, per second"],
    title: "Telemetry is lost",
    above: 0,
    for: "0s",
    severity: "warning",
    summary: "{{ .Labels.service }} has dropped rows of its telemetry",
    description:
      "{{ .Labels.service }} gave up rows in the last 10 minutes because its queue of 32 MB was full: " +
      "curves and samples have holes. The value is their number.",
    action:
      "See on the dashboard of the mesh whether queues still grow. The telemetry service is away, its disk is " +
      "full or its store is slow: GET /health says which.",
    sql: `
      SELECT service, sum(grown) AS rows
      FROM (
          SELECT toString(ServiceName) AS service, max(Value) - if(min(StartTimeUnix) > now() - INTERVAL 10 MINUTE,
                     0, min(Value)) AS grown
          FROM otel_metrics_sum
          WHERE MetricName = 'rl.telemetry.dropped' AND TimeUnix > now() - INTERVAL 10 MINUTE
          GROUP BY service, ResourceAttributes['service.instance.id']
      )
      GROUP BY service
      ORDER BY service`,
  },
  {
    uid: "sdpg-call-errors",
    panel: ["mesh", "Calls that failed, per second"],
    title: "Calls between services fail",
    above: 0.05,
    for: "2m",
    severity: "warning",
    summary: "{{ .Labels.service }} cannot call {{ .Labels.method }}",
    description:
      "More than one in twenty calls of {{ .Labels.method }} by {{ .Labels.service }} in the last 10 " +
      "minutes did not end with OK (CANCELLED, a watcher that left, does not count). At least ten calls.",
    action:
      "The status is on the dashboard of the mesh. UNAVAILABLE: the service ended, see its log; " +
      "DEADLINE_EXCEEDED: it is too slow; INVALID_ARGUMENT: a client of another version calls it.",
    sql: `
      SELECT service, method, sumIf(grown, NOT status IN ('OK', 'CANCELLED')) / sum(grown) AS share
      FROM (
          SELECT toString(ServiceName) AS service, Attributes['rpc.method'] AS method,
                 Attributes['rpc.response.status_code'] AS status,
                 toFloat64(max(Count)) - if(min(StartTimeUnix) > now() - INTERVAL 10 MINUTE, 0, min(Count)) AS grown
          FROM otel_metrics_histogram
          WHERE MetricName = 'rpc.client.call.duration' AND TimeUnix > now() - INTERVAL 10 MINUTE
          GROUP BY service, method, status, ResourceAttributes['service.instance.id'], StartTimeUnix
      )
      GROUP BY service, method
      HAVING sum(grown) >= 10
      ORDER BY service, method`,
  },
  {
    uid: "sdpg-gpu-memory",
    panel: ["gpu", "Memory in use, share"],
    title: "GPU memory is nearly full",
    above: 0.95,
    for: "5m",
    severity: "warning",
    summary: "{{ .Labels.gpu }} has less than 5 % of its memory left",
    description:
      "The memory in use on {{ .Labels.gpu }} by all programs has been above 95 % in each sample of the " +
      "last 5 minutes. The next allocation may end the learner.",
    action:
      "See on the dashboard of the GPU whether it grows. Stop other programs, or take fewer nominals or " +
      "smaller pictures.",
    sql: `
      SELECT concat(Attributes['hw.name'], ' ', right(Attributes['hw.id'], 6)) AS gpu, min(Value) AS share
      FROM otel_metrics_gauge
      WHERE MetricName = 'hw.gpu.memory.utilization' AND TimeUnix > now() - INTERVAL 5 MINUTE
      GROUP BY gpu
      ORDER BY gpu`,
  },
];

/** The rule as Grafana's file of provisioned rules has it. */
export function ruleOf(alert: Alert) {
  const question = new SqlQuery(alert.sql, "table", ownDataSource);
  const limit = new expr.TypeThresholdBuilder().refId("B").expression("A")
    .datasource({ type: "__expr__", uid: "__expr__" })
    .conditions([{ evaluator: { type: "gt", params: [alert.above] } }]);
  const range = { from: 3600, to: 0 };
  const rule = new alerting.RuleBuilder(alert.title).uid(alert.uid).condition("B")
    .queries([
      new alerting.QueryBuilder("A").datasourceUid(dataSourceUid).relativeTimeRange(range)
        .model(question),
      new alerting.QueryBuilder("B").datasourceUid("__expr__").relativeTimeRange(range).model(
        limit,
      ),
    ])
    .forDuration(alert.for).noDataState("OK").execErrState("Error")
    .labels({ severity: alert.severity, part: "sdpg" })
    .annotations({
      summary: alert.summary,
      description: alert.description,
      action: alert.action,
    })
    .build();
  const { uid: dashboardUid, panels } = dashboards[alert.panel[0]];
  const panel = panels!.find(({ title }) => title === alert.panel[1]);
  if (panel === undefined) throw new Error(`${alert.uid}: no panel ${alert.panel.join(": ")}`);
  const { uid, title, condition, data, noDataState, execErrState, annotations, labels } = rule;
  return {
    uid,
    title,
    condition,
    data,
    noDataState,
    execErrState,
    for: rule.for,
    dashboardUid,
    panelId: panel.id,
    annotations,
    labels,
  };
}
