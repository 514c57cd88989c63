// Native, ClickHouse's binary format, as a client asks for it that names its protocol version
// (client_protocol_version; clickhouse-go and with it Grafana do). The embedded engine only writes
// version 0, a sequence of
//
//   columns varint | rows varint | per column: name, type, data
//
// From version 1 on a block begins with its information, and from 54454 on a byte between a column's
// type and its data says that the data is serialised in no custom way. Where a column ends follows from
// its type.

import { Buffer } from "node:buffer";

/** The answer of version 0 as a client of `revision` reads it. Throws for a type it does not know. */
export function nativeFor(revision: number, answer: Uint8Array): Uint8Array {
  if (revision === 0) return answer;
  const from = new Reader(answer);
  const out: Uint8Array[] = [];
  while (!from.atEnd) {
    // Fields 1 (is_overflows = false) and 2 (bucket_num = -1), and the end of the fields.
    out.push(Uint8Array.of(1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0));
    const block = from.at;
    const columns = from.varint();
    const rows = from.varint();
    out.push(answer.subarray(block, from.at));
    for (let i = 0; i < columns; i++) {
      const start = from.at;
      from.skip(from.varint()); // name
      const type = parseType(from.text());
      const typeEnd = from.at;
      if (rows > 0) {
        skipPrefix(from, type);
        skipData(from, type, rows);
      }
      out.push(answer.subarray(start, typeEnd));
      if (revision >= 54454) out.push(Uint8Array.of(0));
      out.push(answer.subarray(typeEnd, from.at));
    }
  }
  return Buffer.concat(out);
}

interface Type {
  name: string;
  arguments: string[];
}

/** `Map(String, Array(UInt8))` is Map with the arguments String and Array(UInt8). */
export function parseType(text: string): Type {
  const open = text.indexOf("(");
  if (open < 0) return { name: text, arguments: [] };
  const inside = text.slice(open + 1, -1);
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let at = 0; at < inside.length; at++) {
    const char = inside[at];
    if (char === "'" || char === "`") {
      for (at++; inside[at] !== char && at < inside.length; at++) if (inside[at] === "\\") at++;
    } else if (char === "(") depth++;
    else if (char === ")") depth--;
    else if (char === "," && depth === 0) {
      parts.push(inside.slice(start, at).trim());
      start = at + 1;
    }
  }
  parts.push(inside.slice(start).trim());
  return { name: text.slice(0, open), arguments: parts };
}

const fixedBytes: Record<string, number> = {
  UInt8: 1,
  UInt16: 2,
  UInt32: 4,
  UInt64: 8,
  UInt128: 16,
  UInt256: 32,
  Int8: 1,
  Int16: 2,
  Int32: 4,
  Int64: 8,
  Int128: 16,
  Int256: 32,
  Float32: 4,
  Float64: 8,
  BFloat16: 2,
  Bool: 1,
  Date: 2,
  Date32: 4,
  DateTime: 4,
  DateTime64: 8,
  Time: 4,
  Time64: 8,
  UUID: 16,
  IPv4: 4,
  IPv6: 16,
  Enum8: 1,
  Enum16: 2,
  Decimal32: 4,
  Decimal64: 8,
  Decimal128: 16,
  Decimal256: 32,
  Nothing: 1,
};

/** Bytes of a value, where they are the same for all. */
function bytesOf({ name, arguments: inner }: Type): number | undefined {
  if (name === "FixedString") return Number(inner[0]);
  if (name === "Decimal") {
    const digits = Number(inner[0]);
    return digits <= 9 ? 4 : digits <= 18 ? 8 : digits <= 38 ? 16 : 32;
  }
  if (name.startsWith("Interval")) return 8;
  return fixedBytes[name];
}

/** The types a type is made of. A named element of a Tuple or Nested is `name Type`. */
function partsOf({ name, arguments: inner }: Type): Type[] {
  switch (name) {
    case "Nullable":
    case "Array":
    case "LowCardinality":
      return [parseType(inner[0])];
    case "SimpleAggregateFunction":
      return [parseType(inner[1])];
    case "Map":
      return inner.map(parseType);
    case "Tuple":
    case "Nested":
      return inner.map((part) =>
        parseType(part.replace(/^(`(?:[^`\\]|\\.)*`|[\w.]+) +(?=\w)/, ""))
      );
    case "Point":
      return [parseType("Float64"), parseType("Float64")];
    default:
      return [];
  }
}

/** What stands once before the data of a column: the version of each dictionary in it. */
function skipPrefix(from: Reader, type: Type): void {
  if (type.name === "LowCardinality") from.skip(8);
  else for (const part of partsOf(type)) skipPrefix(from, part);
}

function skipData(from: Reader, type: Type, rows: number): void {
  if (rows === 0) return;
  const bytes = bytesOf(type);
  if (bytes !== undefined) return from.skip(rows * bytes);
  const parts = partsOf(type);
  switch (type.name) {
    case "String":
      for (let i = 0; i < rows; i++) from.skip(from.varint());
      return;
    case "Nullable":
      from.skip(rows); // which are null
      return skipData(from, parts[0], rows);
    case "Array":
    case "Map":
    case "Nested": {
      from.skip((rows - 1) * 8); // the ends of the rows
      const elements = from.uint64();
      for (const part of parts) skipData(from, part, elements);
      return;
    }
    case "Tuple":
    case "Point":
      if (parts.length === 0) from.skip(rows);
      for (const part of parts) skipData(from, part, rows);
      return;
    case "SimpleAggregateFunction":
      return skipData(from, parts[0], rows);
    case "LowCardinality": {
      const flags = from.uint64();
      const keys = from.uint64();
      const key = parts[0].name === "Nullable" ? partsOf(parts[0])[0] : parts[0];
      skipData(from, key, keys);
      return from.skip(from.uint64() * 2 ** (flags & 0xff)); // indexes of 1, 2, 4 or 8 bytes
    }
    default:
      throw new Error(`type ${type.name} cannot be sent in Native to a client of this version`);
  }
}

class Reader {
  at = 0;
  #view: DataView;

  constructor(readonly bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get atEnd(): boolean {
    return this.at >= this.bytes.length;
  }

  skip(bytes: number): void {
    this.at += bytes;
    if (this.at > this.bytes.length) throw new Error("the answer is cut off");
  }

  varint(): number {
    let value = 0;
    for (let shift = 1;; shift *= 128) {
      const byte = this.bytes[this.at];
      this.skip(1);
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  }

  uint64(): number {
    this.skip(8);
    return this.#view.getUint32(this.at - 8, true) +
      this.#view.getUint32(this.at - 4, true) * 2 ** 32;
  }

  text(): string {
    const length = this.varint();
    this.skip(length);
    return new TextDecoder().decode(this.bytes.subarray(this.at - length, this.at));
  }
}
