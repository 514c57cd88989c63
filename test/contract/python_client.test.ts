// A client in another language talks to gpu-sim with nothing but proto/: python_client.py, run with
// Debian's python3-grpcio against the built server.

import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { toBinary } from "@bufbuild/protobuf";
import { ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import { TaskProgramSchema } from "@proto/sdpg/task/v1/task_pb.ts";
import { loadTask } from "@sdpg/tasks/mod.ts";

const root = new URL("../..", import.meta.url).pathname;
const server = join(root, "build/gpu-sim/gpu-sim");
// The packages live with Debian's own interpreter, which need not be the first on the PATH.
const python = "/usr/bin/python3";

test("a Python client lists the services, creates a batch and steps it", async () => {
  expect(existsSync(server), `${server} is missing: build gpu-sim first`).toBe(true);
  const found = spawnSync(python, ["-c", "import grpc, google.protobuf"], { encoding: "utf8" });
  expect(found.status, `install python3-grpcio and python3-protobuf: ${found.stderr}`).toBe(0);

  const folder = mkdtempSync(join(tmpdir(), "sdpg-python-"));
  const { model, program } = await loadTask("hopper");
  writeFileSync(join(folder, "model.binpb"), toBinary(ModelSchema, model));
  writeFileSync(join(folder, "task.binpb"), toBinary(TaskProgramSchema, program));

  const child = spawn(
    server,
    ["--serve", "sim", "--listen", "127.0.0.1:0", "--threads", "1", "--exit-with-parent"],
    { stdio: ["pipe", "pipe", "inherit"], env: { ...process.env, SDPG_LOG: "warn" } },
  );
  try {
    const address = await new Promise<string>((resolve, reject) => {
      child.once("exit", (code) => reject(new Error(`gpu-sim ended with ${code}`)));
      createInterface({ input: child.stdout! }).once(
        "line",
        (line) => resolve(JSON.parse(line).address),
      );
    });
    const run = spawnSync(
      python,
      [
        join(root, "test/contract/python_client.py"),
        address,
        join(folder, "model.binpb"),
        join(folder, "task.binpb"),
      ],
      { encoding: "utf8", timeout: 600_000 },
    );
    expect(run.status, run.stderr).toBe(0);
    const seen = JSON.parse(run.stdout);
    expect(seen.services).toContain("sdpg.sim.v1.SimulationService");
    expect(seen.services).toContain("sdpg.render.v1.RenderService");
    expect(seen.services).toContain("grpc.reflection.v1alpha.ServerReflection");
    expect(seen.services).toContain("grpc.health.v1.Health");
    expect(seen.steps).toBe(5);
    expect(seen.chunks).toBeGreaterThan(0);
    expect(seen.rewards).toHaveLength(5 * 16);
    for (const reward of seen.rewards) {
      expect(Number.isFinite(reward)).toBe(true);
      expect(Math.abs(reward)).toBeLessThan(100);
    }
    expect(new Set(seen.rewards).size).toBeGreaterThan(40); // noise makes environments differ
  } finally {
    child.stdin!.end();
    rmSync(folder, { recursive: true });
  }
});
