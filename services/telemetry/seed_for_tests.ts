// A store full of made-up runs, for tests and measurements of what reads it: written by the store's own
// code with the service's own schema, the same rows for the same sizes (the noise is a hash of the
// row's place).
//
//   deno run -A services/telemetry/seed_for_tests.ts HOME [runs] [epochs]

import { createHome } from "@sdpg/common/home.ts";
import { migrate, readMigrations } from "./migrate.ts";
import type { Store } from "./store.ts";
import { openTestStore } from "./store_for_tests.ts";

export interface SeedSize {
  /** Three seeds of each experiment after the other. */
  runs: number;
  /** Epochs of each run; an evaluation every tenth. */
  epochs: number;
}

/** Scalars by name: a formula over `progress` (0 to 1), `skill` of the run (0 to 1) and `noise` (-1 to 1). */
const scalarFormulas: Record<string, string> = {
  "rewards": "4000 * skill * progress * (2 - progress) + 150 * noise",
  "critic_loss": "20 * exp(-4 * progress) + 0.5 * noise",
  "policy_std": "0.6 - 0.4 * progress",
  "actor_lr": "0.002 * (1 - progress)",
  "reward_term/forward": "2.4 * skill * progress + 0.1 * noise",
  "reward_term/upright": "0.9 - 0.3 * exp(-6 * progress) + 0.02 * noise",
  "reward_term/control": "-0.4 * exp(-3 * progress) + 0.01 * noise",
  "phase/rollout": "0.16 + 0.01 * noise",
  "phase/rollout/inference": "0.03 + 0.002 * noise",
  "phase/rollout/simulation": "0.12 + 0.005 * noise",
  "phase/rollout/simulation/physics": "0.09 + 0.003 * noise",
  "phase/rollout/simulation/task": "0.02 + 0.001 * noise",
  "phase/actor": "0.05 + 0.003 * noise",
  "phase/critic": "0.04 + 0.003 * noise",
  "phase/evaluation": "if(epoch % 10 = 0, 0.2, 0)",
};

/** A number of its place in 0 … 1: the same in every store. */
const hashed = (...of: string[]) => `(cityHash64(${of.join(", ")}) % 10007) / 10006`;

const runName = "concat(task, '-', algorithm, '-', toString(r))";
/** What run number r is: experiment e, three seeds each. */
const runFacts = `
  intDiv(r, 3) AS e, r % 3 AS seed,
  ['hopper', 'walker', 'ant', 'humanoid'][1 + e % 4] AS task,
  ['sdpg', 'ppo', 'drqv2'][1 + intDiv(e, 4) % 3] AS algorithm,
  ['cpu', 'paper'][1 + intDiv(e, 12) % 2] AS preset,
  ['pixels', 'state'][1 + intDiv(e, 24) % 2] AS observation,
  multiIf(r % 17 = 5, 'failed', r % 11 = 3, 'stopped', r % 29 = 1, 'running', 'done') AS state,
  0.35 + 0.6 * ${hashed("e", "1")} + 0.05 * ${hashed("r", "2")} AS skill,
  ${runName} AS run_id,
  toDateTime64('2026-10-01 00:00:00', 9, 'UTC') + toIntervalSecond(r * 240) AS began`;

const axes = (epoch: string) => `
  ${epoch} * 2048 AS env_steps_nominal, ${epoch} * 32768 AS env_steps_total,
  if(observation = 'pixels', ${epoch} * 2048, 0) AS images_rendered,
  ${epoch} * (0.25 + 0.05 * ${hashed("e", "3")}) AS wall_time_s, 0 AS gpu_seconds,
  began + toIntervalMillisecond(toUInt64(${epoch} * 250)) AS time`;

/** Fills the store of a home that has none yet. */
export async function seedStore(home: string, { runs, epochs }: SeedSize): Promise<void> {
  createHome(home);
  const store = await openTestStore(home);
  try {
    await migrate(store, readMigrations());
    await seedStates(store, runs, epochs);
    const names = Object.keys(scalarFormulas);
    const formulas = Object.values(scalarFormulas);
    // Some thousand runs at a time: an insert sorts what it writes in memory.
    const perInsert = Math.max(1, Math.floor(2_000_000 / (epochs * names.length)));
    for (let from = 0; from < runs; from += perInsert) {
      const count = Math.min(perInsert, runs - from);
      await store.command(`
INSERT INTO scalars
SELECT run_id, epoch AS iteration, name, value, ${columnsOf("env_steps_nominal")}
FROM (SELECT number, ${from} + intDiv(number, ${epochs * names.length}) AS r,
             1 + intDiv(number, ${names.length}) % ${epochs} AS epoch,
             1 + number % ${names.length} AS which, ${runFacts}, ${axes("epoch")},
             epoch / ${epochs} AS progress, 2 * ${hashed("r", "epoch", "which")} - 1 AS noise,
             [${names.map((name) => `'${name}'`)}][which] AS name,
             [${formulas.map((formula) => `toFloat64(${formula})`)}][which] AS value
      FROM numbers(${count * epochs * names.length}))`);
    }
    await seedEvaluations(store, runs, epochs);
    await seedRest(store, runs);
    await seedTrace(store, epochs);
  } finally {
    await store.close();
  }
}

