// The services of one machine: telemetry (one per SDPG_HOME, shared by all commands), gpu-sim,
// evaluation and learner, and a renderer where one is asked for (own ones for a training, or those that
// `sdpg up` left running).
//
// Telemetry lives as long as anyone needs it. Its stdin is a FIFO that every user keeps open for
// writing, so the kernel tells it when the last one is gone, however that one ended; and every user
// holds a shared lock on one file, so that the last to leave knows it is the last and waits for the
// store to be closed.

import { join } from "node:path";
import { type Client, client, waitUntilServing } from "@sdpg/common/rpc.ts";
import { LearnerService } from "@proto/sdpg/learner/v1/learner_pb.ts";
import {
  checkoutDirectory,
  createHome,
  locksDirectory,
  readServices,
  type ServiceEntry,
  serviceEntry,
  withLock,
  writeServices,
} from "@sdpg/common/home.ts";
import {
  CliError,
  isAlive,
  lastLine,
  makeFifo,
  type ServiceProcess,
  signalProcess,
  startService,
  stopService,
  waitGone,
} from "./process.ts";
import { sweep } from "./sweep.ts";

export const gpuSimBinary = join(checkoutDirectory, "build/gpu-sim/gpu-sim");

/** What a service has to end in after it was asked to: a learner writes a checkpoint first. */
const graceMs = {
  learner: 60_000,
  evaluation: 40_000,
  render: 5_000,
  "gpu-sim": 5_000,
  telemetry: 15_000,
};

export interface DeadService {
  service: string;
  how: string;
  log: string | undefined;
}

// ------------------------------------------------------------------------------------- telemetry

/** Hold on the telemetry service of a home. */
export interface TelemetryLease {
  entry: ServiceEntry;
  url: string;
  /** Gives the hold up; the last holder waits until the store is closed. */
  release(): Promise<void>;
}

/** Rows can wait in their senders, a training cannot. */
const telemetryNiceness = 10;
const telemetryLog = (home: string) => join(home, "logs", "telemetry.log");
const leaseLock = (home: string) => join(locksDirectory(home), "telemetry.users");
const leaseFifo = (home: string) => join(locksDirectory(home), "telemetry.fifo");

/** Uses the running telemetry service of a home, or starts it, then on `listen`. */
export async function leaseTelemetry(
  home: string,
  listen = "127.0.0.1:0",
): Promise<TelemetryLease> {
  createHome(home);
  Deno.mkdirSync(join(home, "logs"), { recursive: true, mode: 0o700 });
  return await withLock(home, "telemetry.start", async () => {
    const users = Deno.openSync(leaseLock(home), { create: true, read: true, write: true });
    await users.lock(false);
    const running = readServices(home).find(({ service }) => service === "telemetry");
    let fifo = running ? openFifo(home) : undefined;
    let entry = running;
    // A service whose last user has just been killed may still be on its way out.
    if (running && !(await answers(running, 100))) {
      await waitGone(running, graceMs.telemetry);
      signalProcess(running, "SIGKILL");
      fifo?.close();
      fifo = undefined;
      entry = undefined;
    }
    if (!entry) {
      fifo = await makeFifo(leaseFifo(home));
      entry = await startService({
        service: "telemetry",
        command: Deno.execPath(),
        args: denoService("telemetry", home, ["--exit-with-parent"], listen),
        log: telemetryLog(home),
        stdin: { fifo: leaseFifo(home) },
        niceness: telemetryNiceness,
      });
      await register(home, entry);
    }
    const lease: TelemetryLease = {
      entry,
      url: `http://${entry.address}`,
      async release() {
        await withLock(home, "telemetry.start", async () => {
          fifo?.close();
          users.unlockSync();
          const last = await users.tryLock(true);
          users.close();
          if (!last) return;
          const { entry } = lease; // another process than at first, if telemetry was started again
          if (!await waitGone(entry, graceMs.telemetry)) await stopService(entry, 2000);
          await unregister(home, [entry]);
        });
      },
    };
    return lease;
  });
}

/** Two answers some time apart: the first may come from a service that is closing. */
async function answers(entry: ServiceEntry, apartMs: number): Promise<boolean> {
  for (let i = 0; i < 2; i++) {
    try {
      const response = await fetch(`http://${entry.address}/health`, {
        signal: AbortSignal.timeout(5000),
      });
      await response.body?.cancel();
      if (!response.ok) return false;
    } catch {
      return false;
    }
    if (i === 0) await new Promise((resolve) => setTimeout(resolve, apartMs));
  }
  return isAlive(entry);
}

