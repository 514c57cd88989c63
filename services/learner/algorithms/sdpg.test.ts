// The algorithm against known numbers (test vectors, conformance checks) and against a
// second, plain TypeScript computation of the whole actor gradient. The simulator here is the toy of
// toy_simulation.ts; checks that need real physics are in test/e2e.

import { expect, test } from "vitest";
import { configureTraining } from "../run.ts";
import type { Simulation } from "../simulation.ts";
import { simulateToy, type ToyOptions, toyProgram } from "../toy_simulation.ts";
import {
  fromArray,
  full,
  Generator,
  lambdaReturn,
  liveTensors,
  ones,
  randn,
  scope,
  type Tensor,
  zeros,
} from "../torch/mod.ts";
import {
  actorLoss,
  ascentDirections,
  gaussianDivergence,
  groupDeviation,
  holdOverStretches,
  normaliseDifference,
  Sdpg,
  type StateGroups,
} from "./sdpg.ts";

const f32 = (values: number[], shape: number[]) => fromArray(Float32Array.from(values), shape);
const u8 = (values: number[], shape: number[]) => fromArray(Uint8Array.from(values), shape);
const list = (t: Tensor) => [...t.contiguous().toArray()].map(Number);
const estimator = configureTraining([], {}).estimator;

// ------------------------------------------------------------------------------------- the parts

test.each([
  [[1, 2, 3], [10, 20, 30], [0, 0, 1], [16.525, 24.5, 30]],
  [[1, 2, 3], [10, 0, 30], [0, 1, 1], [6.4, 2, 30]],
  [[1, 2, 3, 4], [10, 20, 30, 40], [0, 1, 0, 1], [14.5, 20, 34.5, 40]],
])("λ-returns of r=%o V'=%o d=%o are %o (1.5)", (r, v, d, expected) => {
  using _scope = scope();
  const T = r.length;
  const returns = lambdaReturn(f32(r, [T, 1]), f32(v, [T, 1]), u8(d, [T, 1]), 0.9, 0.5);
  list(returns).forEach((value, t) => expect(value).toBeCloseTo(expected[t], 5));
});

test("normalisation and directions of the worked example (1.6)", () => {
  using _scope = scope();
  const difference = f32([0, 1, -2, 4], [1, 1, 4]);
  const deviation = groupDeviation(difference);
  expect(deviation.item()).toBeCloseTo(2.5, 6);
  const weights = normaliseDifference(difference, deviation, estimator);
  list(weights).forEach((w, i) => expect(w).toBeCloseTo([0, 0.4, -0.8, 1.6][i], 5));
  const noise = f32([0, 0.5, -1, 0.2], [1, 1, 4, 1]);
  const { mean, logStd } = ascentDirections(weights, noise, full([1], 0.3), 0);
  expect(mean.item()).toBeCloseTo(0.33, 5);
  expect(logStd.item()).toBeCloseTo(-0.1377, 5);
});

test("without noise every member equals its nominal: no direction, whatever the normaliser's 1e-6", () => {
  using _scope = scope();
  const difference = zeros([2, 3, 5]);
  const weights = normaliseDifference(difference, groupDeviation(difference), estimator);
  const { mean, logStd } = ascentDirections(weights, zeros([2, 3, 5, 2]), full([2], 0.5), 0);
  expect(list(mean).every((g) => g === 0)).toBe(true);
  expect(list(logStd).every((g) => Math.abs(g) === 0)).toBe(true);
});

test("top-k keeps the K largest ΔĴ of each group and divides by K", () => {
  using _scope = scope();
  const weights = f32([0, 0.4, -0.8, 1.6, 0, -1, -2, -3], [1, 2, 4]);
  const noise = f32([0, 0.5, -1, 0.2, 0, 7, 8, 9], [1, 2, 4, 1]);
  const { mean } = ascentDirections(weights, noise, ones([1]), 2);
  const [first, second] = list(mean);
  expect(first).toBeCloseTo((1.6 * 0.2 + 0.4 * 0.5) / 2, 6);
  // The second group's best are the nominal (0) and -1.
  expect(second).toBeCloseTo(-7 / 2, 6);
  const all = ascentDirections(weights, noise, ones([1]), 4);
  expect(list(all.mean)).toEqual(list(ascentDirections(weights, noise, ones([1]), 0).mean));
});

