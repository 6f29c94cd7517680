"""Client of the cluster: keeps a cluster process running, and calls it."""

import asyncio
import logging
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from nablad.back_off import back_off_seconds
from nablad.v1 import cluster_pb2 as cluster_pb
from nablad.v1 import cluster_pb2_grpc as cluster_grpc
from service.cluster.child import Child
from service.cluster.errors import ClusterError, ClusterLostError
from service.cluster.job_processes_client import JobProcessesClient
from service.cluster.listeners import require_process
from service.errors import AttemptFailed, AttemptLost
from service.storage.private_files import foreign_owner, other_writers
from workers.transport.session import SECRET_KEY

__all__ = ["ClusterClient", "ClusterError", "ClusterLostError", "JobProcessesClient"]

_log = logging.getLogger(__name__)

# -P: modules in its working directory are not imported.
_PROGRAM: Final = (sys.executable, "-P", "-m", "service.cluster.process")
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
# Pause before a cluster process is started anew; it doubles with each that ends within a minute.
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0
_PROVEN_SECONDS: Final = 60.0
# A cluster process that does not answer by then hangs. Reservations may have to wait for each other.
_ANSWER_SECONDS: Final = 20.0
_RESERVE_SECONDS: Final = 60.0
# Longest time between the end of a call and the end of the process that answered it.
_EXIT_SECONDS: Final = 5.0
_SECRET_BYTES: Final = 32
# Ray makes its folder accessible to everybody at each start of a process; the folder above stays closed. The name is
# short, because Ray adds 64 characters to it for a socket, and the path of a socket has at most 107.
_RAY_FOLDER: Final = "r"


@dataclass(frozen=True)
class _Connection:
    """Connection to a cluster process that is up."""

    child: Child
    channel: grpc.aio.Channel
    stub: "cluster_grpc.ClusterServiceAsyncStub"
    metadata: tuple[tuple[str, str]]

    async def explain_loss(self, error: grpc.aio.AioRpcError) -> str:
        """Returns how the process ended, or the error of the call if the process has not ended."""
        await asyncio.wait([self.child.end], timeout=_EXIT_SECONDS)
        return self.child.end.result() if self.child.end.done() else str(error.details())


