// Runs with numbers that can be worked out by hand, told to a telemetry service as a training would
// tell them: three seeds of hopper, one of walker, 40 epochs each.

import { encodeLogs, type LogEvent } from "@sdpg/common/otlp.ts";

export const epochs = 40;
export const evaluationEvery = 10;
/** 2026-01-01 00:00:00 UTC: the beginning of every run. */
export const beginS = 1_767_225_600;

export interface SeededRun {
  runId: string;
  task: string;
  seed: number;
  epochs: number;
  /** Seconds of an epoch. */
  pace: number;
  configuration: unknown;
  /** Seconds since 1970, `beginS` unless said. */
  beginS?: number;
  /** Scalars of an epoch beside the return and the phases. */
  more?: (epoch: number) => Record<string, number>;
  /** "done" unless said. */
  ends?: "done" | "running";
}

const configuration = (lr: number) => ({ nominals: 64, auxiliaries: 15, actor: { lr }, epochs });

export const seededRuns: SeededRun[] = [
  ...[0, 1, 2].map((seed) => ({
    runId: `hopper-${seed}`,
    task: "hopper",
    seed,
    epochs,
    pace: 2 + seed / 2,
    configuration: configuration(0.002),
  })),
  {
    runId: "walker-0",
    task: "walker",
    seed: 0,
    epochs,
    pace: 4,
    configuration: configuration(0.001),
  },
];

export const evaluatedReturn = ({ task, seed }: SeededRun, epoch: number): number =>
  (task === "hopper" ? 100 : 60) * epoch + 50 * seed * seed;
export const trainingReturn = ({ seed }: SeededRun, epoch: number): number =>
  epoch * epoch + 10 * seed;
/** Seconds of an epoch's phases, by share of its time; 2 % are left unexplained. */
export const phaseShares = {
  rollout: 0.5,
  "rollout/simulation": 0.375,
  actor: 0.25,
  critic: 0.23,
};
/** Bytes of a service `epoch` epochs into the run; the learner grows. */
export const memoryOf = (service: string, epoch: number): number =>
  service === "learner" ? 200e6 + 1e6 * epoch : service === "gpu-sim" ? 15e6 : 300e6 - 2e6 * epoch;
export const services = ["gpu-sim", "learner", "telemetry"];

/** Stores the runs through OTLP. */
export async function seedRuns(url: string, runs: SeededRun[] = seededRuns): Promise<void> {
  for (const run of runs) {
    const resource = { "service.name": "test", "service.instance.id": `seed-${run.runId}` };
    const response = await fetch(`${url}/v1/logs`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: encodeLogs(resource, eventsOf(run)),
    });
    const answer = await response.text();
    if (!response.ok) throw new Error(`Cannot seed ${run.runId}: ${answer}`);
  }
}

function eventsOf(run: SeededRun): LogEvent[] {
  const events: LogEvent[] = [];
  const add = (eventName: string, atS: number, attributes: LogEvent["attributes"]) =>
    events.push({
      eventName,
      timeUnixNano: BigInt(Math.round(((run.beginS ?? beginS) + atS) * 1e6)) * 1000n,
      attributes: {
        "rl.run.id": run.runId,
        "rl.sequence": BigInt(events.length + 1),
        ...attributes,
      },
    });
  add("rl.run", 0, {
    "rl.run.state": "started",
    "rl.task": run.task,
    "rl.agent": "sdpg",
    "rl.preset": "cpu",
    "rl.observation": "state",
    "rl.seed": BigInt(run.seed),
    "rl.configuration": JSON.stringify(run.configuration),
    "service.version": "0123abc",
    "rl.hardware": JSON.stringify({ processor: "test", cores: 2 }),
  });
  for (let epoch = 1; epoch <= run.epochs; epoch++) {
    const wallTimeS = epoch * run.pace;
    const axes = {
      "rl.iteration": BigInt(epoch),
      "rl.env_steps.nominal": BigInt(epoch * 64 * 32),
      "rl.env_steps.total": BigInt(epoch * 64 * 16 * 32),
      "rl.images": BigInt(epoch * 64),
      "rl.wall_time": wallTimeS,
      "rl.gpu_seconds": 0,
    };
    for (const service of services) {
      add("process.resources", Math.floor(wallTimeS) - 0.5, {
        "rl.service": service,
        "process.pid": BigInt(100 + services.indexOf(service)),
        "process.cpu.time": wallTimeS / 2,
        "process.memory.usage": BigInt(2 * memoryOf(service, epoch)),
        "process.memory.proportional": BigInt(memoryOf(service, epoch)),
        "process.memory.shared": 0n,
      });
    }
    const phases = Object.entries(phaseShares).map(([name, share]) =>
      [`phase/${name}`, share * run.pace] as const
    );
    add("rl.iteration", wallTimeS, {
      ...axes,
      "rl.scalars": {
        rewards: trainingReturn(run, epoch),
        ...Object.fromEntries(phases),
        ...run.more?.(epoch),
      },
    });
    if (epoch % evaluationEvery === 0) {
      const mean = evaluatedReturn(run, epoch);
      add("rl.evaluation", wallTimeS, {
        ...axes,
        "rl.returns": [mean - 5, mean + 5],
        "rl.lengths": [100n, 200n],
      });
    }
  }
  for (const [iteration, count] of [[7n, 2n], [9n, 1n]]) {
    if (run.seed !== 1) continue;
    add("rl.fault", 20, {
      "rl.service": "gpu-sim",
      "rl.fault.kind": "non_finite",
      "rl.iteration": iteration,
      "rl.fault.count": count,
    });
  }
  add("rl.run", run.epochs * run.pace, {
    "rl.run.state": run.ends ?? "done",
    "rl.epochs": BigInt(run.epochs),
    "rl.checkpoint": `/somewhere/${run.runId}/checkpoints/last`,
  });
  return events;
}
