// The services of an evaluation that a person asks for: a gpu-sim and an evaluation service of this
// command's own, so that a training on the same machine keeps its simulator to itself.

import { join } from "node:path";
import { EvaluationService } from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import { createHome } from "@sdpg/common/home.ts";
import { type Client, client, waitUntilServing } from "@sdpg/common/rpc.ts";
import { denoService, describeDeath, gpuSimBinary } from "./mesh.ts";
import { CliError, type ServiceProcess, startService, stopService } from "./process.ts";
import { sweep } from "./sweep.ts";

export interface EvaluationMesh {
  evaluation: Client<typeof EvaluationService>;
  /** Rejects when a service ends by itself. */
  dead: Promise<never>;
  close(): Promise<void>;
}

/** @param threads of gpu-sim and of the policy: they work by turns, so each may have all cores */
export async function openEvaluation(home: string, threads: number): Promise<EvaluationMesh> {
  createHome(home);
  await sweep(home);
  const logs = join(home, "logs");
  Deno.mkdirSync(logs, { recursive: true, mode: 0o700 });
  const started: ServiceProcess[] = [];
  const stop = async () => {
    for (const service of started.toReversed()) await stopService(service, 5000);
  };
  try {
    const start = async (service: string, command: string, args: string[]) => {
      const log = join(logs, `${service}-${Deno.pid}.log`);
      const env = { OPENBLAS_NUM_THREADS: String(threads), OMP_NUM_THREADS: String(threads) };
      started.push(await startService({ service, command, args, env, log, stdin: "pipe" }));
      return started.at(-1)!.address;
    };
    const simulation = await start("gpu-sim", gpuSimBinary, [
      ...["--serve", "sim", "--listen", "127.0.0.1:0", "--threads", String(threads)],
      "--exit-with-parent",
    ]);
    await waitUntilServing(simulation);
    const address = await start(
      "evaluation",
      Deno.execPath(),
      denoService("evaluation", home, [
        ...["--simulation", simulation, "--threads", String(threads)],
        "--exit-with-parent",
      ]),
    );
    await waitUntilServing(address);
    const evaluation = client(EvaluationService, address);
    let closing = false;
    const dead = Promise.race(started.map(async ({ service, ended, log }) => {
      const how = await ended;
      if (closing) return await new Promise<never>(() => {}); // wanted
      throw new CliError(describeDeath({ service, how, log }));
    }));
    dead.catch(() => {}); // seen by whoever waits for it
    return {
      evaluation,
      dead,
      async close() {
        closing = true;
        evaluation.$close();
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}
