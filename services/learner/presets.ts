// Presets: layers over the defaults of algorithms/sdpg.ts and run.ts, one for each (preset, task).
// `paper` is the published setting, made for a GPU; `cpu` is what two cores learn well with. The
// reasons for the `cpu` values are measured, see docs/algorithms/sdpg.md.

import type { sdpgTree } from "./algorithms/sdpg.ts";
import type { Some } from "./configuration.ts";
import type { runTree } from "./run.ts";

export type PresetName = "cpu" | "paper";
export type Observation = "state" | "pixels";
export type PresetLayer = Some<typeof sdpgTree & typeof runTree>;

/** The published deviations that the algorithm's defaults do not already carry. */
const published: PresetLayer = {
  entropy: { soft_critic_offset: "target_std" },
};

/**
 * What two cores share: a quarter of the environments, spent on more nominals rather than more
 * auxiliaries, a gentle start, ΔJ without the luck of earlier steps, and against sudden falls of the
 * return an averaged policy that acts, is evaluated and kept, and a bound on spikes of the gradient.
 */
const twoCores: PresetLayer = {
  nominals: 64,
  auxiliaries: 15,
  epochs: 12_000,
  estimator: { baseline: "critic" },
  actor: {
    log_std_init: -1,
    output_gain: 0.01,
    warmup_epochs: 20,
    warmup_start: 0.1,
    grad_norm: 0.1,
    average: 0.95,
    act_with_average: true,
  },
  critic: { value_limit_action: "clip" },
  return_normaliser: { reset_on_done: true },
};

/**
 * Walker has to leave a standing pose that is stable and pays little. An acting average and a tight
 * gradient bound hold it there: its return was 149 after 1300 epochs, and 3255 with these values.
 */
const untied: PresetLayer = {
  actor: { grad_norm: 1, average: 0.99, act_with_average: false },
};

/**
 * Ant earns 1330 by standing still. From small noise it never leaves that: 400 epochs with the values
 * above; from σ = 1 and untied it runs after 300.
 */
const bold: PresetLayer = { actor: { log_std_init: 0 } };

/** Pictures and an encoder that two cores can afford. */
const smallPictures: PresetLayer = {
  camera: { width: 42, height: 42 },
  encoder: { kind: "small", features: 64 },
};

/** Two legs fill less of a picture than the floor: Walker never left its start without. */
const centred: PresetLayer = { encoder: { centre: "first_rollout" } };

/** The published sizes and rates of the robots that are free in space. */
const antNetworks: PresetLayer = {
  actor: { hidden: [256, 64, 32] },
  critic: { hidden: [64, 64], lr: 2e-3, lr_schedule: "linear", target_retention: 0.2 },
  entropy: { mode: "none" },
};
const humanoidNetworks: PresetLayer = {
  horizon: 16,
  actor: { hidden: [256, 128], log_std_bounds: [-2.2, 0] },
  critic: { hidden: [128, 128], lr: 5e-4, lr_schedule: "linear", target_retention: 0.2 },
  entropy: { mode: "fixed", temperature: 1e-2 },
};

export const presets: Readonly<Record<PresetName, Readonly<Record<string, PresetLayer[]>>>> = {
  paper: {
    hopper: [published, { epochs: 10_000 }],
    walker: [published, { epochs: 20_000 }],
    ant: [published, antNetworks, { epochs: 10_000 }],
    humanoid: [published, humanoidNetworks, { epochs: 100_000 }],
  },
  cpu: {
    hopper: [twoCores],
    walker: [twoCores, untied],
    ant: [twoCores, untied, antNetworks, bold],
    humanoid: [twoCores, humanoidNetworks, { epochs: 40_000 }],
  },
};

/** What learning from pixels adds to a task's preset. */
const pixels: Readonly<Record<PresetName, Readonly<Record<string, PresetLayer[]>>>> = {
  paper: {
    hopper: [{ epochs: 20_000 }],
    walker: [{ epochs: 20_000 }],
    ant: [{ epochs: 20_000, encoder: { features: 256 } }],
    humanoid: [{ epochs: 200_000, encoder: { features: 256 } }],
  },
  cpu: {
    hopper: [smallPictures],
    walker: [smallPictures, centred],
    ant: [smallPictures, centred],
    humanoid: [smallPictures, centred],
  },
};

/** A preset's layers; undefined where the task has no such preset. */
export function presetLayers(
  preset: PresetName,
  task: string,
  observation: Observation,
): PresetLayer[] | undefined {
  const layers = presets[preset][task];
  if (layers === undefined || observation === "state") return layers;
  return [...layers, { observation }, ...pixels[preset][task]];
}
