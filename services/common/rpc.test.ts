// The transport's contract: what every service may rely on, checked against the pinned runtime.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Socket } from "node:net";
import { connect as connectHttp2 } from "node:http2";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Health } from "@proto/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "@proto/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionV1Alpha } from "@proto/grpc/reflection/v1alpha/reflection_pb.ts";
import {
  type Client,
  client,
  Code,
  RpcError,
  serve,
  type Server,
  waitUntilServing,
} from "./rpc.ts";
import { Echo, type Seen, serveEcho } from "./rpc_test_service.ts";
import { testSeed } from "./seed_for_tests.ts";
import { fileURLToPath } from "node:url";

const bytes = (text: string) => new TextEncoder().encode(text);
const refusal = async (work: Promise<unknown>): Promise<RpcError> => {
  const error = await work.then(() => undefined, (error: unknown) => error);
  expect(error).toBeInstanceOf(RpcError);
  return error as RpcError;
};
const collect = async <T>(source: AsyncIterable<T>): Promise<T[]> => {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
};
async function eventually(condition: () => boolean) {
  for (let i = 0; i < 6000 && !condition(); i++) await new Promise((r) => setTimeout(r, 10));
  expect(condition()).toBe(true);
}

const seen: Seen = { cancelled: [] };
let server: Server;
let echo: Client<typeof Echo>;
beforeAll(async () => {
  server = await serveEcho({ seen, maxMessageBytes: 1024 * 1024 });
  echo = client(Echo, server.address, { maxMessageBytes: 4 * 1024 * 1024 });
});
afterAll(async () => {
  echo.$close();
  await server.stop();
});

describe("calls", () => {
  test("unary returns what was sent", async () => {
    expect((await echo.unary({ value: bytes("hello") })).value).toEqual(bytes("hello"));
  });
  test("server stream delivers every message in order, also more than the queue holds", async () => {
    const replies = await collect(echo.down({ value: Uint8Array.of(255, 0) }));
    expect(replies.map(({ value }) => value[0])).toEqual(Array.from({ length: 255 }, (_, i) => i));
  });
  test("client stream sums what was sent", async () => {
    async function* requests() {
      for (let i = 0; i < 300; i++) yield { value: new Uint8Array(1000) };
    }
    const { value } = await echo.up(requests());
    expect(new Uint32Array(value.slice().buffer)[0]).toBe(300_000);
  });
  test("bidirectional stream answers each message before the next is sent", async () => {
    const talk = echo.both();
    for (let i = 0; i < 100; i++) {
      await talk.send({ value: Uint8Array.of(i) });
      const { value } = await talk.responses.next();
      expect(value!.value[0]).toBe(i);
    }
    talk.close();
    expect(await talk.responses.next()).toEqual({ done: true, value: undefined });
  });
});

