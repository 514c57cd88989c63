// What the name of a film says: `epoch-400-seed-7-return-3812.5.mp4`, as ./sdpg eval gives it. Any other name
// is only a name. Tested without a browser.

export interface Film {
  file: string;
  epoch?: number;
  /** The seed, and what else was asked for besides the epoch. */
  details?: string;
  /** Of the episode that is shown. */
  return?: number;
}

export function filmOf(file: string): Film {
  const match = /^epoch-(\d+)-(.+)-return-(-?\d+(?:\.\d+)?)\.\w+$/.exec(file);
  if (!match) return { file };
  const [, epoch, details, sum] = match;
  return {
    file,
    epoch: Number(epoch),
    details: details.replaceAll(
      /(^|-)(seed|camera|height|seconds)-/g,
      (_, dash, word) => `${dash && ", "}${word} `,
    ),
    return: Number(sum),
  };
}

/** The newest epoch first, films with any other name last. */
export const inOrder = (a: Film, b: Film): number =>
  (b.epoch ?? -1) - (a.epoch ?? -1) || (a.file < b.file ? -1 : 1);
