// The core against MuJoCo on random models (random_models.ts): whatever combination of supported
// features a model has, accelerations, forces, contacts and the next state agree to 1e-10 in
// double and 1e-4 in float32 (states that float32 cannot answer so exactly are counted and must be
// few, see answers.ts). A failing seed prints itself and the smallest model that still fails:
//
//   SDPG_PARITY_MODELS=17 deno run -A npm:vitest run --root . test/parity/random_models.test.ts
//   SDPG_PARITY_MODELS=0-2000 …                       # other seeds
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { compileModel, loadMjcf, sealModel, toMessage } from "@sdpg/common/model/compile.ts";
import { answerOf, compare, judge } from "./answers.ts";
import { GRAVITY, Worst } from "./compare.ts";
import { Core, instructionSets } from "./core.ts";
import { type Element, shrink, toXml } from "./mjcf.ts";
import { Oracle } from "./oracle.ts";
import { randomModel, randomStates } from "./random_models.ts";

const [FIRST, LAST] = seedRange(process.env.SDPG_PARITY_MODELS ?? "0-499");
const STATES = 8;
const hopper = new URL("../../tasks/hopper/model.xml", import.meta.url);

function seedRange(text: string): [number, number] {
  const match = /^(\d+)(?:-(\d+))?$/.exec(text);
  if (!match) throw new Error(`SDPG_PARITY_MODELS: expected "17" or "0-499", got "${text}"`);
  return [Number(match[1]), Number(match[2] ?? match[1])];
}

const folder = mkdtempSync(join(tmpdir(), "sdpg-random-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Verdict {
  /** Quantities out of tolerance. */
  failures: string[];
  double: Worst;
  /** States that float32 can answer to 1e-4; the others are `sensitive`. */
  single: Worst;
  sensitive: number;
  contacts: number;
  limits: number;
}

let sets: string[] = [];

/** Compares one model; throws where MuJoCo refuses it. */
async function examine(xml: string, seed: number): Promise<Verdict> {
  const path = join(folder, "model.xml");
  writeFileSync(path, xml);
  const loaded = await loadMjcf(path);
  using oracle = Oracle.of(loaded);
  const model = toMessage(loaded, path);
  Object.assign(model.option!, { tolerance: 0, iterations: 200, lsIterations: 200 });
  sealModel(model);
  const states = randomStates(model, seed, STATES);
  const weight = model.totalMass * GRAVITY;

  const answers = states.map((state) => answerOf(oracle, state));
  const verdict: Verdict = {
    failures: [],
    double: new Worst(),
    single: new Worst(),
    sensitive: 0,
    contacts: answers.reduce((sum, { forward }) => sum + forward.contacts.length, 0),
    limits: answers.reduce((sum, { limits }) => sum + limits.length, 0),
  };
  for (const precision of ["float64", "float32"] as const) {
    try {
      const isa = sets[seed % sets.length];
      using core = new Core(model, STATES, precision, isa);
      const set = () =>
        core.set(
          states.map((s) => s.qpos),
          states.map((s) => s.qvel),
          states.map((s) => s.ctrl),
          states.map((s) => s.act),
        );
      set();
      const ours = core.forward();
      set();
      core.step(1);
      const after = core.get();
      const faults = core.status();
      states.forEach((state, i) => {
        const worst = compare(i, ours[i], after[i], answers[i], weight);
        worst.add("faults", faults[i] & 3, i);
        const judged = judge(precision, worst, oracle, state, answers[i], weight);
        if (judged.sensitive) verdict.sensitive++;
        else (precision === "float64" ? verdict.double : verdict.single).merge(worst);
        verdict.failures.push(...judged.failures.map((line) => `${precision}, ${isa}: ${line}`));
      });
    } catch (error) {
      verdict.failures.push(`${precision}: ${(error as Error).message}`);
    }
  }
  return verdict;
}

/** The smallest part of a failing model that fails in the same precision. */
async function smallest(model: Element, seed: number, first: Verdict): Promise<string> {
  // "float64, avx2: qacc" or, where the core refused, its message without the names.
  const kindOf = (line: string) => line.replace(/ '.*?'|: [\de.+-]+ at .*/g, "");
  const kind = kindOf(first.failures[0]);
  const shrunk = await shrink(model, async (candidate) => {
    try {
      return (await examine(toXml(candidate), seed)).failures.some((line) => kindOf(line) === kind);
    } catch {
      return false;
    }
  });
  const { failures } = await examine(toXml(shrunk), seed);
  return `${toXml(shrunk)}${failures.join("\n")}`;
}

describe("random models", { timeout: 900_000 }, () => {
  test(`agree with MuJoCo (seeds ${FIRST} to ${LAST})`, async () => {
    const [double, single] = [new Worst(), new Worst()];
    sets = instructionSets(await compileModel(fileURLToPath(hopper)));
    const failing: string[] = [];
    let [contacts, limits, sensitive] = [0, 0, 0];
    for (let seed = FIRST; seed <= LAST; seed++) {
      const model = randomModel(seed);
      const verdict = await examine(toXml(model), seed);
      contacts += verdict.contacts;
      limits += verdict.limits;
      sensitive += verdict.sensitive;
      double.add("any", verdict.double.largest, seed);
      single.add("any", verdict.single.largest, seed);
      if (verdict.failures.length === 0) continue;
      failing.push(`seed ${seed}:\n${verdict.failures.join("\n")}`);
      if (failing.length === 1) {
        failing[0] += `\nreduced to\n${await smallest(model, seed, verdict)}`;
      }
      if (failing.length === 20) break;
    }
    console.log(JSON.stringify({
      models: LAST - FIRST + 1,
      contacts,
      limits,
      sensitive,
      double: double.table(),
      float32: single.table(),
    }));
    expect(failing.join("\n\n"), `${failing.length} seeds`).toBe("");
    if (LAST - FIRST >= 100) {
      expect(sensitive).toBeLessThan(0.03 * STATES * (LAST - FIRST));
      expect(contacts).toBeGreaterThan(10 * (LAST - FIRST));
      expect(limits).toBeGreaterThan(5 * (LAST - FIRST));
    }
  });
});
