// simulation.render=apart: a training whose pictures are drawn by a process of their own learns the same
// to the bit, and survives the death of that process as it does any other.

import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  ask,
  events,
  isRunning,
  processesOf,
  sdpg,
  start,
  temporaryHome,
  until,
} from "./command.ts";

const home = temporaryHome();
afterAll(() => home[Symbol.asyncDispose]());

const size = ["nominals=4", "auxiliaries=3", "horizon=8", "camera.width=20", "camera.height=16"];
const tiny = [
  "hopper",
  "--json",
  "--threads=1",
  ...size,
  "evaluation.every=3",
  "checkpoint.every=1",
];
const apart = "simulation.render=apart";

const epochs = 6;
let inside: Awaited<ReturnType<typeof outcome>>;
beforeAll(async () => {
  const args = ["--run=inside", `--epochs=${epochs}`];
  inside = await outcome("inside", await sdpg(home.path, "train", ...tiny, ...args));
});

/** What a run that has ended came to, without what says how it got there. */
async function outcome(run: string, { code, stdout, stderr }: Awaited<ReturnType<typeof sdpg>>) {
  expect(code, stderr).toBe(0);
  const { checkpoint } = events(stdout).at(-1);
  const { manifest } = JSON.parse(Deno.readTextFileSync(join(checkpoint, "manifest.json")));
  return {
    epoch: manifest.epoch,
    tensors: manifest.tensors,
    best: manifest.meta.best,
    scalars: await ask(
      home.path,
      `SELECT iteration, name, value, images_rendered FROM scalars WHERE run_id = '${run}'
         AND NOT startsWith(name, 'phase/') AND name != 'live_tensors' ORDER BY iteration, name`,
    ),
    evaluations: await ask(
      home.path,
      `SELECT iteration, return_mean FROM evaluations WHERE run_id = '${run}' ORDER BY iteration`,
    ),
  };
}

test("has the parameters, scalars and evaluations of a run that draws inside", async () => {
  const running = start(home.path, ["train", ...tiny, "--run=apart", `--epochs=${epochs}`, apart]);
  await running.event(({ event }) => event === "run");
  expect(Object.keys(running.services())).toContain("render");
  expect(await outcome("apart", await running.finished)).toEqual(inside);
  expect(inside.evaluations.length).toBe(2);
  const watched = await ask(
    home.path,
    "SELECT DISTINCT service FROM resources WHERE run_id = 'apart' AND service = 'render'",
  );
  expect(watched.length).toBe(1);
  await until("services end", () => processesOf(home.path).length === 0);
});

test("names a renderer that dies, and goes on by resume to the same bits", async () => {
  const running = start(home.path, ["train", ...tiny, "--run=killed", apart]);
  await running.event(({ event, epoch }) => event === "epoch" && epoch === 2);
  const services = running.services();
  Deno.kill(services.render, "SIGKILL");
  const { code, stderr } = await running.finished;
  expect(code).toBe(1);
  const last = stderr.trimEnd().split("\n").at(-1)!;
  expect(last).toContain("render ended while it was needed (signal SIGKILL)");
  expect(last).toContain("./sdpg resume killed");
  expect(Object.keys(services).length).toBe(5);
  await until("services end", () => !Object.values(services).some(isRunning));
  // It may have got further than six epochs before it noticed.
  const { epoch } = JSON.parse(
    Deno.readTextFileSync(newestManifest("killed")),
  ).manifest;
  const to = Math.max(epochs, epoch + 1);
  const resumed = await sdpg(home.path, "resume", "killed", `--epochs=${to}`, "--json");
  const { tensors, epoch: reached } = await outcome("killed", resumed);
  expect(reached).toBe(to);
  const whole = ["train", ...tiny, "--run=whole", `--epochs=${to}`];
  const reference = to === epochs
    ? inside
    : await outcome("whole", await sdpg(home.path, ...whole));
  expect(tensors).toEqual(reference.tensors);
});

function newestManifest(run: string): string {
  const folder = join(home.path, "runs", run, "checkpoints");
  const names = [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) =>
    /^\d+$/.test(name)
  );
  return join(folder, names.sort().at(-1)!, "manifest.json");
}

test.each([
  [["--obs=state"], 2, /Cannot set simulation\.render=apart: the policy sees the state/],
  [["--transport=inline"], 2, /Cannot draw apart over the inline transport/],
])("is refused with %s, in one line", async (args, expected, words) => {
  const { code, stderr } = await sdpg(home.path, "train", ...tiny, ...args, "--run=no", apart);
  expect(code).toBe(expected);
  expect(stderr.trimEnd().split("\n").at(-1)).toMatch(words);
  expect(() => Deno.statSync(join(home.path, "runs/no"))).toThrow(Deno.errors.NotFound);
});
