"""What is stored of a data set: read as it was stored, or not at all, with a sentence that says what to do."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad.v1.job_spec_pb2 import SCALING_STANDARD
from nablad.v1.parameter_server_pb2 import DataSource, FeatureScaling
from service.datasets import DatasetVerifier, fit_scaling, require_intact
from service.datasets import integrity as integrity_module
from service.errors import StoredDatasetError
from workers.rows import Rows, RowsError

FILES = ("features.npy", "targets.npy", "statistics.npz")


@pytest.fixture
def source(data_source: Callable[..., DataSource]) -> DataSource:
    """The data set "digits"."""
    return data_source("digits", rows=9)


@pytest.fixture
def directory(source: DataSource) -> Path:
    """Where it lies."""
    return Path(source.directory)


def _look(source: DataSource) -> None:
    """Reads all of it, as an attempt does before it starts."""
    require_intact(source.dataset, Path(source.directory))
    fit_scaling(SCALING_STANDARD, Path(source.directory), source.dataset.statistics_sha256)


def test_what_was_stored_is_intact(source: DataSource) -> None:
    """Digests are recorded of rows and of statistics."""
    assert len(source.dataset.sha256) == len(source.dataset.statistics_sha256) == 64
    _look(source)


@pytest.mark.parametrize("name", FILES)
def test_every_changed_byte_is_noticed(source: DataSource, directory: Path, name: str) -> None:
    """Every fifth byte in turn, some lengths, and nothing at all; the sentence says which data set, and what to do."""
    data = (directory / name).read_bytes()
    changed = [data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :] for place in range(0, len(data), 5)]
    for content in [*changed, *(data[:length] for length in range(0, len(data), 50)), data + b"x"]:
        (directory / name).write_bytes(content)
        with pytest.raises(StoredDatasetError, match=r"data set 'digits' is damaged: .*SHA-256.*nabla dataset add"):
            _look(source)


@pytest.mark.parametrize("name", [*FILES, ""])
def test_what_is_gone_is_named(source: DataSource, directory: Path, name: str) -> None:
    """A file, or the whole folder."""
    folder = directory.rename(directory.with_name("away"))
    if name:
        folder.rename(directory)
        (directory / name).unlink()
    with pytest.raises(
        StoredDatasetError, match=rf"data set 'digits' is gone: .*{name or 'features.npy'} is not there"
    ):
        _look(source)


def test_a_pipe_is_not_waited_for(source: DataSource, directory: Path) -> None:
    """It is no file of ours."""
    (directory / "targets.npy").unlink()
    os.mkfifo(directory / "targets.npy")
    with pytest.raises(StoredDatasetError, match="cannot be read"):
        _look(source)


def test_what_was_stored_without_digests_is_read(source: DataSource, directory: Path) -> None:
    """By earlier releases."""
    source.dataset.sha256 = source.dataset.statistics_sha256 = ""
    _look(source)
    (directory / "targets.npy").unlink()
    with pytest.raises(StoredDatasetError):
        _look(source)


def test_files_that_are_not_touched_are_read_once(
    source: DataSource, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written to, or replaced, is read again, also if it looks as long and as old as before."""
    looks = []
    monkeypatch.setattr(integrity_module, "require_intact", lambda *_: looks.append(1))
    datasets, file = DatasetVerifier(), directory / "features.npy"

    def looked() -> int:
        looks.clear()
        datasets.require_intact(source.dataset, directory)
        return len(looks)

    assert [looked(), looked()] == [1, 0]
    facts, data = file.stat(), file.read_bytes()
    file.write_bytes(data[:-1] + b"x")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert [looked(), looked()] == [1, 0]
    file.unlink()
    file.write_bytes(data)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert [looked(), looked()] == [1, 0]
    source.dataset.sha256 = "another"
    assert [looked(), looked()] == [1, 0]


def test_damage_is_found_each_time(source: DataSource, directory: Path) -> None:
    """Only what was intact is not read again."""
    (directory / "features.npy").write_bytes(b"")
    datasets = DatasetVerifier()
    for _ in range(2):
        with pytest.raises(StoredDatasetError):
            datasets.require_intact(source.dataset, directory)


@pytest.mark.parametrize("name", FILES)
def test_whatever_the_bytes_are_the_error_is_one_of_ours(
    source: DataSource, directory: Path, name: str, mutations: Callable[..., Iterator[bytes]]
) -> None:
    """Also without a digest: workers see the rows that the data set has, or RowsError; the service its own error."""

    def read() -> Any:
        if name == "statistics.npz":
            return fit_scaling(SCALING_STANDARD, directory)
        if name == "features.npy":
            fit_scaling(SCALING_STANDARD, directory)
        return Rows(source, FeatureScaling(shift=[0.0], factor=[1.0]), np.float64)

    data, refused = (directory / name).read_bytes(), 0
    for content in mutations(data, 128, 200):
        (directory / name).write_bytes(content)
        try:
            read()
        except (StoredDatasetError, RowsError):
            refused += 1
    assert refused > 100
