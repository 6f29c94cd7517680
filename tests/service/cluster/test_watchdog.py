"""The watchdog: what it takes for the end of Ray."""

import queue
import subprocess
import sys
import threading

import pytest

from service.cluster.watchdog import Watchdog

SECONDS = 30


def _answer() -> None:
    """As Ray does when it is there."""


def _refuse() -> None:
    raise ConnectionError("no GCS")


def test_the_end_of_a_process_is_noticed() -> None:
    """Whatever Ray answers; the sentence names the process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        told: queue.Queue[str] = queue.Queue()
        watchdog = Watchdog({process.pid: "raylet"}, _answer, told.put)
        process.kill()
        assert told.get(timeout=SECONDS) == "its raylet has ended"
        watchdog.stop()


@pytest.mark.parametrize("ask", [_refuse, threading.Event().wait], ids=["error", "silence"])
def test_a_ray_that_does_not_answer_is_given_up(ask: object) -> None:
    """Whether it says no or says nothing."""
    told: queue.Queue[str] = queue.Queue()
    watchdog = Watchdog({}, ask, told.put, patience_seconds=0, ask_seconds=0)  # type: ignore[arg-type] (the result is not looked at)
    assert "has not answered" in told.get(timeout=SECONDS)
    watchdog.stop()


def test_what_ends_after_the_watch_is_not_told() -> None:
    """Ray is being taken down."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        told: queue.Queue[str] = queue.Queue()
        others = set(threading.enumerate())
        watchdog = Watchdog({process.pid: "raylet"}, _answer, told.put)
        watchdog.stop()
        process.kill()
        for thread in set(threading.enumerate()) - others:
            thread.join(SECONDS)
        assert told.empty()
