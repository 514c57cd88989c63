// Where state lives. Everything a checkout writes is under SDPG_HOME (default `.sdpg/` in the
// checkout), so two copies of the repository never meet:
//
//   runs/<run_id>/{run.json, checkpoints/<epoch>/…, run.log}
//   store/          the embedded ClickHouse
//   services.json   addresses of services that `sdpg up` (or a training) left running
//   locks/          advisory locks, held by open files and so never stale

import { dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** Root of the checkout this file belongs to. */
export const checkoutDirectory = fileURLToPath(new URL("../..", import.meta.url)).replace(
  /\/$/,
  "",
);

/** Absolute path of SDPG_HOME. It is not created here. */
export function sdpgHome(): string {
  const set = Deno.env.get("SDPG_HOME");
  if (set === undefined || set === "") return join(checkoutDirectory, ".sdpg");
  return isAbsolute(set) ? set : resolve(set);
}

/** Names a run may have: they are folder names, so nothing else is let near a path. */
export const runIdPattern = /^[a-z0-9][a-z0-9-]{0,63}$/;

export function isRunId(text: string): boolean {
  return runIdPattern.test(text);
}

/** `runs/<run_id>` of a home. Throws for a name that is no run id. */
export function runDirectory(home: string, runId: string): string {
  if (!isRunId(runId)) {
    throw new Error(
      `Cannot use "${runId}" as a run's name: expected up to 64 of a-z, 0-9 and -, not starting with -`,
    );
  }
  return join(home, "runs", runId);
}

export const runsDirectory = (home: string): string => join(home, "runs");
export const checkpointsDirectory = (home: string, runId: string): string =>
  join(runDirectory(home, runId), "checkpoints");
export const storeDirectory = (home: string): string => join(home, "store");
/** Rows that the telemetry service has taken and the store does not have yet. */
export const spoolDirectory = (home: string): string => join(home, "spool");
export const locksDirectory = (home: string): string => join(home, "locks");
export const servicesFile = (home: string): string => join(home, "services.json");

/** Creates the home and its folders, readable by its owner only. */
export function createHome(home: string): void {
  for (const path of [home, runsDirectory(home), locksDirectory(home)]) {
    Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
  }
}

/** A running service, as services.json lists it. */
export interface ServiceEntry {
  service: string; // gpu-sim | learner | telemetry
  address: string; // HOST:PORT
  pid: number;
  /** Start time of the process in clock ticks since boot: tells a reused pid from the real one. */
  startTicks: number;
}

/** Entry of a process that runs now; throws when it does not. */
export function serviceEntry(service: string, address: string, pid: number): ServiceEntry {
  const startTicks = processStartTicks(pid);
  if (startTicks === undefined) {
    throw new Error(`Cannot register ${service}: process ${pid} is not running`);
  }
  return { service, address, pid, startTicks };
}

/** Services of services.json whose process is still the one that was written down. */
export function readServices(home: string): ServiceEntry[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(servicesFile(home));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
  let entries: unknown;
  try {
    entries = JSON.parse(text);
  } catch {
    entries = undefined;
  }
  if (!Array.isArray(entries) || !entries.every(isServiceEntry)) {
    throw new Error(
      `Cannot read ${servicesFile(home)}: expected a list of running services; run "./sdpg down" ` +
        `and delete the file`,
    );
  }
  return entries.filter((entry) => processStartTicks(entry.pid) === entry.startTicks);
}

/** Replaces the list; an empty one removes the file. */
export function writeServices(home: string, entries: ServiceEntry[]): void {
  if (entries.length > 0) {
    writeFileAtomic(servicesFile(home), JSON.stringify(entries, null, 2) + "\n");
    return;
  }
  try {
    Deno.removeSync(servicesFile(home));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/**
 * Start time of a process in clock ticks since boot (field 22 of /proc/<pid>/stat), or undefined
 * where there is no such process or it is a zombie.
 */
export function processStartTicks(pid: number): number | undefined {
  // Deno opens /proc only to processes that have every permission; ours have named ones.
  const { success, stdout } = new Deno.Command("cat", {
    args: [`/proc/${pid}/stat`],
    stdin: "null",
    stderr: "null",
  }).outputSync();
  if (!success) return undefined;
  const stat = new TextDecoder().decode(stdout);
  // The command in parentheses may hold spaces; fields are counted after its last parenthesis.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // A zombie with more than one thread is still dying: its files and locks are still held.
  const threads = Number(fields[17]);
  if ((fields[0] === "Z" && threads <= 1) || fields[0] === "X") return undefined;
  return Number(fields[19]);
}

/**
 * Runs `work` while holding an exclusive lock `locks/<name>` of the home. The kernel drops the lock
 * with the process, so a crash leaves nothing behind.
 */
export async function withLock<T>(home: string, name: string, work: () => Promise<T>): Promise<T> {
  createHome(home);
  using file = Deno.openSync(join(locksDirectory(home), name), { create: true, write: true });
  await file.lock(true);
  try {
    return await work();
  } finally {
    file.unlockSync();
  }
}

/** Writes a file so that a reader (or a crash) sees the old content or the new, never a part. */
export function writeFileAtomic(path: string, content: string | Uint8Array): void {
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const temporary = `${path}.${Deno.pid}.tmp`;
  try {
    using file = Deno.openSync(temporary, {
      create: true,
      write: true,
      truncate: true,
      mode: 0o600,
    });
    for (let sent = 0; sent < bytes.length;) sent += file.writeSync(bytes.subarray(sent));
    file.syncSync();
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch {
      // Nothing was created, or it cannot be removed: the first error is the one to report.
    }
    throw error;
  }
  Deno.renameSync(temporary, path);
  using directory = Deno.openSync(dirname(path));
  directory.syncSync();
}

function isServiceEntry(value: unknown): value is ServiceEntry {
  if (typeof value !== "object" || value === null) return false;
  const { service, address, pid, startTicks } = value as Record<string, unknown>;
  return typeof service === "string" && typeof address === "string" &&
    typeof pid === "number" && typeof startTicks === "number";
}
