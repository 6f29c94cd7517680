"""Specs whose fields hold the most extreme things that their types can, or too much of them."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from nablad import Client
from nablad.errors import InvalidRequestError, TooLargeError
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import jobs_pb2 as jobs_pb

Call = Callable[[str, Any], grpc.StatusCode]

_EXTREMES: dict[int, list[Any]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 5e-324, 1.7e308],
    FieldDescriptor.CPPTYPE_INT32: [-(2**31), -1001, 2**31 - 1],
    FieldDescriptor.CPPTYPE_UINT32: [0, 1, 2**32 - 1],
    FieldDescriptor.CPPTYPE_UINT64: [0, 2**64 - 1],
    FieldDescriptor.CPPTYPE_ENUM: [-(2**31), -1, 77, 2**31 - 1],
    FieldDescriptor.CPPTYPE_STRING: ["\0", "é\u202e\n", "x" * 100_000],
    FieldDescriptor.CPPTYPE_BOOL: [False],
}


def _spec(**data: str) -> spec_pb.JobSpec:
    return spec_pb.JobSpec(data=spec_pb.DataSpec(**data), model=spec_pb.ModelSpec(layers=[0, 8, 0]))


def _extreme_specs(train: str, descriptor: Descriptor, path: tuple[str, ...] = ()) -> Iterator[spec_pb.JobSpec]:
    """Specs that are right but for one number, name or text; and some in which that happens to be right."""
    for field in descriptor.fields:
        if field.message_type and not field.is_repeated:
            yield from _extreme_specs(train, field.message_type, (*path, field.name))
        for extreme in () if field.message_type else _EXTREMES[field.cpp_type]:
            spec = _spec(train=train)
            message: Any = spec
            for name in path:
                message = getattr(message, name)
            if field.is_repeated:
                getattr(message, field.name)[:] = [extreme] * 3
            else:
                setattr(message, field.name, extreme)
            yield spec


def test_extreme_specs_are_judged(call: Call, digits: None) -> None:
    """Every field of a spec at every extreme: a completed spec, or the violation of a rule."""
    codes = set()
    for spec in _extreme_specs("digits-train", spec_pb.JobSpec.DESCRIPTOR):
        request = jobs_pb.CreateJobRequest(spec=spec, validate_only=True)
        codes.add(call("JobService/CreateJob", request))
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def _with_inner(terms: int, **fields: Any) -> spec_pb.JobSpec:
    spec = _spec(train="digits-train")
    spec.cost.inner.extend([spec_pb.InnerTerm(**fields)] * terms)
    return spec


def _absurd_specs() -> dict[str, spec_pb.JobSpec]:
    many, terabytes, wordy = _spec(train="digits-train"), _spec(train="digits-train"), _spec(train="é" * 300)
    many.model.layers[:] = [2] * 1_000_000
    terabytes.model.layers[:] = [0, *[1_000_000] * 98, 0]
    wordy.model.layers[:], wordy.model.activation[:] = [2**32 - 1] * 100, [99] * 99  # type: ignore[list-item]
    return {
        "empty": spec_pb.JobSpec(),
        "many layers": many,
        "terabytes of weights": terabytes,
        "many and long violations": wordy,
        "many bad terms": _with_inner(100, layer=77, term=99, weight=float("nan"), target=9, nodes=[2**32 - 1] * 30),
        "one node often": _with_inner(1, layer=1, term=1, weight=1, nodes=[0] * 300_000),
    }


@pytest.mark.parametrize("case", _absurd_specs())
def test_absurd_specs_are_refused(client: Client, digits: None, case: str) -> None:
    """However many rules are broken, the answer fits into a status."""
    with pytest.raises(InvalidRequestError) as refused:
        client.submit(_absurd_specs()[case])
    assert refused.value.violations


def test_what_would_bloat_every_list_is_refused(client: Client, call: Call, digits: None) -> None:
    """A spec of megabytes, and a request id of megabytes, are not kept."""
    with pytest.raises(TooLargeError, match="at most 1,048,576"):
        client.submit(_with_inner(100, layer=1, term=1, weight=1, nodes=[0] * 12_000))
    with pytest.raises(TooLargeError):
        client.submit(_with_inner(100, layer=1, term=1, weight=1, nodes=[0] * 30_000))
    request = jobs_pb.CreateJobRequest(spec=_spec(train="digits-train"), request_id="r" * 1_000_000)
    assert call("JobService/CreateJob", request) == grpc.StatusCode.INVALID_ARGUMENT
