"""The workers of a fleet: as many as are wanted, as far as there are CPUs for them."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from service.cluster.errors import ProcessError
from workers.runtime.concurrency import wait_for_event

__all__ = ["WorkerGroup", "WorkerLike"]

# CPUs for a worker that is wanted are looked for this often.
_LOOK_SECONDS: Final = 1.0
# A worker too many that the parameter server does not let go is killed after so long.
_PATIENCE_SECONDS: Final = 60.0


class WorkerLike(Protocol):
    """A worker at work."""

    async def run(self) -> None:
        """Returns when the parameter server has let it go; raises ProcessError when it is lost for good."""
        ...

    async def dismiss(self) -> None:
        """Ends its process, if it has not ended, and gives its CPUs back; never raises."""
        ...


class WorkerGroup:
    """Grows as CPUs become free, and shrinks as workers leave.

    A worker whose run ends without an error has left. If no worker was too many, the training is over, and nobody is
    hired any more.

    Attributes:
        failure: How the first worker ended that was lost for good.
    """

    def __init__(
        self,
        hire: Callable[[], Awaitable[WorkerLike | None]],
        look_seconds: float = _LOOK_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        """`hire` starts a worker; it gives None when there are no CPUs for one."""
        self.failure: asyncio.Future[ProcessError] = asyncio.get_running_loop().create_future()
        self._hire = hire
        self._look_seconds = look_seconds
        self._patience_seconds = patience_seconds
        self._workers: list[WorkerLike] = []  # the newest last
        self._wanted = 0
        self._leaving = 0
        self._over = False
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dismissals: set[asyncio.Task[None]] = set()
        self._surplus: asyncio.Task[None] | None = None

    @property
    def size(self) -> int:
        """Workers that are there, those who are about to leave included."""
        return len(self._workers)

    def begin(self, workers: Sequence[WorkerLike], wanted: int) -> None:
        """Takes the first workers on; from now on, more are hired if more are wanted."""
        for worker in workers:
            self._take_on(worker)
        self._spawn(self._keep_hiring(), self._tasks)
        self.want(wanted)

    def want(self, workers: int) -> None:
        """Says how many there shall be. Too many of them are to be let go by the parameter server."""
        self._wanted = workers
        self._over = False
        surplus = len(self._workers) - workers
        self._leaving = max(self._leaving, surplus)
        if self._surplus:
            self._surplus.cancel()
        self._surplus = self._spawn(self._dismiss_surplus(), self._tasks) if surplus > 0 else None
        self._changed.set()

    async def close(self) -> None:
        """Dismisses everybody."""
        self._over = True
        for task in self._tasks:
            task.cancel()
        # Who was being hired at this moment is dismissed by the task that hired.
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._workers:
            self._let_go(self._workers[-1])
        await asyncio.gather(*self._dismissals)

    def _take_on(self, worker: WorkerLike) -> None:
        self._workers.append(worker)
        self._spawn(self._attend(worker), self._tasks)

    async def _attend(self, worker: WorkerLike) -> None:
        """Until the worker has left, or is lost."""
        try:
            await worker.run()
        except ProcessError as error:
            if worker in self._workers and not self.failure.done():
                self.failure.set_result(error)
            return
        if worker in self._workers:
            self._over = self._over or self._leaving == 0
            self._let_go(worker)

    def _let_go(self, worker: WorkerLike) -> None:
        self._workers.remove(worker)
        self._leaving = max(self._leaving - 1, 0)
        self._changed.set()
        # A task of its own, so that nobody stops half of it.
        self._spawn(worker.dismiss(), self._dismissals)

    async def _keep_hiring(self) -> None:
        while True:
            self._changed.clear()
            if self._is_short():
                hiring = asyncio.ensure_future(self._hire())
                try:
                    worker = await asyncio.shield(hiring)
                except asyncio.CancelledError:
                    await _dismiss_hired(hiring)
                    raise
                if worker and self._is_short():
                    self._take_on(worker)
                    continue
                if worker:
                    await worker.dismiss()
            await wait_for_event(self._changed, self._look_seconds)

    def _is_short(self) -> bool:
        return not self._over and len(self._workers) < self._wanted

    async def _dismiss_surplus(self) -> None:
        await asyncio.sleep(self._patience_seconds)
        for worker in self._workers[self._wanted :][::-1]:
            self._let_go(worker)

    def _spawn(self, work: Coroutine[Any, Any, None], tasks: "set[asyncio.Task[None]]") -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task


async def _dismiss_hired(hiring: "asyncio.Future[WorkerLike | None]") -> None:
    if worker := await hiring:
        await worker.dismiss()
