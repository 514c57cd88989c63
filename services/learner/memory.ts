// How much memory a run will take, said before it starts. The parts that grow with the batch are
// computed from the layout the simulator answered with; the rest are measured constants of processes
// that have loaded their libraries and compiled the task (PSS, see docs/algorithms/sdpg.md).

import type { TrainingRun } from "./run.ts";

const MiB = 1 << 20;

/** Bytes all services of a run take at its peak. */
export function estimateBytes(run: TrainingRun): number {
  const { sizes, bytes } = run.simulation;
  const { config } = run.options;
  const samples = sizes.horizon * sizes.environments;
  const float = 4;
  // What training holds at once beside the rollout buffer: normalised states and successors with an
  // intermediate of each, a dozen arrays of one value a sample, the noise and its square, and a
  // mini-batch through the widest layers with its gradients.
  const learner = samples * sizes.privileged * float * 4 +
    samples * float * 12 +
    samples * sizes.actions * float * 3 +
    config.critic.batch * float * 8 * config.critic.hidden.reduce((a, b) => a + b, 0);
  const buffers = bytes.buffer + bytes.state +
    (run.evaluation?.simulation.bytes.buffer ?? 0) + (run.evaluation?.simulation.bytes.state ?? 0);
  // With the inline transport each side holds its own copy.
  const copies = config.simulation.transport === "inline" ? bytes.buffer : 0;
  return Math.round(buffers + copies + learner + processesBytes);
}

/** Telemetry with its store, learner with libtorch, gpu-sim, command line: idle. */
const processesBytes = 570 * MiB;
