"""The command `nablad`, with options that nobody means: never a traceback."""

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import click
import pytest
from click.testing import CliRunner

from service.daemon import daemon
from service.daemon.cli import main, serve
from service.daemon.settings import DaemonSettings

VALUES = (
    *("", "-", "latin\udce9", "a\0b", "\x1b[31m\n", "x" * 100_000, "n/" * 3000, "../..", "-1", "9" * 5000, "1e999"),
    *("file", "file/inside", "pipe", "loop", "/dev/null", "/proc/nothing"),
    *(":", "a:", ":1", "a..b:1", "[::1", "h\xf6st:99999", "latin\udce9:1", "127.0.0.1:" + "1" * 5000, "http://a:1/b"),
)


class Started:
    """Takes the place of the running service: everything before it is real."""

    settings: ClassVar[list[DaemonSettings]] = []

    def __init__(self, settings: DaemonSettings, *_: object) -> None:
        self.settings.append(settings)

    async def run(self) -> None:
        """Is up, and ends."""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with things that are no folders; a service that starts nothing."""
    monkeypatch.setattr(daemon, "_Service", Started)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    os.mkfifo("pipe")


@pytest.mark.parametrize("option", serve.params, ids=lambda option: str(option.name))
@pytest.mark.parametrize("given", ["option", "environment"])
def test_odd_options_end_in_words(option: click.Parameter, given: str, tmp_path: Path) -> None:
    """On the command line or in the environment, the service starts, or says what it cannot start with."""
    data_dir = [] if option.name == "data_dir" else [f"--data-dir={tmp_path / 'data'}"]
    for value in VALUES:
        if given == "environment" and "\0" in value:
            continue  # no environment can hold it
        arguments = [f"{option.opts[-1]}={value}"] if given == "option" else []
        environment = {str(option.envvar): value} if given == "environment" else {}
        result = CliRunner().invoke(main, ["serve", *data_dir, *arguments], env=environment)
        assert result.exception is None or isinstance(result.exception, SystemExit), (value, result.exception)
        assert result.exit_code in (0, 1, 2)
        assert (result.exit_code == 0) != ("Error: " in result.stderr)


@pytest.mark.parametrize("words", [["--help"], ["serve", "--help"], ["--version"]])
def test_a_full_output_ends_in_words(words: list[str]) -> None:
    """To the last flush of the interpreter."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nablad", *words],
            stdout=full, stderr=subprocess.PIPE, cwd=Path(__file__).parents[3], timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2,
        b"Error: Standard output cannot be written: No space left on device.\n",
    )
