// The bytes of event files, against what TensorBoard's own writer makes of the same events:
//
//   from tensorboard.compat.proto.event_pb2 import Event
//   from tensorboard.compat.proto.summary_pb2 import Summary
//   from tensorboard.summary.writer.record_writer import RecordWriter
//
// (version 2.21.0; Event(...).SerializeToString() given to RecordWriter.write).

import { expect, test } from "vitest";
import { crc32c, stepRecord, versionRecord } from "./tensorboard.ts";

const hex = (bytes: Uint8Array) =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

test("versionRecord() is that of TensorBoard's writer", () => {
  // Event(wall_time=1767225600.0, file_version="brain.Event:2")
  expect(hex(versionRecord(1767225600))).toBe(
    "1800000000000000a37f4b2209000000406e55da411a0d627261696e2e4576656e743a32c3486dfc",
  );
});

test("stepRecord() is that of TensorBoard's writer, for large steps and nan too", () => {
  // Event(wall_time=1767225602.5, step=3000000000, summary=Summary(value=[
  //   Summary.Value(tag="rewards", simple_value=1.5),
  //   Summary.Value(tag="phase/rollout", simple_value=float("nan"))]))
  const scalars: [string, number][] = [["rewards", 1.5], ["phase/rollout", NaN]];
  expect(hex(stepRecord({ timeS: 1767225602.5, step: 3_000_000_000, scalars }))).toBe(
    "3700000000000000e7e8ca59090000a0406e55da411080bcc1960b2a260a0e0a07726577617264731500" +
      "00c03f0a140a0d70686173652f726f6c6c6f7574150000c07f9fbbcfb3",
  );
});

test("crc32c() has the check value of RFC 3720", () => {
  expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa); // B.4: 32 bytes of zeroes
});
