"""PromQL expressions of the boards. `$instance` and `$job_id` are the boards' variables."""

from typing import Final

__all__ = ["increase", "of_job", "of_service", "quantile", "rate", "share", "total"]

_INSTANCE: Final = 'instance=~"$instance"'
_JOB_ID: Final = 'job_id="$job_id"'


def of_service(metric: str, *matchers: str) -> str:
    """Selects the series of the chosen services, such as ``nablad_jobs{instance=~"$instance"}``."""
    return f"{metric}{{{', '.join((_INSTANCE, *matchers))}}}"


def of_job(metric: str, *matchers: str) -> str:
    """Selects the series of the chosen job."""
    return of_service(metric, _JOB_ID, *matchers)


def rate(counter: str) -> str:
    """Rate per second, over a window that always has enough samples."""
    return f"rate({counter}[$__rate_interval])"


def increase(counter: str) -> str:
    """Increase within the window of `rate`."""
    return f"increase({counter}[$__rate_interval])"


def total(series: str, *labels: str, function: str = "sum") -> str:
    """Aggregates to one series for each value of the labels; without labels, to a single one."""
    return f"{function} by ({', '.join(labels)}) ({series})" if labels else f"{function}({series})"


def quantile(q: float, buckets: str, *labels: str) -> str:
    """Quantile of a histogram within the window of `rate`."""
    return f"histogram_quantile({q}, {total(rate(buckets), 'le', *labels)})"


def share(counter: str, label: str) -> str:
    """Share of each value of the label in the counter's growth, from 0 to 1."""
    return f"{total(rate(counter), label)} / scalar({total(rate(counter))})"
