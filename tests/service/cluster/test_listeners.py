"""Who listens where Ray is said to be."""

import os
import socket
import tempfile
from pathlib import Path

import pytest

from service.cluster.errors import ClusterError
from service.cluster.listeners import process_at, require_listener, require_process


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", ":"])
def test_what_is_no_address_of_ray_is_refused(address: str) -> None:
    """With the address in the sentence."""
    with pytest.raises(ClusterError, match="Ray cluster") as refused:
        require_listener(address)
    assert address in str(refused.value)


def test_an_address_is_taken_while_somebody_listens() -> None:
    """And not afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        require_listener(address)
    with pytest.raises(ClusterError, match="ray start --head"):
        require_listener(address)


def test_the_process_behind_a_unix_socket_is_known() -> None:
    """By its id; nobody is behind one that is not there."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = str(Path(folder, "socket"))
        assert process_at(path) is None
        listener.bind(path)
        listener.listen()
        assert process_at(path) == os.getpid()


def test_only_the_process_that_is_meant_may_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another one, and not another user's; and somebody has to."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path, own = Path(folder, "socket"), os.geteuid()
        with pytest.raises(ClusterError, match="cannot be reached"):
            require_process(path, os.getpid())
        listener.bind(str(path))
        listener.listen()
        require_process(path, os.getpid())
        with pytest.raises(ClusterError, match=f"process {os.getpid()} of user {own} listens .* in place of"):
            require_process(path, os.getppid())
        monkeypatch.setattr(os, "geteuid", lambda: own + 1)
        with pytest.raises(ClusterError, match=f"process {os.getpid()} of user {own} listens .* TMPDIR"):
            require_process(path, os.getpid())
