"""Notices that Ray is gone: its processes have ended, or it does not answer any more."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["Watchdog"]

_log = logging.getLogger(__name__)

# Ray is asked this often, and is given so long for its answer.
_ASK_SECONDS: Final = 2.0
_PATIENCE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.5


class Watchdog:
    """Two threads, beside whatever hangs: one asks, the other looks whether there was an answer."""

    def __init__(
        self,
        processes: Mapping[int, str],
        ask: Callable[[], None],
        lost: Callable[[str], None],
        patience_seconds: float = _PATIENCE_SECONDS,
        ask_seconds: float = _ASK_SECONDS,
    ) -> None:
        """Begins to watch.

        Args:
            processes: Names by process id: none of these may end.
            ask: Returns when Ray answers; raises, or never returns, when it does not.
            lost: Called at most once, with a sentence.
            patience_seconds: How long Ray may not answer.
            ask_seconds: From an answer to the next question.
        """
        self._ask = ask
        self._lost = lost
        self._patience_seconds = patience_seconds
        self._ask_seconds = ask_seconds
        self._stopped = threading.Event()
        self._answered = time.monotonic()
        self._names: dict[int, str] = {}
        self._ends = select.poll()
        for pid, name in processes.items():
            self._register(pid, name)
        for work in (self._keep_asking, self._look):
            threading.Thread(target=work, daemon=True, name="watchdog").start()

    def stop(self) -> None:
        """Watches no more; what ends from now on is to end."""
        self._stopped.set()

    def _register(self, pid: int, name: str) -> None:
        try:
            end = os.pidfd_open(pid)
        except OSError as error:
            # Not to be seen from here, or ended already: then it does not answer either.
            _log.debug("process %d of Ray cannot be watched: %s", pid, error)
            return
        self._names[end] = name
        self._ends.register(end, select.POLLIN)

    def _keep_asking(self) -> None:
        while not self._stopped.wait(self._ask_seconds):
            try:
                self._ask()
            except Exception as error:  # noqa: BLE001 (of whatever kind: it is no answer)
                _log.warning("Ray does not answer: %s", error)
            else:
                self._answered = time.monotonic()

    def _look(self) -> None:
        while not self._stopped.is_set():
            ended = self._ends.poll(_LOOK_SECONDS * 1000)
            if self._stopped.is_set():
                return
            if ended:
                self._lost(f"its {self._names[ended[0][0]]} has ended")
                return
            if time.monotonic() - self._answered > self._patience_seconds + self._ask_seconds:
                self._lost(f"it has not answered for {self._patience_seconds:.0f} s")
                return
