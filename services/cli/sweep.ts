// What a killed command or service may have left behind is removed when the next one starts: shared
// memory of processes that no longer exist, log files of theirs, and runs that still say "running"
// although their learner is gone.

import { join } from "node:path";
import {
  locksDirectory,
  readServices,
  runsDirectory,
  withLock,
  writeServices,
} from "@sdpg/common/home.ts";

/** `/sdpg-<uid>-<pid>-<label>-<16 hex>`: the objects gpu-sim makes. */
const sharedMemoryPattern = /^sdpg-(\d+)-(\d+)-.*-[0-9a-f]{16}$/;

export interface Swept {
  sharedMemory: string[];
  files: string[];
}

/** Removes what dead processes left. Safe to run beside live ones. */
export async function sweep(home: string): Promise<Swept> {
  // Reading drops the entries of dead processes; writing them back makes that last.
  await withLock(home, "services", () => {
    writeServices(home, readServices(home));
    return Promise.resolve();
  });
  return {
    sharedMemory: await sweepSharedMemory(),
    files: [
      ...await sweepFiles(join(home, "logs"), /-(\d+)\.log$/),
      ...await sweepFiles(locksDirectory(home), /^gpu-sim-(\d+)\.fifo$/),
    ],
  };
}

/** /dev is closed to a Deno process with named permissions, so `ls` and `rm` do it. */
async function sweepSharedMemory(): Promise<string[]> {
  const { stdout } = await new Deno.Command("ls", {
    args: ["-1", "/dev/shm"],
    stderr: "null",
  }).output();
  const stale = new TextDecoder().decode(stdout).split("\n").filter((name) => {
    const match = sharedMemoryPattern.exec(name);
    return match && Number(match[1]) === Deno.uid() && !exists(Number(match[2]));
  });
  if (stale.length === 0) return [];
  await new Deno.Command("rm", {
    args: ["-f", "--", ...stale.map((name) => `/dev/shm/${name}`)],
  }).output();
  return stale;
}

/** Removes files whose name holds the id of a command that is gone. */
async function sweepFiles(directory: string, pattern: RegExp): Promise<string[]> {
  const removed: string[] = [];
  try {
    for await (const { name } of Deno.readDir(directory)) {
      const match = pattern.exec(name);
      if (!match || exists(Number(match[1]))) continue;
      await Deno.remove(join(directory, name));
      removed.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return removed;
}

/** Whether any process has this id, also one of another user. */
export function exists(pid: number): boolean {
  return new Deno.Command("test", { args: ["-d", `/proc/${pid}`] }).outputSync().success;
}

/** Runs on disk, newest first. */
export function listRunDirectories(home: string): string[] {
  try {
    return [...Deno.readDirSync(runsDirectory(home))].filter((entry) => entry.isDirectory).map((
      entry,
    ) => entry.name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
