import { expect, test } from "vitest";
import {
  bounds,
  choice,
  ConfigurationError,
  configure,
  flag,
  format,
  integer,
  leaves,
  readConfiguration,
  real,
  type Tree,
  widths,
} from "./configuration.ts";
import { smallestPicture } from "./networks/encoder.ts";
import { presetLayers, type PresetName, presets } from "./presets.ts";
import { configureTraining, trainingTree } from "./run.ts";

const tree = {
  size: integer(4, "how many", { min: 1, max: 10 }),
  actor: {
    lr: real(1e-3, "rate", { above: 0 }),
    hidden: widths([8, 4], "layers"),
    bounds: bounds([-2, 2], "clamp"),
    kind: choice(["a", "b"], "a", "which"),
    on: flag(false, "whether"),
  },
} satisfies Tree;

test("configure() takes the default, then the layers, then the overrides", () => {
  const config = configure(tree, [{ size: 5, actor: { lr: 0.5 } }, { actor: { lr: 0.25 } }], {
    "actor.hidden": "16,8,2",
    "actor.bounds": "none",
    "actor.on": "true",
  });
  expect(config).toEqual({
    size: 5,
    actor: { lr: 0.25, hidden: [16, 8, 2], bounds: null, kind: "a", on: true },
  });
});

test.each([
  ["actor.lrr", "1", 'Unknown key "actor.lrr"; nearest is "actor.lr"'],
  ["zzzzzzzz", "1", 'Unknown key "zzzzzzzz"'],
  ["actor", "1", 'Unknown key "actor"'],
  ["__proto__", "1", 'Unknown key "__proto__"'],
  ["size", "2.5", 'Cannot set size: expected a whole number at least 1 and at most 10, got "2.5"'],
  ["size", "", 'Cannot set size: expected a whole number at least 1 and at most 10, got ""'],
  ["actor.lr", "0", 'Cannot set actor.lr: expected a number above 0, got "0"'],
  ["actor.lr", "NaN", 'Cannot set actor.lr: expected a number above 0, got "NaN"'],
  ["actor.kind", "c", 'Cannot set actor.kind: expected a | b, got "c"'],
  ["actor.on", "yes", 'Cannot set actor.on: expected true or false, got "yes"'],
  ["actor.bounds", "2,-2", "Cannot set actor.bounds: expected two increasing numbers"],
  ["actor.hidden", "0", "Cannot set actor.hidden: expected 1 to 16 layer widths"],
])("configure() refuses %s=%s and says what it expected", (key, value, message) => {
  expect(() => configure(tree, [], { [key]: value })).toThrow(ConfigurationError);
  expect(() => configure(tree, [], { [key]: value })).toThrow(message);
});

test("readConfiguration() reads back its own JSON and refuses absent, unknown and wrong values", () => {
  const config = configureTraining(presets.cpu.hopper, { "actor.mean_bounds": "none" });
  const json = JSON.parse(JSON.stringify(config));
  expect(readConfiguration(trainingTree, json)).toEqual(config);
  delete json.simulation.render; // as a run wrote it that is older than the key
  expect(JSON.stringify(readConfiguration(trainingTree, json))).toBe(JSON.stringify(config));
  delete json.actor.lr;
  expect(() => readConfiguration(trainingTree, json)).toThrow("actor.lr");
  expect(() => readConfiguration(trainingTree, { ...json, extra: 1 })).toThrow('"extra"');
  json.actor.lr = "fast";
  expect(() => readConfiguration(trainingTree, json)).toThrow(
    'Cannot set actor.lr: expected a number at least 0, got "fast"',
  );
});

test("every default passes its own check and survives its text form", () => {
  for (const [path, field] of leaves(trainingTree)) {
    expect(field.allows(field.default), path).toBe(true);
    expect(field.parse(format(field.default)), path).toEqual(field.default);
    expect(field.meaning.length, path).toBeGreaterThan(5);
  }
});

