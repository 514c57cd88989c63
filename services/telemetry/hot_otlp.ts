// What is sent most, read by hand: protobuf requests of spans, and of the record's iterations. The bytes
// go from the request to the columns of a block (blocks.ts) without a message in between.
//
// Only what is plain is read here: known fields, each once, of the type the protocol says, and values that
// the tables take as they are. Anything else, right or wrong, makes the readers give up: they take back
// what they put and return false, and the request is read with the protocol's schemas (otlp.ts), which
// also say what is wrong with it. hot_otlp.test.ts compares the two.

import { isRunId } from "@sdpg/common/home.ts";
import { PreparedMap, type ScalarBlock, type SpanBlock, spanKinds, statusCodes } from "./blocks.ts";
import type { Block, Maps } from "./columns.ts";
import { keptDays } from "./otel_rows.ts";
import { scalarLimits } from "./rows.ts";

/** Puts the spans of an ExportTraceServiceRequest; false when it is to be read in another way. */
export function putSpans(body: Uint8Array, block: SpanBlock, nowMs: number): boolean {
  return attempt(block, () => new SpanReader(body, block, nowMs).request());
}

/** The same for a request in JSON, as our own services send it: spans without events, links and status. */
export function putJsonSpans(body: Uint8Array, block: SpanBlock, nowMs: number): boolean {
  return attempt(block, () => {
    let request: unknown;
    try {
      request = JSON.parse(strict.decode(body));
    } catch {
      throw givenUp;
    }
    jsonSpans(request, block, nowMs);
  });
}

/** Puts the scalars of an ExportLogsServiceRequest that has nothing but events rl.iteration. */
export function putIterations(body: Uint8Array, block: ScalarBlock): boolean {
  return attempt(block, () => new IterationReader(body, block).request());
}

class GivenUp extends Error {}
const givenUp = new GivenUp("not plain");

/** Reads into a block; one who gives up leaves nothing there. */
function attempt(block: Block, read: () => void): boolean {
  block.mark();
  try {
    read();
    return true;
  } catch (error) {
    if (!(error instanceof GivenUp)) throw error;
    block.reset();
    return false;
  }
}

/** Fields of messages: tags as numbers (number << 3 | wire type), values in place. */
class Wire {
  at = 0;
  // Of the value that was read last.
  start = 0;
  end = 0;
  low = 0;
  high = 0;

  constructor(readonly bytes: Uint8Array) {}

  tag(): number {
    const { bytes } = this;
    const first = bytes[this.at++];
    if (first < 128) return first;
    const second = bytes[this.at++];
    if (second < 128) return (first & 127) | second << 7;
    throw givenUp;
  }

  /** A length and that many bytes, which end within `limit`: start and end. */
  slice(limit: number): void {
    let length = 0;
    for (let scale = 1;; scale *= 128) {
      const byte = this.bytes[this.at++];
      if (byte === undefined || scale > 2 ** 28) throw givenUp;
      length += (byte & 127) * scale;
      if (byte < 128) break;
    }
    this.start = this.at;
    this.at = this.end = this.start + length;
    if (this.end > limit) throw givenUp;
  }

