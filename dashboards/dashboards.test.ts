// dist/ is what the TypeScript makes, in Grafana's schema, and its panels say what they are.

import { describe, expect, test } from "vitest";
import type { Panel } from "@grafana/grafana-foundation-sdk/dashboard";
import { fileURLToPath, pathToFileURL } from "node:url";
import { alerts } from "./alerts.ts";
import { chosenDataSource, dataSourceUid, pluginId } from "./clickhouse.ts";
import { layout } from "./layout_for_tests.ts";
import { dashboards } from "./all.ts";
import { generate } from "./main.ts";

const here = new URL("./", import.meta.url);
const root = new URL("../", here);
const files = generate();

function list(folder: URL, prefix = ""): string[] {
  return [...Deno.readDirSync(folder)].flatMap(({ name, isDirectory }) =>
    isDirectory ? list(new URL(`${name}/`, folder), `${prefix}${name}/`) : [`${prefix}${name}`]
  ).sort();
}

test("dist/ is what deno task dashboards writes", () => {
  const dist = new URL("dist/", here);
  expect(list(dist), "run deno task dashboards").toEqual(Object.keys(files).sort());
  for (const [path, content] of Object.entries(files)) {
    expect(Deno.readTextFileSync(new URL(path, dist)), `${path}: run deno task dashboards`)
      .toBe(content);
  }
});

const mistakes = [
  ["an option that no panel has", '"showHeader": true', '"showHaeder": true'],
  ["a value that an enum has not", '"displayMode": "table"', '"displayMode": "tabel"'],
  ["a number as a text", '"lineWidth": 1', '"lineWidth": "1"'],
  ["a panel of a kind that is not there", '"type": "timeseries"', '"type": "timeserie"'],
  ["a format that the data source has not", '"format": 0', '"format": 7'],
] as const;

test("Grafana's schema has everything that the dashboards have, and finds mistakes", async () => {
  const folder = new URL("build/", root); // inside the checkout: deno.json says where the SDK is
  Deno.mkdirSync(folder, { recursive: true });
  const directory = Deno.makeTempDirSync({ dir: fileURLToPath(folder), prefix: "dashboards-" });
  try {
    const schema = fileURLToPath(new URL("schema_for_tests.ts", here));
    const write = (name: string, json: string) =>
      Deno.writeTextFileSync(
        `${directory}/${name}.ts`,
        `import type { StoredDashboard } from ${JSON.stringify(schema)};\n` +
          `export const dashboard: StoredDashboard = ${json.trimEnd()};\n`,
      );
    for (const name of Object.keys(dashboards)) write(name, files[`dashboards/${name}.json`]);
    const smallest = files["dashboards/gpu.json"];
    mistakes.forEach(([what, right, wrong], i) => {
      expect(smallest, what).toContain(right);
      write(`mistake${i}`, smallest.replace(right, wrong));
    });
    const { stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["check", "--quiet", ...list(pathToFileURL(`${directory}/`))],
      cwd: directory,
      env: { NO_COLOR: "1" },
      stdout: "null",
      stderr: "piped",
    }).output();
    const text = new TextDecoder().decode(stderr);
    const wrong = [...text.matchAll(/dashboards-\w+\/(\w+)\.ts/g)].map(([, name]) => name);
    expect([...new Set(wrong)].sort(), text).toEqual(mistakes.map((_, i) => `mistake${i}`));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

describe.each(Object.entries(dashboards))("%s", (_, dashboard) => {
  const panels = dashboard.panels!.filter(({ type }) => type !== "row") as Panel[];

  test("no panel lies on another, and rows of the grid are full or one panel", () => {
    const picture = layout(dashboard);
    expect(picture).not.toContain("#");
    for (const line of picture.split("\n")) {
      expect(line, picture).toMatch(/^[^.]{24}$|^(\w)\1{11}\.{12}$/);
    }
  });
  test("every panel has a title, a description, a unit, a word for nothing, and room", () => {
    for (const { title, description, fieldConfig, gridPos } of panels) {
      expect(title).toBeTruthy();
      expect(description?.length, title).toBeGreaterThan(gridPos!.h <= 4 ? 10 : 60);
      expect(fieldConfig?.defaults.unit, title).toBeTruthy();
      expect(fieldConfig?.defaults.noValue, title).toBeTruthy();
      expect(gridPos!.h, title).toBeGreaterThanOrEqual(4);
      expect(gridPos!.w, title).toBeGreaterThanOrEqual(3);
    }
  });
  test("ids and titles are unique", () => {
    const ids = dashboard.panels!.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    const titles = panels.map(({ title }) => title);
    expect(new Set(titles).size).toBe(titles.length);
  });
  test("everything asks the chosen data source", () => {
    for (const { datasource, targets, title } of panels) {
      expect(datasource, title).toEqual(chosenDataSource);
      expect(targets!.map((target) => (target as { datasource?: unknown }).datasource), title)
        .toEqual([chosenDataSource]);
    }
    const [first, ...others] = dashboard.templating.list!;
    expect([first.name, first.query]).toEqual(["datasource", pluginId]);
    for (const variable of others.filter(({ type }) => type === "query")) {
      expect(variable.datasource, variable.name).toEqual(chosenDataSource);
      expect(variable.description, variable.name).toBeTruthy();
    }
  });
  test("variables are used after they are there, in SQL percent-encoded only", () => {
    const names = dashboard.templating.list!.map(({ name }) => name);
    const inSql = (sql: string, known: string[]) => {
      const used = [...sql.matchAll(/\$\{(\w+)(?::(\w+))?\}/g)];
      for (const [match, name, format] of used) {
        expect(known, match).toContain(name);
        expect(format, match).toBe("percentencode");
      }
      // What is left of dollar signs: macros, and the second argument of $__conditionalAll.
      const plain = sql.replaceAll(/\$\{[^}]*\}/g, "").match(/\$\w+/g) ?? [];
      for (const word of plain.filter((word) => !word.startsWith("$__"))) {
        expect(known, word).toContain(word.slice(1));
        expect(sql).toContain(`, ${word})`);
      }
    };
    dashboard.templating.list!.forEach((variable, i) => {
      if (variable.type !== "query") return;
      inSql((variable.query as { rawSql: string }).rawSql, names.slice(0, i));
    });
    for (const { targets } of panels) {
      for (const target of targets!) inSql((target as unknown as { rawSql: string }).rawSql, names);
    }
    // Everything that a title or a link names is there, too.
    const text = JSON.stringify(dashboard);
    for (const [match, name] of text.matchAll(/\$\{(\w+)(?:[:.][^}]*)?\}/g)) {
      if (!name.startsWith("__")) expect(names, match).toContain(name);
    }
    expect(dashboard.templating.list!.length).toBe(new Set(names).size);
  });
  test("links lead to dashboards that are there", () => {
    const uids = Object.values(dashboards).map(({ uid }) => uid);
    for (const [, uid] of JSON.stringify(dashboard).matchAll(/\/d\/([\w-]+)/g)) {
      expect(uids).toContain(uid);
    }
    expect(dashboard.links!.map(({ type, tags }) => [type, tags])).toEqual([[
      "dashboards",
      dashboard.tags,
    ]]);
  });
});

