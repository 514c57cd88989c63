// "Mesh": how the services are, whatever they train: calls, processes, queues, faults.

import { chosen, isChosen } from "./clickhouse.ts";
import { makeDashboard, toRun } from "./dashboard.ts";
import { overTime, row, rows } from "./panels.ts";
import * as variables from "./variables.ts";

const noCalls = "No calls in the time shown: services send them every ten seconds while they run";
const noProcesses = "No process was measured in the time shown: ./sdpg train and resume do it";
const ofChosen = (column = "TimeUnix") =>
  `$__timeFilter(${column}) AND ${isChosen("ServiceName", "service")}`;

/** A metric of calls, as the chosen side counts them. */
const ofSide = (metric: string) => `concat('rpc.', ${chosen("side")}, '.${metric}')`;

const method = "Attributes['rpc.method']";
const shortMethod = "splitByChar('.', call)[-1]";

/**
 * What a cumulative histogram grew by in each interval, by sender and attributes. A sender's first point
 * counts whole where the sender began in the time shown, and not at all where it is older: what came
 * before is not known.
 */
const growth = (metric: string) => `
          SELECT time, service, call, status,
                 if(before > 0 OR began >= $__fromTime, calls - before, 0) AS calls,
                 if(before > 0 OR began >= $__fromTime, total - total_before, 0) AS total,
                 if(before > 0 OR began >= $__fromTime,
                    arrayMap((now, then) -> now - then, buckets, buckets_before),
                    arrayMap(bucket -> 0, buckets)) AS buckets,
                 bounds
          FROM (
              SELECT *, lagInFrame(calls, 1, 0) OVER w AS before, lagInFrame(total, 1, 0) OVER w AS total_before,
                     lagInFrame(buckets, 1, arrayMap(bucket -> toUInt64(0), buckets)) OVER w AS buckets_before
              FROM (
                  SELECT $__timeInterval(TimeUnix) AS time, toString(ServiceName) AS service,
                         ${method} AS call, Attributes['rpc.response.status_code'] AS status,
                         ResourceAttributes['service.instance.id'] AS sender, StartTimeUnix AS began,
                         max(Count) AS calls, argMax(Sum, TimeUnix) AS total,
                         argMax(BucketCounts, TimeUnix) AS buckets, any(ExplicitBounds) AS bounds
                  FROM otel_metrics_histogram
                  WHERE MetricName = ${ofSide(metric)} AND ${ofChosen()}
                  GROUP BY time, service, call, status, sender, began
              )
              WINDOW w AS (PARTITION BY service, call, status, sender, began ORDER BY time
                           ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
          )`;

/** A quantile of what fell into buckets, on a straight line within its bucket; the last bucket has no end. */
const quantile = (q: number) => `
             arrayCumSum(counts) AS summed, ${q} * summed[-1] AS wanted,
             arrayFirstIndex(n -> n >= wanted, summed) AS i,
             if(i > 1, edges[i - 1], 0) AS low, if(i > length(edges), edges[-1], edges[i]) AS high,
             low + (high - low) * (wanted - if(i > 1, summed[i - 1], 0)) / counts[i] AS value`;

const quantileOf = (metric: string, q: number) => `
      SELECT time, series, value
      FROM (
          SELECT time, series, counts, edges,${quantile(q)}
          FROM (
              SELECT time, concat(service, ' ', ${shortMethod}) AS series, sumForEach(buckets) AS counts,
                     any(bounds) AS edges
              FROM (${growth(metric)}
              )
              GROUP BY time, series
          )
          WHERE arraySum(counts) > 0
      )
      ORDER BY time, series`;

const callsPerSecond = overTime({
  title: "Calls per second",
  description:
    "gRPC calls that ended, by the service that made or served them (side, above) and method.",
  empty: noCalls,
  width: 12,
  unit: "reqps",
  sql: `
      SELECT time, concat(service, ' ', ${shortMethod}) AS series, sum(calls) / $__interval_s AS value
      FROM (${growth("call.duration")}
      )
      GROUP BY time, series
      ORDER BY time, series`,
});

const errorsPerSecond = overTime({
  title: "Calls that failed, per second",
  description:
    "Calls that did not end with OK, by service, method and status. CANCELLED is a watcher that left; " +
    "UNAVAILABLE and DEADLINE_EXCEEDED are a service that is away or too slow.",
  empty: noCalls,
  width: 12,
  unit: "reqps",
  sql: `
      SELECT time, concat(service, ' ', ${shortMethod}, ' ', status) AS series,
             sum(calls) / $__interval_s AS value
      FROM (${growth("call.duration")}
      )
      WHERE status != 'OK'
      GROUP BY time, series
      ORDER BY time, series`,
});

const duration = overTime({
  title: "Length of a call, 95 of 100 are shorter",
  description:
    "95 % quantile from the histogram's buckets. A stream lasts from its opening to its " +
    "end, so a training is one call of ten seconds and more (the last bucket).",
  empty: noCalls,
  width: 12,
  unit: "s",
  sql: quantileOf("call.duration", 0.95),
});

