// The operations of task programs in float32, one element at a time: used by the interpreter and
// to do arithmetic on constants while compiling.
import type { ElementwiseOp } from "./expression.ts";

const fround = Math.fround;
const PI = fround(Math.PI);
const TURN = fround(2 * Math.PI);
const bool = (condition: boolean) => condition ? 1 : 0;

/** dst of one element. Operands are float32 values; those an operation does not take are ignored. */
export function evaluateElementwise(op: ElementwiseOp, a: number, b: number, c: number): number {
  switch (op) {
    case "ADD":
      return fround(a + b);
    case "SUB":
      return fround(a - b);
    case "MUL":
      return fround(a * b);
    case "DIV":
      return fround(a / b);
    // As x86's minps and maxps, and as gpu-sim: b where either is not a number or both are zeros.
    case "MIN":
      return a < b ? a : b;
    case "MAX":
      return a > b ? a : b;
    case "NEG":
      return -a;
    case "ABS":
      return Math.abs(a);
    case "SQRT":
      return fround(Math.sqrt(a));
    case "EXP":
      return fround(Math.exp(a));
    case "LOG":
      return fround(Math.log(a));
    case "SIN":
      return fround(Math.sin(a));
    case "COS":
      return fround(Math.cos(a));
    case "TANH":
      return fround(Math.tanh(a));
    case "ATAN2":
      return fround(Math.atan2(a, b));
    case "FLOOR":
      return Math.floor(a);
    case "MULADD":
      return fround(a * b + c);
    case "WRAP_ANGLE":
      return fround(a + fround(TURN * Math.floor(fround(fround(PI - a) / TURN))));
    case "LESS":
      return bool(a < b);
    case "LESS_EQUAL":
      return bool(a <= b);
    case "EQUAL":
      return bool(a === b);
    // Any number but 0 is true, so is not-a-number.
    case "AND":
      return bool(a !== 0 && b !== 0);
    case "OR":
      return bool(a !== 0 || b !== 0);
    case "NOT":
      return bool(a === 0);
    case "SELECT":
      return a !== 0 ? b : c;
  }
}