  /** A varint of 64 bits: low and high. */
  varint(limit: number): void {
    const { bytes } = this;
    this.low = this.high = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.at >= limit) throw givenUp;
      const byte = bytes[this.at++];
      const bits = byte & 127;
      if (shift < 28) this.low |= bits << shift;
      else if (shift === 28) {
        this.low |= bits << 28;
        this.high = bits >>> 4;
      } else if (shift < 63) this.high |= bits << (shift - 32);
      else if (byte > 1) throw givenUp;
      else this.high |= byte << 31;
      if (byte < 128) {
        this.low >>>= 0;
        this.high >>>= 0;
        return;
      }
    }
    throw givenUp;
  }

  fixed64(limit: number): void {
    const { bytes, at } = this;
    if (at + 8 > limit) throw givenUp;
    this.start = at;
    this.low = (bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24) >>> 0;
    this.high = (bytes[at + 4] | bytes[at + 5] << 8 | bytes[at + 6] << 16 | bytes[at + 7] << 24) >>>
      0;
    this.at = at + 8;
  }

  double(limit: number): number {
    this.fixed64(limit);
    words[0] = this.low;
    words[1] = this.high;
    return doubles[0];
  }

  /** The same for a field that may come once: `seen` has a bit for each that came. */
  once(seen: number, bit: number): number {
    if (seen & bit) throw givenUp;
    return seen | bit;
  }

  /** Texts have to be UTF-8. */
  checkText(start: number, end: number): void {
    const { bytes } = this;
    for (let at = start; at < end; at++) {
      if (bytes[at] >= 128) {
        try {
          strict.decode(bytes.subarray(at, end));
        } catch {
          throw givenUp;
        }
        return;
      }
    }
  }

  textSlice(limit: number): void {
    this.slice(limit);
    this.checkText(this.start, this.end);
  }

  text(limit: number): string {
    this.textSlice(limit);
    return strict.decode(this.bytes.subarray(this.start, this.end));
  }

  isText(start: number, end: number, text: Uint8Array): boolean {
    if (end - start !== text.length) return false;
    for (let i = 0; i < text.length; i++) if (this.bytes[start + i] !== text[i]) return false;
    return true;
  }
}

const doubles = new Float64Array(1);
const words = new Uint32Array(doubles.buffer);
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();
const nothing: Uint8Array = new Uint8Array();

// Tags: the field's number and the wire type.
const varintOf = (field: number) => field << 3;
const fixed64Of = (field: number) => field << 3 | 1;
const bytesOf = (field: number) => field << 3 | 2;
const fixed32Of = (field: number) => field << 3 | 5;

class SpanReader {
  readonly #wire: Wire;
  readonly #block: SpanBlock;
  readonly #earliest: [low: number, high: number];
  readonly #latest: [low: number, high: number];
  /** Keys of the attributes of the map that is being read. */
  readonly #keys: number[] = [];
  readonly #kinds: number[];
  readonly #statuses: number[];

  constructor(body: Uint8Array, block: SpanBlock, nowMs: number) {
    this.#wire = new Wire(body);
    this.#block = block;
    const halves = (ms: number): [number, number] => {
      const ns = BigInt(ms) * 1_000_000n;
      return [Number(ns & 0xffffffffn), Number(ns >> 32n)];
    };
    this.#earliest = halves(nowMs - keptDays.traces * 86_400_000);
    this.#latest = halves(nowMs + 86_400_000);
    this.#kinds = spanKinds.map((text) => block.kind.keyOfText(text));
    this.#statuses = statusCodes.map((text) => block.status.keyOfText(text));
  }

  request(): void {
    const wire = this.#wire;
    const { length } = wire.bytes;
    while (wire.at < length) {
      if (wire.tag() !== bytesOf(1)) throw givenUp;
      wire.slice(length);
      this.#resourceSpans(wire.start, wire.end);
    }
  }

  #resourceSpans(start: number, end: number): void {
    const wire = this.#wire;
    const scopes: number[] = [];
    let resource: [number, number] | undefined;
    for (wire.at = start; wire.at < end;) {
      const tag = wire.tag();
      wire.slice(end);
      if (tag === bytesOf(2)) scopes.push(wire.start, wire.end);
      else if (tag === bytesOf(1) && resource === undefined) resource = [wire.start, wire.end];
      else if (tag === bytesOf(3)) wire.checkText(wire.start, wire.end); // schema_url: not kept
      else throw givenUp;
    }
    const attributes = new PreparedMap(this.#block.resource);
    const service = resource ? this.#resource(...resource, attributes) : nothing;
    for (let i = 0; i < scopes.length; i += 2) {
      this.#scopeSpans(scopes[i], scopes[i + 1], attributes, service);
    }
    wire.at = end;
  }

