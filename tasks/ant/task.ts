// Ant: a four-legged robot that earns reward for running along x with its back up.
// Numbers: SDPG paper and code; docs/tasks.md has the table and what differs between variants.
import { becomes, defineTask, observed, reward } from "@sdpg/common/task/declare.ts";
import { concat } from "@sdpg/common/task/expression.ts";
import { normalised, turn, xAxis, yAxis, zAxis } from "@sdpg/common/task/geometry.ts";

/** Heights of the torso's centre, m. */
const FALLEN = 0.27;
const FLOWN_OFF = 1.3;
/** Far ahead on the x axis, m: where the ant is to look. */
const TARGET = [10_000, 0];
/** N m of a motor at a control of 1, and what the robot's motors are made for. */
const GEAR = 200;
const STRENGTH = 150;
/** How an episode starts: hips straight, ankles bent; position and joints this far off at most. */
const START = [0, 1, 0, -1, 0, -1, 0, 1];
const START_NOISE = 0.05;
const START_TILT = Math.PI / 24;

export default defineTask({
  name: "ant",
  summary: "Four-legged robot: run forward, stay upright.",
  model: new URL("./model.xml", import.meta.url),
  substeps: 2,
  episodeLength: 1000,
  cameras: ["side"],
  options: {
    variant: {
      meaning:
        "published keeps two faults of the official task: uprightness that is blind to pitch, " +
        "and motors stronger one way than the other",
      choices: ["corrected", "published"],
      default: "corrected",
    },
  },

  terms(world, { variant }) {
    const published = variant === "published";
    const root = world.freeJoint("root");
    const joints = world.joints(
      ...[1, 2, 3, 4].flatMap((leg) => [`hip_${leg}`, `ankle_${leg}`]),
    );
    const previous = world.keep("previous_action", world.actionSize);

    const height = root.position.at(2);
    const ahead = normalised(concat(...TARGET).sub(root.position.slice(0, 2)));
    const heading = xAxis(root.orientation).slice(0, 2).dot(ahead);
    // The published term takes y for the vertical: it is 1 at the start, falls with yaw and roll
    // and does not see pitch. True uprightness is how far the torso's z axis points up.
    const up = published ? yAxis(root.orientation).at(1) : zAxis(root.orientation).at(2);

    return {
      // The published torque is 200 u, cut at +150 but not at -150 N m.
      control: published ? world.action.min(STRENGTH / GEAR) : world.action.mul(STRENGTH / GEAR),

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
          published ? previous.value.mul(GEAR) : previous.value,
        )),
      },

      rewards: {
        forward: reward(1, root.linearVelocity.at(0)),
        upright: reward(0.1, up),
        heading: reward(1, heading),
        height: reward(1, height.sub(FALLEN)),
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
          concat(...START).add(world.uniform(-START_NOISE, START_NOISE, START.length)),
        ),
      },
    };
  },
});
