// gRPC for the Deno services: protobuf-es descriptors on one side, @grpc/grpc-js on the other.
//
// A server is a list of implementations (`implement`) handed to `serve`, which adds health and
// reflection; a client is `client(Service, address)` with one method per RPC. Streams are async
// iterables both ways. Everything that goes wrong on a call is an RpcError with a status code.
//
// HTTP/2 servers under Deno have no back-pressure of their own (docs/decisions.md), so a stream that
// could outrun its reader carries application credits; unary calls always have a deadline; and large
// data does not pass here but through shared memory.

import * as grpc from "@grpc/grpc-js";
import { Buffer } from "node:buffer";
import type { Duplex, Readable, Writable } from "node:stream";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { logger } from "./log.ts";
import { calls, type Histogram } from "./metrics.ts";
import { formatAddress, parseAddress } from "./service.ts";
import { type TraceContext, traceFromHeaders, traceHeaders } from "./trace.ts";

/** Status codes of gRPC (numbers), also usable as a type. */
export const Code = grpc.status;
export type Code = grpc.status;

/** A call that did not end with OK, on either side. `message` may be shown to a person. */
export class RpcError extends Error {
  override name = "RpcError";
  /**
   * @param code status number (`Code.NOT_FOUND`, …)
   * @param message one line without internals: it crosses the wire
   */
  constructor(readonly code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
  }
  /** Name of the code, such as "NOT_FOUND". */
  get status(): string {
    return Code[this.code] ?? `UNKNOWN(${this.code})`;
  }
}

/** Largest message either side accepts unless told otherwise. */
export const defaultMaxMessageBytes = 16 * 1024 * 1024;
/** Deadline of a unary call unless told otherwise. */
export const defaultDeadlineMs = 10_000;

// ---------------------------------------------------------------------------------------- server

/** What a handler knows of its call. */
export interface CallContext {
  /** Aborts when the client cancels, its deadline passes or its connection is lost. */
  signal: AbortSignal;
  /** Moment the client gives up; undefined without a deadline. */
  deadline: Date | undefined;
  metadata: Metadata;
  /** On whose behalf the client calls, if it said so. */
  trace: TraceContext | undefined;
}
/** Text headers of a call, lower-case names. */
export type Metadata = Record<string, string>;

type Awaitable<T> = T | Promise<T>;
type In<M extends DescMethod> = MessageShape<M["input"]>;
type OutInit<M extends DescMethod> = MessageInitShape<M["output"]>;

type Handler<M extends DescMethod> = M["methodKind"] extends "unary"
  ? (request: In<M>, context: CallContext) => Awaitable<OutInit<M>>
  : M["methodKind"] extends "server_streaming"
    ? (request: In<M>, context: CallContext) => AsyncIterable<OutInit<M>>
  : M["methodKind"] extends "client_streaming"
    ? (requests: AsyncIterable<In<M>>, context: CallContext) => Awaitable<OutInit<M>>
  : (requests: AsyncIterable<In<M>>, context: CallContext) => AsyncIterable<OutInit<M>>;

export type Handlers<S extends DescService> = { [K in keyof S["method"]]: Handler<S["method"][K]> };

/** A service with its handlers, ready for `serve`. */
export interface ServiceImplementation {
  service: DescService;
  handlers: Record<string, unknown>;
}

/**
 * Binds handlers to a service. A thrown RpcError becomes the status of the call; anything else
 * becomes INTERNAL, with its text only in the log.
 */
export function implement<S extends DescService>(
  service: S,
  handlers: Handlers<S>,
): ServiceImplementation {
  return { service, handlers: handlers as Record<string, unknown> };
}

export interface Server {
  /** HOST:PORT as bound. */
  address: string;
  /** Refuses new calls, waits up to `graceMs` (default 1000) for those in progress, then cuts them. */
  stop(graceMs?: number): Promise<void>;
}

/**
 * Serves the implementations, health and reflection on `listen` (HOST:PORT, port 0 for a free one).
 * Rejects with one line when the address cannot be bound.
 */
