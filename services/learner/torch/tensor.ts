// Tensors with PyTorch's names and meanings, over the operators of native/ops.cc.
//
// Memory: a tensor belongs to the scope that was innermost when it was made (scope.ts); views (reshape, slice, select,
// detach …) share storage and keep it alive. Devices: CPU. Numbers given as operands are weak, as in Python: a whole
// number keeps an integer tensor integer, and no number changes float32 to float64.

import {
  call,
  call1,
  call2,
  callForNumbers,
  callNumber,
  lastError,
  native,
  operator,
  results,
  TorchError,
} from "./ffi.ts";
import { currentScope, type Owned, refusePromise, type Scope } from "./scope.ts";
import type { Generator } from "./generator.ts";

export type Dtype = "float32" | "float64" | "int64" | "int32" | "uint8" | "bool";
export type Operand = Tensor | number;
export type Shape = readonly number[];
export type NumericArray = Float32Array | Float64Array | BigInt64Array | Int32Array | Uint8Array;
export interface Options {
  /** Default float32. */
  dtype?: Dtype;
}

const DTYPES: readonly Dtype[] = ["float32", "float64", "int64", "int32", "uint8", "bool"];
const BYTES: Record<Dtype, number> = {
  float32: 4,
  float64: 8,
  int64: 8,
  int32: 4,
  uint8: 1,
  bool: 1,
};

/** Bytes of one element. */
export function elementBytes(dtype: Dtype): number {
  return BYTES[dtype];
}

function dtypeCode(dtype: Dtype): number {
  const code = DTYPES.indexOf(dtype);
  if (code < 0) {
    throw new TorchError(`Cannot use dtype "${dtype}": expected one of ${DTYPES.join(", ")}`);
  }
  return code;
}

// Operator codes, looked up once when the module loads: a library without one of them is refused here, by name.
const both = (name: string) => ({ t: operator(name), s: operator(`${name}_s`) });
const OP = {
  add: both("add"),
  sub: both("sub"),
  mul: both("mul"),
  div: both("div"),
  pow: both("pow"),
  minimum: both("minimum"),
  maximum: both("maximum"),
  eq: both("eq"),
  ne: both("ne"),
  lt: both("lt"),
  le: both("le"),
  gt: both("gt"),
  ge: both("ge"),
  rsub: operator("rsub_s"),
  add_: both("add_"),
  sub_: both("sub_"),
  mul_: both("mul_"),
  div_: both("div_"),
  logicalAnd: operator("logical_and"),
  logicalOr: operator("logical_or"),
  where: operator("where"),
  neg: operator("neg"),
  abs: operator("abs"),
  square: operator("square"),
  sqrt: operator("sqrt"),
  exp: operator("exp"),
  log: operator("log"),
  tanh: operator("tanh"),
  sigmoid: operator("sigmoid"),
  sin: operator("sin"),
  cos: operator("cos"),
  sign: operator("sign"),
  floor: operator("floor"),
  elu: operator("elu"),
  relu: operator("relu"),
  softplus: operator("softplus"),
  logicalNot: operator("logical_not"),
  isfinite: operator("isfinite"),
  detach: operator("detach"),
  clone: operator("clone"),
  contiguous: operator("contiguous"),
  clamp: operator("clamp"),
  to: operator("to"),
  sum: operator("sum"),
  mean: operator("mean"),
  var: operator("var"),
  std: operator("std"),
  max: operator("max"),
  min: operator("min"),
  argmax: operator("argmax"),
  argmin: operator("argmin"),
  all: operator("all"),
  any: operator("any"),
  norm: operator("norm"),
  cumsum: operator("cumsum"),
  reshape: operator("reshape"),
  transpose: operator("transpose"),
  permute: operator("permute"),
  unsqueeze: operator("unsqueeze"),
  squeeze: operator("squeeze"),
  expand: operator("expand"),
  slice: operator("slice"),
  select: operator("select"),
  indexSelect: operator("index_select"),
  gather: operator("gather"),
  repeatInterleave: operator("repeat_interleave"),
  flatten: operator("flatten"),
  flip: operator("flip"),
  topk: operator("topk"),
  cat: operator("cat"),
  stack: operator("stack"),
  matmul: operator("matmul"),
  linear: operator("linear"),
  layerNorm: operator("layer_norm"),
  conv2d: operator("conv2d"),
  mseLoss: operator("mse_loss"),
  qr: operator("qr"),
  zeros: operator("zeros"),
  ones: operator("ones"),
  full: operator("full"),
  arange: operator("arange"),
  eye: operator("eye"),
  randn: operator("randn"),
  rand: operator("rand"),
  randperm: operator("randperm"),
  copy_: operator("copy_"),
  zero_: operator("zero_"),
  fill_: operator("fill_"),
  clamp_: operator("clamp_"),
  lerp_: operator("lerp_"),
  requiresGrad_: operator("requires_grad_"),
  backward: operator("backward"),
  grad: operator("grad"),
  setGrad: operator("set_grad"),
  zeroGrad: operator("zero_grad"),
  clipGradNorm: operator("clip_grad_norm"),
  item: operator("item"),
  lambdaReturn: operator("lambda_return"),
};

