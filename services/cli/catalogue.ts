// Names that can be checked before any service runs: they are files of the checkout.

import { join } from "node:path";
import { checkoutDirectory } from "@sdpg/common/home.ts";

/** Tasks: folders of tasks/ that hold a task.ts. */
export function listTaskNames(): string[] {
  const folder = join(checkoutDirectory, "tasks");
  return [...Deno.readDirSync(folder)]
    .filter(({ name, isDirectory }) => isDirectory && isFile(join(folder, name, "task.ts")))
    .map(({ name }) => name)
    .sort();
}

/** Algorithms: one file each in services/learner/algorithms. */
export function listAlgorithmNames(): string[] {
  const folder = join(checkoutDirectory, "services/learner/algorithms");
  return [...Deno.readDirSync(folder)]
    .filter(({ name }) => name.endsWith(".ts") && !name.includes(".test."))
    .map(({ name }) => name.slice(0, -3))
    .sort();
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}
