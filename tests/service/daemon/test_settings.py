"""The daemon's settings, on the command line."""

import os
import pwd
import subprocess
import sys

import pytest
from click.testing import CliRunner

from service.daemon.cli import main


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, without HOME: a container's uid of its own."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_DATA_HOME", "NABLAD_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_who_has_no_home_is_told_what_to_set() -> None:
    """One sentence; the help is there all the same."""
    told = CliRunner().invoke(main, ["serve"])
    assert (told.exit_code, told.exception.__class__) == (2, SystemExit)
    assert "--data-dir or NABLAD_DATA_DIR" in told.output
    assert CliRunner().invoke(main, ["serve", "--help"]).exit_code == 0


def test_a_home_that_cannot_be_written_is_told_what_to_set() -> None:
    """Where nobody can make a folder, root neither."""
    environment = {
        name: value for name, value in os.environ.items() if name not in {"XDG_DATA_HOME", "NABLAD_DATA_DIR"}
    }
    ran = subprocess.run(
        [sys.executable, "-m", "nablad", "serve", "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"],
        env=environment | {"HOME": "/proc"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 1, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("Error: the data directory /proc/.local/share/nablad cannot be used: ")
    assert line.endswith("give another with --data-dir or NABLAD_DATA_DIR")
