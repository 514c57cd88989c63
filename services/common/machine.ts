// What a run is recorded with besides its configuration: the version of the code and the machine.

import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { checkoutDirectory } from "./home.ts";

/** Commit that is checked out, 12 digits, or "unversioned" outside a git checkout. */
export function codeVersion(): string {
  const read = (...path: string[]): string | undefined => {
    try {
      return Deno.readTextFileSync(join(checkoutDirectory, ".git", ...path)).trim();
    } catch (error) {
      if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) {
        return undefined;
      }
      throw error;
    }
  };
  const head = read("HEAD");
  const branch = head?.startsWith("ref: ") ? head.slice("ref: ".length) : undefined;
  const commit = branch === undefined ? head : read(...branch.split("/")) ??
    read("packed-refs")?.split("\n").find((line) => line.endsWith(` ${branch}`))?.split(" ")[0];
  return commit?.slice(0, 12) ?? "unversioned";
}

export function hardware(libraries: Record<string, unknown>): Record<string, unknown> {
  const processors = cpus();
  return {
    processor: processors[0]?.model ?? "unknown",
    cores: processors.length,
    memory_bytes: totalmem(),
    ...libraries,
  };
}
