/// <reference lib="dom" />
// Tags and notes of runs: shown, and written through the service that serves the page.

import { type Annotation, longestNote, wrongTag } from "../../common/annotation.ts";
import { h } from "./dom.ts";

/** Stores what is said of a run; throws with one line where that is refused. */
export async function annotate(run: string, annotation: Annotation): Promise<void> {
  const response = await fetch(`/ui/annotations/${run}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(annotation),
  });
  const text = (await response.text()).trim();
  if (!response.ok) throw new Error(text);
}

/** The tags of what was typed, separated by blanks or commas. Throws for one that cannot be. */
export function tagsOf(text: string): string[] {
  const tags = [...new Set(text.split(/[\s,]+/).filter(Boolean))];
  const wrong = wrongTag(tags);
  if (wrong) throw new Error(`Cannot use tag "${wrong.came}": expected ${wrong.expected}`);
  return tags;
}

/** Tags as links to the runs that have them. */
export function tagList(tags: readonly string[], more?: (tag: string) => Node): HTMLElement {
  return h(
    "ul",
    { class: "tags", "aria-label": "Tags" },
    ...tags.map((tag) =>
      h(
        "li",
        {},
        h("a", { href: `#/runs?tag=${encodeURIComponent(tag)}` }, tag),
        more?.(tag),
      )
    ),
  );
}

export interface AnnotationEditor {
  element: HTMLElement;
  /** Shows what the store has, unless someone is writing here. */
  update(tags: readonly string[], note: string): void;
}

/** A run's tags and note, to be changed in place. */
export function annotationEditor(run: string): AnnotationEditor {
  let stored = { tags: [] as readonly string[], note: "" };
  const tags = h("div");
  const input = h("input", {
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    placeholder: "sweep baseline …",
  });
  const note = h("textarea", {
    rows: 2,
    maxlength: longestNote,
    oninput: () => save.disabled = note.value === stored.note,
  });
  const save = h("button", { disabled: true }, "Save note");
  const said = h("p", { class: "quiet", role: "status" });

  async function change(annotation: Annotation, done: string): Promise<void> {
    said.classList.remove("bad");
    try {
      await annotate(run, annotation);
      const removed = annotation.remove ?? [];
      const kept = stored.tags.filter((tag) => !removed.includes(tag));
      stored = {
        tags: [...new Set([...kept, ...annotation.add ?? []])].sort(),
        note: annotation.note ?? stored.note,
      };
      draw();
      said.textContent = done;
    } catch (error) {
      said.classList.add("bad");
      said.textContent = (error as Error).message;
    }
  }

  function draw(): void {
    tags.replaceChildren(
      stored.tags.length === 0
        ? h("span", { class: "quiet" }, "no tags")
        : tagList(stored.tags, (tag) =>
          h("button", {
            type: "button",
            "aria-label": `Remove tag ${tag}`,
            onclick: async () => {
              await change({ remove: [tag] }, `Tag ${tag} was removed.`);
              input.focus(); // the button is gone
            },
          }, "×")),
    );
    save.disabled = note.value === stored.note;
  }

  const element = h(
    "section",
    { class: "annotations", "aria-label": "Tags and note" },
    h(
      "form",
      {
        class: "fields",
        onsubmit: async (event: SubmitEvent) => {
          event.preventDefault();
          let add: string[];
          try {
            add = tagsOf(input.value);
          } catch (error) {
            said.classList.add("bad");
            said.textContent = (error as Error).message;
            return;
          }
          if (add.length === 0) return;
          await change({ add }, `Tagged ${add.join(", ")}.`);
          if (!said.classList.contains("bad")) input.value = "";
        },
      },
      h("label", { class: "field" }, h("span", {}, "add tags"), input),
      h("button", {}, "Add"),
      tags,
    ),
    h(
      "form",
      {
        class: "fields",
        onsubmit: async (event: SubmitEvent) => {
          event.preventDefault();
          await change({ note: note.value }, "The note is stored.");
        },
      },
      h("label", { class: "field wide" }, h("span", {}, "note"), note),
      save,
    ),
    said,
  );
  return {
    element,
    update(tags, text) {
      if (element.contains(document.activeElement)) return;
      const written = note.value !== stored.note;
      stored = { tags, note: text };
      if (!written) note.value = text;
      draw();
    },
  };
}
