/// <reference lib="dom" />
// The list of runs: search, filter, group, sort, choose. Everything but the choice is in the address, so
// a list can be linked to; the store filters and sorts, so ten thousand runs cost what a hundred do.

import { annotate, tagList, tagsOf } from "./annotations.ts";
import { ask } from "./ask.ts";
import {
  ago,
  choice,
  type Column,
  duration,
  h,
  markShown,
  shown,
  stateBadge,
  table,
} from "./dom.ts";
import {
  type AnnotationRow,
  annotationsOf,
  type Facet,
  facetCounts,
  type FacetRow,
  facets,
  type Filter,
  groupedRuns,
  type Grouping,
  groupings,
  type GroupRow,
  noFilter,
  pageSize,
  type ReturnRow,
  returnsOf,
  type RunRow,
  runsPage,
  type Sort,
  sorts,
  tagCounts,
  type TagRow,
} from "./queries.ts";
import { selection } from "./selection.ts";
import { part, type View } from "./view.ts";

const sortedBy: Partial<Record<string, Sort>> = {
  run: "name",
  task: "task",
  algorithm: "algorithm",
  preset: "preset",
  sees: "observation",
  seed: "seed",
  state: "state",
  epochs: "epochs",
  "newest return": "newest",
  "best return": "best",
  started: "started",
  "last news": "updated",
};

