"""Files that one thread waits for, and what it calls when they have something for it."""

import select
from collections.abc import Callable

__all__ = ["Listeners"]


class Listeners:
    """Who listens to which file."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._listeners: dict[int, Callable[[], None]] = {}

    def add(self, file: int, listen: Callable[[], None]) -> None:
        """`listen` is called whenever the file can be read."""
        self._listeners[file] = listen
        self._epoll.register(file, select.EPOLLIN)

    def change(self, file: int, *, writing: bool) -> None:
        """From now on it is called as well when the file can be written to, or no more."""
        self._epoll.modify(file, select.EPOLLIN | (select.EPOLLOUT if writing else 0))

    def remove(self, file: int) -> None:
        """It is not called any more."""
        self._epoll.unregister(file)
        del self._listeners[file]

    def wait(self, seconds: float) -> list[int]:
        """The files that have something, as soon as one has; none after so many seconds."""
        return [file for file, _ in self._epoll.poll(seconds)]

    def call(self, file: int) -> None:
        """Calls whoever listens to a file, if somebody does still."""
        if listen := self._listeners.get(file):
            listen()

    def close(self) -> None:
        """Nobody listens any more."""
        self._epoll.close()
