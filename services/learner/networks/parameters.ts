// Named parameters as ordered maps: what networks expose, checkpoints store and target networks follow.

import { noGrad, type Tensor, TorchError } from "../torch/mod.ts";

export type Parameters = ReadonlyMap<string, Tensor>;

/** One map of several networks' parameters, each name behind its prefix and a dot. */
export function joined(parts: Record<string, Parameters>): Map<string, Tensor> {
  const all = new Map<string, Tensor>();
  for (const [prefix, part] of Object.entries(parts)) {
    for (const [name, t] of part) all.set(`${prefix}.${name}`, t);
  }
  return all;
}

function pairs(into: Parameters, from: Parameters): [Tensor, Tensor][] {
  for (const name of from.keys()) {
    if (!into.has(name)) {
      throw new TorchError(`Cannot load parameters: the network has no "${name}"`);
    }
  }
  return [...into].map(([name, mine]) => {
    const theirs = from.get(name);
    if (theirs === undefined) throw new TorchError(`Cannot load parameters: "${name}" is missing`);
    if (theirs.toString() !== mine.toString()) {
      throw new TorchError(`Cannot load parameter "${name}": expected ${mine}, got ${theirs}`);
    }
    return [mine, theirs];
  });
}

/** into ← from; names and shapes must be the same, and nothing is changed if they are not. */
export function copyParameters(into: Parameters, from: Parameters): void {
  const all = pairs(into, from);
  noGrad(() => all.forEach(([mine, theirs]) => mine.copy_(theirs)));
}

/** into ← into + weight · (from − into). weight = 1 copies exactly. */
export function lerpParameters(into: Parameters, from: Parameters, weight: number): void {
  if (!(weight >= 0 && weight <= 1)) {
    throw new TorchError(`Cannot mix parameters with weight ${weight}: expected 0 to 1`);
  }
  const all = pairs(into, from);
  noGrad(() => all.forEach(([mine, theirs]) => mine.lerp_(theirs, weight)));
}
