// Stochastic Decoupled Policy Gradient (SDPG, arXiv 2605.26478), top to bottom: configuration,
// construction, one epoch (rollout, actor, temperature, critic, target), and the pieces they are made
// of. Section numbers in comments are those of the project's algorithm page, docs/algorithms/sdpg.md.
//
// N nominal environments run the policy's mean action. Each has M auxiliaries that start a segment
// from the nominal's state and run the nominal's mean action plus their own Gaussian noise. How much
// better an auxiliary's return is than its nominal's, times its noise, says where the nominal's action
// should move; the policy is regressed onto the moved actions.
//
// From pixels the policy sees what cameras see of the nominals; auxiliaries are never drawn, and the
// critic goes on seeing the privileged state of all.
//
// Shapes: T steps of a segment, N groups, G = 1 + M members (member 0 is the nominal), E = N * G,
// A actions, O actor and P privileged values. [T, E] and [T, N, G] are the same bytes.

import {
  bounds,
  choice,
  flag,
  integer,
  real,
  type Tree,
  type Values,
  widths,
} from "../configuration.ts";
import { EpisodeMeter } from "../episodes.ts";
import { cameraOf } from "../cameras.ts";
import { copyParameters } from "../networks/parameters.ts";
import { LAYER_NORM_EPS } from "../networks/mlp.ts";
import { GaussianPolicy, type Observation } from "../networks/policy.ts";
import { ValueNetwork } from "../networks/value.ts";
import { type Phase, Phases } from "../phases.ts";
import { learningRate } from "../schedules.ts";
import type { RolloutTensors, Simulation, View } from "../simulation.ts";
import { type Normaliser, ObservationStatistics, RunningStatistics } from "../statistics.ts";
import {
  Adam,
  arange,
  clipGradNorm,
  fromArray,
  full,
  Generator,
  lambdaReturn,
  mlpRegress,
  mseLoss,
  noGrad,
  randperm,
  scope,
  Tensor,
  where,
  zeros,
} from "../torch/mod.ts";
import type { TaskProgram } from "@proto/sdpg/task/v1/task_pb.ts";

// ---------------------------------------------------------------------------------- configuration

/** Every setting of the algorithm. The defaults are the published values. */
export const sdpgTree = {
  observation: choice(
    ["state", "pixels"],
    "state",
    "what the policy sees: the actor's vector, or pictures; set by --obs, which also chooses the preset",
  ),
  nominals: integer(64, "N, environments that run the mean action (and are rendered)", { min: 1 }),
  auxiliaries: integer(63, "M, perturbed copies of each nominal", { min: 1 }),
  horizon: integer(32, "T, control steps of one segment", { min: 1 }),
  epochs: integer(10_000, "epochs of a run; the schedules span them", { min: 1 }),
  discount: real(0.99, "γ of returns, per control step", { above: 0, max: 1 }),
  lambda: real(0.95, "λ of the λ-return; 0 is one-step, 1 the whole segment", { min: 0, max: 1 }),
  reward_scale: real(1, "factor on rewards before any learning; reported returns stay raw", {
    above: 0,
  }),

  camera: {
    width: integer(84, "pixels: columns of a picture", { min: 1, max: 4096 }),
    height: integer(84, "pixels: rows of a picture", { min: 1, max: 4096 }),
    frames: integer(3, "pixels: frames of a stack, one per control step", { min: 1, max: 16 }),
    with_vector: flag(false, "pixels: the policy sees the actor's vector too"),
  },

  encoder: {
    kind: choice(
      ["drqv2", "small"],
      "drqv2",
      "pixels: four 3 × 3 convolutions as published, or two strided ones for CPUs",
    ),
    features: integer(128, "pixels: width of a camera's encoding", { min: 1, max: 65536 }),
    centre: choice(
      ["half", "first_rollout"],
      "half",
      "pixels: what is subtracted from pictures / 255: ½ as published, or their mean of epoch 0",
    ),
    lr_scale: real(1, "pixels: learning rate of the encoders as a share of actor.lr", { min: 0 }),
  },

  estimator: {
    causal: flag(true, "ΔJ of step t compares returns from t on; otherwise whole stretches"),
    eligibility: flag(true, "causal ΔJ uses λ-returns; otherwise plain discounted returns"),
    baseline: choice(
      ["nominal", "critic"],
      "nominal",
      "critic also subtracts the target value of each environment's own state from its return, which " +
        "removes the luck of steps before t (generalised advantages); nominal is the published form",
    ),
    normalise: choice(
      ["group", "batch", "none"],
      "group",
      "ΔJ is divided by its deviation over the group's members at each step (published), by the root " +
        "mean square of those deviations over the whole batch, or by nothing",
    ),
    deviation_floor: real(
      0,
      "group normalisation never divides by less than this share of the batch's root mean square " +
        "deviation, so that steps where noise hardly matters stay small; 0 is published",
      { min: 0 },
    ),
    centre: flag(false, "subtract the auxiliaries' mean ΔJ, leaving only what distinguishes them"),
    top_k: integer(0, "only the best K members of each group and step; 0 takes all", { min: 0 }),
    noise: choice(
      ["drawn", "effective"],
      "drawn",
      "effective weights by (action - mean) / σ, what the clamp left of the noise, instead of the draw",
    ),
  },

  actor: {
    hidden: widths([128, 64, 32], "hidden layers: Linear, ELU, LayerNorm each"),
    output_gain: real(Math.SQRT2, "gain of the orthogonal output layer; small starts near 0", {
      above: 0,
    }),
    lr: real(2e-3, "learning rate at its highest", { min: 0 }),
    lr_schedule: choice(["cosine", "linear", "constant"], "cosine", "course of the learning rate"),
    schedule_epochs: integer(0, "epochs the schedule spans; 0 takes `epochs`", { min: 0 }),
    warmup_epochs: integer(100, "cosine: epochs of linear warm-up", { min: 0 }),
    warmup_start: real(0, "cosine: share of lr in the first epoch; the published 0 wastes it", {
      min: 0,
      max: 1,
    }),
    lr_min: real(1e-5, "cosine: rate at the end", { min: 0 }),
    grad_norm: real(1, "global gradient norm is clipped to this", { above: 0 }),
    regression_steps: integer(1, "gradient steps per epoch on the same fixed targets", { min: 1 }),
    max_kl: real(
      0,
      "trust region: an epoch's step is shortened until the policy's mean KL divergence over the " +
        "segment is about this; 0 is off",
      { min: 0 },
    ),
    bounds_penalty: real(0, "weight of the squared distance of raw means beyond mean_bounds", {
      min: 0,
    }),
    mean_bounds: bounds([-2, 2], "clamp of the pre-tanh mean and action"),
    std: choice(
      ["state_independent", "fixed", "state_dependent"],
      "state_independent",
      "how σ is parameterised",
    ),
    log_std_init: real(0, "log σ at the start"),
    log_std_bounds: bounds([-5, 2], "clamp of log σ"),
    average: real(
      0,
      "retention of the averaged policy's parameters per epoch; 0 keeps no average",
      {
        min: 0,
        max: 0.9999,
      },
    ),
    act_with_average: flag(false, "the averaged policy also acts in training"),
  },

  entropy: {
    mode: choice(
      ["auto", "fixed", "none"],
      "auto",
      "entropy term of the actor: temperature tuned towards target_std, fixed, or no term",
    ),
    temperature: real(1e-2, "T, at the start or throughout", { above: 0 }),
    target_std: real(0.15, "σ* the temperature is tuned for", { above: 0 }),
    lr: real(1e-3, "learning rate of log T", { min: 0 }),
    temperature_max: real(0, "upper clamp of T; 0 leaves it unbounded", { min: 0 }),
    soft_critic: flag(false, "adds T · mean(log σ - offset) to the critic's rewards, never to ΔJ"),
    soft_critic_offset: choice(
      ["log_target_std", "target_std"],
      "log_target_std",
      "offset of the soft critic; target_std is what the official code subtracts",
    ),
  },

  critic: {
    hidden: widths([64, 64], "hidden layers: Linear, ELU, LayerNorm each"),
    output_gain: real(Math.SQRT2, "gain of the orthogonal output layer", { above: 0 }),
    lr: real(2e-4, "learning rate at its highest", { min: 0 }),
    lr_schedule: choice(["constant", "linear"], "constant", "linear falls to a tenth over the run"),
    passes: integer(2, "shuffled passes over the segment per epoch", { min: 1 }),
    batch: integer(4096, "samples of a mini-batch", { min: 1 }),
    sample_share: real(1, "share of the samples each pass draws, at random without repetition", {
      above: 0,
      max: 1,
    }),
    nominals_only: flag(false, "train on the nominals' samples alone"),
    grad_norm: real(1, "global gradient norm is clipped to this", { above: 0 }),
    target_retention: real(
      0.01,
      "share of the target critic that stays each epoch: target ← α·target + (1-α)·critic, so small " +
        "is fast and 0 a copy",
      { min: 0, max: 1 },
    ),
    value_limit: real(1e6, "largest |V| of a successor", { above: 0 }),
    value_limit_action: choice(["abort", "clip"], "abort", "what happens beyond value_limit"),
  },

  statistics: {
    weighting: choice(
      ["all", "nominal"],
      "all",
      "whose observations enter the running statistics; auxiliaries are 98 % of all",
    ),
    count_boundary_once: flag(
      false,
      "leave out a segment's first observations, which the segment before has counted",
    ),
  },

  return_normaliser: {
    enabled: flag(false, "divide rewards by the deviation of the running discounted return"),
    reset_on_done: flag(false, "start the running return afresh when an episode ends"),
  },
} satisfies Tree;