test("centred ΔJ subtracts the auxiliaries' mean and leaves the nominal at 0", () => {
  using _scope = scope();
  const difference = f32([0, 1, -2, 4], [1, 1, 4]);
  const options = { ...estimator, centre: true, normalise: "none" as const };
  expect(list(normaliseDifference(difference, groupDeviation(difference), options)))
    .toEqual([0, 0, -3, 3]);
});

test("a deviation floor keeps groups whose members hardly differ small", () => {
  using _scope = scope();
  const difference = f32([0, 1, -2, 4, 0, 0.001, -0.002, 0.004], [1, 2, 4]);
  const deviation = groupDeviation(difference); // 2.5 and 0.0025, root mean square 1.7678
  const floored = normaliseDifference(difference, deviation, {
    ...estimator,
    deviation_floor: 0.1,
  });
  const [, a, , , , b] = list(floored);
  expect(a).toBeCloseTo(0.4, 5);
  expect(b).toBeCloseTo(0.001 / 0.17678, 5);
  const batch = normaliseDifference(difference, deviation, { ...estimator, normalise: "batch" });
  expect(list(batch)[3]).toBeCloseTo(4 / 1.7678, 3);
});

test("the non-causal variant holds the ΔJ of a stretch's first step", () => {
  using _scope = scope();
  // One group, nominal and two auxiliaries, 4 steps; the first auxiliary is done after step 1.
  const difference = f32([0, 10, 20, 0, 11, 21, 0, 12, 22, 0, 13, 23], [4, 1, 3]);
  const done = u8([0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1], [4, 1, 3]);
  expect(list(holdOverStretches(difference, done)))
    .toEqual([0, 10, 20, 0, 10, 20, 0, 12, 20, 0, 12, 20]);
});

test("gradient of the actor loss is -2g/(NHA) where nothing is clamped (conformance 6)", () => {
  using _scope = scope();
  using generator = new Generator(11n);
  const [samples, actions] = [6, 3];
  const behaviour = randn([samples, actions], generator).mul(0.3);
  const logStd = full([actions], -1);
  const g = randn([samples, actions], generator).mul(0.2);
  const gl = randn([samples, actions], generator).mul(0.1);
  const mean = behaviour.clone().requiresGrad_();
  const free = logStd.clone().requiresGrad_();
  actorLoss(
    mean,
    free.expand([samples, actions]),
    behaviour.add(g),
    logStd.add(gl),
    0.02,
  ).backward();
  const expected = list(g).map((x) => -2 * x / (samples * actions));
  list(mean.grad()!).forEach((x, i) => expect(x).toBeCloseTo(expected[i], 6));
  // State-independent log σ: -(2/A)·mean(g) - T/A (1.8).
  const meanGl = list(gl.mean(0));
  list(free.grad()!).forEach((x, j) =>
    expect(x).toBeCloseTo(-2 / actions * meanGl[j] - 0.02 / actions, 6)
  );
});

test("KL divergence of Gaussians matches its closed form", () => {
  using _scope = scope();
  const value = gaussianDivergence(
    f32([0.5], [1, 1]),
    f32([-1], [1]),
    f32([0.2], [1, 1]),
    f32([
      -0.5,
    ], [1]),
  );
  const [so, sn] = [Math.exp(-1), Math.exp(-0.5)];
  expect(value).toBeCloseTo(Math.log(sn / so) + (so ** 2 + 0.09) / (2 * sn ** 2) - 0.5, 5);
});

test("g^μ of a linear reward converges to M/(M+1) of its direction (conformance 4)", () => {
  using _scope = scope();
  const seed = 17n;
  using generator = new Generator(seed);
  const [groups, members, actions] = [4000, 33, 2];
  const noise = randn([1, groups, members, actions], generator);
  noise.select(2, 0).zero_();
  const direction = f32([0.6, -0.8], [2, 1]);
  const difference = noise.reshape([groups * members, actions]).matmul(direction)
    .reshape([1, groups, members]);
  const weights = normaliseDifference(difference, groupDeviation(difference), estimator);
  const { mean } = ascentDirections(weights, noise, ones([actions]), 0);
  const [gx, gy] = list(mean.reshape([groups, actions]).mean(0));
  // Σ ΔJ·ε / s over M+1 members: s² has expectation M/(M+1) here, so the share is sqrt(M/(M+1)),
  // which is M/(M+1) to first order in 1/M; 4000 groups leave an error of about 0.003.
  const share = Math.hypot(gx, gy);
  expect(Math.abs(share - 32 / 33), `seed ${seed}`).toBeLessThan(0.02);
  expect(Math.abs(gx / share - 0.6)).toBeLessThan(0.02);
  expect(Math.abs(gy / share + 0.8)).toBeLessThan(0.02);
});

