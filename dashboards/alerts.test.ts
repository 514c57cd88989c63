// Every alert rule asked of the real telemetry service: it fires on the run or service that has what it is
// for, names it, and on no other one of the same store.

import { afterAll, beforeAll, expect, test } from "vitest";
import { encodeLogs, encodeMetric, type LogEvent, type Metric } from "@sdpg/common/otlp.ts";
import { startTestService, type TestService } from "../services/telemetry/service_for_tests.ts";
import { type Alert, alerts } from "./alerts.ts";
import { send } from "./seeded_for_tests.ts";

/** A little ahead, for what a busy machine takes from here to the last question. */
const nowMs = Date.now() + 30_000;
const minute = 60;

interface Made {
  /** Seconds ago: of an epoch or a sample, from the oldest on. */
  epochs: number[];
  samples: number[];
  /** Bytes of the learner so many seconds ago. */
  memory?: (ago: number) => number;
  loss?: (ago: number) => number;
  faultsPerEpoch?: number;
  state?: "running" | "done";
}

const every = (seconds: number, from: number, to: number) =>
  Array.from({ length: Math.floor((from - to) / seconds) }, (_, i) => from - i * seconds);
const usual = { epochs: every(10, 40 * minute, 5), samples: every(10, 40 * minute, 5) };

/** Runs that began 40 minutes ago; each epoch has 1000 steps. */
const runs: Record<string, Made> = {
  healthy: usual,
  // What a finished run left behind is nobody's alarm.
  finished: {
    epochs: every(10, 40 * minute, 20 * minute),
    samples: every(10, 40 * minute, 20 * minute),
    memory: (ago) => 1e9 - ago * 1e5,
    state: "done",
  },
  diverged: { ...usual, loss: (ago) => ago < 60 ? NaN : 1 },
  // NaN half an hour ago, and well since.
  recovered: { ...usual, loss: (ago) => ago > 1800 ? Infinity : 1 },
  faulty: { ...usual, faultsPerEpoch: 3 },
  // One fault in 20,000 steps.
  sturdy: { ...usual, faultsPerEpoch: 0.05 },
  slow: {
    ...usual,
    epochs: [...every(10, 40 * minute, 5 * minute), ...every(30, 5 * minute, 5)],
  },
  // A fifth slower: the machine has other work.
  shared: {
    ...usual,
    epochs: [...every(10, 40 * minute, 5 * minute), ...every(12, 5 * minute, 5)],
  },
  // 400 MB an hour; and 100 MB in its first ten minutes, then nothing.
  leaking: { ...usual, memory: (ago) => 1e9 - ago * 400e6 / 3600 },
  filling: { ...usual, memory: (ago) => 1e9 - Math.max(0, ago - 1800) * 1e6 / 6 },
  gone: {
    epochs: every(10, 40 * minute, 12 * minute),
    samples: every(10, 40 * minute, 12 * minute),
  },
  stuck: { ...usual, epochs: every(10, 40 * minute, 8 * minute) },
};

/** Labels of what each rule has to name, and nothing else. */
const expected: Record<string, string[][]> = {
  "sdpg-non-finite": [["diverged", "critic_loss"]],
  "sdpg-fault-rate": [["faulty", "overflow"]],
  "sdpg-throughput-drop": [["slow"]],
  "sdpg-memory-slope": [["leaking", "learner"]],
  "sdpg-stalled-run": [["gone"]],
  "sdpg-stalled-stream": [["stuck"]],
  "sdpg-telemetry-dropped": [["learner"]],
  "sdpg-call-errors": [["learner", "a.v1.A/Failing"]],
  "sdpg-gpu-memory": [["Made up 000001"]],
};

let home: string;
let service: TestService;
beforeAll(async () => {
  home = Deno.makeTempDirSync({ prefix: "sdpg-alerts-" });
  service = await startTestService(home);
  for (const [runId, made] of Object.entries(runs)) await post(runId, eventsOf(runId, made));
  const metrics: Record<string, string[]> = { learner: [], cli: [] };
  for (const ago of every(10, 20 * minute, 0)) {
    for (const [name, list] of Object.entries(metrics)) list.push(...metricsOf(name, ago));
  }
  await send(service.url, "metrics", metrics);
});
afterAll(async () => {
  await service.kill();
  Deno.removeSync(home, { recursive: true });
});

async function post(runId: string, events: LogEvent[]) {
  const response = await fetch(`${service.url}/v1/logs`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: encodeLogs({ "service.name": "test", "service.instance.id": runId }, events),
  });
  if (!response.ok) throw new Error(await response.text());
}

