"""A service of a program's own; small programs stand in its place. tests/system has real ones."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nablad.local import MARK, LocalService, LocalServiceError

READY = """
print("nablad: listening on 127.0.0.1:4711")
print("nablad: metrics on http://127.0.0.1:4712/metrics")
print("nablad: ready", flush=True)
"""
# Tells its options and its environment, and is ready until it gets a signal.
TELLING = "print(*sys.argv[1:], file=sys.stderr); print(os.environ, file=sys.stderr)" + READY + "signal.pause()"


def _command(script: str) -> list[str]:
    return [sys.executable, "-c", "import sys, os, signal, time\n" + script]


def _local(script: str, *arguments: Any, **options: Any) -> LocalService:
    return LocalService(*arguments, command=_command(script), **options)


def _said(service: LocalService) -> str:
    return service.log_file.read_text()


def test_a_service_is_there_for_as_long_as_the_block_lasts() -> None:
    """Its addresses are those that it prints; its process and all that is temporary are gone afterwards."""
    with _local(TELLING) as service:
        assert service.address == "127.0.0.1:4711"
        assert service.metrics_address == "127.0.0.1:4712"
        assert service.metrics_url == "http://127.0.0.1:4712/metrics"
        assert [*service.processes()] == [service.process.pid]
        assert service.is_running
    assert service.process.returncode == -signal.SIGTERM
    assert not service.is_running
    assert service.processes() == {}
    assert not service.data_directory.parent.exists()
    assert not service.log_file.exists()


def test_it_is_started_on_free_ports_with_a_directory_of_its_own() -> None:
    """Nothing of another service comes into it, though this program's environment has settings of one."""
    with _local(TELLING) as service:
        options, _ = _said(service).splitlines()
        directory = f"--data-dir {service.data_directory}"
        assert options == f"{directory} --address 127.0.0.1:0 --metrics-address 127.0.0.1:0"


def test_settings_of_a_service_in_the_environment_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only those that are given are its own."""
    monkeypatch.setenv("NABLAD_RAY", "10.0.0.1:6379")
    with _local(TELLING, environment={"NABLAD_LOG_LEVEL": "debug"}) as service:
        assert "NABLAD_RAY" not in _said(service)
        assert "'NABLAD_LOG_LEVEL': 'debug'" in _said(service)
        assert f"'{MARK}': '{service.mark}'" in _said(service)


def test_what_is_given_is_used_and_kept(tmp_path: Path) -> None:
    """Data directory, log file, CPUs, Ray's address, addresses, and any other option."""
    with _local(
        TELLING,
        tmp_path / "data",
        cpus=3,
        ray="10.0.0.1:6379",
        address="[::1]:0",
        metrics_address="[::1]:1",
        options=("--log-level", "debug"),
        log_file=tmp_path / "log",
    ) as service:
        (tmp_path / "data").mkdir()
        assert service.data_directory == tmp_path / "data"
        for part in ("--cpus 3", "--ray 10.0.0.1:6379", "--address [::1]:0", "[::1]:1", "--log-level debug"):
            assert part in _said(service)
    assert (tmp_path / "data").is_dir()
    assert (tmp_path / "log").is_file()


def test_a_killed_service_starts_again_where_it_was() -> None:
    """At its address, over its data, with the log going on; `stop` removes what is temporary."""
    with _local(TELLING) as service:
        first, directory = service.process, service.data_directory
        directory.mkdir()
        service.kill()
        assert first.returncode == -signal.SIGKILL
        assert service.start().process is not first
        assert directory.is_dir()
        _, _, options, _ = _said(service).splitlines()
        assert options.endswith("--address 127.0.0.1:4711 --metrics-address 127.0.0.1:4712")
    assert not directory.exists()


def test_stopping_gives_the_exit_code_and_can_be_done_twice() -> None:
    """Whoever starts it by hand sees how it ended."""
    service = _local(TELLING).start()
    assert service.stop() == service.stop() == -signal.SIGTERM
    assert _local(TELLING).stop() == 0


def test_a_service_ends_with_what_has_forgotten_it() -> None:
    """A notebook may bind its name to the next one."""
    service = _local(TELLING).start()
    process, folder = service.process, service.data_directory.parent
    del service
    assert process.returncode == -signal.SIGTERM
    assert not folder.exists()


def test_a_service_ends_with_the_program_at_the_latest() -> None:
    """Though nobody stopped it."""
    code = f"from nablad.local import LocalService\ns = LocalService(command={_command(TELLING)}).start()"
    ran = subprocess.run(
        [sys.executable, "-c", code + "\nprint(s.process.pid, s.log_file)"], capture_output=True, text=True, check=True
    )
    pid, log = ran.stdout.split()
    assert not Path("/proc", pid).exists()
    assert not Path(log).parent.exists()


def test_a_service_that_does_not_end_is_killed() -> None:
    """SIGTERM is asked for first, and SIGKILL ends what does not listen."""
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" + READY + "\nwhile True: signal.pause()"
    with _local(deaf, stop_s=0.1) as service:
        pass
    assert service.process.returncode == -signal.SIGKILL


def test_a_service_that_ends_early_is_an_error_with_the_end_of_its_log() -> None:
    """Why it did not start is what its log says last."""
    script = "for line in range(100): print('no room for line', line, file=sys.stderr)"
    with pytest.raises(LocalServiceError, match=r"(?s)ended before it was ready.*no room for line 99") as caught:
        _local(script).start()
    assert "line 5\n" not in str(caught.value)


def test_a_service_that_does_not_come_up_is_given_up() -> None:
    """Waiting has an end, and nothing is left of what was waited for."""
    service = _local("signal.pause()", start_s=0.0)
    with pytest.raises(LocalServiceError, match="not ready after 0 s; start_s gives it more time"):
        service.start()
    assert service.process.returncode == -signal.SIGTERM
    assert not service.data_directory.parent.exists()


def test_a_wait_that_is_interrupted_leaves_nothing() -> None:
    """As by Ctrl-C, before the service is ready."""
    service = _local("os.kill(os.getppid(), signal.SIGINT); signal.pause()")
    with pytest.raises(KeyboardInterrupt):
        service.start()
    assert service.processes() == {}
    assert not service.data_directory.parent.exists()


def test_what_cannot_be_done_is_told() -> None:
    """Two starts at once, and a process before the first."""
    service = _local(TELLING)
    with pytest.raises(LocalServiceError, match=r"call start\(\)"):
        service.process  # noqa: B018  # the look is the test
    with service, pytest.raises(LocalServiceError, match=r"runs already, at 127\.0\.0\.1:4711"):
        service.start()


def test_without_the_server_s_packages_the_error_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client machine has none."""
    monkeypatch.setattr("nablad.local.find_spec", lambda _: None)
    with pytest.raises(LocalServiceError, match=r"pip install '\.\[server\]'"):
        LocalService().start()
