// What people say of runs: tags and a note. The limits are those of the store, which refuses what is
// beyond them; the command line and the page check the same before they send.

/** Changes of a run's tags, and its new note. What is left out stays. */
export interface Annotation {
  add?: readonly string[];
  remove?: readonly string[];
  /** The whole note; empty takes it away. */
  note?: string;
}

export const tagPattern = /^[A-Za-z0-9][A-Za-z0-9._/:-]{0,39}$/;
export const tagExpected = "letters, digits and . _ / : -, up to 40, a letter or digit first";
export const mostTags = 50;
export const longestNote = 4000;

/** The first thing that is wrong with some tags: what was expected instead, and what came. */
export function wrongTag(
  tags: readonly string[],
): { expected: string; came: string } | undefined {
  if (tags.length > mostTags) {
    return { expected: `at most ${mostTags} tags`, came: `${tags.length}` };
  }
  const wrong = tags.find((tag) => !tagPattern.test(tag));
  return wrong === undefined ? undefined : { expected: tagExpected, came: wrong };
}

/** Attributes of the events that a change becomes, one for each tag and for the note. */
export function annotationEvents({ add = [], remove = [], note }: Annotation) {
  return [
    ...add.map((tag) => ({ "rl.tag": tag })),
    ...remove.map((tag) => ({ "rl.tag": tag, "rl.tag.removed": true })),
    ...(note === undefined ? [] : [{ "rl.note": note }]),
  ];
}
