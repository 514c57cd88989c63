// Event files as TensorBoard reads them: records with masked CRC-32C sums (TFRecord), each an Event
// message of tensorflow/core/util/event.proto. Scalars only.

import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";

/** The scalars of one step. */
export interface Step {
  /** Seconds since 1970. */
  timeS: number;
  step: number;
  scalars: [tag: string, value: number][];
}

/** First record of every file: which format the others have. */
export function versionRecord(timeS: number): Uint8Array {
  const event = new BinaryWriter();
  event.tag(1, WireType.Bit64).double(timeS);
  event.tag(3, WireType.LengthDelimited).string("brain.Event:2");
  return record(event.finish());
}

export function stepRecord({ timeS, step, scalars }: Step): Uint8Array {
  const event = new BinaryWriter();
  event.tag(1, WireType.Bit64).double(timeS);
  event.tag(2, WireType.Varint).int64(step);
  event.tag(5, WireType.LengthDelimited).fork(); // summary
  for (const [tag, value] of scalars) {
    event.tag(1, WireType.LengthDelimited).fork();
    event.tag(1, WireType.LengthDelimited).string(tag);
    event.tag(2, WireType.Bit32).float(Math.fround(value)); // simple_value
    event.join();
  }
  event.join();
  return record(event.finish());
}

/** Length, sum of the length, data, sum of the data; little endian. */
function record(data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(12 + data.length + 4);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(data.length), true);
  view.setUint32(8, masked(crc32c(bytes.subarray(0, 8))), true);
  bytes.set(data, 12);
  view.setUint32(12 + data.length, masked(crc32c(data)), true);
  return bytes;
}

/** TFRecord's mask, so that a sum over data that holds sums stays a good one. */
const masked = (crc: number) => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0x82f63b78 : byte >>> 1;
  return byte;
});

/** Castagnoli's CRC-32, which node:zlib does not have. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}
