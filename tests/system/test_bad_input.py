"""Bad input: every mistake is named at once, in one clear sentence each, and nothing is kept."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from nablad import Client

Nabla = Callable[..., "CompletedProcess[str]"]
MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


@pytest.mark.happy
def test_four_mistakes_are_all_named(nabla: Nabla, digits: None, tmp_path: Path) -> None:
    """A misspelt key, a misspelt value, a number out of range, an unknown data set: one answer, and nothing queued."""
    before = nabla("job", "list", "-o", "json").stdout
    job = tmp_path / "job.yaml"
    job.write_text(
        "data: {train: digits-trian, validation: digits-validation}\n"
        "model: {layers: [64, 10], activaton: relu, output_activation: sofmax}\n"
        "training: {batch_size: 0}\n"
    )
    refused = nabla("job", "submit", job)
    assert refused.returncode == 2
    assert refused.stdout == ""
    lines = refused.stderr.splitlines()
    assert any(
        "data.train" in line and '"digits-trian"' in line and 'did you mean "digits-train"' in line for line in lines
    )
    assert any("model.activaton" in line and 'did you mean "activation"' in line for line in lines)
    assert any("model.output_activation" in line and 'did you mean "softmax"' in line for line in lines)
    assert any("training.batch_size" in line and "got 0" in line and "1 to " in line for line in lines)
    assert nabla("job", "list", "-o", "json").stdout == before


def test_mistakes_that_only_the_data_shows_are_named_too(nabla: Nabla, digits: None, tmp_path: Path) -> None:
    """Layers that do not fit the data set, and an impossible pair of cost and output."""
    job = tmp_path / "job.yaml"
    job.write_text(
        "data: {train: digits-train}\n"
        "model: {layers: [63, 9], output_activation: identity}\n"
        "cost: {function: log_loss}\n"
    )
    refused = nabla("job", "submit", job)
    assert refused.returncode == 2
    for expected in ("63", "64", "9", "10", "identity"):
        assert expected in refused.stderr


def _half(path: Path, target: Path) -> Path:
    data = path.read_bytes()
    target.write_bytes(data[: len(data) // 2])
    return target


def _bad_files(folder: Path) -> dict[str, tuple[list[Path], list[str]]]:
    """Files by what is wrong with them, with what the sentence must say."""
    np.savez(folder / "pickled.npz", x=np.array([{"a": 1}, None], dtype=object), y=np.arange(2))
    np.save(folder / "x.npy", np.zeros((10, 3)))
    np.save(folder / "y.npy", np.arange(9))
    np.save(folder / "nan.npy", np.full((9, 3), np.nan))
    (folder / "word.csv").write_text("a,b,label\n1,2,0\n3,four,1\n")
    (folder / "empty.csv").write_text("")
    (folder / "what.parquet").write_bytes(b"PAR1")
    half = _half(folder / "x.npy", folder / "half.npy")
    return {
        "half a file": ([half, folder / "y.npy"], ["half.npy", "truncated"]),
        "wrong length": ([folder / "x.npy", folder / "y.npy"], ["y.npy", "9", "x.npy", "10"]),
        "pickled": ([folder / "pickled.npz"], ["pickled.npz", "pickle"]),
        "a word": ([folder / "word.csv"], ["word.csv", "line 3", "four"]),
        "not finite": ([folder / "nan.npy", folder / "y.npy"], ["nan.npy", "nan", "row 0"]),
        "empty": ([folder / "empty.csv"], ["empty.csv"]),
        "unknown format": ([folder / "what.parquet"], ["what.parquet", ".npz"]),
    }


@pytest.mark.parametrize(
    "case", ["half a file", "wrong length", "pickled", "a word", "not finite", "empty", "unknown format"]
)
def test_a_bad_file_is_refused_in_one_sentence_and_nothing_is_kept(
    nabla: Nabla, client: Client, daemon: Any, tmp_path: Path, case: str
) -> None:
    """The sentence names the file and what is wrong; no data set, no folder and no staged file stays."""
    files, expected = _bad_files(tmp_path)[case]
    refused = nabla("dataset", "add", "bad", *files)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    for part in expected:
        assert part in refused.stderr
    assert "bad" not in {dataset.name for dataset in client.datasets()}
    assert not (daemon.data_directory / "datasets" / "bad").exists()
    assert not list((daemon.data_directory / "staging").iterdir())


def test_half_of_mnist_is_refused(nabla: Nabla, daemon: Any, tmp_path: Path) -> None:
    """A gzipped IDX file cut in half says how much is missing."""
    if not MNIST.is_dir():
        pytest.skip(f"MNIST's IDX files are not in {MNIST}")
    half = _half(MNIST / "t10k-images-idx3-ubyte.gz", tmp_path / "t10k-images-idx3-ubyte.gz")
    refused = nabla("dataset", "add", "half", half, MNIST / "t10k-labels-idx1-ubyte.gz")
    assert refused.returncode == 2
    assert "truncated" in refused.stderr
    assert "10,000 × 28 × 28" in refused.stderr
    assert not list((daemon.data_directory / "staging").iterdir())


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a" * 64, "a\nb"])
def test_names_cannot_leave_the_data_directory(nabla: Nabla, daemon: Any, tmp_path: Path, name: str) -> None:
    """A data set's name is a plain word; anything else is refused before a byte is kept."""
    file = tmp_path / "a.csv"
    file.write_text("1,0\n2,1\n")
    before = sorted(daemon.data_directory.rglob("*"))
    refused = nabla("dataset", "add", name, file)
    assert refused.returncode == 2
    assert sorted(daemon.data_directory.rglob("*")) == before