// ----------------------------------------------------------------------------------- whole epochs

const toy: ToyOptions = {
  nominals: 3,
  auxiliaries: 5,
  horizon: 6,
  seed: 3n,
  episodeLength: 9,
  limit: 0.25,
};
const small = {
  "actor.hidden": "5,4",
  "critic.hidden": "6",
  "critic.batch": "32",
  epochs: "50",
};

async function withLearner(
  overrides: Record<string, string>,
  body: (learner: Sdpg, simulation: Simulation) => Promise<void> | void,
  options: ToyOptions = toy,
) {
  const before = liveTensors();
  const simulation = simulateToy(options);
  const config = configureTraining([], { ...small, ...overrides });
  const learner = new Sdpg(config, toyProgram(options), simulation, 1n);
  try {
    await body(learner, simulation);
  } finally {
    learner[Symbol.dispose]();
    await simulation.close();
  }
  expect(liveTensors()).toBe(before);
}

/** Values of every tensor of a state, flat. */
function snapshot(learner: Sdpg): Map<string, number[]> {
  using _scope = scope();
  const values = new Map<string, number[]>();
  for (const [group, tensors] of learner.state() as StateGroups) {
    for (const [name, tensor] of tensors) values.set(`${group}/${name}`, list(tensor.detach()));
  }
  return values;
}
const group = (state: Map<string, number[]>, name: string) =>
  [...state].filter(([key]) => key.startsWith(`${name}/`)).map(([key, v]) =>
    [key.slice(name.length + 1), v] as const
  );

test("the published first epoch leaves the actor alone and moves the critic (conformance 5)", () =>
  withLearner({}, async (learner) => {
    const before = snapshot(learner);
    const report = await learner.train();
    const after = snapshot(learner);
    expect(report.scalars.actor_lr).toBe(0);
    expect(group(after, "actor")).toEqual(group(before, "actor"));
    expect(group(after, "critic")).not.toEqual(group(before, "critic"));
    await learner.train();
    expect(group(snapshot(learner), "actor")).not.toEqual(group(before, "actor"));
  }));

test("target retention is the share that stays: 0 copies, 1 keeps, 0.25 keeps a quarter", async () => {
  for (const retention of [0, 0.25, 1]) {
    await withLearner({ "critic.target_retention": String(retention) }, async (learner) => {
      const before = snapshot(learner);
      await learner.train();
      const after = snapshot(learner);
      for (const [name, target] of group(after, "target")) {
        const old = before.get(`target/${name}`)!;
        const critic = after.get(`critic/${name}`)!;
        target.forEach((value, i) =>
          expect(value).toBeCloseTo(retention * old[i] + (1 - retention) * critic[i], 6)
        );
      }
    });
  }
});

test("with no noise only the temperature term moves the actor (conformance 1)", () =>
  withLearner({ "actor.warmup_epochs": "0" }, async (learner) => {
    const before = snapshot(learner);
    const { scalars } = await learner.train();
    const after = snapshot(learner);
    expect(scalars.rollout_reward_var).toBe(0);
    for (const [name, values] of group(after, "actor")) {
      if (name === "log_std") {
        // Adam's first step is lr in the direction of larger σ.
        expect(values[0] - before.get("actor/log_std")![0]).toBeCloseTo(2e-3, 5);
      } else expect(values).toEqual(before.get(`actor/${name}`));
    }
  }, { ...toy, noise: () => 0 }));

