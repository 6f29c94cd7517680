"""The address of the service, as people give it."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nablad import Client, InvalidRequestError
from nablad.address import parse_address
from nablad.cli import main
from nablad.client.connection import open_channel
from nablad.v1 import jobs_pb2, jobs_pb2_grpc

_ADDRESSES = {
    "localhost": "localhost:7471",
    "localhost:1234": "localhost:1234",
    " trainer_1.example.org ": "trainer_1.example.org:7471",
    "192.0.2.7": "192.0.2.7:7471",
    "host:0099": "host:99",
    "::1": "[::1]:7471",
    "[::1]": "[::1]:7471",
    "[::1]:1234": "[::1]:1234",
    "[fe80::1%eth0]:1234": "[fe80::1%eth0]:1234",
    "2001:db8::7": "[2001:db8::7]:7471",
    "dns:///localhost": "localhost:7471",
    "ipv4:192.0.2.7:1234": "192.0.2.7:1234",
    "ipv6:[::1]:1234": "[::1]:1234",
    "unix:/run/nablad.sock": "unix:/run/nablad.sock",
    "unix:nablad.sock": "unix:nablad.sock",
    "unix:///run/nablad.sock": "unix:///run/nablad.sock",
    "unix-abstract:nablad": "unix-abstract:nablad",
}


@pytest.mark.parametrize("given_", _ADDRESSES)
def test_what_is_left_out_is_the_services_own(given_: str) -> None:
    """The port is 7471 in every form; never the 443 that gRPC takes. What it gives, it takes again."""
    assert parse_address(given_) == _ADDRESSES[given_]
    assert parse_address(_ADDRESSES[given_]) == _ADDRESSES[given_]


_MISTAKES = {
    "": "is empty: give HOST",
    "  ": "is empty",
    "http://localhost:7471": "is a URL, but the service speaks gRPC, without URLs: give localhost:7471",
    "http://localhost": "give localhost",
    "http://127.0.0.1:7472/metrics": "give 127.0.0.1.",
    "https://me:secret@host:7471/": "without TLS: give host:7471",
    "grpc://[::1]:7471": "give [::1]:7471",
    "http://": "give HOST",
    "localhost/": "has a path, but the service has none: give localhost",
    "localhost:7471/jobs": "give localhost:7471",
    "/run/nablad.sock": "unix:PATH",
    ":7471": "names no host: give 127.0.0.1:7471",
    "7471": "is a port without a host: give 127.0.0.1:7471",
    "localhost:": "has ''",
    "localhost:0": "from 1 to 65535",
    "localhost:65536": "from 1 to 65535",
    "localhost:-1": "has '-1'",
    "localhost:http": "has 'http'",
    "localhost:٣": "from 1 to 65535",
    "localhost:" + "9" * 5000: "from 1 to 65535",
    "a:b:c": "more than one colon",
    "[::1": "brackets",
    "[::1]7471": "brackets",
    "[localhost]:7471": "brackets",
    "[::1]:": "has ''",
    "host name": "characters",
    "host,other:7471": "characters",
    "\x01": "characters",
    "unix:": "names no socket",
    "unix://": "names no socket",
}


@pytest.mark.parametrize("given_", _MISTAKES, ids=lambda text: text[:20])
def test_what_is_no_address_is_told_with_what_to_give(given_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the library, and by the command with the exit code of wrong usage, whichever way it was given."""
    with pytest.raises(InvalidRequestError) as refused:
        Client(given_)
    assert _MISTAKES[given_] in str(refused.value)
    ran = CliRunner().invoke(main, ["--server", given_, "job", "list"])
    assert (ran.exit_code, ran.stderr) == (2, f"Error: {refused.value}\n")
    if given_.strip() and "\0" not in given_:
        monkeypatch.setenv("NABLA_SERVER", given_)
        ran = CliRunner().invoke(main, ["job", "list"])
        assert (ran.exit_code, ran.stderr) == (2, f"Error: {refused.value}\n")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere in a shell."""
    monkeypatch.setenv("NABLA_SERVER", " ")
    with Client() as client:
        assert client.address == "127.0.0.1:7471"


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_told_to_be_none(text: str) -> None:
    """One that is taken is taken again as it is; there is no other error."""
    with suppress(InvalidRequestError):
        address = parse_address(text)
        assert parse_address(address) == address


class _Jobs(jobs_pb2_grpc.JobServiceServicer):
    """Knows every job."""

    def GetJob(self, request, context):  # noqa: N802
        return jobs_pb2.GetJobResponse(job=jobs_pb2.Job(job_id=request.job_id))


@pytest.mark.parametrize("form", ["{port_of_ipv4}", "localhost:{port}", "[::1]:{port_of_ipv6}", "unix:{path}"])
def test_every_form_reaches_a_service(form: str, tmp_path: Path) -> None:
    """A server that listens there answers."""
    server = grpc.server(ThreadPoolExecutor(2))
    jobs_pb2_grpc.add_JobServiceServicer_to_server(_Jobs(), server)
    path = tmp_path / "s"
    if "unix" in form:
        server.add_insecure_port(f"unix:{path}")
    if "ipv6" in form and not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    try:
        port = server.add_insecure_port("[::1]:0" if "ipv6" in form else "127.0.0.1:0")
    except RuntimeError:
        pytest.skip("no IPv6 on this machine")
    server.start()
    address = form.format(port_of_ipv4=f"127.0.0.1:{port}", port=port, port_of_ipv6=port, path=path)
    with Client(address) as client:
        assert client.job("a").job_id == "a"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("dns:7471", "dns:///dns:7471"),  # alone it would be the host 7471
        ("[fe80::1%eth0]", "dns:///[fe80::1%25eth0]:7471"),
        ("rechner-ü", "dns:///rechner-%C3%BC:7471"),
        ("unix:/run/s", "unix:/run/s"),
    ],
)
def test_what_is_a_host_is_not_taken_for_something_else(
    address: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name that gRPC is given says that it is one, in the form of a URL."""
    opened = []
    monkeypatch.setattr(grpc, "insecure_channel", lambda name, **_: opened.append(name))
    open_channel(parse_address(address))
    assert opened == [target]
