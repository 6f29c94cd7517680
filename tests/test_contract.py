"""The wire contract and what is generated from it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _make_proto(folder: Path) -> None:
    """Runs `make proto` on a copy of what it reads."""
    shutil.copytree(ROOT / "proto", folder / "proto")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "deploy" / "server").mkdir(parents=True)
    for name in ("pyproject.toml", "deploy/server/pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    (folder / ".venv").mkdir()
    (folder / ".venv" / "installed").touch()
    subprocess.run(
        ["make", "--silent", "proto", f"BIN={Path(sys.executable).parent}"], cwd=folder, check=True, timeout=100
    )


def test_the_stubs_are_what_the_contract_says(tmp_path: Path) -> None:
    """Generating them again changes nothing, and leaves none over."""
    _make_proto(tmp_path)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "nablad" / "v1").iterdir()}
    committed = {path.name: path.read_bytes() for path in (ROOT / "nablad" / "v1").iterdir() if path.is_file()}
    assert fresh == {name: content for name, content in committed.items() if name != "__init__.py"}


def test_the_contract_follows_the_style_of_its_language() -> None:
    """The standard rules of buf find nothing."""
    buf = Path(sys.executable).with_name("buf")
    if not buf.exists():
        pytest.skip("buf is not installed in this environment")
    linted = subprocess.run([buf, "lint"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_the_runtime_is_not_older_than_the_stubs() -> None:
    """The oldest protobuf that pyproject.toml allows is the one that the stubs were generated for."""
    stub = (ROOT / "nablad" / "v1" / "jobs_pb2.py").read_text()
    generated = ".".join(stub.split("Domain.PUBLIC,\n")[1].replace("\n", "").replace(" ", "").split(",")[:3])
    assert f'"protobuf>={generated},<{int(generated.split(".")[0]) + 1}"' in (ROOT / "pyproject.toml").read_text()
