"""Client of the cluster, with a fake cluster process that has no Ray."""

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from nablad.v1 import parameter_server_pb2 as ps_pb
from service.cluster.client import ClusterClient, ClusterError, ClusterLostError
from service.errors import AttemptFailed, AttemptLost

FAKE = Path(__file__).with_name("fake_process.py")
READY = "ready\n"


class Bench:
    """Client, its reports of changes, and the files of the fake process."""

    def __init__(self, folder: Path, plan: str) -> None:
        self.plan = folder / "plan"
        self.plan.write_text(plan)
        self.stopped = folder / "stopped"
        self.files = folder / "ray"
        self.reports: list[str] = []
        program = (sys.executable, str(FAKE), str(self.plan))
        self.client = ClusterClient(None, 4, self.files, self.reports.append, program=program, first_pause_seconds=0.01)

    @property
    def pid(self) -> int:
        return int(self.plan.with_name("pid").read_text())

    async def wait_for_reports(self, count: int) -> None:
        while len(self.reports) < count:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0)


Opened = Callable[[str], AbstractAsyncContextManager[Bench]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Folder of short path, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@pytest.fixture
def opened(folder: Path) -> Opened:
    """Context of a client with the plan of its processes, the first of which is ready."""

    @asynccontextmanager
    async def open_client(plan: str = READY) -> AsyncIterator[Bench]:
        bench = Bench(folder, plan)
        async with asyncio.timeout(30):
            await bench.client.start()
            try:
                yield bench
            finally:
                await bench.client.close()

    return open_client


async def test_a_closed_client_leaves_nothing(opened: Opened) -> None:
    """While it is open, the nodes are known; when it is closed, the process has ended and its folder is gone."""
    benches: list[Bench] = []
    async with opened(READY) as bench:
        assert bench.client.up.is_set()
        assert [(node.cpus, node.free_cpus) for node in await bench.client.list_nodes()] == [(4, 4)]
    benches.append(bench)
    (bench,) = benches
    assert not Path(f"/proc/{bench.pid}").exists()
    assert not bench.files.exists()
    assert bench.reports == []


async def test_only_the_user_can_enter_the_folder(opened: Opened) -> None:
    """Whoever can connect to the socket can start processes."""
    async with opened(READY) as bench:
        assert bench.files.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("plan", "sentence"), [("no Ray here\n", "no Ray here"), ("\n", "ended with code 3 before it was ready")]
)
async def test_a_process_that_cannot_start_says_why(folder: Path, plan: str, sentence: str) -> None:
    """The first start fails with its sentence, or with its exit code if it has none; nothing is tried again."""
    bench = Bench(folder, plan)
    with pytest.raises(ClusterError, match=sentence):
        await bench.client.start()
    assert not bench.client.up.is_set()


@pytest.mark.parametrize("what", ["a link", "a file"])
async def test_something_else_in_the_place_of_the_folder_is_rejected(folder: Path, what: str) -> None:
    """A link may lead to where somebody else can write; nothing is removed there."""
    bench = Bench(folder, READY)
    (folder / "other").mkdir()
    (folder / "other" / "precious").touch()
    if what == "a link":
        bench.files.symlink_to(folder / "other")
    else:
        bench.files.touch()
    with pytest.raises(ClusterError, match=f"in the way of Ray's files: it is {what}, .* TMPDIR"):
        await bench.client.start()
    assert (folder / "other" / "precious").exists()


async def test_a_folder_of_another_user_is_rejected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could put another socket there; nothing is removed."""
    bench, own = Bench(folder, READY), os.geteuid()
    bench.files.mkdir()
    (bench.files / "precious").touch()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with pytest.raises(ClusterError, match=r"in the way of Ray's files: it is a folder of user .* TMPDIR"):
        await bench.client.start()
    assert (bench.files / "precious").exists()


async def test_a_folder_that_an_older_release_left_open_is_closed_and_emptied(opened: Opened, folder: Path) -> None:
    """Ray made it accessible to everybody; files of others are removed before a process is started."""
    files = folder / "ray"
    files.mkdir()
    (files / "cluster").touch()
    (files / "session").mkdir()
    files.chmod(0o777)

    async with opened(READY) as bench:
        assert stat.S_IMODE(bench.files.stat().st_mode) == 0o700
        assert [path.name for path in bench.files.iterdir()] == ["cluster"]


async def test_a_temporary_directory_in_which_others_can_replace_the_folder_is_warned_of(
    opened: Opened, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a directory is writable for everybody and lacks the sticky bit, as in some containers."""
    for mode, warned in ((0o700, False), (0o1777, False), (0o777, True)):
        caplog.clear()
        folder.chmod(mode)
        async with opened(READY):
            pass
        assert ("everybody may put another folder in the place of" in caplog.text) == warned


