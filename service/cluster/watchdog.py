"""Watchdog: notices that Ray is gone, because its processes have ended or because it does not answer."""

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["Watchdog"]

_log = logging.getLogger(__name__)

_PROBE_INTERVAL_SECONDS: Final = 2.0
_TIMEOUT_SECONDS: Final = 10.0
_CHECK_INTERVAL_SECONDS: Final = 0.5


class Watchdog:
    """Two threads, because a probe may hang: one probes Ray, the other checks the time of the last answer."""

    def __init__(
        self,
        processes: Mapping[int, str],
        probe: Callable[[], None],
        on_loss: Callable[[str], None],
        timeout_seconds: float = _TIMEOUT_SECONDS,
        interval_seconds: float = _PROBE_INTERVAL_SECONDS,
    ) -> None:
        """Starts to watch.

        Args:
            processes: Names by process id of the processes that must not end.
            probe: Returns when Ray answers; raises, or never returns, when it does not.
            on_loss: Called at most once, with a sentence.
            timeout_seconds: Longest time that an answer may take.
            interval_seconds: Time from an answer to the next probe.
        """
        self._probe = probe
        self._on_loss = on_loss
        self._timeout_seconds = timeout_seconds
        self._interval_seconds = interval_seconds
        self._stopped = threading.Event()
        self._answered = time.monotonic()
        self._names: dict[int, str] = {}
        self._ends = select.poll()
        for pid, name in processes.items():
            self._register(pid, name)
        for work in (self._keep_probing, self._check_until_lost):
            threading.Thread(target=work, daemon=True, name="watchdog").start()

    def stop(self) -> None:
        """Stops watching: processes that end from now on are expected to end."""
        self._stopped.set()

    def _register(self, pid: int, name: str) -> None:
        try:
            end = os.pidfd_open(pid)
        except OSError as error:
            # The process is not visible here, or has ended already; then Ray does not answer the probe either.
            _log.debug("process %d of Ray cannot be watched: %s", pid, error)
            return
        self._names[end] = name
        self._ends.register(end, select.POLLIN)

    def _keep_probing(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                self._probe()
            except Exception as error:  # noqa: BLE001 (an error of any kind is no answer)
                _log.warning("Ray does not answer: %s", error)
            else:
                self._answered = time.monotonic()

    def _check_until_lost(self) -> None:
        while not self._stopped.is_set():
            ended = self._ends.poll(_CHECK_INTERVAL_SECONDS * 1000)
            if self._stopped.is_set():
                return
            if ended:
                self._on_loss(f"its {self._names[ended[0][0]]} has ended")
                return
            if time.monotonic() - self._answered > self._timeout_seconds + self._interval_seconds:
                self._on_loss(f"it has not answered for {self._timeout_seconds:.0f} s")
                return
