"""Any tool can ask the service for its contract, whichever version of reflection it speaks."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from grpc_reflection.v1alpha import reflection_pb2 as alpha

# The messages of v1 as a tool has them that was built with v1's own .proto file, which says this.
_STABLE = """
syntax: "proto3"
name: "v1.proto"
package: "of.a.tool"
message_type {
  name: "Request"
  field { name: "file_containing_symbol" number: 4 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  field { name: "list_services" number: 7 type: TYPE_STRING label: LABEL_OPTIONAL oneof_index: 0 }
  oneof_decl { name: "message_request" }
}
message_type {
  name: "Files"
  field { name: "file_descriptor_proto" number: 1 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type {
  name: "Service"
  field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
}
message_type {
  name: "Services"
  field { name: "service" number: 1 type: TYPE_MESSAGE type_name: ".of.a.tool.Service" label: LABEL_REPEATED }
}
message_type {
  name: "Response"
  field { name: "file_descriptor_response" number: 4 type: TYPE_MESSAGE type_name: ".of.a.tool.Files" }
  field { name: "list_services_response" number: 6 type: TYPE_MESSAGE type_name: ".of.a.tool.Services" }
}
"""

Ask = Callable[[str, str, str], Any]


@pytest.fixture(scope="module")
def messages() -> Any:
    """Request and response of v1, read from its .proto file."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(text_format.Parse(_STABLE, descriptor_pb2.FileDescriptorProto()).SerializeToString())
    return message_factory.GetMessageClassesForFiles(["v1.proto"], pool)


async def _ask(address: str, version: str, request: Any, response: type) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            type(request).SerializeToString,
            response.FromString,  # type: ignore[attr-defined]
        )
        return await anext(aiter(method(iter([request]), timeout=30)))


_SERVICES = {
    "nablad.v1.JobService",
    "nablad.v1.DatasetService",
    "nablad.v1.ModelService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
}


def test_both_versions_list_the_same_services(serve: Any, messages: Any) -> None:
    """A tool that speaks v1 alone, as grpcurl does, finds what one finds that speaks v1alpha alone."""
    request, response = messages["of.a.tool.Request"], messages["of.a.tool.Response"]

    async def use(address: str) -> None:
        stable = await _ask(address, "v1", request(list_services="*"), response)
        old = await _ask(
            address, "v1alpha", alpha.ServerReflectionRequest(list_services="*"), alpha.ServerReflectionResponse
        )
        for answer in (stable, old):
            assert {each.name for each in answer.list_services_response.service} == _SERVICES

    serve(use)


@pytest.mark.parametrize("service", sorted(_SERVICES))
def test_every_listed_service_can_be_described(serve: Any, messages: Any, service: str) -> None:
    """Whoever is told of a service gets files that define it and all that it needs; reflection's own included."""
    request, response = messages["of.a.tool.Request"], messages["of.a.tool.Response"]

    async def use(address: str) -> None:
        answer = await _ask(address, "v1", request(file_containing_symbol=service), response)
        pool = descriptor_pool.DescriptorPool()
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(data)
            for data in answer.file_descriptor_response.file_descriptor_proto
        ]
        while files:  # those first that need no other
            ready = [file for file in files if not set(file.dependency) & {other.name for other in files}]
            for file in ready:
                pool.AddSerializedFile(file.SerializeToString())
                files.remove(file)
        assert pool.FindServiceByName(service).methods

    serve(use)