/** Opens the FIFO for reading and writing, which never blocks and keeps its reader alive. */
function openFifo(home: string): Deno.FsFile | undefined {
  try {
    return Deno.openSync(leaseFifo(home), { read: true, write: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

// ------------------------------------------------------------------------------ services.json

async function register(home: string, ...entries: ServiceEntry[]): Promise<void> {
  await withLock(home, "services", () => {
    const plain = entries.map(({ service, address, pid }) => serviceEntry(service, address, pid));
    const others = readServices(home).filter(({ service }) =>
      !plain.some((entry) => entry.service === service)
    );
    writeServices(home, [...others, ...plain]);
    return Promise.resolve();
  });
}

async function unregister(home: string, gone: readonly ServiceEntry[]): Promise<void> {
  await withLock(home, "services", () => {
    const left = readServices(home).filter(({ pid }) => !gone.some((entry) => entry.pid === pid));
    writeServices(home, left);
    return Promise.resolve();
  });
}

// ------------------------------------------------------------------------------------- the mesh

export interface MeshOptions {
  home: string;
  /** Worker threads of gpu-sim and of the learner: they work by turns, so each may have all cores. */
  threads: number;
  /** With a gpu-sim that draws pictures for the learner (simulation.render=apart). */
  renderer?: boolean;
  /** Called with one line before each slow step. */
  progress?: (line: string) => void;
  /** Leaves the services running after this process ends (`sdpg up`). */
  keep?: boolean;
  /** Starts them even where `sdpg up` left some running. */
  ownServices?: boolean;
}

export interface Mesh {
  telemetry: TelemetryLease;
  /** All of them, telemetry first; the order in which they were started. */
  services: ServiceEntry[];
  learner: Client<typeof LearnerService>;
  /** Aborts once the services are wanted to end. */
  closing: AbortSignal;
  /** Whether all but telemetry belong to this process. */
  owned: boolean;
  /** Settles when a service ends that was not asked to. */
  dead: Promise<DeadService>;
  /** Where the logs of own services are, until a run takes them; the next command sweeps them. */
  logs: string;
  /** Moves the logs of own services into a run's folder, where they stay. */
  keepLogs(directory: string): void;
  /** Stops what belongs to this process, in reverse order. */
  close(): Promise<void>;
  /** Kills what belongs to this process, at once. */
  kill(): void;
}

/**
 * Services for a training or an evaluation: those that `sdpg up` left running when their learner is
 * free, else own ones on free ports of the loopback.
 */
export async function openMesh(options: MeshOptions): Promise<Mesh> {
  const { home, progress = () => {} } = options;
  if (home.includes(",")) {
    // Deno's permission flags separate paths by commas.
    throw new CliError(`Cannot use SDPG_HOME "${home}": expected a path without a comma`);
  }
  createHome(home);
  await sweep(home);
  if (!options.keep && !options.ownServices) {
    const attached = await attach(options);
    if (attached) return attached;
  }
  return await start(options, progress);
}

async function start(options: MeshOptions, progress: (line: string) => void): Promise<Mesh> {
  const { home, threads, keep, renderer } = options;
  try {
    Deno.statSync(gpuSimBinary);
  } catch {
    throw new CliError(`Cannot find ${gpuSimBinary}: ./sdpg builds it; start through ./sdpg`);
  }
  progress(`starting telemetry, gpu-sim, ${renderer ? "render, " : ""}evaluation and learner`);
  const logs = join(home, "logs");
  Deno.mkdirSync(logs, { recursive: true, mode: 0o700 });
  const stdin = keep ? "none" : "pipe";
  // gpu-sim and the renderer live as long as this process or their learner: a learner whose command was
  // killed still finishes its epoch and takes a snapshot.
  const simulationFifo = join(locksDirectory(home), `gpu-sim-${Deno.pid}.fifo`);
  const tag = keep ? "up" : String(Deno.pid);
  const stayWithUs = keep ? [] : ["--exit-with-parent"];
  const started: (ServiceEntry & Partial<ServiceProcess>)[] = [];
  let telemetry: TelemetryLease | undefined;
  const closing = new AbortController();

  const close = async () => {
    closing.abort();
    for (const entry of started.toReversed()) {
      await stopService(entry, graceMs[entry.service as keyof typeof graceMs]);
    }
    await telemetry?.release();
    await Deno.remove(simulationFifo).catch(() => {}); // there only if the start failed
  };
  try {
    const telemetryStarts = leaseTelemetry(home);
    const held = keep ? undefined : await makeFifo(simulationFifo);
    const startGpuSim = (service: "gpu-sim" | "render", serve: "sim" | "render") =>
      startService({
        service,
        command: gpuSimBinary,
        args: ["--serve", serve, "--listen", "127.0.0.1:0", "--threads", String(threads)]
          .concat(stayWithUs),
        log: join(logs, `${service}-${tag}.log`),
        stdin: held ? { fifo: simulationFifo, held } : "none",
      });
    const simulationStarts = startGpuSim("gpu-sim", "sim");
    const renderStarts = renderer ? startGpuSim("render", "render") : undefined;
    const before = Promise.all([simulationStarts, telemetryStarts]);
    const evaluationStarts = before.then(([{ address }, { url }]) =>
      startService({
        service: "evaluation",
        command: Deno.execPath(),
        // One thread: training goes on meanwhile.
        args: denoService("evaluation", home, [
          ...["--simulation", address, "--telemetry", url, "--threads", "1"],
          ...stayWithUs,
        ]),
        env: { OPENBLAS_NUM_THREADS: "1", OMP_NUM_THREADS: "1" },
        log: join(logs, `evaluation-${tag}.log`),
        stdin,
      })
    );
    const starts = [telemetryStarts, simulationStarts, renderStarts, evaluationStarts] as const;
    const [lease, simulation, render, evaluation] = await Promise.allSettled(starts);
    if (lease.status === "fulfilled") telemetry = lease.value;
    for (const each of [simulation, render, evaluation]) {
      if (each.status === "fulfilled" && each.value) started.push(each.value);
    }
    if (lease.status === "rejected") throw lease.reason;
    if (simulation.status === "rejected") throw simulation.reason;
    if (render.status === "rejected") throw render.reason;
    if (evaluation.status === "rejected") throw evaluation.reason;
    await waitUntilServing(simulation.value.address);
    if (render.value) await waitUntilServing(render.value.address);
    const learner = await startService({
      service: "learner",
      command: Deno.execPath(),
      args: denoService("learner", home, [
        ...["--simulation", simulation.value.address],
        ...(render.value ? ["--renderer", render.value.address] : []),
        ...["--evaluation", evaluation.value.address],
        ...["--telemetry", lease.value.url],
        ...["--threads", String(threads)],
        ...stayWithUs,
      ]),
      env: { OPENBLAS_NUM_THREADS: String(threads), OMP_NUM_THREADS: String(threads) },
      log: join(logs, `learner-${tag}.log`),
      stdin,
      // It also has rows to send then, so it holds telemetry too.
      holds: {
        lock: leaseLock(home),
        fifos: [leaseFifo(home)].concat(keep ? [] : [simulationFifo]),
      },
    });
    started.push(learner);
    if (!keep) await Deno.remove(simulationFifo); // open where it is needed; the name is not
    await waitUntilServing(learner.address);
    if (keep) await register(home, ...started);
    const services = [lease.value.entry, ...started];
    return {
      telemetry: lease.value,
      services,
      learner: client(LearnerService, learner.address),
      closing: closing.signal,
      owned: !keep,
      dead: firstDeath(services, closing.signal),
      logs,
      keepLogs(directory) {
        for (const entry of keep ? [] : started) {
          const kept = join(directory, `${entry.service}.log`);
          Deno.renameSync(entry.log!, kept);
          entry.log = kept;
        }
      },
      close: async () => {
        if (!keep) return await close();
        await lease.value.release();
      },
      kill() {
        closing.abort();
        for (const entry of started.toReversed()) signalProcess(entry, "SIGKILL");
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** The services of `sdpg up`, when all that are needed run. */
async function attach({ home, renderer }: MeshOptions): Promise<Mesh | undefined> {
  const entries = readServices(home);
  const simulation = entries.find(({ service }) => service === "gpu-sim");
  const render = entries.find(({ service }) => service === "render");
  const evaluation = entries.find(({ service }) => service === "evaluation");
  const learner = entries.find(({ service }) => service === "learner");
  if (!simulation || !evaluation || !learner || renderer && !render) return undefined;
  const telemetry = await leaseTelemetry(home);
  const closing = new AbortController();
  try {
    await waitUntilServing(learner.address, { timeoutMs: 5000 });
  } catch {
    await telemetry.release();
    throw new CliError(
      `The learner that ./sdpg up started (pid ${learner.pid}) does not answer at ${learner.address}: run ./sdpg down, then again`,
    );
  }
  // A renderer that nobody draws with may end without anybody's loss.
  const services = [
    telemetry.entry,
    simulation,
    ...(renderer ? [render!] : []),
    evaluation,
    learner,
  ];
  return {
    telemetry,
    services,
    learner: client(LearnerService, learner.address),
    closing: closing.signal,
    owned: false,
    dead: firstDeath(services, closing.signal),
    logs: join(home, "logs"),
    keepLogs() {},
    async close() {
      closing.abort();
      await telemetry.release();
    },
    kill() {
      closing.abort();
    },
  };
}

/**
 * Starts the telemetry service again at its old address, where the others still send to; they hold
 * back what they could not send. Another user of the home may have done it already.
 */
export async function restartTelemetry(mesh: Mesh, home: string): Promise<void> {
  const dead = mesh.telemetry.entry;
  await withLock(home, "telemetry.start", async () => {
    let entry = readServices(home).find(({ service, address }) =>
      service === "telemetry" && address === dead.address
    );
    if (!entry) {
      entry = await startService({
        service: "telemetry",
        command: Deno.execPath(),
        args: denoService("telemetry", home, ["--exit-with-parent"], dead.address),
        log: telemetryLog(home),
        stdin: { fifo: leaseFifo(home) },
        niceness: telemetryNiceness,
      });
      await register(home, entry);
    }
    mesh.telemetry.entry = entry;
    mesh.services = [entry, ...mesh.services.slice(1)];
  });
  mesh.dead = firstDeath(mesh.services, mesh.closing);
}

/** Goes on without a service that has ended. */
export function doWithout(mesh: Mesh, gone: string): void {
  mesh.services = mesh.services.filter(({ service }) => service !== gone);
  mesh.dead = firstDeath(mesh.services, mesh.closing);
}

async function firstDeath(
  services: readonly (ServiceEntry & Partial<ServiceProcess>)[],
  closing: AbortSignal,
): Promise<DeadService> {
  const first = await Promise.race(services.map(async (entry) => {
    const how = await (entry.ended ?? vanished(entry, closing));
    return { service: entry.service, how, log: entry.log };
  }));
  // Deaths after `close` are wanted: such a promise never settles.
  if (closing.aborted) return await new Promise<never>(() => {});
  return first;
}

/** End of a process that is no child of ours. */
async function vanished(entry: ServiceEntry, closing: AbortSignal): Promise<string> {
  while (!closing.aborted && isAlive(entry)) {
    await new Promise<void>((resolve) => Deno.unrefTimer(setTimeout(resolve, 1000)));
  }
  return "its process is gone";
}

/** One line about a service that ended on its own. */
export function describeDeath({ service, how, log }: DeadService): string {
  return `${service} ended while it was needed (${how})${log ? lastLine(log) : ""}`;
}

/**
 * Arguments that start a service written in TypeScript: its permission set of deno.json, with the
 * home, which may be anywhere, as the one place it writes to.
 */
export function denoService(
  name: "learner" | "telemetry" | "evaluation",
  home: string,
  flags: string[],
  listen = "127.0.0.1:0",
): string[] {
  return [
    "run",
    "-q",
    "--config",
    join(checkoutDirectory, "deno.json"),
    `-P=${name}`,
    `--allow-read=${checkoutDirectory},${home}`,
    `--allow-write=${home}`,
    join(checkoutDirectory, "services", name, "main.ts"),
    "--listen",
    listen,
    "--home",
    home,
    ...flags,
  ];
}

// ---------------------------------------------------------------------------------- up and down

/** Starts the services and leaves them running. */
export async function up(options: Omit<MeshOptions, "keep">): Promise<ServiceEntry[]> {
  const present = readServices(options.home);
  const running = present.filter(({ service }) => service !== "telemetry");
  if (running.length > 0) {
    throw new CliError(
      `Services are running already (${
        present.map(({ service, address }) => `${service} at ${address}`).join(", ")
      }): use them, or run ./sdpg down first`,
    );
  }
  const mesh = await openMesh({ ...options, keep: true, renderer: true });
  mesh.learner.$close();
  await mesh.close();
  return mesh.services;
}

/** Stops what `up` started, in reverse order, and returns it. */
export async function down(home: string): Promise<ServiceEntry[]> {
  const order = ["learner", "evaluation", "render", "gpu-sim", "telemetry"];
  const stopped: ServiceEntry[] = [];
  const running = readServices(home);
  for (const name of order) {
    const entry = running.find(({ service }) => service === name);
    if (!entry) continue;
    if (name === "telemetry") {
      // It goes by itself with its last user; a training may still be one.
      if (!await usersRemain(home)) await waitGone(entry, graceMs.telemetry);
      if (isAlive(entry)) continue;
    } else {
      await stopService(entry, graceMs[name as keyof typeof graceMs]);
    }
    stopped.push(entry);
  }
  await unregister(home, stopped);
  return stopped;
}

async function usersRemain(home: string): Promise<boolean> {
  using users = Deno.openSync(leaseLock(home), { create: true, read: true, write: true });
  if (!await users.tryLock(true)) return true;
  users.unlockSync();
  return false;
}