const about = new Float64Array(16);

export class Tensor implements Disposable, Owned {
  #handle: number;
  #shape: readonly number[] | undefined;
  #dtype: Dtype = "float32";
  owner: Scope | undefined;

  /** Takes over a native handle; user code makes tensors with the factories below. */
  constructor(handle: number) {
    this.#handle = handle;
    currentScope()?.adopt(this);
  }

  /** Native handle; throws once the tensor was freed only where it is used. */
  get handle(): number {
    return this.#handle;
  }
  forget(): void {
    this.#handle = 0;
  }

  /** Frees now; freeing twice is harmless. */
  [Symbol.dispose](): void {
    if (this.#handle === 0) return;
    one[0] = this.#handle;
    this.#handle = 0;
    this.owner?.drop(this);
    native.sdpg_free(one, 1);
  }

  /** Takes the tensor out of every scope: it lives until it is disposed. For parameters and other long-lived state. */
  persist(): this {
    this.owner?.drop(this);
    return this;
  }

  #describe(): void {
    if (native.sdpg_describe(this.#handle, about) < 0) throw lastError();
    this.#dtype = DTYPES[about[0]];
    this.#shape = Object.freeze(Array.from(about.subarray(4, 4 + about[1])));
  }

  get shape(): readonly number[] {
    if (this.#shape === undefined) this.#describe();
    return this.#shape!;
  }
  get dtype(): Dtype {
    if (this.#shape === undefined) this.#describe();
    return this.#dtype;
  }
  get numel(): number {
    return this.shape.reduce((product, size) => product * size, 1);
  }
  get requiresGrad(): boolean {
    if (native.sdpg_describe(this.#handle, about) < 0) throw lastError();
    return about[2] === 1;
  }

  #binary(op: { t: number; s: number }, other: Operand): Tensor {
    return new Tensor(
      typeof other === "number"
        ? callNumber(op.s, this.#handle, other)
        : call2(op.t, this.#handle, other.#handle),
    );
  }
  #unary(op: number): Tensor {
    return new Tensor(call1(op, this.#handle));
  }
  #with(op: number, values: readonly number[]): Tensor {
    call(op, [this.#handle], values);
    return new Tensor(results[0]);
  }
  #inPlace(op: { t: number; s: number }, other: Operand): this {
    if (typeof other === "number") callNumber(op.s, this.#handle, other);
    else call2(op.t, this.#handle, other.#handle);
    return this;
  }

  // Elementwise with broadcasting.
  add(other: Operand): Tensor {
    return this.#binary(OP.add, other);
  }
  sub(other: Operand): Tensor {
    return this.#binary(OP.sub, other);
  }
  /** other − this. */
  rsub(other: number): Tensor {
    return new Tensor(callNumber(OP.rsub, this.#handle, other));
  }
  mul(other: Operand): Tensor {
    return this.#binary(OP.mul, other);
  }
  div(other: Operand): Tensor {
    return this.#binary(OP.div, other);
  }
  pow(other: Operand): Tensor {
    return this.#binary(OP.pow, other);
  }
  minimum(other: Operand): Tensor {
    return this.#binary(OP.minimum, other);
  }
  maximum(other: Operand): Tensor {
    return this.#binary(OP.maximum, other);
  }
  eq(other: Operand): Tensor {
    return this.#binary(OP.eq, other);
  }
  ne(other: Operand): Tensor {
    return this.#binary(OP.ne, other);
  }
  lt(other: Operand): Tensor {
    return this.#binary(OP.lt, other);
  }
  le(other: Operand): Tensor {
    return this.#binary(OP.le, other);
  }
  gt(other: Operand): Tensor {
    return this.#binary(OP.gt, other);
  }
  ge(other: Operand): Tensor {
    return this.#binary(OP.ge, other);
  }
  logicalAnd(other: Tensor): Tensor {
    return new Tensor(call2(OP.logicalAnd, this.#handle, other.#handle));
  }
  logicalOr(other: Tensor): Tensor {
    return new Tensor(call2(OP.logicalOr, this.#handle, other.#handle));
  }

  neg(): Tensor {
    return this.#unary(OP.neg);
  }
  abs(): Tensor {
    return this.#unary(OP.abs);
  }
  square(): Tensor {
    return this.#unary(OP.square);
  }
  sqrt(): Tensor {
    return this.#unary(OP.sqrt);
  }
  exp(): Tensor {
    return this.#unary(OP.exp);
  }
  log(): Tensor {
    return this.#unary(OP.log);
  }
  tanh(): Tensor {
    return this.#unary(OP.tanh);
  }
  sigmoid(): Tensor {
    return this.#unary(OP.sigmoid);
  }
  sin(): Tensor {
    return this.#unary(OP.sin);
  }
  cos(): Tensor {
    return this.#unary(OP.cos);
  }
  sign(): Tensor {
    return this.#unary(OP.sign);
  }
  floor(): Tensor {
    return this.#unary(OP.floor);
  }
  /** α = 1. */
  elu(): Tensor {
    return this.#unary(OP.elu);
  }
  relu(): Tensor {
    return this.#unary(OP.relu);
  }
  softplus(): Tensor {
    return this.#unary(OP.softplus);
  }
  logicalNot(): Tensor {
    return this.#unary(OP.logicalNot);
  }
  isfinite(): Tensor {
    return this.#unary(OP.isfinite);
  }
  /** The same storage without the gradient graph. */
  detach(): Tensor {
    return this.#unary(OP.detach);
  }
  clone(): Tensor {
    return this.#unary(OP.clone);
  }
  contiguous(): Tensor {
    return this.#unary(OP.contiguous);
  }
  to(dtype: Dtype): Tensor {
    return new Tensor(callNumber(OP.to, this.#handle, dtypeCode(dtype)));
  }

  /** Bounds are numbers or tensors that broadcast. */
  clamp(min?: Operand, max?: Operand): Tensor {
    if (typeof min !== "object" && typeof max !== "object") {
      return this.#with(OP.clamp, bounds(min, max));
    }
    if (min === undefined) return this.minimum(max!);
    if (max === undefined) return this.maximum(min);
    using low = this.maximum(min);
    return low.minimum(max);
  }

  // Reductions: dim omitted means all dimensions (a scalar tensor).
  sum(dim?: number | Shape, keepdim = false): Tensor {
    return this.#with(OP.sum, [+keepdim, ...dims(dim)]);
  }
  mean(dim?: number | Shape, keepdim = false): Tensor {
    return this.#with(OP.mean, [+keepdim, ...dims(dim)]);
  }
  /** Divides by n − 1 unless unbiased is false. */
  var(dim?: number | Shape, options: { unbiased?: boolean; keepdim?: boolean } = {}): Tensor {
    const { unbiased = true, keepdim = false } = options;
    return this.#with(OP.var, [+keepdim, +unbiased, ...dims(dim)]);
  }
  std(dim?: number | Shape, options: { unbiased?: boolean; keepdim?: boolean } = {}): Tensor {
    const { unbiased = true, keepdim = false } = options;
    return this.#with(OP.std, [+keepdim, +unbiased, ...dims(dim)]);
  }
  /** The values only (PyTorch's amax). */
  max(dim?: number | Shape, keepdim = false): Tensor {
    return this.#with(OP.max, [+keepdim, ...dims(dim)]);
  }
  min(dim?: number | Shape, keepdim = false): Tensor {
    return this.#with(OP.min, [+keepdim, ...dims(dim)]);
  }
  argmax(dim: number, keepdim = false): Tensor {
    return this.#with(OP.argmax, [+keepdim, dim]);
  }
  argmin(dim: number, keepdim = false): Tensor {
    return this.#with(OP.argmin, [+keepdim, dim]);
  }
  all(): Tensor {
    return this.#unary(OP.all);
  }
  any(): Tensor {
    return this.#unary(OP.any);
  }
  /** L2 norm of all elements. */
  norm(): Tensor {
    return this.#unary(OP.norm);
  }
  cumsum(dim: number): Tensor {
    return this.#with(OP.cumsum, [dim]);
  }

  // Shape; all are views where the layout allows.
  reshape(shape: Shape): Tensor {
    return this.#with(OP.reshape, [shape.length, ...shape]);
  }
  transpose(a: number, b: number): Tensor {
    return this.#with(OP.transpose, [a, b]);
  }
  permute(order: Shape): Tensor {
    return this.#with(OP.permute, [order.length, ...order]);
  }
  unsqueeze(dim: number): Tensor {
    return this.#with(OP.unsqueeze, [dim]);
  }
  squeeze(dim: number): Tensor {
    return this.#with(OP.squeeze, [dim]);
  }
  /** −1 keeps a size. */
  expand(shape: Shape): Tensor {
    return this.#with(OP.expand, [shape.length, ...shape]);
  }
  slice(dim: number, start: number, end: number, step = 1): Tensor {
    return this.#with(OP.slice, [dim, start, end, step]);
  }
  select(dim: number, index: number): Tensor {
    return this.#with(OP.select, [dim, index]);
  }
  /** index: int64 or int32 [n]. */
  indexSelect(dim: number, index: Tensor): Tensor {
    call(OP.indexSelect, [this.#handle, index.#handle], [dim]);
    return new Tensor(results[0]);
  }
  gather(dim: number, index: Tensor): Tensor {
    call(OP.gather, [this.#handle, index.#handle], [dim]);
    return new Tensor(results[0]);
  }
  repeatInterleave(repeats: number, dim: number): Tensor {
    return this.#with(OP.repeatInterleave, [repeats, dim]);
  }
  flatten(start = 0): Tensor {
    return this.#with(OP.flatten, [start]);
  }
  flip(order: Shape): Tensor {
    return this.#with(OP.flip, [order.length, ...order]);
  }
  /** The k largest along dim, largest first. */
  topk(k: number, dim: number): { values: Tensor; indices: Tensor } {
    call(OP.topk, [this.#handle], [k, dim]);
    const [values, indices] = [results[0], results[1]];
    return { values: new Tensor(values), indices: new Tensor(indices) };
  }

  // Products and layers.
  matmul(other: Tensor): Tensor {
    return new Tensor(call2(OP.matmul, this.#handle, other.#handle));
  }
  /** this [..., in] · weightᵀ + bias; weight [out, in], bias [out]. */
  linear(weight: Tensor, bias?: Tensor): Tensor {
    call(OP.linear, handlesOf(this, weight, bias), []);
    return new Tensor(results[0]);
  }
  layerNorm(normalizedShape: Shape, weight?: Tensor, bias?: Tensor, eps = 1e-5): Tensor {
    call(
      OP.layerNorm,
      handlesOf(this, weight, bias),
      [eps, normalizedShape.length, ...normalizedShape],
    );
    return new Tensor(results[0]);
  }
  /** this [B, C, H, W], weight [O, C, h, w], bias [O]. */
  conv2d(
    weight: Tensor,
    bias?: Tensor,
    options: { stride?: number; padding?: number } = {},
  ): Tensor {
    call(OP.conv2d, handlesOf(this, weight, bias), [options.stride ?? 1, options.padding ?? 0]);
    return new Tensor(results[0]);
  }
  /** Reduced QR of [m, n], m ≥ n. */
  qr(): { q: Tensor; r: Tensor } {
    call(OP.qr, [this.#handle], []);
    const [q, r] = [results[0], results[1]];
    return { q: new Tensor(q), r: new Tensor(r) };
  }

  // In place; on a leaf that requires a gradient only inside noGrad().
  add_(other: Operand): this {
    return this.#inPlace(OP.add_, other);
  }
  sub_(other: Operand): this {
    return this.#inPlace(OP.sub_, other);
  }
  mul_(other: Operand): this {
    return this.#inPlace(OP.mul_, other);
  }
  div_(other: Operand): this {
    return this.#inPlace(OP.div_, other);
  }
  /** Copies other into this, broadcasting and converting. */
  copy_(other: Tensor): this {
    call(OP.copy_, [this.#handle, other.#handle], []);
    return this;
  }
  zero_(): this {
    call(OP.zero_, [this.#handle], []);
    return this;
  }
  fill_(value: number): this {
    call(OP.fill_, [this.#handle], [value]);
    return this;
  }
  clamp_(min?: number, max?: number): this {
    call(OP.clamp_, [this.#handle], bounds(min, max));
    return this;
  }
  /** this ← this + weight · (end − this). */
  lerp_(end: Tensor, weight: number): this {
    call(OP.lerp_, [this.#handle, end.#handle], [weight]);
    return this;
  }
  requiresGrad_(requires = true): this {
    call(OP.requiresGrad_, [this.#handle], [+requires]);
    return this;
  }

  // Gradients.
  /** Accumulates gradients into the leaves; gradient is needed unless this has one element. */
  backward(gradient?: Tensor): void {
    call(OP.backward, handlesOf(this, gradient), []);
  }
  /** The accumulated gradient (shares its storage), or null. */
  grad(): Tensor | null {
    return call(OP.grad, [this.#handle], []) === 0 ? null : new Tensor(results[0]);
  }
  setGrad(gradient: Tensor | null): void {
    call(OP.setGrad, handlesOf(this, gradient ?? undefined), []);
  }

  // Out of the tensor world.
  /** The only element, as a number. */
  item(): number {
    return callForNumbers(OP.item, [this.#handle], [], 1)[0];
  }
  /** A copy of the elements, row-major: int64 as BigInt64Array, bool and uint8 as Uint8Array. */
  toArray(): NumericArray {
    const { buffer } = this.bytes();
    switch (this.dtype) {
      case "float32":
        return new Float32Array(buffer);
      case "float64":
        return new Float64Array(buffer);
      case "int64":
        return new BigInt64Array(buffer);
      case "int32":
        return new Int32Array(buffer);
      default:
        return new Uint8Array(buffer);
    }
  }
  /** A copy of the elements as bytes, row-major, little-endian. */
  bytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.numel * BYTES[this.dtype]);
    if (native.sdpg_to_bytes(this.#handle, bytes, bytes.length) < 0) throw lastError();
    return bytes;
  }
  /** "float32[2, 3]" */
  toString(): string {
    return `${this.dtype}[${this.shape.join(", ")}]`;
  }
}

const one = new Uint32Array(1);

function handlesOf(first: Tensor, ...rest: (Tensor | undefined)[]): number[] {
  const all = [first.handle];
  let gap = false;
  for (const t of rest) {
    if (t === undefined) {
      gap = true;
    } else {
      if (gap) {
        throw new TorchError("Cannot give a later optional tensor without the one before it");
      }
      all.push(t.handle);
    }
  }
  return all;
}

/** Length and elements, as the native side reads a list. */
function dims(dim: number | Shape | undefined): number[] {
  if (dim === undefined) return [0];
  if (typeof dim === "number") return [1, dim];
  return [dim.length, ...dim];
}

function bounds(min: number | undefined, max: number | undefined): number[] {
  return [min === undefined ? 0 : 1, min ?? 0, max === undefined ? 0 : 1, max ?? 0];
}

function made(op: number, tensors: readonly number[], values: readonly number[]): Tensor {
  call(op, tensors, values);
  return new Tensor(results[0]);
}

export function zeros(shape: Shape, options: Options = {}): Tensor {
  return made(OP.zeros, [], [dtypeCode(options.dtype ?? "float32"), shape.length, ...shape]);
}
export function ones(shape: Shape, options: Options = {}): Tensor {
  return made(OP.ones, [], [dtypeCode(options.dtype ?? "float32"), shape.length, ...shape]);
}
export function full(shape: Shape, value: number, options: Options = {}): Tensor {
  return made(OP.full, [], [dtypeCode(options.dtype ?? "float32"), value, shape.length, ...shape]);
}
/** 0 … n − 1, int64 unless a dtype is given. */
export function arange(n: number, options: Options = {}): Tensor {
  return made(OP.arange, [], [dtypeCode(options.dtype ?? "int64"), n]);
}
export function eye(n: number, options: Options = {}): Tensor {
  return made(OP.eye, [], [dtypeCode(options.dtype ?? "float32"), n]);
}

/** A copy of values, row-major. The dtype follows the array's type; number[] becomes float32 unless a dtype is given. */
export function fromArray(
  values: NumericArray | readonly number[],
  shape: Shape,
  options: Options = {},
): Tensor {
  const [array, from] = typed(values, options.dtype);
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  const t = fromBytes(bytes, from, shape);
  if (options.dtype === undefined || options.dtype === from) return t;
  using source = t;
  return source.to(options.dtype);
}

function typed(
  values: NumericArray | readonly number[],
  wanted: Dtype | undefined,
): [NumericArray, Dtype] {
  if (values instanceof Float32Array) return [values, "float32"];
  if (values instanceof Float64Array) return [values, "float64"];
  if (values instanceof BigInt64Array) return [values, "int64"];
  if (values instanceof Int32Array) return [values, "int32"];
  if (values instanceof Uint8Array) return [values, wanted === "bool" ? "bool" : "uint8"];
  if (!Array.isArray(values)) {
    throw new TorchError(
      `Cannot make a tensor from ${
        Object.prototype.toString.call(values)
      }: expected number[], Float32Array, Float64Array, BigInt64Array, Int32Array or Uint8Array`,
    );
  }
  // Through float64 a list keeps every value that any other dtype can hold.
  return wanted === undefined || wanted === "float32"
    ? [Float32Array.from(values), "float32"]
    : [Float64Array.from(values), "float64"];
}

/** A copy of bytes (row-major, little-endian), whose length must be what dtype and shape need. */
export function fromBytes(bytes: Uint8Array, dtype: Dtype, shape: Shape): Tensor {
  const handle = native.sdpg_from_bytes(
    bytes as Uint8Array<ArrayBuffer>,
    bytes.length,
    dtypeCode(dtype),
    Float64Array.from(shape),
    shape.length,
  );
  if (handle === 0) throw lastError();
  return new Tensor(handle);
}

/** A view of foreign memory, no copy: it must stay mapped until the tensor and all its views are freed. */
export function fromPointer(
  pointer: Deno.PointerObject | bigint,
  dtype: Dtype,
  shape: Shape,
): Tensor {
  const address = typeof pointer === "bigint" ? Deno.UnsafePointer.create(pointer) : pointer;
  const handle = native.sdpg_from_pointer(
    address,
    dtypeCode(dtype),
    Float64Array.from(shape),
    shape.length,
  );
  if (handle === 0) throw lastError();
  return new Tensor(handle);
}

export function cat(tensors: readonly Tensor[], dim: number): Tensor {
  return made(OP.cat, tensors.map((t) => t.handle), [dim]);
}
export function stack(tensors: readonly Tensor[], dim: number): Tensor {
  return made(OP.stack, tensors.map((t) => t.handle), [dim]);
}

/** a where cond is true, b elsewhere; numbers take the dtype of the other branch (float32 if both are numbers). */
export function where(cond: Tensor, a: Operand, b: Operand): Tensor {
  const dtype = typeof a === "object" ? a.dtype : typeof b === "object" ? b.dtype : "float32";
  using x = typeof a === "number" ? full([], a, { dtype }) : undefined;
  using y = typeof b === "number" ? full([], b, { dtype }) : undefined;
  return made(OP.where, [cond.handle, (x ?? a as Tensor).handle, (y ?? b as Tensor).handle], []);
}

/** Mean of squared differences over all elements. */
export function mseLoss(a: Tensor, b: Tensor): Tensor {
  return made(OP.mseLoss, [a.handle, b.handle], []);
}

/** Standard normal numbers. */
export function randn(shape: Shape, generator: Generator, options: Options = {}): Tensor {
  const dtype = dtypeCode(options.dtype ?? "float32");
  return made(OP.randn, [], [dtype, generator.id, shape.length, ...shape]);
}
/** Uniform in [0, 1). */
export function rand(shape: Shape, generator: Generator, options: Options = {}): Tensor {
  const dtype = dtypeCode(options.dtype ?? "float32");
  return made(OP.rand, [], [dtype, generator.id, shape.length, ...shape]);
}
/** A random permutation of 0 … n − 1, int64 [n]. */
export function randperm(n: number, generator: Generator): Tensor {
  return made(OP.randperm, [], [generator.id, n]);
}

/**
 * λ-returns of a segment (reference/sdpg.md 1.5). reward, bootstrap: float32 or float64 [T, E]; done: [T, E], any dtype,
 * non-zero where the segment ends. λ = 1 gives the plain discounted return with bootstrap. The last step always ends.
 * Carries no gradient.
 */
export function lambdaReturn(
  reward: Tensor,
  bootstrap: Tensor,
  done: Tensor,
  gamma: number,
  lambda: number,
): Tensor {
  return made(OP.lambdaReturn, [reward.handle, bootstrap.handle, done.handle], [gamma, lambda]);
}

/** Runs f without recording gradients. */
export function noGrad<T>(f: () => T): T {
  const before = native.sdpg_set_grad_enabled(0);
  try {
    const result = f();
    refusePromise(result, "noGrad");
    return result;
  } finally {
    native.sdpg_set_grad_enabled(before);
  }
}

/** Tensors alive in this process. */
export function liveTensors(): number {
  return native.sdpg_live();
}

/** Scales gradients so that their global L2 norm is at most maxNorm; returns the norm before. */
export function clipGradNorm(parameters: readonly Tensor[], maxNorm: number): number {
  const [norm] = callForNumbers(
    OP.clipGradNorm,
    parameters.map((p) => p.handle),
    [maxNorm],
    1,
  );
  return norm;
}

/** Forgets the gradients of all. */
export function zeroGrad(parameters: readonly Tensor[]): void {
  call(OP.zeroGrad, parameters.map((p) => p.handle), []);
}
