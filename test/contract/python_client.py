"""A client in another language: creates a batch on gpu-sim and steps it, from proto/ alone.

Uses Debian's python3-grpcio and python3-protobuf, the messages protoc makes from proto/, and gRPC's
generic calls (no generated service code). Prints one JSON line with what it saw.

    python3 test/contract/python_client.py HOST:PORT model.binpb task.binpb
"""

import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOMINALS, AUXILIARIES, HORIZON, STEPS = 4, 3, 8, 5


def compile_protos(out):
    """Python modules of proto/ in the folder `out`."""
    proto = os.path.join(ROOT, "proto")
    files = [f"{proto}/sdpg/{area}/v1/{area}.proto"
             for area in ("tensor", "model", "view", "task", "sim")]
    subprocess.run(["protoc", f"--proto_path={proto}", f"--python_out={out}", *files], check=True)
    sys.path.insert(0, out)


def list_services(channel):
    """Names of the services, by grpc.reflection.v1alpha; its few fields are declared here."""
    file = descriptor_pb2.FileDescriptorProto(
        name="reflection_subset.proto", package="subset", syntax="proto3")

    def message(name, *fields):
        declared = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            declared.field.add(
                name=field, number=number, label=3 if repeated else 1,
                type=9 if kind == "string" else 11,
                type_name=None if kind == "string" else f".subset.{kind}")

    message("Request", ("list_services", 7, "string", False))
    message("Service", ("name", 1, "string", False))
    message("Services", ("service", 1, "Service", True))
    message("Response", ("list_services_response", 6, "Services", False))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    request, response = (
        factory.GetPrototype(pool.FindMessageTypeByName(f"subset.{name}"))
        for name in ("Request", "Response"))
    # An empty string is not written by proto3: field 7 as two bytes, key and length.
    call = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=lambda _: b"\x3a\x00", response_deserializer=response.FromString)
    for answer in call(iter([request()]), timeout=10):
        return sorted(service.name for service in answer.list_services_response.service)
    raise RuntimeError("the reflection stream ended without an answer")


def main():
    address, model_path, task_path = sys.argv[1:4]
    with tempfile.TemporaryDirectory() as generated:
        compile_protos(generated)
        from sdpg.sim.v1 import sim_pb2 as sim

        channel = grpc.insecure_channel(address)

        def unary(method, request, response):
            return channel.unary_unary(
                f"/sdpg.sim.v1.SimulationService/{method}",
                request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString)(request, timeout=30)

        services = list_services(channel)
        described = unary("Describe", sim.DescribeRequest(), sim.DescribeResponse)
        create = sim.CreateBatchRequest(
            nominals=NOMINALS, auxiliaries_per_nominal=AUXILIARIES, horizon=HORIZON, seed=1,
            transport=sim.TRANSPORT_INLINE)
        with open(model_path, "rb") as file:
            create.model.ParseFromString(file.read())
        with open(task_path, "rb") as file:
            create.task.ParseFromString(file.read())
        actions = create.task.action_size
        batch = unary("CreateBatch", create, sim.CreateBatchResponse)

        # The stream answers every message before the next is sent, so a list serves as a queue.
        outgoing = []
        sequence = 0

        def send(**message):
            nonlocal sequence
            outgoing.append(
                sim.RolloutRequest(batch_id=batch.batch_id, sequence=sequence, **message))
            sequence += 1

        def requests():
            while outgoing:
                yield outgoing.pop(0)

        send(credit=sim.Credit(chunks=1000))
        send(begin=sim.Begin(epoch=0))
        mean = struct.pack(f"<{NOMINALS * actions}f", *([0.1] * (NOMINALS * actions)))
        log_std = struct.pack(f"<{actions}f", *([-1.0] * actions))
        for t in range(STEPS):
            send(step=sim.Step(t=t, mean=mean, log_std=log_std))
        send(end=sim.End())
        buffer = bytearray(batch.buffer_bytes)
        steps = chunks = 0
        for answer in channel.stream_stream(
                "/sdpg.sim.v1.SimulationService/Rollout",
                request_serializer=sim.RolloutRequest.SerializeToString,
                response_deserializer=sim.RolloutResponse.FromString)(requests(), timeout=60):
            kind = answer.WhichOneof("message")
            if kind == "stepped":
                assert answer.stepped.t == steps, (answer.stepped.t, steps)
                steps += 1
            elif kind == "chunk":
                at = answer.chunk.offset_bytes
                buffer[at:at + len(answer.chunk.data)] = answer.chunk.data
                chunks += 1
            elif kind == "ended":
                assert answer.ended.steps == STEPS and answer.ended.chunks == chunks

        def floats(name):
            tensor = next(t for t in batch.tensors if t.name == name)
            count = math.prod(tensor.tensor.shape)
            return struct.unpack_from(f"<{count}f", buffer, tensor.offset_bytes)

        environments = NOMINALS * (1 + AUXILIARIES)
        rewards = floats("reward")[:STEPS * environments]
        unary("DestroyBatch", sim.DestroyBatchRequest(batch_id=batch.batch_id),
              sim.DestroyBatchResponse)
        print(json.dumps({
            "services": services, "isa": described.isa, "steps": steps, "chunks": chunks,
            "tensors": [t.name for t in batch.tensors], "rewards": rewards}))


main()
