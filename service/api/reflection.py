"""Server reflection in both versions: tools such as grpcurl use v1, older ones v1alpha.

grpcio-reflection has v1alpha alone. The messages of v1 are the same, byte for byte, under names of another package; so
v1 is v1alpha's servicer under the other name, and a descriptor that is made from v1alpha's.
"""

from collections.abc import Iterable
from typing import Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

__all__ = ["REFLECTION_SERVICES", "add_reflection"]

_ALPHA, _STABLE = "grpc.reflection.v1alpha", "grpc.reflection.v1"
_SERVICE: Final = f"{_STABLE}.ServerReflection"
_METHOD: Final = "ServerReflectionInfo"

REFLECTION_SERVICES: Final = (_SERVICE, reflection.SERVICE_NAME)
"""Full names of the services that `add_reflection` adds."""


def add_reflection(names: Iterable[str], server: grpc.aio.Server) -> None:
    """Adds both versions of the reflection service, from which clients get the server's contract.

    Args:
        names: Full names of the server's other services.
        server: The server.
    """
    pool = descriptor_pool.Default()
    _define_stable(pool)
    all_names = (*names, *REFLECTION_SERVICES)
    reflection.enable_server_reflection(all_names, server, pool)
    servicer = reflection.aio.ReflectionServicer(all_names, pool)
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: method}),))


def _define_stable(pool: DescriptorPool) -> None:
    """Adds the descriptor of v1 to the pool, because clients may ask for the contract of every listed service."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = f"{_STABLE.replace('.', '/')}/reflection.proto", _STABLE
    # The options are those of v1alpha, such as Java classes.
    file.ClearField("options")
    for message in file.message_type:
        for field in message.field:
            if field.type_name:  # of messages
                field.type_name = _renamed(field.type_name)
    for service in file.service:
        for method in service.method:
            method.input_type, method.output_type = _renamed(method.input_type), _renamed(method.output_type)
    pool.AddSerializedFile(file.SerializeToString())


def _renamed(type_name: str) -> str:
    return type_name.replace(f".{_ALPHA}.", f".{_STABLE}.")