test("truncation keeps the successor's value, termination does not (conformance 7, 8)", async () => {
  // λ = 0 makes the critic's target r + γ V', so the targets' mean shows whether V' entered.
  const run = async (options: Partial<ToyOptions>) => {
    let result = { target: 0, reward: 0, bootstrap: 0 };
    await withLearner({ lambda: "0" }, async (learner, simulation) => {
      const before = snapshot(learner);
      const { scalars } = await learner.train();
      const rewards = [...simulation.tensors.reward.toArray()].map(Number);
      const successors = [...simulation.tensors.privilegedSuccessor.toArray()].map(Number);
      const values = rewards.map((_, i) =>
        perceptron(before, "target", [successors[2 * i], successors[2 * i + 1]], 1).output[0]
      );
      const mean = (x: number[]) => x.reduce((a, b) => a + b) / x.length;
      result = {
        target: scalars.critic_target_mean,
        reward: mean(rewards),
        bootstrap: 0.99 * mean(values),
      };
    }, { ...toy, ...options });
    return result;
  };
  const truncated = await run({ episodeLength: 1, limit: 100 });
  expect(truncated.target).toBeCloseTo(truncated.reward + truncated.bootstrap, 5);
  expect(Math.abs(truncated.bootstrap)).toBeGreaterThan(1e-3);
  const terminated = await run({ limit: -1 });
  expect(terminated.target).toBeCloseTo(terminated.reward, 6);
});

test("reward terms add up to the segment's reward", () =>
  withLearner({}, async (learner) => {
    for (let epoch = 0; epoch < 3; epoch++) {
      const { scalars } = await learner.train();
      const sum = scalars["reward_term/position"] + scalars["reward_term/effort"];
      expect(sum).toBeCloseTo(scalars.rollout_reward, 6);
    }
  }));

test.each([
  {},
  { "estimator.baseline": "critic", "estimator.centre": "true", "estimator.noise": "effective" },
  { "estimator.causal": "false", "estimator.top_k": "3", "estimator.normalise": "batch" },
  { "actor.std": "state_dependent", "entropy.soft_critic": "true", "actor.max_kl": "1e-4" },
  { "actor.std": "fixed", "entropy.mode": "none", "actor.regression_steps": "3" },
  {
    "actor.average": "0.9",
    "actor.act_with_average": "true",
    "actor.bounds_penalty": "0.1",
    "actor.mean_bounds": "none",
    "actor.log_std_bounds": "none",
    "entropy.mode": "fixed",
  },
  {
    "critic.nominals_only": "true",
    "critic.sample_share": "0.5",
    "critic.lr_schedule": "linear",
    "statistics.weighting": "nominal",
    "statistics.count_boundary_once": "true",
  },
  {
    "return_normaliser.enabled": "true",
    "return_normaliser.reset_on_done": "true",
    "critic.value_limit": "0.01",
    "critic.value_limit_action": "clip",
    "entropy.temperature_max": "0.01",
    "estimator.deviation_floor": "0.1",
  },
] as Record<string, string>[])(
  "options %o: same seed, same bits; a loaded state goes on alike",
  async (overrides) => {
    const run = async (epochs: number, from?: { state: Uint8Array; simulation: Uint8Array }) => {
      let result: Map<string, number[]> = new Map();
      await withLearner(overrides, async (learner) => {
        for (let epoch = 0; epoch < epochs; epoch++) await learner.train();
        result = snapshot(learner);
      });
      void from;
      return result;
    };
    const [a, b] = [await run(4), await run(4)];
    expect(a).toEqual(b);
    for (const [name, values] of a) expect(values.every(Number.isFinite), name).toBe(true);

    // Two epochs, then the state into a fresh learner over the restored simulator, then two more.
    await withLearner(overrides, async (first, simulation) => {
      await first.train();
      await first.train();
      const saved = await simulation.snapshot();
      await withFresh(overrides, async (second, other) => {
        {
          using _scope = scope();
          second.load(first.state());
        }
        await other.restore(saved);
        await second.train();
        await second.train();
        expect(snapshot(second)).toEqual(a);
      });
    });
  },
);

/** As withLearner, without the check of live tensors: another learner is alive around it. */
async function withFresh(
  overrides: Record<string, string>,
  body: (learner: Sdpg, simulation: Simulation) => Promise<void>,
) {
  const simulation = simulateToy(toy);
  const config = configureTraining([], { ...small, ...overrides });
  const learner = new Sdpg(config, toyProgram(toy), simulation, 1n);
  await learner.train(); // So that what is loaded differs from what is there.
  await body(learner, simulation);
  learner[Symbol.dispose]();
  await simulation.close();
}

test("live tensors stay constant from epoch to epoch", () =>
  withLearner({ "actor.average": "0.9", "actor.max_kl": "1e-3" }, async (learner) => {
    await learner.train();
    const after = liveTensors();
    for (let epoch = 0; epoch < 3; epoch++) await learner.train();
    expect(liveTensors()).toBe(after);
  }));

