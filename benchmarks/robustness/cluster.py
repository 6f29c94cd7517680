"""A Ray cluster on two hosts, and a service beside its head."""

import os
import secrets
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from benchmarks.errors import BenchmarkError
from benchmarks.robustness.daemon import Daemon, lines_until, start_daemon
from benchmarks.robustness.hosts import Host, TwoHosts

__all__ = ["Cluster", "Setup"]

# The hosts have all ports for themselves.
_GCS_PORT: Final = 6379
_OBJECT_STORE_BYTES: Final = 80 * 1024 * 1024
_STARTED: Final = "Ray runtime started"
_START_SECONDS: Final = 90.0
_END_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Setup:
    """How a cluster is set up.

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
        daemon: The service; its processes include all of Ray's.
        far_node: What keeps Ray's node on the far host.
    """

    def __init__(self, setup: Setup) -> None:
        """Starts Ray's head, the service, and the far node.

        Raises:
            BenchmarkError: One of them did not start.
            OSError: The hosts cannot be connected.
        """
        self._setup = setup
        mark = uuid.uuid4().hex
        self._environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._environment |= {"NABLAD_TEST_MARK": mark, "PYTHONUNBUFFERED": "1"}
        self._nodes: list[subprocess.Popen[str]] = []
        with ExitStack() as made:
            # Of short path, as those of sockets have to be.
            folder = made.enter_context(tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True))
            self._folder = Path(folder)
            made.callback(self._reap)
            self.hosts = made.enter_context(TwoHosts())
            self._start_head()
            self.daemon = self._start_service(mark)
            made.callback(self._reap_service)
            self.start_far_node()
            self._made = made.pop_all()

    def start_far_node(self) -> None:
        """Starts Ray's node on the far host; it joins the head.

        Raises:
            BenchmarkError: It did not start.
        """
        self.far_node = self._start_node(self.hosts.far, self._setup.far_cpus, {}, f"--address={self._gcs}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    @property
    def _gcs(self) -> str:
        """Where Ray's head is to be found."""
        return f"{self.hosts.near.address}:{_GCS_PORT}"

    def _start_head(self) -> None:
        options = ("--head", f"--port={_GCS_PORT}", "--include-dashboard=false")
        self._start_node(self.hosts.near, self._setup.near_cpus, self._setup.ray, *options)

    def _start_service(self, mark: str) -> Daemon:
        addresses = ("--address", f"{self.hosts.access}:0", "--metrics-address", f"{self.hosts.access}:0")
        options = ("--ray", self._gcs, *addresses)
        data, log = self._folder / "data", self._folder / "log"
        return self.hosts.near.call(lambda: start_daemon(data, log, mark, *options, environment=self._environment))

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

    def _reap_service(self) -> None:
        """In order if it can; its host's end is its own."""
        if self.daemon.process.poll() is None:
            self.daemon.kill()


def _require_started(node: "subprocess.Popen[str]") -> None:
    lines = lines_until(node, _STARTED, _START_SECONDS)
    if not lines or _STARTED not in lines[-1]:
        raise BenchmarkError("a node of Ray did not start; it said:\n" + "\n".join(lines[-30:]))