const sizes = overTime({
  title: "Size of a message, 95 of 100 are smaller",
  description:
    "95 % quantile of the request messages of each service and method, from the histogram's buckets.",
  empty: noCalls,
  width: 12,
  unit: "decbytes",
  sql: quantileOf("request.size", 0.95),
});

const methods = rows({
  title: "Methods",
  description:
    "Every method that was called in the time shown: how often, how many calls failed, how long they took on " +
    "average, how large their messages were.",
  empty: noCalls,
  width: 24,
  height: 8,
  columns: {
    service: { title: "Service" },
    call: { title: "Method" },
    calls: { title: "Calls", unit: "locale" },
    failed: { title: "Failed", unit: "locale" },
    failed_share: { title: "Failed, share", unit: "percentunit", decimals: 1 },
    mean_seconds: { title: "Mean length", unit: "s" },
    mean_request: { title: "Mean request", unit: "decbytes" },
    mean_response: { title: "Mean response", unit: "decbytes" },
  },
  sql: `
      SELECT service, call, sum(n) AS calls, sum(bad) AS failed, failed / calls AS failed_share,
             sum(seconds) / calls AS mean_seconds, sum(received) / sum(requests) AS mean_request,
             sum(sent) / sum(responses) AS mean_response
      FROM (
          SELECT toString(ServiceName) AS service, ${method} AS call, ResourceAttributes['service.instance.id'],
                 StartTimeUnix, Attributes['rpc.response.status_code'] AS status,
                 MetricName = ${ofSide("call.duration")} AS is_call,
                 max(Count) - if(min(StartTimeUnix) >= $__fromTime, 0, min(Count)) AS grown,
                 max(Sum) - if(min(StartTimeUnix) >= $__fromTime, 0, min(Sum)) AS amount,
                 if(is_call, grown, 0) AS n, if(is_call AND status != 'OK', grown, 0) AS bad,
                 if(is_call, amount, 0) AS seconds,
                 if(MetricName = ${ofSide("request.size")}, grown, 0) AS requests,
                 if(MetricName = ${ofSide("request.size")}, amount, 0) AS received,
                 if(MetricName = ${ofSide("response.size")}, grown, 0) AS responses,
                 if(MetricName = ${ofSide("response.size")}, amount, 0) AS sent
          FROM otel_metrics_histogram
          WHERE startsWith(MetricName, concat('rpc.', ${chosen("side")}, '.')) AND ${ofChosen()}
          GROUP BY service, call, ResourceAttributes['service.instance.id'], StartTimeUnix, status, MetricName
      )
      GROUP BY service, call
      HAVING calls > 0
      ORDER BY calls DESC`,
});

const gauge = (metric: string, aggregate: string) => `
      SELECT time, series, ${aggregate}(value) AS value
      FROM (
          SELECT $__timeInterval(TimeUnix) AS time, toString(ServiceName) AS series,
                 ResourceAttributes['service.instance.id'] AS sender, Attributes['process.pid'] AS pid,
                 max(Value) AS value
          FROM otel_metrics_gauge
          WHERE MetricName = '${metric}' AND ${ofChosen()}
          GROUP BY time, series, sender, pid
      )
      GROUP BY time, series
      ORDER BY time, series`;

/** What a sum grew by in each interval, a second; senders as in `growth`. */
const rate = (metric: string, condition = "1") => `
      SELECT time, series, sum(grown) / $__interval_s AS value
      FROM (
          SELECT time, series,
                 if(row_number() OVER w = 1, if(began >= $__fromTime, value, 0),
                    greatest(value - lagInFrame(value, 1, 0) OVER w, 0)) AS grown
          FROM (
              SELECT $__timeInterval(TimeUnix) AS time, toString(ServiceName) AS series,
                     ResourceAttributes['service.instance.id'] AS sender, Attributes['process.pid'] AS pid,
                     min(StartTimeUnix) AS began, max(Value) AS value
              FROM otel_metrics_sum
              WHERE MetricName = '${metric}' AND ${condition} AND ${ofChosen()}
              GROUP BY time, series, sender, pid
          )
          WINDOW w AS (PARTITION BY series, sender, pid ORDER BY time
                       ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
      )
      GROUP BY time, series
      ORDER BY time, series`;

const processor = overTime({
  title: "Processor time",
  description: "Cores that each service keeps busy: processor seconds, user and system, a second.",
  empty: noProcesses,
  width: 8,
  unit: "short",
  stacked: true,
  calculations: ["mean", "max"],
  sql: rate("process.cpu.time"),
});

const resident = overTime({
  title: "Resident memory",
  description:
    "Resident set size of each service. Pages that services share count in each of them, so their sum is " +
    "more than what is used; the dashboard of memory has the proportional size.",
  empty: noProcesses,
  width: 8,
  unit: "decbytes",
  sql: gauge("process.memory.usage", "sum"),
});

