// The spool: what the service has taken and the store does not have yet, on disk, so that neither a kill
// nor a store that is away loses or doubles a row.
//
// Segments are files of frames, written at the end only:
//
//   length u32 | crc32 of the payload u32 | payload
//
// and a payload is a line of JSON, for a batch followed by the bytes of its rows. A batch is on the disk
// (fdatasync) before its requests are acknowledged. Batches are inserted in groups: a group is on the disk
// before it is inserted, so that after a kill the same rows are inserted again under the same token;
// `done` says that the store has them. A segment goes when it is not the newest and all its batches are
// done. Each begins with the ids of the newest requests, so that one which comes again after a restart is
// still known.

import { join } from "node:path";
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";

/** How the rows of a part are written. */
export type PartFormat = "JSONCompactEachRow" | "Native";

export interface Part {
  table: string;
  rows: number;
  format: PartFormat;
  bytes: Uint8Array;
}

/** A batch in the spool that is not in the store yet. */
export interface Spooled {
  sequence: number;
  rows: number;
  segment: number;
  offset: number; // of the frame's payload
  length: number;
  /** Of a batch from an earlier checkout, which was a group of its own. */
  token?: string;
}

/** Batches that are inserted together, oldest first. */
export interface Group {
  /** Names the group for ever, also to the store. */
  token: string;
  batches: Spooled[];
}

export interface SpoolLimits {
  /** All segments together; beyond it nothing is taken. */
  maxBytes: number;
  segmentBytes: number;
  /** Requests that are remembered. */
  rememberedIds: number;
  /** Of the newest batches, kept in memory until they are done. */
  keptBytes: number;
}

const defaultLimits: SpoolLimits = {
  maxBytes: 4 * 2 ** 30,
  segmentBytes: 64 << 20,
  rememberedIds: 20_000,
  keptBytes: 32 << 20,
};

/** The spool has no room: nothing was taken. */
export class SpoolFull extends Error {
  override name = "SpoolFull";
}

interface BatchHead {
  batch: number;
  /** Only in spools of earlier checkouts. */
  token?: string;
  ids: string[];
  /** The format is absent in spools of earlier checkouts: lines of JSON. */
  parts: [table: string, rows: number, bytes: number, format?: PartFormat][];
}

type Head =
  | BatchHead
  | { group: string; batches: number[] }
  | { done: number | number[] } // one number in spools of earlier checkouts
  | { seen: string[] };

export class Spool {
  #directory: string;
  #limits: SpoolLimits;
  #sequence = 0;
  #segment = 0;
  #file: Deno.FsFile;
  #size = 0;
  /** Bytes of every segment, oldest first. */
  #segments = new Map<number, number>();
  #bytes = 0;
  /** Batches that are not done, by sequence. */
  #pending = new Map<number, Spooled>();
  #pendingRows = 0;
  /** The group that was begun and is not done. */
  #group: { token: string; sequences: number[] } | undefined;
  #kept = new Map<number, Part[]>();
  #keptBytes = 0;
  #seen = new Set<string>();
  /** Writes wait for each other. */
  #last: Promise<unknown> = Promise.resolve();

  /** Opens or creates; `damaged` are the places whose bytes are not what was written. */
  static open(
    directory: string,
    limits: Partial<SpoolLimits> = {},
  ): { spool: Spool; damaged: string[] } {
    const damaged: string[] = [];
    return { spool: new Spool(directory, { ...defaultLimits, ...limits }, damaged), damaged };
  }

  private constructor(directory: string, limits: SpoolLimits, damaged: string[]) {
    this.#directory = directory;
    this.#limits = limits;
    Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    const numbers = [...Deno.readDirSync(directory)]
      .map(({ name }) => /^(\d{8})\.spool$/.exec(name)?.[1])
      .filter((text) => text !== undefined).map(Number).sort((a, b) => a - b);
    for (const number of numbers) this.#read(number, damaged);
    this.#segment = numbers.at(-1) ?? 0;
    this.#file = this.#begin();
    this.#sweep();
  }

