// grpc.reflection.v1 and v1alpha (what older clients ask), answered from the descriptors that the
// generated code carries: no .proto file is needed at run time.

import {
  type DescEnum,
  type DescFile,
  type DescMessage,
  type DescService,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { ServerReflection } from "@proto/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionV1Alpha } from "@proto/grpc/reflection/v1alpha/reflection_pb.ts";
import { Code, implement, type ServiceImplementation } from "./rpc.ts";

/** Both versions of the reflection service over `services`, themselves included. */
export function reflectionServices(services: DescService[]): ServiceImplementation[] {
  const all = [...services, ServerReflection, ServerReflectionV1Alpha];
  const index = indexOf(all.map((service) => service.file));
  const listed = all.map((service) => ({ name: service.typeName }));

  // The messages of both versions have the same shape, so one function answers for both.
  const answer = (request: ReflectionRequest) => {
    const reply = { validHost: request.host, originalRequest: request };
    const { case: kind, value } = request.messageRequest;
    const notFound = (what: string) => ({
      ...reply,
      messageResponse: {
        case: "errorResponse" as const,
        value: { errorCode: Code.NOT_FOUND, errorMessage: `This server knows no ${what}` },
      },
    });
    const files = (file: DescFile | undefined, what: string) =>
      file === undefined ? notFound(what) : {
        ...reply,
        messageResponse: {
          case: "fileDescriptorResponse" as const,
          value: { fileDescriptorProto: withImports(file) },
        },
      };
    switch (kind) {
      case "listServices":
        return {
          ...reply,
          messageResponse: { case: "listServicesResponse" as const, value: { service: listed } },
        };
      case "fileByFilename":
        return files(index.files.get(value), `file "${value}"`);
      case "fileContainingSymbol":
        return files(index.symbols.get(value), `symbol "${value}"`);
      case "fileContainingExtension":
        return notFound(`extension ${value.extensionNumber} of "${value.containingType}"`);
      case "allExtensionNumbersOfType":
        if (!index.symbols.has(value)) return notFound(`type "${value}"`);
        return { // proto3 messages have no extensions
          ...reply,
          messageResponse: {
            case: "allExtensionNumbersResponse" as const,
            value: { baseTypeName: value },
          },
        };
      case undefined:
        return {
          ...reply,
          messageResponse: {
            case: "errorResponse" as const,
            value: {
              errorCode: Code.INVALID_ARGUMENT,
              errorMessage: "Expected a message_request, got none",
            },
          },
        };
    }
  };
  async function* serverReflectionInfo(requests: AsyncIterable<ReflectionRequest>) {
    for await (const request of requests) yield answer(request);
  }
  return [
    implement(ServerReflection, {
      serverReflectionInfo: (requests) =>
        serverReflectionInfo(requests) as AsyncIterable<Response<typeof ServerReflection>>,
    }),
    implement(ServerReflectionV1Alpha, {
      serverReflectionInfo: (requests) =>
        serverReflectionInfo(requests) as AsyncIterable<Response<typeof ServerReflectionV1Alpha>>,
    }),
  ];
}

type Versions = typeof ServerReflection | typeof ServerReflectionV1Alpha;
type Request<V extends Versions> = MessageShape<V["method"]["serverReflectionInfo"]["input"]>;
type Response<V extends Versions> = MessageInitShape<
  V["method"]["serverReflectionInfo"]["output"]
>;
type ReflectionRequest = Request<Versions>;

/** Files by import name and by every full name declared in them, imports included. */
function indexOf(roots: DescFile[]) {
  const files = new Map<string, DescFile>();
  const symbols = new Map<string, DescFile>();
  const addFile = (file: DescFile) => {
    const name = file.proto.name;
    if (files.has(name)) return;
    files.set(name, file);
    const addEnum = (e: DescEnum) => symbols.set(e.typeName, file);
    const addMessage = (message: DescMessage) => {
      symbols.set(message.typeName, file);
      for (const field of message.fields) symbols.set(`${message.typeName}.${field.name}`, file);
      message.nestedMessages.forEach(addMessage);
      message.nestedEnums.forEach(addEnum);
    };
    file.messages.forEach(addMessage);
    file.enums.forEach(addEnum);
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
    file.dependencies.forEach(addFile);
  };
  roots.forEach(addFile);
  return { files, symbols };
}

/** Serialised descriptors of a file and of everything it imports, the file first. */
function withImports(file: DescFile): Uint8Array[] {
  const ordered = new Set<DescFile>();
  const visit = (next: DescFile) => {
    if (ordered.has(next)) return;
    ordered.add(next);
    next.dependencies.forEach(visit);
  };
  visit(file);
  return [...ordered].map((each) => toBinary(FileDescriptorProtoSchema, each.proto));
}
