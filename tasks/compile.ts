// Writes a task's compiled messages to files, for programs that are not TypeScript:
//   deno run -A tasks/compile.ts hopper --out model.binpb --task task.binpb [height_cap=0.3]
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { toBinary } from "@bufbuild/protobuf";
import { ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import { TaskProgramSchema } from "@proto/sdpg/task/v1/task_pb.ts";
import { ModelError } from "@sdpg/common/model/compile.ts";
import { loadTask, TaskError } from "./mod.ts";

const USAGE =
  "usage: deno run -A tasks/compile.ts <task> [--out model.binpb] [--task task.binpb] [option=value …]";

function fail(line: string, code: number): never {
  console.error(line);
  Deno.exit(code);
}

let name: string, out: string | undefined, taskOut: string | undefined;
const options: Record<string, string> = {};
try {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    options: { out: { type: "string" }, task: { type: "string" } },
    allowPositionals: true,
  });
  name = positionals[0] ?? fail(USAGE, 2);
  for (const override of positionals.slice(1)) {
    const [, key, value] = /^([^=]+)=(.+)$/.exec(override) ?? fail(USAGE, 2);
    options[key] = value;
  }
  out = values.out;
  taskOut = values.task;
} catch (error) {
  fail(`${(error as Error).message}\n${USAGE}`, 2);
}

try {
  const { model, program } = await loadTask(name, options);
  if (out) await writeFile(out, toBinary(ModelSchema, model));
  if (taskOut) await writeFile(taskOut, toBinary(TaskProgramSchema, program));
  console.log(JSON.stringify({
    task: name,
    model_hash: model.contentHash,
    task_hash: program.contentHash,
    registers: program.registerCount,
  }));
} catch (error) {
  if (error instanceof TaskError) fail(error.message, 2);
  if (error instanceof ModelError) fail(error.message, 1);
  throw error;
}
