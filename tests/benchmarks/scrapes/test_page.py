"""The page whose scrape is timed is one as the service has it."""

from benchmarks.scrapes.page import measure
from service.metrics.table import JOB_METRICS, Type


def test_every_job_has_all_its_series() -> None:
    """As many for the second job as for the first, and the library writes them too."""
    one, two = (measure(jobs, workers=2, layers=3, scrapes=1) for jobs in (1, 2))
    of_a_job = two.series - one.series
    assert of_a_job > len(JOB_METRICS)
    assert of_a_job > sum(metric.type != Type.SUMMARY for metric in JOB_METRICS) + 2 * 4
    assert two.size_bytes > one.size_bytes
    assert len(two.seconds) == len(two.library_seconds) == 1


def test_workers_and_layers_are_what_makes_the_page_longer() -> None:
    """Five series for each worker, two for each layer."""
    sizes = [measure(1, workers, layers, scrapes=1).series for workers, layers in ((1, 1), (2, 1), (1, 2))]
    assert [size - sizes[0] for size in sizes] == [0, 5, 2]
