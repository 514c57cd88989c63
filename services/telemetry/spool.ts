// The spool: what the service has taken and not yet finished, on disk, so that neither a kill nor a
// store that is away loses or doubles a row.
//
// Segments are files of frames, written at the end only:
//
//   length u32 | crc32 of the payload u32 | payload
//
// and a payload is a line of JSON, for a batch followed by the lines of its rows. A batch is on the disk
// (fdatasync) before it is inserted; `done` says that the store has it. A segment goes when it is not
// the newest and all its batches are done. Each begins with the ids of the newest requests, so that a
// request which comes again after a restart is still known.

import { join } from "node:path";
import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";

export interface Batch {
  /** Names the batch for ever, also to the store. */
  token: string;
  /** Requests it holds. */
  ids: string[];
  /** Rows as lines of JSONCompactEachRow, by table, in the order of inserting. */
  parts: Part[];
}

export interface Part {
  table: string;
  rows: number;
  bytes: Uint8Array;
}

/** A batch in the spool that is not in the store yet. */
export interface Spooled {
  sequence: number;
  rows: number;
  segment: number;
  offset: number; // of the frame's payload
  length: number;
}

export interface SpoolLimits {
  /** All segments together; beyond it nothing is taken. */
  maxBytes: number;
  segmentBytes: number;
  /** Requests that are remembered. */
  rememberedIds: number;
}

const defaultLimits: SpoolLimits = {
  maxBytes: 4 * 2 ** 30,
  segmentBytes: 16 << 20,
  rememberedIds: 20_000,
};

/** The spool has no room: nothing was taken. */
export class SpoolFull extends Error {
  override name = "SpoolFull";
}

interface BatchHead {
  batch: number;
  token: string;
  ids: string[];
  parts: [table: string, rows: number, bytes: number][];
}

type Head = BatchHead | { done: number; forget: string[] } | { seen: string[] };

export class Spool {
  #directory: string;
  #limits: SpoolLimits;
  #sequence = 0;
  #segment = 0;
  #file: Deno.FsFile;
  #size = 0;
  /** Bytes of every segment, oldest first. */
  #segments = new Map<number, number>();
  /** Batches that are not done, by sequence. */
  #pending = new Map<number, Spooled>();
  #seen = new Set<string>();

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

