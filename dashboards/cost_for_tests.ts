// What the dashboards and alert rules cost the store: processor time of the telemetry service for each statement,
// with every run of a home chosen.
//
//   deno run -A services/telemetry/seed_for_tests.ts HOME 300 1000
//   deno run -A dashboards/cost_for_tests.ts HOME

import type { Panel } from "@grafana/grafana-foundation-sdk/dashboard";
import { startTestService } from "../services/telemetry/service_for_tests.ts";
import { alerts } from "./alerts.ts";
import { dashboards } from "./all.ts";
import { opened, sentBy } from "./grafana_for_tests.ts";

const [home] = Deno.args;
if (!home) throw new Error("Expected the home of a store: cost_for_tests.ts HOME");
const service = await startTestService(home);
try {
  const lines = async (sql: string) => (await service.ask(sql)).split("\n");
  const runs = await lines("SELECT run_id FROM runs ORDER BY started_at DESC LIMIT 1000");
  const [experiment] = await lines("SELECT any(experiment) FROM experiments");
  const [from, to] = await lines(
    "SELECT arrayJoin([toUnixTimestamp(min(started_at)), toUnixTimestamp(max(updated_at))]) FROM runs",
  );
  const range: [number, number] = [Number(from) * 1000, Number(to) * 1000];
  /** Processor seconds of the service: utime and stime of proc(5), in hundredths. */
  const used = () => {
    const fields = Deno.readTextFileSync(`/proc/${service.pid}/stat`).split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) / 100;
  };
  const cost = async (title: string, sql: string) => {
    const before = used();
    const rows = await lines(sql);
    const seconds = (used() - before).toFixed(2);
    console.log(`${seconds} s  ${String(rows.length).padStart(6)} rows  ${title}`);
  };
  for (const [name, { panels }] of Object.entries(dashboards)) {
    const asked = { ...opened(name, runs, range, { experiment }), intervalMs: 60_000 };
    for (const panel of panels!.filter(({ type }) => type !== "row") as Panel[]) {
      const { rawSql } = panel.targets![0] as unknown as { rawSql: string };
      await cost(`${name}: ${panel.title}`, sentBy(rawSql, asked));
    }
  }
  for (const { title, sql } of alerts) await cost(`rule: ${title}`, sql);
} finally {
  await service.kill();
}
