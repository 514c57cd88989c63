// The TypeScript half of the golden bytes; gpu-sim/tests/golden has the C++ half.
import { fromBinary, fromJsonString, toBinary, toJson } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { presentGoldens, readGoldens, registry } from "./golden_messages.ts";

const goldens = readGoldens();

describe("golden bytes", () => {
  test("every message of every package has its fully populated instance", () => {
    const recorded = new Set(goldens.map(({ type, hex }) => `${type} ${hex}`));
    const missing = presentGoldens().filter(({ type, hex }) => !recorded.has(`${type} ${hex}`));
    expect(
      missing.map(({ type }) => type),
      "add them: deno run -A test/contract/golden_messages.ts --write",
    ).toEqual([]);
  });

  test.each(goldens)("$type is read and written byte for byte", ({ type, hex, json }) => {
    const desc = registry.getMessage(type)!;
    const bytes = Uint8Array.from(Buffer.from(hex, "hex"));
    const read = fromBinary(desc, bytes);
    expect(Buffer.from(toBinary(desc, read)).toString("hex")).toBe(hex);
    expect(toJson(desc, read)).toEqual(JSON.parse(json));
    expect(Buffer.from(toBinary(desc, fromJsonString(desc, json))).toString("hex")).toBe(hex);
    // Everything in the bytes has a name in the schema.
    expect(read.$unknown ?? []).toEqual([]);
  });
});
