"""Worker group: as many workers of a job as are wanted, as far as there are CPUs for them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from service.cluster.errors import ProcessError
from workers.runtime.concurrency import wait_for_event

__all__ = ["WorkerGroup", "WorkerLike"]

# Interval between two attempts to get CPUs for a worker that is missing.
_RETRY_SECONDS: Final = 1.0
# A surplus worker is killed if the parameter server has not released it by then.
_RELEASE_SECONDS: Final = 60.0


class WorkerLike(Protocol):
    """A worker at work."""

    async def run(self) -> None:
        """Returns when the parameter server has released it; raises ProcessError when it is lost for good."""
        ...

    async def stop(self) -> None:
        """Ends its process, if it has not ended, and releases its CPUs; never raises."""
        ...


class WorkerGroup:
    """Group that grows as CPUs become free, and shrinks as workers leave.

    A worker whose run ends without an error has left. If it was no surplus worker, the training is over, and no other
    worker is started.

    Attributes:
        failure: Error of the first worker that was lost for good.
    """

    def __init__(
        self,
        start_worker: Callable[[], Awaitable[WorkerLike | None]],
        retry_seconds: float = _RETRY_SECONDS,
        release_seconds: float = _RELEASE_SECONDS,
    ) -> None:
        """Makes an empty group.

        Args:
            start_worker: Starts one more worker; returns None if there are no CPUs for it.
            retry_seconds: Interval between two attempts to start a missing worker.
            release_seconds: Time after which a surplus worker is killed.
        """
        self.failure: asyncio.Future[ProcessError] = asyncio.get_running_loop().create_future()
        self._start_worker = start_worker
        self._retry_seconds = retry_seconds
        self._release_seconds = release_seconds
        self._workers: list[WorkerLike] = []  # the newest last
        self._wanted = 0
        self._leaving = 0
        self._over = False
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stops: set[asyncio.Task[None]] = set()
        self._killing: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        """Number of workers, those included that are about to leave."""
        return len(self._workers)

    def start(self, workers: Sequence[WorkerLike], wanted: int) -> None:
        """Adds the first workers; from now on, missing workers are started."""
        for worker in workers:
            self._add(worker)
        self._spawn(self._keep_filling(), self._tasks)
        self.scale(wanted)

    def scale(self, workers: int) -> None:
        """Sets the wanted number of workers. The parameter server decides which surplus workers leave."""
        self._wanted = workers
        self._over = False
        surplus = len(self._workers) - workers
        self._leaving = max(self._leaving, surplus)
        if self._killing:
            self._killing.cancel()
        self._killing = self._spawn(self._kill_surplus(), self._tasks) if surplus > 0 else None
        self._changed.set()

    async def close(self) -> None:
        """Stops all workers."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        # A worker that is being started at this moment is stopped by the task that starts it.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._workers:
            self._remove(self._workers[-1])
        await asyncio.gather(*self._stops)

    def _add(self, worker: WorkerLike) -> None:
        self._workers.append(worker)
        self._spawn(self._follow(worker), self._tasks)

    async def _follow(self, worker: WorkerLike) -> None:
        """Waits until the worker has left or is lost."""
        try:
            await worker.run()
        except ProcessError as error:
            if worker in self._workers and not self.failure.done():
                self.failure.set_result(error)
            return
        if worker in self._workers:
            self._over = self._over or self._leaving == 0
            self._remove(worker)

    def _remove(self, worker: WorkerLike) -> None:
        self._workers.remove(worker)
        self._leaving = max(self._leaving - 1, 0)
        self._changed.set()
        # In a task of its own, which no cancellation interrupts halfway.
        self._spawn(worker.stop(), self._stops)

    async def _keep_filling(self) -> None:
        """Starts missing workers, one at a time."""
        while True:
            self._changed.clear()
            if self._is_short():
                starting = asyncio.ensure_future(self._start_worker())
                try:
                    worker = await asyncio.shield(starting)
                except asyncio.CancelledError:
                    await _stop_started(starting)
                    raise
                if worker and self._is_short():
                    self._add(worker)
                    continue
                if worker:
                    await worker.stop()
            await wait_for_event(self._changed, self._retry_seconds)

    def _is_short(self) -> bool:
        return not self._over and len(self._workers) < self._wanted

    async def _kill_surplus(self) -> None:
        await asyncio.sleep(self._release_seconds)
        for worker in self._workers[self._wanted :][::-1]:
            self._remove(worker)

    def _spawn(self, work: Coroutine[Any, Any, None], tasks: "set[asyncio.Task[None]]") -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task


async def _stop_started(starting: "asyncio.Future[WorkerLike | None]") -> None:
    if worker := await starting:
        await worker.stop()
