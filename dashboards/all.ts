// Every dashboard, by the name of its file.

import type { Dashboard } from "@grafana/grafana-foundation-sdk/dashboard";
import { gpu } from "./gpu.ts";
import { learning } from "./learning.ts";
import { mesh } from "./mesh.ts";
import { resources } from "./resources.ts";
import { oneRun } from "./run.ts";

export const dashboards: Record<string, Dashboard> = {
  learning,
  run: oneRun,
  resources,
  mesh,
  gpu,
};
