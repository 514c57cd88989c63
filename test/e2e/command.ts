// Runs the command line as a person would and looks at what it leaves behind: its output, its service
// processes, shared memory, the store.

import { join } from "node:path";

export const root = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

/** Small and quick, but the whole mesh: 16 environments, 8 steps, from state. */
export const small = ["--obs=state", "nominals=4", "auxiliaries=3", "horizon=8", "--threads=1"];
export const tiny = [...small, "evaluation.every=0"];

export interface Finished {
  code: number;
  signal: string | null;
  stdout: string;
  stderr: string;
}

// deno-lint-ignore no-explicit-any
type Json = any;

export interface Running {
  pid: number;
  finished: Promise<Finished>;
  signal(name: Deno.Signal): void;
  /** Resolves with the first JSON line of stdout that fulfils the condition. */
  event(condition: (event: Json) => boolean): Promise<Json>;
  /** Service name -> pid of the services this command has started. */
  services(): Record<string, number>;
}

/** Home -> commands started in it. */
const started = new Map<string, Deno.ChildProcess[]>();

/** Starts `./sdpg …` without its installing part. */
export function start(
  home: string,
  args: string[],
  env: Record<string, string> = {},
): Running {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "--config", join(root, "deno.json"), "-P=cli"]
      .concat(join(root, "services/cli/main.ts"), args),
    env: { SDPG_HOME: home, NO_COLOR: "1", SDPG_LOG: "info", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  started.set(home, [...started.get(home) ?? [], child]);
  let stdout = "";
  const listeners = new Set<() => void>();
  const collect = async () => {
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      stdout += text;
      for (const listener of listeners) listener();
    }
  };
  const finished = (async () => {
    const [stderr, status] = await Promise.all([
      new Response(child.stderr).text(),
      child.status,
      collect(),
    ]);
    return { code: status.code, signal: status.signal, stdout, stderr };
  })();
  return {
    pid: child.pid,
    finished,
    signal: (name) => Deno.kill(child.pid, name),
    event: (condition) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = events(stdout).find(condition);
          if (!found) return;
          listeners.delete(look);
          resolve(found);
        };
        listeners.add(look);
        look();
        finished.then(({ code, stderr }) =>
          reject(new Error(`the command ended with ${code} before the event: ${stderr}`))
        );
      }),
    services: () => servicesOf(child.pid),
  };
}

/** Runs `./sdpg …` to its end. */
export async function sdpg(home: string, ...args: string[]): Promise<Finished> {
  return await start(home, args).finished;
}

/** The JSON objects of complete lines. */
export function events(stdout: string): Json[] {
  return stdout.slice(0, stdout.lastIndexOf("\n") + 1).split("\n")
    .filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

/** Rows of a question to the store. */
export async function ask<Row = Json>(home: string, query: string): Promise<Row[]> {
  const { code, stdout, stderr } = await sdpg(home, "sql", query, "--format", "JSONEachRow");
  if (code !== 0) throw new Error(`sql ended with ${code}: ${stderr}`);
  return stdout.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
}

/** Children of a process that are services, by what their command line says. */
export function servicesOf(parent: number): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { pid, ppid, command } of processes()) {
    if (ppid !== parent) continue;
    const service = command.includes("build/gpu-sim/gpu-sim")
      ? command.includes("--serve render") ? "render" : "gpu-sim"
      : /services\/(\w+)\/main\.ts/.exec(command)?.[1];
    if (service) found[service] = pid;
  }
  return found;
}

/** Processes that serve a home: its path is in the arguments of learner and telemetry. */
export function processesOf(home: string): string[] {
  return processes().map(({ command }) => command)
    .filter((command) => command.includes("--exit-with-parent") && command.includes(home));
}

export function isRunning(pid: number): boolean {
  return processes().some((each) => each.pid === pid);
}

function processes(): { pid: number; ppid: number; command: string }[] {
  const found = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      const [state, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (state === "Z") continue;
      const command = Deno.readTextFileSync(`/proc/${name}/cmdline`).replaceAll("\0", " ");
      found.push({ pid: Number(name), ppid: Number(ppid), command });
    } catch {
      // It ended while we looked.
    }
  }
  return found;
}

/** Shared memory objects whose maker is one of these processes. */
export function sharedMemoryOf(pids: number[]): string[] {
  return [...Deno.readDirSync("/dev/shm")].map(({ name }) => name)
    .filter((name) => pids.some((pid) => name.startsWith(`sdpg-${Deno.uid()}-${pid}-`)));
}

/** Waits for a condition; throws with `what` after `seconds`. */
export async function until(
  what: string,
  condition: () => boolean,
  seconds = 15,
): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`${what}: not within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** A home of its own; its processes (a test that failed leaves some) and files are removed afterwards. */
export function temporaryHome(): { path: string } & AsyncDisposable {
  const path = Deno.makeTempDirSync({ prefix: "sdpg-e2e-" });
  return {
    path,
    async [Symbol.asyncDispose]() {
      for (const child of started.get(path) ?? []) {
        try {
          child.kill("SIGKILL");
        } catch {
          // It has ended, as it should.
        }
      }
      await until("services of a test end", () => processesOf(path).length === 0, 30);
      Deno.removeSync(path, { recursive: true });
    },
  };
}
