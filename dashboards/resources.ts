// "Memory and wall-clock": what a result costs, as the paper's Table 1 says it for GPU memory, and where the
// memory of a run goes.

import { runs } from "./clickhouse.ts";
import { makeDashboard, toRun } from "./dashboard.ts";
import { bars, overAxis, overTime, row, rows } from "./panels.ts";
import * as variables from "./variables.ts";

const noRuns = "None of the chosen runs has samples of its processes";

const cost = rows({
  title: "Cost by task and algorithm",
  description:
    "Wall-clock until the runs that finished were done, and the most memory that a run needed. Host: the " +
    "proportional set size of all services together, most of any second. GPU: what was in use on the device " +
    "while a run lasted, other programs included, less what was in use at its first sample; empty where no " +
    "GPU was measured. The published table has GPU memory alone: SDPG 10.2 to 10.5 GB from pixels.",
  empty: "None of the chosen runs is in the store",
  width: 24,
  height: 8,
  columns: {
    task: { title: "Task" },
    algorithm: { title: "Algorithm" },
    preset: { title: "Preset" },
    observation: { title: "Observation" },
    runs: { title: "Runs" },
    finished: { title: "Finished" },
    median_seconds: { title: "Wall-clock to finish, median", unit: "s" },
    most_seconds: { title: "longest", unit: "s" },
    median_epochs: { title: "Epochs, median" },
    host_bytes: { title: "Host memory, peak", unit: "decbytes" },
    gpu_bytes: { title: "GPU memory, peak", unit: "decbytes" },
    gpu_seconds: { title: "GPU time, median", unit: "s" },
  },
  sql: `
      SELECT toString(r.task) AS task, toString(r.algorithm) AS algorithm, toString(r.preset) AS preset,
             toString(r.observation) AS observation, count() AS runs, countIf(r.state = 'done') AS finished,
             medianOrNullIf(t.wall_time_s, r.state = 'done') AS median_seconds,
             maxOrNullIf(t.wall_time_s, r.state = 'done') AS most_seconds,
             medianOrNullIf(t.epochs, r.state = 'done') AS median_epochs,
             max(h.peak_bytes) AS host_bytes, max(g.gpu_bytes) AS gpu_bytes,
             medianOrNullIf(t.gpu_seconds, r.state = 'done') AS gpu_seconds
      FROM runs AS r
      LEFT JOIN (
          SELECT run_id, toNullable(max(s.wall_time_s)) AS wall_time_s, toNullable(max(s.iteration)) AS epochs,
                 toNullable(max(s.gpu_seconds)) AS gpu_seconds
          FROM scalars AS s
          WHERE s.run_id IN (${runs})
          GROUP BY run_id
      ) AS t ON t.run_id = r.run_id
      LEFT JOIN (
          SELECT run_id, toNullable(peak_bytes) AS peak_bytes FROM peak_memory
          WHERE service = 'all' AND run_id IN (${runs})
      ) AS h ON h.run_id = r.run_id
      LEFT JOIN (
          SELECT run_id, max(grown) AS gpu_bytes
          FROM (
              SELECT d.run_id AS run_id, m.Attributes['hw.id'] AS device,
                     toNullable(max(m.Value) - argMin(m.Value, m.TimeUnix)) AS grown
              FROM runs AS d
              INNER JOIN otel_metrics_gauge AS m ON m.MetricName = 'hw.gpu.memory.usage'
              WHERE d.run_id IN (${runs}) AND m.TimeUnix BETWEEN d.started_at AND d.updated_at
              GROUP BY run_id, device
          )
          GROUP BY run_id
      ) AS g ON g.run_id = r.run_id
      WHERE r.run_id IN (${runs})
      GROUP BY task, algorithm, preset, observation
      ORDER BY task, algorithm, preset, observation`,
});

const services = ["learner", "gpu-sim", "render", "evaluation", "telemetry", "cli"];