describe("failures", () => {
  test("RpcError of a handler keeps its code and text", async () => {
    const error = await refusal(echo.unary({ value: bytes("refuse") }));
    expect([error.code, error.message]).toEqual([Code.FAILED_PRECONDITION, "Cannot echo: refused"]);
  });
  test("any other error is INTERNAL without its text", async () => {
    const error = await refusal(echo.unary({ value: bytes("throw") }));
    expect(error.code).toBe(Code.INTERNAL);
    expect(error.message).not.toMatch(/secret|path/);
  });
  test("deadline ends a call in time and the server notices", async () => {
    const before = performance.now();
    const error = await refusal(echo.unary({ value: bytes("wait") }, { deadlineMs: 200 }));
    const elapsedMs = performance.now() - before;
    expect(error.code).toBe(Code.DEADLINE_EXCEEDED);
    expect(elapsedMs).toBeGreaterThan(150);
    await eventually(() => seen.cancelled.includes("unary"));
  });
  test("cancel ends a stream on both sides", async () => {
    const stop = new AbortController();
    const stream = echo.down({ value: Uint8Array.of(3, 1) }, { signal: stop.signal });
    for (let i = 0; i < 3; i++) expect((await stream.next()).value!.value[0]).toBe(i);
    stop.abort();
    expect((await refusal(stream.next())).code).toBe(Code.CANCELLED);
    await eventually(() => seen.cancelled.includes("down"));
  });
  test("leaving a for-await loop cancels the call", async () => {
    seen.cancelled.length = 0;
    for await (const { value } of echo.down({ value: Uint8Array.of(9, 1) })) {
      if (value[0] === 1) break;
    }
    await eventually(() => seen.cancelled.includes("down"));
  });
  test("cancel of a bidirectional stream runs the handler's finally", async () => {
    const talk = echo.both();
    await talk.send({ value: Uint8Array.of(1) });
    await talk.responses.next();
    talk.cancel();
    expect((await refusal(talk.responses.next())).code).toBe(Code.CANCELLED);
    await eventually(() => seen.cancelled.includes("both"));
  });
  test("a message over the limit is RESOURCE_EXHAUSTED and the connection goes on", async () => {
    const big = { value: new Uint8Array(1024 * 1024 + 1) };
    expect((await refusal(echo.unary(big))).code).toBe(Code.RESOURCE_EXHAUSTED);
    expect((await echo.unary({ value: bytes("after") })).value).toEqual(bytes("after"));
  });
  test("a length prefix that claims 4 GiB is RESOURCE_EXHAUSTED without the memory", async () => {
    const before = Deno.memoryUsage().rss;
    const status = await rawCall(server.address, Uint8Array.of(0, 255, 255, 255, 255, 1, 2, 3));
    expect(status).toBe(Code.RESOURCE_EXHAUSTED);
    expect(Deno.memoryUsage().rss - before).toBeLessThan(256 * 1024 * 1024);
  });
  test("a body that is no protobuf is INVALID_ARGUMENT", async () => {
    const body = Uint8Array.of(0, 0, 0, 0, 3, 0x0a, 0xff, 0xff); // a field longer than the message
    expect(await rawCall(server.address, body)).toBe(Code.INVALID_ARGUMENT);
  });
  test("1000 random bodies leave the server answering", async () => {
    const seed = testSeed;
    let state = seed || 1;
    const random = () => ((state ^= state << 13, state ^= state >>> 17, state ^= state << 5) >>> 0);
    const session = connectHttp2(`http://${server.address}`);
    for (let i = 0; i < 1000; i++) {
      const body = Uint8Array.from({ length: random() % 40 }, () => random() & 255);
      const frame = new Uint8Array(5 + body.length);
      new DataView(frame.buffer).setUint32(1, body.length);
      frame.set(body, 5);
      const status = await rawCall(server.address, frame, session);
      expect([Code.OK, Code.INVALID_ARGUMENT], `seed ${seed}, body ${i}`).toContain(status);
    }
    session.close();
    expect((await echo.unary({ value: bytes("alive") })).value).toEqual(bytes("alive"));
  });
  test("a method that does not exist is UNIMPLEMENTED", async () => {
    expect(await rawCall(server.address, new Uint8Array(5), undefined, "/test.Echo/Missing"))
      .toBe(Code.UNIMPLEMENTED);
  });
  test("nobody listening is UNAVAILABLE and names the address", async () => {
    const nobody = client(Echo, "127.0.0.1:1");
    const error = await refusal(nobody.unary({ value: bytes("x") }));
    expect(error.code).toBe(Code.UNAVAILABLE);
    expect(error.message).toContain("127.0.0.1:1");
    nobody.$close();
  });
  test("a silent peer ends by the deadline", async () => {
    const sockets: Socket[] = [];
    const { createServer } = await import("node:net");
    const silent = createServer((socket) => void sockets.push(socket));
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const port = (silent.address() as { port: number }).port;
    const waiting = client(Echo, `127.0.0.1:${port}`);
    const error = await refusal(waiting.unary({ value: bytes("x") }, { deadlineMs: 300 }));
    expect(error.code).toBe(Code.DEADLINE_EXCEEDED);
    waiting.$close();
    sockets.forEach((socket) => socket.destroy());
    silent.close();
  });
  test("kill -9 of the server mid-stream ends the stream with an RpcError", async () => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", fileURLToPath(new URL("./rpc_test_service.ts", import.meta.url))],
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    const { address } = JSON.parse((await lines.read()).value!);
    const victim = client(Echo, address);
    const talk = victim.both();
    await talk.send({ value: Uint8Array.of(7) });
    expect((await talk.responses.next()).value!.value[0]).toBe(7);
    child.kill("SIGKILL");
    await refusal(talk.responses.next());
    await talk.send({ value: Uint8Array.of(8) }); // has nobody to go to, and must not hang or throw
    await refusal(victim.unary({ value: bytes("x") }, { deadlineMs: 2000 }));
    victim.$close();
    await child.status;
    await lines.cancel();
  });
  test("an address in use is refused with what to do", async () => {
    await expect(serve({ listen: server.address, services: [] })).rejects.toThrow(
      `Cannot listen on ${server.address}: the address is in use; stop the other process`,
    );
  });
});

