// Round trips, files of other programs, and damage: every cut and every flipped bit must be refused.

import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import {
  arange,
  fromArray,
  Generator,
  liveTensors,
  ones,
  randn,
  scope,
  TorchError,
} from "./mod.ts";
import { decode, encode, sha256 } from "./safetensors.ts";

function sample() {
  using g = new Generator(1n);
  return new Map([
    ["weight", randn([3, 2], g)],
    ["count", arange(4)],
    ["mask", fromArray([1, 0], [2], { dtype: "bool" })],
    ["empty", ones([0, 5])],
    ["scalar", fromArray([1 / 3], [], { dtype: "float64" })],
    ["bytes", fromArray(new Uint8Array([7, 8, 9]), [3])],
    ["Größe", fromArray(new Int32Array([-1]), [1])],
  ]);
}

test("decode(encode()) gives names, dtypes, shapes, bits and metadata back", () => {
  using _s = scope();
  const tensors = sample();
  const file = encode(tensors, { run: "a", note: 'quotes " and ü' });
  const { tensors: back, metadata } = decode(file);
  expect([...back.keys()].sort()).toEqual([...tensors.keys()].sort());
  for (const [name, t] of tensors) {
    expect(`${back.get(name)}`).toBe(`${t}`);
    expect(back.get(name)!.bytes()).toEqual(t.bytes());
  }
  expect(metadata).toEqual({ run: "a", note: 'quotes " and ü' });
  expect(encode(tensors, { run: "a", note: 'quotes " and ü' })).toEqual(file);
});

test("the layout is the public format's: readable without this module", () => {
  using _s = scope();
  const file = encode(new Map([["x", fromArray([1.5, -2], [2])]]));
  const length = Number(new DataView(file.buffer).getBigUint64(0, true));
  const header = JSON.parse(Buffer.from(file.subarray(8, 8 + length)).toString());
  expect(header.x).toEqual({ dtype: "F32", shape: [2], data_offsets: [0, 8] });
  expect(length % 8).toBe(0);
  const [begin] = header.x.data_offsets;
  const view = new DataView(file.buffer, 8 + length + begin);
  expect([view.getFloat32(0, true), view.getFloat32(4, true)]).toEqual([1.5, -2]);
});

test("every cut and every flipped bit is refused and leaves no tensor behind", () => {
  using _s = scope();
  const file = encode(new Map([["a", arange(3)], ["b", ones([2])]]), { k: "v" });
  const before = liveTensors();
  for (let end = 0; end < file.length; end++) {
    expect(() => decode(file.subarray(0, end))).toThrow(TorchError);
  }
  for (let bit = 0; bit < file.length * 8; bit++) {
    const damaged = file.slice();
    damaged[bit >> 3] ^= 1 << (bit & 7);
    expect(() => decode(damaged)).toThrow(TorchError);
  }
  const longer = new Uint8Array(file.length + 1);
  longer.set(file);
  expect(() => decode(longer)).toThrow(/the tensors take/);
  expect(liveTensors()).toBe(before);
});

test("damage to data names the tensor", () => {
  using _s = scope();
  const file = encode(new Map([["a", arange(3)], ["b", ones([2])]]));
  file[file.length - 1] ^= 1;
  expect(() => decode(file)).toThrow(/tensor "b" is damaged/);
});

/** A file whose header says what it is told to, as another program might write it. */
function foreign(header: unknown, data = new Uint8Array(8)): Uint8Array {
  const text = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const file = Buffer.alloc(8 + text.length + data.length);
  file.writeBigUInt64LE(BigInt(text.length));
  text.copy(file, 8);
  file.set(data, 8 + text.length);
  return file;
}

test("files without hashes are read only when that is allowed, and still checked", () => {
  using _s = scope();
  const f32 = { dtype: "F32", shape: [2], data_offsets: [0, 8] };
  const allowed = { requireHashes: false };
  expect(() => decode(foreign({ x: f32 }))).toThrow(/no SHA-256/);
  expect(decode(foreign({ x: f32 }), allowed).tensors.get("x")!.shape).toEqual([2]);
  const refused: [unknown, RegExp][] = [
    [{ x: { ...f32, dtype: "BF16" } }, /dtype "BF16"; known/],
    [{ x: { ...f32, shape: [3] } }, /needs 12 bytes for float32\[3\], its offsets give 8/],
    [{ x: { ...f32, shape: [-2] } }, /no valid shape/],
    [{ x: { ...f32, shape: "2" } }, /no valid shape/],
    [{ x: { ...f32, data_offsets: [0] } }, /no valid offsets/],
    [{ x: { dtype: "F32", shape: [1], data_offsets: [4, 8] } }, /starts at byte 4, expected 0/],
    [{ x: { dtype: "F32", shape: [1], data_offsets: [0, 4] } }, /take 4 bytes, the file holds 8/],
    [{ x: f32, y: f32 }, /starts at byte 0, expected 8/],
    [{ x: null }, /no description/],
    [{ x: f32, __metadata__: { k: 1 } }, /__metadata__/],
    [[], /not a JSON object/],
    ["{", /not JSON/],
  ];
  for (const [header, message] of refused) {
    expect(() => decode(foreign(header), allowed)).toThrow(message);
  }
  const huge = foreign({ x: f32 });
  huge.fill(0xff, 0, 8);
  expect(() => decode(huge, allowed)).toThrow(/claims 18446744073709551615 bytes/);
});

test("encode() refuses names that the format or the hashes need", () => {
  using _s = scope();
  expect(() => encode(new Map([["__metadata__", ones([1])]]))).toThrow(/reserved/);
  expect(() => encode(new Map(), { "sdpg.sha256.header": "" })).toThrow(/reserved/);
  expect(sha256(new TextEncoder().encode("abc"))).toBe(
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", // FIPS 180-2
  );
});