export async function serve(options: {
  listen: string;
  services: ServiceImplementation[];
  maxMessageBytes?: number;
}): Promise<Server> {
  // Health and reflection are implemented with this file's `implement`, hence the late import.
  const { healthService } = await import("./rpc_health.ts");
  const { reflectionServices } = await import("./rpc_reflection.ts");
  const health = healthService(options.services.map(({ service }) => service.typeName));
  const all = [...options.services, health.implementation];
  all.push(...reflectionServices(all.map(({ service }) => service)));

  const maxBytes = options.maxMessageBytes ?? defaultMaxMessageBytes;
  const server = new grpc.Server({
    "grpc.max_receive_message_length": maxBytes,
    "grpc.max_send_message_length": maxBytes,
  });
  for (const { service, handlers } of all) {
    server.addService(serviceDefinition(service), serverHandlers(service, handlers));
  }
  const { host } = parseAddress(options.listen);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(options.listen, grpc.ServerCredentials.createInsecure(), (error, bound) => {
      if (error) reject(bindError(options.listen, error));
      else resolve(bound);
    });
  });
  return {
    address: formatAddress({ host, port }),
    async stop(graceMs = 1000) {
      health.stop();
      let timer: ReturnType<typeof setTimeout> | undefined;
      await Promise.race([
        new Promise<void>((resolve) => server.tryShutdown(() => resolve())),
        new Promise<void>((resolve) => timer = setTimeout(resolve, graceMs)),
      ]);
      clearTimeout(timer);
      server.forceShutdown();
    },
  };
}

function bindError(listen: string, error: Error): Error {
  if (/EADDRINUSE/.test(error.message)) {
    return new Error(
      `Cannot listen on ${listen}: the address is in use; stop the other process or choose another ` +
        `port with --listen`,
    );
  }
  const cause = /EACCES|EADDRNOTAVAIL|ENOTFOUND/.exec(error.message)?.[0];
  return new Error(
    `Cannot listen on ${listen}: ${cause ?? error.message}; choose another address with --listen`,
  );
}

/** What a request that is no valid protobuf is decoded to; the handler never sees it. */
class Malformed {
  constructor(readonly typeName: string) {}
}

function serviceDefinition(service: DescService): grpc.ServiceDefinition {
  return Object.fromEntries(service.methods.map((method) => [method.localName, {
    path: `/${service.typeName}/${method.name}`,
    requestStream: method.methodKind === "client_streaming" ||
      method.methodKind === "bidi_streaming",
    responseStream: method.methodKind === "server_streaming" ||
      method.methodKind === "bidi_streaming",
    requestSerialize: serializer(method.input),
    requestDeserialize: (bytes: Buffer) => {
      try {
        return decoder(method.input, sizeOf(calls.server.request, service, method))(bytes);
      } catch {
        return new Malformed(method.input.typeName);
      }
    },
    responseSerialize: serializer(
      method.output,
      sizeOf(calls.server.response, service, method),
    ),
    responseDeserialize: decoder(method.output),
  }]));
}

type Size = (bytes: number) => void;

/** Counts the sizes of a method's messages. */
function sizeOf(histogram: Histogram, service: DescService, method: DescMethod): Size {
  const attributes = callAttributes(`${service.typeName}/${method.name}`);
  return (bytes) => histogram.record(bytes, attributes);
}

function callAttributes(method: string) {
  return { "rpc.system.name": "grpc", "rpc.method": method };
}

/** Notes how long a call took and how it ended. */
function ended(histogram: Histogram, method: string, startMs: number, code: number) {
  histogram.record((performance.now() - startMs) / 1e3, {
    ...callAttributes(method),
    "rpc.response.status_code": Code[code] ?? String(code),
  });
}

function serializer<D extends DescMessage>(
  schema: D,
  size?: Size,
): (value: MessageShape<D>) => Buffer {
  return (value) => {
    const bytes = toBinary(schema, value);
    size?.(bytes.length);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength); // a view, not a copy
  };
}

