// Who frees a tensor: the innermost scope that was open when it was made, unless someone keeps it.
//
//   using s = scope();            // frees at the end of the block
//   const loss = s.keep(…);       // loss now belongs to the scope around s (or to nobody: dispose it by hand)
//   const y = scoped(() => …);    // frees all but what is returned
//
// A tensor made while no scope is open belongs to nobody and lives until it is disposed. Scopes are strictly nested
// and synchronous: an async function would let tensors of other work slip into its scope, so it is refused.

import { native, TorchError } from "./ffi.ts";

/** What a scope can own; Tensor is the only implementation. */
export interface Owned {
  /** Native handle, 0 once freed. */
  readonly handle: number;
  /** Forgets the handle after the scope freed it. */
  forget(): void;
  /** The scope that will free it, if any. */
  owner: Scope | undefined;
}

const open: Scope[] = [];

export class Scope implements Disposable {
  readonly #owned = new Set<Owned>();
  #closed = false;

  constructor() {
    open.push(this);
  }

  /** Hands t to the scope around this one and returns it. */
  keep<T extends Owned>(t: T): T {
    if (t.owner === this) {
      this.#owned.delete(t);
      const outer = open[open.indexOf(this) - 1];
      t.owner = outer;
      outer?.adopt(t);
    }
    return t;
  }

  adopt(t: Owned): void {
    this.#owned.add(t);
    t.owner = this;
  }

  drop(t: Owned): void {
    this.#owned.delete(t);
    t.owner = undefined;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    if (open.at(-1) !== this) {
      throw new TorchError(
        "Cannot close this scope: a scope opened after it is still open; close scopes in reverse order (use `using`)",
      );
    }
    this.#closed = true;
    open.pop();
    freeAll(this.#owned);
    this.#owned.clear();
  }
}

/** Opens a scope: every tensor made until its disposal is freed with it, unless kept. */
export function scope(): Scope {
  return new Scope();
}

/** The innermost open scope. */
export function currentScope(): Scope | undefined {
  return open.at(-1);
}

/** Runs f and frees every tensor it made except those in its result (a tensor, or arrays, maps, objects of them). */
export function scoped<T>(f: () => T): T {
  using s = new Scope();
  const result = f();
  keepAll(s, result, "scoped");
  return result;
}

export function refusePromise(value: unknown, what: string): void {
  if (value instanceof Promise) {
    value.catch(() => {});
    throw new TorchError(
      `Cannot run an async function in ${what}(): it would also cover whatever else runs meanwhile; await outside`,
    );
  }
}

function keepAll(s: Scope, value: unknown, what: string): void {
  if (value === null || typeof value !== "object") return;
  refusePromise(value, what);
  if (isOwned(value)) {
    s.keep(value);
  } else if (Array.isArray(value)) {
    for (const item of value) keepAll(s, item, what);
  } else if (value instanceof Map) {
    for (const item of value.values()) keepAll(s, item, what);
  } else if (Object.getPrototypeOf(value) === Object.prototype) {
    for (const item of Object.values(value)) keepAll(s, item, what);
  }
}

function isOwned(value: object): value is Owned {
  return "handle" in value && "forget" in value;
}

function freeAll(owned: Set<Owned>): void {
  if (owned.size === 0) return;
  const handles = new Uint32Array(owned.size);
  let count = 0;
  for (const t of owned) {
    if (t.handle !== 0) handles[count++] = t.handle;
    t.forget();
    t.owner = undefined;
  }
  native.sdpg_free(handles, count);
}
