// How much memory a run will take, said before it starts. The parts that grow with the batch are
// computed from the layout the simulator answered with; the rest are measured constants of processes
// that have loaded their libraries and compiled the task (PSS, see docs/algorithms/sdpg.md).

import { cameraOf } from "./cameras.ts";
import { encoderCosts } from "./networks/encoder.ts";
import type { TrainingConfiguration, TrainingRun } from "./run.ts";
import type { View } from "./simulation.ts";

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
  // The pictures themselves are part of the buffers, and nothing else holds them.
  const pictures = sizes.horizon * sizes.nominals;
  const encoders = run.simulation.views.reduce(
    (sum, view) => sum + encoderBytes(view, config, pictures),
    0,
  );
  const elsewhere = run.evaluation === undefined && config.evaluation.every > 0;
  const evaluation = elsewhere ? evaluationBytes(run) : 0;
  const renderer = config.simulation.render === "apart" ? renderProcessBytes : 0;
  return Math.round(
    buffers + copies + learner + encoders + evaluation + renderer + processesBytes,
  );
}

/**
 * The evaluation service: its process, and of every encoder the policy that plays and the one that it
 * is read from, as bytes and as tensors.
 */
function evaluationBytes({ simulation, options: { config } }: TrainingRun): number {
  const forms = 3;
  return simulation.views.reduce(
    (sum, view) =>
      sum + forms * 4 *
        encoderCosts(config.encoder.kind, cameraOf(view), config.encoder.features).parameters,
    evaluationProcessBytes,
  );
}

/**
 * A camera's encoder in an update: its parameters in every form (the two policies, the step's start,
 * gradient, Adam's moments), packed twice for the products, a gradient per share of the pictures, and
 * the maps that the backward pass needs, kept or of the tiles at work (torch/native/conv.cc).
 */
function encoderBytes(view: View, config: TrainingConfiguration, pictures: number): number {
  const float = 4;
  const { parameters, activations } = encoderCosts(
    config.encoder.kind,
    cameraOf(view),
    config.encoder.features,
  );
  const shares = parameters > 1 << 20 ? 4 : 8;
  const copies = (config.actor.average > 0 ? 6 : 5) + 2 + shares;
  const maps = pictures * activations * float;
  const tiles = 2 * 12 * activations * float;
  return parameters * float * copies + (maps <= 64 * MiB ? maps : tiles);
}

/** Telemetry with its store, learner with libtorch, gpu-sim, command line: idle. */
const processesBytes = 570 * MiB;

/** gpu-sim drawing for another; the pictures are counted with the buffers. */
const renderProcessBytes = 20 * MiB;

/** Deno with libtorch, and the pages of their libraries that the learner no longer has to itself. */
const evaluationProcessBytes = 110 * MiB;
