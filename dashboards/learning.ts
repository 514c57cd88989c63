// "Learning": what experiments reach, over which axis, how surely, and what their reward is made of.

import * as common from "@grafana/grafana-foundation-sdk/common";
import { chosen, chosenAxis, chosenStep, runs, withAxis } from "./clickhouse.ts";
import { makeDashboard, toRun } from "./dashboard.ts";
import { overAxis, row, rows } from "./panels.ts";
import * as variables from "./variables.ts";

const noRuns = "No run has this curve: choose other runs, or another curve, above";

/** Rows of the chosen curve, and how far apart its points are drawn. */
const ofCurve = `curves AS s WHERE s.run_id IN (${runs}) AND s.name = ${chosen("curve")}`;
const step = chosenStep(200, ofCurve);

/** The curve's mean over the seeds of each experiment, at 200 points of the chosen axis. */
const means = `
      FROM learning_curves(runs = ${runs}, name = ${chosen("curve")}, axis = ${chosen("axis")},
                           step = ${step})`;

const overlay = overAxis({
  title: "${curve}: mean over seeds, by experiment",
  description:
    "One line for each experiment (runs that differ in nothing but the seed): the mean of its seeds at " +
    "the same point of the axis, read between the points of each run in a straight line. A mean stands " +
    "where at least one seed has data; the panels below show the seeds and how sure the mean is.",
  empty: noRuns,
  width: 24,
  height: 12,
  sql: `
      SELECT x, experiment AS series, mean AS value${means}
      ORDER BY x, series`,
});

/** Mean, interval and seeds of one experiment: this panel is repeated for each. */
const withInterval = overAxis({
  title: "${experiment}: ${curve} with interval and seeds",
  description:
    "Thick: the mean of the seeds. Shaded: Student's 95 % interval of that mean, none for one seed. " +
    "Thin: the seeds, each the mean of its values in a two-hundredth of the axis.",
  empty: noRuns,
  width: 12,
  sql: `
      ${withAxis}
      SELECT x, series, value
      FROM (
          SELECT x, part.1 AS series, part.2 AS value
          FROM (
              SELECT x, arrayJoin([('mean', mean), ('low', mean - ci95), ('high', mean + ci95)]) AS part${
    means.replaceAll("\n", "\n        ")
  }
              WHERE experiment = ${chosen("experiment")}
          )
          UNION ALL
          SELECT avg(p.at) AS x, concat('seed ', toString(e.seed), ' (', p.run_id, ')') AS series,
                 avg(p.reached) AS value
          FROM (
              SELECT c.run_id AS run_id, ${chosenAxis("c")} AS at, c.value AS reached
              FROM curves AS c
              WHERE c.run_id IN (${runs}) AND c.name = ${chosen("curve")} AND isFinite(c.value)
          ) AS p
          INNER JOIN experiments AS e ON e.run_id = p.run_id
          WHERE e.experiment = ${chosen("experiment")}
          GROUP BY p.run_id, e.seed, floor(p.at / ${step})
      )
      WHERE isFinite(value) AND isFinite(x)
      ORDER BY x, series`,
})
  .overrideByRegexp("^seed ", [
    { id: "custom.lineWidth", value: 1 },
    { id: "color", value: { mode: "fixed", fixedColor: "text" } },
    { id: "custom.lineStyle", value: { fill: "solid" } },
    { id: "custom.showPoints", value: common.VisibilityMode.Never },
  ])
  .overrideByName("mean", [
    { id: "custom.lineWidth", value: 3 },
    { id: "color", value: { mode: "fixed", fixedColor: "blue" } },
  ])
  .overrideByName("high", [
    { id: "custom.lineWidth", value: 0 },
    { id: "custom.fillBelowTo", value: "low" },
    { id: "custom.hideFrom", value: { legend: true, tooltip: false, viz: false } },
    { id: "custom.fillOpacity", value: 20 },
    { id: "color", value: { mode: "fixed", fixedColor: "blue" } },
    { id: "custom.showPoints", value: common.VisibilityMode.Never },
  ])
  .overrideByName("low", [
    { id: "custom.lineWidth", value: 0 },
    { id: "custom.hideFrom", value: { legend: true, tooltip: false, viz: false } },
    { id: "color", value: { mode: "fixed", fixedColor: "blue" } },
    { id: "custom.showPoints", value: common.VisibilityMode.Never },
  ])
  .repeat("experiment").repeatDirection("h").maxPerRow(2);

