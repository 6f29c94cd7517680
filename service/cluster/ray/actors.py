"""Actors: the processes of parameter server and workers, as Ray starts and kills them."""

import asyncio
import logging
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

import ray
from ray.util import get_node_ip_address
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.cluster import error_lines
from service.cluster.errors import ProcessError
from service.cluster.ray.placement import remove, try_to
from service.cluster.ray.queries import own_node_id
from service.parameter_server.process import RunningParameterServer, start_parameter_server
from workers.runtime.concurrency import run_to_its_end
from workers.worker import work

__all__ = ["ServerHandle", "WorkerHandle"]

_log = logging.getLogger(__name__)

# A worker that dies is replaced this often before the attempt counts as lost.
_REPLACEMENTS: Final = 20
# For what a lost process wrote to its log.
_READ_SECONDS: Final = 5.0
# Of a traceback, the lines that say most.
_TRACEBACK_LINES: Final = 10


class _LocatedActor:
    """What every process of a fleet can be asked: its process id, its node, and the log of its errors."""

    def whereabouts(self) -> tuple[int, str, str]:
        node: str = ray.get_runtime_context().get_node_id()
        return os.getpid(), node, str(Path("/proc/self/fd/2").readlink())


class _ParameterServerProcess(_LocatedActor):
    """The Ray actor that hosts a parameter server."""

    def __init__(self) -> None:
        self._server: RunningParameterServer | None = None

    async def start(self, assignment: bytes, secret: str, *, loopback: bool) -> str:
        host: str = "127.0.0.1" if loopback else get_node_ip_address()  # type: ignore[no-untyped-call]
        self._server = await start_parameter_server(ps_pb.Assignment.FromString(assignment), secret, host)
        return self._server.address

    async def run(self) -> None:
        assert self._server is not None  # noqa: S101 (called after start)
        await self._server.wait()


class _WorkerProcess(_LocatedActor):
    """The Ray actor that hosts a worker."""

    def run(self, address: str, secret: str, threads: int, message_bytes: int) -> None:
        work(address, secret, threads=threads, message_bytes=message_bytes)


class _ActorHandle:
    """A Ray actor."""

    def __init__(self, process: type, strategy: object, **options: Any) -> None:
        self.actor = _remote(process).options(scheduling_strategy=strategy, **options).remote()
        # Asked now, because a process that is gone cannot be asked; nobody waits for the answer.
        self._whereabouts = self.actor.whereabouts.remote()

    async def answer(self, reference: Any) -> Any:
        """What a method of the actor returned.

        Raises:
            ProcessError: It raised, or the process is gone.
        """
        try:
            return await asyncio.wrap_future(reference.future())
        except ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
            lines = await self._last_lines(error, traceback=cause is not None)
            raise ProcessError(error_lines.sentence(cause or error), cause, lines) from error

    def kill(self) -> None:
        try_to(ray.kill, self.actor)

    async def _last_lines(self, error: Exception, *, traceback: bool) -> str:
        """Of its log, and of the traceback if there is one."""
        raised = error_lines.last_lines(str(error), _TRACEBACK_LINES) if traceback else []
        try:
            async with asyncio.timeout(_READ_SECONDS):
                log = await self._read_log(error)
        except (TimeoutError, ray.exceptions.RayError) as unread:
            _log.warning("the log of a lost process could not be read: %s", error_lines.sentence(unread))
            log = ""
        return "\n".join([*error_lines.last_lines(log, error_lines.MOST_LINES - len(raised)), *raised])

    async def _read_log(self, error: Exception) -> str:
        """On the node where it is."""
        pid, node, path = await asyncio.to_thread(ray.get, self._whereabouts, timeout=0)
        # A worker may have been replaced since it told.
        if said := re.search(r"\bpid[:=] ?(\d+)", str(error)):
            pid = int(said.group(1))
        if node == own_node_id():
            return await asyncio.to_thread(error_lines.read_end, path, pid)
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        reader = ray.remote(error_lines.read_end).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        text: str = await asyncio.wrap_future(reader.remote(path, pid).future())
        return text


class ServerHandle(_ActorHandle):
    """A parameter server, on no CPU of its own."""

    def __init__(self, node: str, *, loopback: bool) -> None:
        """Starts the process on this node, or not at all."""
        # Not softly: what needs no resources, Ray would then start on any node.
        super().__init__(_ParameterServerProcess, NodeAffinitySchedulingStrategy(node, soft=False), num_cpus=0)
        self._loopback = loopback

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts to serve; gives the address."""
        started = self.actor.start.remote(assignment.SerializeToString(), secret, loopback=self._loopback)
        address: str = await self.answer(started)
        return address

    async def run(self) -> None:
        """Until it ends, which it does not before it is dismissed."""
        await self.answer(self.actor.run.remote())

    async def dismiss(self) -> None:
        """Kills the process."""
        await run_to_its_end(self.kill)


class WorkerHandle(_ActorHandle):
    """A worker on CPUs of its own."""

    def __init__(self, group: PlacementGroup, cpus: int) -> None:
        """Starts the process."""
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        restarts = {"max_restarts": _REPLACEMENTS, "max_task_retries": -1}
        super().__init__(_WorkerProcess, strategy, num_cpus=cpus, **restarts)
        self._group = group
        self._cpus = cpus
        self._run: Any = None

    def begin(self, address: str, secret: str, message_bytes: int) -> None:
        """Sets it to work for the parameter server at this address."""
        self._run = self.actor.run.remote(address, secret, self._cpus, message_bytes)

    async def run(self) -> None:
        """Until the parameter server has let it go."""
        await self.answer(self._run)

    async def dismiss(self) -> None:
        """Kills the process and gives the CPUs back; what Ray refuses is logged."""
        await run_to_its_end(self._end)

    def _end(self) -> None:
        self.kill()
        remove([self._group])


@cache
def _remote(process: type) -> Any:
    """Returns a class as Ray takes it; made once, because Ray keeps all that were ever made."""
    return ray.remote(process)
