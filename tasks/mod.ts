// The tasks there are: every folder beside this file that has a `task.ts`. Others ask here for a
// task by name and get its compiled model and program.
import { existsSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Model } from "@proto/sdpg/model/v1/model_pb.ts";
import type { TaskProgram } from "@proto/sdpg/task/v1/task_pb.ts";
import { compileModel } from "@sdpg/common/model/compile.ts";
import { didYouMean } from "@sdpg/common/suggest.ts";
import { taskCameras, type TaskDeclaration, type TaskOption } from "@sdpg/common/task/declare.ts";
import { TaskError } from "@sdpg/common/task/expression.ts";
import { chosenOptions, compileTask } from "@sdpg/common/task/program.ts";

export { TaskError };

/** A task, ready to be simulated. */
export interface Task {
  name: string;
  /** One sentence. */
  summary: string;
  model: Model;
  program: TaskProgram;
  /** Every option of the task with the value it was compiled for. */
  options: Record<string, number | string>;
  /** Lengths of the action and of what the critic and the actor see. */
  actionSize: number;
  privilegedSize: number;
  actorSize: number;
  /** Control steps of a full episode. */
  episodeLength: number;
  /** Seconds of one control step. */
  controlSeconds: number;
  rewardTerms: string[];
  /** Cameras through which the policy looks; none for a task that has nothing to see. */
  cameras: string[];
}

/** Names of all tasks, sorted. */
export function listTasks(): string[] {
  const folder = fileURLToPath(new URL(".", import.meta.url));
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(`${folder}${entry.name}/task.ts`))
    .map((entry) => entry.name)
    .sort();
}

/** The declaration of a task; TaskError with the nearest valid name when there is none. */
export async function declaration(name: string): Promise<TaskDeclaration> {
  const names = listTasks();
  if (!names.includes(name)) {
    throw new TaskError(
      `task '${name}' does not exist${didYouMean(name, names) || "."} Tasks: ${names.join(", ")}`,
    );
  }
  const { default: found } = await import(new URL(`./${name}/task.ts`, import.meta.url).href) as {
    default: TaskDeclaration;
  };
  if (found?.name !== name) {
    throw new TaskError(
      `task '${name}': tasks/${name}/task.ts: expected its default export to be ` +
        `defineTask({ name: "${name}", … }), got name ${JSON.stringify(found?.name)}`,
    );
  }
  return found;
}

/** Options a task has, with their meaning and default. */
export async function taskOptions(name: string): Promise<Record<string, TaskOption>> {
  return (await declaration(name)).options ?? {};
}

/**
 * Compiles a task's model and program. `options` override the task's defaults.
 * Throws TaskError or ModelError.
 */
export async function loadTask(
  name: string,
  options: Record<string, number | string> = {},
): Promise<Task> {
  const declared = await declaration(name);
  const chosen = chosenOptions(declared, options);
  const model = await compileModel(fileURLToPath(declared.model));
  const program = compileTask(declared, model, chosen);
  const size = (seen: "actor" | "privileged") =>
    program.observations.filter((o) => o[seen]).reduce((sum, o) => sum + o.length, 0);
  return {
    name,
    summary: declared.summary,
    model,
    program,
    options: chosen,
    actionSize: program.actionSize,
    privilegedSize: size("privileged"),
    actorSize: size("actor"),
    episodeLength: program.episodeLength,
    controlSeconds: model.option!.timestep * program.substeps,
    cameras: taskCameras(declared, model),
    rewardTerms: program.rewards.map((term) => term.name),
  };
}