test("the paper's presets carry the published numbers", () => {
  const hopper = configureTraining(presets.paper.hopper, {});
  expect(hopper).toMatchObject({
    nominals: 64,
    auxiliaries: 63,
    horizon: 32,
    epochs: 10_000,
    discount: 0.99,
    lambda: 0.95,
    estimator: {
      causal: true,
      eligibility: true,
      baseline: "nominal",
      normalise: "group",
      deviation_floor: 0,
      centre: false,
      top_k: 0,
      noise: "drawn",
    },
    actor: {
      hidden: [128, 64, 32],
      output_gain: Math.SQRT2,
      lr: 2e-3,
      lr_schedule: "cosine",
      warmup_epochs: 100,
      warmup_start: 0,
      lr_min: 1e-5,
      grad_norm: 1,
      regression_steps: 1,
      max_kl: 0,
      bounds_penalty: 0,
      mean_bounds: [-2, 2],
      std: "state_independent",
      log_std_init: 0,
      log_std_bounds: [-5, 2],
      average: 0,
    },
    entropy: {
      mode: "auto",
      temperature: 1e-2,
      target_std: 0.15,
      lr: 1e-3,
      temperature_max: 0,
      soft_critic: false,
      soft_critic_offset: "target_std",
    },
    critic: {
      hidden: [64, 64],
      lr: 2e-4,
      lr_schedule: "constant",
      passes: 2,
      batch: 4096,
      sample_share: 1,
      target_retention: 0.01,
      value_limit: 1e6,
      value_limit_action: "abort",
    },
    statistics: { weighting: "all", count_boundary_once: false },
    return_normaliser: { enabled: false, reset_on_done: false },
  });
  expect(configureTraining(presets.paper.walker, {}).epochs).toBe(20_000);
  expect(configureTraining(presets.paper.ant, {})).toMatchObject({
    horizon: 32,
    epochs: 10_000,
    actor: { hidden: [256, 64, 32], lr: 2e-3, log_std_bounds: [-5, 2], log_std_init: 0 },
    critic: { hidden: [64, 64], lr: 2e-3, lr_schedule: "linear", target_retention: 0.2 },
    entropy: { mode: "none" },
  });
  expect(configureTraining(presets.paper.humanoid, {})).toMatchObject({
    nominals: 64,
    auxiliaries: 63,
    horizon: 16,
    epochs: 100_000,
    actor: { hidden: [256, 128], lr: 2e-3, log_std_bounds: [-2.2, 0], log_std_init: 0 },
    critic: { hidden: [128, 128], lr: 5e-4, lr_schedule: "linear", target_retention: 0.2 },
    entropy: { mode: "fixed", temperature: 1e-2 },
  });
});

test("from pixels every task has both presets; the paper's carry the published numbers", () => {
  const read = (preset: PresetName, task: string) =>
    configureTraining(presetLayers(preset, task, "pixels")!, {});
  for (const task of Object.keys(presets.paper)) {
    for (const preset of ["paper", "cpu"] as const) {
      const { observation, camera, encoder } = read(preset, task);
      expect(observation).toBe("pixels");
      expect(encoder.kind).toBe(preset === "paper" ? "drqv2" : "small");
      expect(Math.min(camera.width, camera.height))
        .toBeGreaterThanOrEqual(smallestPicture(encoder.kind));
      expect(configureTraining(presetLayers(preset, task, "state")!, {}).observation).toBe("state");
    }
    expect(read("paper", task)).toMatchObject({
      nominals: 64,
      auxiliaries: 63,
      camera: { width: 84, height: 84, frames: 3, with_vector: false },
      encoder: { lr_scale: 1 },
    });
  }
  const published = ["hopper", "walker", "ant", "humanoid"].map((task) => {
    const { epochs, horizon, encoder } = read("paper", task);
    return [epochs, horizon, encoder.features];
  });
  expect(published).toEqual([
    [20_000, 32, 128],
    [20_000, 32, 128],
    [20_000, 32, 256],
    [200_000, 16, 256],
  ]);
  expect(presetLayers("cpu", "nothing", "pixels")).toBeUndefined();
});
