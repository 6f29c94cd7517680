"""The few forms that the boards' queries have. `$instance` and `$job_id` are the boards' variables."""

from typing import Final

__all__ = ["increase", "of_job", "of_service", "quantile", "rate", "share", "total"]

_INSTANCE: Final = 'instance=~"$instance"'
_JOB_ID: Final = 'job_id="$job_id"'


def of_service(metric: str, *matchers: str) -> str:
    """The series of the chosen services, such as ``nablad_jobs{instance=~"$instance"}``."""
    return f"{metric}{{{', '.join((_INSTANCE, *matchers))}}}"


def of_job(metric: str, *matchers: str) -> str:
    """The series of the chosen job."""
    return of_service(metric, _JOB_ID, *matchers)


def rate(counter: str) -> str:
    """Per second, over a window that always has enough samples."""
    return f"rate({counter}[$__rate_interval])"


def increase(counter: str) -> str:
    """Within the same window as `rate`."""
    return f"increase({counter}[$__rate_interval])"


def total(series: str, *labels: str, function: str = "sum") -> str:
    """One series for each value of the labels; without labels, one in all."""
    return f"{function} by ({', '.join(labels)}) ({series})" if labels else f"{function}({series})"


def quantile(q: float, buckets: str, *labels: str) -> str:
    """A quantile of a histogram, of what came within the window of `rate`."""
    return f"histogram_quantile({q}, {total(rate(buckets), 'le', *labels)})"


def share(counter: str, label: str) -> str:
    """What part of the counter's growth each value of the label has, from 0 to 1."""
    return f"{total(rate(counter), label)} / scalar({total(rate(counter))})"
