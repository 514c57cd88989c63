// Checkpoints of a run: everything the next epoch depends on, so that stopping and resuming gives the
// same bits as not stopping.
//
//   <directory>/00000100/manifest.json          what it is, and the SHA-256 of every file and tensor
//                        <group>.safetensors    tensors of one group: actor, critic, optimisers, ...
//                        simulation.bin         the simulator's exact state
//   <directory>/best                            name of the checkpoint with the best evaluation
//
// A checkpoint is written into a temporary directory, synced to the disk and renamed, so that a crash
// at any moment leaves the old ones or the new one, never a part. Reading checks every hash; a damaged
// checkpoint is passed over with its reason and the one before it is used. Nothing in it is code.

import { createHash } from "node:crypto";
import { basename, join } from "node:path";
import { decode, encode, sha256, tensorHash } from "./torch/safetensors.ts";
import type { Tensor } from "./torch/mod.ts";

export type TensorGroups = ReadonlyMap<string, ReadonlyMap<string, Tensor>>;

/** What is saved. `meta` is JSON: configuration, counters, hashes of model and task. */
export interface CheckpointContent {
  readonly epoch: number;
  readonly groups: TensorGroups;
  readonly simulation: Uint8Array;
  readonly meta: Readonly<Record<string, unknown>>;
}

/** A checkpoint cannot be written or read; the line says which, why and what to do. */
export class CheckpointError extends Error {
  override name = "CheckpointError";
}

interface Manifest {
  format: "sdpg-checkpoint";
  version: 1;
  epoch: number;
  meta: Record<string, unknown>;
  files: Record<string, { bytes: number; sha256: string }>;
  tensors: Record<string, string>; // "<group>/<name>" -> SHA-256 of its bytes
}

/** The few file operations a checkpoint needs, so that a test can make each of them fail. */
export interface Storage {
  makeDirectory(path: string): void;
  /** Creates the file and does not return before its bytes are on the disk. */
  writeSynced(path: string, bytes: Uint8Array): void;
  syncDirectory(path: string): void;
  rename(from: string, to: string): void;
  remove(path: string): void;
  read(path: string): Uint8Array;
  list(path: string): string[];
}

export const disk: Storage = {
  makeDirectory: (path) => Deno.mkdirSync(path, { recursive: true, mode: 0o700 }),
  writeSynced(path, bytes) {
    using file = Deno.openSync(path, { write: true, create: true, truncate: true, mode: 0o600 });
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
    file.syncSync();
  },
  syncDirectory(path) {
    using directory = Deno.openSync(path);
    directory.syncSync();
  },
  rename: (from, to) => Deno.renameSync(from, to),
  remove: (path) => Deno.removeSync(path, { recursive: true }),
  read: (path) => Deno.readFileSync(path),
  list: (path) => [...Deno.readDirSync(path)].map((entry) => entry.name),
};

const namePattern = /^\d{8,}$/;
const temporaryPattern = /^tmp-/;
/** Of a group's file. */
const ending = ".safetensors";

export class Checkpoints {
  /** Stays however many newer ones there are. */
  #held: string | undefined;

  constructor(
    readonly directory: string,
    private readonly storage: Storage = disk,
    private readonly keep = 2,
  ) {}

  /**
   * Writes a checkpoint and prunes to the newest ones, the best and the held. Returns its path.
   *
   * @throws CheckpointError when the disk refuses; what was there before is still there and valid.
   */
  write(content: CheckpointContent, options: { best: boolean } = { best: false }): string {
    const name = String(content.epoch).padStart(8, "0");
    const temporary = join(this.directory, `tmp-${name}`);
    const final = join(this.directory, name);
    try {
      this.storage.makeDirectory(this.directory);
      this.#sweep();
      this.storage.makeDirectory(temporary);
      const manifest: Manifest = {
        format: "sdpg-checkpoint",
        version: 1,
        epoch: content.epoch,
        meta: { ...content.meta },
        files: {},
        tensors: {},
      };
      const write = (file: string, bytes: Uint8Array) => {
        manifest.files[file] = { bytes: bytes.length, sha256: sha256(bytes) };
        this.storage.writeSynced(join(temporary, file), bytes);
      };
      for (const [group, tensors] of content.groups) {
        for (const [tensor, value] of tensors) {
          manifest.tensors[`${group}/${tensor}`] = tensorHash(value);
        }
        write(`${group}${ending}`, encode(new Map(tensors), {}));
      }
      write("simulation.bin", content.simulation);
      this.storage.writeSynced(join(temporary, "manifest.json"), sealManifest(manifest));
      this.storage.syncDirectory(temporary);
      // Replaying an epoch after a resume writes the same checkpoint again.
      if (this.storage.list(this.directory).includes(name)) this.storage.remove(final);
      this.storage.rename(temporary, final);
      this.storage.syncDirectory(this.directory);
      if (options.best) this.#pointBestAt(name);
      this.#prune();
    } catch (error) {
      try {
        this.storage.remove(temporary);
      } catch {
        // It was never made, or the next write sweeps it.
      }
      if (!(error instanceof Error)) throw error;
      throw new CheckpointError(
        `Cannot write checkpoint ${final}: ${error.message}; the previous one stays valid and ` +
          `training goes on, free some space`,
      );
    }
    return final;
  }

