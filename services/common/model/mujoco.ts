// The official MuJoCo build for JavaScript, loaded once per process.
//
// It compiles MJCF for us and is the oracle of the parity tests. Objects it returns live on
// its own heap and must be freed with `.delete()`.
import load, { type MainModule } from "@mujoco/mujoco";

export type Mujoco = MainModule;
export type { MjData, MjModel } from "@mujoco/mujoco";

let module: Promise<Mujoco> | undefined;

/** MuJoCo's module; the first call loads it (about 0.3 s), later calls return the same one. */
export function mujoco(): Promise<Mujoco> {
  return module ??= load({
    // MuJoCo prints warnings while compiling; they go where our logs go, never to stdout.
    print: (line: string) => console.error(line),
    printErr: (line: string) => console.error(line),
  });
}
