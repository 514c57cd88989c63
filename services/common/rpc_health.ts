// grpc.health.v1: what probes and `waitUntilServing` ask.

import { Health, HealthCheckResponse_ServingStatus } from "@proto/grpc/health/v1/health_pb.ts";
import { Code, implement, RpcError, type ServiceImplementation } from "./rpc.ts";

const { SERVING, NOT_SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;

/** Health of the named services: all serve until `stop`, which also ends the watches. */
export function healthService(
  names: string[],
): { implementation: ServiceImplementation; stop(): void } {
  const known = new Set(["", Health.typeName, ...names]);
  const stopping = new AbortController();
  const statusNow = () => stopping.signal.aborted ? NOT_SERVING : SERVING;

  const implementation = implement(Health, {
    check({ service }) {
      if (!known.has(service)) {
        throw new RpcError(Code.NOT_FOUND, `This server has no service "${service}"`);
      }
      return { status: statusNow() };
    },
    async *watch({ service }, { signal }) {
      if (!known.has(service)) {
        yield { status: SERVICE_UNKNOWN };
        await abortOf(signal, stopping.signal);
        return;
      }
      yield { status: statusNow() };
      await abortOf(signal, stopping.signal);
      if (!signal.aborted) yield { status: NOT_SERVING };
    },
  });
  return { implementation, stop: () => stopping.abort() };
}

/** Resolves when any of the signals aborts, leaving no listener behind. */
function abortOf(...signals: AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      for (const signal of signals) signal.removeEventListener("abort", done);
      resolve();
    };
    for (const signal of signals) {
      if (signal.aborted) return done();
      signal.addEventListener("abort", done);
    }
  });
}
