// Child processes that are services: started in a session of their own (so that the terminal's Ctrl-C
// reaches only the command line), told to stop by the end of their stdin (which the kernel brings
// about even if this process is killed), stderr into a log file, one ready line on stdout.

import { processStartTicks, type ServiceEntry } from "@sdpg/common/home.ts";

/** A failure with one line for the person: what happened, what to do. Exit code 1. */
export class CliError extends Error {
  override name = "CliError";
}

export interface ServiceProcess extends ServiceEntry {
  /** Where its stderr goes. */
  log: string;
  /** How it ended, once it did: "exit code 1", "signal SIGKILL". */
  ended: Promise<string>;
  /** Gives up this process's part in keeping it alive; it stops when it was the last. */
  letGo(): Promise<void>;
}

export interface StartOptions {
  service: string;
  command: string;
  args: string[];
  env?: Record<string, string>;
  log: string;
  /**
   * What a service started with --exit-with-parent reads its end from: "pipe" ends with this process,
   * a FIFO with the last process that holds it; "none" is for services that stay.
   */
  stdin: "pipe" | "none" | { fifo: string; held?: Deno.FsFile };
  /** FIFOs that the service keeps open, and a file that it keeps locked (shared), while it lives. */
  holds?: { fifos: string[]; lock: string };
  /** How far it steps back where processors are short: 1 to 19. */
  niceness?: number;
  timeoutMs?: number;
}

// The shell only arranges file descriptors and then becomes the service: same pid, no process between.
const launch = `
log=$1 fifo=$2 lock=$3 hold_a=$4 hold_b=$5 nice=$6; shift 6
exec 2>>"$log"
if [ -n "$fifo" ]; then exec <"$fifo"; fi
if [ -n "$lock" ]; then exec 9<"$lock"; flock -s 9; fi
if [ -n "$hold_a" ]; then exec 8<>"$hold_a"; fi
if [ -n "$hold_b" ]; then exec 7<>"$hold_b"; fi
if [ -n "$nice" ]; then { echo "$nice" >/proc/self/autogroup; } 2>/dev/null; exec nice -n "$nice" "$@"; fi
exec "$@"`;

/** Starts a service and waits for its ready line. Throws CliError when it ends or stays silent. */
export async function startService(options: StartOptions): Promise<ServiceProcess> {
  const { service, log, stdin, holds, niceness = 0, timeoutMs = 60_000 } = options;
  const fifo = typeof stdin === "object" ? stdin.fifo : "";
  const child = new Deno.Command("sh", {
    args: [
      "-c",
      launch,
      "sh",
      log,
      fifo,
      holds?.lock ?? "",
      holds?.fifos[0] ?? "",
      holds?.fifos[1] ?? "",
      niceness === 0 ? "" : String(niceness),
      options.command,
      ...options.args,
    ],
    env: { NO_COLOR: "1", ...options.env }, // their words end up in logs and in our lines
    stdin: stdin === "pipe" ? "piped" : "null",
    stdout: "piped",
    stderr: "inherit",
    detached: true,
  }).spawn();
  child.unref(); // what outlives this process (`up`, a shared telemetry) must not hold it
  const ended = child.status.then(({ code, signal }) =>
    signal ? `signal ${signal}` : `exit code ${code}`
  );

  const timer = new AbortController();
  const ready = await Promise.race([
    readyLine(child.stdout),
    ended.then((how) => ({ how })),
    delay(timeoutMs, timer.signal).then(() => "late" as const),
  ]);
  timer.abort();
  if (ready === "late") {
    killGroup(child.pid);
    throw new CliError(
      `${service} did not get ready within ${timeoutMs / 1000} s; its log: ${log}${lastLine(log)}`,
    );
  }
  if (ready === undefined || "how" in ready) {
    killGroup(child.pid);
    const how = ready === undefined ? await ended : ready.how;
    throw new CliError(`${service} did not start (${how})${lastLine(log) || `; its log: ${log}`}`);
  }
  const startTicks = processStartTicks(child.pid);
  if (startTicks === undefined) {
    throw new CliError(`${service} ended at once${lastLine(log)}; its log: ${log}`);
  }
  return {
    service,
    address: ready.address,
    pid: child.pid,
    startTicks,
    log,
    ended,
    async letGo() {
      try {
        if (stdin === "pipe") await child.stdin.close();
        else if (stdin !== "none") stdin.held?.close();
      } catch {
        // Already closed, or the process is gone: nothing is held any more.
      }
    },
  };
}

