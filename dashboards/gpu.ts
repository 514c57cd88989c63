// "GPU": what NVIDIA's management library says of the devices, where a learner's machine has it.

import { isChosen } from "./clickhouse.ts";
import { makeDashboard } from "./dashboard.ts";
import { overTime, row, rows } from "./panels.ts";
import * as variables from "./variables.ts";

const none =
  "No GPU was measured in the time shown: the learner sends hw.gpu.* where NVIDIA's library is";

const device = "concat(Attributes['hw.name'], ' ', right(Attributes['hw.id'], 6))";
const ofChosen = `$__timeFilter(TimeUnix) AND ${isChosen("Attributes['hw.id']", "gpu")}`;

const gauge = (metric: string, aggregate: string) => `
      SELECT $__timeInterval(TimeUnix) AS time, ${device} AS series, ${aggregate}(Value) AS value
      FROM otel_metrics_gauge
      WHERE MetricName = '${metric}' AND ${ofChosen}
      GROUP BY time, series
      ORDER BY time, series`;

export const gpu = makeDashboard({
  uid: "sdpg-gpu",
  title: "SDPG: GPU",
  description: "Use and memory of the graphics processors",
  from: "now-6h",
  variables: [variables.gpu()],
  parts: [
    row("Devices"),
    rows({
      title: "Devices",
      description:
        "Every GPU that was measured in the time shown: its newest use and memory, and the most of both.",
      empty: none,
      width: 24,
      height: 6,
      columns: {
        device: { title: "Device" },
        utilization: { title: "Busy, now", unit: "percentunit" },
        most_utilization: { title: "Busy, most", unit: "percentunit" },
        usage: { title: "Memory in use, now", unit: "decbytes" },
        most_usage: { title: "Memory in use, most", unit: "decbytes" },
        memory: { title: "Memory", unit: "decbytes" },
        newest: { title: "Measured" },
      },
      sql: `
      SELECT ${device} AS device,
             argMaxIf(Value, TimeUnix, MetricName = 'hw.gpu.utilization') AS utilization,
             maxIf(Value, MetricName = 'hw.gpu.utilization') AS most_utilization,
             argMaxIf(Value, TimeUnix, MetricName = 'hw.gpu.memory.usage') AS usage,
             maxIf(Value, MetricName = 'hw.gpu.memory.usage') AS most_usage,
             argMaxIf(Value, TimeUnix, MetricName = 'hw.gpu.memory.limit') AS memory,
             max(TimeUnix) AS newest
      FROM otel_metrics_gauge
      WHERE startsWith(MetricName, 'hw.gpu.') AND ${ofChosen}
      GROUP BY device
      ORDER BY device`,
    }),
    row("Over time"),
    overTime({
      title: "Busy",
      description:
        "Share of the last second in which the device worked; mean of the samples, which come every ten " +
        "seconds. A learner that waits for its simulator shows as a low line.",
      empty: none,
      width: 12,
      unit: "percentunit",
      max: 1,
      calculations: ["mean", "max"],
      sql: gauge("hw.gpu.utilization", "avg"),
    }),
    overTime({
      title: "Memory in use, share",
      description:
        "Share of the device's memory that is in use by all programs. At 1 the next tensor fails.",
      empty: none,
      width: 12,
      unit: "percentunit",
      max: 1,
      sql: gauge("hw.gpu.memory.utilization", "max"),
    }),
    overTime({
      title: "Memory in use",
      description: "Bytes in use by all programs. A line that rises through a whole run is a leak.",
      empty: none,
      width: 12,
      unit: "decbytes",
      sql: gauge("hw.gpu.memory.usage", "max"),
    }),
    overTime({
      title: "Memory left",
      description: "What the device has less what is in use, least in each interval.",
      empty: none,
      width: 12,
      unit: "decbytes",
      calculations: ["lastNotNull", "min"],
      sql: `
      SELECT time, series, bytes_limit - bytes_used AS value
      FROM (
          SELECT $__timeInterval(TimeUnix) AS time, ${device} AS series,
                 maxIf(Value, MetricName = 'hw.gpu.memory.limit') AS bytes_limit,
                 maxIf(Value, MetricName = 'hw.gpu.memory.usage') AS bytes_used
          FROM otel_metrics_gauge
          WHERE startsWith(MetricName, 'hw.gpu.memory.') AND ${ofChosen}
          GROUP BY time, series
      )
      WHERE bytes_limit > 0
      ORDER BY time, series`,
    }),
  ],
});
