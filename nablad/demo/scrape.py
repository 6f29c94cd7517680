"""A look at a service's metrics, as Prometheus would take it."""

from collections.abc import Iterator, Sequence
from urllib.request import ProxyHandler, build_opener


def scrape(url: str, job_id: str, metrics: Sequence[str]) -> Iterator[str]:
    """The samples of a job's metrics.

    Args:
        url: Of the metrics page.
        job_id: The job.
        metrics: Names of the metrics.
    """
    opener = build_opener(ProxyHandler({}))  # the page is on this machine
    with opener.open(url, timeout=10) as page:
        for line in page.read().decode().splitlines():
            if line.partition("{")[0] in metrics and f'job_id="{job_id}"' in line:
                yield line