/** Bytes fields become plain Uint8Arrays: those of a Buffer would be Buffers, whose slice() is a view. */
function decoder<D extends DescMessage>(
  schema: D,
  size?: Size,
): (bytes: Buffer) => MessageShape<D> {
  return (bytes) => {
    size?.(bytes.length);
    return fromBinary(schema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  };
}

type AnyCall = grpc.ServerUnaryCall<unknown, unknown> & Readable & Writable;
type AnyHandler = (
  request: unknown,
  context: CallContext,
) => Awaitable<unknown> | AsyncIterable<unknown>;

function serverHandlers(
  service: DescService,
  handlers: Record<string, unknown>,
): grpc.UntypedServiceImplementation {
  const untyped: grpc.UntypedServiceImplementation = {};
  for (const method of service.methods) {
    const handler = handlers[method.localName] as AnyHandler;
    const streamsIn = method.methodKind === "client_streaming" ||
      method.methodKind === "bidi_streaming";
    const streamsOut = method.methodKind === "server_streaming" ||
      method.methodKind === "bidi_streaming";
    const name = `${service.typeName}/${method.name}`;
    const output = method.output;

    const handle = async (call: AnyCall, callback?: grpc.sendUnaryData<unknown>) => {
      const startMs = performance.now();
      let code: number = Code.OK;
      const cancel = new AbortController();
      const cancelled = () =>
        cancel.abort(new RpcError(Code.CANCELLED, `${name} was cancelled by the client`));
      if (call.cancelled) cancelled();
      call.on("cancelled", cancelled);
      call.on("error", cancelled); // reading or writing a lost connection
      const metadata = textMetadata(call.metadata);
      const context: CallContext = {
        signal: cancel.signal,
        deadline: deadlineOf(call),
        metadata,
        trace: traceFromHeaders(metadata),
      };
      try {
        const request = streamsIn
          ? wellFormed(messages<unknown>(call as unknown as Duplex, cancel.signal))
          : checkWellFormed(call.request);
        if (streamsOut) {
          const responses = handler(request, context) as AsyncIterable<unknown>;
          await writeAll(call, responses, output, cancel.signal);
          call.end();
        } else {
          const response = await handler(request, context);
          callback!(null, create(output, response as MessageInitShape<DescMessage>));
        }
      } catch (error) {
        const status = statusOf(error, name);
        code = cancel.signal.aborted ? Code.CANCELLED : status.code!;
        if (callback) callback(status);
        else if (!cancel.signal.aborted) call.emit("error", status);
      } finally {
        ended(calls.server.duration, name, startMs, code);
      }
    };
    untyped[method.localName] = handle as unknown as grpc.UntypedHandleCall;
  }
  return untyped;
}

function deadlineOf(call: AnyCall): Date | undefined {
  const deadline = call.getDeadline();
  if (deadline instanceof Date) return deadline;
  return Number.isFinite(deadline) ? new Date(deadline) : undefined;
}

function textMetadata(metadata: grpc.Metadata): Metadata {
  const map = metadata.getMap();
  return Object.fromEntries(
    Object.entries(map).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}

function checkWellFormed(message: unknown): unknown {
  if (message instanceof Malformed) {
    throw new RpcError(Code.INVALID_ARGUMENT, `Cannot decode the request as ${message.typeName}`);
  }
  return message;
}

async function* wellFormed(source: AsyncIterable<unknown>): AsyncIterable<unknown> {
  for await (const message of source) yield checkWellFormed(message);
}

/** Writes every response, waiting whenever the transport's buffer is full, until cancelled. */
async function writeAll(
  call: AnyCall,
  responses: AsyncIterable<unknown>,
  schema: DescMessage,
  signal: AbortSignal,
): Promise<void> {
  const iterator = responses[Symbol.asyncIterator]();
  let onAbort = () => {};
  const abort = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort);
  });
  abort.catch(() => {}); // only of interest inside the races below
  try {
    if (signal.aborted) throw signal.reason;
    while (true) {
      const next = await Promise.race([iterator.next(), abort]);
      if (next.done) return;
      if (!call.write(create(schema, next.value as MessageInitShape<DescMessage>))) {
        await Promise.race([new Promise<void>((resolve) => call.once("drain", resolve)), abort]);
      }
    }
  } catch (error) {
    // Lets the handler's `finally` run. Not awaited: it may be waiting for something of its own.
    void Promise.resolve(iterator.return?.()).catch(() => {});
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

const log = logger("rpc");
// grpc-js prints to the console by itself; what it says is in the errors we raise already.
const quiet = (...parts: unknown[]) => log.debug(parts.join(" "));
grpc.setLogger({ error: quiet, info: quiet, debug: quiet });

function statusOf(error: unknown, name: string): grpc.ServerErrorResponse {
  if (error instanceof RpcError) {
    return Object.assign(new Error(error.message), { code: error.code, details: error.message });
  }
  log.error(`Unexpected error in ${name}`, {
    error: error instanceof Error ? error.stack : String(error),
  });
  const details = `Internal error in ${name}; its service's log has the cause`;
  return Object.assign(new Error(details), { code: Code.INTERNAL, details });
}

// ---------------------------------------------------------------------------------------- client

export interface CallOptions {
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED; Infinity for none. */
  deadlineMs?: number;
  signal?: AbortSignal;
  metadata?: Metadata;
  /** Sent along as W3C headers. */
  trace?: TraceContext;
}

/** An open bidirectional stream. */
export interface Conversation<Request, Response> {
  /** Queues a message; a promise is returned only when the transport asks to wait. */
  send(message: Request): void | Promise<void>;
  responses: AsyncIterableIterator<Response>;
  /** Says that no more messages follow; responses may still come. */
  close(): void;
  /** Ends the call at once; `responses` then throws RpcError CANCELLED. */
  cancel(): void;
}

type Out<M extends DescMethod> = MessageShape<M["output"]>;
type InInit<M extends DescMethod> = MessageInitShape<M["input"]>;

type Call<M extends DescMethod> = M["methodKind"] extends "unary"
  ? (request: InInit<M>, options?: CallOptions) => Promise<Out<M>>
  : M["methodKind"] extends "server_streaming"
    ? (request: InInit<M>, options?: CallOptions) => AsyncIterableIterator<Out<M>>
  : M["methodKind"] extends "client_streaming"
    ? (requests: AsyncIterable<InInit<M>>, options?: CallOptions) => Promise<Out<M>>
  : (options?: CallOptions) => Conversation<InInit<M>, Out<M>>;

export type Client<S extends DescService> =
  & {
    [K in keyof S["method"]]: Call<S["method"][K]>;
  }
  & {
    /** Closes the connection; calls in progress end with CANCELLED or UNAVAILABLE. */
    $close(): void;
    readonly $address: string;
  };

/**
 * Client of one service. The connection is opened by the first call and opened again after a loss;
 * `deadlineMs` is the default of unary and client-streaming calls (10 s); other streams have none.
 */
export function client<S extends DescService>(
  service: S,
  address: string,
  options: { deadlineMs?: number; maxMessageBytes?: number } = {},
): Client<S> {
  const maxBytes = options.maxMessageBytes ?? defaultMaxMessageBytes;
  const channel = new grpc.Client(address, grpc.credentials.createInsecure(), {
    "grpc.max_receive_message_length": maxBytes,
    "grpc.max_send_message_length": maxBytes,
    "grpc.enable_http_proxy": 0, // our addresses are never behind a proxy
    "grpc.use_local_subchannel_pool": 1, // a connection per client, so that $close closes it
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2000,
  });
  const result: Record<string, unknown> = { $close: () => channel.close(), $address: address };
  for (const method of service.methods) {
    result[method.localName] = clientMethod(channel, service, method, address, options.deadlineMs);
  }
  return result as Client<S>;
}

function clientMethod(
  channel: grpc.Client,
  service: DescService,
  method: DescMethod,
  address: string,
  defaultMs = defaultDeadlineMs,
): unknown {
  const path = `/${service.typeName}/${method.name}`;
  const encode = serializer(method.input, sizeOf(calls.client.request, service, method));
  const decode = decoder(method.output, sizeOf(calls.client.response, service, method));
  const counted = <C extends { on(event: "status", heard: (status: { code: number }) => void): C }>(
    call: C,
  ) => {
    const startMs = performance.now();
    call.on("status", ({ code }) => ended(calls.client.duration, path.slice(1), startMs, code));
    return call;
  };
  const message = (init: unknown) =>
    create(method.input, init as MessageInitShape<DescMessage>) as MessageShape<DescMessage>;
  const limits = (options: CallOptions, fallbackMs: number): grpc.CallOptions => {
    const ms = options.deadlineMs ?? fallbackMs;
    return Number.isFinite(ms) ? { deadline: Date.now() + ms } : {};
  };
  const failure = (error: unknown, options: CallOptions, fallbackMs = Infinity) =>
    rpcError(error, path, address, options.deadlineMs ?? fallbackMs);

  switch (method.methodKind) {
    case "unary":
      return (init: unknown, options: CallOptions = {}) =>
        new Promise((resolve, reject) => {
          const release = { now: () => {} };
          const call = counted(channel.makeUnaryRequest(
            path,
            encode,
            decode,
            message(init),
            headers(options),
            limits(options, defaultMs),
            (error, response) => {
              release.now();
              if (error) reject(failure(error, options, defaultMs));
              else resolve(response);
            },
          ));
          release.now = cancelOn(options.signal, call);
        });
    case "client_streaming":
      return (requests: AsyncIterable<unknown>, options: CallOptions = {}) =>
        new Promise((resolve, reject) => {
          const release = { now: () => {} };
          let ended = false;
          const call = counted(channel.makeClientStreamRequest(
            path,
            encode,
            decode,
            headers(options),
            limits(options, defaultMs),
            (error, response) => {
              ended = true;
              release.now();
              if (error) reject(failure(error, options, defaultMs));
              else resolve(response);
            },
          ));
          release.now = cancelOn(options.signal, call);
          const send = sender(call, message);
          (async () => {
            for await (const request of requests) {
              if (ended) return;
              await send(request);
            }
            call.end();
          })().catch((error) => {
            reject(error); // the caller's own iterable failed: its error, not the transport's
            call.cancel();
          });
        });
    case "server_streaming":
      return (init: unknown, options: CallOptions = {}) => {
        const call = counted(channel.makeServerStreamRequest(
          path,
          encode,
          decode,
          message(init),
          headers(options),
          limits(options, Infinity),
        ));
        return responsesOf(call, options, failure);
      };
    case "bidi_streaming":
      return (options: CallOptions = {}): Conversation<unknown, unknown> => {
        const call = counted(channel.makeBidiStreamRequest(
          path,
          encode,
          decode,
          headers(options),
          limits(options, Infinity),
        ));
        return {
          responses: responsesOf(call, options, failure),
          send: sender(call, message),
          close: () => void call.end(),
          cancel: () => call.cancel(),
        };
      };
  }
}

function headers(options: CallOptions): grpc.Metadata {
  const metadata = new grpc.Metadata();
  const all = { ...traceHeaders(options.trace), ...options.metadata };
  for (const [name, value] of Object.entries(all)) metadata.set(name, value);
  return metadata;
}

/** Cancels the call when the signal aborts; the returned function undoes the tie. */
function cancelOn(signal: AbortSignal | undefined, call: { cancel(): void }): () => void {
  if (!signal) return () => {};
  const cancel = () => call.cancel();
  if (signal.aborted) cancel();
  else signal.addEventListener("abort", cancel, { once: true });
  return () => signal.removeEventListener("abort", cancel);
}

function sender(call: Writable, message: (init: unknown) => unknown) {
  return (init: unknown): void | Promise<void> => {
    // After the end of the call there is nobody to write to: `responses` carries its status.
    if (call.destroyed || call.writableEnded) return;
    if (call.write(message(init))) return;
    return new Promise((resolve) => {
      const done = () => {
        for (const event of ["drain", "error", "close", "end", "status"]) call.off(event, done);
        resolve();
      };
      for (const event of ["drain", "error", "close", "end", "status"]) call.on(event, done);
    });
  };
}

function responsesOf(
  call: Readable & { cancel(): void },
  options: CallOptions,
  failure: (error: unknown, options: CallOptions) => RpcError,
): AsyncIterableIterator<unknown> {
  const release = cancelOn(options.signal, call);
  return messages(call, undefined, {
    error: (error) => failure(error, options),
    ended: release,
    abandoned: () => call.cancel(),
  });
}

function rpcError(error: unknown, path: string, address: string, deadlineMs: number): RpcError {
  const { code = Code.UNKNOWN, details, message } = error as Partial<grpc.ServiceError>;
  let text = details || message || String(error);
  const what = path.slice(1);
  if (code === Code.DEADLINE_EXCEEDED && Number.isFinite(deadlineMs)) {
    text = `No answer from ${what} at ${address} within ${deadlineMs} ms`;
  } else if (code === Code.UNAVAILABLE) {
    text = `Cannot reach ${what} at ${address}: ${text}`;
  }
  return new RpcError(code, text, { cause: error });
}

/**
 * Waits until the server at `address` reports SERVING for `service` (empty: the server as a whole).
 * Rejects with UNAVAILABLE after `timeoutMs`, or as soon as `signal` aborts.
 */
export async function waitUntilServing(
  address: string,
  options: { service?: string; timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<void> {
  const { Health, HealthCheckResponse_ServingStatus } = await import(
    "@proto/grpc/health/v1/health_pb.ts"
  );
  const { timeoutMs = 10_000, signal, service = "" } = options;
  const until = performance.now() + timeoutMs;
  const health = client(Health, address);
  try {
    while (true) {
      signal?.throwIfAborted();
      const leftMs = until - performance.now();
      try {
        const { status } = await health.check({ service }, {
          deadlineMs: Math.max(1, Math.min(leftMs, 1000)),
          signal,
        });
        if (status === HealthCheckResponse_ServingStatus.SERVING) return;
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        signal?.throwIfAborted();
        if (leftMs <= 0) {
          throw new RpcError(
            Code.UNAVAILABLE,
            `Cannot reach ${service || "a server"} at ${address} within ${timeoutMs} ms`,
            { cause: error },
          );
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  } finally {
    health.$close();
  }
}

// --------------------------------------------------------------------------------------- streams

/** Messages that may wait in an iterator before its source is paused. */
const queueBound = 64;

/**
 * Messages of an object stream in order. Unlike the stream's own iterator it keeps what arrived before
 * an error, and hands a waiting reader its message without another turn of the event loop.
 */
function messages<T>(source: Readable, signal?: AbortSignal, hooks: {
  error?: (error: unknown) => Error;
  ended?: () => void;
  abandoned?: () => void;
} = {}): AsyncIterableIterator<T> {
  const queue: T[] = [];
  let reader: { resolve(value: IteratorResult<T>): void; reject(error: unknown): void } | undefined;
  let failure: unknown;
  let finished = false;

  const done = (): IteratorResult<T> => ({ done: true, value: undefined });
  const settle = () => {
    if (!reader || queue.length > 0 || !finished) return;
    const { resolve, reject } = reader;
    reader = undefined;
    if (failure === undefined) return resolve(done());
    const error = failure;
    failure = undefined; // thrown once, then the iterator is simply at its end
    reject(error);
  };
  const finish = (error?: unknown) => {
    if (finished) return;
    finished = true;
    failure = error;
    hooks.ended?.();
    settle();
  };
  source.on("data", (message: T) => {
    if (finished) return;
    if (reader) {
      const { resolve } = reader;
      reader = undefined;
      resolve({ done: false, value: message });
    } else if (queue.push(message) >= queueBound) source.pause();
  });
  let pendingError: unknown;
  source.on("end", () => finish(pendingError));
  source.on("error", (error: unknown) => {
    pendingError = hooks.error ? hooks.error(error) : error;
    // What the stream still buffers is delivered first; "end" follows it.
    if (source.readableLength === 0) finish(pendingError);
  });
  source.on("close", () => finish(pendingError));
  if (signal) {
    if (signal.aborted) finish(signal.reason);
    else signal.addEventListener("abort", () => finish(signal.reason), { once: true });
  }

  return {
    next() {
      if (reader) return Promise.reject(new Error("Cannot read a stream twice at the same time"));
      if (queue.length > 0) {
        const value = queue.shift()!;
        if (source.isPaused() && queue.length < queueBound / 2) source.resume();
        return Promise.resolve({ done: false, value });
      }
      return new Promise((resolve, reject) => {
        reader = { resolve, reject };
        settle();
      });
    },
    return() {
      queue.length = 0;
      if (!finished) {
        finish();
        failure = undefined;
        hooks.abandoned?.();
        source.resume(); // so that the end of the call is seen and its memory freed
      }
      return Promise.resolve(done());
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
