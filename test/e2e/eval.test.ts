// ./sdpg eval where something is not as it should be: refused before an episode is played, or made do; and
// ./sdpg watch on a terminal and without one.

import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { basename, delimiter, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { events, root, sdpg, start, temporaryHome, tiny } from "./command.ts";

const home = temporaryHome();
let checkpoint: string;
beforeAll(async () => {
  const args = ["hopper", "--run=one", "--epochs=1", "--json", ...tiny];
  const { code, stdout, stderr } = await sdpg(home.path, "train", ...args);
  expect(code, stderr).toBe(0);
  checkpoint = events(stdout).at(-1).checkpoint;
});
afterAll(() => home[Symbol.asyncDispose]());

const lastLine = (text: string) => text.trimEnd().split("\n").at(-1);

test("a camera that the model has not is refused", async () => {
  const out = ["--video", join(home.path, "a.gif"), "--camera=widd", "--episodes=1"];
  const { code, stdout, stderr } = await sdpg(home.path, "eval", "one", ...out);
  expect([code, stdout]).toEqual([2, ""]);
  expect(lastLine(stderr)).toBe('sdpg: Cannot film hopper by camera "widd": it has side, wide');
});

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
);

test.each([
  [["--height=64"], /Cannot use --height without --video/],
  [["--video=a.gif", "--seconds=3-1"], /--seconds.*two seconds of the episode/],
])("wrong usage of the video is refused: %s", async (args, words) => {
  const { code, stderr } = await sdpg(home.path, "eval", "one", ...args);
  expect([code, stderr]).toEqual([2, expect.stringMatching(words)]);
});

const terminals = new Deno.Command("script", { args: ["-qec", "true", "/dev/null"] });
const noTerminal = !terminals.outputSync().success;
if (noTerminal) {
  console.warn("watch is not tested: this machine has no pseudo-terminals (/dev/pts)");
}

test.skipIf(noTerminal)("watch plays an episode on a terminal and says how it ended", async () => {
  const run = ["run", "-q", "--config", join(root, "deno.json"), "-P=cli"]
    .concat(join(root, "services/cli/main.ts"), "watch", "one", "--once", "--seed=3");
  const { code, stdout } = await new Deno.Command("script", {
    args: ["-qec", [Deno.execPath(), ...run].join(" "), "/dev/null"],
    env: { SDPG_HOME: home.path, TERM: "xterm", COLORTERM: "truecolor" },
    stdin: "null",
  }).output();
  const text = new TextDecoder().decode(stdout);
  expect(code, text).toBe(0);
  const [before, ...frames] = text.split("\x1b[H");
  expect(before).toContain("\x1b[?1049h");
  expect(frames.length).toBeGreaterThan(1);
  // From state there is one picture, 320x240: 80 columns and 24 rows less one leave 61 characters of 23.
  const lines = frames[0].split("\x1b[J")[0].split(/\r+\n/);
  expect(lines[0]).toContain("one  epoch 1  seed 3  step 0  return 0");
  // deno-lint-ignore no-control-regex
  const plain = lines.slice(1).map((line) => line.replaceAll(/\x1b\[[\d;]*[mK]/g, ""));
  expect(plain).toEqual(Array(23).fill("▀".repeat(61)));
  const played = await sdpg(home.path, "eval", "one", "--episodes=1", "--seed=3", "--json");
  const [{ return: sum, episode_length }] = events(played.stdout);
  const last = text.slice(text.lastIndexOf("\x1b[?1049l") + 8).trim();
  const said = /^one at epoch 1, start 3: return (\S+) in (\d+) steps$/.exec(last);
  expect(Number(said?.[2])).toBe(episode_length);
  expect(Number(said?.[1])).toBeCloseTo(sum, 1);
});

test("watch without a terminal says what to do instead", async () => {
  const { code, stderr } = await sdpg(home.path, "watch", "one", "--once");
  expect([code, stderr]).toEqual([2, expect.stringContaining("./sdpg eval one --video")]);
});

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
    const args = [
      "eval",
      "one",
      "--episodes=1",
      "--height=64",
      "--seconds=0.04-0.1",
      "--json",
      "--video",
    ];
    const out = join(home.path, "film.mp4");
    const { code, stdout, stderr } = await start(home.path, [...args, out], { PATH: programs })
      .finished;
    expect(code, stderr).toBe(0);
    const [{ video, lengths }] = events(stdout);
    expect(lengths[0]).toBeGreaterThan(12);
    expect(video).toBe(join(home.path, "film-frames"));
    // A control step is 8 ms and every third is a frame: before steps 6, 9 and 12.
    expect(readdirSync(video).length).toBe(3);
    expect(readdirSync(video)[0]).toMatch(/\.png$/);
    expect(exists(out)).toBe(false);
    expect(stderr).toMatch(
      /ffmpeg is not installed.*apt-get install ffmpeg, then ffmpeg .*film\.mp4'/,
    );
  },
);

test("a film of a run is kept where its page looks, named by what it shows", async () => {
  // ffmpeg by a stand-in that keeps the frames as they come.
  const programs = join(home.path, "encoder");
  mkdirSync(programs);
  const script = '#!/bin/sh\nfor out; do :; done\nexec cat > "$out"\n';
  Deno.writeTextFileSync(join(programs, "ffmpeg"), script, { mode: 0o755 });
  const PATH = `${programs}${delimiter}${Deno.env.get("PATH")}`;
  const film = async (...args: string[]) => {
    const all = [
      "eval",
      "one",
      "--episodes=2",
      "--json",
      "--height=64",
      "--seconds=0.04-0.1",
      ...args,
    ];
    const { code, stdout, stderr } = await start(home.path, all, { PATH }).finished;
    expect(code, stderr).toBe(0);
    return events(stdout)[0];
  };
  const out = join(home.path, "mine.webp");
  const { video, returns } = await film("--seed=5", `--video=${out}`);
  expect(video).toBe(out);
  const kept = join(
    ...[home.path, "runs", "one", "videos"],
    `epoch-1-seed-5-height-64-seconds-0.04-0.1-return-${returns[0].toFixed(1)}.webp`,
  );
  expect(Deno.readFileSync(kept)).toEqual(Deno.readFileSync(out));
  const own = await film("--film", "--camera=side");
  expect(basename(own.video)).toMatch(/^epoch-1-seed-0-camera-side-height-64-.*\.mp4$/);
  expect(readdirSync(join(home.path, "runs", "one", "videos")).sort())
    .toEqual([basename(own.video), basename(kept)].sort());
});

test("a checkpoint has no page for a film", async () => {
  const { code, stderr } = await sdpg(home.path, "eval", checkpoint, "--film");
  expect([code, stderr]).toEqual([
    2,
    expect.stringContaining("Cannot use --film with a checkpoint"),
  ]);
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
