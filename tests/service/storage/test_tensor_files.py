"""Files of tensors: the library's bytes, written and read in pieces."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from service.storage import tensor_files
from service.storage.tensor_files import TensorFile, TensorFileError, TensorLayout

Tensors = dict[str, np.ndarray]

METADATA = {"nablad.v1": '{"a": "é\\u00e9\\n\\""}'}
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
TENSORS = st.dictionaries(
    st.text(st.sampled_from("Wb01.é"), min_size=1, max_size=4),
    st.tuples(st.sampled_from(["float32", "float64"]), SHAPES),
    min_size=1,
    max_size=6,
).map(lambda kinds: {name: _filled(*kind) for name, kind in kinds.items()})


def _filled(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return (np.arange(np.prod(shape)) / 7).astype(dtype).reshape(shape)


def _written(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _bytes(tensors: Tensors) -> bytes:
    """A file made of a layout."""
    layout = TensorLayout({name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}, METADATA)
    data = bytearray(layout.size_bytes)
    data[: len(layout.header)] = layout.header
    for name, place in layout.tensors.items():
        data[place.start : place.start + place.nbytes] = tensors[name].tobytes()
    return bytes(data)


@given(tensors=TENSORS)
def test_the_bytes_are_the_library_s(tensors: Tensors) -> None:
    """Whatever the names, types and shapes."""
    assert _bytes(tensors) == save(tensors, METADATA)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tensors=TENSORS, chunk=st.sampled_from([8, 24, 1 << 20]))
def test_what_was_written_is_read(tmp_path: Path, tensors: Tensors, chunk: int) -> None:
    """In pieces of any size, whole, and mapped."""
    path = tmp_path / "a"
    sha256 = _written(path, _bytes(tensors))
    with pytest.MonkeyPatch.context() as patch, TensorFile(path, sha256) as file:
        patch.setattr(tensor_files, "CHUNK_BYTES", chunk)
        assert file.metadata == METADATA
        mapped = file.map_tensors()
        assert mapped.keys() == file.tensors.keys() == tensors.keys()
        for name, tensor in tensors.items():
            pieces = list(file.pieces(name))
            assert max(piece.nbytes for piece in pieces) <= chunk
            for read in (np.concatenate(pieces).reshape(tensor.shape), file.read(name), mapped[name]):
                assert (read.dtype, read.shape, read.tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes())


def test_what_is_mapped_stays(tmp_path: Path) -> None:
    """When the file is closed and gone; nobody can write to it."""
    path = tmp_path / "a"
    with TensorFile(path, _written(path, _bytes({"W0": _filled("float32", (3, 4))}))) as file:
        mapped = file.map_tensors()["W0"]
    path.unlink()
    assert np.array_equal(mapped, _filled("float32", (3, 4)))
    assert not mapped.flags.writeable


def test_a_file_of_the_library_is_read(tmp_path: Path) -> None:
    """Without metadata, too."""
    data = save({"W0": _filled("float64", (2, 2))})
    with TensorFile(tmp_path / "a", _written(tmp_path / "a", data)) as file:
        assert file.metadata == {}
        assert np.array_equal(file.read("W0"), load(data)["W0"])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not a safetensors file"),
        (b"\xff" * 64, "is not a safetensors file"),
        (_bytes({"W0": _filled("float32", (3,))})[:-1], "is not a safetensors file"),
        (_bytes({"W0": _filled("float32", (3,))}) + b"\0", "is not a safetensors file"),
        (save({"W0": np.zeros(3, np.int8)}), "has tensors of type I8, but only F32 and F64 are read"),
    ],
)
def test_what_is_none_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    """Even under its right digest."""
    with pytest.raises(TensorFileError, match=sentence):
        TensorFile(tmp_path / "a", _written(tmp_path / "a", data))


def test_another_digest_and_a_missing_file_are_told(tmp_path: Path) -> None:
    """Before anything of the content is looked at."""
    _written(tmp_path / "a", b"anything")
    with pytest.raises(TensorFileError, match="is damaged: it has SHA-256"):
        TensorFile(tmp_path / "a", hashlib.sha256(b"another").hexdigest())
    with pytest.raises(TensorFileError, match="is gone"):
        TensorFile(tmp_path / "b", "")
    with pytest.raises(TensorFileError, match=r"cannot be read: .* is not a regular file"):
        TensorFile(tmp_path, "")


@pytest.mark.parametrize("read", [lambda file: list(file.pieces("W0")), lambda file: file.read("W0")])
def test_a_file_that_shrinks_meanwhile_is_told(tmp_path: Path, read: Any) -> None:
    """Less than was promised is no tensor."""
    path = tmp_path / "a"
    data = _bytes({"W0": _filled("float32", (100, 100))})
    with TensorFile(path, _written(path, data)) as file:
        path.write_bytes(data[:-1])
        with pytest.raises(TensorFileError, match="has become shorter"):
            read(file)
