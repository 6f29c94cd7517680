"""A training alone, and with somebody who scrapes it; again and again."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.request import urlopen

from benchmarks.errors import BenchmarkError
from benchmarks.load.training import service, start_training
from benchmarks.load.windows import Window, samples_per_second, watched_time
from benchmarks.mnist_files import FirstRows
from benchmarks.works import PAPER_500

__all__ = ["ALONE", "SCRAPED", "run_trial"]

ALONE, SCRAPED = "alone", "scraped"

_SETTLING_SECONDS = 2.0


def run_trial(
    rows: FirstRows, rounds: int, seconds: float, every_seconds: float, say: Callable[[str], None]
) -> list[Window]:
    """The windows, in the order in which they were.

    Args:
        rows: Of MNIST.
        rounds: Of two windows each; one alone ends them.
        seconds: Of each window.
        every_seconds: Between two scrapes.
        say: Is told what comes next.

    Raises:
        BenchmarkError: The daemon did not start, or the windows are too short.
    """
    windows: list[Window] = []
    with service(rows) as (daemon, client):
        training = start_training(client)
        for number, name in enumerate((*(ALONE, SCRAPED) * rounds, ALONE), start=1):
            say(f"Window {number} of {2 * rounds + 1}: {name}")
            time.sleep(_SETTLING_SECONDS)
            interval = every_seconds if name == SCRAPED else None
            with _scraping(daemon.metrics_url, interval), watched_time(name, daemon) as window:
                time.sleep(seconds)
            windows.append(window)
        epochs = list(client.history(training))
    for window in windows:
        window.samples_per_second = samples_per_second(window, epochs, PAPER_500.rows)
    return windows


@contextmanager
def _scraping(url: str, every_seconds: float | None) -> Iterator[None]:
    """Somebody scrapes as long as the block lasts, if there is an interval."""
    stop = threading.Event()

    def scrape() -> int:
        scrapes = 0
        while not stop.wait(every_seconds):
            with urlopen(url) as page:  # noqa: S310 (our own)
                page.read()
            scrapes += 1
        return scrapes

    if every_seconds is None:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        scraping = pool.submit(scrape)
        try:
            yield
        finally:
            stop.set()
        if not scraping.result():
            raise BenchmarkError("The window was too short for a scrape: give more --seconds")
