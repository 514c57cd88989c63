// ./sdpg tasks: what can be trained.

import { sdpgHome } from "@sdpg/common/home.ts";
import { verb } from "../flags.ts";
import { table } from "../format.ts";
import { openMesh } from "../mesh.ts";
import { writeOut } from "../report.ts";

export const tasks = verb({
  name: "tasks",
  summary: "lists the tasks, as the learner knows them",
  positionals: [],
  options: { json: { meaning: "one JSON object a task" } },
  examples: ["./sdpg tasks"],
  async run({ options }) {
    const mesh = await openMesh({ home: sdpgHome(), threads: 1 });
    try {
      const { tasks } = await mesh.learner.listTasks({}, { deadlineMs: 60_000 });
      if (options.json) {
        for (const task of tasks) {
          writeOut(JSON.stringify({
            name: task.name,
            summary: task.summary,
            action_size: task.actionSize,
            privileged_size: task.privilegedSize,
            actor_size: task.actorSize,
            episode_length: task.episodeLength,
            options: task.options.map((option) => ({
              name: option.name,
              meaning: option.meaning,
              default: option.defaultValue,
              choices: option.choices,
            })),
          }));
        }
      } else {
        writeOut(table(
          ["task", "actions", "privileged", "actor", "episode", "summary"],
          tasks.map((task) => [
            task.name,
            String(task.actionSize),
            String(task.privilegedSize),
            String(task.actorSize),
            String(task.episodeLength),
            task.summary,
          ]),
        ));
        writeOut("\noptions, set by task.<option>=<value>:\n");
        writeOut(table(
          ["task", "option", "default", "meaning"],
          tasks.flatMap((task) =>
            task.options.map(({ name, defaultValue, meaning, choices }) => [
              task.name,
              name,
              defaultValue,
              choices.length > 0 ? `${choices.join(" or ")}: ${meaning}` : meaning,
            ])
          ),
        ));
      }
      return 0;
    } finally {
      mesh.learner.$close();
      await mesh.close();
    }
  },
});