  /** Returns the service's name. */
  #resource(start: number, end: number, into: PreparedMap): Uint8Array {
    const wire = this.#wire;
    const keys: number[] = [];
    let service = nothing;
    for (wire.at = start; wire.at < end;) {
      const tag = wire.tag();
      if (tag === bytesOf(1)) {
        wire.slice(end);
        const inner = wire.end;
        this.#pair(wire.start, inner);
        const key = into.maps.keys.key(wire.bytes, this.#keyStart, this.#keyEnd);
        if (keys.includes(key)) throw givenUp;
        keys.push(key);
        const text = this.#valueWhole >= 0 ? String(this.#valueWhole) : this.#valueText;
        if (text === undefined) wire.checkText(this.#valueStart, this.#valueEnd);
        const value = text === undefined
          ? wire.bytes.subarray(this.#valueStart, this.#valueEnd)
          : encoder.encode(text);
        into.add(key, value);
        if (wire.isText(this.#keyStart, this.#keyEnd, serviceName)) service = value;
        wire.at = inner;
      } else if (tag === varintOf(2)) wire.varint(end); // dropped_attributes_count
      else throw givenUp;
    }
    return service;
  }

  #scopeSpans(start: number, end: number, resource: PreparedMap, service: Uint8Array): void {
    const wire = this.#wire;
    const spans: number[] = [];
    let name = nothing;
    let version = nothing;
    let seen = 0;
    for (wire.at = start; wire.at < end;) {
      const tag = wire.tag();
      wire.slice(end);
      const inner = wire.end;
      if (tag === bytesOf(2)) spans.push(wire.start, inner);
      else if (tag === bytesOf(3)) wire.checkText(wire.start, inner);
      else if (tag === bytesOf(1)) {
        seen = wire.once(seen, 1);
        for (wire.at = wire.start; wire.at < inner;) {
          const field = wire.tag();
          wire.textSlice(inner);
          if (field === bytesOf(1)) {
            seen = wire.once(seen, 2);
            name = wire.bytes.subarray(wire.start, wire.end);
          } else if (field === bytesOf(2)) {
            seen = wire.once(seen, 4);
            version = wire.bytes.subarray(wire.start, wire.end);
          } else throw givenUp;
        }
      } else throw givenUp;
      wire.at = inner;
    }
    const block = this.#block;
    const serviceKey = block.service.key(service, 0, service.length);
    for (let i = 0; i < spans.length; i += 2) {
      this.#span(spans[i], spans[i + 1]);
      block.service.putKey(serviceKey);
      resource.put();
      block.scopeName.put(name, 0, name.length);
      block.scopeVersion.put(version, 0, version.length);
    }
  }

  #span(start: number, end: number): void {
    const wire = this.#wire;
    const { bytes } = wire;
    const block = this.#block;
    let seen = 0;
    let traceId = -1;
    let spanId = -1;
    let parent = 0, parentEnd = 0;
    let state = 0, stateEnd = 0;
    let name = 0, nameEnd = 0;
    let message = 0, messageEnd = 0;
    let kind = 0;
    let status = 0;
    let fromLow = 0, fromHigh = 0, toLow = 0, toHigh = 0;
    this.#keys.length = 0;
    for (wire.at = start; wire.at < end;) {
      const tag = wire.tag();
      switch (tag) {
        case bytesOf(9): { // attributes
          wire.slice(end);
          const inner = wire.end;
          this.#pair(wire.start, inner);
          this.#putPair(block.attributes);
          wire.at = inner;
          break;
        }
        case bytesOf(1):
          seen = wire.once(seen, 1);
          wire.slice(end);
          if (wire.end - wire.start !== 16) throw givenUp;
          traceId = wire.start;
          break;
        case bytesOf(2):
          seen = wire.once(seen, 2);
          wire.slice(end);
          if (wire.end - wire.start !== 8) throw givenUp;
          spanId = wire.start;
          break;
        case bytesOf(3):
          seen = wire.once(seen, 4);
          wire.textSlice(end);
          state = wire.start, stateEnd = wire.end;
          break;
        case bytesOf(4):
          seen = wire.once(seen, 8);
          wire.slice(end);
          parent = wire.start, parentEnd = wire.end;
          if (parentEnd !== parent && parentEnd - parent !== 8) throw givenUp;
          break;
        case bytesOf(5):
          seen = wire.once(seen, 16);
          wire.textSlice(end);
          name = wire.start, nameEnd = wire.end;
          break;
        case varintOf(6):
          seen = wire.once(seen, 32);
          wire.varint(end);
          if (wire.high !== 0) throw givenUp;
          kind = wire.low < spanKinds.length ? wire.low : 0;
          break;
        case fixed64Of(7):
          seen = wire.once(seen, 64);
          wire.fixed64(end);
          fromLow = wire.low, fromHigh = wire.high;
          break;
        case fixed64Of(8):
          seen = wire.once(seen, 128);
          wire.fixed64(end);
          toLow = wire.low, toHigh = wire.high;
          break;
        case bytesOf(15): { // status
          seen = wire.once(seen, 256);
          wire.slice(end);
          const inner = wire.end;
          for (wire.at = wire.start; wire.at < inner;) {
            const field = wire.tag();
            if (field === bytesOf(2)) {
              seen = wire.once(seen, 512);
              wire.textSlice(inner);
              message = wire.start, messageEnd = wire.end;
            } else if (field === varintOf(3)) {
              seen = wire.once(seen, 1024);
              wire.varint(inner);
              if (wire.high !== 0) throw givenUp;
              status = wire.low < statusCodes.length ? wire.low : 0;
            } else throw givenUp;
          }
          break;
        }
        case varintOf(10): // dropped_attributes_count, _events_, _links_
        case varintOf(12):
        case varintOf(14):
          wire.varint(end);
          break;
        case fixed32Of(16): // flags
          if ((wire.at += 4) > end) throw givenUp;
          break;
        default:
          throw givenUp;
      }
    }
    if (traceId < 0 || spanId < 0 || isZero(bytes, traceId, 16) || isZero(bytes, spanId, 8)) {
      throw givenUp;
    }
    const [earliestLow, earliestHigh] = this.#earliest;
    const [latestLow, latestHigh] = this.#latest;
    if (isBefore(fromLow, fromHigh, earliestLow, earliestHigh)) throw givenUp;
    if (isBefore(latestLow, latestHigh, fromLow, fromHigh)) throw givenUp;
    if (isBefore(toLow, toHigh, fromLow, fromHigh)) throw givenUp;
    block.attributes.end();
    block.time.put(fromLow, fromHigh);
    block.traceId.putHex(bytes, traceId, traceId + 16);
    block.spanId.putHex(bytes, spanId, spanId + 8);
    block.parentSpanId.putHex(bytes, parent, parentEnd);
    block.traceState.put(bytes, state, stateEnd);
    block.name.put(bytes, name, nameEnd);
    block.kind.putKey(this.#kinds[kind]);
    block.duration.put(
      toLow - fromLow >>> 0,
      toHigh - fromHigh - (toLow < fromLow ? 1 : 0) >>> 0,
    );
    block.status.putKey(this.#statuses[status]);
    block.statusMessage.put(bytes, message, messageEnd);
    block.endLists();
  }

  // Of the attribute that was read last; its value stands in the request unless there is a text or
  // a whole number.
  #keyStart = 0;
  #keyEnd = 0;
  #valueStart = 0;
  #valueEnd = 0;
  #valueText: string | undefined;
  #valueWhole = -1;

  #pair(start: number, end: number): void {
    const wire = this.#wire;
    this.#keyStart =
      this.#keyEnd =
      this.#valueStart =
      this.#valueEnd =
        0;
    this.#valueText = undefined;
    this.#valueWhole = -1;
    let seen = 0;
    for (wire.at = start; wire.at < end;) {
      const tag = wire.tag();
      if (tag === bytesOf(1)) {
        seen = wire.once(seen, 1);
        wire.textSlice(end);
        this.#keyStart = wire.start, this.#keyEnd = wire.end;
      } else if (tag === bytesOf(2)) {
        seen = wire.once(seen, 2);
        wire.slice(end);
        const inner = wire.end;
        wire.at = wire.start;
        if (wire.at < inner) this.#value(inner);
        if (wire.at !== inner) throw givenUp;
      } else throw givenUp;
    }
  }

  /** Values as textOf (otel_rows.ts) writes them. */
  #value(end: number): void {
    const wire = this.#wire;
    switch (wire.tag()) {
      case bytesOf(1): // who uses it checks that it is a text
        wire.slice(end);
        this.#valueStart = wire.start, this.#valueEnd = wire.end;
        break;
      case varintOf(2):
        wire.varint(end);
        this.#valueText = wire.low || wire.high ? "true" : "false";
        break;
      case varintOf(3):
        wire.varint(end);
        if (wire.high === 0) this.#valueWhole = wire.low;
        else {this.#valueText = BigInt.asIntN(64, BigInt(wire.high) << 32n | BigInt(wire.low))
            .toString();}
        break;
      case fixed64Of(4):
        this.#valueText = String(wire.double(end));
        break;
      default:
        throw givenUp;
    }
  }

  #putPair(maps: Maps): void {
    const { bytes } = this.#wire;
    const key = maps.keys.key(bytes, this.#keyStart, this.#keyEnd);
    if (this.#keys.includes(key)) throw givenUp; // the last one counts: not plain
    this.#keys.push(key);
    maps.keys.putKey(key);
    if (this.#valueWhole >= 0) maps.values.putDigits(this.#valueWhole);
    else if (this.#valueText !== undefined) maps.values.putText(this.#valueText);
    else if (!maps.values.put(bytes, this.#valueStart, this.#valueEnd)) {
      this.#wire.checkText(this.#valueStart, this.#valueEnd);
    }
  }
}

const serviceName = encoder.encode("service.name");

function isZero(bytes: Uint8Array, start: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (bytes[start + i] !== 0) return false;
  return true;
}

const isBefore = (aLow: number, aHigh: number, bLow: number, bHigh: number) =>
  aHigh < bHigh || (aHigh === bHigh && aLow < bLow);

class IterationReader {
  readonly #wire: Wire;
  readonly #block: ScalarBlock;

  constructor(body: Uint8Array, block: ScalarBlock) {
    this.#wire = new Wire(body);
    this.#block = block;
  }

  request(): void {
    const wire = this.#wire;
    const { length } = wire.bytes;
    while (wire.at < length) {
      if (wire.tag() !== bytesOf(1)) throw givenUp;
      wire.slice(length);
      const resourceEnd = wire.end;
      let seen = 0;
      for (wire.at = wire.start; wire.at < resourceEnd;) {
        const tag = wire.tag();
        wire.slice(resourceEnd);
        const end = wire.end;
        if (tag === bytesOf(2)) this.#scopeLogs(wire.start, end);
        else if (tag === bytesOf(1)) {
          seen = wire.once(seen, 1);
          this.#resource(wire.start, end);
        } else if (tag === bytesOf(3)) wire.checkText(wire.start, end);
        else throw givenUp;
        wire.at = end;
      }
    }
  }

  /** Iterations name their run themselves; a resource only has to be right. */
  #resource(start: number, end: number): void {
    const wire = this.#wire;
    const keys = new Set<string>();
    for (wire.at = start; wire.at < end;) {
      if (wire.tag() !== bytesOf(1)) throw givenUp;
      wire.slice(end);
      const inner = wire.end;
      wire.at = wire.start;
      if (wire.at >= inner || wire.tag() !== bytesOf(1)) throw givenUp;
      const key = wire.text(inner);
      if (key === "" || keys.has(key)) throw givenUp;
      keys.add(key);
      if (wire.at >= inner || wire.tag() !== bytesOf(2)) throw givenUp;
      wire.slice(inner);
      const value = wire.end;
      if (value !== inner) throw givenUp;
      wire.at = wire.start;
      if (wire.at >= value || wire.tag() !== bytesOf(1)) throw givenUp;
      wire.textSlice(value);
      if (wire.at !== inner) throw givenUp;
    }
  }

  #scopeLogs(start: number, end: number): void {
    const wire = this.#wire;
    let seen = 0;
    for (wire.at = start; wire.at < end;) {
      const tag = wire.tag();
      wire.slice(end);
      const inner = wire.end;
      if (tag === bytesOf(2)) this.#record(wire.start, inner);
      else if (tag === bytesOf(3)) wire.checkText(wire.start, inner);
      else if (tag === bytesOf(1)) {
        seen = wire.once(seen, 1);
        for (wire.at = wire.start; wire.at < inner;) {
          const field = wire.tag();
          if (field !== bytesOf(1) && field !== bytesOf(2)) throw givenUp;
          wire.textSlice(inner);
        }
      } else throw givenUp;
      wire.at = inner;
    }
  }

  #record(start: number, end: number): void {
    const wire = this.#wire;
    let seen = 0;
    let timeLow = 0, timeHigh = 0;
    const attributes: number[] = [];
    for (wire.at = start; wire.at < end;) {
      switch (wire.tag()) {
        case fixed64Of(1):
          seen = wire.once(seen, 1);
          wire.fixed64(end);
          timeLow = wire.low, timeHigh = wire.high;
          break;
        case bytesOf(6):
          wire.slice(end);
          attributes.push(wire.start, wire.end);
          break;
        case fixed64Of(11): // observed_time_unix_nano: not kept
          wire.fixed64(end);
          break;
        case bytesOf(12):
          seen = wire.once(seen, 2);
          wire.slice(end);
          if (!wire.isText(wire.start, wire.end, iterationEvent)) throw givenUp;
          break;
        default:
          throw givenUp;
      }
    }
    if (seen !== 3 || timeHigh >= 2 ** 31) throw givenUp;
    this.#iteration(attributes, timeLow, timeHigh);
  }

  #iteration(attributes: number[], timeLow: number, timeHigh: number): void {
    const wire = this.#wire;
    const block = this.#block;
    const axes = [-1, -1, -1, -1, -1, -1];
    let run = "";
    let sequenced = false;
    let scalars = -1, scalarsEnd = -1;
    for (let i = 0; i < attributes.length; i += 2) {
      const end = attributes[i + 1];
      wire.at = attributes[i];
      if (wire.at >= end || wire.tag() !== bytesOf(1)) throw givenUp;
      wire.slice(end);
      const { start: key, end: keyEnd } = wire;
      if (wire.at >= end || wire.tag() !== bytesOf(2)) throw givenUp;
      wire.slice(end);
      if (wire.end !== end) throw givenUp;
      wire.at = wire.start;
      if (wire.isText(key, keyEnd, runKey)) {
        if (run !== "" || wire.tag() !== bytesOf(1)) throw givenUp;
        run = wire.text(end);
        if (!isRunId(run)) throw givenUp;
      } else if (wire.isText(key, keyEnd, scalarsKey)) {
        if (scalars >= 0 || wire.tag() !== bytesOf(6)) throw givenUp;
        wire.slice(end);
        scalars = wire.start, scalarsEnd = wire.end;
      } else if (wire.isText(key, keyEnd, sequenceKey)) { // iterations have a name without it
        if (sequenced) throw givenUp;
        sequenced = true;
        this.#number(end);
      } else {
        const axis = axisKeys.findIndex((text) => wire.isText(key, keyEnd, text));
        if (axis < 0 || axes[axis] >= 0) throw givenUp;
        axes[axis] = this.#number(end);
        // Whole numbers in doubles and the like are right and rare.
        if (!(axis < 4 ? this.#wasWhole && Number.isSafeInteger(axes[axis]) : axes[axis] >= 0)) {
          throw givenUp;
        }
        if (axes[axis] === Infinity) throw givenUp;
      }
      if (wire.at !== end) throw givenUp;
    }
    if (run === "" || scalars < 0 || axes.some((value) => value < 0)) throw givenUp;
    const count = this.#scalars(scalars, scalarsEnd);
    if (count === 0 || count > scalarLimits.scalarsPerIteration) throw givenUp;
    const [iteration, nominal, total, images, wallTime, gpuSeconds] = axes;
    block.run.putText(run);
    block.iteration.putWhole(iteration);
    block.nominal.putWhole(nominal);
    block.total.putWhole(total);
    block.images.putWhole(images);
    block.wallTime.putDouble(wallTime);
    block.gpuSeconds.putDouble(gpuSeconds);
    block.time.put(timeLow, timeHigh);
    for (
      const column of [
        block.run,
        block.iteration,
        block.nominal,
        block.total,
        block.images,
        block.wallTime,
        block.gpuSeconds,
        block.time,
      ]
    ) column.repeat(count - 1);
  }

  /** The event in which each name was seen last. */
  readonly #seen: number[] = [];
  #event = 0;

  #scalars(start: number, end: number): number {
    const wire = this.#wire;
    const { name, value } = this.#block;
    const event = ++this.#event;
    let count = 0;
    for (wire.at = start; wire.at < end;) {
      if (wire.tag() !== bytesOf(1)) throw givenUp;
      wire.slice(end);
      const inner = wire.end;
      wire.at = wire.start;
      if (wire.at >= inner || wire.tag() !== bytesOf(1)) throw givenUp;
      wire.textSlice(inner);
      // A limit in characters: more bytes than that are read elsewhere.
      if (wire.start === wire.end || wire.end - wire.start > scalarLimits.nameLength) throw givenUp;
      const key = name.key(wire.bytes, wire.start, wire.end);
      if (this.#seen[key] === event) throw givenUp;
      this.#seen[key] = event;
      if (wire.at >= inner || wire.tag() !== bytesOf(2)) throw givenUp;
      wire.slice(inner);
      if (wire.end !== inner) throw givenUp;
      wire.at = wire.start;
      value.putDouble(this.#number(inner));
      name.putKey(key);
      if (wire.at !== inner) throw givenUp;
      count++;
    }
    return count;
  }

  #wasWhole = false;

  /** A double or an integer. */
  #number(end: number): number {
    const wire = this.#wire;
    if (wire.at >= end) throw givenUp;
    const tag = wire.tag();
    this.#wasWhole = tag === varintOf(3);
    if (tag === fixed64Of(4)) return wire.double(end);
    if (tag !== varintOf(3)) throw givenUp;
    wire.varint(end);
    if (wire.high >= 2 ** 21) throw givenUp; // negative, or not exact in a double
    return wire.high * 2 ** 32 + wire.low;
  }
}

const iterationEvent = encoder.encode("rl.iteration");
const runKey = encoder.encode("rl.run.id");
const sequenceKey = encoder.encode("rl.sequence");
const scalarsKey = encoder.encode("rl.scalars");
const axisKeys = [
  "rl.iteration",
  "rl.env_steps.nominal",
  "rl.env_steps.total",
  "rl.images",
  "rl.wall_time",
  "rl.gpu_seconds",
].map((text) => encoder.encode(text));

// -------------------------------------------------------------------------------------------- JSON

type Fields = Record<string, unknown>;

/** An object with none but these fields, as the protocol's JSON names them. */
function fieldsOf(value: unknown, known: readonly string[]): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw givenUp;
  for (const key of Object.keys(value)) if (!known.includes(key)) throw givenUp;
  return value as Fields;
}

function listOf(value: unknown): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw givenUp;
  return value;
}

function textOf(value: unknown): string {
  if (value === undefined) return "";
  if (typeof value !== "string" || !value.isWellFormed()) throw givenUp;
  return value;
}

/** Attributes as texts. */
function jsonPairs(value: unknown): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const item of listOf(value)) {
    const pair = fieldsOf(item, pairFields);
    const key = textOf(pair.key);
    if (pairs.has(key)) throw givenUp;
    const inner = fieldsOf(pair.value, valueFields);
    const [kind, ...more] = Object.keys(inner);
    if (kind === undefined || more.length > 0) throw givenUp;
    const plain = inner[kind];
    let text: string;
    if (kind === "stringValue" && typeof plain === "string") text = textOf(plain);
    else if (kind === "boolValue" && typeof plain === "boolean") text = String(plain);
    else if (kind === "doubleValue" && Number.isFinite(plain)) text = String(plain);
    else if (kind === "intValue" && typeof plain === "string" && wholeText.test(plain)) {
      text = plain;
    } else throw givenUp;
    pairs.set(key, text);
  }
  return pairs;
}

