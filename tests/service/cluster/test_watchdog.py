"""The watchdog: what counts as the loss of Ray."""

import queue
import subprocess
import sys
import threading

import pytest

from service.cluster.watchdog import Watchdog

SECONDS = 30


def _answer() -> None:
    """Answers as Ray does."""


def _fail() -> None:
    raise ConnectionError("no GCS")


def test_the_end_of_a_process_is_noticed() -> None:
    """Ray's answers do not matter then; the sentence names the process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lost: queue.Queue[str] = queue.Queue()
        watchdog = Watchdog({process.pid: "raylet"}, _answer, lost.put)
        process.kill()
        assert lost.get(timeout=SECONDS) == "its raylet has ended"
        watchdog.stop()


@pytest.mark.parametrize("probe", [_fail, threading.Event().wait], ids=["error", "silence"])
def test_a_ray_that_does_not_answer_is_given_up(probe: object) -> None:
    """An error and silence count the same."""
    lost: queue.Queue[str] = queue.Queue()
    watchdog = Watchdog({}, probe, lost.put, timeout_seconds=0, interval_seconds=0)  # type: ignore[arg-type] (the result is not looked at)
    assert "has not answered" in lost.get(timeout=SECONDS)
    watchdog.stop()


def test_an_end_after_the_stop_is_not_reported() -> None:
    """Ray is being shut down then."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        lost: queue.Queue[str] = queue.Queue()
        others = set(threading.enumerate())
        watchdog = Watchdog({process.pid: "raylet"}, _answer, lost.put)
        watchdog.stop()
        process.kill()
        for thread in set(threading.enumerate()) - others:
            thread.join(SECONDS)
        assert lost.empty()
