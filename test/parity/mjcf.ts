// MJCF as a tree of elements that can be written as XML and taken apart again: what the random
// models are built from and what the shrinker drops pieces of.

export interface Element {
  tag: string;
  attributes: Record<string, string>;
  children: Element[];
}

export type Value = string | number | boolean | readonly number[];

export function element(
  tag: string,
  attributes: Record<string, Value | undefined> = {},
  children: Element[] = [],
): Element {
  const text = Object.entries(attributes).filter(([, value]) => value !== undefined)
    .map(([name, value]) => [name, Array.isArray(value) ? value.join(" ") : String(value)]);
  return { tag, attributes: Object.fromEntries(text), children };
}

export function toXml({ tag, attributes, children }: Element, indent = ""): string {
  const head = `${indent}<${tag}` +
    Object.entries(attributes).map(([name, value]) => ` ${name}="${value}"`).join("");
  if (children.length === 0) return `${head}/>\n`;
  return `${head}>\n${children.map((child) => toXml(child, `${indent}  `)).join("")}` +
    `${indent}</${tag}>\n`;
}

/** Attributes that name another element. */
const references = ["joint", "geom1", "geom2", "body1", "body2", "hfield"];

/**
 * The smallest version of a model for which `fails` still holds, found by leaving out elements
 * (with everything that names them) and attributes as long as that is possible. At most
 * `attempts` calls of `fails`, which has to answer false for what does not compile.
 */
export async function shrink(
  model: Element,
  fails: (candidate: Element) => Promise<boolean>,
  attempts = 400,
): Promise<Element> {
  let best = model;
  for (let progress = true; progress;) {
    progress = false;
    // Candidates are taken from the end, so that what is left keeps its place in the list.
    for (let at = cuts(best).length - 1; at >= 0 && attempts > 0; at--) {
      const candidate = cuts(best)[at]?.();
      if (candidate === undefined) continue;
      attempts--;
      if (await fails(candidate)) {
        best = candidate;
        progress = true;
      }
    }
  }
  return best;
}

/** Every way to leave out one element or one attribute. */
function cuts(model: Element): (() => Element)[] {
  const list: (() => Element)[] = [];
  const visit = (path: number[], at: Element) => {
    if (path.length > 0 && at.tag !== "worldbody") {
      list.push(() => without(model, path));
      for (const name of Object.keys(at.attributes)) {
        if (name !== "name" && name !== "type" && name !== "size" && name !== "hfield") {
          list.push(() => edited(model, path, (element) => delete element.attributes[name]));
        }
      }
    }
    at.children.forEach((child, i) => visit([...path, i], child));
  };
  visit([], model);
  return list;
}

function edited(model: Element, path: number[], edit: (element: Element) => void): Element {
  const copy = structuredClone(model);
  edit(path.reduce((at, i) => at.children[i], copy));
  return copy;
}

function without(model: Element, path: number[]): Element {
  const gone = new Set<string>();
  const collect = (at: Element) => {
    if (at.attributes.name) gone.add(at.attributes.name);
    at.children.forEach(collect);
  };
  collect(path.reduce((at, i) => at.children[i], model));
  const copy = edited(model, path.slice(0, -1), (parent) => {
    parent.children.splice(path[path.length - 1], 1);
  });
  const clean = (at: Element) => {
    at.children = at.children.filter((child) =>
      !references.some((name) => gone.has(child.attributes[name]))
    );
    at.children.forEach(clean);
  };
  clean(copy);
  return copy;
}
