// The official MuJoCo build for JavaScript, loaded once per process.
//
// It compiles MJCF for us and is the oracle of the parity tests. Objects it returns live on
// its own heap and must be freed with `.delete()`.
import load, { type MainModule } from "@mujoco/mujoco";

export type Mujoco = MainModule;
import type { MjModel } from "@mujoco/mujoco";
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

/**
 * Name of an object (`type`: a value of mjtObj), "" when it has none. Where there is no name the
 * bindings turn MuJoCo's null pointer into whatever text stands at address 0, so we ask back.
 */
export function objectName(mj: Mujoco, model: MjModel, type: number, id: number): string {
  const name = mj.mj_id2name(model, type, id) ?? "";
  return name !== "" && mj.mj_name2id(model, type, name) === id ? name : "";
}
