"""Actors: the processes of parameter servers and workers, started and killed by Ray."""

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
from service.cluster.errors import MOST_LINES, ProcessError, describe_error, last_lines, read_log_end
from service.cluster.ray.placement import log_failure, remove_groups
from service.cluster.ray.queries import own_node_id
from service.parameter_server.process import RunningParameterServer, start_parameter_server
from workers.runtime.concurrency import run_to_its_end
from workers.worker import work

__all__ = ["ServerHandle", "WorkerHandle"]

_log = logging.getLogger(__name__)

# Number of times that a dead worker is replaced before the attempt counts as lost.
_REPLACEMENTS: Final = 20
# Longest time for reading the log of a lost process.
_READ_SECONDS: Final = 5.0
# Last lines of a traceback that are kept, because they say most.
_TRACEBACK_LINES: Final = 10


class _LocatedActor:
    """An actor that reports its location: process id, node, and the path of its standard error."""

    def location(self) -> tuple[int, str, str]:
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
    """Handle of a Ray actor."""

    def __init__(self, process: type, strategy: object, **options: Any) -> None:
        self.actor = _remote(process).options(scheduling_strategy=strategy, **options).remote()
        # Requested now, because a process that is gone does not answer; read only if the process fails.
        self._whereabouts = self.actor.location.remote()

    async def answer(self, reference: Any) -> Any:
        """Waits for the result of a method of the actor.

        Raises:
            ProcessError: The method raised an error, or the process is gone.
        """
        try:
            return await asyncio.wrap_future(reference.future())
        except ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
            lines = await self._last_lines(error, traceback=cause is not None)
            raise ProcessError(describe_error(cause or error), cause, lines) from error

    def kill(self) -> None:
        log_failure(ray.kill, self.actor)

    async def _last_lines(self, error: Exception, *, traceback: bool) -> str:
        """Returns the last lines of the log, and of the traceback if there is one."""
        raised = last_lines(str(error), _TRACEBACK_LINES) if traceback else []
        try:
            async with asyncio.timeout(_READ_SECONDS):
                log = await self._read_log(error)
        except (TimeoutError, ray.exceptions.RayError) as unread:
            _log.warning("the log of a lost process could not be read: %s", describe_error(unread))
            log = ""
        return "\n".join([*last_lines(log, MOST_LINES - len(raised)), *raised])

    async def _read_log(self, error: Exception) -> str:
        """Reads the end of the process's log, on the node where it is."""
        pid, node, path = await asyncio.to_thread(ray.get, self._whereabouts, timeout=0)
        # The worker may have been replaced since it reported its location.
        if found := re.search(r"\bpid[:=] ?(\d+)", str(error)):
            pid = int(found.group(1))
        if node == own_node_id():
            return await asyncio.to_thread(read_log_end, path, pid)
        on_node = NodeAffinitySchedulingStrategy(node, soft=False)
        reader = ray.remote(read_log_end).options(num_cpus=0, max_retries=0, scheduling_strategy=on_node)
        text: str = await asyncio.wrap_future(reader.remote(path, pid).future())
        return text


class ServerHandle(_ActorHandle):
    """Handle of a parameter server, which has no CPU of its own."""

    def __init__(self, node: str, *, loopback: bool) -> None:
        """Starts the process on this node and on no other."""
        # With soft=True, Ray starts an actor that needs no resources on any node.
        super().__init__(_ParameterServerProcess, NodeAffinitySchedulingStrategy(node, soft=False), num_cpus=0)
        self._loopback = loopback

    async def start(self, assignment: ps_pb.Assignment, secret: str) -> str:
        """Starts to serve; returns the address."""
        started = self.actor.start.remote(assignment.SerializeToString(), secret, loopback=self._loopback)
        address: str = await self.answer(started)
        return address

    async def run(self) -> None:
        """Waits until the process ends, which happens only when it is stopped or lost."""
        await self.answer(self.actor.run.remote())

    async def stop(self) -> None:
        """Kills the process."""
        await run_to_its_end(self.kill)


class WorkerHandle(_ActorHandle):
    """Handle of a worker on CPUs of its own."""

    def __init__(self, group: PlacementGroup, cpus: int) -> None:
        """Starts the process."""
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
        restarts = {"max_restarts": _REPLACEMENTS, "max_task_retries": -1}
        super().__init__(_WorkerProcess, strategy, num_cpus=cpus, **restarts)
        self._group = group
        self._cpus = cpus
        self._run: Any = None

    def start_work(self, address: str, secret: str, message_bytes: int) -> None:
        """Makes it work for the parameter server at this address."""
        self._run = self.actor.run.remote(address, secret, self._cpus, message_bytes)

    async def run(self) -> None:
        """Waits until the parameter server has released the worker."""
        await self.answer(self._run)

    async def stop(self) -> None:
        """Kills the process and releases the CPUs; errors of Ray are logged."""
        await run_to_its_end(self._end)

    def _end(self) -> None:
        self.kill()
        remove_groups([self._group])


@cache
def _remote(process: type) -> Any:
    """Returns the remote class of a class; made once, because Ray keeps every remote class for ever."""
    return ray.remote(process)
