// ./sdpg tag: tags of runs, to find and group them by.

import { tagExpected, wrongTag } from "@sdpg/common/annotation.ts";
import { sdpgHome } from "@sdpg/common/home.ts";
import { annotateRuns, readAnnotations } from "../annotations.ts";
import { UsageError, verb } from "../flags.ts";
import { table } from "../format.ts";
import { writeOut } from "../report.ts";
import { requireRuns, withTelemetry } from "../store.ts";

export const tag = verb({
  name: "tag",
  summary: "tags runs, or shows their tags",
  positionals: [{
    name: "run|+tag|-tag",
    meaning: "runs, and tags to give (+) or take away (-); without tags, shows them",
    required: true,
    many: true,
    signed: true,
  }],
  options: { json: { meaning: "one JSON object a run" } },
  details: [
    `A tag is of ${tagExpected}.`,
    "./sdpg runs --tag lists the runs of one; the page finds and groups by them.",
  ].join("\n"),
  examples: ["./sdpg tag hopper-a hopper-b +sweep -old", "./sdpg tag hopper-a"],
  async run({ positionals, options }) {
    const isTag = (text: string) => /^[+-]/.test(text);
    const runs = [...new Set(positionals.filter((text) => !isTag(text)))];
    const of = (sign: string) => [
      ...new Set(positionals.filter((text) => text.startsWith(sign)).map((text) => text.slice(1))),
    ];
    const [add, remove] = [of("+"), of("-")];
    if (runs.length === 0) throw new UsageError("Cannot tag without a run; ./sdpg runs lists them");
    const wrong = wrongTag(add) ?? wrongTag(remove);
    if (wrong) throw new UsageError(`Cannot use tag "${wrong.came}": expected ${wrong.expected}`);
    const both = add.find((each) => remove.includes(each));
    if (both !== undefined) throw new UsageError(`Cannot both give and take away tag "${both}"`);
    const found = await withTelemetry(sdpgHome(), async (url) => {
      await requireRuns(url, runs);
      if (add.length + remove.length > 0) await annotateRuns(url, runs, { add, remove });
      return await readAnnotations(url, runs);
    });
    if (options.json) {
      for (const { run_id, tags } of found) writeOut(JSON.stringify({ run_id, tags }));
    } else {
      writeOut(table(["run", "tags"], found.map(({ run_id, tags }) => [run_id, tags.join(" ")])));
    }
    return 0;
  },
});