  /** Keeps a checkpoint until another is held. */
  hold(path: string) {
    this.#held = basename(path);
  }

  /**
   * Makes a checkpoint that is kept the best.
   *
   * @throws CheckpointError when the disk refuses; the best before stays it.
   */
  markBest(path: string) {
    try {
      this.#pointBestAt(basename(path));
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      throw new CheckpointError(
        `Cannot write ${join(this.directory, "best")}: ${error.message}; free some space`,
      );
    }
  }

  /** Path of the newest checkpoint, damaged or not; undefined when there is none. */
  newestPath(): string | undefined {
    const name = this.#names()[0];
    return name === undefined ? undefined : join(this.directory, name);
  }

  /**
   * The newest checkpoint that is whole, with the reasons why newer ones were passed over.
   *
   * @param open reads one, or what of it is needed
   * @throws CheckpointError when none is whole.
   */
  newest(): { checkpoint: StoredCheckpoint; skipped: string[] };
  newest<C>(open: (path: string, storage: Storage) => C): { checkpoint: C; skipped: string[] };
  newest(open: (path: string, storage: Storage) => unknown = openCheckpoint) {
    const skipped: string[] = [];
    for (const name of this.#names()) {
      const path = join(this.directory, name);
      try {
        return { checkpoint: open(path, this.storage), skipped };
      } catch (error) {
        if (!(error instanceof CheckpointError)) throw error;
        skipped.push(error.message);
      }
    }
    throw new CheckpointError(
      skipped.length === 0
        ? `Cannot resume: there is no checkpoint in ${this.directory}; start the run again`
        : `Cannot resume: every checkpoint is damaged (${skipped.join("; ")}); start the run again`,
    );
  }

  /** Path of the checkpoint with the best evaluation, if one is kept. */
  bestPath(): string | undefined {
    try {
      const name = new TextDecoder().decode(this.storage.read(join(this.directory, "best"))).trim();
      return this.#names().includes(name) ? join(this.directory, name) : undefined;
    } catch {
      return undefined; // No evaluation has been the best yet.
    }
  }

  /** Newest first. */
  #names(): string[] {
    let entries: string[];
    try {
      entries = this.storage.list(this.directory);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
    return entries.filter((name) => namePattern.test(name))
      .sort((a, b) => Number(b) - Number(a));
  }

  /** Removes what a crash left half written. */
  #sweep() {
    for (const name of this.storage.list(this.directory)) {
      if (temporaryPattern.test(name)) this.storage.remove(join(this.directory, name));
    }
  }

  #pointBestAt(name: string) {
    const temporary = join(this.directory, "tmp-best");
    this.storage.writeSynced(temporary, new TextEncoder().encode(name + "\n"));
    this.storage.rename(temporary, join(this.directory, "best"));
    this.storage.syncDirectory(this.directory);
  }

  #prune() {
    const best = this.bestPath();
    for (const name of this.#names().slice(this.keep)) {
      const path = join(this.directory, name);
      if (path !== best && name !== this.#held) this.storage.remove(path);
    }
  }
}

/** Groups of a checkpoint on the disk whose every byte has been checked. */
export interface StoredGroups {
  readonly path: string;
  readonly epoch: number;
  readonly meta: Readonly<Record<string, unknown>>;
  /** Their tensors, made anew in the caller's scope. */
  groups(): TensorGroups;
}

/** A whole checkpoint, likewise. */
export interface StoredCheckpoint extends StoredGroups {
  readonly simulation: Uint8Array;
}

/**
 * Reads one checkpoint directory.
 *
 * @throws CheckpointError naming the file that is missing or damaged.
 */
export function openCheckpoint(path: string, storage: Storage = disk): StoredCheckpoint {
  const { files, ...stored } = readCheckpoint(path, storage, (files) => files);
  return { ...stored, simulation: files.get("simulation.bin")! };
}

