// Walker: a planar robot on two legs that earns reward for walking forward.
// Numbers: SDPG paper and code; docs/tasks.md has the table and what differs between variants.
import { defineTask, observed, reward } from "@sdpg/common/task/declare.ts";
import { concat, constant } from "@sdpg/common/task/expression.ts";

/** Heights are relative to the standing pose, where the torso's centre is 1.3 m above the ground. */
const FALLEN = -0.5;
const TOO_HIGH = 0.7;
/** rad. */
const TIPPED = 1;
/** m/s or rad/s of any coordinate: the rule of the MuJoCo (MJX) variant. */
const TOO_FAST = 100;
/** Every coordinate starts this far from standing at most, m or rad. */
const START_NOISE = 0.05;

export default defineTask({
  name: "walker",
  summary: "Planar robot on two legs: walk forward without tipping over.",
  model: new URL("./model.xml", import.meta.url),
  substeps: 2,
  episodeLength: 1000,
  cameras: ["side"],

  terms(world) {
    const forward = world.joint("rootx");
    const up = world.joint("rootz");
    const pitch = world.joint("rooty");
    const legs = world.joints(
      ...["right", "left"].flatMap((side) => [`${side}_hip`, `${side}_knee`, `${side}_ankle`]),
    );

    return {
      // The gears of the motors make it 100, 50 and 20 N m at 1.
      control: world.action,

      observations: {
        // Pitch comes before height here, unlike in Hopper; the position along the track is left out.
        state: observed(concat(
          pitch.position,
          up.position,
          legs.position,
          forward.velocity,
          pitch.velocity,
          up.velocity,
          legs.velocity,
        )),
      },

      rewards: {
        forward: reward(1, forward.velocity),
        control: reward(-0.01, world.action.square().sum()),
        alive: reward(0.1, constant(1)),
      },

      terminations: {
        fallen: up.position.less(FALLEN),
        too_high: up.position.greater(TOO_HIGH),
        tipped: pitch.position.abs().greater(TIPPED),
        too_fast: world.qvel.abs().largest().greater(TOO_FAST),
      },

      reset: {
        qpos: world.qpos.add(world.uniform(-START_NOISE, START_NOISE, world.qpos.length)),
      },
    };
  },
});
