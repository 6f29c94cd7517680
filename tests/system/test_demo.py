"""`nabla demo`: from nothing to a model that reads a digit."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NABLA = Path(sys.executable).with_name("nabla")


@pytest.fixture
def demo_folder() -> Iterator[Path]:
    """Where the demo's service keeps what ends with it; empty again at the end. Short, as paths of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []


def _demo(keep: Path, demo_folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [NABLA, "demo", "--keep", keep],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"TMPDIR": str(demo_folder)},
    )  # fmt: skip


def test_the_demo_learns_to_read_digits(tmp_path: Path, demo_folder: Path) -> None:
    """At least 96 % of the held-out digits, the same figure from /metrics, a model on disk, and a prediction."""
    with _demo(tmp_path, demo_folder) as demo:
        said, _ = demo.communicate(timeout=100)
    assert demo.returncode == 0, said
    accuracy = float(
        re.findall(r"^nablad_job_validation_accuracy_ratio\{.*\} (\S+)$", said.replace("  nablad", "nablad"), re.M)[0]
    )
    assert accuracy >= 0.96
    assert f"Accuracy on the held-out digits: {accuracy:.2%}." in said
    assert "it was written as a 7" in said
    assert (tmp_path / "demo-model.safetensors").stat().st_size > 10_000


def test_ctrl_c_ends_the_demo_and_its_service(tmp_path: Path, demo_folder: Path) -> None:
    """In the middle of the training: exit code 130, and nothing is left."""
    with _demo(tmp_path, demo_folder) as demo:
        assert demo.stdout is not None
        next(line for line in demo.stdout if "epoch 2 of" in line)
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert list(tmp_path.iterdir()) == []
