"""Who a worker is, and what its channel is made for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workers.runtime.host import host_fingerprint
from workers.transport.session import channel_options

_PRINT_FINGERPRINT = [
    sys.executable,
    "-c",
    "from workers.runtime.host import host_fingerprint; print(host_fingerprint())",
]


def _fingerprint_of_process(*prefix: str) -> str:
    said = subprocess.run(
        [*prefix, *_PRINT_FINGERPRINT], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    return said.stdout.strip()


def test_processes_of_a_host_have_one_fingerprint() -> None:
    """It tells the parameter server who can share memory with it."""
    assert _fingerprint_of_process() == host_fingerprint()


def test_a_container_of_the_same_host_has_another_fingerprint() -> None:
    """Its Unix sockets are others, though its kernel, and maybe its name, is the same."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a network namespace cannot be made here")
    assert _fingerprint_of_process(unshare, "--net") != host_fingerprint()


@pytest.mark.parametrize(("message_bytes", "most"), [(0, 1 << 20), (5 << 20, 6 << 20), ((1 << 31) - 5, (1 << 31) - 1)])
def test_channels_take_what_a_message_carries(message_bytes: int, most: int) -> None:
    """And a little beside it, but not more than gRPC can be told."""
    options = dict(channel_options(message_bytes))
    assert options["grpc.max_receive_message_length"] == options["grpc.max_send_message_length"] == most
