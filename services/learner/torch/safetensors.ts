// Tensors as files: the safetensors format (8 bytes header length, JSON header, data), which no reader executes.
//
// Ours carry a SHA-256 of every tensor and of the header in the metadata, so that a flipped bit anywhere is found when
// the file is read and named by tensor. Layout: names sorted, data without gaps, header padded to 8 bytes.

import { createHash } from "node:crypto";
import { type Dtype, elementBytes, fromBytes, type Tensor, TorchError } from "./mod.ts";

const NAMES: Record<Dtype, string> = {
  float32: "F32",
  float64: "F64",
  int64: "I64",
  int32: "I32",
  uint8: "U8",
  bool: "BOOL",
};
const DTYPES = new Map(Object.entries(NAMES).map(([dtype, name]) => [name, dtype as Dtype]));

/** The format's own bound on a header. */
const MAX_HEADER_BYTES = 100_000_000;
const HEADER_HASH = "sdpg.sha256.header";
const TENSOR_HASH = "sdpg.sha256.tensor.";
/** Stands for the header's hash while that hash is computed. */
const BLANK_HASH = "0".repeat(64);

export function sha256(...parts: Uint8Array[]): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

/** SHA-256 of each tensor: dtype and shape as text, a zero byte, then the elements. */
export function tensorHash(t: Tensor): string {
  return hashOf(t.dtype, t.shape, t.bytes());
}

function hashOf(dtype: Dtype, shape: readonly number[], bytes: Uint8Array): string {
  return sha256(new TextEncoder().encode(`${dtype}[${shape.join(", ")}]\0`), bytes);
}

interface Entry {
  dtype: string;
  shape: readonly number[];
  data_offsets: readonly [number, number];
}