const columnsOf = (first: string) => {
  const all = [
    "env_steps_nominal",
    "env_steps_total",
    "images_rendered",
    "wall_time_s",
    "gpu_seconds",
    "time",
  ];
  return all.slice(all.indexOf(first)).join(", ");
};

async function seedStates(store: Store, runs: number, epochs: number): Promise<void> {
  // The size of a real configuration; experiments of one kind differ in one key.
  const filling = Array.from({ length: 40 }, (_, i) => `"part${i}":{"value":${i},"mode":"auto"}`);
  await store.command(`
INSERT INTO run_states
SELECT run_id, position, ['started', 'running', state][1 + position] AS state, task, algorithm, preset,
       observation, seed,
       if(position = 0, concat('{"discount":0.99,"actor":{"lr":', toString(0.001 * (1 + intDiv(e, 48))),
          '},${filling.join(",")}}'), NULL) AS configuration,
       'abcdef012345', '{"processor":"made up","cores":2}', if(position = 2, ${epochs}, 0) AS epochs,
       if(state = 'failed' AND position = 2, 'gpu-sim ended while it was needed', NULL) AS reason,
       NULL, NULL, began + toIntervalSecond(position * 60), run_id AS source, position + 1
FROM (SELECT intDiv(number, 3) AS r, number % 3 AS position, ${runFacts} FROM numbers(${
    runs * 3
  }))`);
}

async function seedEvaluations(store: Store, runs: number, epochs: number): Promise<void> {
  const each = Math.max(1, Math.floor(epochs / 10));
  await store.command(`
INSERT INTO evaluations
SELECT run_id, epoch, ${columnsOf("env_steps_nominal").replace(", time", "")}, 16,
       mean, 300, 160, mean - 500, mean + 450, 900, time
FROM (SELECT intDiv(number, ${each}) AS r, 10 * (1 + number % ${each}) AS epoch, ${runFacts},
             ${axes("epoch")}, epoch / ${epochs} AS progress,
             4200 * skill * progress * (2 - progress) + 200 * (2 * ${
    hashed("r", "epoch")
  } - 1) AS mean
      FROM numbers(${runs * each}))`);
}

/** Samples of processes of the first hundred runs, and faults of some. */
async function seedRest(store: Store, runs: number): Promise<void> {
  const some = Math.min(runs, 100);
  await store.command(`
INSERT INTO resources
SELECT run_id, service, 1000 + which, began + toIntervalSecond(second), second * 0.4,
       toUInt64(bytes * 1.2), toUInt64(bytes), toUInt64(bytes * 0.2), run_id, number + 1
FROM (SELECT number, intDiv(number, 1200) AS r, ${runFacts}, 1 + number % 4 AS which,
             intDiv(number, 4) % 300 AS second,
             ['learner', 'gpu-sim', 'evaluation', 'telemetry'][which] AS service,
             [380e6, 210e6, 90e6, 120e6][which] * (1 + 0.1 * second / 300) AS bytes
      FROM numbers(${some * 1200}))`);
  await store.command(`
INSERT INTO faults
SELECT run_id, 'gpu-sim', 'non_finite', 40, 2, 'a made-up message <b>not bold</b>',
       began + toIntervalSecond(30), run_id, 1
FROM (SELECT number AS r, ${runFacts} FROM numbers(${some})) WHERE r % 4 = 0`);
}

/** The trace of the first run's newest epoch: its spans, each with what it is under. */
async function seedTrace(store: Store, epochs: number): Promise<void> {
  // Traces expire: this one is of today.
  const dayS = Math.floor(Date.now() / 86_400_000) * 86_400;
  const spans = [
    ["rl.iteration", "", "", "learner", 0, 250],
    ["rollout", "rl.iteration", "rollout", "learner", 0, 150],
    ["physics", "rollout", "rollout/simulation/physics", "gpu-sim", 10, 90],
    ["actor", "rl.iteration", "actor", "learner", 150, 60],
  ];
  for (const [name, parent, phase, service, startMs, durationMs] of spans) {
    await store.command(`
INSERT INTO otel_traces (Timestamp, TraceId, SpanId, ParentSpanId, SpanName, ServiceName,
                         SpanAttributes, Duration, StatusCode)
SELECT toDateTime64(${dayS}, 9, 'UTC') + toIntervalMillisecond(${startMs}),
       lower(hex(substring(SHA256('hopper-sdpg-0 ${epochs}'), 1, 16))), '${name}', '${parent}',
       '${name}', '${service}', map('rl.phase', '${phase}'), ${Number(durationMs) * 1e6}, 'Unset'`);
  }
}

if (import.meta.main) {
  const [home, runs = "24", epochs = "200"] = Deno.args;
  if (!home) {
    throw new Error("Expected a directory to fill: seed_for_tests.ts HOME [runs] [epochs]");
  }
  const started = performance.now();
  await seedStore(home, { runs: Number(runs), epochs: Number(epochs) });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const scalars = Number(runs) * Number(epochs) * Object.keys(scalarFormulas).length;
  console.log(`${runs} runs, ${scalars} scalars in ${seconds} s`);
}
