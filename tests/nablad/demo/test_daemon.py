"""A service of one's own, with small programs in its place."""

import os
import sys

import pytest

from nablad.demo.daemon import Daemon, DaemonError

READY = """
print("nablad: listening on 127.0.0.1:4711")
print("nablad: metrics on http://127.0.0.1:4712/metrics")
print("nablad: ready", flush=True)
"""


def _daemon(script, **limits):
    return Daemon([sys.executable, "-c", "import sys, os, signal, time\n" + script], **limits)


def _runs(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_service_tells_where_it_is_and_is_gone_after_the_block(tmp_path):
    """Its addresses are those it prints; its process and its directory do not outlive the block."""
    pid_file = tmp_path / "pid"
    script = f"open({str(pid_file)!r}, 'w').write(f'{{os.getpid()}} {{sys.argv[2]}}')" + READY + "signal.pause()"
    with _daemon(script) as daemon:
        assert daemon.address == "127.0.0.1:4711"
        assert daemon.metrics_url == "http://127.0.0.1:4712/metrics"
        process_id, directory = pid_file.read_text().split()
        assert _runs(int(process_id))
    assert not _runs(int(process_id))
    assert not os.path.exists(os.path.dirname(directory))  # noqa: PTH110, PTH120  # a text, as the program got it


def test_it_is_started_on_free_ports_of_this_machine(tmp_path):
    """The options ask for a fresh data directory and ports that nobody uses."""
    options = tmp_path / "options"
    script = f"open({str(options)!r}, 'w').write(' '.join(sys.argv[5:]))" + READY + "signal.pause()"
    with _daemon(script):
        assert options.read_text() == "--address 127.0.0.1:0 --metrics-address 127.0.0.1:0"


def test_a_service_that_ends_early_is_an_error_with_the_end_of_its_log():
    """Why it did not start is what its log says last."""
    with (
        pytest.raises(DaemonError, match=r"(?s)ended before it was ready.*no room for line 99") as caught,
        _daemon("for line in range(100): print('no room for line', line, file=sys.stderr)"),
    ):
        pass
    assert "line 5\n" not in str(caught.value)


def test_a_service_that_does_not_come_up_is_given_up():
    """Waiting has an end."""
    with pytest.raises(DaemonError, match="not ready after 0 s"), _daemon("signal.pause()", start_s=0.0):
        pass


def test_a_service_that_does_not_end_is_killed(tmp_path):
    """SIGTERM is asked for first, and SIGKILL ends what does not listen."""
    pid_file = tmp_path / "pid"
    deaf = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(pid_file)!r}, 'w').write(str(os.getpid()))"
    with _daemon(deaf + READY + "\nwhile True: signal.pause()", stop_s=0.1):
        pass
    assert not _runs(int(pid_file.read_text()))
