import { describe, expect, test } from "vitest";
import { helpText, oneOf, parse, read, UsageError, verb } from "./flags.ts";

const readColour = oneOf("red", "green");
const paint = verb({
  name: "paint",
  summary: "paints",
  positionals: [
    { name: "wall", meaning: "which wall", required: true },
    { name: "corner", meaning: "corners", required: false, many: true },
  ],
  options: {
    coats: { value: "N", meaning: "layers", read: read.count, aliases: ["num_coats"] },
    seed: { value: "N", meaning: "seed", read: read.seed },
    colour: { value: "red|green", meaning: "colour", read: readColour, fallback: "red" },
    json: { meaning: "as JSON" },
  },
  overrides: true,
  hints: { headless: "there is no head" },
  examples: ["./sdpg paint north"],
  run: () => Promise.resolve(0),
});

describe("parse()", () => {
  test("reads every spelling of an option as the same value", () => {
    const spellings = [["--coats", "3"], ["--coats=3"], ["coats=3"], ["--num_coats", "3"]];
    for (const spelling of spellings) {
      expect(parse(paint, ["north", ...spelling]).options.coats).toBe(3);
    }
  });

  test("keeps positionals, switches and overrides apart", () => {
    const { positionals, options, overrides } = parse(paint, [
      "north",
      "--json",
      "a.b=1",
      "--c.d=x=y",
      "--e.f",
      "2",
      "batch=4",
      "east",
    ]);
    expect(positionals).toEqual(["north", "east"]);
    expect(options).toMatchObject({ json: true });
    expect(overrides).toEqual({ "a.b": "1", "c.d": "x=y", "e.f": "2", batch: "4" });
  });

  test("takes what follows -- as it is, and text with spaces as a positional", () => {
    expect(parse(paint, ["a = 1 and b", "--", "--coats"]).positionals)
      .toEqual(["a = 1 and b", "--coats"]);
  });

  test("takes signed words where a verb has them, and nothing else with a dash", () => {
    const signs = verb({
      ...paint,
      positionals: [{
        name: "run|+tag|-tag",
        meaning: "x",
        required: true,
        many: true,
        signed: true,
      }],
    });
    expect(parse(signs, ["a", "+new", "-old", "-2", "--json"]).positionals)
      .toEqual(["a", "+new", "-old", "-2"]);
    expect(() => parse(signs, ["a", "--old"])).toThrow("Cannot use --old: unknown flag");
    expect(() => parse(paint, ["a", "-old"])).toThrow('Cannot use "-old"');
  });

  test("reads seeds up to 2^64 - 1 exactly", () => {
    expect(parse(paint, ["north", "--seed", "18446744073709551615"]).options.seed)
      .toBe(18446744073709551615n);
    expect(() => parse(paint, ["north", "--seed", "18446744073709551616"])).toThrow(UsageError);
  });

  const refusals: [string[], string][] = [
    [[], "Cannot paint without <wall>"],
    [["north", "--coat", "3"], `did you mean "--coats"?`],
    [["north", "coat=3"], `did you mean "coats"?`],
    [["north", "--zebra"], "unknown flag; see ./sdpg paint --help"],
    [["north", "--coats"], "expected a value (N)"],
    [["north", "--coats", "0"], "expected a whole number, 1 or more"],
    [["north", "--coats", "1e3"], "expected a whole number, 1 or more"],
    [["north", "--coats", "2", "coats=3"], "twice"],
    [["north", "--colour", "gren"], `did you mean "green"?`],
    [["north", "--json=yes"], "it takes no value"],
    [["north", "--headless"], "there is no head"],
    [["north", "-c", "3"], "expected --name value"],
    [["north", "--a.b"], "expected a.b=value"],
    [["north", "a.b=1", "--a.b=2"], "Cannot set a.b twice"],
  ];
  test.each(refusals)("refuses %j", (args, message) => {
    expect(() => parse(paint, args)).toThrow(UsageError);
    expect(() => parse(paint, args)).toThrow(message);
  });

  test("refuses overrides and surplus arguments where a verb takes none", () => {
    const plain = verb({ ...paint, overrides: false, positionals: [] });
    expect(() => parse(plain, ["a.b=1"])).toThrow("unknown flag");
    expect(() => parse(plain, ["north"])).toThrow("takes no argument");
  });
});

test("helpText() names every option, alias, default and example", () => {
  const text = helpText(paint);
  for (const part of ["--coats N", "--num_coats", "(default red)", "<corner>…", "north"]) {
    expect(text).toContain(part);
  }
});