  /** Not done, oldest first. */
  get pending(): Spooled[] {
    return [...this.#pending.values()];
  }

  get pendingRows(): number {
    return this.#pendingRows;
  }

  /** Number of the newest batch, and of the oldest that is not done. */
  get newest(): number {
    return this.#sequence;
  }
  get oldestPending(): number {
    return this.#pending.keys().next().value ?? Infinity;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whether a request is in the spool or was, as far back as they are remembered. */
  has(id: string): boolean {
    return this.#seen.has(id);
  }

  /** Writes a batch and returns when it is on the disk. Throws SpoolFull. */
  append(ids: string[], parts: Part[]): Promise<void> {
    return this.#inTurn(() => this.#append(ids, parts));
  }

  async #append(ids: string[], parts: Part[]): Promise<void> {
    const sequence = this.#sequence + 1;
    const head: BatchHead = {
      batch: sequence,
      ids,
      parts: parts.map(({ table, rows, bytes, format }) => [table, rows, bytes.length, format]),
    };
    const frame = frameOf(head, parts.map(({ bytes }) => bytes));
    if (this.#bytes + frame.length > this.#limits.maxBytes) {
      throw new SpoolFull(`The spool has ${this.#bytes} bytes, at most ${this.#limits.maxBytes}`);
    }
    const offset = await this.#write(frame, true) + headerBytes;
    this.#sequence = sequence;
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const length = frame.length - headerBytes;
    this.#add({ sequence, rows, segment: this.#segment, offset, length });
    for (const id of ids) this.#remember(id);
    if (this.#keptBytes + length <= this.#limits.keptBytes) {
      this.#kept.set(sequence, parts);
      this.#keptBytes += length;
    }
  }

  /**
   * The oldest batches to insert together, as many as the limits allow and at least one; the same ones
   * again until they are done. They are on the disk as a group when it returns.
   */
  begin(maxRows: number, maxBytes: number): Promise<Group> {
    return this.#inTurn(async () => {
      if (this.#group === undefined) {
        const sequences: number[] = [];
        let rows = 0;
        let bytes = 0;
        let token: string | undefined;
        for (const spooled of this.#pending.values()) {
          rows += spooled.rows;
          bytes += spooled.length;
          const alone = token !== undefined || spooled.token !== undefined;
          if (sequences.length > 0 && (alone || rows > maxRows || bytes > maxBytes)) break;
          sequences.push(spooled.sequence);
          token = spooled.token;
        }
        token ??= crypto.randomUUID();
        await this.#write(frameOf({ group: token, batches: sequences }, []), true);
        this.#group = { token, sequences };
      }
      const { token, sequences } = this.#group;
      return { token, batches: sequences.map((sequence) => this.#pending.get(sequence)!) };
    });
  }

  /** Rows of a batch as they were written. Throws when the disk has changed them. */
  read({ sequence, segment, offset, length }: Spooled): Part[] {
    const kept = this.#kept.get(sequence);
    if (kept) return kept;
    const file = Deno.openSync(this.#path(segment));
    try {
      const frame = Buffer.alloc(headerBytes + length);
      file.seekSync(offset - headerBytes, Deno.SeekMode.Start);
      for (let at = 0, read; at < frame.length; at += read) {
        read = file.readSync(frame.subarray(at)) ?? 0;
        if (read === 0) {
          throw new Error(`Cannot read batch ${sequence} of the spool: it is cut off`);
        }
      }
      const payload = payloadAt(frame, 0);
      if (payload === undefined) {
        throw new Error(`Cannot read batch ${sequence} of the spool: its checksum is wrong`);
      }
      return partsOf(payload);
    } finally {
      file.close();
    }
  }

  /** The store has the group. A crash may forget this: inserting again does no harm. */
  done({ batches }: Group): Promise<void> {
    return this.#inTurn(async () => {
      const sequences = batches.map(({ sequence }) => sequence);
      for (const sequence of sequences) this.#remove(sequence);
      this.#group = undefined;
      this.#sweep(); // makes room on a full disk
      await this.#write(frameOf({ done: sequences }, []), false);
    });
  }

  /** The store refuses rows whose senders believe them stored: they are kept in a file of their own. */
  setAside(token: string, { table, bytes }: { table: string; bytes: Uint8Array }): string {
    const path = join(this.#directory, `${table}-${token}.refused`);
    Deno.writeFileSync(path, bytes, { mode: 0o600 });
    return path;
  }

  close(): void {
    this.#file.close();
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => {});
    return result;
  }

  #path(segment: number): string {
    return join(this.#directory, `${String(segment).padStart(8, "0")}.spool`);
  }

  /** Writes a frame whole or not at all, and returns where it begins. */
  async #write(frame: Uint8Array, sync: boolean): Promise<number> {
    if (this.#size + frame.length > this.#limits.segmentBytes) {
      const file = this.#begin();
      this.#file.close();
      this.#file = file;
      this.#sweep();
    }
    const start = this.#size;
    try {
      for (let at = 0; at < frame.length;) at += await this.#file.write(frame.subarray(at));
      if (sync) await this.#file.syncData();
    } catch (error) {
      // Half a frame may stand there, or a whole one that is not known to be safe: never read either.
      this.#file.close();
      Deno.truncateSync(this.#path(this.#segment), start);
      this.#file = Deno.openSync(this.#path(this.#segment), { append: true });
      throw fullOr(error);
    }
    this.#grow(start + frame.length);
    return start;
  }

