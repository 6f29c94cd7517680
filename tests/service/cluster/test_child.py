"""The environment in which the daemon starts the cluster process."""

import json
import sys
from pathlib import Path

import pytest

from service.cluster.child import Child
from service.cluster.errors import ClusterError

# Reports its surroundings in the place of "ready", and ends.
PROGRAM = """
import json, os, sys
print(json.dumps({"directory": os.getcwd(), "path": sys.path, "token": os.environ.get("RAY_AUTH_TOKEN_PATH")}))
"""


async def test_a_child_runs_where_no_module_lies_and_finds_the_daemon_s_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are named relatively to the daemon's directory are found all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "token")
    monkeypatch.syspath_prepend(tmp_path / "first")
    with pytest.raises(ClusterError) as error:
        await Child.start([sys.executable, "-c", PROGRAM], "secret")
    reported = json.loads(str(error.value))
    assert reported["directory"] == "/"
    assert reported["token"] == str(tmp_path / "token")
    expected = [entry for entry in sys.path if entry]
    assert reported["path"][: len(expected)] == expected


async def test_a_child_starts_although_the_daemon_s_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would ask for the directory that it is in."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ClusterError, match='"directory": "/"'):
        await Child.start([sys.executable, "-c", PROGRAM], "secret")
    with pytest.raises(FileNotFoundError):
        Path.cwd()