export type SdpgConfiguration = Values<typeof sdpgTree>;

// ------------------------------------------------------------------------------------ the learner

/** What one epoch has to say. */
export interface EpochReport {
  /** Epochs finished, 1 after the first. */
  readonly epoch: number;
  /** Mean return and length of the newest 100 nominal episodes; undefined before the first. */
  readonly episodes: { readonly return: number; readonly length: number } | undefined;
  readonly scalars: Record<string, number>;
  /** Where its time went. */
  readonly phases: readonly Phase[];
  /** Environment steps of this epoch that set each fault bit. */
  readonly faults: Record<string, number>;
}

/** Tensors of a state by group and name. */
export type StateGroups = ReadonlyMap<string, ReadonlyMap<string, Tensor>>;

/** Training cannot go on; the line says why and what to change. */
export class TrainingError extends Error {
  override name = "TrainingError";
}

/** What training reads of a finished segment, all of it constant. */
interface Segment {
  readonly observations: Tensor; // [T+1, N, O] normalised, nominals
  readonly states: Tensor; // [T+1, E, P] normalised
  readonly observation: Observation; // T*N rows of what the policy saw before each step
  readonly state: Tensor; // [T*E, P] of those, before each step
  readonly reward: Tensor; // [T, E] scaled
  readonly successorValue: Tensor; // [T, E] target value of the un-reset successor, 0 if terminated
  readonly done: Tensor; // [T, E] uint8, 1 throughout the last row
  readonly action: Tensor; // [T, N, A] clamped behaviour mean of the nominals
  readonly logStd: Tensor; // [A] or [T, N, A] clamped
}

export class Sdpg implements Disposable {
  /** Epochs finished. */
  epoch = 0;
  envStepsNominal = 0;
  envStepsTotal = 0;
  /** Pictures drawn for the policy, each of one camera. */
  imagesRendered = 0;

  readonly #config: SdpgConfiguration;
  readonly #simulation: Simulation;
  readonly #rewardTerms: readonly string[];
  readonly #seed: bigint;

  readonly #policy: GaussianPolicy;
  readonly #average: GaussianPolicy | undefined;
  readonly #critic: ValueNetwork;
  readonly #target: ValueNetwork;
  readonly #logTemperature: Tensor; // [1]
  readonly #actorOptimiser: Adam; // of the policy but its encoders
  readonly #encoderOptimiser: Adam | undefined;
  readonly #criticOptimiser: Adam;
  readonly #temperatureOptimiser: Adam;