const peaks = bars({
  title: "Peak memory of each service",
  description:
    "The most of each service at any second of a run, proportional set size; mean over the runs of a task " +
    "and algorithm. Services peak at different times, so a bar may be longer than the peak of all together.",
  empty: noRuns,
  width: 12,
  height: 10,
  unit: "decbytes",
  xField: "what",
  sql: `
      SELECT concat(ifNull(r.task, '?'), ' ', ifNull(r.algorithm, '?'), ' ', ifNull(r.observation, '')) AS what,
             ${
    services.map((service) =>
      `ifNull(avgOrNullIf(p.peak_bytes, p.service = '${service}'), 0) AS "${service}"`
    ).join(",\n             ")
  }
      FROM peak_memory AS p
      INNER JOIN runs AS r ON r.run_id = p.run_id
      WHERE p.run_id IN (${runs})
      GROUP BY what
      ORDER BY what`,
});

const speed = rows({
  title: "Wall-clock and speed by run",
  description:
    "Work per second of training time, evaluations and checkpoints included. Steps (total) count the " +
    "auxiliary environments too. A click on a run opens it.",
  empty: "None of the chosen runs has an epoch yet",
  width: 12,
  height: 10,
  columns: {
    run: { title: "Run", link: toRun("run") },
    state: { title: "State" },
    wall_time_s: { title: "Training time", unit: "s" },
    epochs: { title: "Epochs" },
    epochs_per_s: { title: "Epochs/s", decimals: 2 },
    env_steps_total_per_s: { title: "Steps/s (total)", unit: "short" },
    images_per_s: { title: "Images/s", unit: "short" },
    host_bytes: { title: "Peak memory", unit: "decbytes" },
  },
  sql: `
      SELECT t.run_id AS run, toString(r.state) AS state, t.wall_time_s AS wall_time_s, t.epochs AS epochs,
             t.epochs_per_s AS epochs_per_s, t.env_steps_total_per_s AS env_steps_total_per_s,
             t.images_per_s AS images_per_s, p.peak_bytes AS host_bytes
      FROM throughput AS t
      INNER JOIN runs AS r ON r.run_id = t.run_id
      LEFT JOIN (
          SELECT run_id, toNullable(peak_bytes) AS peak_bytes FROM peak_memory WHERE service = 'all'
      ) AS p ON p.run_id = t.run_id
      WHERE t.run_id IN (${runs})
      ORDER BY run`,
});

const byService = overTime({
  title: "Memory by service",
  description:
    "Proportional set size of each service: a page that several processes share counts once in their sum. " +
    "One line for each service of each run in the time shown.",
  empty: "No samples of the chosen runs in the time shown: choose a longer one, top right",
  width: 12,
  height: 10,
  unit: "decbytes",
  sql: `
      SELECT $__timeInterval(second) AS time, concat(run_id, ' ', service) AS series, max(bytes) AS value
      FROM memory
      WHERE $__timeFilter(second) AND run_id IN (${runs}) AND service != 'all'
      GROUP BY time, series
      ORDER BY time, series`,
});

const byAge = overAxis({
  title: "Memory of all services over a run's time",
  description:
    "All services together over the seconds since the run began, so that runs of different days lie on each " +
    "other. A line that keeps rising after the first minutes is a leak.",
  empty: noRuns,
  width: 12,
  height: 10,
  unit: "decbytes",
  xTitle: "Seconds since the run began",
  sql: `
      WITH (
          SELECT greatest(max(dateDiff('second', began, ended)) / 300, 1)
          FROM (
              SELECT run_id, min(second) AS began, max(second) AS ended
              FROM memory WHERE run_id IN (${runs}) AND service = 'all' GROUP BY run_id
          )
      ) AS step
      SELECT floor(dateDiff('second', b.began, m.second) / step) * step AS x, m.run_id AS series,
             max(m.bytes) AS value
      FROM memory AS m
      INNER JOIN (
          SELECT run_id, min(second) AS began FROM memory WHERE service = 'all' GROUP BY run_id
      ) AS b ON b.run_id = m.run_id
      WHERE m.run_id IN (${runs}) AND m.service = 'all'
      GROUP BY x, series
      ORDER BY x, series`,
});

export const resources = makeDashboard({
  uid: "sdpg-resources",
  title: "SDPG: memory and wall-clock",
  description:
    "What runs cost: time to finish, memory of host and GPU, memory of each service over time",
  from: "now-7d",
  refresh: "5m",
  variables: variables.manyRuns(),
  parts: [
    row("Cost of a result"),
    cost,
    peaks,
    speed,
    row("Memory over time"),
    byService,
    byAge,
  ],
});