test("an infinite reward skips the updates it would poison and says so", () =>
  withLearner({ "actor.warmup_epochs": "0" }, async (learner, simulation) => {
    const before = snapshot(learner);
    const { end } = simulation;
    simulation.end = () => {
      end.call(simulation);
      simulation.tensors.reward.fill_(Infinity);
    };
    const { scalars } = await learner.train();
    expect(scalars.skipped_updates).toBeGreaterThan(0);
    const after = snapshot(learner);
    expect(group(after, "actor")).toEqual(group(before, "actor"));
    expect(group(after, "critic")).toEqual(group(before, "critic"));
  }));

test("a value beyond the limit stops training by name", () =>
  withLearner({ "critic.value_limit": "1e-6" }, async (learner) => {
    await expect(learner.train()).rejects.toThrow("critic.value_limit_action=clip");
  }));

test("a KL limit shortens the step to about the limit", () =>
  withLearner(
    { "actor.warmup_epochs": "0", "actor.lr": "0.05", "actor.max_kl": "1e-3" },
    async (learner) => {
      const { scalars } = await learner.train();
      expect(scalars.kl).toBeGreaterThan(1e-3);
      expect(scalars.step_share).toBeCloseTo(Math.sqrt(1e-3 / scalars.kl), 6);
    },
  ));

// --------------------------------------------------------- an independent computation of the gradient

/** A network of networks/mlp.ts for one input, in double; activations kept for `pullBack`. */
function perceptron(
  state: Map<string, number[]>,
  name: string,
  x: number[],
  outputs: number,
) {
  const layers: { input: number[]; linear: number[]; hat: number[]; inverse: number }[] = [];
  let h = x;
  for (let i = 0; state.has(`${name}/hidden.${i}.weight`); i++) {
    const get = (part: string) => state.get(`${name}/hidden.${i}.${part}`)!;
    const width = get("bias").length;
    const linear = matvec(get("weight"), h, width).map((v, r) => v + get("bias")[r]);
    const elu = linear.map((v) => v > 0 ? v : Math.exp(v) - 1);
    const mean = elu.reduce((a, b) => a + b) / width;
    const variance = elu.reduce((a, b) => a + (b - mean) ** 2, 0) / width;
    const inverse = 1 / Math.sqrt(variance + 1e-5);
    const hat = elu.map((v) => (v - mean) * inverse);
    layers.push({ input: h, linear, hat, inverse });
    h = hat.map((v, j) => v * get("norm.weight")[j] + get("norm.bias")[j]);
  }
  const output = matvec(state.get(`${name}/output.weight`)!, h, outputs)
    .map((v, r) => v + state.get(`${name}/output.bias`)![r]);
  return { output, features: h, layers };
}

function matvec(weight: number[], x: number[], rows: number): number[] {
  return Array.from(
    { length: rows },
    (_, r) => x.reduce((sum, v, c) => sum + weight[r * x.length + c] * v, 0),
  );
}

/** Adds d(loss)/d(parameters) for d(loss)/d(output) of one sample. */
function pullBack(
  state: Map<string, number[]>,
  name: string,
  pass: ReturnType<typeof perceptron>,
  upstream: number[],
  gradient: Map<string, number[]>,
) {
  const add = (part: string, r: number, value: number) => {
    const key = part;
    if (!gradient.has(key)) gradient.set(key, state.get(`${name}/${part}`)!.map(() => 0));
    gradient.get(key)![r] += value;
  };
  const weight = state.get(`${name}/output.weight`)!;
  let g = pass.features.map(() => 0);
  upstream.forEach((u, r) => {
    add("output.bias", r, u);
    pass.features.forEach((v, c) => {
      add("output.weight", r * pass.features.length + c, u * v);
      g[c] += u * weight[r * pass.features.length + c];
    });
  });
  for (let i = pass.layers.length - 1; i >= 0; i--) {
    const { input, linear, hat, inverse } = pass.layers[i];
    const n = hat.length;
    const gamma = state.get(`${name}/hidden.${i}.norm.weight`)!;
    const w = state.get(`${name}/hidden.${i}.weight`)!;
    g.forEach((v, j) => {
      add(`hidden.${i}.norm.weight`, j, v * hat[j]);
      add(`hidden.${i}.norm.bias`, j, v);
    });
    const scaled = g.map((v, j) => v * gamma[j]);
    const meanG = scaled.reduce((a, b) => a + b) / n;
    const meanGh = scaled.reduce((a, b, j) => a + b * hat[j], 0) / n;
    const d = scaled.map((v, j) =>
      inverse * (v - meanG - hat[j] * meanGh) * (linear[j] > 0 ? 1 : Math.exp(linear[j]))
    );
    g = input.map(() => 0);
    d.forEach((u, r) => {
      add(`hidden.${i}.bias`, r, u);
      input.forEach((v, c) => {
        add(`hidden.${i}.weight`, r * input.length + c, u * v);
        g[c] += u * w[r * input.length + c];
      });
    });
  }
}