export const runs: View = async ({ content, parameters, signal, title, remember, onGrowth }) => {
  const filter: Filter = {
    ...noFilter,
    search: parameters.get("q") ?? "",
    tag: parameters.get("tag") ?? "",
  };
  for (const name of facets) filter[name] = parameters.get(name) ?? "";
  const asked = parameters.get("sort") ?? "";
  let sort: Sort = Object.hasOwn(sorts, asked) ? asked as Sort : "started";
  let group = groupings.find((name) => name === parameters.get("by"));
  let page = Math.max(0, Number(parameters.get("page") ?? 0) || 0);

  const search = h("input", {
    type: "search",
    value: filter.search,
    placeholder: "name, task, seed, tag, note …",
    oninput: () => {
      filter.search = search.value.trim();
      clearTimeout(typing);
      typing = setTimeout(() => restart(true), 150);
    },
  });
  let typing: ReturnType<typeof setTimeout> | undefined;
  const filters = h("div", { class: "fields", role: "search", "aria-label": "Runs" });
  const chosen = h("div", { class: "chosen" });
  const list = h("section", { "aria-label": "List of runs", "aria-busy": "true" });
  title("Runs");
  content.append(filters, chosen, list);

  /** What can be chosen; the numbers of runs come later than the list, which is what is waited for. */
  function drawFields(counts?: FacetRow[], tags: TagRow[] = []): void {
    const selects = facets.map((name) =>
      choice(
        name,
        filter[name],
        counts ? options(counts, name) : waiting(filter[name]),
        (value) => {
          filter[name] = value;
          restart(true);
        },
      )
    );
    // Where nobody has tagged anything, there is nothing to choose.
    if (tags.length > 0 || filter.tag !== "") {
      const known = tags.map(({ tag, runs }): [string, string] => [tag, `${tag} (${runs})`]);
      if (filter.tag !== "" && !tags.some(({ tag }) => tag === filter.tag)) {
        known.push([filter.tag, `${filter.tag} (0)`]);
      }
      selects.push(choice("tag", filter.tag, [["", "all"], ...known], (value) => {
        filter.tag = value;
        restart(true);
      }));
    }
    const focused = filters.contains(document.activeElement)
      ? [...filters.querySelectorAll("input, select")].indexOf(document.activeElement!)
      : -1;
    filters.replaceChildren(
      h("label", { class: "field wide" }, h("span", {}, "search"), search),
      ...selects,
      choice(
        "group by",
        group ?? "",
        [["", "nothing"], ...groupings.map((name) => [name, name] as const)],
        (value) => {
          group = groupings.find((name) => name === value);
          restart(false);
        },
      ),
    );
    if (focused >= 0) filters.querySelectorAll<HTMLElement>("input, select")[focused]?.focus();
  }

  const waiting = (value: string) =>
    ["", value].filter((each, i) => i === 0 || each !== "")
      .map((each) => [each, each || "all"] as const);

  async function drawFilters(): Promise<void> {
    const [counts, tags] = await Promise.all([
      ask<FacetRow>(facetCounts(filter), signal),
      ask<TagRow>(tagCounts(filter), signal),
    ]);
    drawFields(counts, tags);
  }

  /** Values a filter offers with the number of runs that match the others too. */
  function options(counts: FacetRow[], name: Facet) {
    const others = facets.filter((other) => other !== name && filter[other] !== "");
    const found = new Map<string, number>();
    for (const row of counts) {
      if (!others.every((other) => row[other] === filter[other])) continue;
      found.set(row[name], (found.get(row[name]) ?? 0) + row.runs);
    }
    if (filter[name] !== "" && !found.has(filter[name])) found.set(filter[name], 0);
    const sum = [...found.values()].reduce((a, b) => a + b, 0);
    return [
      ["", `all (${sum})`] as const,
      ...[...found].filter(([value]) => value !== "").sort(([a], [b]) => a.localeCompare(b))
        .map(([value, count]) => [value, `${value} (${count})`] as const),
    ];
  }

  async function drawList(): Promise<void> {
    await part(list, signal, async () => group ? [await groups(group)] : await rows());
    markShown("list of runs");
  }

  async function rows(): Promise<Node[]> {
    const found = await ask<RunRow>(runsPage(filter, sort, page), signal);
    if (found.length === 0 && page === 0) return [nothing()];
    const names = found.map(({ run_id }) => run_id);
    const [returned, annotated] = await Promise.all([
      ask<ReturnRow>(returnsOf(names), signal),
      ask<AnnotationRow>(annotationsOf(names), signal),
    ]);
    const returns = new Map(returned.map((row) => [row.run_id, row]));
    const annotations = new Map(annotated.map((row) => [row.run_id, row]));
    const all = h("input", {
      type: "checkbox",
      "aria-label": "Choose all on this page",
      onchange: () => {
        selection.set(found.map(({ run_id }) => run_id), all.checked);
        for (const box of list.querySelectorAll<HTMLInputElement>("tbody input")) {
          box.checked = all.checked;
        }
        drawChosen();
      },
    });
    all.checked = found.every(({ run_id }) => selection.has(run_id));
    const columns: Column<RunRow>[] = [
      {
        head: "",
        cell: ({ run_id }) => {
          const box = h("input", {
            type: "checkbox",
            "aria-label": `Choose ${run_id}`,
            checked: selection.has(run_id),
            onchange: () => {
              selection.set([run_id], box.checked);
              drawChosen();
            },
          });
          return box;
        },
      },
      {
        head: "run",
        heading: true,
        cell: ({ run_id }) => {
          const cell = document.createDocumentFragment();
          const said = annotations.get(run_id);
          cell.append(h("a", { href: `#/run/${run_id}` }, run_id), ...said ? [saidOf(said)] : []);
          return cell;
        },
      },
      { head: "state", cell: ({ state }) => stateBadge(state) },
      { head: "task", cell: ({ task }) => task },
      { head: "algorithm", cell: ({ algorithm }) => algorithm },
      { head: "preset", cell: ({ preset }) => preset },
      { head: "sees", cell: ({ observation }) => observation },
      { head: "seed", numeric: true, cell: ({ seed }) => seed },
      {
        head: "newest return",
        numeric: true,
        cell: ({ run_id }) => {
          const row = returns.get(run_id);
          if (!row) return "–";
          const ci95 = row.newest_ci95 === null ? "" : ` ± ${shown(row.newest_ci95)}`;
          return h("span", {}, shown(row.newest), h("span", { class: "quiet" }, ci95));
        },
      },
      {
        head: "best return",
        numeric: true,
        cell: ({ run_id }) => shown(returns.get(run_id)?.best),
      },
      {
        head: "epochs",
        numeric: true,
        cell: ({ run_id, epochs }) =>
          String(Math.max(epochs, returns.get(run_id)?.evaluated_at ?? 0) || "–"),
      },
      {
        head: "trained",
        numeric: true,
        cell: ({ run_id }) => {
          const seconds = returns.get(run_id)?.wall_time_s;
          return seconds ? duration(seconds) : "–";
        },
      },
      { head: "started", cell: ({ started_at }) => ago(started_at) },
      { head: "last news", cell: ({ updated_at }) => ago(updated_at) },
    ];
    return [
      table("Runs", columns, found, {
        captionHidden: true,
        head: (column) => column.head === "" ? h("td", {}, all) : heading(column),
      }),
      pager(found.length),
    ];
  }

  /** Tags, and the beginning of the note. */
  function saidOf({ tags, note }: AnnotationRow): HTMLElement {
    const short = note.length > 60 ? `${note.slice(0, 59)}…` : note;
    return h(
      "div",
      { class: "said" },
      tags.length > 0 && tagList(tags),
      note !== "" && h("span", { class: "quiet", title: note }, short),
    );
  }

  function heading(column: Column<RunRow>): HTMLElement | undefined {
    const by = sortedBy[column.head];
    if (!by) return undefined;
    const rising = /^(newest|best|epochs|started|updated)$/.test(by) ? "descending" : "ascending";
    return h(
      "th",
      {
        scope: "col",
        class: column.numeric ? "numeric" : undefined,
        "aria-sort": sort === by ? rising : undefined,
      },
      h("button", {
        type: "button",
        class: "sort",
        onclick: async () => {
          sort = by;
          await restart(false);
          // The table was drawn anew: the focus stays on the heading that was pressed.
          list.querySelector<HTMLElement>("th[aria-sort] button")?.focus();
        },
      }, column.head),
    );
  }

  function pager(count: number): HTMLElement {
    const to = (by: number, text: string, enabled: boolean) =>
      h("button", {
        type: "button",
        disabled: !enabled,
        onclick: () => {
          page += by;
          save();
          return drawList();
        },
      }, text);
    return h(
      "p",
      { class: "pager" },
      to(-1, "Newer page", page > 0),
      h("span", {}, `Runs ${page * pageSize + Math.min(1, count)} to ${page * pageSize + count}`),
      to(1, "Next page", count === pageSize),
    );
  }

  function nothing(): HTMLElement {
    const filtered = filter.search !== "" || filter.tag !== "" ||
      facets.some((name) => filter[name] !== "");
    return filtered
      ? h("p", { class: "quiet" }, "No run is like that.")
      : h("p", {}, "There are no runs yet; ", h("code", {}, "./sdpg train hopper"), " starts one.");
  }

  async function groups(by: Grouping): Promise<Node> {
    const found = await ask<GroupRow>(groupedRuns(filter, by), signal);
    if (found.length === 0) return nothing();
    const keys = [...facets, "tag" as const].filter((name) => found[0][name] !== undefined);
    const columns: Column<GroupRow>[] = [
      ...keys.map((name, i) => ({
        head: name,
        heading: i === 0,
        cell: (row: GroupRow) => {
          if (!row[name]) return name === "tag" ? "no tag" : "–";
          if (i > 0) return row[name];
          const query = new URLSearchParams({ ...filterParameters(), q: filter.search });
          for (const key of keys) query.set(key, row[key]!);
          return h("a", { href: `#/runs?${query}` }, row[name]);
        },
      })),
      ...(by === "experiment"
        ? [{
          head: "configuration",
          cell: (row: GroupRow) => h("code", {}, row.configuration ?? "–"),
        }]
        : []),
      { head: "runs", numeric: true, cell: (row) => row.runs },
      { head: "going on", numeric: true, cell: (row) => row.active || "" },
      { head: "mean of newest returns", numeric: true, cell: (row) => shown(row.newest_mean) },
      { head: "best return", numeric: true, cell: (row) => shown(row.best) },
      { head: "last news", cell: (row) => ago(row.updated_at) },
      {
        head: "curves",
        cell: (row) => {
          const text = row.runs > row.names.length
            ? `compare the newest ${row.names.length}`
            : "compare";
          const which = keys.map((key) => row[key] || `no ${key}`).join(" ");
          return h("a", {
            href: `#/compare?runs=${row.names.join(",")}`,
            "aria-label": `${text}: ${which}`,
          }, text);
        },
      },
    ];
    return table(`Runs by ${by}`, columns, found, { captionHidden: true });
  }

  function drawChosen(): void {
    const names = selection.names();
    if (names.length === 0) {
      chosen.replaceChildren(
        h("span", { class: "quiet" }, "Choose runs to compare their curves, or to tag them."),
      );
      return;
    }
    const tags = h("input", { autocomplete: "off", autocapitalize: "off", spellcheck: "false" });
    const told = h("span", { role: "status" });
    chosen.replaceChildren(
      h(
        "a",
        { class: "button", href: `#/compare?runs=${names.join(",")}` },
        `Compare ${names.length} ${names.length === 1 ? "run" : "runs"}`,
      ),
      h("button", {
        type: "button",
        onclick: () => {
          selection.set(names, false);
          for (const box of list.querySelectorAll<HTMLInputElement>("input")) box.checked = false;
          drawChosen();
        },
      }, "Choose none"),
      h(
        "form",
        {
          class: "inline",
          onsubmit: async (event: SubmitEvent) => {
            event.preventDefault();
            try {
              const add = tagsOf(tags.value);
              if (add.length === 0) return;
              for (const name of names) await annotate(name, { add });
              tags.value = "";
              told.textContent = `Tagged ${add.join(", ")}.`;
              await drawList();
              await drawFilters();
            } catch (error) {
              told.textContent = (error as Error).message;
            }
          },
        },
        h("label", {}, "tag them ", tags),
        h("button", {}, "Tag"),
        told,
      ),
    );
  }

  const filterParameters = () =>
    Object.fromEntries(facets.filter((name) => filter[name] !== "").map((n) => [n, filter[n]]));

  function save(): void {
    remember({
      q: filter.search,
      tag: filter.tag,
      ...filterParameters(),
      sort: sort === "started" ? "" : sort,
      by: group ?? "",
      page: page ? String(page) : "",
    });
  }

  async function restart(refilter: boolean): Promise<void> {
    page = 0;
    save();
    await drawList();
    if (refilter) await drawFilters();
  }

  drawChosen();
  drawFields();
  await drawList();
  await drawFilters();
  onGrowth(async () => {
    // Not under the hands of someone who is in the list: a table drawn anew loses the focus.
    if (!list.contains(document.activeElement)) await drawList();
  });
};
