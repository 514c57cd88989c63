// Writes a task's compiled messages to files, for programs that are not TypeScript:
//   deno run -A tasks/compile.ts hopper --out model.binpb
import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { toBinary } from "@bufbuild/protobuf";
import { compileModel } from "@sdpg/common/model/compile.ts";
import { ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
const name = Deno.args[0];
const out = Deno.args[Deno.args.indexOf("--out") + 1];
const model = await compileModel(fileURLToPath(new URL(`./${name}/model.xml`, import.meta.url)));
await writeFile(out, toBinary(ModelSchema, model));
