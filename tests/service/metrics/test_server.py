"""The HTTP server of the page: it has bounds, and those who keep them get their page."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client import CollectorRegistry

from service.events.live_status import JobStatus
from service.metrics import server
from service.metrics.page import MetricsServer


def test_a_request_has_to_come_in_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a whole: however often another byte of it comes, and also when none does."""
    monkeypatch.setattr(server, "_REQUEST_SECONDS", 0.3)
    for request in (b"", b"GET /metrics HTTP/1.1\r\nHost: "):
        with _connect(address) as slow:
            slow.sendall(request)
            with contextlib.suppress(OSError):
                while not _is_closed(slow):
                    slow.sendall(b"x")


def test_a_request_may_not_have_any_length(address: str) -> None:
    """A header without end is cut off, however fast it comes."""
    with _connect(address) as endless:
        endless.sendall(b"GET /metrics HTTP/1.1\r\n")
        with pytest.raises(OSError, match=r"reset|pipe"):
            endless.sendall(b"X-Header: " + b"x" * (64 << 20))
        with urlopen(f"{address}/metrics") as page:  # noqa: S310
            assert page.status == 200


def test_an_answer_has_to_be_read_in_time(
    live_job: JobStatus, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client that asks for a large page and does not read it does not keep its connection, nor fill the log."""
    monkeypatch.setattr(server, "_RESPONSE_SECONDS", 0.1)
    own = MetricsServer(CollectorRegistry(), lambda: {f"{number}": live_job for number in range(2000)}, "127.0.0.1", 0)
    try:
        with _connect(f"http://{own.address}", receive_bytes=4096) as lazy:
            lazy.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            lazy.settimeout(_SECONDS)
            assert lazy.recv(1)
            poll = select.poll()
            poll.register(lazy, select.POLLERR | select.POLLHUP)
            assert poll.poll(_SECONDS * 1000), "the connection was never given up"
        assert "Traceback" not in capfd.readouterr().err
    finally:
        own.close()


_SECONDS = 20
_SLOW = 300


@pytest.mark.parametrize(
    "own_addresses", [["127.0.0.9"], [f"127.0.1.{number}" for number in range(1, 101)], ["127.0.0.1"]]
)
def test_slow_clients_keep_no_scraper_out(address: str, own_addresses: list[str]) -> None:
    """Hundreds that send a byte now and then, of one address, of many, or of the scraper's own: every page comes."""
    slow: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for number in range(_SLOW):
            own_address = own_addresses[number % len(own_addresses)]
            slow.append(stack.enter_context(_connect(address, own_address=own_address)))
            if number % 30 == 29:
                _send_one_byte_each(slow)
        for _ in range(10):
            _send_one_byte_each(slow)
            with urlopen(f"{address}/metrics", timeout=_SECONDS) as page:  # noqa: S310 (our own)
                assert b"nablad_job_epoch" in page.read()


def _send_one_byte_each(connections: Iterable[socket.socket]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # it had to make room
            connection.send(b"G")


def test_scrapers_at_work_do_not_make_room(address: str, live_job: JobStatus) -> None:
    """A page that is being made reaches its scraper, however many connections come meanwhile."""
    begun, go_on = threading.Event(), threading.Event()

    def jobs() -> dict[str, JobStatus]:
        begun.set()
        go_on.wait(_SECONDS)
        return {"j": live_job}

    own = MetricsServer(CollectorRegistry(), jobs, "127.0.0.1", 0)
    url = f"http://{own.address}"
    with contextlib.ExitStack() as stack:
        stack.callback(own.close)
        scraper = stack.enter_context(_connect(url))
        scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert begun.wait(_SECONDS)
        for _ in range(3 * server._MOST_CONNECTIONS):
            stack.enter_context(_connect(url))
        go_on.set()
        answer = b""
        while data := scraper.recv(1 << 16):
            answer += data
        assert b"nablad_job_epoch" in answer


def _connect(address: str, *, own_address: str = "127.0.0.1", receive_bytes: int = 0) -> socket.socket:
    """A connection to a server, from one of this machine's addresses."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(_SECONDS)
    connection.bind((own_address, 0))
    connection.connect((host, int(port)))
    return connection


def _is_closed(connection: socket.socket) -> bool:
    """Returns true if the peer has closed the connection within a moment."""
    connection.settimeout(0.01)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    finally:
        connection.settimeout(_SECONDS)


def test_it_listens_on_both_families(live_job: JobStatus) -> None:
    """An address of IPv6 stands in brackets, or not."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    for host in ("::1", "[::1]"):
        try:
            own = MetricsServer(CollectorRegistry(), lambda: {"j": live_job}, host, 0)
        except OSError:
            pytest.skip("no IPv6 on this machine")
        with urlopen(f"http://[::1]:{own.address.rpartition(':')[2]}/metrics") as page:
            assert b"nablad_job_epoch" in page.read()
        own.close()


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/", 404), ("POST", "/metrics", 405)])
def test_whatever_else_is_asked_for_is_rejected_with_a_sentence(
    address: str, method: str, path: str, code: int
) -> None:
    """It says what to ask for."""
    with pytest.raises(HTTPError) as rejected, urlopen(Request(f"{address}{path}", method=method)):  # noqa: S310
        pass
    with rejected.value as answer:
        assert answer.code == code
        said = answer.read()
    assert b"/metrics" in said or b"GET" in said


def test_an_address_in_use_is_rejected(address: str) -> None:
    """Two services must not share a port."""
    port = int(address.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        MetricsServer(CollectorRegistry(), dict, "127.0.0.1", port)


def test_a_crowd_of_scrapers_is_served(address: str) -> None:
    """Fifty at a time from one address, as behind a proxy."""
    with ThreadPoolExecutor(50) as pool:
        pages = list(pool.map(lambda _: urlopen(f"{address}/metrics", timeout=_SECONDS).read(), range(50)))  # noqa: S310
    assert all(b"nablad_job_epoch" in page for page in pages)
