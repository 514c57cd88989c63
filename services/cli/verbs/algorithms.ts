// ./sdpg algorithms: every configuration key with its meaning and default, and the presets.

import { sdpgHome } from "@sdpg/common/home.ts";
import { verb } from "../flags.ts";
import { table } from "../format.ts";
import { openMesh } from "../mesh.ts";
import { writeOut } from "../report.ts";

export const algorithms = verb({
  name: "algorithms",
  summary: "lists the algorithms with their configuration keys and presets",
  positionals: [],
  options: { json: { meaning: "one JSON object an algorithm" } },
  examples: ["./sdpg algorithms"],
  async run({ options }) {
    const mesh = await openMesh({ home: sdpgHome(), threads: 1 });
    try {
      const { algorithms } = await mesh.learner.listAlgorithms({});
      for (const { name, summary, keys, presets } of algorithms) {
        if (options.json) {
          writeOut(JSON.stringify({
            name,
            summary,
            presets,
            keys: keys.map(({ path, meaning, defaultValue }) => ({
              path,
              meaning,
              default: defaultValue,
            })),
          }));
          continue;
        }
        writeOut(`${name}: ${summary}\npresets: ${presets.join(", ")}\n`);
        writeOut(table(
          ["key", "default", "meaning"],
          keys.map(({ path, defaultValue, meaning }) => [path, defaultValue, meaning]),
        ));
      }
      return 0;
    } finally {
      mesh.learner.$close();
      await mesh.close();
    }
  },
});