async def test_another_process_at_the_socket_gets_no_call(folder: Path) -> None:
    """The kernel says which process listens; the secrets of jobs go only to the one that was started."""
    bench = Bench(folder, "elsewhere\n")
    with pytest.raises(ClusterError, match="in place of the process that speaks to Ray"):
        await asyncio.wait_for(bench.client.start(), 30)
    assert not bench.client.up.is_set()


async def test_job_processes_run_until_they_are_stopped(opened: Opened) -> None:
    """They get CPUs and report an address; when stop returns, the cluster process has stopped them."""
    async with opened(READY) as bench:
        assert await bench.client.reserve_cpus(5, 1) is None
        processes = await bench.client.reserve_cpus(2, 1)
        assert processes is not None
        assert await processes.start(ps_pb.Assignment(job_id="a"), "secret") == "a:1"
        assert not bench.stopped.exists()
        await processes.stop()
        assert bench.stopped.exists()


async def test_a_wait_for_failure_may_be_cancelled(opened: Opened) -> None:
    """The processes go on."""
    async with opened(READY) as bench:
        processes = await bench.client.reserve_cpus(1, 1)
        assert processes is not None
        waiting = asyncio.create_task(processes.wait_for_failure())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await processes.start(ps_pb.Assignment(job_id="a"), "secret") == "a:1"
        await processes.stop()


async def test_the_end_of_job_processes_is_reported_as_it_was(opened: Opened) -> None:
    """A loss or a failure comes with its reason, its cause, and the last lines of the log."""
    async with opened(READY) as bench:
        processes = await bench.client.reserve_cpus(1, 1)
        assert processes is not None
        with pytest.raises(AttemptLost, match="the parameter server was lost: oh") as lost:
            await processes.start(ps_pb.Assignment(job_id="lost"), "secret")
        assert (lost.value.cause, lost.value.error_lines) == ("parameter_server", "a\nb")
        await processes.stop()
        processes = await bench.client.reserve_cpus(1, 1)
        assert processes is not None
        with pytest.raises(AttemptFailed, match="a worker failed: oh") as failed:
            await processes.start(ps_pb.Assignment(job_id="failed"), "secret")
        assert failed.value.error_lines == "c"
        await processes.stop()


async def test_a_killed_cluster_process_loses_its_jobs_and_is_started_anew(opened: Opened) -> None:
    """It is tried until it succeeds; meanwhile Ray is away, and calls raise the reason."""
    async with opened(f"{READY}not yet\n\n{READY}") as bench:
        processes = await bench.client.reserve_cpus(1, 1)
        assert processes is not None
        os.kill(bench.pid, signal.SIGKILL)
        with pytest.raises(AttemptLost, match=r"Ray was lost: .* was ended by SIGKILL") as lost:
            await processes.wait_for_failure()
        assert lost.value.cause == "ray"
        await processes.stop()
        await bench.wait_for_reports(1)
        with pytest.raises(ClusterLostError, match="Ray is away"):
            await bench.client.list_nodes()
        await bench.client.up.wait()
        assert len(await bench.client.list_nodes()) == 1
        await bench.wait_for_reports(2)
        assert bench.client.restarts == 1
        assert [sentence.partition(":")[0] for sentence in bench.reports] == ["Ray was lost", "Ray is back"]


async def test_the_last_line_of_a_cluster_process_is_the_reason(opened: Opened) -> None:
    """The process itself knows best why it ends."""
    async with opened(READY * 2) as bench:
        processes = await bench.client.reserve_cpus(1, 1)
        assert processes is not None
        await processes.scale_workers(7)
        with pytest.raises(AttemptLost, match="Ray was lost: it was scaled to 7 workers"):
            await processes.wait_for_failure()


def test_the_process_ends_with_a_killed_daemon(folder: Path) -> None:
    """Its standard input ends with the daemon."""
    plan = folder / "plan"
    plan.write_text(READY)
    program = f"({sys.executable!r}, {str(FAKE)!r}, {str(plan)!r})"
    code = (
        "import asyncio, pathlib\nfrom service.cluster.client import ClusterClient\n"
        f"files, program = pathlib.Path({str(folder / 'ray')!r}), {program}\n"
        "async def run():\n client = ClusterClient(None, 4, files, print, program=program)\n"
        " await client.start()\n print('up', flush=True)\n await asyncio.Event().wait()\nasyncio.run(run())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "up\n"
        end = os.pidfd_open(int((folder / "pid").read_text()))
        daemon.kill()
        assert select.select([end], [], [], 30)[0]
        os.close(end)
