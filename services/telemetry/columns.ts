// Columns that grow row by row and are written as blocks of ClickHouse's Native format: what the engine
// reads almost without work. A block is
//
//   columns varint | rows varint | per column: name, type, data
//
// Bytes are copied from a request to a column without becoming texts in between.

/** Bytes that grow at their end. */
export class Growing {
  bytes: Uint8Array;
  view: DataView;
  at = 0;

  constructor(room = 1024) {
    this.bytes = new Uint8Array(room);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Makes room; `bytes` may be another array afterwards. */
  reserve(more: number): void {
    if (this.at + more <= this.bytes.length) return;
    const bytes = new Uint8Array(Math.max(this.bytes.length * 2, this.at + more));
    bytes.set(this.bytes.subarray(0, this.at));
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer);
  }

  varint(value: number): void {
    this.reserve(10);
    if (value < 128) {
      this.bytes[this.at++] = value;
      return;
    }
    while (value >= 128) {
      this.bytes[this.at++] = value % 128 + 128;
      value = Math.floor(value / 128);
    }
    this.bytes[this.at++] = value;
  }

  uint64(low: number, high: number): void {
    this.reserve(8);
    this.view.setUint32(this.at, low, true);
    this.view.setUint32(this.at + 4, high, true);
    this.at += 8;
  }

  copy(from: Uint8Array, start = 0, end = from.length): void {
    this.reserve(end - start);
    const { bytes } = this;
    let to = this.at;
    if (end - start > 200) bytes.set(from.subarray(start, end), to), to += end - start;
    else while (start < end) bytes[to++] = from[start++];
    this.at = to;
  }

  /** A String: its length and its bytes. */
  text(text: string): void {
    const { length } = text;
    this.reserve(length + 5);
    if (length < 128) {
      let to = this.at + 1;
      let i = 0;
      for (let code; i < length && (code = text.charCodeAt(i)) < 128; i++) this.bytes[to++] = code;
      if (i === length) {
        this.bytes[this.at] = length;
        this.at = to;
        return;
      }
    }
    const encoded = encoder.encode(text);
    this.varint(encoded.length);
    this.copy(encoded);
  }

  get written(): Uint8Array {
    return this.bytes.subarray(0, this.at);
  }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What a block is made of. `mark` and `reset` take back the rows of a request that is not taken. */
export abstract class Column {
  rows = 0;
  protected markedRows = 0;
  constructor(readonly type: string) {}

  mark(): void {
    this.markedRows = this.rows;
  }
  reset(): void {
    this.rows = this.markedRows;
  }
  /** No rows; the room stays for the next ones. */
  clear(): void {
    this.rows = 0;
  }
  /** What stands once before the data. */
  prefix(_out: Growing): void {}
  abstract data(out: Growing): void;
}

/** String. */
export class Strings extends Column {
  readonly #bytes = new Growing();
  #marked = 0;

