"""What tests of several parts share: small data sets on disk, and a training loop in plain numpy to compare with."""

import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from xdist.scheduler import LoadFileScheduling

from nablad.v1 import datasets_pb2 as datasets_pb
from nablad.v1 import job_spec_pb2 as spec_pb
from nablad.v1 import parameter_server_pb2 as ps_pb
from service.datasets import StagedFile, fit_scaling, store_dataset
from workers import from_spec
from workers.mathematics.parameters import ParameterLayout

# The same examples at every run: a few in `make test`, more of them in `make test-system`;
# `pytest --hypothesis-profile explore` looks for new ones.
hypothesis.settings.register_profile("reproducible", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.register_profile("thorough", derandomize=True, deadline=None, max_examples=100)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("reproducible")


class _WholeFiles(LoadFileScheduling):
    """Gives a process whole files, whose tests share fixtures, and all tests with a daemon to one, as they share it."""

    def _split_scope(self, nodeid: str) -> str:
        return "system" if nodeid.startswith("tests/system/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _WholeFiles | None:
    """With `--dist loadfile`, as in the tiers that only have tests with daemons, each process has one of its own."""
    if config.getoption("dist") == "loadfile":
        return None
    config.option.loadscopereorder = False
    return _WholeFiles(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts tests with real processes first: they are the longest."""
    for item in items:
        if item.get_closest_marker("happy") and item.get_closest_marker("faults"):
            raise pytest.UsageError(f"{item.nodeid} is marked happy and faults: it would run in two tiers")
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


def pytest_collection_finish() -> None:
    """Hides what collection has made from the garbage collector: tests that collect garbage need not search it."""
    gc.collect()
    gc.freeze()


_DEEP = (b"[" * 4000, b'{"a":' * 4000, b"(" * 4000)
_LETTERS = b"[]{}(),:\"'0123456789eEnultr\\-"


def _labelled_rows(rows: int, features: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian clouds, one for each class."""
    generator = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    centres = np.random.default_rng(99).normal(size=(classes, features)) * 2
    return centres[labels] + generator.normal(size=(rows, features)), labels


@pytest.fixture
def labelled_rows() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Features (rows, features) and class labels (rows,) of a problem that a small network learns at once."""
    return _labelled_rows


@pytest.fixture
def data_source(tmp_path: Path) -> Callable[..., ps_pb.DataSource]:
    """Stores a small data set and gives what workers are told of it."""

    def make(name: str, rows: int, features: int = 6, classes: int = 3, seed: int = 0) -> ps_pb.DataSource:
        x, labels = _labelled_rows(rows, features, classes, seed)
        file = tmp_path / f"{name}.npz"
        np.savez(file, x=x, y=labels)
        stored = store_dataset([StagedFile(file.name, file)], datasets_pb.DataFiles(), tmp_path / name)
        dataset = datasets_pb.Dataset(name=name, **asdict(stored))
        return ps_pb.DataSource(dataset=dataset, directory=str(tmp_path / name))

    return make


@pytest.fixture
def assignment(data_source: Callable[..., ps_pb.DataSource]) -> Callable[..., ps_pb.Assignment]:
    """The assignment of a job file's spec over small data sets."""

    def make(spec: spec_pb.JobSpec, rows: int = 50, validation_rows: int = 20) -> ps_pb.Assignment:
        train = data_source("train", rows)
        return ps_pb.Assignment(
            job_id="test-job",
            attempt=1,
            spec=spec,
            train=train,
            validation=data_source("validation", validation_rows, seed=1),
            scaling=fit_scaling(spec.data.scaling, Path(train.directory)),
        )

    return make


@pytest.fixture
def plain_training() -> Callable[[ps_pb.Assignment], bytes]:
    """The weights that a loop in plain numpy ends with: sigmoid everywhere, log loss, plain SGD, one process."""
    return _plain_training


def _plain_training(assignment: ps_pb.Assignment) -> bytes:
    spec, plan, dtype = assignment.spec, from_spec.plan(assignment), from_spec.dtype(assignment.spec)
    directory = Path(assignment.train.directory)
    x, labels = np.load(directory / "features.npy"), np.load(directory / "targets.npy")
    x = (x.astype(dtype) - np.asarray(assignment.scaling.shift, dtype)) * np.asarray(assignment.scaling.factor, dtype)
    y = np.eye(assignment.train.dataset.classes, dtype=dtype)[labels]
    vector = from_spec.first_parameters(spec)
    weights = ParameterLayout(tuple(spec.model.layers), True).views(vector)
    for step in range(plan.steps):
        parts = [plan.micro_batch(step, part) for part in range(plan.parts(step))]
        gradients = [_gradient(weights, x[rows].T, y[rows].T) for rows in parts]
        samples = sum(map(len, parts))
        for matrices, sums in zip(weights, _tree_sum(gradients), strict=True):
            for matrix, total in zip(matrices, sums, strict=True):
                matrix[...] -= spec.training.learning_rate / samples * total
    return vector.tobytes()


def _gradient(weights: Any, a0: np.ndarray, y: np.ndarray) -> list[list[np.ndarray]]:
    a = [a0]
    for w, b in weights:
        a.append(1 / (1 + np.exp(-(w @ a[-1] + b[:, np.newaxis]))))
    delta, gradients = a[-1] - y, []
    for number in reversed(range(len(weights))):
        gradients.append([delta @ a[number].T, delta.sum(axis=1)])
        if number:
            delta = (weights[number][0].T @ delta) * ((1 - a[number]) * a[number])
    return gradients[::-1]


def _tree_sum(gradients: list[Any]) -> Any:
    """Neighbours first, level by level; one without a neighbour goes up as it is."""
    while len(gradients) > 1:
        pairs = [gradients[start : start + 2] for start in range(0, len(gradients), 2)]
        gradients = [reduce(_add, pair) for pair in pairs]
    return gradients[0]


def _add(left: Any, right: Any) -> Any:
    return [[a + b for a, b in zip(*matrices, strict=True)] for matrices in zip(left, right, strict=True)]


# What `nablad serve` and Ray's processes import, first of all; the client's own package lies beside it.
_IMPORTED = ("service.py", "workers/__init__.py", "numpy.py", "ray.py", "grpc/__init__.py", "click.py", "psutil.py")


@pytest.fixture
def hostile_folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two folders with modules of names that the service imports, and the file that any of them writes if it is run."""
    marker = tmp_path / "marker"
    for folder in ("here", "there"):
        for name in _IMPORTED:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"with open({str(marker)!r}, 'a') as file:\n    file.write(__file__ + '\\n')\n")
    return tmp_path / "here", tmp_path / "there", marker


@pytest.fixture
def mutations() -> Callable[..., Iterator[bytes]]:
    """What somebody else may do to a file: bits flipped, ends cut off, bytes put in, nesting without an end."""
    return _mutations


def _mutations(data: bytes, header_bytes: int, count: int, seed: int = 1) -> Iterator[bytes]:
    """Changed copies of a file, most of them in its header, each with one to three changes; none is the file itself.

    Args:
        data: The file.
        header_bytes: At its beginning.
        count: How many.
        seed: Draws the same ones again.
    """
    draw = random.Random(seed)
    while count:
        changed = bytearray(data)
        for _ in range(draw.randint(1, 3)):
            _change(changed, min(header_bytes, len(changed)) if draw.random() < 0.8 else len(changed), draw)
        if changed != data:
            count -= 1
            yield bytes(changed)


def _change(data: bytearray, end: int, draw: random.Random) -> None:
    place = draw.randrange(end) if end else 0
    match draw.randrange(6 if end else 1):
        case 0:
            data[place:place] = draw.randbytes(draw.randint(1, 8))
        case 1:
            data[place] ^= 1 << draw.randrange(8)
        case 2:
            data[place] = draw.choice(_LETTERS)
        case 3:
            del data[place : place + draw.randint(1, 8)]
        case 4:
            del data[draw.randrange(len(data)) :]
        case 5:
            data[place:place] = draw.choice(_DEEP)