test("the actor's gradient equals an independent TypeScript computation from the rollout", () =>
  withLearner({ "actor.grad_norm": "1e9" }, async (learner, simulation) => {
    const before = snapshot(learner);
    await learner.train();
    const after = snapshot(learner);
    const { nominals: N, members: G, horizon: T, environments: E } = simulation.sizes;
    const read = (t: Tensor) => [...t.toArray()].map(Number);
    const { tensors } = simulation;
    const reward = read(tensors.reward);
    const terminated = read(tensors.terminated);
    const done = read(tensors.done);
    const noise = read(tensors.noise);
    const actor = read(tensors.actor);
    const successor = read(tensors.privilegedSuccessor);
    const [gamma, lambda] = [0.99, 0.95];

    // λ-returns by the three accumulators of 1.5, in double.
    const J = new Array<number>(T * E);
    for (let e = 0; e < E; e++) {
      let [A, B, L] = [0, 0, 1];
      for (let t = T - 1; t >= 0; t--) {
        const at = t * E + e;
        const d = t === T - 1 ? 1 : done[at];
        const v = terminated[at] ? 0 : perceptron(
          before,
          "target",
          [successor[2 * at], successor[2 * at + 1]].map((x) => x / Math.sqrt(1 + 1e-5)),
          1,
        ).output[0];
        L = lambda * L * (1 - d) + d;
        A = (1 - d) *
          (lambda * gamma * A + gamma * v + (1 - L) / (1 - lambda) * reward[at]);
        B = reward[at] + gamma * (d * v + (1 - d) * B);
        J[at] = (1 - lambda) * A + L * B;
      }
    }

    const gradient = new Map<string, number[]>();
    const sigma = 1;
    const temperature = 1e-2;
    let gradientOfLogStd = 0;
    let clamped = 0;
    for (let t = 0; t < T; t++) {
      for (let k = 0; k < N; k++) {
        const delta = Array.from({ length: G }, (_, i) => J[t * E + k * G + i] - J[t * E + k * G]);
        const mean = delta.reduce((a, b) => a + b) / G;
        const s = Math.sqrt(delta.reduce((a, b) => a + (b - mean) ** 2, 0) / (G - 1));
        let [gMean, gLog] = [0, 0];
        delta.forEach((value, i) => {
          const epsilon = noise[t * E + k * G + i];
          gMean += value / (s + 1e-6) * epsilon / G;
          gLog += value / (s + 1e-6) * (epsilon * epsilon - 1) * sigma / G;
        });
        const observation = [actor[(t * N + k) * 2], actor[(t * N + k) * 2 + 1]]
          .map((x) => x / Math.sqrt(1 + 1e-5));
        const pass = perceptron(before, "actor", observation, 1);
        const raw = pass.output[0];
        const inside = Math.abs(raw) < 2;
        if (!inside) clamped++;
        const target = Math.min(2, Math.max(-2, Math.min(2, Math.max(-2, raw)) + gMean));
        const upstream = inside ? 2 * (raw - target) / (N * T) : 0;
        pullBack(before, "actor", pass, [upstream], gradient);
        const logTarget = Math.min(2, Math.max(-5, gLog));
        gradientOfLogStd += (2 * (0 - logTarget) - temperature) / (N * T);
      }
    }
    expect(clamped).toBeLessThan(N * T);
    gradient.set("log_std", [gradientOfLogStd]);

    // Adam's first moment after one step is (1 - 0.9) of the gradient.
    const names = group(before, "actor").map(([name]) => name);
    names.forEach((name, i) => {
      const moments = after.get(`actor_optimiser/m/${i}`)!;
      const scale = Math.max(...gradient.get(name)!.map(Math.abs), 1e-4);
      moments.forEach((m, j) =>
        expect(Math.abs(m / 0.1 - gradient.get(name)![j]) / scale, `${name}[${j}]`)
          .toBeLessThan(2e-4)
      );
    });
  }));
