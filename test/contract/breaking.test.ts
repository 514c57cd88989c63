// The contracts keep their promises: lint, no breaking change against the committed snapshot, and
// generated TypeScript that belongs to the .proto files beside it.
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const proto = join(root, "proto");
const snapshot = join(proto, "snapshot", "sdpg.binpb");
const bin = join(root, "node_modules", ".bin");
const scratch = mkdtempSync(join(tmpdir(), "sdpg-contract-"));
afterAll(() => rmSync(scratch, { recursive: true }));

/** Runs the pinned buf in proto/; `output` is what it found. */
function buf(...args: string[]): { ok: boolean; output: string } {
  try {
    const output = execFileSync(Deno.execPath(), ["run", "-A", "npm:@bufbuild/buf", ...args], {
      cwd: proto,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        ...process.env,
        PATH: `${bin}${delimiter}${process.env.PATH}`,
        DENO_NO_UPDATE_CHECK: "1",
      },
    });
    return { ok: true, output };
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    return { ok: false, output: `${stdout ?? ""}${stderr ?? error}` };
  }
}

/** name -> text of every file under a folder. */
function tree(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path.slice(folder.length), readFileSync(path, "utf8")]),
  );
}

describe("proto/", () => {
  test("buf lint finds nothing", () => {
    expect(buf("lint")).toEqual({ ok: true, output: "" });
  });

  test("no change breaks the committed snapshot", () => {
    expect(buf("breaking", "--against", snapshot, "--path", "sdpg"))
      .toEqual({ ok: true, output: "" });
  });

  test("a field that changes its type does break the snapshot", () => {
    const copy = join(scratch, "broken");
    cpSync(join(proto, "sdpg"), join(copy, "sdpg"), { recursive: true });
    writeFileSync(join(copy, "buf.yaml"), "version: v2\nbreaking: { use: [FILE] }\n");
    const path = join(copy, "sdpg", "sim", "v1", "sim.proto");
    const text = readFileSync(path, "utf8");
    writeFileSync(path, text.replace("uint32 nominals = 3;", "string nominals = 3;"));
    const { ok, output } = buf("breaking", copy, "--against", snapshot);
    expect(ok).toBe(false);
    expect(output).toContain('"nominals"');
  });

  test("the committed TypeScript is what the .proto files generate", () => {
    const { ok, output } = buf("generate", "-o", scratch);
    expect({ ok, output }).toEqual({ ok: true, output: "" });
    const generated = tree(join(scratch, "gen"));
    const committed = tree(join(proto, "gen"));
    expect(Object.keys(generated).sort()).toEqual(Object.keys(committed).sort());
    for (const [name, text] of Object.entries(generated)) {
      expect(committed[name] === text, `proto/gen${name} is stale: run buf generate in proto/`)
        .toBe(true);
    }
  });
});
