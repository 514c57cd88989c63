// Humanoid: a two-legged robot with arms that earns reward for running along x upright.
// Numbers: SDPG paper and code; docs/tasks.md has the table and what differs between variants.
import { becomes, defineTask, observed, reward } from "@sdpg/common/task/declare.ts";
import { concat } from "@sdpg/common/task/expression.ts";
import { normalised, turn, xAxis, yAxis, zAxis } from "@sdpg/common/task/geometry.ts";

/** Heights of the torso's centre, m. */
const FALLEN = 0.74;
const FLOWN_OFF = 2;
/** The height at which the reward for height is 0, and how far above it still pays. */
const HEIGHT_OF_NO_REWARD = FALLEN + 0.1;
const HEIGHT_CAP = 0.1;
/** Ahead on the x axis, m: where the humanoid is to look. */
const TARGET = [200, 0];
/** Position and joints start this far from standing at most, m and rad, and this far turned. */
const START_NOISE = 0.05;
const START_TILT = Math.PI / 24;

/** The joints in the order of the actions. */
const sides = ["right", "left"];
const JOINTS = [
  ...["abdomen_y", "abdomen_z", "abdomen_x"],
  ...sides.flatMap((side) =>
    ["hip_x", "hip_z", "hip_y", "knee", "ankle_x", "ankle_y"].map((joint) => `${side}_${joint}`)
  ),
  ...sides.flatMap((side) =>
    ["shoulder1", "shoulder2", "elbow"].map((joint) => `${side}_${joint}`)
  ),
];

export default defineTask({
  name: "humanoid",
  summary: "Two-legged robot with arms: run forward, stay upright.",
  model: new URL("./model.xml", import.meta.url),
  substeps: 2,
  episodeLength: 1000,
  cameras: ["back"],
  options: {
    variant: {
      meaning: "published keeps a fault of the official task: uprightness that is blind to pitch",
      choices: ["corrected", "published"],
      default: "corrected",
    },
  },

  terms(world, { variant }) {
    const published = variant === "published";
    const root = world.freeJoint("root");
    const joints = world.joints(...JOINTS);
    const previous = world.keep("previous_action", world.actionSize);

    const height = root.position.at(2);
    const above = height.sub(HEIGHT_OF_NO_REWARD).clip(-1, HEIGHT_CAP);
    const ahead = normalised(concat(...TARGET).sub(root.position.slice(0, 2)));
    const heading = xAxis(root.orientation).slice(0, 2).dot(ahead);
    // The published term takes y for the vertical: it is 1 at the start, falls with yaw and roll
    // and does not see pitch. True uprightness is how far the torso's z axis points up.
    const up = published ? yAxis(root.orientation).at(1) : zAxis(root.orientation).at(2);
    // The published observation holds torques, N m.
    const strength = JOINTS.map((joint) => world.actuator(joint).gear);

    return {
      // The gears of the motors make it torques.
      control: world.action,

      observations: {
        // The position on the ground is left out: running is the same everywhere.
        state: observed(concat(
          height,
          root.orientation,
          root.linearVelocity,
          root.angularVelocity,
          joints.position,
          joints.velocity.mul(0.1),
          up,
          heading,
          published ? previous.value.mul(strength) : previous.value,
        )),
      },

      rewards: {
        height: reward(1, above.less(0).select(above.square().mul(-200), above.mul(10))),
        forward: reward(1, root.linearVelocity.at(0)),
        upright: reward(0.1, up),
        heading: reward(1, heading),
        control: reward(-0.002, world.action.square().sum()),
      },

      terminations: {
        fallen: height.less(FALLEN),
        flown_off: height.greater(FLOWN_OFF),
      },

      keep: [becomes(previous, world.action)],

      reset: {
        qpos: concat(
          root.position.add(world.uniform(-START_NOISE, START_NOISE, 3)),
          turn(world.direction(), world.uniform(-START_TILT, START_TILT)),
          world.uniform(-START_NOISE, START_NOISE, JOINTS.length),
        ),
      },
    };
  },
});