const pairFields = ["key", "value"];
const valueFields = ["stringValue", "boolValue", "intValue", "doubleValue"];
const spanFields = [
  "traceId",
  "spanId",
  "parentSpanId",
  "name",
  "kind",
  "startTimeUnixNano",
  "endTimeUnixNano",
  "attributes",
];
const wholeText = /^(0|-?[1-9]\d{0,14})$/;
const timeText = /^[1-9]\d{0,18}$/;
const traceIdText = /^(?!0*$)[0-9a-f]{32}$/;
const spanIdText = /^(?!0*$)[0-9a-f]{16}$/;

function putPairs(maps: Maps, pairs: Map<string, string>): void {
  for (const [key, value] of pairs) {
    maps.keys.putText(key);
    maps.values.putText(value);
  }
  maps.end();
}

function jsonSpans(request: unknown, block: SpanBlock, nowMs: number): void {
  const earliest = BigInt(nowMs - keptDays.traces * 86_400_000) * 1_000_000n;
  const latest = BigInt(nowMs + 86_400_000) * 1_000_000n;
  for (const item of listOf(fieldsOf(request, ["resourceSpans"]).resourceSpans)) {
    const { resource = {}, scopeSpans } = fieldsOf(item, ["resource", "scopeSpans"]);
    const attributes = jsonPairs(fieldsOf(resource, ["attributes"]).attributes);
    for (const inScope of listOf(scopeSpans)) {
      const { scope = {}, spans } = fieldsOf(inScope, ["scope", "spans"]);
      const { name, version } = fieldsOf(scope, ["name", "version"]);
      for (const each of listOf(spans)) {
        const span = fieldsOf(each, spanFields);
        const { traceId, spanId, parentSpanId = "", kind = 0 } = span;
        const { startTimeUnixNano: start, endTimeUnixNano: end } = span;
        if (typeof traceId !== "string" || !traceIdText.test(traceId)) throw givenUp;
        if (typeof spanId !== "string" || !spanIdText.test(spanId)) throw givenUp;
        if (typeof parentSpanId !== "string") throw givenUp;
        if (parentSpanId !== "" && !spanIdText.test(parentSpanId)) throw givenUp;
        if (typeof kind !== "number" || spanKinds[kind] === undefined) throw givenUp;
        if (typeof start !== "string" || !timeText.test(start)) throw givenUp;
        if (typeof end !== "string" || !timeText.test(end)) throw givenUp;
        const startNs = BigInt(start);
        const endNs = BigInt(end);
        if (startNs < earliest || startNs > latest || endNs < startNs) throw givenUp;
        block.service.putText(attributes.get("service.name") ?? "");
        putPairs(block.resource, attributes);
        block.scopeName.putText(textOf(name));
        block.scopeVersion.putText(textOf(version));
        block.time.putBigint(startNs);
        block.traceId.putText(traceId);
        block.spanId.putText(spanId);
        block.parentSpanId.putText(parentSpanId);
        block.traceState.putText("");
        block.name.putText(textOf(span.name));
        block.kind.putText(spanKinds[kind]);
        putPairs(block.attributes, jsonPairs(span.attributes));
        block.duration.putBigint(endNs - startNs);
        block.status.putText(statusCodes[0]);
        block.statusMessage.putText("");
        block.endLists();
      }
    }
  }
}