  get bytes(): number {
    return [...this.#segments.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Whether a request is in the spool or was, as far back as they are remembered. */
  has(id: string): boolean {
    return this.#seen.has(id);
  }

  /** Writes a batch and returns when it is on the disk. One call at a time. Throws SpoolFull. */
  async append(ids: string[], parts: Part[]): Promise<Spooled & { batch: Batch }> {
    const sequence = this.#sequence + 1;
    const token = crypto.randomUUID();
    const head: BatchHead = {
      batch: sequence,
      token,
      ids,
      parts: parts.map(({ table, rows, bytes }) => [table, rows, bytes.length]),
    };
    const frame = frameOf(head, parts.map(({ bytes }) => bytes));
    if (this.bytes + frame.length > this.#limits.maxBytes) {
      throw new SpoolFull(`The spool has ${this.bytes} bytes, at most ${this.#limits.maxBytes}`);
    }
    if (this.#size + frame.length > this.#limits.segmentBytes) {
      this.#file.close();
      this.#file = this.#begin();
      this.#sweep();
    }
    const offset = this.#size + headerBytes;
    try {
      await this.#write(frame);
      await this.#file.syncData();
    } catch (error) {
      // Half a frame may stand there, or a whole one that is not known to be safe: never read either.
      this.#file.close();
      Deno.truncateSync(this.#path(this.#segment), offset - headerBytes);
      this.#segments.set(this.#segment, offset - headerBytes);
      this.#file = this.#begin();
      if (error instanceof Error && /ENOSPC|No space/i.test(error.message)) {
        throw new SpoolFull("The disk of the spool is full");
      }
      throw error;
    }
    this.#sequence = sequence;
    const spooled: Spooled = {
      sequence,
      rows: parts.reduce((sum, { rows }) => sum + rows, 0),
      segment: this.#segment,
      offset,
      length: frame.length - headerBytes,
    };
    this.#pending.set(sequence, spooled);
    for (const id of ids) this.#remember(id);
    return { ...spooled, batch: { token, ids, parts } };
  }

  /** The batch as it was written. Throws when the disk has changed it. */
  read({ sequence, segment, offset, length }: Spooled): Batch {
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
      return batchOf(payload);
    } finally {
      file.close();
    }
  }

  /** The store has the batch. A crash may forget this: inserting again does no harm. */
  async done(sequence: number): Promise<void> {
    await this.#finish(sequence, []);
  }

  /** The store refused the batch and its senders were told: their requests are unknown again. */
  async refused(sequence: number, ids: string[]): Promise<void> {
    await this.#finish(sequence, ids);
  }

  /** The store refuses a batch whose senders believe it stored: it is kept in a file of its own. */
  async setAside(spooled: Spooled): Promise<string> {
    const path = join(this.#directory, `${spooled.sequence}-${Date.now()}.refused`);
    const { parts } = this.read(spooled);
    Deno.writeFileSync(path, Buffer.concat(parts.map(({ bytes }) => bytes)), { mode: 0o600 });
    await this.#finish(spooled.sequence, []);
    return path;
  }

  close(): void {
    this.#file.close();
  }

  async #finish(sequence: number, forget: string[]): Promise<void> {
    this.#pending.delete(sequence);
    for (const id of forget) this.#seen.delete(id);
    await this.#write(frameOf({ done: sequence, forget }, []));
    this.#sweep();
  }

  #path(segment: number): string {
    return join(this.#directory, `${String(segment).padStart(8, "0")}.spool`);
  }

  async #write(frame: Uint8Array): Promise<void> {
    for (let at = 0; at < frame.length;) at += await this.#file.write(frame.subarray(at));
    this.#size += frame.length;
    this.#segments.set(this.#segment, this.#size);
  }

  /** Starts the next segment with the ids that are remembered. */
  #begin(): Deno.FsFile {
    this.#segment++;
    const file = Deno.openSync(this.#path(this.#segment), {
      createNew: true,
      append: true,
      mode: 0o600,
    });
    const frame = frameOf({ seen: [...this.#seen] }, []);
    for (let at = 0; at < frame.length;) at += file.writeSync(frame.subarray(at));
    file.syncSync();
    const folder = Deno.openSync(this.#directory);
    folder.syncSync(); // the new name
    folder.close();
    this.#size = frame.length;
    this.#segments.set(this.#segment, this.#size);
    return file;
  }

  /** Removes the oldest segments whose batches are done; they have to go in order. */
  #sweep(): void {
    const oldest = this.#pending.values().next().value?.segment ?? this.#segment;
    for (const segment of [...this.#segments.keys()]) {
      if (segment >= oldest || segment === this.#segment) return;
      Deno.removeSync(this.#path(segment));
      this.#segments.delete(segment);
    }
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
      this.#pending.delete(head.done);
      for (const id of head.forget) this.#seen.delete(id);
    } else {
      this.#sequence = head.batch;
      const rows = head.parts.reduce((sum, [, count]) => sum + count, 0);
      this.#pending.set(head.batch, { sequence: head.batch, rows, segment, offset, length });
      for (const id of head.ids) this.#remember(id);
    }
  }
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

function batchOf(payload: Buffer): Batch {
  const { token, ids, parts } = headOf(payload) as BatchHead;
  let at = payload.indexOf(10) + 1;
  return {
    token,
    ids,
    parts: parts.map(([table, rows, length]) => {
      at += length;
      return { table, rows, bytes: payload.subarray(at - length, at) };
    }),
  };
}
