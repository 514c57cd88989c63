// What scheduled evaluations cost a training that leaves them a core: one run with one thread, in which
// epochs beside an evaluation and epochs without one take turns every second or two. Each stretch from
// one evaluation to the next gives a ratio of its own, so what other programs do to the machine in the
// meantime falls out; the spread is over the stretches.

import { sdpgHome } from "@sdpg/common/home.ts";
import { quantile } from "@sdpg/common/quantile.ts";
import { openMesh } from "./mesh.ts";
import { CliError } from "./process.ts";
import { sampleProcesses } from "./procfs.ts";
import { watchRun } from "./watch_run.ts";

/** Epochs from one evaluation to the next: about half of them pass before the result is there. */
const every = 20;
const episodes = 16;
/** Stretches at the beginning that are not counted: episodes are short, caches cold. */
const skipped = 2;

/** Epochs from one scheduled evaluation to the next: those that passed while it was played, and the rest. */
interface Stretch {
  beside: Epoch[];
  alone: Epoch[];
}
interface Epoch {
  seconds: number;
  cpuSeconds: number; // of all services
}

export type EvaluationFigures = Record<string, number | number[]>;

/** Trains Ant, whose episodes last to their limit from the start, for `stretches` evaluations. */
export async function measureEvaluation(
  { stretches, observation, progress }: {
    stretches: number;
    observation: string;
    progress(line: string): void;
  },
): Promise<EvaluationFigures> {
  if (navigator.hardwareConcurrency < 2) {
    throw new CliError("Cannot measure evaluations on a second core: this machine has one");
  }
  const mesh = await openMesh({ home: sdpgHome(), threads: 1, ownServices: true, progress });
  const measured: Stretch[] = [];
  try {
    const { runId } = await mesh.learner.startRun({
      task: "ant",
      preset: "cpu",
      observation,
      runId: `bench-evaluation-${Date.now()}`,
      epochs: BigInt(every * (skipped + stretches + 1)),
      overrides: {
        "evaluation.every": String(every),
        "evaluation.episodes": String(episodes),
        "checkpoint.every": "0",
      },
    }, { deadlineMs: 60_000 });
    const processes = mesh.services.map(({ pid }) => pid);
    const cpuSeconds = async () =>
      (await sampleProcesses(processes)).reduce((sum, sample) => sum + sample.cpuSeconds, 0);
    let before: { wallTimeS: number; cpuSeconds: number } | undefined;
    let stretch: Stretch | undefined; // from the first evaluation on
    let playing = false;
    for await (const event of watchRun(mesh.learner, runId)) {
      if (event.case === "evaluation") playing = false;
      if (event.case !== "epoch") continue;
      const { wallTimeS } = event.value;
      const now = { wallTimeS, cpuSeconds: await cpuSeconds() };
      if (before && stretch) {
        const seconds = now.wallTimeS - before.wallTimeS;
        (playing ? stretch.beside : stretch.alone).push({
          seconds,
          cpuSeconds: now.cpuSeconds - before.cpuSeconds,
        });
      }
      before = now;
      if (Number(event.value.epoch) % every === 0) {
        if (stretch) measured.push(stretch);
        stretch = { beside: [], alone: [] };
        playing = true;
      }
    }
  } finally {
    mesh.learner.$close();
    await mesh.close();
  }
  return figures(measured.slice(skipped));
}

/** Ratios per stretch and their quartiles. Exported for its test. */
export function figures(stretches: readonly Stretch[]): EvaluationFigures {
  const usable = stretches.filter(({ beside, alone }) => beside.length > 0 && alone.length > 0);
  if (usable.length === 0) {
    throw new CliError(
      "No stretch had epochs both beside an evaluation and without one; the machine is too busy, or " +
        "evaluations are too slow for it",
    );
  }
  const sum = (epochs: readonly Epoch[], key: keyof Epoch) =>
    epochs.reduce((total, epoch) => total + epoch[key], 0);
  const seconds = (epochs: readonly Epoch[]) => sum(epochs, "seconds");
  const perEpoch = (epochs: readonly Epoch[]) => seconds(epochs) / epochs.length;
  const cores = (epochs: readonly Epoch[]) => sum(epochs, "cpuSeconds") / seconds(epochs);
  const rows = usable.map(({ beside, alone }) => {
    const without = perEpoch(alone);
    return {
      without,
      beside: without / perEpoch(beside),
      throughput: without / perEpoch([...beside, ...alone]),
      share: (cores(beside) - cores(alone)) * seconds(beside) / seconds([...beside, ...alone]),
    };
  });
  const of = (key: keyof typeof rows[0]) =>
    [0.25, 0.5, 0.75].map((share) => quantile(rows.map((row) => row[key]), share));
  return {
    stretches: usable.length,
    epoch_without_s: of("without"),
    throughput_beside_an_evaluation: of("beside"),
    throughput_with_evaluations: of("throughput"),
    share_of_a_core_for_evaluations: of("share"),
  };
}
