"""The page that Prometheus scrapes."""

from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service.live import LiveJob
from service.metrics.instruments import Instruments
from service.metrics.server import MetricsServer


@pytest.fixture
def address(told: LiveJob) -> Iterator[str]:
    """A server with the instruments and one job."""
    registry = CollectorRegistry()
    Instruments(registry).attempts.inc()
    server = MetricsServer(registry, lambda: {"j": told}, "127.0.0.1", 0)
    yield f"http://{server.address}"
    server.close()


def test_the_page_holds_the_service_and_its_jobs(address: str) -> None:
    """In the text format that Prometheus reads, each family once."""
    with urlopen(f"{address}/metrics") as response:  # noqa: S310 (our own)
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = response.read().decode()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    assert {"nablad_attempts", "nablad_job_epoch"} <= set(names)


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/", 404), ("POST", "/metrics", 405)])
def test_whatever_else_is_asked_for_is_refused_with_a_sentence(address: str, method: str, path: str, code: int) -> None:
    """It says what to ask for."""
    with pytest.raises(HTTPError) as refused, urlopen(Request(f"{address}{path}", method=method)):  # noqa: S310
        pass
    with refused.value as answer:
        assert answer.code == code
        said = answer.read()
    assert b"/metrics" in said or b"GET" in said


def test_an_address_that_is_taken_is_refused(address: str) -> None:
    """Two services must not share a port."""
    port = int(address.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        MetricsServer(CollectorRegistry(), dict, "127.0.0.1", port)