  constructor() {
    super("String");
  }
  /** Returns whether all of it is ASCII. */
  put(from: Uint8Array, start: number, end: number): boolean {
    const length = end - start;
    if (length >= 128) {
      this.#bytes.varint(length);
      this.#bytes.copy(from, start, end);
      this.rows++;
      return false; // not looked at
    }
    this.#bytes.reserve(length + 1);
    const { bytes } = this.#bytes;
    let to = this.#bytes.at;
    let all = 0;
    bytes[to++] = length;
    while (start < end) all |= bytes[to++] = from[start++];
    this.#bytes.at = to;
    this.rows++;
    return all < 128;
  }
  /** Decimal digits of a whole number below 2^32. */
  putDigits(value: number): void {
    let digits = 1;
    for (let rest = value; rest >= 10; rest = Math.trunc(rest / 10)) digits++;
    this.#bytes.reserve(digits + 1);
    const { bytes } = this.#bytes;
    let to = this.#bytes.at;
    bytes[to] = digits;
    this.#bytes.at = to += digits + 1;
    for (; digits > 0; digits--) {
      const rest = Math.trunc(value / 10);
      bytes[--to] = 48 + value - 10 * rest;
      value = rest;
    }
    this.rows++;
  }
  putText(text: string): void {
    this.#bytes.text(text);
    this.rows++;
  }
  /** Lower-case hex of the bytes, as ids are written. */
  putHex(from: Uint8Array, start: number, end: number): void {
    this.#bytes.varint((end - start) * 2);
    this.#bytes.reserve((end - start) * 2);
    const { bytes } = this.#bytes;
    let to = this.#bytes.at;
    for (; start < end; start++) {
      bytes[to++] = hexDigits[from[start] >> 4];
      bytes[to++] = hexDigits[from[start] & 15];
    }
    this.#bytes.at = to;
    this.rows++;
  }
  /** Rows that were written already, as this column's bytes. */
  putWritten(bytes: Uint8Array, end: number, rows: number): void {
    this.#bytes.copy(bytes, 0, end);
    this.rows += rows;
  }
  override mark(): void {
    super.mark();
    this.#marked = this.#bytes.at;
  }
  override reset(): void {
    super.reset();
    this.#bytes.at = this.#marked;
  }
  override clear(): void {
    super.clear();
    this.#bytes.at = 0;
  }
  data(out: Growing): void {
    out.copy(this.#bytes.written);
  }
}

const hexDigits = encoder.encode("0123456789abcdef");

/** Any type of eight bytes: UInt64, Float64, DateTime64. */
export class Words extends Column {
  #halves = new Uint32Array(512);
  #doubles = new Float64Array(this.#halves.buffer);
  #bigints = new BigUint64Array(this.#halves.buffer);

