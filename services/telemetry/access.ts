// Who may ask and who may send. On a loopback address everybody on this machine may, under loopback
// names only; beyond it a user and a password are needed (SDPG_CLICKHOUSE_USER, SDPG_CLICKHOUSE_PASSWORD),
// given as ClickHouse's clients do: HTTP's Basic, X-ClickHouse-User and -Key, or parameters.

import { Buffer } from "node:buffer";
import { createHash, timingSafeEqual } from "node:crypto";

export interface Credentials {
  user: string;
  password: string;
}

const isLoopback = (name: string) => /^(127\.\d+\.\d+\.\d+|localhost|\[?::1\]?)$/.test(name);

/** Credentials that a service on `host` asks for: none on the loopback. Throws where they are missing. */
export function credentialsFor(
  host: string,
  environment: { get(name: string): string | undefined },
): Credentials | undefined {
  if (isLoopback(host)) return undefined;
  const user = environment.get("SDPG_CLICKHOUSE_USER");
  const password = environment.get("SDPG_CLICKHOUSE_PASSWORD");
  if (!user || !password) {
    throw new Error(
      `Cannot listen on ${host}: everybody could read the store there; set SDPG_CLICKHOUSE_USER and ` +
        `SDPG_CLICKHOUSE_PASSWORD, or listen on 127.0.0.1`,
    );
  }
  return { user, password };
}

/**
 * Whether the name by which the service was asked is served: on a loopback address only loopback names
 * are, so that a web page cannot reach the store by pointing its own name at 127.0.0.1.
 */
export function hostAllowed(request: Request, listenHost: string): boolean {
  if (!isLoopback(listenHost)) return true;
  return isLoopback((request.headers.get("host") ?? "").replace(/:\d+$/, ""));
}

/** Whether a request carries the credentials. */
export function mayEnter(request: Request, url: URL, expected: Credentials | undefined): boolean {
  if (expected === undefined) return true;
  const given = credentialsOf(request, url);
  const userIs = same(given.user, expected.user);
  return same(given.password, expected.password) && userIs;
}

function credentialsOf({ headers }: Request, { searchParams }: URL): Credentials {
  const basic = /^Basic +([A-Za-z0-9+/=]+)$/i.exec(headers.get("authorization") ?? "")?.[1];
  if (basic !== undefined) {
    const [, user, password] =
      /^([^:]*):(.*)$/s.exec(Buffer.from(basic, "base64").toString("utf8")) ?? [];
    return { user: user ?? "", password: password ?? "" };
  }
  const name = headers.get("x-clickhouse-user") ?? searchParams.get("user");
  const key = headers.get("x-clickhouse-key") ?? searchParams.get("password");
  return { user: name ?? "", password: key ?? "" };
}

/** In a time that tells nothing about where two texts differ. */
const same = (a: string, b: string) => timingSafeEqual(digest(a), digest(b));
const digest = (text: string) => createHash("sha256").update(text).digest();