const threads = overTime({
  title: "Threads",
  description: "Threads of each service. A count that grows without end is a leak.",
  empty: noProcesses,
  width: 8,
  unit: "short",
  sql: gauge("process.thread.count", "sum"),
});

const queueRows = overTime({
  title: "Rows that wait for the telemetry service",
  description:
    "In each sender's queue, which holds 32 MB. It empties every two seconds; one that grows says that the " +
    "telemetry service is away or slow. What that service itself spools while the store is away is not in " +
    "the store: ask its /health.",
  empty: noCalls,
  width: 8,
  sql: gauge("rl.telemetry.queue.rows", "sum"),
});

const queueBytes = overTime({
  title: "Bytes that wait for the telemetry service",
  description: "The same in bytes. At 32 MB the newest rows are dropped and counted.",
  empty: noCalls,
  width: 8,
  unit: "decbytes",
  sql: gauge("rl.telemetry.queue.size", "sum"),
});

const dropped = overTime({
  title: "Rows dropped, per second",
  description:
    "Rows that a sender gave up because its queue was full. They are missing from every panel.",
  empty: noCalls,
  width: 8,
  unit: "rowsps",
  sql: rate("rl.telemetry.dropped"),
});

const faultsOverTime = overTime({
  title: "Faults by kind",
  description: "Contained faults of the chosen runs in each interval, by kind.",
  empty: "No faults of the chosen runs in the time shown",
  width: 12,
  calculations: ["sum", "max"],
  sql: `
      SELECT $__timeInterval(time) AS at, toString(kind) AS series, sum(count) AS value
      FROM faults
      WHERE $__timeFilter(time) AND ${isChosen("run_id", "run")}
      GROUP BY at, series
      ORDER BY at, series`,
});

const newestFaults = rows({
  title: "Newest faults",
  description:
    "The hundred newest faults of the chosen runs in the time shown. A click on a run opens it.",
  empty: "No faults of the chosen runs in the time shown",
  width: 12,
  columns: {
    time: { title: "Time" },
    run: { title: "Run", link: toRun("run") },
    service: { title: "Service" },
    kind: { title: "Kind" },
    epoch: { title: "Epoch" },
    count: { title: "Times" },
    message: { title: "Message" },
  },
  sql: `
      SELECT time, toString(run_id) AS run, toString(service) AS service, toString(kind) AS kind,
             iteration AS epoch, count, message
      FROM faults
      WHERE $__timeFilter(time) AND ${isChosen("run_id", "run")}
      ORDER BY time DESC
      LIMIT 100`,
});

const alive = rows({
  title: "Runs in progress",
  description:
    "Runs whose state is started or running, and how long ago each kind of row last came. A run that trains " +
    "sends an epoch every few seconds and a sample of its processes every second.",
  empty: "No run is in progress",
  width: 24,
  height: 6,
  columns: {
    run: { title: "Run", link: toRun("run") },
    task: { title: "Task" },
    epochs: { title: "Epochs" },
    epoch_age: { title: "Newest epoch, ago", unit: "s" },
    sample_age: { title: "Newest sample of its processes, ago", unit: "s" },
    state_age: { title: "Newest change of state, ago", unit: "s" },
  },
  sql: `
      SELECT toString(r.run_id) AS run, toString(r.task) AS task, s.epochs AS epochs,
             dateDiff('second', s.newest, now()) AS epoch_age, dateDiff('second', m.newest, now()) AS sample_age,
             dateDiff('second', r.updated_at, now()) AS state_age
      FROM runs AS r
      LEFT JOIN (
          SELECT run_id, toNullable(max(iteration)) AS epochs, toNullable(max(time)) AS newest
          FROM scalars
          WHERE run_id IN (SELECT run_id FROM runs WHERE state IN ('started', 'running'))
          GROUP BY run_id
      ) AS s ON s.run_id = r.run_id
      LEFT JOIN (
          SELECT run_id, toNullable(max(time)) AS newest
          FROM resources
          WHERE run_id IN (SELECT run_id FROM runs WHERE state IN ('started', 'running'))
          GROUP BY run_id
      ) AS m ON m.run_id = r.run_id
      WHERE r.state IN ('started', 'running')
      ORDER BY state_age`,
});

export const mesh = makeDashboard({
  uid: "sdpg-mesh",
  title: "SDPG: mesh",
  description: "Health of the services: calls, processes, queues, faults",
  from: "now-1h",
  variables: [...variables.manyRuns(), variables.service(), variables.side()],
  parts: [
    row("Runs"),
    alive,
    row("Calls between services"),
    callsPerSecond,
    errorsPerSecond,
    duration,
    sizes,
    methods,
    row("Processes"),
    processor,
    resident,
    threads,
    row("Telemetry"),
    queueRows,
    queueBytes,
    dropped,
    row("Faults"),
    faultsOverTime,
    newestFaults,
  ],
});
