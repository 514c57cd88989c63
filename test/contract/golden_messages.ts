// Golden bytes of the contracts: for every message of proto/sdpg a fully populated instance, as
// lines "type <tab> hex <tab> JSON" in proto/golden/<area>.tsv. TypeScript and C++ both read the
// bytes and the JSON and must write the same bytes, so neither a change of the schema nor of a
// library can alter the wire unseen.
//
// Lines are only ever added: `deno run -A test/contract/golden_messages.ts --write` appends the
// instances that a new field or message asks for, and old bytes must stay readable.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  create,
  createRegistry,
  type DescField,
  type DescMessage,
  type DescOneof,
  type Message,
  ScalarType,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { reflect } from "@bufbuild/protobuf/reflect";
import { file_sdpg_evaluation_v1_evaluation } from "@proto/sdpg/evaluation/v1/evaluation_pb.ts";
import { file_sdpg_learner_v1_learner } from "@proto/sdpg/learner/v1/learner_pb.ts";
import { file_sdpg_model_v1_model } from "@proto/sdpg/model/v1/model_pb.ts";
import { file_sdpg_render_v1_render } from "@proto/sdpg/render/v1/render_pb.ts";
import { file_sdpg_sim_v1_sim } from "@proto/sdpg/sim/v1/sim_pb.ts";
import { file_sdpg_task_v1_task } from "@proto/sdpg/task/v1/task_pb.ts";
import { file_sdpg_tensor_v1_tensor } from "@proto/sdpg/tensor/v1/tensor_pb.ts";
import { file_sdpg_view_v1_view } from "@proto/sdpg/view/v1/view_pb.ts";

export const files = [
  file_sdpg_tensor_v1_tensor,
  file_sdpg_model_v1_model,
  file_sdpg_task_v1_task,
  file_sdpg_view_v1_view,
  file_sdpg_sim_v1_sim,
  file_sdpg_render_v1_render,
  file_sdpg_learner_v1_learner,
  file_sdpg_evaluation_v1_evaluation,
];
export const registry = createRegistry(...files);

export const goldenFolder = fileURLToPath(new URL("../../proto/golden/", import.meta.url));

export interface Golden {
  type: string;
  hex: string;
  json: string;
}

/** All lines of all files. */
export function readGoldens(): Golden[] {
  if (!existsSync(goldenFolder)) return [];
  return readdirSync(goldenFolder).filter((name) => name.endsWith(".tsv")).sort().flatMap((name) =>
    readFileSync(goldenFolder + name, "utf8").split("\n").filter((line) => line !== "").map(
      (line) => {
        const [type, hex, json] = line.split("\t");
        return { type, hex, json };
      },
    )
  );
}

/** The golden of every message as the schema is now; one per case of a oneof. */
export function presentGoldens(): Golden[] {
  return files.flatMap((file) =>
    allMessages(file.messages).flatMap((desc) => instances(desc)).map((message) => {
      const desc = registry.getMessage(message.$typeName)!;
      return {
        type: message.$typeName,
        hex: Buffer.from(toBinary(desc, message)).toString("hex"),
        json: JSON.stringify(toJson(desc, message)),
      };
    })
  );
}

function allMessages(messages: readonly DescMessage[]): DescMessage[] {
  return messages.flatMap((desc) => [desc, ...allMessages(desc.nestedMessages)]);
}

/** One fully populated message, or one for each case of its oneof. */
function instances(desc: DescMessage): Message[] {
  const cases = Math.max(1, ...desc.oneofs.map((oneof) => oneof.fields.length));
  return Array.from({ length: cases }, (_, i) => populated(desc, i));
}

/** Every field set; of a oneof the `chosen`-th member. Values differ from field to field. */
function populated(desc: DescMessage, chosen = 0): Message {
  const message = create(desc);
  const fields = reflect(desc, message);
  const member = (oneof: DescOneof) => oneof.fields[chosen % oneof.fields.length];
  for (const field of desc.fields) {
    if (field.oneof && member(field.oneof) !== field) continue;
    if (field.fieldKind === "list") {
      for (const i of [0, 1]) fields.get(field).add(element(field, i));
    } else if (field.fieldKind === "map") {
      const map = fields.get(field);
      for (const i of [0, 1]) map.set(scalar(field.mapKey, field, i), element(field, i));
    } else {
      fields.set(field, element(field, 0));
    }
  }
  return message;
}

/** Value of a field, or of its i-th element. */
function element(field: DescField, i: number) {
  if (field.message) return reflect(field.message, populated(field.message, i));
  if (field.enum) return field.enum.values[field.enum.values.length - 1 - i].number;
  return scalar(field.scalar!, field, i);
}

function scalar(type: ScalarType, field: DescField, i: number) {
  const n = field.number * 10 + i;
  switch (type) {
    case ScalarType.DOUBLE:
      return n + 1 / 3;
    case ScalarType.FLOAT:
      return n + 0.5;
    case ScalarType.BOOL:
      return true;
    case ScalarType.STRING:
      return `${field.name} ${i} µ`;
    case ScalarType.BYTES:
      return Uint8Array.of(0, 255, n, i);
    case ScalarType.INT32:
    case ScalarType.SINT32:
    case ScalarType.SFIXED32:
      return -n;
    case ScalarType.UINT32:
    case ScalarType.FIXED32:
      return 2 ** 31 + n;
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.SFIXED64:
      return -(2n ** 60n) - BigInt(n);
    case ScalarType.UINT64:
    case ScalarType.FIXED64:
      return 2n ** 63n + BigInt(n);
  }
}

if (import.meta.main) {
  if (Deno.args[0] !== "--write") {
    console.error("usage: deno run -A test/contract/golden_messages.ts --write");
    Deno.exit(2);
  }
  const known = new Set(readGoldens().map(({ type, hex }) => `${type} ${hex}`));
  for (const { type, hex, json } of presentGoldens()) {
    if (known.has(`${type} ${hex}`)) continue;
    const path = `${goldenFolder}${type.split(".")[1]}.tsv`;
    const before = existsSync(path) ? readFileSync(path, "utf8") : "";
    writeFileSync(path, `${before}${type}\t${hex}\t${json}\n`);
    console.log(`added ${type} to ${path}`);
  }
}
