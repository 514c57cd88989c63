import { expect, test } from "vitest";
import { differences, leavesOf } from "./differences.ts";

test("leavesOf() names every leaf by its path; a list is one", () => {
  expect([...leavesOf({ a: 1, b: { c: [2, 3], d: null }, e: {} })])
    .toEqual([["a", "1"], ["b.c", "2,3"], ["b.d", "null"]]);
});

test("differences() keeps what is not the same everywhere, and what is absent somewhere", () => {
  const values = [{ a: 1, b: { c: 2 } }, { a: 1, b: { c: 3 } }, { a: 1, b: { c: 2 }, d: true }];
  expect(differences(values)).toEqual([
    { path: "b.c", values: ["2", "3", "2"] },
    { path: "d", values: [undefined, undefined, "true"] },
  ]);
  expect(differences([{ a: 1 }, { a: 1 }])).toEqual([]);
});
