"""Failpoints: named moments at which a process may be made to fail, so that tests hit exactly these.

They are off unless the environment variable `NABLAD_FAILPOINTS` is set when the process starts, and cost one test of a
global then. The variable holds entries separated by `;`:

    NAME=ACTION[@HIT[+]][!FILE]

- `NAME` is one of `NAMES`, `ACTION` one of `ACTIONS`.
- `@HIT`: only the HIT-th time that this process comes there, the first time when left out; with `+` every time from
  then on.
- `!FILE`: only if FILE is not there yet. It is created, and so the failure happens once over all processes.

`slow` alone lasts: the process has a fifth of its speed from then on, as it pauses there each time for four times the
CPU time since it came there last.

`worker.computing=kill@20!/tmp/once` kills the first worker that has computed 20 gradients, before it sends the last.
"""

import errno
import itertools
import logging
import os
import re
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

VARIABLE = "NABLAD_FAILPOINTS"

# What moment each name stands for.
NAMES: Mapping[str, str] = MappingProxyType(
    {
        "worker.ordered": "a worker received an order and has computed nothing of it",
        "worker.computing": "a worker has computed a gradient and not sent it",
        "worker.reported": "a worker has sent a gradient",
        "ps.updated": "the parameter server has updated the weights",
        "ps.epoch_ended": "the parameter server has the metrics of an epoch",
        "ps.checkpoint_taken": "the parameter server has copied its state for a checkpoint and sent nothing of it",
        "ps.resumed": "the parameter server has started from a checkpoint",
        "job.committing": "the service has written a new job into its database and not committed it",
        "job.committed": "the service has committed a new job and not answered",
        "checkpoint.writing": "the service has written the first chunk of a checkpoint",
        "checkpoint.written": "the service has written all of a checkpoint and not synced it to disk",
        "checkpoint.synced": "a checkpoint is on the disk under its temporary name",
        "checkpoint.renamed": "a checkpoint has its final name, but no SHA-256 file",
        "checkpoint.noted": "a checkpoint is valid, but not in the database",
        "model.written": "a model's file is complete, but not in the database",
        "job.ending": "a job is about to move into a final state",
        "attempt.starting": "the CPUs of an attempt are reserved and its processes not started",
    }
)


def failpoint(name: str) -> None:
    """Says that this process has come to a moment; fails here if the environment asks for it.

    Args:
        name: One of `NAMES`.

    Raises:
        OSError: ENOSPC, if the environment asks for `enospc`.
        RuntimeError: If the environment asks for `raise`.
    """
    if _switched_on and (point := _switched_on.get(name)):
        point.pass_by()


def failpoint_is_set(name: str) -> bool:
    """Returns whether this process may fail at a moment: it must then come there each time that it would."""
    return bool(_switched_on) and name in _switched_on


def check_failpoints() -> None:
    """Logs a warning if failpoints are on: such a process fails on purpose."""
    if _switched_on:
        logging.getLogger(__name__).warning(
            "failpoints are on, this process fails on purpose: %s=%s", VARIABLE, os.environ.get(VARIABLE, "")
        )


def _send_itself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def _fill_disk(name: str) -> NoReturn:
    raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (failpoint {name})")


def _raise(name: str) -> NoReturn:
    raise RuntimeError(f"failpoint {name}")


class _Slowness:
    """Pauses of a process that is slow from some moment on, as if its CPU had a fifth of the speed."""

    def __init__(self) -> None:
        self._marks: dict[str, float] = {}  # CPU seconds of the thread when it came there last, by failpoint

    def begin(self, name: str) -> None:
        """Makes the process slow at this failpoint from now on."""
        self._marks[name] = time.thread_time()

    def pause(self, name: str) -> None:
        """Pauses for so long that the CPU time since the last passing is a fifth of the whole, if it is slow here."""
        if name in self._marks:
            time.sleep(_SLOW_PAUSES * (time.thread_time() - self._marks[name]))
            self._marks[name] = time.thread_time()


# Seconds that a slow process pauses for each second of CPU time.
_SLOW_PAUSES: Final = 4.0

_slowness = _Slowness()

# What a failpoint can do, given its name.
ACTIONS: Mapping[str, Callable[[str], None]] = MappingProxyType(
    {
        "kill": lambda _: _send_itself(signal.SIGKILL),
        "stop": lambda _: _send_itself(signal.SIGSTOP),
        "enospc": _fill_disk,
        "exit": lambda _: os._exit(1),
        "raise": _raise,
        "slow": _slowness.begin,
    }
)


@dataclass(frozen=True)
class _Switch:
    """One entry of the variable."""

    action: str
    hit: int
    onwards: bool
    once: Path | None

    def is_for(self, number: int) -> bool:
        """Returns whether the passing with this number fails."""
        return (number == self.hit or (self.onwards and number > self.hit)) and self._is_first()

    def _is_first(self) -> bool:
        if self.once is None:
            return True
        try:
            self.once.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass(frozen=True)
class _Point:
    """A failpoint that is switched on."""

    name: str
    switches: list[_Switch] = field(default_factory=list)
    # next() of it is atomic: threads may pass together.
    passings: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def pass_by(self) -> None:
        number = next(self.passings)
        _slowness.pause(self.name)
        for switch in self.switches:
            if switch.is_for(number):
                ACTIONS[switch.action](self.name)


_ENTRY = re.compile(r"(?P<name>[^=]+)=(?P<action>[^@!]+)(@(?P<hit>[1-9][0-9]*)(?P<onwards>\+)?)?(!(?P<file>.+))?")


def _parse(text: str) -> dict[str, _Point]:
    """Reads the variable.

    Raises:
        ValueError: An entry that is not of the form, or names what does not exist.
    """
    points: dict[str, _Point] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError(f"{VARIABLE} holds {entry!r}; expected NAME=ACTION[@HIT[+]][!FILE] with HIT ≥ 1")
        name, action, file = match["name"], match["action"], match["file"]
        _must_be_one_of(name, NAMES, "failpoint")
        _must_be_one_of(action, ACTIONS, "action")
        switch = _Switch(action, int(match["hit"] or 1), bool(match["onwards"]), Path(file) if file else None)
        points.setdefault(name, _Point(name)).switches.append(switch)
    return points


def _must_be_one_of(word: str, known: Mapping[str, object], kind: str) -> None:
    if word not in known:
        raise ValueError(f"{VARIABLE} names the {kind} {word!r}, which does not exist; there are {', '.join(known)}")


_switched_on = _parse(os.environ.get(VARIABLE, ""))