class ClusterClient:
    """Client of a cluster process, which is started anew whenever it ends; see `ClusterLike`.

    Attributes:
        up: Set while Ray is there.
        restarts: Number of times that the cluster process was started anew.
    """

    def __init__(
        self,
        ray: str | None,
        cpus: int,
        folder: Path,
        on_change: Callable[[str], None],
        *,
        program: Sequence[str] = _PROGRAM,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        """Prepares the client; `start` starts the cluster process.

        Args:
            ray: Address of a running Ray cluster; None for an embedded Ray.
            cpus: CPUs that an embedded Ray offers.
            folder: Folder of short path for the socket and for the files of an embedded Ray. It is emptied, and closed
                to other users.
            on_change: Called with a sentence when Ray is lost and when it is back.
            program: Command of the cluster process.
            first_pause_seconds: Pause before a cluster process is started anew.
        """
        self.up = asyncio.Event()
        self.restarts = 0
        self._folder = folder
        self._socket = folder / "cluster"
        self._on_change = on_change
        self._first_pause_seconds = first_pause_seconds
        cluster = ("--ray", ray) if ray is not None else ("--cpus", str(cpus))
        self._command = (*program, "--socket", str(self._socket), "--folder", str(folder / _RAY_FOLDER), *cluster)
        self._connection: _Connection | None = None
        self._why_away = "it has not been started"
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the cluster process, and from then on starts it anew whenever it ends.

        Raises:
            ClusterError: Ray did not start, or cannot be reached.
        """
        connection = await self._connect()
        self._keeping = asyncio.create_task(self._keep_up(connection))

    async def close(self) -> None:
        """Ends the cluster process in order, and an embedded Ray with it."""
        if self._keeping:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        if connection := self._connection:
            self._disconnect("the service goes away")
            await connection.child.stop()
            await connection.channel.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id of the cluster process; -1 while there is none."""
        connection = self._connection  # read once, because other threads ask
        return connection.child.pid if connection else -1

    async def list_nodes(self) -> list[cluster_pb.Node]:
        """Returns the nodes that are alive.

        Raises:
            ClusterLostError: Ray is away.
        """
        connection = self._require_connection()
        try:
            response = await connection.stub.ListNodes(
                cluster_pb.ListNodesRequest(), metadata=connection.metadata, timeout=_ANSWER_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                connection.child.kill()
            raise ClusterLostError(f"Ray does not answer: {error.details()}") from error
        return list(response.nodes)

    async def reserve_cpus(self, workers: int, cpus_per_worker: int) -> JobProcessesClient | None:
        """Reserves the CPUs of a job until its processes are stopped; returns None if they are not free.

        Raises:
            ClusterLostError: Ray is away.
        """
        connection = self._require_connection()
        processes = JobProcessesClient(connection.stub, connection.metadata, connection.explain_loss)
        reserved = False
        try:
            async with asyncio.timeout(_RESERVE_SECONDS):
                reserved = await processes.reserve_cpus(workers, cpus_per_worker)
        except (AttemptLost, AttemptFailed) as end:
            raise ClusterLostError(str(end)) from end
        except TimeoutError as error:
            connection.child.kill()
            raise ClusterLostError(f"Ray does not answer: no CPUs after {_RESERVE_SECONDS:.0f} s") from error
        finally:
            if not reserved:
                await processes.stop()
        return processes if reserved else None

    def _require_connection(self) -> _Connection:
        if self._connection is None:
            raise ClusterLostError(f"Ray is away: {self._why_away}")
        return self._connection

    async def _connect(self) -> _Connection:
        await asyncio.to_thread(_prepare, self._folder)
        secret = secrets.token_hex(_SECRET_BYTES)
        child = await Child.start(self._command, secret)
        try:
            # The kernel says which process listens there; the other end knows this one by the secret in its pipe.
            await asyncio.to_thread(require_process, self._socket, child.pid)
        except BaseException:
            child.kill()
            await asyncio.shield(child.end)
            raise
        channel = grpc.aio.insecure_channel(f"unix:{self._socket}", _OPTIONS)
        stub = cluster_grpc.ClusterServiceStub(channel)
        self._connection = _Connection(child, channel, stub, ((SECRET_KEY, secret),))
        self.up.set()
        return self._connection

    def _disconnect(self, why: str) -> None:
        self._connection = None
        self._why_away = why
        self.up.clear()

    async def _keep_up(self, connection: _Connection) -> None:
        losses = 0  # in a row, each within _PROVEN_SECONDS
        clock = asyncio.get_running_loop().time
        while True:
            since = clock()
            why = await asyncio.shield(connection.child.end)
            self._disconnect(why)
            # The calls end by themselves, and then explain the loss.
            await connection.channel.close(_EXIT_SECONDS)
            self._on_change(f"Ray was lost: {why}; it is started or reached anew")
            if clock() - since > _PROVEN_SECONDS:
                losses = 0
            connection, losses = await self._reconnect(losses)
            self.restarts += 1
            self._on_change("Ray is back")

    async def _reconnect(self, losses: int) -> tuple[_Connection, int]:
        """Tries until it succeeds; returns the connection, and the losses including all failed tries."""
        while True:
            losses += 1
            await asyncio.sleep(back_off_seconds(losses, self._first_pause_seconds, _LONGEST_PAUSE_SECONDS))
            try:
                return await self._connect(), losses
            except ClusterError as error:
                self._why_away = str(error)
                _log.warning("Ray is not back yet: %s", error)


def _prepare(folder: Path) -> None:
    """Makes an empty folder that only this user can enter; files of an earlier process are removed.

    Raises:
        ClusterError: The folder cannot be made, or another user has put something in its place.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        _require_own_folder(folder)
        folder.chmod(0o700)
        # A process of Ray may still write its last lines there. Then the folder is not empty, which does no harm.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        for path in (folder, *folder.iterdir()):
            _require_own_folder(path)
        parent = folder.parent.stat()
    except OSError as error:
        raise ClusterError(f"the folder {folder} for Ray's files cannot be made: {error.strerror}") from error
    if not parent.st_mode & stat.S_ISVTX and (others := other_writers(parent)):
        _log.warning(
            "%s may put another folder in the place of %s: set TMPDIR to a folder that nobody else may write to, or "
            "that has the sticky bit, unless this machine has no other users", others, folder,
        )  # fmt: skip


def _require_own_folder(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "a file"
    elif found.st_uid != os.geteuid():
        what = f"a folder of {foreign_owner(found) or 'user root'}"
    else:
        return
    raise ClusterError(
        f"{path} is in the way of Ray's files: it is {what}, and not the service's; remove it, or set TMPDIR to a "
        "folder that nobody else may write to"
    )
