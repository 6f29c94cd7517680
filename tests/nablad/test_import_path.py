"""Modules come from where the service is installed, whatever lies where it is started and in PYTHONPATH."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nablad.import_path import child_environment, search_order

STANDARD = ("/lib/python311.zip", "/lib/python3.11")


def test_the_service_comes_before_what_is_installed_and_pythonpath_comes_last():
    """PYTHONPATH can add modules and replace none."""
    path = ["/mine", *STANDARD, "/site-packages", "/checkout"]
    assert search_order(path, ["/mine"], STANDARD, "/checkout") == [*STANDARD, "/checkout", "/site-packages", "/mine"]


def test_the_service_is_found_wherever_it_was_started_from():
    """Its folder may have been on the path for nothing but the start directory, or PYTHONPATH."""
    assert search_order([*STANDARD, "/site-packages"], [], STANDARD, "/checkout")[2] == "/checkout"
    path = ["/other", "/checkout", *STANDARD]
    assert search_order(path, ["/other", "/checkout"], STANDARD, "/checkout") == [*STANDARD, "/checkout", "/other"]


def test_an_empty_entry_is_dropped():
    """It would stand for the directory that each process is in."""
    assert search_order(["", *STANDARD], [], STANDARD, "/own") == [*STANDARD, "/own"]
    assert child_environment({}, ["", "/own"])["PYTHONPATH"] == "/own"


def test_a_child_looks_for_modules_where_its_parent_does(tmp_path: Path):
    """In the same order, and not in the directory that it is in."""
    path = [*(entry for entry in sys.path if entry), str(tmp_path / "last")]
    said = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.path, sep='\\n')"],
        cwd=tmp_path,
        env=child_environment(os.environ, path),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    assert said[: len(path)] == path
    assert str(tmp_path) not in said


@pytest.mark.parametrize("options", [["-m", "nablad"], ["-P", "-m", "nablad"]])
def test_nothing_that_lies_around_is_run(hostile_folders, options):
    """A start directory and a PYTHONPATH with modules of the names that the service imports."""
    here, there, marker = hostile_folders
    said = subprocess.run(
        [sys.executable, *options, "serve", "--help"],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(there)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert "--data-dir" in said.stdout
    assert not marker.exists()


def test_without_the_service_s_part_the_command_says_what_to_install(tmp_path: Path):
    """One sentence, where only the client is installed."""
    root = Path(__file__).parents[2]
    (tmp_path / "nablad").symlink_to(root / "nablad")
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
         "from nablad.__main__ import main; main()"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 1
    assert (
        said.stderr
        == "Error: the service is not completely installed, service is missing: run pip install '.[server]' in the "
        "folder of nablad's source\n"
    )