  #more(rows: number): void {
    const halves = new Uint32Array(Math.max(this.#halves.length * 2, (this.rows + rows) * 2));
    halves.set(this.#halves.subarray(0, this.rows * 2));
    this.#halves = halves;
    this.#doubles = new Float64Array(halves.buffer);
    this.#bigints = new BigUint64Array(halves.buffer);
  }
  put(low: number, high: number): void {
    if (this.rows === this.#doubles.length) this.#more(1);
    const at = this.rows++ * 2;
    this.#halves[at] = low;
    this.#halves[at + 1] = high;
  }
  putDouble(value: number): void {
    if (this.rows === this.#doubles.length) this.#more(1);
    this.#doubles[this.rows++] = Number.isNaN(value) ? NaN : value; // one NaN
  }
  putBigint(value: bigint): void {
    if (this.rows === this.#doubles.length) this.#more(1);
    this.#bigints[this.rows++] = BigInt.asUintN(64, value);
  }
  /** A whole number from 0 to 2^53. */
  putWhole(value: number): void {
    if (value < 2 ** 32) this.put(value, 0);
    else this.put(value % 2 ** 32, Math.floor(value / 2 ** 32));
  }
  /** The last row `more` times again. */
  repeat(more: number): void {
    if (this.rows + more > this.#doubles.length) this.#more(more);
    this.#bigints.fill(this.#bigints[this.rows - 1], this.rows, this.rows += more);
  }
  data(out: Growing): void {
    out.copy(new Uint8Array(this.#halves.buffer, 0, this.rows * 8));
  }
}

/** LowCardinality(String): every text once, and for each row which. */
export class Dictionary extends Column {
  readonly #texts = new Growing(); // as Strings, one after the other
  #starts = new Uint32Array(64); // of a text's own bytes
  #ends = new Uint32Array(64);
  #keys = 0;
  #slots = new Int32Array(128).fill(-1); // open addressing
  #index = new Uint32Array(256);
  readonly #known = new Map<string, number>();

  constructor() {
    super("LowCardinality(String)");
  }
  put(from: Uint8Array, start: number, end: number): void {
    this.putKey(this.key(from, start, end));
  }
  putText(text: string): void {
    this.putKey(this.keyOfText(text));
  }
  putKey(key: number): void {
    if (this.rows === this.#index.length) this.#index = longer(this.#index);
    this.#index[this.rows++] = key;
  }
  /** The last row `more` times again. */
  repeat(more: number): void {
    const key = this.#index[this.rows - 1];
    for (let i = 0; i < more; i++) this.putKey(key);
  }
  keyOfText(text: string): number {
    let key = this.#known.get(text);
    if (key === undefined) {
      const bytes = encoder.encode(text);
      this.#known.set(text, key = this.key(bytes, 0, bytes.length));
    }
    return key;
  }
  key(from: Uint8Array, start: number, end: number): number {
    let hash = 0x811c9dc5;
    for (let at = start; at < end; at++) hash = Math.imul(hash ^ from[at], 0x01000193);
    const mask = this.#slots.length - 1;
    for (let slot = (hash ^ hash >>> 15) & mask;; slot = slot + 1 & mask) {
      const key = this.#slots[slot];
      if (key < 0) return this.#add(from, start, end, slot);
      if (this.#same(key, from, start, end)) return key;
    }
  }
  #same(key: number, from: Uint8Array, start: number, end: number): boolean {
    let own = this.#starts[key];
    if (this.#ends[key] - own !== end - start) return false;
    const { bytes } = this.#texts;
    while (start < end) if (bytes[own++] !== from[start++]) return false;
    return true;
  }
  #add(from: Uint8Array, start: number, end: number, slot: number): number {
    if (this.#keys === this.#starts.length) {
      this.#starts = longer(this.#starts);
      this.#ends = longer(this.#ends);
    }
    const key = this.#keys++;
    this.#texts.varint(end - start);
    this.#starts[key] = this.#texts.at;
    this.#texts.copy(from, start, end);
    this.#ends[key] = this.#texts.at;
    this.#slots[slot] = key;
    if (this.#keys * 2 > this.#slots.length) this.#rehash();
    return key;
  }
  #rehash(): void {
    this.#slots = new Int32Array(this.#slots.length * 2).fill(-1);
    const mask = this.#slots.length - 1;
    const { bytes } = this.#texts;
    for (let key = 0; key < this.#keys; key++) {
      let hash = 0x811c9dc5;
      for (let at = this.#starts[key]; at < this.#ends[key]; at++) {
        hash = Math.imul(hash ^ bytes[at], 0x01000193);
      }
      let slot = (hash ^ hash >>> 15) & mask;
      while (this.#slots[slot] >= 0) slot = slot + 1 & mask;
      this.#slots[slot] = key;
    }
  }
  override clear(): void {
    super.clear();
    this.#texts.at = 0;
    this.#keys = 0;
    this.#slots.fill(-1);
    this.#known.clear();
  }
  override prefix(out: Growing): void {
    out.uint64(1, 0);
  }
  data(out: Growing): void {
    if (this.rows === 0) return;
    const width = this.#keys <= 256 ? 0 : this.#keys <= 65536 ? 1 : 2; // indexes of 1, 2 or 4 bytes
    out.uint64(0x600 | width, 0); // the block brings its own keys
    out.uint64(this.#keys, 0);
    out.copy(this.#texts.written);
    out.uint64(this.rows, 0);
    const index = this.#index.subarray(0, this.rows);
    if (width === 0) out.copy(Uint8Array.from(index));
    else if (width === 1) out.copy(new Uint8Array(Uint16Array.from(index).buffer));
    else out.copy(new Uint8Array(index.slice().buffer));
  }
}

function longer(array: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const twice = new Uint32Array(array.length * 2);
  twice.set(array);
  return twice;
}

/** Array of what another column holds: its rows are put there, then `end` says that they are one. */
export class Lists<C extends Column> extends Column {
  readonly #ends = new Words("UInt64");
  constructor(readonly items: C) {
    super(`Array(${items.type})`);
  }
  end(): void {
    this.#ends.putWhole(this.items.rows);
    this.rows++;
  }
  override mark(): void {
    super.mark();
    this.#ends.mark();
    this.items.mark();
  }
  override reset(): void {
    super.reset();
    this.#ends.reset();
    this.items.reset();
  }
  override clear(): void {
    super.clear();
    this.#ends.clear();
    this.items.clear();
  }
  override prefix(out: Growing): void {
    this.items.prefix(out);
  }
  data(out: Growing): void {
    this.#ends.data(out);
    this.items.data(out);
  }
}

/** Map(LowCardinality(String), String): pairs are put, then `end` says that they are one. */
export class Maps extends Column {
  readonly #ends = new Words("UInt64");
  readonly keys = new Dictionary();
  readonly values = new Strings();

  constructor() {
    super("Map(LowCardinality(String), String)");
  }
  end(): void {
    this.#ends.putWhole(this.keys.rows);
    this.rows++;
  }
  override mark(): void {
    for (const part of [this.#ends, this.keys, this.values]) part.mark();
    super.mark();
  }
  override reset(): void {
    for (const part of [this.#ends, this.keys, this.values]) part.reset();
    super.reset();
  }
  override clear(): void {
    for (const part of [this.#ends, this.keys, this.values]) part.clear();
    super.clear();
  }
  override prefix(out: Growing): void {
    this.keys.prefix(out);
  }
  data(out: Growing): void {
    for (const part of [this.#ends, this.keys, this.values]) part.data(out);
  }
}

/** A table's columns by name, in the order in which they are inserted. */
export abstract class Block {
  protected abstract readonly columns: readonly (readonly [name: string, column: Column])[];

  #lastBytes = 0;

  get rows(): number {
    return this.columns[0][1].rows;
  }
  /** Names and types, as the table function file() wants them. */
  get structure(): string {
    return this.columns.map(([name, { type }]) => `\`${name}\` ${type}`).join(", ");
  }
  mark(): void {
    for (const [, column] of this.columns) column.mark();
  }
  reset(): void {
    for (const [, column] of this.columns) column.reset();
  }
  clear(): void {
    for (const [, column] of this.columns) column.clear();
  }
  /** The block in Native. */
  bytes(): Uint8Array {
    const out = new Growing(this.#lastBytes + (this.#lastBytes >> 2) + 1024);
    out.varint(this.columns.length);
    out.varint(this.rows);
    for (const [name, column] of this.columns) {
      out.text(name);
      out.text(column.type);
      column.prefix(out);
      column.data(out);
    }
    this.#lastBytes = out.at;
    return out.written;
  }
}

/** Reads blocks of the columns above. */
export class Native {
  at = 0;
  readonly view: DataView;
  constructor(readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  get atEnd(): boolean {
    return this.at >= this.bytes.length;
  }
  head(): { columns: number; rows: number } {
    return { columns: this.varint(), rows: this.varint() };
  }
  column(): { name: string; type: string } {
    return { name: this.text(), type: this.text() };
  }
  varint(): number {
    let value = 0;
    for (let scale = 1;; scale *= 128) {
      const byte = this.bytes[this.at++];
      value += (byte & 127) * scale;
      if (!(byte >= 128)) return value;
    }
  }
  text(): string {
    const length = this.varint();
    this.at += length;
    return decoder.decode(this.bytes.subarray(this.at - length, this.at));
  }
  /** Whole numbers below 2^53. */
  words(rows: number): Float64Array {
    const words = Float64Array.from(
      { length: rows },
      (_, i) =>
        this.view.getUint32(this.at + 8 * i, true) +
        this.view.getUint32(this.at + 8 * i + 4, true) * 2 ** 32,
    );
    this.at += 8 * rows;
    return words;
  }
  dictionary(): { keys: string[]; index: Uint32Array } {
    this.at += 8; // version
    const width = 1 << this.view.getUint8(this.at);
    const keys = this.view.getUint32(this.at + 8, true);
    this.at += 16;
    const texts = Array.from({ length: keys }, () => this.text());
    const rows = this.view.getUint32(this.at, true);
    this.at += 8;
    const index = new Uint32Array(rows);
    for (let i = 0; i < rows; i++) {
      index[i] = width === 1
        ? this.bytes[this.at + i]
        : width === 2
        ? this.view.getUint16(this.at + 2 * i, true)
        : this.view.getUint32(this.at + 4 * i, true);
    }
    this.at += width * rows;
    return { keys: texts, index };
  }
}