describe("health", () => {
  test("reports the server and its services, and NOT_FOUND otherwise", async () => {
    const health = client(Health, server.address);
    expect((await health.check({})).status).toBe(1);
    expect((await health.check({ service: "test.Echo" })).status).toBe(1);
    expect((await refusal(health.check({ service: "none" }))).code).toBe(Code.NOT_FOUND);
    health.$close();
  });
  test("watch() says NOT_SERVING when the server stops", async () => {
    const other = await serveEcho();
    const health = client(Health, other.address);
    const states = health.watch({ service: "test.Echo" });
    expect((await states.next()).value!.status).toBe(1);
    const stopped = other.stop();
    expect((await states.next()).value!.status).toBe(2);
    expect((await states.next()).done).toBe(true);
    await stopped;
    health.$close();
  });
  test("waitUntilServing() resolves for a server and rejects by its timeout for none", async () => {
    await waitUntilServing(server.address, { service: "test.Echo" });
    const error = await refusal(waitUntilServing("127.0.0.1:1", { timeoutMs: 200 }));
    expect(error.code).toBe(Code.UNAVAILABLE);
  });
});

describe.each([["v1", ServerReflection], ["v1alpha", ServerReflectionV1Alpha]])(
  "reflection %s",
  (version, service) => {
    const ask = async (messageRequest: unknown) => {
      const reflection = client(service as typeof ServerReflection, server.address);
      const talk = reflection.serverReflectionInfo();
      await talk.send({
        messageRequest: messageRequest as { case: "listServices"; value: string },
      });
      talk.close();
      const [reply] = await collect(talk.responses);
      reflection.$close();
      return reply.messageResponse;
    };
    test("lists every service", async () => {
      const reply = await ask({ case: "listServices", value: "" });
      expect(reply.case === "listServicesResponse" && reply.value.service.map(({ name }) => name))
        .toEqual([
          "test.Echo",
          "grpc.health.v1.Health",
          "grpc.reflection.v1.ServerReflection",
          "grpc.reflection.v1alpha.ServerReflection",
        ]);
    });
    test("gives the file of a method with its imports", async () => {
      const reply = await ask({ case: "fileContainingSymbol", value: "test.Echo.Both" });
      if (reply.case !== "fileDescriptorResponse") throw new Error(`got ${reply.case}, ${version}`);
      const files = reply.value.fileDescriptorProto.map((b) =>
        fromBinary(FileDescriptorProtoSchema, b)
      );
      expect(files.map(({ name }) => name)).toEqual([
        "test/echo.proto",
        "google/protobuf/wrappers.proto",
      ]);
      expect(files[0].service[0].method.map(({ name }) => name)).toEqual([
        "Unary",
        "Down",
        "Up",
        "Both",
      ]);
    });
    test("answers NOT_FOUND for an unknown symbol", async () => {
      const reply = await ask({ case: "fileContainingSymbol", value: "no.Such" });
      expect(reply.case === "errorResponse" && reply.value.errorCode).toBe(Code.NOT_FOUND);
    });
  },
);

/** Status of one call with these exact bytes as its body: what a broken client would send. */
async function rawCall(
  address: string,
  body: Uint8Array,
  session?: ReturnType<typeof connectHttp2>,
  path = "/test.Echo/Unary",
): Promise<number> {
  const connection = session ?? connectHttp2(`http://${address}`);
  const stream = connection.request({
    ":method": "POST",
    ":path": path,
    "content-type": "application/grpc",
    "te": "trailers",
  });
  const status = new Promise<number>((resolve, reject) => {
    const take = (headers: Record<string, unknown>) => {
      if (headers["grpc-status"] !== undefined) resolve(Number(headers["grpc-status"]));
    };
    stream.on("response", take);
    stream.on("trailers", take);
    stream.on("error", reject);
    setTimeout(() => reject(new Error("no status within 60 s")), 60_000).unref();
  });
  stream.resume();
  stream.end(body);
  try {
    return await status;
  } finally {
    if (!session) connection.close();
  }
}
