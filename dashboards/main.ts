// deno task dashboards: writes dist/ anew from the TypeScript beside this file. dist/ is committed, and a test
// compares the two.

import { alerts, ruleOf } from "./alerts.ts";
import { dashboards } from "./all.ts";
import { dataSourceUid, pluginId } from "./clickhouse.ts";

/** Every file of dist/, by its path there. */
export function generate(): Record<string, string> {
  const files: Record<string, string> = {};
  for (const [name, dashboard] of Object.entries(dashboards)) {
    files[`dashboards/${name}.json`] = json(dashboard);
  }
  files["provisioning/alerting/sdpg.json"] = json({
    apiVersion: 1,
    groups: [{ orgId: 1, name: "SDPG", folder: "SDPG", interval: "1m", rules: alerts.map(ruleOf) }],
  });
  files["provisioning/dashboards/sdpg.yaml"] = dashboardProvider;
  files["provisioning/datasources/sdpg.yaml"] = dataSource;
  return files;
}

const json = (value: unknown) => JSON.stringify(value, null, 2) + "\n";

const note = "# Written by `deno task dashboards`: docs/grafana.md.\n";

const dashboardProvider = `${note}
apiVersion: 1
providers:
  - name: sdpg
    orgId: 1
    folder: SDPG
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: \${SDPG_DASHBOARDS}
`;

const dataSource = `${note}
apiVersion: 1
datasources:
  - name: SDPG
    uid: ${dataSourceUid}
    type: ${pluginId}
    orgId: 1
    access: proxy
    isDefault: true
    editable: false
    jsonData:
      host: \${SDPG_TELEMETRY_HOST}
      port: \${SDPG_TELEMETRY_PORT}
      protocol: http
      secure: false
      username: \${SDPG_CLICKHOUSE_USER}
      defaultDatabase: sdpg
      dialTimeout: "10"
      queryTimeout: "60"
      logs:
        defaultDatabase: sdpg
        defaultTable: otel_logs
        otelEnabled: true
        otelVersion: latest
      traces:
        defaultDatabase: sdpg
        defaultTable: otel_traces
        otelEnabled: true
        otelVersion: latest
        durationUnit: nanoseconds
        traceTimestampTableSuffix: _trace_id_ts
    secureJsonData:
      password: \${SDPG_CLICKHOUSE_PASSWORD}
`;

if (import.meta.main) {
  const dist = new URL("./dist/", import.meta.url);
  await Deno.remove(dist, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  for (const [path, content] of Object.entries(generate())) {
    const file = new URL(path, dist);
    await Deno.mkdir(new URL(".", file), { recursive: true });
    await Deno.writeTextFile(file, content);
    console.log(`dashboards/dist/${path}`);
  }
}
