"""Thread bridge: calls between an event loop and another thread, in both directions."""

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
    """Carries calls of the event loop to a thread, which makes them when it comes to them, and calls back."""

    def __init__(self, interrupt: Callable[[], None] | None = None) -> None:
        """Opens the bridge; must run on the event loop's thread.

        Args:
            interrupt: Called for each call, where the thread may be busy with something else than its files.
        """
        self._interrupt = interrupt
        self.loop = asyncio.get_running_loop()
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._event_file = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open = True

    def fileno(self) -> int:
        """Returns the file for a selector; it is readable when calls wait."""
        return self._event_file

    @property
    def is_open(self) -> bool:
        """True while the thread makes calls."""
        return self._open

    async def call_on_thread(self, function: Callable[[], _Value]) -> _Value:
        """Has a function called on the thread, and returns its value; calls it here if the thread has ended."""
        answer: asyncio.Future[_Value] = self.loop.create_future()

        def run() -> None:
            try:
                value = function()
            except Exception as error:  # noqa: BLE001 (it is raised in the caller)
                self.call_on_loop(set_exception, answer, error)
            else:
                self.call_on_loop(set_result, answer, value)

        with self._lock:
            if self._open:
                self._waiting.append(run)
                os.eventfd_write(self._event_file, 1)
                if self._interrupt:
                    self._interrupt()
            else:
                run()
        return await answer

    def run_calls(self) -> None:
        """Makes the calls that wait; must run on the thread, when the file is readable."""
        os.eventfd_read(self._event_file)
        while self._waiting:
            self._waiting.popleft()()

    def run_last_calls(self) -> None:
        """Makes the calls that wait; must run on the thread, which makes no more afterwards."""
        with self._lock:
            self._open = False
            while self._waiting:
                self._waiting.popleft()()

    def call_on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        """Has a function called on the event loop, in the order of these calls."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            _log.debug("the event loop is closed already")

    def close(self) -> None:
        """Closes the file; the thread must have ended."""
        os.close(self._event_file)


def set_result(answer: "asyncio.Future[_Value]", value: _Value) -> None:
    """Sets the value of a future, unless it was cancelled."""
    if not answer.done():
        answer.set_result(value)


def set_exception(answer: "asyncio.Future[Any]", error: Exception) -> None:
    """Sets the exception of a future, unless it was cancelled."""
    if not answer.done():
        answer.set_exception(error)