/** Creates a FIFO and opens it for reading and writing, which never blocks and keeps its reader alive. */
export async function makeFifo(path: string): Promise<Deno.FsFile> {
  await Deno.remove(path).catch(() => {}); // most often there is none
  const { success, stderr } = await new Deno.Command("mkfifo", { args: ["-m", "600", path] })
    .output();
  if (!success) {
    throw new CliError(`Cannot create ${path}: ${new TextDecoder().decode(stderr).trim()}`);
  }
  return Deno.openSync(path, { read: true, write: true });
}

/** Address in the ready line, or undefined when stdout ends without one. The rest is drained. */
async function readyLine(
  stdout: ReadableStream<Uint8Array>,
): Promise<{ address: string } | undefined> {
  let text = "";
  const decoder = new TextDecoder();
  const reader = stdout.getReader();
  while (true) {
    const { done, value } = await reader.read();
    if (done) return undefined;
    text += decoder.decode(value, { stream: true });
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
      const line = text.slice(0, end);
      text = text.slice(end + 1);
      let message: { event?: unknown; address?: unknown };
      try {
        message = JSON.parse(line);
      } catch {
        continue; // a library that greets on stdout
      }
      if (message?.event === "listening" && typeof message.address === "string") {
        void drain(reader);
        return { address: message.address };
      }
    }
  }
}

async function drain(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  try {
    while (!(await reader.read()).done);
  } catch {
    // The pipe ended with its process.
  }
}

/** ": …" with what a log says last about a failure: an uncaught error, an error note, or a plain line. */
export function lastLine(log: string): string {
  let text: string;
  try {
    text = Deno.readTextFileSync(log);
  } catch {
    return "";
  }
  const lines = text.trimEnd().split("\n").slice(-40).filter((line) => !/^\s*(at |$)/.test(line));
  const uncaught = lines.findLast((line) => line.startsWith("error: "));
  if (uncaught) return `: ${uncaught.replace(/^error: (Uncaught )?(\(in promise\) )?/, "")}`;
  for (const line of lines.reverse()) {
    if (!line.startsWith("{")) return `: ${line.trim()}`;
    try {
      const { level, message, error } = JSON.parse(line);
      if (level === "error") return `: ${message}${error ? ` (${firstLine(error)})` : ""}`;
    } catch {
      return `: ${line.trim()}`;
    }
  }
  return "";
}

function firstLine(value: unknown): string {
  const text = typeof value === "string"
    ? value
    : (value as { message?: string })?.message ?? JSON.stringify(value);
  return text.split("\n")[0];
}

export function isAlive(entry: { pid: number; startTicks: number }): boolean {
  return processStartTicks(entry.pid) === entry.startTicks;
}

/** Waits until a process is gone; false after `timeoutMs`. */
export async function waitGone(
  entry: { pid: number; startTicks: number },
  timeoutMs: number,
): Promise<boolean> {
  const until = performance.now() + timeoutMs;
  while (isAlive(entry)) {
    if (performance.now() > until) return false;
    await delay(30);
  }
  return true;
}

/** Ends a service: `ask` first, SIGTERM if that is not enough, SIGKILL at last. */
export async function stopService(
  entry: ServiceEntry & { letGo?: () => Promise<void> },
  graceMs: number,
): Promise<void> {
  await entry.letGo?.();
  if (await waitGone(entry, entry.letGo ? graceMs : 0)) return;
  signalProcess(entry, "SIGTERM");
  if (await waitGone(entry, graceMs)) return;
  signalProcess(entry, "SIGKILL");
  await waitGone(entry, 2000);
}

export function signalProcess(
  entry: { pid: number; startTicks: number },
  signal: Deno.Signal,
): void {
  if (!isAlive(entry)) return;
  try {
    Deno.kill(entry.pid, signal);
  } catch {
    // It ended between the two lines.
  }
}

function killGroup(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // Gone already.
  }
}

/** Resolves after `ms`, or at once when the signal aborts. */
export function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