test("every metric, attribute and table that is asked for is described", () => {
  const text = Object.values(files).join("\n");
  const registry = Deno.readTextFileSync(new URL("docs/registry.md", root));
  const metrics = text.match(/\b(process|rl\.telemetry|hw\.gpu)\.[a-z_.]+[a-z](?=')/g)!;
  expect(new Set(metrics).size).toBeGreaterThan(8);
  for (const name of metrics) expect(registry, name).toContain(`\`${name}\``);
  for (const size of ["call.duration", "request.size", "response.size"]) {
    expect(text).toContain(`'.${size}'`);
    for (const side of ["client", "server"]) expect(registry).toContain(`\`rpc.${side}.${size}\``);
  }
  const described = registry +
    ["telemetry.md", "queries.md"].map((name) =>
      Deno.readTextFileSync(new URL(`docs/${name}`, root))
    ).join("");
  for (const [, name] of text.matchAll(/Attributes\['([^']+)'\]/g)) {
    if (name !== "service.instance.id") expect(registry, name).toContain(`\`${name}\``);
  }
  for (const [, name] of text.matchAll(/\b(?:FROM|JOIN) (?!decodeURLComponent)([a-z]\w+)/g)) {
    expect(described, name).toMatch(
      new RegExp(`\\b(${name}|${name.replace(/_(gauge|sum|histogram)$/, "_\\*")})`),
    );
  }
});

describe("provisioning", () => {
  const rules = JSON.parse(files["provisioning/alerting/sdpg.json"]).groups[0].rules;

  test("a rule has a limit, a summary, a description and what to do", () => {
    expect(rules.map(({ uid }: { uid: string }) => uid)).toEqual(alerts.map(({ uid }) => uid));
    for (const rule of rules) {
      const { annotations, data, condition, title, labels, dashboardUid, panelId } = rule;
      expect(Object.keys(annotations), title).toEqual(["summary", "description", "action"]);
      for (const text of Object.values(annotations)) {
        expect((text as string).length, title).toBeGreaterThan(20);
      }
      const linked = Object.values(dashboards).find(({ uid }) => uid === dashboardUid)!;
      expect(linked.panels!.map(({ id }) => id), title).toContain(panelId);
      expect(labels.severity).toMatch(/^(warning|critical)$/);
      const [question, limit] = data;
      expect([question.datasourceUid, question.model.datasource.uid]).toEqual([
        dataSourceUid,
        dataSourceUid,
      ]);
      expect([limit.refId, limit.model.type, limit.model.expression]).toEqual([
        condition,
        "threshold",
        question.refId,
      ]);
    }
  });
  test("no dollar sign that Grafana would take for a variable of the environment", () => {
    expect(files["provisioning/alerting/sdpg.json"]).not.toContain("$");
  });
  test("the data source is the one that dashboards and rules ask, over HTTP", () => {
    const text = files["provisioning/datasources/sdpg.yaml"];
    expect(text).toMatch(new RegExp(`uid: ${dataSourceUid}\n +type: ${pluginId}\n`));
    expect(text).toContain("protocol: http");
    const variables = [...text.matchAll(/\$\{(\w+)\}/g)].map(([, name]) => name);
    const page = Deno.readTextFileSync(new URL("docs/grafana.md", root));
    for (const name of [...variables, "SDPG_DASHBOARDS"]) expect(page).toContain(name);
  });
});
