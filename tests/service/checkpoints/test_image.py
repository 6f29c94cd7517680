"""The file of a checkpoint: what the library would write, exact to the last bit, and read only if it is whole."""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from nablad.v1 import parameter_server_pb2 as ps_pb
from nablad.v1.metrics_pb2 import Sums
from service.checkpoints.image import (
    CheckpointError,
    Snapshot,
    describe_image,
    described_state,
    first_image,
    make_image,
    read_image,
    reading_parameters,
)

STATE = ps_pb.TrainingState(step=7, epoch=ps_pb.EpochSums(epoch=1, sums=Sums(cost_sum=0.1)), gradient_norm=1 / 3)
DESCRIPTION = {"job_id": "é-1", "attempt": 2, "spec_sha256": "ab"}


def _snapshot(dtype: str = "float32", moments: int = 2, *, best: bool = True) -> Snapshot:
    vectors = [np.arange(5, dtype=dtype) + number for number in range(moments + 2)]
    return Snapshot(STATE, vectors[0], tuple(vectors[1 : moments + 1]), vectors[-1] if best else None)


def _written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("moments", [0, 1, 2])
@pytest.mark.parametrize("best", [False, True])
def test_the_bytes_are_the_library_s(tmp_path: Path, dtype: str, moments: int, best: bool) -> None:
    """The library reads them, and writes the same ones for the same tensors and metadata."""
    snapshot = _snapshot(dtype, moments, best=best)
    image = make_image(snapshot, DESCRIPTION)
    _written(tmp_path / "a", image)
    with safe_open(tmp_path / "a", framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        metadata = file.metadata()
    assert save(tensors, metadata) == image
    expected = {"parameters": snapshot.parameters}
    expected |= {f"moment{number}": moment for number, moment in enumerate(snapshot.moments)}
    expected |= {"best": snapshot.best} if snapshot.best is not None else {}
    assert tensors.keys() == expected.keys()
    assert all(np.array_equal(tensors[name], vector) for name, vector in expected.items())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("best", [False, True])
def test_what_was_written_is_read(tmp_path: Path, dtype: str, best: bool) -> None:
    """State, dtype and every bit of the vectors, infinities and NaN among them."""
    snapshot = _snapshot(dtype, best=best)
    snapshot.parameters[:4] = [math.inf, -0.0, math.nan, 5e-324]
    read = read_image(tmp_path / "a", _written(tmp_path / "a", make_image(snapshot, DESCRIPTION)))
    assert read.state == STATE
    assert read.parameters.dtype == dtype
    assert read.parameters.tobytes() == snapshot.parameters.tobytes()
    assert [moment.tobytes() for moment in read.moments] == [moment.tobytes() for moment in snapshot.moments]
    assert (read.best is None) == (not best)


def test_a_checkpoint_is_read_into_its_vectors(tmp_path: Path, allocating: Callable[[], Any]) -> None:
    """Which may be written to: nobody has to hold it twice."""
    snapshot = Snapshot(STATE, np.zeros(1 << 20), (np.zeros(1 << 20),), np.zeros(1 << 20))
    sha256 = _written(tmp_path / "a", make_image(snapshot, DESCRIPTION))
    with allocating() as peak:
        read = read_image(tmp_path / "a", sha256)
    assert all(vector.flags.writeable for vector in (read.parameters, *read.moments))
    assert peak.bytes < 1.1 * 3 * snapshot.parameters.nbytes


def test_weights_are_read_in_pieces(tmp_path: Path, allocating: Callable[[], Any]) -> None:
    """Again and again, without what lies beside them."""
    snapshot = Snapshot(STATE, np.arange(1.0 * (1 << 20)), (np.zeros(1 << 20),), np.zeros(1 << 20))
    sha256 = _written(tmp_path / "a", make_image(snapshot, DESCRIPTION))
    with allocating() as peak, reading_parameters(tmp_path / "a", sha256) as pieces:
        assert sum(piece.size for piece in pieces()) == 1 << 20
    assert peak.bytes < snapshot.parameters.nbytes / 2
    with reading_parameters(tmp_path / "a", sha256) as pieces:
        assert np.array_equal(np.concatenate([*pieces()]), snapshot.parameters)
    with (
        pytest.raises(CheckpointError, match="checkpoint a is damaged"),
        reading_parameters(tmp_path / "a", "another"),
    ):
        pytest.fail("it was opened")


@pytest.mark.parametrize("moments", [0, 2])
def test_a_first_image_is_that_of_whole_vectors(moments: int) -> None:
    """However they are cut."""
    vectors = [np.arange(5.0) + number for number in range(moments + 1)]
    expected = make_image(Snapshot(ps_pb.TrainingState(), vectors[0], tuple(vectors[1:])), DESCRIPTION)
    for edges in ([0, 5], [0, 2, 3, 5]):
        pieces = [
            lambda vector=vector, edges=edges: [vector[begin:end] for begin, end in pairwise(edges)]
            for vector in vectors
        ]
        image = first_image(np.dtype(np.float64), 5, pieces[0], pieces[1:], DESCRIPTION)
        assert b"".join(bytes(piece) for piece in image) == expected


def test_the_image_is_a_copy() -> None:
    """Weights that change afterwards do not change it."""
    snapshot = _snapshot()
    image = make_image(snapshot, DESCRIPTION)
    before = bytes(image)
    snapshot.parameters[:] += 1
    assert image == before


@settings(
    max_examples=2 * settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=st.floats(), count=st.integers(0, 2**64 - 1))
def test_the_state_is_exact(tmp_path: Path, value: float, count: int) -> None:
    """Every double comes back with the same bits, with or without presence, and every count."""
    state = ps_pb.TrainingState(step=count, seconds=value, gradient_norm=value)
    state.epoch.sums.cost_sum = value
    path = tmp_path / "a"
    sha256 = _written(path, make_image(Snapshot(state, np.zeros(1, np.float32)), {}))
    read = read_image(path, sha256).state
    assert read.step == count
    for each in (read.seconds, read.gradient_norm, read.epoch.sums.cost_sum):
        assert math.isnan(each) if math.isnan(value) else struct.pack("d", each) == struct.pack("d", value)


def test_presence_is_kept(tmp_path: Path) -> None:
    """What was absent is absent, and what was there with the value 0 is there."""
    state = ps_pb.TrainingState(validation=Sums(), gradient_norm=0.0)
    path = tmp_path / "a"
    read = read_image(path, _written(path, make_image(Snapshot(state, np.zeros(1, np.float32)), {}))).state
    assert read == state
    assert not read.HasField("best")


def test_the_header_describes_it(tmp_path: Path) -> None:
    """The description, and the state beside it."""
    _written(tmp_path / "a", make_image(_snapshot(), DESCRIPTION))
    description = describe_image(tmp_path / "a")
    assert {name: description[name] for name in DESCRIPTION} == DESCRIPTION
    assert described_state(description) == STATE


def test_the_state_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """Which had the sums of an epoch beside its number; with nothing lost."""
    epoch = {"epoch": 1, "cost_sum": 0.1, "correct_count": "7", "samples": "20", "seconds": 0.25}
    state = {
        "step": "12", "optimizer_updates": "12", "samples": "120", "seconds": 1.5, "gradient_norm": 0.5, "epoch": epoch,
        "validation": {"cost_sum": 0.3333333333333333, "correct_count": "4", "samples": "5"},
        "best": {"epoch": 1, "validation_cost": 0.0666},
    }  # fmt: skip
    metadata = {"nablad.v1": json.dumps({**DESCRIPTION, "state": state})}
    sha256 = _written(tmp_path / "a", save({"parameters": np.ones(3, np.float32)}, metadata))
    expected = ps_pb.TrainingState(
        step=12,
        optimizer_updates=12,
        samples=120,
        seconds=1.5,
        epoch=ps_pb.EpochSums(epoch=1, sums=Sums(cost_sum=0.1, correct_count=7, samples=20), seconds=0.25),
        validation=Sums(cost_sum=1 / 3, correct_count=4, samples=5),
        best=ps_pb.BestEpoch(epoch=1, validation_cost=0.0666),
        gradient_norm=0.5,
    )
    assert described_state(describe_image(tmp_path / "a")) == expected
    assert read_image(tmp_path / "a", sha256).state == expected


def test_another_digest_is_refused(tmp_path: Path) -> None:
    """One flipped bit of the weights, which the library does not notice."""
    image = make_image(_snapshot(), DESCRIPTION)
    sha256 = _written(tmp_path / "a", image)
    image[-1] ^= 1
    _written(tmp_path / "a", image)
    with pytest.raises(CheckpointError, match="checkpoint a is damaged: it has SHA-256"):
        read_image(tmp_path / "a", sha256)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With what the system says."""
    with pytest.raises(CheckpointError, match="checkpoint a is gone"):
        read_image(tmp_path / "a", "")
    with pytest.raises(CheckpointError, match="checkpoint a is gone"):
        describe_image(tmp_path / "a")


def _with(**tensors: Any) -> bytes:
    metadata = {"nablad.v1": json.dumps({"state": {}})}
    return save({"parameters": np.zeros(3, np.float32)} | tensors, metadata)


NO_CHECKPOINTS = {
    "nothing": (b"", "not a safetensors file"),
    "other bytes": (b"\x10\0\0\0\0\0\0\0{]", "not a safetensors file"),
    "a huge header": (b"\xff" * 64, "not a safetensors file"),
    "no metadata": (save({"parameters": np.zeros(3, np.float32)}), "no readable entry"),
    "other metadata": (save({"parameters": np.zeros(3, np.float32)}, {"a": "b"}), "no readable entry"),
    "no JSON": (save({"parameters": np.zeros(3, np.float32)}, {"nablad.v1": "{"}), "no readable entry"),
    "no object": (save({"parameters": np.zeros(3, np.float32)}, {"nablad.v1": "[]"}), "must have an object"),
    "no state": (save({"parameters": np.zeros(3, np.float32)}, {"nablad.v1": "{}"}), "training state"),
    "another state": (
        save({"parameters": np.zeros(3, np.float32)}, {"nablad.v1": '{"state": {"stop": 1}}'}),
        "training state",
    ),
    "no parameters": (save({"best": np.zeros(3, np.float32)}, {"nablad.v1": '{"state": {}}'}), "must have the tensors"),
    "a gap": (_with(moment1=np.zeros(3, np.float32)), "must have the tensors"),
    "more": (_with(bias=np.zeros(3, np.float32)), "must have the tensors"),
    "another size": (_with(moment0=np.zeros(4, np.float32)), "vectors of one size"),
    "a matrix": (_with(best=np.zeros((1, 3), np.float32)), "vectors of one size"),
    "whole numbers": (_with(best=np.zeros(3, np.int32)), "of type I32, but only F32 and F64"),
    "two dtypes": (_with(best=np.zeros(3, np.float64)), "several dtypes"),
}


@pytest.mark.parametrize("kind", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    """A file of another content, even under its right digest, with a sentence that names it."""
    data, sentence = NO_CHECKPOINTS[kind]
    sha256 = _written(tmp_path / "a", data)
    with pytest.raises(CheckpointError, match=sentence):
        read_image(tmp_path / "a", sha256)


def test_whatever_the_bytes_are_the_error_is_one_of_checkpoints(
    tmp_path: Path, mutations: Callable[..., Iterator[bytes]]
) -> None:
    """Also where the digest is that of the changed file: a checkpoint, or CheckpointError."""
    image = bytes(make_image(_snapshot(), DESCRIPTION))
    refused = 0
    for content in mutations(image, 8 + int.from_bytes(image[:8], "little"), 500):
        sha256 = _written(tmp_path / "a", content)
        for read in (
            lambda: described_state(describe_image(tmp_path / "a")),
            lambda: read_image(tmp_path / "a", sha256).state,  # noqa: B023 (called at once)
        ):
            try:
                assert isinstance(read(), ps_pb.TrainingState)
            except CheckpointError:
                refused += 1
    assert refused > 600


WRONG = [None, True, 1, -1, 1.5, 10**400, "x", "NaN", "1e999", [], [1, 2], [[]], {}, {"a": 1}, {"step": {}}]


@pytest.mark.parametrize("value", WRONG)
def test_wrong_types_are_refused(tmp_path: Path, value: object) -> None:
    """In place of the description, of the state, and of each of its fields."""
    _written(tmp_path / "a", make_image(_snapshot(), DESCRIPTION))
    state = describe_image(tmp_path / "a")["state"]
    fields = [{**state, name: value} for name in ps_pb.TrainingState.DESCRIPTOR.fields_by_name]
    for text in [json.dumps(value), *(json.dumps({"state": each}) for each in (value, *fields))]:
        data = save({"parameters": np.zeros(3, np.float32)}, {"nablad.v1": text})
        sha256 = _written(tmp_path / "a", data)
        try:
            assert isinstance(read_image(tmp_path / "a", sha256).state, ps_pb.TrainingState)
        except CheckpointError:
            continue


@pytest.mark.parametrize("depth", [50, 200, 5000])
def test_deep_nesting_is_refused(tmp_path: Path, depth: int) -> None:
    """In the description, which is JSON within JSON, as deep as one likes."""
    for opening, closing in (("[", "]"), ('{"epoch":', "}")):
        text = f'{{"state": {opening * depth}1{closing * depth}}}'
        sha256 = _written(tmp_path / "a", save({"parameters": np.zeros(3, np.float32)}, {"nablad.v1": text}))
        with pytest.raises(CheckpointError):
            read_image(tmp_path / "a", sha256)


def test_a_long_header_is_not_read(tmp_path: Path) -> None:
    """Ours have some thousand bytes."""
    data = save({"parameters": np.zeros(3, np.float32)}, {"nablad.v1": '{"state": {}}', "more": "x" * (1 << 20)})
    sha256 = _written(tmp_path / "a", data)
    for read in (lambda: read_image(tmp_path / "a", sha256), lambda: describe_image(tmp_path / "a")):
        with pytest.raises(CheckpointError, match="its header claims 1,048,"):
            read()
