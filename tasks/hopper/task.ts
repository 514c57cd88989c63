// Hopper: a planar one-legged robot that earns reward for running forward upright.
// Numbers: SDPG paper and code; docs/tasks.md has the table and what differs between variants.
import { defineTask, observed, reward } from "@sdpg/common/task/declare.ts";
import { concat } from "@sdpg/common/task/expression.ts";

/** Heights are relative to the standing pose, where the torso's centre is 1.25 m above the ground. */
const FALLEN = -0.45;
const FLOWN_OFF = 15;
/** The height at which the reward for height is 0. */
const HEIGHT_OF_NO_REWARD = FALLEN + 0.15;
/** Pitch at which the reward for uprightness is 0, rad. */
const PITCH_SCALE = Math.PI / 6;
/** m/s or rad/s of any coordinate. */
const TOO_FAST = 100;
/** Every coordinate starts this far from standing at most, m or rad. */
const START_NOISE = 0.05;

export default defineTask({
  name: "hopper",
  summary: "Planar one-legged robot: run forward, stay upright and high.",
  model: new URL("./model.xml", import.meta.url),
  substeps: 2,
  episodeLength: 1000,
  cameras: ["side"],
  options: {
    height_cap: {
      meaning: "height above the zero of the height reward that still pays, m " +
        "(3 as in SDPG; SHAC and D.VA use 0.3)",
      default: 3,
    },
  },

  terms(world, options) {
    const forward = world.joint("rootx");
    const up = world.joint("rootz");
    const pitch = world.joint("rooty");
    const leg = world.joints("thigh", "leg", "foot");

    const height = up.position.sub(HEIGHT_OF_NO_REWARD).clip(-1, options.height_cap);
    const tilt = pitch.position.wrapAngle().div(PITCH_SCALE);

    return {
      // The gears of the motors make it 200 N m at 1.
      control: world.action,

      observations: {
        // The position along the track is left out: running is the same everywhere.
        state: observed(concat(
          up.position,
          pitch.position,
          leg.position,
          forward.velocity,
          up.velocity,
          pitch.velocity,
          leg.velocity,
        )),
      },

      rewards: {
        height: reward(1, height.less(0).select(height.square().mul(-200), height)),
        upright: reward(1, tilt.square().neg().add(1)),
        forward: reward(1, forward.velocity),
        control: reward(-0.1, world.action.square().sum()),
      },

      terminations: {
        fallen: up.position.less(FALLEN),
        flown_off: up.position.greater(FLOWN_OFF),
        too_fast: world.qvel.abs().largest().greater(TOO_FAST),
      },

      reset: {
        qpos: world.qpos.add(world.uniform(-START_NOISE, START_NOISE, world.qpos.length)),
      },
    };
  },
});
