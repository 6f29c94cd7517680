"""Material of `nabla demo`: handwritten digits, the job that learns them, and a reader of metrics.

README.md in this folder says where the digits come from.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["FILES", "FOLDER", "JOB_FILE", "ONE_FILE", "ONE_LABEL", "draw", "scrape"]

FOLDER: Final = Path(__file__).parent
JOB_FILE: Final = FOLDER / "digits.yaml"
FILES: Final = {"digits-train": FOLDER / "digits-train.npz", "digits-validation": FOLDER / "digits-validation.npz"}
"""Files by the names of their data sets."""

ONE_FILE: Final = FOLDER / "digits-one.csv"
"""File with one held-out digit, without its label."""

ONE_LABEL: Final = 7
"""Label of that digit."""

_SIDE = 8
_DARKEST = 16
_SHADES = " ░▒▓█"


def draw(pixels: str) -> list[str]:
    """Draws a digit as lines of block characters.

    Args:
        pixels: 64 grey values from 0 to 16, row by row, as a line of CSV.
    """
    values = [int(value) for value in pixels.split(",")]
    shades = [2 * _SHADES[value * (len(_SHADES) - 1) // _DARKEST] for value in values]
    return ["".join(shades[start : start + _SIDE]) for start in range(0, len(shades), _SIDE)]


def scrape(url: str, job_id: str, metrics: Sequence[str]) -> Iterator[str]:
    """Reads a metrics page as Prometheus does, and yields the samples of one job.

    Args:
        url: Address of the page.
        job_id: Id of the job.
        metrics: Names of the metrics.
    """
    from urllib.request import ProxyHandler, build_opener  # noqa: PLC0415  # slow to import

    opener = build_opener(ProxyHandler({}))  # no proxy: the page is on this machine
    with opener.open(url, timeout=10) as page:
        for line in page.read().decode().splitlines():
            if line.partition("{")[0] in metrics and f'job_id="{job_id}"' in line:
                yield line
