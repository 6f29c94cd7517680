"""ThreadBridge from an event loop that another thread makes, when it comes to them."""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["ThreadBridge", "set_exception", "set_result"]

_log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


class ThreadBridge:
    """What the event loop wants of the thread, and the thread of the event loop."""

    def __init__(self) -> None:
        """To be made on the event loop's thread."""
        self.loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._answered = True

    def fileno(self) -> int:
        """For a selector: can be read when calls wait."""
        return self._alarm

    @property
    def answered(self) -> bool:
        """Whether there is a thread that makes them still."""
        return self._answered

    async def make(self, function: Callable[[], _Value]) -> _Value:
        """What a function gives that is called on the thread; by the caller if there is none any more."""
        answer: asyncio.Future[_Value] = self.loop.create_future()

        def run() -> None:
            try:
                value = function()
            except Exception as error:  # noqa: BLE001 (it is raised where it was called for)
                self.to_loop(set_exception, answer, error)
            else:
                self.to_loop(set_result, answer, value)

        with self._lock:
            if self._answered:
                self._waiting.append(run)
                os.eventfd_write(self._alarm, 1)
            else:
                run()
        return await answer

    def answer(self) -> None:
        """Makes those that wait; to be called on the thread, when there are some."""
        os.eventfd_read(self._alarm)
        while self._waiting:
            self._waiting.popleft()()

    def answer_last(self) -> None:
        """Makes those that wait; to be called on the thread, which makes no more afterwards."""
        with self._lock:
            self._answered = False
            while self._waiting:
                self._waiting.popleft()()

    def to_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Has a function called on the event loop, in the order of these calls."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            _log.debug("the event loop is closed already")

    def close(self) -> None:
        """Nobody listens any more."""
        os.close(self._alarm)


def set_result(answer: "asyncio.Future[_Value]", value: _Value) -> None:
    """Answers whoever waits still."""
    if not answer.done():
        answer.set_result(value)


def set_exception(answer: "asyncio.Future[Any]", error: Exception) -> None:
    """Raises the error where somebody waits still."""
    if not answer.done():
        answer.set_exception(error)
