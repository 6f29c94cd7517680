"""A Ray cluster on two hosts, and a service beside its head."""

import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from nablad.local import MARK, LocalService
from tests.harness import PROMPT, HarnessError
from tests.harness.hosts import Host, TwoHosts

__all__ = ["Cluster", "Setup"]

# The hosts have all ports for themselves.
_GCS_PORT: Final = 6379
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024
_STARTED: Final = "Ray runtime started"
_START_SECONDS: Final = 90.0
_END_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Setup:
    """Setup of a cluster.

    Attributes:
        near_cpus: That the near host gives to workers.
        far_cpus: That the far host does.
        ray: Settings of Ray's head, as it reads them from its environment.
    """

    near_cpus: int
    far_cpus: int
    ray: Mapping[str, str] = field(default_factory=dict)


class Cluster:
    """Ray's head and the service are on the near host; a node of Ray is on the far host. Ray asks for a token.

    Attributes:
        hosts: The two.
        service: The service; its processes include all of Ray's.
        far_node: What keeps Ray's node on the far host.
    """

    def __init__(self, setup: Setup) -> None:
        """Starts Ray's head, the service, and the far node.

        Raises:
            HarnessError: One of them did not start.
            OSError: The hosts cannot be connected.
        """
        self._setup = setup
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "PYTHONUNBUFFERED": "1"}
        self._nodes: list[subprocess.Popen[str]] = []
        with ExitStack() as made:
            # Of short path, as those of sockets have to be.
            folder = made.enter_context(tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True))
            self._folder = Path(folder)
            made.callback(self._reap)
            self.hosts = made.enter_context(TwoHosts())
            address = f"{self.hosts.access}:0"
            self.service = LocalService(
                self._folder / "data",
                ray=self._gcs,
                options=PROMPT,
                address=address,
                metrics_address=address,
                environment=token,
                log_file=self._folder / "log",
            )
            self._environment = {**token, MARK: self.service.mark}
            self._start_head()
            made.callback(self._end_service)
            self.hosts.near.call(self.service.start)
            self.start_far_node()
            self._made = made.pop_all()

    def start_far_node(self) -> None:
        """Starts Ray's node on the far host; it joins the head.

        Raises:
            HarnessError: It did not start.
        """
        self.far_node = self._start_node(self.hosts.far, self._setup.far_cpus, {}, f"--address={self._gcs}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    @property
    def _gcs(self) -> str:
        """Address of Ray's head."""
        return f"{self.hosts.near.address}:{_GCS_PORT}"

    def _start_head(self) -> None:
        options = ("--head", f"--port={_GCS_PORT}", "--include-dashboard=false")
        self._start_node(self.hosts.near, self._setup.near_cpus, self._setup.ray, *options)

    def _start_node(self, host: Host, cpus: int, settings: Mapping[str, str], *options: str) -> "subprocess.Popen[str]":
        """Starts a node of Ray and waits until it is there."""
        folder = self._folder / str(len(self._nodes))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        command += [f"--num-cpus={cpus}", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        command += [f"--node-ip-address={host.address}", f"--temp-dir={folder}", *options]
        node = host.call(
            lambda: subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **self._environment, **settings},
                start_new_session=True,
            )
        )
        self._nodes.append(node)
        _require_started(node)
        return node

    def _reap(self) -> None:
        """After the end of everything on both hosts."""
        for node in self._nodes:
            node.communicate(timeout=_END_SECONDS)

    def _end_service(self) -> None:
        """Without waiting: its host's end is its own."""
        self.service.kill()
        self.service.stop()


def _require_started(node: "subprocess.Popen[str]") -> None:
    assert node.stdout is not None
    lines: list[str] = []
    killer = threading.Timer(_START_SECONDS, node.kill)
    killer.start()
    for line in node.stdout:
        lines.append(line)
        if _STARTED in line:
            break
    killer.cancel()
    if not lines or _STARTED not in lines[-1]:
        raise HarnessError("a node of Ray did not start; it said:\n" + "".join(lines[-30:]))