const timeToReturn = rows({
  title: "Time to reach a return of ${threshold}",
  description:
    "The first evaluation of each run that was at least the return chosen above. The medians are of the " +
    "runs that reached it: compare experiments only where all of their seeds did.",
  empty: "No evaluations: they come every 25 epochs of a training",
  width: 24,
  height: 8,
  columns: {
    experiment: { title: "Experiment" },
    seeds: { title: "Seeds" },
    reached_it: { title: "Reached it" },
    median_seconds: { title: "Training time, median", unit: "s" },
    fastest_seconds: { title: "fastest", unit: "s" },
    slowest_seconds: { title: "slowest", unit: "s" },
    median_env_steps_total: { title: "Environment steps (total), median", unit: "short" },
    median_epochs: { title: "Epochs, median", unit: "short" },
  },
  sql: `
      SELECT experiment, count() AS seeds, countIf(t.reached) AS reached_it,
             median(t.wall_time_s) AS median_seconds, min(t.wall_time_s) AS fastest_seconds,
             max(t.wall_time_s) AS slowest_seconds, median(t.env_steps_total) AS median_env_steps_total,
             median(t.iteration) AS median_epochs
      FROM time_to_return(threshold = toFloat64(${chosen("threshold")})) AS t
      INNER JOIN experiments AS e ON e.run_id = t.run_id
      WHERE t.run_id IN (${runs})
      GROUP BY experiment
      ORDER BY reached_it DESC, median_seconds`,
});

const bySeed = rows({
  title: "Evaluations by seed",
  description:
    "The newest evaluation of each run, its best one, and the mean of its last four: single evaluations " +
    "scatter, so compare the mean. A click on a run opens it.",
  empty: "No evaluations: they come every 25 epochs of a training",
  width: 24,
  columns: {
    experiment: { title: "Experiment" },
    run: { title: "Run", link: toRun("run") },
    seed: { title: "Seed" },
    state: { title: "State" },
    epochs: { title: "Epochs" },
    newest: { title: "Newest", unit: "locale", decimals: 0 },
    mean_last: { title: "Mean of the last four", unit: "locale", decimals: 0 },
    best: { title: "Best", unit: "locale", decimals: 0 },
    best_iteration: { title: "Best at epoch" },
    wall_time_s: { title: "Training time", unit: "s" },
  },
  sql: `
      SELECT e.experiment AS experiment, e.run_id AS run, e.seed AS seed, p.state AS state, p.epochs AS epochs,
             s.newest AS newest, s.mean_last AS mean_last, s.best AS best, s.best_iteration AS best_iteration,
             p.wall_time_s AS wall_time_s
      FROM evaluation_summary(last = 4) AS s
      INNER JOIN experiments AS e ON e.run_id = s.run_id
      INNER JOIN run_progress AS p ON p.run_id = s.run_id
      WHERE s.run_id IN (${runs})
      ORDER BY experiment, seed, run`,
});

/** Reward terms of the experiment that a panel is repeated for. */
const terms = `scalars AS s
          WHERE s.run_id IN (${runs}) AND startsWith(s.name, 'reward_term/')
            AND s.run_id IN (SELECT run_id FROM experiments WHERE experiment = ${
  chosen("experiment")
})`;

const rewardTerms = overAxis({
  title: "${experiment}: reward by term",
  description:
    "What a nominal environment earned by each term in a segment, mean over nominals and seeds; the terms " +
    "add up to rollout_reward. A policy that games one term shows here first.",
  empty: "This experiment recorded no reward terms",
  width: 12,
  sql: `
      ${withAxis}
      SELECT avg(at) AS x, substring(name, length('reward_term/') + 1) AS series, avg(reward) AS value
      FROM (
          SELECT ${chosenAxis("s")} AS at, toString(s.name) AS name, s.value AS reward
          FROM ${terms} AND isFinite(s.value)
      )
      WHERE isFinite(at)
      GROUP BY name, floor(at / ${chosenStep(200, terms)})
      ORDER BY x, series`,
}).repeat("experiment").repeatDirection("h").maxPerRow(2);

export const learning = makeDashboard({
  uid: "sdpg-learning",
  title: "SDPG: learning",
  description:
    "Experiments compared: curves with intervals over seeds, time to a return, reward terms",
  variables: [
    ...variables.manyRuns(),
    variables.curve(),
    variables.axis(),
    variables.threshold(),
    variables.experiment(),
  ],
  refresh: "5m",
  parts: [
    row("All experiments"),
    overlay,
    timeToReturn,
    bySeed,
    row("Each experiment"),
    withInterval,
    row("Reward terms"),
    rewardTerms,
  ],
});