function eventsOf(runId: string, made: Made): LogEvent[] {
  const events: LogEvent[] = [];
  const add = (eventName: string, ago: number, attributes: LogEvent["attributes"]) =>
    events.push({
      eventName,
      timeUnixNano: BigInt(Math.round(nowMs - ago * 1000)) * 1_000_000n,
      attributes: {
        "rl.run.id": runId,
        "rl.sequence": BigInt(events.length + 1),
        ...attributes,
      },
    });
  const began = 40 * minute;
  add("rl.run", began, { "rl.run.state": "started", "rl.task": "ant", "rl.agent": "sdpg" });
  add("rl.run", began - 1, { "rl.run.state": "running" });
  made.epochs.forEach((ago, i) => {
    const epoch = BigInt(i + 1);
    add("rl.iteration", ago, {
      "rl.iteration": epoch,
      "rl.env_steps.nominal": epoch * 100n,
      "rl.env_steps.total": epoch * 1000n,
      "rl.images": 0n,
      "rl.wall_time": began - ago,
      "rl.gpu_seconds": 0,
      "rl.scalars": { critic_loss: made.loss?.(ago) ?? 1, rewards: 1 },
    });
    const faults = Math.floor((i + 1) * (made.faultsPerEpoch ?? 0)) -
      Math.floor(i * (made.faultsPerEpoch ?? 0));
    if (faults > 0) {
      add("rl.fault", ago, {
        "rl.service": "gpu-sim",
        "rl.fault.kind": "overflow",
        "rl.iteration": epoch,
        "rl.fault.count": BigInt(faults),
      });
    }
  });
  for (const ago of made.samples) {
    const bytes = BigInt(Math.round(made.memory?.(ago) ?? 3e8 + 1e6 * (ago % 7)));
    add("process.resources", ago, {
      "rl.service": "learner",
      "process.pid": 1n,
      "process.cpu.time": 1,
      "process.memory.usage": bytes,
      "process.memory.proportional": bytes,
      "process.memory.shared": 0n,
    });
  }
  if (made.state === "done") add("rl.run", made.epochs.at(-1)!, { "rl.run.state": "done" });
  return events;
}

/** Of a service that started 20 minutes ago. */
function metricsOf(name: string, ago: number): string[] {
  const times = { startMs: nowMs - 20 * minute * 1000, timeMs: nowMs - ago * 1000 };
  const passed = 20 * minute - ago;
  const list: Metric[] = [{
    name: "rl.telemetry.dropped",
    unit: "{row}",
    kind: "sum",
    // The learner has dropped rows five minutes ago, the command line only before the last ten.
    value: name === "learner" ? (ago < 300 ? 50 : 0) : Math.min(passed, 300),
    ...times,
  }];
  if (name === "learner") {
    const distribution = (method: string, status: string, count: number) => ({
      attributes: {
        "rpc.system.name": "grpc",
        "rpc.method": method,
        "rpc.response.status_code": status,
      },
      counts: [count, 0],
      count,
      sum: count,
      min: 1,
      max: 1,
    });
    list.push({
      name: "rpc.client.call.duration",
      unit: "s",
      kind: "histogram",
      bounds: [10],
      distributions: [
        distribution("a.v1.A/Failing", "OK", 9 * passed),
        distribution("a.v1.A/Failing", "UNAVAILABLE", passed),
        distribution("a.v1.A/Left", "OK", passed),
        distribution("a.v1.A/Left", "CANCELLED", passed),
        distribution("a.v1.A/Rare", "UNAVAILABLE", 3),
        // Failed at the beginning, and not in the last ten minutes.
        distribution("a.v1.A/Mended", "OK", passed),
        distribution("a.v1.A/Mended", "UNAVAILABLE", Math.min(passed, 300)),
      ],
      ...times,
    });
    for (const [id, value] of [["1", 0.97], ["2", ago < 60 ? 0.99 : 0.5]] as const) {
      list.push({
        name: "hw.gpu.memory.utilization",
        unit: "1",
        kind: "gauge",
        value,
        attributes: { "hw.id": `GPU-${id.padStart(12, "0")}`, "hw.name": "Made up" },
        ...times,
      });
    }
  }
  return list.map(encodeMetric);
}

/** Labels of the rows above the rule's limit, as Grafana reads a table: texts are labels, one is a number. */
async function fired(alert: Alert): Promise<string[][]> {
  const text = await service.ask(`${alert.sql}\nFORMAT JSONCompactEachRowWithNamesAndTypes`);
  const [names, types, ...rows] = text.split("\n").map((line) => JSON.parse(line));
  const numbers = types.filter((type: string) => /Float64|U?Int\d/.test(type));
  expect(numbers, names).toEqual(["Float64"]);
  expect(types.at(-1)).toBe("Float64");
  // Templates name labels that are there.
  for (const [, label] of `${alert.summary} ${alert.description}`.matchAll(/\.Labels\.(\w+)/g)) {
    expect(names.slice(0, -1)).toContain(label);
  }
  return (rows as unknown[][]).filter((row) => Number(row.at(-1)) > alert.above)
    .map((row) => row.slice(0, -1).map(String));
}

test("every rule is tried", () => {
  expect(alerts.map(({ uid }) => uid)).toEqual(Object.keys(expected));
});
test.each(alerts)("$title", async (alert) => {
  expect(await fired(alert)).toEqual(expected[alert.uid]);
});
