// What a policy that learns from pixels looks at: the task's cameras at the configured size.

import { ConfigurationError } from "./configuration.ts";
import { type Camera, type EncoderKind, smallestPicture } from "./networks/encoder.ts";
import type { View } from "./simulation.ts";

/** The settings this reads; they are part of algorithms/sdpg.ts's tree. */
interface Settings {
  readonly observation: "state" | "pixels";
  readonly camera: { readonly width: number; readonly height: number; readonly frames: number };
  readonly encoder: { readonly kind: EncoderKind };
}

/**
 * One view per camera that the task declares; none when learning from state.
 *
 * @throws ConfigurationError when the task has no camera, or the encoder cannot take such small pictures
 */
export function viewsOf(
  task: { readonly name: string; readonly cameras?: readonly string[] },
  { observation, camera, encoder }: Settings,
): View[] {
  if (observation === "state") return [];
  if (task.cameras === undefined || task.cameras.length === 0) {
    throw new ConfigurationError(
      `Cannot train ${task.name} from pixels: it declares no camera; name one in "cameras" of its ` +
        "task.ts, or train from state with --obs state",
    );
  }
  const smallest = smallestPicture(encoder.kind);
  for (const side of ["width", "height"] as const) {
    if (camera[side] >= smallest) continue;
    throw new ConfigurationError(
      `Cannot set camera.${side}: encoder ${encoder.kind} needs at least ${smallest}, got ${
        camera[side]
      }`,
    );
  }
  const { width, height, frames } = camera;
  return task.cameras.map((name) => ({ camera: name, width, height, frames }));
}

/** What the encoder of a view takes. */
export function cameraOf({ camera, width, height, frames }: View): Camera {
  return { name: camera, channels: 3 * frames, rows: height, columns: width };
}
