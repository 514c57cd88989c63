// A service with one method of each call kind, for the transport's contract tests and its soak. It is
// described here instead of in proto/, since nothing outside the tests may rely on it. As a program
// (`deno run rpc_test_service.ts`) it serves until killed: the tests that kill a server need a process.

import { create, createFileRegistry } from "@bufbuild/protobuf";
import type { GenService } from "@bufbuild/protobuf/codegenv2";
import {
  BytesValueSchema,
  file_google_protobuf_wrappers,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import { Code, implement, RpcError, serve, type Server } from "./rpc.ts";
import { announce } from "./service.ts";

type Bytes = typeof BytesValueSchema;
type EchoService = GenService<{
  unary: { methodKind: "unary"; input: Bytes; output: Bytes };
  down: { methodKind: "server_streaming"; input: Bytes; output: Bytes };
  up: { methodKind: "client_streaming"; input: Bytes; output: Bytes };
  both: { methodKind: "bidi_streaming"; input: Bytes; output: Bytes };
}>;

const value = ".google.protobuf.BytesValue";
const registry = createFileRegistry(create(FileDescriptorSetSchema, {
  file: [
    file_google_protobuf_wrappers.proto,
    create(FileDescriptorProtoSchema, {
      name: "test/echo.proto",
      package: "test",
      syntax: "proto3",
      dependency: ["google/protobuf/wrappers.proto"],
      service: [{
        name: "Echo",
        method: [
          { name: "Unary", inputType: value, outputType: value },
          { name: "Down", inputType: value, outputType: value, serverStreaming: true },
          { name: "Up", inputType: value, outputType: value, clientStreaming: true },
          {
            name: "Both",
            inputType: value,
            outputType: value,
            clientStreaming: true,
            serverStreaming: true,
          },
        ],
      }],
    }),
  ],
}));
export const Echo = registry.getService("test.Echo") as unknown as EchoService;

/** What the handlers saw end, for tests that cancel. */
export interface Seen {
  cancelled: string[];
}

/**
 * Unary echoes; the words "wait", "refuse" and "throw" wait for the end of the call, throw RpcError and
 * throw something else. Down sends its first byte's number of messages, then waits if the second is 1.
 * Up answers the number of bytes that came. Both echoes each message.
 */
export function serveEcho(
  options: { seen?: Seen; maxMessageBytes?: number } = {},
): Promise<Server> {
  const { seen = { cancelled: [] }, maxMessageBytes } = options;
  const untilCancelled = (name: string, signal: AbortSignal) =>
    new Promise<never>((_, reject) => {
      const cancelled = () => {
        seen.cancelled.push(name);
        reject(signal.reason);
      };
      if (signal.aborted) cancelled();
      else signal.addEventListener("abort", cancelled, { once: true });
    });
  return serve({
    listen: "127.0.0.1:0",
    maxMessageBytes,
    services: [implement(Echo, {
      async unary({ value }, { signal }) {
        const word = new TextDecoder().decode(value.subarray(0, 16));
        if (word === "wait") await untilCancelled("unary", signal);
        if (word === "refuse") throw new RpcError(Code.FAILED_PRECONDITION, "Cannot echo: refused");
        if (word === "throw") throw new TypeError("secret detail in /some/path");
        return { value };
      },
      async *down({ value: [count, wait] }, { signal }) {
        for (let i = 0; i < count; i++) yield { value: Uint8Array.of(i) };
        if (wait) await untilCancelled("down", signal);
      },
      async up(requests) {
        let bytes = 0;
        for await (const { value } of requests) bytes += value.length;
        return { value: new Uint8Array(new Uint32Array([bytes]).buffer) };
      },
      async *both(requests, { signal }) {
        try {
          for await (const { value } of requests) yield { value };
        } finally {
          if (signal.aborted) seen.cancelled.push("both");
        }
      },
    })],
  });
}

if (import.meta.main) {
  const server = await serveEcho();
  announce("gpu-sim", server.address);
}