  readonly #statistics: ObservationStatistics;
  readonly #returnStatistics = new RunningStatistics(1);
  readonly #runningReturn: Tensor; // [E] discounted return of each environment so far
  readonly #states: Tensor; // [T+1, E, P], normalised anew each epoch
  readonly #successors: Tensor; // [T, E, P], likewise
  readonly #meter: EpisodeMeter;
  readonly #logStd: Float32Array; // behaviour log σ as sent, [A] or [T, N, A]
  readonly #mean: Float32Array; // [N*A] behaviour mean as sent

  constructor(
    config: SdpgConfiguration,
    program: TaskProgram,
    simulation: Simulation,
    seed: bigint,
  ) {
    const { sizes } = simulation;
    this.#config = config;
    this.#simulation = simulation;
    this.#rewardTerms = program.rewards.map((term) => term.name);
    this.#seed = seed;

    using initial = generatorFor(seed, Purpose.Initialise, 0, 0);
    this.#policy = policyFor(config, program, simulation.views, initial);
    this.#critic = new ValueNetwork({
      input: sizes.privileged,
      hidden: [...config.critic.hidden],
      outputGain: config.critic.output_gain,
      generator: initial,
    });
    this.#target = this.#critic.clone();
    this.#average = config.actor.average > 0 ? this.#policy.clone() : undefined;
    this.#logTemperature = full([1], Math.log(config.entropy.temperature)).requiresGrad_(true);
    this.#logTemperature.persist();
    const encoders = [...this.#policy.encoderParameters().values()];
    this.#actorOptimiser = new Adam(
      trainable(this.#policy).filter((p) => !encoders.includes(p)),
      { lr: config.actor.lr },
    );
    this.#encoderOptimiser = encoders.length > 0
      ? new Adam(encoders, { lr: config.actor.lr * config.encoder.lr_scale })
      : undefined;
    this.#criticOptimiser = new Adam(trainable(this.#critic), { lr: config.critic.lr });
    this.#temperatureOptimiser = new Adam([this.#logTemperature], { lr: config.entropy.lr });

    this.#statistics = new ObservationStatistics(program.observations);
    this.#runningReturn = zeros([sizes.environments]).persist();
    this.#states = zeros(simulation.tensors.privileged.shape).persist();
    this.#successors = zeros(simulation.tensors.privilegedSuccessor.shape).persist();
    this.#meter = new EpisodeMeter(sizes.nominals);
    const perState = config.actor.std === "state_dependent";
    this.#mean = new Float32Array(sizes.nominals * sizes.actions);
    this.#logStd = new Float32Array(
      perState ? sizes.horizon * sizes.nominals * sizes.actions : sizes.actions,
    );
  }

  /** One training epoch (1.2). */
  async train(): Promise<EpochReport> {
    const config = this.#config;
    const { sizes } = this.#simulation;
    const phases = new Phases();
    const scalars: Record<string, number> = {};

    // The frozen statistics normalise everything of this segment (1.3).
    using frozen = phases.time(
      "statistics",
      () => new FrozenNormalisers(this.#statistics, this.#returnStatistics),
    );
    await phases.timeAsync("rollout", () => this.#rollout(frozen.actor, phases));

    const faults = phases.time("tally", () => this.#tally(scalars));
    {
      using _scope = scope();
      const segment = phases.time("values", () => this.#read(frozen, scalars));
      phases.time("statistics", () => this.#mergeStatistics(segment, frozen));
      phases.time("actor", () => this.#updateActor(segment, scalars, phases));
      phases.time("critic", () => this.#updateCritic(segment, scalars));
      if (this.epoch === 0 && config.encoder.centre === "first_rollout") {
        this.#centreOn(segment.observation);
      }
    }
    phases.time(
      "target",
      () => this.#target.lerp(this.#critic, 1 - config.critic.target_retention),
    );

    this.epoch++;
    this.envStepsNominal += sizes.horizon * sizes.nominals;
    this.envStepsTotal += sizes.horizon * sizes.environments;
    this.imagesRendered += this.#simulation.imagesDrawn;
    this.#simulation.imagesDrawn = 0;
    const episodes = this.#meter.means();
    if (episodes !== undefined) {
      scalars.rewards = episodes.return;
      scalars.episode_lengths = episodes.length;
    }
    scalars.episodes = this.#meter.finished;
    return { epoch: this.epoch, episodes, scalars, phases: [...phases], faults };
  }

  /** The policy without noise, as it is now. */
  evaluationPolicy(): DeterministicPolicy {
    return deterministic(this.#config, this.#average ?? this.#policy, this.#statistics);
  }

  // ------------------------------------------------------------------------------------- rollout

  /** H steps of every environment (1.3). Fills the rollout buffer. */
  async #rollout(normaliser: Normaliser, phases: Phases) {
    const { sizes, tensors } = this.#simulation;
    const acting = this.#config.actor.act_with_average
      ? this.#average ?? this.#policy
      : this.#policy;
    const perState = this.#config.actor.std === "state_dependent";
    const width = sizes.nominals * sizes.actions;

    await phases.timeAsync(
      "rollout/simulation",
      () => this.#simulation.begin(this.epoch, this.epoch === 0),
    );
    for (let t = 0; t < sizes.horizon; t++) {
      const started = performance.now();
      // No scope stays open across an await: other work of the event loop may make tensors too.
      {
        using _scope = scope();
        const { mean, logStd } = acting.infer(observe(this.#config, tensors, t, normaliser));
        this.#mean.set(mean.toArray() as Float32Array);
        if (perState) this.#logStd.set(logStd.toArray() as Float32Array, t * width);
        else if (t === 0) this.#logStd.set(logStd.reshape([-1]).toArray() as Float32Array);
      }
      const logStd = perState ? this.#logStd.subarray(t * width, (t + 1) * width) : this.#logStd;
      const inferred = performance.now();
      await this.#simulation.step(t, this.#mean, logStd);
      const stepped = performance.now();
      phases.add("rollout/policy", (inferred - started) / 1e3);
      phases.add("rollout/simulation", (stepped - inferred) / 1e3);
    }
    await phases.timeAsync("rollout/simulation", () => this.#simulation.end());
    const { timings } = this.#simulation;
    const measured = [...timings];
    if (measured.length > 0) {
      // What the simulator did not work on: messages and wake-ups between the processes.
      const wait = phases.get("rollout/simulation")!;
      const work = measured.reduce((sum, { seconds }) => sum + seconds, 0);
      const { startMs, count } = wait;
      const transfer = Math.max(0, wait.seconds - work);
      phases.add("rollout/simulation/transfer", transfer, { startMs, count });
      phases.addAll(measured, "rollout/simulation");
    }
    timings.clear();
  }

  /** Episode meter, segment rewards by term, faults. */
  #tally(scalars: Record<string, number>): Record<string, number> {
    using _scope = scope();
    const { sizes, tensors } = this.#simulation;
    const { nominals: N, members: G, horizon: T, rewardTerms: K } = sizes;
    const nominal = (x: Tensor, ...rest: number[]) => x.reshape([T, N, G, ...rest]).select(2, 0);

    const fault = tensors.fault.toArray() as Uint8Array; // [T, E]
    const reward = nominal(tensors.reward);
    this.#meter.add({
      reward: reward.contiguous().toArray() as Float32Array,
      ended: nominal(tensors.terminated).add(nominal(tensors.truncated)).toArray() as Uint8Array,
      faults: nominal(tensors.fault).contiguous().toArray() as Uint8Array,
      progress: nominal(tensors.progress).contiguous().toArray() as Int32Array,
    });

    // Mean over the nominals of what a segment earned, and of each term of it.
    const terms = nominal(tensors.rewardTerms, K).to("float64").sum(0).mean(0).toArray();
    scalars.rollout_reward = reward.to("float64").sum(0).mean().item();
    this.#rewardTerms.forEach((name, i) => scalars[`reward_term/${name}`] = Number(terms[i]));

    const faults = { non_finite: 0, overflow: 0, not_converged: 0 };
    for (const bits of fault) {
      if (bits === 0) continue;
      if (bits & 1) faults.non_finite++;
      if (bits & 2) faults.overflow++;
      if (bits & 4) faults.not_converged++;
    }
    for (const [name, count] of Object.entries(faults)) scalars[`faults/${name}`] = count;
    return faults;
  }

  /** Observations of the segment into the live statistics (1.3, steps 3 and 11). */
  #mergeStatistics(segment: Segment, frozen: FrozenNormalisers) {
    const { sizes } = this.#simulation;
    const { weighting, count_boundary_once } = this.#config.statistics;
    const first = count_boundary_once && this.epoch > 0 ? 1 : 0;
    this.#statistics.merge(
      {
        privileged: segment.states.slice(0, first, sizes.horizon + 1),
        actor: segment.observations.slice(0, first, sizes.horizon + 1),
      },
      frozen,
      sizes.members,
      weighting,
    );
  }

  /** Normalises the segment and asks the target critic for successor values (1.3, steps 7-10). */
  #read(frozen: FrozenNormalisers, scalars: Record<string, number>): Segment {
    const { sizes, tensors } = this.#simulation;
    const { nominals: N, members: G, environments: E, horizon: T, actions: A } = sizes;
    const { critic } = this.#config;

    const states = frozen.privileged.normaliseInto(this.#states, tensors.privileged);
    const observations = frozen.actor.normalise(tensors.actor);
    // Terminated successors have no value; after a fault they may not even be finite.
    let value = where(
      tensors.terminated.ne(0),
      0,
      this.#target.infer(
        frozen.privileged.normaliseInto(this.#successors, tensors.privilegedSuccessor),
      ),
    );
    const largest = value.abs().max().item();
    scalars.value_abs_max = largest;
    if (!(largest <= critic.value_limit)) {
      if (critic.value_limit_action === "abort" || Number.isNaN(largest)) {
        throw new TrainingError(
          `Cannot go on: expected successor values up to ${critic.value_limit}, got ${largest}; ` +
            `lower critic.lr or set critic.value_limit_action=clip`,
        );
      }
      value = value.clamp(-critic.value_limit, critic.value_limit);
    }

    const done = tensors.done.clone();
    done.select(0, T - 1).fill_(1);
    return {
      observations,
      states,
      observation: this.#observation(observations),
      state: states.slice(0, 0, T).reshape([T * E, -1]),
      reward: this.#scaleRewards(frozen.returnDeviation),
      successorValue: value,
      done,
      action: tensors.action.reshape([T, N, G, A]).select(2, 0),
      logStd: this.#config.actor.std === "state_dependent"
        ? clampTo(fromArray(this.#logStd, [T, N, A]), this.#config.actor.log_std_bounds)
        : clampTo(fromArray(this.#logStd, [A]), this.#config.actor.log_std_bounds),
    };
  }

  /** What the policy saw of the whole segment, in T*N rows; pictures stay where the simulator drew them. */
  #observation(vectors: Tensor): Observation {
    const { tensors, sizes } = this.#simulation;
    const rows = sizes.horizon * sizes.nominals;
    const vector = vectors.slice(0, 0, sizes.horizon).reshape([rows, -1]);
    if (this.#config.observation === "state") return vector;
    const pictures = [...tensors.images.values()].map((x) =>
      x.reshape([rows, ...x.shape.slice(2)])
    );
    return this.#config.camera.with_vector ? { pictures, vector } : { pictures };
  }

  /** What all pictures of this segment share is no news from now on. */
  #centreOn(seen: Observation): void {
    if (seen instanceof Tensor) return;
    this.#policy.centreOn(seen);
    this.#average?.centreOn(seen);
  }

  /** Scaled rewards [T, E], divided by the return's deviation if that is asked for (1.12). */
  #scaleRewards(returnDeviation: number): Tensor {
    const { sizes, tensors } = this.#simulation;
    const { discount, reward_scale, return_normaliser } = this.#config;
    const reward = tensors.reward.mul(reward_scale);
    if (!return_normaliser.enabled) return reward;
    for (let t = 0; t < sizes.horizon; t++) {
      using _scope = scope();
      const r = this.#runningReturn.mul_(discount).add_(reward.select(0, t));
      this.#returnStatistics.merge(
        [r.mean().item()],
        [r.var(0, { unbiased: false }).item()],
        sizes.environments,
      );
      if (return_normaliser.reset_on_done) {
        r.mul_(tensors.done.select(0, t).eq(0).to("float32"));
      }
    }
    return reward.div(returnDeviation);
  }

  // --------------------------------------------------------------------------------------- actor

  /** Moves the policy along the estimated ascent directions (1.5-1.9). */
  #updateActor(segment: Segment, scalars: Record<string, number>, phases: Phases) {
    const { actor, entropy, estimator } = this.#config;
    const { sizes, tensors } = this.#simulation;
    const { nominals: N, members: G, horizon: T, actions: A } = sizes;
    const sigma = segment.logStd.exp(); // [A] or [T, N, A]

    const started = performance.now();
    const difference = this.#returnDifference(segment); // [T, N, G]
    const deviation = groupDeviation(difference); // [T, N, 1]
    scalars.rollout_reward_var = deviation.square().mean().item();
    scalars.rollout_reward_positive_ratio = difference.gt(0).to("float32").mean().item();

    let noise = tensors.noise.reshape([T, N, G, A]);
    if (estimator.noise === "effective") {
      const action = tensors.action.reshape([T, N, G, A]);
      noise = action.sub(segment.action.unsqueeze(2))
        .div(sigma.shape.length === 1 ? sigma : sigma.unsqueeze(2));
    }
    const weights = normaliseDifference(difference, deviation, estimator);
    const { mean, logStd } = ascentDirections(weights, noise, sigma, estimator.top_k);

    const meanTarget = clampTo(segment.action.add(mean), actor.mean_bounds).reshape([T * N, A]);
    const logStdTarget = clampTo(segment.logStd.add(logStd), actor.log_std_bounds)
      .reshape([T * N, A]);
    phases.add("actor/delta_j", (performance.now() - started) / 1e3);
    const temperature = entropy.mode === "none" ? 0 : this.#logTemperature.exp().item();

    const lr = learningRate(actor.lr_schedule, this.epoch, {
      lr: actor.lr,
      epochs: actor.schedule_epochs || this.#config.epochs,
      warmupEpochs: actor.warmup_epochs,
      warmupStart: actor.warmup_start,
      lrMin: actor.lr_min,
    });
    this.#actorOptimiser.lr = lr;
    if (this.#encoderOptimiser !== undefined) {
      this.#encoderOptimiser.lr = lr * this.#config.encoder.lr_scale;
    }
    const parameters = trainable(this.#policy);
    const before = noGrad(() => parameters.map((p) => p.clone()));

    let old: { mean: Tensor; logStd: Tensor } | undefined; // [T*N, A], clamped, before any step
    let loss = 0;
    let gradientNorm = 0;
    for (let step = 0; step < actor.regression_steps; step++) {
      const predicted = this.#policy.forward(segment.observation);
      const predictedMean = clampTo(predicted.mean, actor.mean_bounds);
      const predictedLogStd = clampTo(predicted.logStd, actor.log_std_bounds)
        .expand([T * N, A]);
      old ??= { mean: predictedMean.detach(), logStd: predictedLogStd.detach() };
      let objective = actorLoss(
        predictedMean,
        predictedLogStd,
        meanTarget,
        logStdTarget,
        temperature,
      );
      if (actor.bounds_penalty > 0) {
        const beyond = predicted.mean.sub(predictedMean.detach());
        objective = objective.add(beyond.square().mean().mul(actor.bounds_penalty));
      }
      this.#actorOptimiser.zeroGrad();
      this.#encoderOptimiser?.zeroGrad();
      objective.backward();
      gradientNorm = clipGradNorm(parameters, actor.grad_norm);
      loss = objective.item();
      // A non-finite gradient must not reach a parameter: the step is left out and counted.
      if (Number.isFinite(gradientNorm)) {
        this.#actorOptimiser.step();
        this.#encoderOptimiser?.step();
      } else scalars.skipped_updates = (scalars.skipped_updates ?? 0) + 1;
    }
    if (actor.max_kl > 0) this.#limitStep(segment.observation, old!, before, scalars);
    if (this.#average !== undefined) {
      // A young average forgets faster, so that it does not drag the random start along.
      const retention = Math.min(actor.average, (1 + this.epoch) / (10 + this.epoch));
      this.#average.lerp(this.#policy, 1 - retention);
    }
    if (entropy.mode === "auto") this.#updateTemperature(old!.logStd.exp());

    scalars.actor_loss = loss;
    scalars.actor_grad_norm = gradientNorm;
    scalars.actor_lr = lr;
    scalars.policy_std = sigma.mean().item();
    scalars.temperature = temperature;
    scalars.action_saturation = segment.action.abs().ge(
      actor.mean_bounds === null ? Infinity : actor.mean_bounds[1],
    ).to("float32").mean().item();
  }

  /** ΔJ [T, N, G]: returns of the members minus their nominal's, in the variant asked for (1.5). */
  #returnDifference(segment: Segment): Tensor {
    const { discount, lambda, estimator } = this.#config;
    const { nominals: N, members: G, horizon: T } = this.#simulation.sizes;
    const { reward, successorValue, done } = segment;
    const traceDecay = estimator.causal && estimator.eligibility ? lambda : 1;
    let returns = lambdaReturn(reward, successorValue, done, discount, traceDecay); // [T, E]
    if (estimator.baseline === "critic") {
      returns = returns.sub(this.#target.infer(segment.state).reshape(returns.shape));
    }
    const grouped = returns.reshape([T, N, G]);
    const difference = grouped.sub(grouped.select(2, 0).unsqueeze(2));
    return estimator.causal ? difference : holdOverStretches(difference, done.reshape([T, N, G]));
  }

  /** Shortens the epoch's step until the mean KL divergence from the old policy is about max_kl. */
  #limitStep(
    observation: Observation,
    old: { mean: Tensor; logStd: Tensor },
    before: Tensor[],
    scalars: Record<string, number>,
  ) {
    const { actor } = this.#config;
    noGrad(() => {
      const now = this.#policy.forward(observation);
      const divergence = gaussianDivergence(
        old.mean,
        old.logStd,
        clampTo(now.mean, actor.mean_bounds),
        clampTo(now.logStd, actor.log_std_bounds),
      );
      scalars.kl = divergence;
      if (divergence <= actor.max_kl) return;
      // The divergence grows with the square of the step.
      const share = Math.sqrt(actor.max_kl / divergence);
      trainable(this.#policy).forEach((p, i) => p.lerp_(before[i], 1 - share));
      scalars.step_share = share;
    });
  }

  /** One step of log T towards σ = σ* (1.9). `sigma` [T*N, A] as predicted before the actor's step. */
  #updateTemperature(sigma: Tensor) {
    const { target_std, temperature_max } = this.#config.entropy;
    this.#temperatureOptimiser.zeroGrad();
    this.#logTemperature.exp().mul(sigma.sub(target_std).mean()).sum().backward();
    this.#temperatureOptimiser.step();
    if (temperature_max > 0) {
      noGrad(() => this.#logTemperature.clamp_(undefined, Math.log(temperature_max)));
    }
  }

  // -------------------------------------------------------------------------------------- critic

  /** Regresses the critic onto λ-returns of every environment, in shuffled passes (1.10). */
  #updateCritic(segment: Segment, scalars: Record<string, number>) {
    const { critic, discount, lambda } = this.#config;
    const { nominals: N, members: G, environments: E, horizon: T } = this.#simulation.sizes;

    const reward = this.#softReward(segment);
    let targets = lambdaReturn(reward, segment.successorValue, segment.done, discount, lambda);
    let states = segment.state;
    if (critic.nominals_only) {
      targets = targets.reshape([T, N, G]).select(2, 0).contiguous();
      states = states.reshape([T, N, G, -1]).select(2, 0).contiguous().reshape([T * N, -1]);
    }
    targets = targets.reshape([-1]);
    scalars.critic_target_mean = targets.mean().item();

    const lr = learningRate(critic.lr_schedule, this.epoch, {
      lr: critic.lr,
      epochs: this.#config.epochs,
    });
    this.#criticOptimiser.lr = lr;
    const samples = critic.nominals_only ? T * N : T * E;
    const drawn = Math.max(1, Math.round(samples * critic.sample_share));
    let skipped = 0; // Mini-batches whose gradient was not finite: the pass leaves them out.
    for (let pass = 0; pass < critic.passes; pass++) {
      using _scope = scope();
      using generator = generatorFor(this.#seed, Purpose.Shuffle, this.epoch, pass);
      const order = randperm(samples, generator).slice(0, 0, drawn);
      const result = mlpRegress(this.#criticOptimiser, states, targets, order, {
        batchSize: critic.batch,
        maxGradNorm: critic.grad_norm,
        eps: LAYER_NORM_EPS,
      });
      skipped += Math.ceil(drawn / critic.batch) - result.steps;
      scalars.critic_loss = result.loss;
      scalars.critic_grad_norm = result.gradNorm;
    }
    if (skipped > 0) scalars.skipped_updates = (scalars.skipped_updates ?? 0) + skipped;
    scalars.critic_lr = lr;
  }

  /** Rewards of the critic's targets, with the entropy bonus of the soft critic if it is on. */
  #softReward(segment: Segment): Tensor {
    const { entropy } = this.#config;
    if (!entropy.soft_critic || entropy.mode === "none") return segment.reward;
    const { nominals: N, members: G, horizon: T } = this.#simulation.sizes;
    const offset = entropy.soft_critic_offset === "target_std"
      ? entropy.target_std
      : Math.log(entropy.target_std);
    const bonus = segment.logStd.sub(offset).mean(-1) // scalar or [T, N]
      .mul(this.#logTemperature.detach().exp().item());
    return segment.reward.reshape([T, N, G])
      .add(bonus.shape.length === 0 ? bonus : bonus.unsqueeze(2))
      .reshape(segment.reward.shape);
  }

  // --------------------------------------------------------------------------------------- state

  /**
   * Everything the next epoch depends on, besides the simulator, by group and name. The tensors are
   * views or copies that the caller frees with a scope. All randomness is drawn from (seed, purpose,
   * epoch, pass), so there is no generator to save.
   */
  state(): Map<string, Map<string, Tensor>> {
    const groups = new Map<string, Map<string, Tensor>>([
      ["actor", this.#policy.tensors()],
      ["critic", this.#critic.parameters()],
      ["target", this.#target.parameters()],
      ["temperature", new Map([["log", this.#logTemperature]])],
      ["actor_optimiser", optimiserState(this.#actorOptimiser)],
      ["critic_optimiser", optimiserState(this.#criticOptimiser)],
      ["temperature_optimiser", optimiserState(this.#temperatureOptimiser)],
      ["statistics", this.#statistics.state()],
      [
        "returns",
        new Map([...this.#returnStatistics.state(), ["running", this.#runningReturn]]),
      ],
      ["episodes", this.#meter.state()],
      [
        "counters",
        new Map([[
          "counters",
          fromArray(
            new Float64Array([
              this.epoch,
              this.envStepsNominal,
              this.envStepsTotal,
              this.imagesRendered,
            ]),
            [4],
          ),
        ]]),
      ],
    ]);
    if (this.#encoderOptimiser !== undefined) {
      groups.set("encoder_optimiser", optimiserState(this.#encoderOptimiser));
    }
    if (this.#average !== undefined) groups.set("average", this.#average.tensors());
    return groups;
  }

  /** Takes over a state of the same configuration. */
  load(groups: StateGroups) {
    copyParameters(this.#policy.tensors(), groups.get("actor")!);
    copyParameters(this.#critic.parameters(), groups.get("critic")!);
    copyParameters(this.#target.parameters(), groups.get("target")!);
    if (this.#average !== undefined) {
      copyParameters(this.#average.tensors(), groups.get("average")!);
    }
    copyParameters(new Map([["log", this.#logTemperature]]), groups.get("temperature")!);
    loadOptimiser(this.#actorOptimiser, groups.get("actor_optimiser")!);
    if (this.#encoderOptimiser !== undefined) {
      loadOptimiser(this.#encoderOptimiser, groups.get("encoder_optimiser")!);
    }
    loadOptimiser(this.#criticOptimiser, groups.get("critic_optimiser")!);
    loadOptimiser(this.#temperatureOptimiser, groups.get("temperature_optimiser")!);
    this.#statistics.load(groups.get("statistics")!);
    this.#returnStatistics.load(groups.get("returns")!);
    this.#runningReturn.copy_(groups.get("returns")!.get("running")!);
    this.#meter.load(groups.get("episodes")!);
    const counters = groups.get("counters")!.get("counters")!.toArray();
    this.epoch = Number(counters[0]);
    this.envStepsNominal = Number(counters[1]);
    this.envStepsTotal = Number(counters[2]);
    this.imagesRendered = Number(counters[3]);
  }

  [Symbol.dispose]() {
    for (const network of [this.#policy, this.#average, this.#critic, this.#target]) {
      network?.[Symbol.dispose]();
    }
    for (
      const optimiser of [
        this.#actorOptimiser,
        this.#encoderOptimiser,
        this.#criticOptimiser,
        this.#temperatureOptimiser,
      ]
    ) optimiser?.[Symbol.dispose]();
    this.#logTemperature[Symbol.dispose]();
    for (const tensor of [this.#runningReturn, this.#states, this.#successors]) {
      tensor[Symbol.dispose]();
    }
  }
}

/** A policy without noise and its normaliser, frozen. */
export interface DeterministicPolicy extends Disposable {
  /** What the nominals show in slot t of a rollout buffer -> raw pre-tanh means [N*A]. */
  act(tensors: RolloutTensors, t: number): Float32Array;
}

function deterministic(
  config: SdpgConfiguration,
  policy: GaussianPolicy,
  statistics: ObservationStatistics,
): DeterministicPolicy {
  const { actor, privileged } = statistics.freeze();
  privileged[Symbol.dispose]();
  return {
    act(tensors, t) {
      using _scope = scope();
      return policy.infer(observe(config, tensors, t, actor)).mean.toArray() as Float32Array;
    },
    [Symbol.dispose]: () => actor[Symbol.dispose](),
  };
}

/** What the policy sees of the nominals in slot t. */
function observe(
  { observation, camera }: SdpgConfiguration,
  tensors: RolloutTensors,
  t: number,
  normaliser: Normaliser,
): Observation {
  const vector = () => normaliser.normalise(tensors.actor.select(0, t)); // [N, O]
  if (observation === "state") return vector();
  const pictures = [...tensors.images.values()].map((x) => x.select(0, t)); // [N, F*3, h, w]
  return camera.with_vector ? { pictures, vector: vector() } : { pictures };
}

/** Of a checkpoint's groups, those that `loadPolicy` reads: the averaged policy where there is one. */
export function policyGroups(there: ReadonlySet<string>): string[] {
  return [there.has("average") ? "average" : "actor", "statistics"];
}

/**
 * The policy that a state evaluates with.
 *
 * @param views what its cameras see, in the order of the rollout buffer's images
 */
export function loadPolicy(
  config: SdpgConfiguration,
  program: TaskProgram,
  views: readonly View[],
  groups: StateGroups,
): DeterministicPolicy {
  using generator = new Generator(0n); // Every value it draws is replaced.
  const policy = policyFor(config, program, views, generator);
  copyParameters(policy.tensors(), groups.get("average") ?? groups.get("actor")!);
  const statistics = new ObservationStatistics(program.observations);
  statistics.load(groups.get("statistics")!);
  const acting = deterministic(config, policy, statistics);
  return {
    act: acting.act,
    [Symbol.dispose]() {
      acting[Symbol.dispose]();
      policy[Symbol.dispose]();
    },
  };
}

// ------------------------------------------------------------------------------ the estimator's parts

/**
 * Deviation of ΔJ over the members of each group and step, the nominal's zero included, with Bessel's
 * correction (1.6). [T, N, G] -> [T, N, 1].
 */
export function groupDeviation(difference: Tensor): Tensor {
  return difference.std(2, { unbiased: true, keepdim: true });
}

/**
 * Weights ΔĴ of the members [T, N, G] (1.6): ΔJ, centred if asked for, over its deviation.
 * Published: not centred, divided by the group's own deviation + 1e-6.
 */
export function normaliseDifference(
  difference: Tensor,
  deviation: Tensor,
  options: SdpgConfiguration["estimator"],
): Tensor {
  let weights = difference;
  if (options.centre) {
    const members = difference.shape[2];
    const mean = difference.slice(2, 1, members).mean(2, true);
    // The nominal drew no noise, so it has no say: it stays 0.
    weights = where(arange(members).gt(0), difference.sub(mean), 0);
  }
  if (options.normalise === "none") return weights;
  const typical = Math.sqrt(deviation.square().mean().item());
  if (options.normalise === "batch") return weights.div(typical + 1e-6);
  const divisor = options.deviation_floor > 0
    ? deviation.clamp(options.deviation_floor * typical)
    : deviation;
  return weights.div(divisor.add(1e-6));
}

/**
 * Ascent directions of the mean and of log σ (1.7), both [T, N, A]: means over the members of ΔĴ·ε and
 * ΔĴ·(ε² - 1)·σ. They are the score-function gradients times σ.
 *
 * @param weights ΔĴ [T, N, G]
 * @param noise ε [T, N, G, A], zero for nominals
 * @param sigma [A] or [T, N, A]
 * @param topK only the K largest ΔĴ of each (step, group) enter, and the mean is over K; 0 takes all
 */
export function ascentDirections(
  weights: Tensor,
  noise: Tensor,
  sigma: Tensor,
  topK: number,
): { mean: Tensor; logStd: Tensor } {
  const [T, N, G, A] = noise.shape;
  if (topK > 0 && topK < G) {
    const best = weights.topk(topK, 2);
    weights = best.values;
    noise = noise.gather(2, best.indices.unsqueeze(3).expand([T, N, topK, A]));
  }
  const members = weights.shape[2];
  // [T*N, 1, G] x [T*N, G, A]: sums over the members.
  const row = weights.reshape([T * N, 1, members]);
  const sum = (x: Tensor) => row.matmul(x.reshape([T * N, members, A])).reshape([T, N, A]);
  return {
    mean: sum(noise).div(members),
    logStd: sum(noise.square().sub(1)).div(members).mul(sigma),
  };
}

/**
 * The non-causal variant (1.5): every step of a done-free stretch gets the ΔJ of the stretch's first.
 * difference [T, N, G] of plain discounted returns, done [T, N, G] uint8 -> [T, N, G].
 */
export function holdOverStretches(difference: Tensor, done: Tensor): Tensor {
  const held = difference.clone();
  for (let t = 1; t < difference.shape[0]; t++) {
    using _scope = scope();
    const starts = done.select(0, t - 1).ne(0);
    held.select(0, t).copy_(where(starts, difference.select(0, t), held.select(0, t - 1)));
  }
  return held;
}

/** L_π (1.8): regression of mean and log σ onto constant targets, all [B, A], minus T · mean log σ. */
export function actorLoss(
  mean: Tensor,
  logStd: Tensor,
  meanTarget: Tensor,
  logStdTarget: Tensor,
  temperature: number,
): Tensor {
  const loss = mseLoss(mean, meanTarget).add(mseLoss(logStd, logStdTarget));
  return temperature === 0 ? loss : loss.sub(logStd.mean().mul(temperature));
}

/** Mean over samples of KL(old ‖ new) of diagonal Gaussians; all [B, A] or broadcastable. */
export function gaussianDivergence(
  oldMean: Tensor,
  oldLogStd: Tensor,
  newMean: Tensor,
  newLogStd: Tensor,
): number {
  const spread = oldLogStd.mul(2).exp().add(oldMean.sub(newMean).square());
  return newLogStd.sub(oldLogStd)
    .add(spread.div(newLogStd.mul(2).exp().mul(2)))
    .sub(0.5).sum(-1).mean().item();
}

// ---------------------------------------------------------------------------------------- helpers

/** The statistics a segment is normalised with, copied at its start. */
class FrozenNormalisers implements Disposable {
  readonly privileged: Normaliser;
  readonly actor: Normaliser;
  /** Deviation of the running return. */
  readonly returnDeviation: number;

  constructor(observations: ObservationStatistics, returns: RunningStatistics) {
    ({ privileged: this.privileged, actor: this.actor } = observations.freeze());
    this.returnDeviation = Math.sqrt(returns.variance[0] + 1e-6);
  }

  [Symbol.dispose]() {
    this.privileged[Symbol.dispose]();
    this.actor[Symbol.dispose]();
  }
}

enum Purpose {
  Initialise = 1,
  Shuffle = 2,
}

function policyFor(
  config: SdpgConfiguration,
  program: TaskProgram,
  views: readonly View[],
  generator: Generator,
) {
  const vector = program.observations.reduce((sum, o) => sum + (o.actor ? o.length : 0), 0);
  return new GaussianPolicy({
    input: config.observation === "state" ? vector : {
      cameras: views.map(cameraOf),
      vector: config.camera.with_vector ? vector : 0,
      ...config.encoder,
    },
    hidden: config.actor.hidden,
    actions: program.actionSize,
    outputGain: config.actor.output_gain,
    std: config.actor.std,
    logStdInit: config.actor.log_std_init,
    generator,
  });
}

/** A generator for one draw, keyed by what it is for: nothing about it needs saving. */
function generatorFor(seed: bigint, purpose: Purpose, epoch: number, pass: number): Generator {
  // SplitMix64's finaliser over each part in turn; its constants are those of Steele et al. 2014.
  let key = seed;
  for (const part of [BigInt(purpose), BigInt(epoch), BigInt(pass)]) {
    key = BigInt.asUintN(64, key + part + 0x9e3779b97f4a7c15n);
    key = BigInt.asUintN(64, (key ^ (key >> 30n)) * 0xbf58476d1ce4e5b9n);
    key = BigInt.asUintN(64, (key ^ (key >> 27n)) * 0x94d049bb133111ebn);
    key ^= key >> 31n;
  }
  return new Generator(key);
}

/** Moments and step count, numbers as one-element tensors. */
function optimiserState(optimiser: Adam): Map<string, Tensor> {
  return new Map(
    Object.entries(optimiser.state()).map(([name, value]) => [
      name,
      typeof value === "number" ? fromArray(new Float64Array([value]), [1]) : value,
    ]),
  );
}

function loadOptimiser(optimiser: Adam, state: ReadonlyMap<string, Tensor>) {
  const own = optimiser.state();
  optimiser.setState(Object.fromEntries(
    [...state].map(([name, t]) => [name, typeof own[name] === "number" ? t.item() : t]),
  ));
}

function clampTo(x: Tensor, bounds: readonly [number, number] | null): Tensor {
  return bounds === null ? x : x.clamp(bounds[0], bounds[1]);
}

function trainable(network: { parameters(): Map<string, Tensor> }): Tensor[] {
  return [...network.parameters().values()].filter((p) => p.requiresGrad);
}
