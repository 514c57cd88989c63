// ./sdpg eval where something is not as it should be: refused before an episode is played, or made do.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { basename, delimiter, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { events, sdpg, start, temporaryHome, tiny } from "./command.ts";

const home = temporaryHome();
let checkpoint: string;
beforeAll(async () => {
  const args = ["hopper", "--run=one", "--epochs=1", "--json", ...tiny];
  const { code, stdout, stderr } = await sdpg(home.path, "train", ...args);
  expect(code, stderr).toBe(0);
  checkpoint = events(stdout).at(-1).checkpoint;
}, 120_000);
afterAll(() => home[Symbol.asyncDispose]());

const lastLine = (text: string) => text.trimEnd().split("\n").at(-1);

test("a camera that the model has not is refused", async () => {
  const out = ["--video", join(home.path, "a.gif"), "--camera=widd", "--episodes=1"];
  const { code, stdout, stderr } = await sdpg(home.path, "eval", "one", ...out);
  expect([code, stdout]).toEqual([2, ""]);
  expect(lastLine(stderr)).toBe('sdpg: Cannot film hopper by camera "widd": it has side, wide');
}, 60_000);

test.each([["model_hash", "model"], ["task_hash", "task program"]])(
  "a policy of another task of the same name is refused (%s)",
  async (field, what) => {
    const forged = join(home.path, `forged-${field}`);
    cpSync(checkpoint, forged, { recursive: true });
    const path = join(forged, "manifest.json");
    const { manifest } = JSON.parse(Deno.readTextFileSync(path));
    const now = manifest.meta[field];
    manifest.meta[field] = "0123";
    const line = JSON.stringify(manifest);
    const sha256 = createHash("sha256").update(line).digest("hex");
    Deno.writeTextFileSync(path, `{"manifest":${line},"sha256":"${sha256}"}\n`);
    const { code, stdout, stderr } = await sdpg(home.path, "eval", forged, "--episodes=1");
    expect([code, stdout]).toEqual([1, ""]);
    expect(lastLine(stderr)).toBe(
      `sdpg: Cannot evaluate ${forged}: expected the ${what} of hopper it was trained on, 0123, but ` +
        `it is ${now} now; go back to the version that wrote it, or train again`,
    );
  },
  60_000,
);

test(
  "without ffmpeg the frames are kept, and a line says how to make the video of them",
  async () => {
    // Every program but one.
    const programs = join(home.path, "programs");
    mkdirSync(programs);
    const seen = new Set(["ffmpeg"]);
    for (const folder of Deno.env.get("PATH")!.split(delimiter)) {
      for (const name of exists(folder) ? readdirSync(folder) : []) {
        if (seen.has(name)) continue;
        seen.add(name);
        symlinkSync(join(folder, name), join(programs, basename(name)));
      }
    }
    const args = ["eval", "one", "--episodes=1", "--height=64", "--json", "--video"];
    const out = join(home.path, "film.mp4");
    const { code, stdout, stderr } = await start(home.path, [...args, out], { PATH: programs })
      .finished;
    expect(code, stderr).toBe(0);
    const [{ video, lengths }] = events(stdout);
    expect(video).toBe(join(home.path, "film-frames"));
    // 125 control steps a second, 62.5 frames.
    expect(readdirSync(video).length).toBe(Math.ceil(lengths[0] / 2));
    expect(readdirSync(video)[0]).toMatch(/\.png$/);
    expect(exists(out)).toBe(false);
    expect(stderr).toMatch(
      /ffmpeg is not installed.*apt-get install ffmpeg, then ffmpeg .*film\.mp4'/,
    );
  },
  60_000,
);

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
