// The live picture of a run on a terminal. It lives on the terminal's second screen, is drawn whole
// a few times a second at the size the terminal has at that moment, and gives the first screen back when
// the run ends.

import { duration, megabytes, metric, number, sparkline } from "./format.ts";
import type { Progress } from "./progress.ts";

const drawEveryMs = 250;
const escape = "\x1b[";

export class Dashboard {
  #progress: Progress;
  #note = "Ctrl-C stops with a checkpoint";
  #timer: ReturnType<typeof setInterval>;
  #shown = true;
  #colour = !Deno.env.get("NO_COLOR");

  constructor(progress: Progress) {
    this.#progress = progress;
    write(`${escape}?1049h${escape}?25l`); // second screen, no cursor
    this.#draw();
    this.#timer = setInterval(() => this.#draw(), drawEveryMs);
  }

  note(text: string): void {
    this.#note = text;
    this.#draw();
  }

  close(): void {
    if (!this.#shown) return;
    this.#shown = false;
    clearInterval(this.#timer);
    write(`${escape}?25h${escape}?1049l`);
  }

  #draw(): void {
    if (!this.#shown) return;
    const { columns, rows } = terminalSize();
    const all = render(this.#progress, columns, this.#note, this.#colour);
    // A low terminal loses the end of the time tree, not the note below it.
    const lines = all.length <= rows ? all : [...all.slice(0, rows - 1), all[all.length - 1]];
    // Each line clears what was to its right, the last what is below: no flicker, no leftovers.
    write(`${escape}H${lines.map((line) => `${line}${escape}K`).join("\r\n")}${escape}J`);
  }
}

/** Lines of at most `columns` characters. */
export function render(
  progress: Progress,
  columns: number,
  note: string,
  colour: boolean,
): string[] {
  const { facts, epoch, evaluation } = progress;
  const bold = (text: string) => colour ? `${escape}1m${text}${escape}0m` : text;
  const dim = (text: string) => colour ? `${escape}2m${text}${escape}0m` : text;
  const lines: string[] = [];
  // Text is cut before it is coloured, so that no escape sequence is cut in half.
  const row = (label: string, text: string, style: (text: string) => string = (t) => t) =>
    lines.push(
      dim(label.padEnd(16).slice(0, columns)) + style(text.slice(0, Math.max(0, columns - 16))),
    );

  const goal = facts.epochs ? ` of ${facts.epochs}` : "";
  lines.push(
    bold(
      `${facts.task} · ${facts.algorithm} · ${facts.preset} · seed ${facts.seed} · run ${facts.runId}`
        .slice(0, columns),
    ),
    "",
  );
  row("epoch", epoch ? `${epoch.epoch}${goal}` : "waiting for the first");
  const left = progress.secondsLeft();
  row(
    "time",
    epoch
      ? `${duration(epoch.wallTimeS)} trained` +
        (left === undefined ? "" : `, ${duration(left)} left`)
      : "",
  );
  const best = progress.bestReturn === undefined ? "" : `   best ${number(progress.bestReturn)}`;
  row(
    "return",
    epoch?.return === undefined ? "no finished episode yet" : number(epoch.return) + best,
    bold,
  );
  row("", sparkline(progress.returns, Math.max(0, columns - 16)));
  row("episode length", epoch?.episodeLength === undefined ? "" : number(epoch.episodeLength));
  row(
    "evaluation",
    evaluation
      ? `${number(evaluation.returnMean)} ± ${
        number(evaluation.returnStd)
      } over ${evaluation.episodes} episodes at epoch ${evaluation.epoch}, best ${
        number(progress.bestEvaluation!)
      }`
      : "none yet",
  );
  lines.push("");
  const speed = progress.throughput();
  row(
    "env steps / s",
    speed
      ? `physics ${metric(speed.physics)}   + inference ${metric(speed.inference)}   + update ${
        metric(speed.update)
      }`
      : "",
  );
  row(
    "env steps",
    epoch
      ? `${metric(Number(epoch.envStepsNominal))} nominal, ${
        metric(Number(epoch.envStepsTotal))
      } with auxiliaries`
      : "",
  );
  const memory = [...progress.memory];
  const total = memory.reduce((bytes, [, sample]) => bytes + sample.proportionalBytes, 0);
  row(
    "memory (PSS)",
    memory.length === 0 ? "" : [`together ${megabytes(total)}`].concat(
      memory.map(([name, sample]) => `${name} ${megabytes(sample.proportionalBytes)}`),
    ).join("   "),
  );
  lines.push("");
  const barWidth = Math.max(0, Math.min(30, columns - 40));
  for (const { phase, depth, share } of progress.timeTree()) {
    const name = `${"  ".repeat(depth)}${phase.slice(phase.lastIndexOf("/") + 1)}`;
    const percent = `${(share * 100).toFixed(1)} %`.padStart(8);
    const bar = "█".repeat(Math.round(share * barWidth));
    lines.push(`${name.padEnd(24)}${percent}  ${bar}`.slice(0, columns));
  }
  lines.push("", dim(note.slice(0, columns)));
  return lines;
}

export function terminalSize(): { columns: number; rows: number } {
  try {
    const { columns, rows } = Deno.consoleSize();
    if (columns > 0 && rows > 0) return { columns, rows };
  } catch {
    // Not a terminal any more (a pipe took its place): a usual size will do.
  }
  return { columns: 80, rows: 24 };
}

const encoder = new TextEncoder();

export function write(text: string): void {
  const bytes = encoder.encode(text);
  try {
    for (let sent = 0; sent < bytes.length;) sent += Deno.stdout.writeSync(bytes.subarray(sent));
  } catch {
    // The terminal went away; the SIGHUP that follows stops the run.
  }
}