export function encode(
  tensors: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array<ArrayBuffer> {
  for (const key of Object.keys(metadata)) {
    if (key.startsWith("sdpg.sha256.")) {
      throw new TorchError(`Cannot store metadata "${key}": names under sdpg.sha256. are reserved`);
    }
  }
  const meta: Record<string, string> = { ...metadata, [HEADER_HASH]: BLANK_HASH };
  const entries: Record<string, Entry> = {};
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const name of [...tensors.keys()].sort()) {
    if (name === "__metadata__" || name === "__proto__") {
      throw new TorchError(`Cannot store a tensor named "${name}": that name is reserved`);
    }
    const t = tensors.get(name)!;
    const bytes = t.bytes();
    meta[TENSOR_HASH + name] = hashOf(t.dtype, t.shape, bytes);
    entries[name] = {
      dtype: NAMES[t.dtype],
      shape: t.shape,
      data_offsets: [offset, offset + bytes.length],
    };
    parts.push(bytes);
    offset += bytes.length;
  }
  let text = JSON.stringify({ __metadata__: meta, ...entries });
  const encoder = new TextEncoder();
  text += " ".repeat((8 - encoder.encode(text).length % 8) % 8);
  const header = encoder.encode(
    text.replace(hashField(BLANK_HASH), hashField(sha256(encoder.encode(text)))),
  );
  const file = new Uint8Array(8 + header.length + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
  file.set(header, 8);
  let at = 8 + header.length;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file;
}

function hashField(hash: string): string {
  return `${JSON.stringify(HEADER_HASH)}:"${hash}"`;
}

function refuse(reason: string): never {
  throw new TorchError(`Cannot read safetensors: ${reason}`);
}

/**
 * Reads and checks everything before the first tensor is made. Files written by others carry no hashes and are refused
 * unless requireHashes is false.
 */
export function decode(
  file: Uint8Array,
  { requireHashes = true }: { requireHashes?: boolean } = {},
): { tensors: Map<string, Tensor>; metadata: Record<string, string> } {
  const { header, text, data } = split(file);
  const { __metadata__: rawMeta, ...rest } = header;
  const metadata = checkMetadata(rawMeta);
  checkHeaderHash(text, metadata, requireHashes);
  const checked = checkEntries(rest, data.length);
  for (const [name, { dtype, shape, bytes }] of checked(data)) {
    const expected = metadata[TENSOR_HASH + name];
    if (expected === undefined ? requireHashes : expected !== hashOf(dtype, shape, bytes)) {
      refuse(
        expected === undefined
          ? `tensor "${name}" has no SHA-256`
          : `tensor "${name}" is damaged (its SHA-256 does not match)`,
      );
    }
  }
  const tensors = new Map<string, Tensor>();
  for (const [name, { dtype, shape, bytes }] of checked(data)) {
    tensors.set(name, fromBytes(bytes, dtype, shape));
  }
  for (const key of Object.keys(metadata)) {
    if (key.startsWith(TENSOR_HASH) && !tensors.has(key.slice(TENSOR_HASH.length))) {
      refuse(`there is a SHA-256 of "${key.slice(TENSOR_HASH.length)}" but no such tensor`);
    }
    if (key.startsWith("sdpg.sha256.")) delete metadata[key];
  }
  return { tensors, metadata };
}

function split(file: Uint8Array): {
  header: Record<string, unknown>;
  text: string;
  data: Uint8Array;
} {
  if (file.length < 8) refuse(`expected at least 8 bytes, got ${file.length}`);
  const length = new DataView(file.buffer, file.byteOffset).getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES || Number(length) > file.length - 8) {
    refuse(`the header claims ${length} bytes, ${file.length - 8} follow its length`);
  }
  const bytes = file.subarray(8, 8 + Number(length));
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch {
    refuse("the header is not JSON text");
  }
  if (!isObject(header) || !text.startsWith("{")) refuse("the header is not a JSON object");
  return { header, text, data: file.subarray(8 + Number(length)) };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function checkMetadata(raw: unknown): Record<string, string> {
  if (raw === undefined) return {};
  if (!isObject(raw) || !Object.values(raw).every((value) => typeof value === "string")) {
    refuse("__metadata__ is not an object of texts");
  }
  return { ...raw } as Record<string, string>;
}

function checkHeaderHash(
  text: string,
  metadata: Record<string, string>,
  required: boolean,
): void {
  const stored = metadata[HEADER_HASH];
  if (stored === undefined) {
    if (required) refuse("the header has no SHA-256 (written by another program, or damaged)");
    return;
  }
  const blank = text.replace(hashField(stored), hashField(BLANK_HASH));
  if (sha256(new TextEncoder().encode(blank)) !== stored) {
    refuse("the header is damaged (its SHA-256 does not match)");
  }
}

type Checked = (
  data: Uint8Array,
) => Iterable<[string, { dtype: Dtype; shape: number[]; bytes: Uint8Array }]>;

/** Checks dtypes, shapes and that the tensors fill the data from first to last byte without gap or overlap. */
function checkEntries(entries: Record<string, unknown>, dataBytes: number): Checked {
  const all = Object.entries(entries).map(([name, entry]) => {
    if (!isObject(entry)) refuse(`tensor "${name}" has no description`);
    const dtype = DTYPES.get(entry.dtype as string);
    if (dtype === undefined) {
      refuse(
        `tensor "${name}" has dtype ${JSON.stringify(entry.dtype)}; known: ${[...DTYPES.keys()]}`,
      );
    }
    const shape = wholeNumbers(entry.shape);
    const offsets = wholeNumbers(entry.data_offsets);
    if (shape === undefined || shape.length > 12) refuse(`tensor "${name}" has no valid shape`);
    if (offsets?.length !== 2) refuse(`tensor "${name}" has no valid offsets`);
    const needed = shape.reduce((product, size) => product * size, elementBytes(dtype));
    if (offsets[1] - offsets[0] !== needed) {
      refuse(
        `tensor "${name}" needs ${needed} bytes for ${dtype}[${
          shape.join(", ")
        }], its offsets give ${offsets[1] - offsets[0]}`,
      );
    }
    return { name, dtype, shape, start: offsets[0], end: offsets[1] };
  });
  let at = 0;
  for (const { name, start, end } of [...all].sort((a, b) => a.start - b.start || a.end - b.end)) {
    if (start !== at) refuse(`tensor "${name}" starts at byte ${start}, expected ${at}`);
    at = end;
  }
  if (at !== dataBytes) refuse(`the tensors take ${at} bytes, the file holds ${dataBytes}`);
  return function* (data) {
    for (const { name, dtype, shape, start, end } of all) {
      yield [name, { dtype, shape, bytes: data.subarray(start, end) }];
    }
  };
}

function wholeNumbers(value: unknown): number[] | undefined {
  if (!Array.isArray(value)) return undefined;
  return value.every((x) => Number.isSafeInteger(x) && x >= 0) ? value : undefined;
}
