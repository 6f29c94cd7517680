"""The page that Prometheus scrapes."""

import contextlib
import socket
from collections.abc import Iterator
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from service.live import LiveJob
from service.metrics import server
from service.metrics.instruments import Instruments
from service.metrics.server import MetricsServer


@pytest.fixture
def address(told: LiveJob) -> Iterator[str]:
    """A server with the instruments and one job."""
    registry = CollectorRegistry()
    Instruments(registry).attempts.inc()
    own = MetricsServer(registry, lambda: {"j": told}, "127.0.0.1", 0)
    yield f"http://{own.address}"
    own.close()


def test_the_page_holds_the_service_and_its_jobs(address: str) -> None:
    """In the text format that Prometheus reads, each family once."""
    with urlopen(f"{address}/metrics") as response:  # noqa: S310 (our own)
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = response.read().decode()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    assert {"nablad_attempts", "nablad_job_epoch"} <= set(names)


def test_head_has_the_length_and_nothing_else(address: str) -> None:
    """As HTTP wants it."""
    with urlopen(Request(f"{address}/metrics", method="HEAD")) as answer:  # noqa: S310
        assert int(answer.headers["Content-Length"]) > 1000
        assert answer.read() == b""


def test_a_client_that_says_nothing_is_let_go(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep a thread and a descriptor for ever."""
    monkeypatch.setattr(server._Handler, "timeout", 0.1)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as silent:
        assert silent.recv(1) == b""


def test_no_more_than_so_many_are_served_at_a_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is closed at once, and the others are answered afterwards."""
    host, port = address.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(server._MOST_CONNECTIONS):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
        with socket.create_connection((host, int(port)), timeout=20) as late:
            assert late.recv(1) == b""
    for _ in range(1000):
        with contextlib.suppress(OSError, HTTPException), urlopen(f"{address}/metrics") as page:  # noqa: S310 (our own)
            assert b"nablad_job_epoch" in page.read()
            return
    raise AssertionError("nobody is answered any more")


def test_it_listens_on_both_families(told: LiveJob) -> None:
    """An address of IPv6 stands in brackets, or not."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    for host in ("::1", "[::1]"):
        try:
            own = MetricsServer(CollectorRegistry(), lambda: {"j": told}, host, 0)
        except OSError:
            pytest.skip("no IPv6 on this machine")
        with urlopen(f"http://[::1]:{own.address.rpartition(':')[2]}/metrics") as page:
            assert b"nablad_job_epoch" in page.read()
        own.close()


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
