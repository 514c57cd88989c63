// The two tables that take most rows, as blocks of columns: scalars and otel_traces. Rows come from the
// decoders of requests, by hand for what is sent most (hot_otlp.ts) and through messages for the rest.

import { Block, Dictionary, Growing, Lists, Maps, Native, Strings, Words } from "./columns.ts";
import type { Cell } from "./store.ts";
import { columns } from "./rows.ts";

/** Columns in the order of `columns.scalars`. */
export class ScalarBlock extends Block {
  readonly run = new Dictionary();
  readonly iteration = new Words("UInt64");
  readonly name = new Dictionary();
  readonly value = new Words("Float64");
  readonly nominal = new Words("UInt64");
  readonly total = new Words("UInt64");
  readonly images = new Words("UInt64");
  readonly wallTime = new Words("Float64");
  readonly gpuSeconds = new Words("Float64");
  readonly time = new Words("DateTime64(9, 'UTC')");
  protected readonly columns = columns.scalars.map((name, i) =>
    [
      name,
      [
        this.run,
        this.iteration,
        this.name,
        this.value,
        this.nominal,
        this.total,
        this.images,
        this.wallTime,
        this.gpuSeconds,
        this.time,
      ][i],
    ] as const
  );

  /** A row as rowsOf (rows.ts) makes it. */
  put(cells: readonly Cell[]): void {
    const [run, iteration, name, value, nominal, total, images, wallTime, gpuSeconds, time] = cells;
    this.run.putText(run as string);
    this.iteration.putWhole(iteration as number);
    this.name.putText(name as string);
    this.value.putDouble(doubleOf(value));
    this.nominal.putWhole(nominal as number);
    this.total.putWhole(total as number);
    this.images.putWhole(images as number);
    this.wallTime.putDouble(wallTime as number);
    this.gpuSeconds.putDouble(gpuSeconds as number);
    const ns = BigInt((time as string).replace(".", ""));
    this.time.putBigint(ns < 1n << 63n ? ns : 0n); // what the type cannot hold becomes 0
  }
}

/** The opposite of floatCell (store.ts). */
function doubleOf(cell: Cell): number {
  const words: Record<string, number> = { nan: NaN, inf: Infinity, "-inf": -Infinity };
  return typeof cell === "string" ? words[cell] ?? Number(cell) : Number(cell);
}

/** What names the rows of a block of scalars, read back from its bytes. */
export interface ScalarNames {
  rows: number;
  runs: string[];
  run: Uint32Array; // per row, in `runs`
  iteration: Float64Array;
  names: string[];
  name: Uint32Array; // per row, in `names`
  /** The block with some of its rows. */
  only(kept: readonly number[]): Uint8Array;
}

/** Reads the first block of `bytes`; `rest` are the others. */
export function readScalars(bytes: Uint8Array): { block: ScalarNames; rest: Uint8Array } {
  const from = new Native(bytes);
  const { rows } = from.head();
  from.column();
  const { keys: runs, index: run } = from.dictionary();
  from.column();
  const iteration = from.words(rows);
  from.column();
  const { keys: names, index: name } = from.dictionary();
  const others = columns.scalars.slice(3).map(() => {
    from.column();
    from.at += 8 * rows;
    return from.at - 8 * rows;
  });
  const only = (kept: readonly number[]) => {
    const block = new ScalarBlock();
    const words = [
      block.value,
      block.nominal,
      block.total,
      block.images,
      block.wallTime,
      block.gpuSeconds,
      block.time,
    ];
    for (const row of kept) {
      block.run.putText(runs[run[row]]);
      block.iteration.putWhole(iteration[row]);
      block.name.putText(names[name[row]]);
      words.forEach((column, i) => {
        const at = others[i] + 8 * row;
        column.put(from.view.getUint32(at, true), from.view.getUint32(at + 4, true));
      });
    }
    return block.bytes();
  };
  return {
    block: { rows, runs, run, iteration, names, name, only },
    rest: bytes.subarray(from.at),
  };
}

/** Columns in the order of `otelColumns.otel_traces`. */
export class SpanBlock extends Block {
  readonly service = new Dictionary();
  readonly resource = new Maps();
  readonly scopeName = new Strings();
  readonly scopeVersion = new Strings();
  readonly time = new Words("DateTime64(9)");
  readonly traceId = new Strings();
  readonly spanId = new Strings();
  readonly parentSpanId = new Strings();
  readonly traceState = new Strings();
  readonly name = new Dictionary();
  readonly kind = new Dictionary();
  readonly attributes = new Maps();
  readonly duration = new Words("UInt64");
  readonly status = new Dictionary();
  readonly statusMessage = new Strings();
  readonly eventTime = new Lists(new Words("DateTime64(9)"));
  readonly eventName = new Lists(new Dictionary());
  readonly eventAttributes = new Lists(new Maps());
  readonly linkTraceId = new Lists(new Strings());
  readonly linkSpanId = new Lists(new Strings());
  readonly linkTraceState = new Lists(new Strings());
  readonly linkAttributes = new Lists(new Maps());
  protected readonly columns = [
    ["ServiceName", this.service],
    ["ResourceAttributes", this.resource],
    ["ScopeName", this.scopeName],
    ["ScopeVersion", this.scopeVersion],
    ["Timestamp", this.time],
    ["TraceId", this.traceId],
    ["SpanId", this.spanId],
    ["ParentSpanId", this.parentSpanId],
    ["TraceState", this.traceState],
    ["SpanName", this.name],
    ["SpanKind", this.kind],
    ["SpanAttributes", this.attributes],
    ["Duration", this.duration],
    ["StatusCode", this.status],
    ["StatusMessage", this.statusMessage],
    ["Events.Timestamp", this.eventTime],
    ["Events.Name", this.eventName],
    ["Events.Attributes", this.eventAttributes],
    ["Links.TraceId", this.linkTraceId],
    ["Links.SpanId", this.linkSpanId],
    ["Links.TraceState", this.linkTraceState],
    ["Links.Attributes", this.linkAttributes],
  ] as const;

  /** The events and links that were put are those of one span. */
  endLists(): void {
    this.eventTime.end();
    this.eventName.end();
    this.eventAttributes.end();
    this.linkTraceId.end();
    this.linkSpanId.end();
    this.linkTraceState.end();
    this.linkAttributes.end();
  }
}

export const spanKinds = ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"];
export const statusCodes = ["Unset", "Ok", "Error"];

/** A map's pairs, to be put into many rows. */
export class PreparedMap {
  readonly #keys: number[] = [];
  readonly #values = new Growing(128);

  /** @param maps the column it is for */
  constructor(readonly maps: Maps) {}

  add(key: number, value: Uint8Array): void {
    this.#keys.push(key);
    this.#values.varint(value.length);
    this.#values.copy(value);
  }
  put(): void {
    const { keys, values } = this.maps;
    for (let i = 0; i < this.#keys.length; i++) keys.putKey(this.#keys[i]);
    values.putWritten(this.#values.bytes, this.#values.at, this.#keys.length);
    this.maps.end();
  }
}

/** The blocks that one commit fills. */
export class Blocks {
  readonly scalars = new ScalarBlock();
  readonly otel_traces = new SpanBlock();

  clear(): void {
    for (const table of blockTables) this[table].clear();
  }
}

export const blockTables = ["scalars", "otel_traces"] as const;
export type BlockTable = typeof blockTables[number];

/** What the engine has to know to read blocks. */
export const structures: Record<BlockTable, string> = {
  scalars: new ScalarBlock().structure,
  otel_traces: new SpanBlock().structure,
};
