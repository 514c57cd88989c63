// What all our dashboards have in common: a name that stays, the data source to choose, links to each other.

import * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import type { Builder } from "@grafana/grafana-foundation-sdk/cog";
import type { Link, Part } from "./panels.ts";
import { datasource } from "./variables.ts";

export interface DashboardText {
  uid: string;
  title: string;
  description: string;
  variables: Builder<dashboard.VariableModel>[];
  parts: Part[];
  /** The time shown first. */
  from?: string;
  /** How often everything is asked again. The store shares its cores with a training. */
  refresh?: string;
}

const tag = "sdpg";

export function makeDashboard(text: DashboardText): dashboard.Dashboard {
  const builder = new dashboard.DashboardBuilder(text.title).uid(text.uid)
    .description(text.description).tags([tag]).timezone("browser").editable()
    .time({ from: text.from ?? "now-24h", to: "now" }).refresh(text.refresh ?? "30s")
    .tooltip(dashboard.DashboardCursorSync.Crosshair)
    .variables([datasource(), ...text.variables])
    .link(
      new dashboard.DashboardLinkBuilder("SDPG dashboards").type(
        dashboard.DashboardLinkType.Dashboards,
      )
        .tags([tag]).asDropdown(true).includeVars(true).keepTime(true).icon("dashboard")
        .tooltip("The other views of the same runs"),
    );
  for (const part of text.parts) {
    if (part instanceof dashboard.RowBuilder) builder.withRow(part);
    else builder.withPanel(part);
  }
  const built = builder.build();
  built.panels?.forEach((panel, i) => panel.id = i + 1);
  return built;
}

/** Where a click on a run's name leads: the run in depth, in the time that is shown. */
export const toRun = (column: string): Link => ({
  title: "Open this run",
  url: `/d/sdpg-run?var-run=\${__data.fields.${column}:percentencode}` +
    "&var-datasource=${datasource:percentencode}&${__url_time_range}",
});
