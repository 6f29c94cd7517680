"""A small disk of its own, which a test can fill to its last byte."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

_SIZE = "48m"


class SmallDisk:
    """A file system in memory.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def filler(self) -> Path:
        """The file that takes the room."""
        return self.path / "filler"

    def fill(self) -> None:
        """Takes all the room that is left."""
        with self.filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free_bytes(self) -> int:
        """Room that is left."""
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """The disk, empty; needs the right to mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="session")
def as_root_of_a_namespace() -> list[str]:
    """The beginning of a command that may mount file systems, for users who may not."""
    if os.geteuid() == 0:
        pytest.skip("root mounts by itself")
    command = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system gives users no namespaces of their own")
    return [*command, sys.executable]