/**
 * Reads some groups of a checkpoint; of the other files it only knows that they are listed.
 *
 * @param choose of the groups there are, those to read
 * @throws CheckpointError naming the file that is missing or damaged.
 */
export function openGroups(
  path: string,
  choose: (there: ReadonlySet<string>) => readonly string[],
  storage: Storage = disk,
): StoredGroups {
  const { files: _, ...stored } = readCheckpoint(path, storage, (files) => {
    const groups = files.filter((file) => file.endsWith(ending));
    const there = new Set(groups.map((file) => file.slice(0, -ending.length)));
    return choose(there).map((group) => `${group}${ending}`);
  });
  return stored;
}

function readCheckpoint(
  path: string,
  storage: Storage,
  choose: (files: readonly string[]) => readonly string[],
): StoredGroups & { files: ReadonlyMap<string, Uint8Array> } {
  const damaged = (reason: string) =>
    new CheckpointError(`Cannot use checkpoint ${path}: ${reason}`);
  const read = (file: string) => {
    try {
      return storage.read(join(path, file));
    } catch (error) {
      throw damaged(`${file} ${error instanceof Deno.errors.NotFound ? "is missing" : error}`);
    }
  };
  const manifest = openManifest(read("manifest.json"), damaged);
  const listed = Object.keys(manifest.files);
  for (const file of listed) {
    if (!/^[a-z_]+\.(safetensors|bin)$/.test(file)) throw damaged(`it lists a file "${file}"`);
  }
  if (!listed.includes("simulation.bin")) throw damaged("simulation.bin is not listed");
  const files = new Map<string, Uint8Array>();
  for (const file of choose(listed)) {
    const expected = manifest.files[file];
    if (expected === undefined) throw damaged(`${file} is not listed`);
    const bytes = read(file);
    if (bytes.length !== expected.bytes) {
      throw damaged(`${file} has ${bytes.length} bytes, expected ${expected.bytes}`);
    }
    if (sha256(bytes) !== expected.sha256) throw damaged(`${file} does not match its SHA-256`);
    files.set(file, bytes);
  }
  return {
    path,
    epoch: manifest.epoch,
    meta: manifest.meta,
    files,
    groups() {
      const groups = new Map<string, ReadonlyMap<string, Tensor>>();
      for (const [file, bytes] of files) {
        if (!file.endsWith(ending)) continue;
        const group = file.slice(0, -ending.length);
        const { tensors } = decode(bytes);
        for (const [name, tensor] of tensors) {
          if (tensorHash(tensor) !== manifest.tensors[`${group}/${name}`]) {
            throw damaged(`tensor ${group}/${name} does not match its SHA-256`);
          }
        }
        groups.set(group, tensors);
      }
      return groups;
    },
  };
}

/** SHA-256, hex, over every tensor (names sorted) and the simulator's state. */
export function hashState(groups: TensorGroups, simulation: Uint8Array): string {
  const hash = createHash("sha256");
  for (const group of [...groups.keys()].sort()) {
    const tensors = groups.get(group)!;
    for (const name of [...tensors.keys()].sort()) {
      const tensor = tensors.get(name)!;
      hash.update(`${group}/${name} ${tensor.dtype} [${tensor.shape}]\n`).update(tensor.bytes());
    }
  }
  return hash.update("simulation\n").update(simulation).digest("hex");
}

/** The manifest as one line of JSON followed by the SHA-256 of that line. */
function sealManifest(manifest: Manifest): Uint8Array {
  const line = JSON.stringify(manifest);
  return new TextEncoder().encode(
    `{"manifest":${line},"sha256":"${sha256(new TextEncoder().encode(line))}"}\n`,
  );
}

function openManifest(bytes: Uint8Array, damaged: (reason: string) => CheckpointError): Manifest {
  let text: string;
  let manifest: Manifest;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    manifest = JSON.parse(text).manifest;
  } catch {
    throw damaged("manifest.json is not JSON");
  }
  // Sealing again gives the same bytes only if every one of them, spaces included, is as written.
  if (
    manifest === undefined || new TextDecoder().decode(sealManifest(manifest)) !== text
  ) {
    throw damaged("manifest.json does not match its SHA-256");
  }
  if (manifest.format !== "sdpg-checkpoint" || manifest.version !== 1) {
    throw damaged(
      `expected format sdpg-checkpoint 1, got ${manifest.format} ${manifest.version}`,
    );
  }
  return manifest;
}
