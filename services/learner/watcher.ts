// What a watcher of a run is sent, and when: never more events than it granted credits for.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WatchRunResponseSchema } from "@proto/sdpg/learner/v1/learner_pb.ts";
import { secondsByName } from "./phases.ts";
import type { RunEvent } from "./run.ts";

/** How a run ended. */
export type Outcome = { done: Extract<RunEvent, { kind: "done" }> } | { failed: string };

/** Events that may wait for credit; the oldest is dropped beyond. */
const mostQueued = 4096;

/** Events on their way to one watcher, never more than it granted credits for. */
export class Watcher {
  #credits = 0;
  #queue: WatchEvent[] = [];
  #ended = false;
  #wake = () => {};

  grant(credits: number) {
    this.#credits += credits;
    this.#wake();
  }

  /** Without credit an epoch replaces the one that waits; other events wait their turn. */
  offer(event: RunEvent) {
    const message = watchEvent(event);
    if (message === undefined || this.#ended) return;
    if (message.case === "epoch") {
      const waiting = this.#queue.findLastIndex((queued) => queued.case === "epoch");
      if (waiting >= this.#credits) this.#queue.splice(waiting, 1);
    } else if (this.#queue.length >= mostQueued) {
      this.#queue.shift(); // A reader this slow has lost interest in the oldest.
    }
    this.#queue.push(message);
    this.#wake();
  }

  end(outcome: Outcome) {
    if (this.#ended) return;
    this.#ended = true;
    this.#queue.push(
      "failed" in outcome
        ? { case: "failed", value: { reason: outcome.failed } }
        : watchEvent(outcome.done)!,
    );
    this.#wake();
  }

  /** Ends after `done` or `failed`, or when the watcher leaves. */
  async *events(signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const abort = () => this.#wake();
    signal.addEventListener("abort", abort);
    try {
      while (!signal.aborted) {
        if (this.#queue.length > 0 && this.#credits > 0) {
          this.#credits--;
          const event = this.#queue.shift()!;
          yield event;
          if (event.case === "done" || event.case === "failed") return;
        } else {
          await new Promise<void>((resolve) => this.#wake = resolve);
        }
      }
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }
}

type WatchEvent = Exclude<
  NonNullable<MessageInitShape<typeof WatchRunResponseSchema>["event"]>,
  { case: undefined }
>;

/** The wire form of an event; `done` is sent once the run is closed, see Watcher.end. */
function watchEvent(event: RunEvent): WatchEvent | undefined {
  switch (event.kind) {
    case "epoch":
      return {
        case: "epoch",
        value: {
          epoch: BigInt(event.epoch),
          return: event.episodes?.return,
          episodeLength: event.episodes?.length,
          envStepsNominal: BigInt(event.envStepsNominal),
          envStepsTotal: BigInt(event.envStepsTotal),
          imagesRendered: BigInt(event.imagesRendered),
          wallTimeS: event.wallTimeS,
          gpuSeconds: event.gpuSeconds,
          phases: secondsByName(event.phases),
          scalars: event.scalars,
        },
      };
    case "evaluation":
      return {
        case: "evaluation",
        value: {
          epoch: BigInt(event.epoch),
          returnMean: event.returnMean,
          returnStd: event.returnStd,
          lengthMean: event.lengthMean,
          episodes: event.returns.length,
        },
      };
    case "done":
      return {
        case: "done",
        value: {
          epochs: BigInt(event.epochs),
          return: event.return,
          stateHash: event.stateHash,
          checkpoint: event.checkpoint ?? "",
        },
      };
    case "warning":
      return undefined;
  }
}