  #grow(size: number): void {
    this.#bytes += size - (this.#segments.get(this.#segment) ?? 0);
    this.#segments.set(this.#segment, this.#size = size);
  }

  /** Starts the next segment with the ids that are remembered. */
  #begin(): Deno.FsFile {
    const path = this.#path(this.#segment + 1);
    const file = Deno.openSync(path, { createNew: true, append: true, mode: 0o600 });
    const frame = frameOf({ seen: [...this.#seen] }, []);
    try {
      for (let at = 0; at < frame.length;) at += file.writeSync(frame.subarray(at));
      file.syncSync();
      const folder = Deno.openSync(this.#directory);
      folder.syncSync(); // the new name
      folder.close();
    } catch (error) {
      file.close();
      Deno.removeSync(path);
      throw fullOr(error);
    }
    this.#segment++;
    this.#grow(frame.length);
    return file;
  }

  /** Removes the oldest segments whose batches are done; they have to go in order. */
  #sweep(): void {
    const oldest = this.#pending.values().next().value?.segment ?? this.#segment;
    for (const [segment, bytes] of [...this.#segments]) {
      if (segment >= oldest || segment === this.#segment) return;
      Deno.removeSync(this.#path(segment));
      this.#segments.delete(segment);
      this.#bytes -= bytes;
    }
  }

  #add(spooled: Spooled): void {
    this.#pending.set(spooled.sequence, spooled);
    this.#pendingRows += spooled.rows;
  }

  #remove(sequence: number): void {
    const spooled = this.#pending.get(sequence);
    if (spooled === undefined) return;
    this.#pending.delete(sequence);
    this.#pendingRows -= spooled.rows;
    if (this.#kept.delete(sequence)) this.#keptBytes -= spooled.length;
  }

  #remember(id: string): void {
    this.#seen.delete(id);
    this.#seen.add(id);
    if (this.#seen.size > this.#limits.rememberedIds) {
      this.#seen.delete(this.#seen.values().next().value!);
    }
  }

  /** Takes in a segment of an earlier process. Its end may be cut: what stands there was never promised. */
  #read(segment: number, damaged: string[]): void {
    const bytes = Buffer.from(Deno.readFileSync(this.#path(segment)));
    this.#segments.set(segment, bytes.length);
    this.#bytes += bytes.length;
    for (let at = 0; at < bytes.length;) {
      const length = at + headerBytes <= bytes.length ? bytes.readUInt32LE(at) : Infinity;
      const end = at + headerBytes + length;
      if (end > bytes.length) return;
      const payload = payloadAt(bytes, at);
      if (payload === undefined) {
        // The last frame may have been on its way to the disk; one before others was whole once.
        if (end < bytes.length) damaged.push(`${this.#path(segment)} at byte ${at}`);
      } else {
        this.#take(headOf(payload), segment, at + headerBytes, length);
      }
      at = end;
    }
  }

  #take(head: Head, segment: number, offset: number, length: number): void {
    if ("seen" in head) {
      for (const id of head.seen) this.#remember(id);
    } else if ("done" in head) {
      for (const sequence of [head.done].flat()) this.#remove(sequence);
      this.#group = undefined;
    } else if ("group" in head) {
      this.#group = {
        token: head.group,
        // A batch that the disk has changed is lost to its group, and told by then.
        sequences: head.batches.filter((sequence) => this.#pending.has(sequence)),
      };
    } else {
      this.#sequence = head.batch;
      const rows = head.parts.reduce((sum, [, count]) => sum + count, 0);
      this.#add({ sequence: head.batch, rows, segment, offset, length, token: head.token });
      for (const id of head.ids) this.#remember(id);
    }
  }
}

/** SpoolFull where the disk is full. */
function fullOr(error: unknown): unknown {
  const full = error instanceof Error && /ENOSPC|No space/i.test(error.message);
  return full ? new SpoolFull("The disk of the spool is full") : error;
}

const headerBytes = 8;

function frameOf(head: Head, parts: Uint8Array[]): Uint8Array {
  const line = new TextEncoder().encode(JSON.stringify(head) + "\n");
  const frame = Buffer.concat([new Uint8Array(headerBytes), line, ...parts]);
  frame.writeUInt32LE(frame.length - headerBytes, 0);
  frame.writeUInt32LE(crc32(frame.subarray(headerBytes)), 4);
  return frame;
}

/** Payload of the frame at a place, or undefined when its checksum is wrong. */
function payloadAt(bytes: Buffer, at: number): Buffer | undefined {
  const length = bytes.readUInt32LE(at);
  const payload = bytes.subarray(at + headerBytes, at + headerBytes + length);
  return crc32(payload) === bytes.readUInt32LE(at + 4) ? payload : undefined;
}

const headOf = (payload: Buffer): Head =>
  JSON.parse(payload.toString("utf8", 0, payload.indexOf(10)));

function partsOf(payload: Buffer): Part[] {
  const { parts } = headOf(payload) as BatchHead;
  let at = payload.indexOf(10) + 1;
  return parts.map(([table, rows, length, format = "JSONCompactEachRow"]) => {
    at += length;
    return { table, rows, format, bytes: payload.subarray(at - length, at) };
  });
}
