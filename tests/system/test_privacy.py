"""What other users of the machine see of a service with a job: nothing that they can read, enter or connect to."""

import ipaddress
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from nablad import Client
from nablad.jobspec import parse
from nablad.local import LocalService
from nablad.v1 import jobs_pb2 as jobs_pb

DIGITS = Path(__file__).parents[2] / "nablad" / "demo" / "digits-train.npz"
# Nobody can make anything there, root neither.
NO_HOME = "/proc"
# Some user who is neither this one nor root.
OTHER_USER = 12345
_LISTENING_TCP = "0A"
_LISTENING_UNIX = "01"


class Running(NamedTuple):
    """A service with a job at work.

    Attributes:
        daemon: The service.
        temporary: The folder for temporary files, which has nothing of others in it.
    """

    daemon: LocalService
    temporary: Path


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A daemon without a home directory and with a umask that forbids nothing; its job runs on two workers."""
    with (
        tempfile.TemporaryDirectory(prefix="p-") as folder,
        tempfile.TemporaryDirectory(prefix="p-") as log,
        pytest.MonkeyPatch.context() as patch,
    ):
        temporary, data = Path(folder, "t"), Path(folder, "d")
        patch.setenv("TMPDIR", str(temporary))
        patch.setenv("HOME", NO_HOME)
        # As the temporary directory of a machine is, and so that other users come that far.
        Path(folder).chmod(0o755)
        temporary.mkdir()
        temporary.chmod(0o1777)
        mask = os.umask(0)
        try:
            daemon = LocalService(data, cpus=4, log_file=Path(log, "log")).start()
        finally:
            os.umask(mask)
        _run_job(daemon.address)
        yield Running(daemon, temporary)
        assert daemon.stop() == 0, daemon.log_file.read_text()[-5000:]
        assert list(temporary.iterdir()) == []


def _run_job(address: str) -> None:
    """Returns when a job has a checkpoint and goes on for ever."""
    spec, violations = parse(
        "name: private\ndata: {train: digits}\nmodel: {layers: [64, 20, 10]}\ntraining: {epochs: 1000000}\n"
        "distribution: {workers: 2}\ncheckpoints: {every_epochs: 20}"
    )
    assert not violations
    with Client(address) as client:
        client.add_dataset("digits", [DIGITS])
        job_id = client.submit(spec).job_id
        next(news for news in client.watch(job_id) if isinstance(news, jobs_pb.Event) and news.checkpoint)


def _sockets(pids: list[int]) -> dict[str, int]:
    """The process by the inode of each socket that it has open."""
    found = {}
    for pid in pids:
        for number in _open_files(pid):
            with suppress(FileNotFoundError):  # closed, or the process has ended
                file = str(Path(f"/proc/{pid}/fd/{number}").readlink())
                if inode := re.fullmatch(r"socket:\[(\d+)\]", file):
                    found[inode.group(1)] = pid
    return found


def _open_files(pid: int) -> list[str]:
    """Numbers of a process's open files; none if it has ended."""
    try:
        return os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 (only names)
    except FileNotFoundError:
        return []


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address as the kernel writes it: words of four bytes, each in the machine's own order."""
    words = [int(text[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(text), 8)]
    packed = b"".join(words)
    if len(packed) == 4:
        return ipaddress.IPv4Address(packed)
    address = ipaddress.IPv6Address(packed)
    return address.ipv4_mapped or address


def _rows(table: str) -> list[list[str]]:
    return [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]


def test_every_port_is_for_this_machine_alone(running: Running) -> None:
    """The service's, Ray's, the parameter server's and the workers': TCP and UDP, on 127.0.0.1 or ::1."""
    processes = running.daemon.processes()
    sockets = _sockets([*processes])
    listening = [(row[1], sockets[row[9]]) for name in ("tcp", "tcp6") for row in _rows(name)
                 if row[3] == _LISTENING_TCP and row[9] in sockets]  # fmt: skip
    listening += [(row[1], sockets[row[9]]) for name in ("udp", "udp6") for row in _rows(name) if row[9] in sockets]
    assert {"gcs_server", "raylet"} <= {Path(processes[pid].split()[0]).name for _, pid in listening}
    assert any("_ParameterServerProcess" in processes[pid] for _, pid in listening)
    opened = {(processes[pid], local) for local, pid in listening if not _address(local.partition(":")[0]).is_loopback}
    assert opened == set()


def test_every_unix_socket_is_in_a_folder_that_nobody_else_can_enter(running: Running) -> None:
    """Or has no file, and asks for the user at its other end: the parameter server's."""
    sockets = _sockets([*running.daemon.processes()])
    paths = {row[7] for row in _rows("unix") if row[5] == _LISTENING_UNIX and row[6] in sockets and len(row) > 7}
    with_file = {path for path in paths if not path.startswith("@")}
    assert {Path(path).name for path in with_file} >= {"cluster", "raylet", "plasma_store"}
    (folder,) = running.temporary.iterdir()
    assert [path for path in with_file if not Path(path).is_relative_to(folder)] == []
    assert [path for path in paths - with_file if not path.startswith("@nablad-")] == []


def test_nothing_that_is_made_has_a_right_for_others(running: Running) -> None:
    """No file, folder or socket of the data directory, and of the temporary one, where Ray has its own.

    Ray itself opens its folders; the one that they are in is not Ray's, and closed.
    """
    made = [path for top in (running.daemon.data_directory, running.temporary) for path in top.rglob("*")]
    made += [running.daemon.data_directory]
    names = {path.name for path in made}
    assert {"nablad.sqlite3", "digits", "checkpoints", "cluster", "plasma_store", "logs"} <= names
    assert any(path.suffix == ".safetensors" for path in made)
    (closed,) = running.temporary.iterdir()
    (of_ray,) = [path for path in closed.iterdir() if path.is_dir()]
    opened = {}
    for path in made:
        try:
            facts = path.lstat()
        except FileNotFoundError:  # a checkpoint that was not the newest any more
            continue
        opened_by_ray = stat.S_ISDIR(facts.st_mode) and path.is_relative_to(of_ray)
        if facts.st_mode & 0o077 and not stat.S_ISLNK(facts.st_mode) and not opened_by_ray:
            opened[str(path)] = stat.filemode(facts.st_mode)
        assert facts.st_uid == os.geteuid(), path
    assert opened == {}


def test_the_token_of_ray_is_nowhere_but_in_the_environment_of_its_processes(running: Running) -> None:
    """Each of them has it; no command line, no file and no log has, and the home directory is as it was."""
    processes = running.daemon.processes()
    tokens = set()
    for pid, line in processes.items():
        if line.split()[0].endswith(("raylet", "gcs_server")) or "_WorkerProcess" in line:
            tokens |= set(re.findall(rb"RAY_AUTH_TOKEN=(\w+)", Path(f"/proc/{pid}/environ").read_bytes()))
    (token,) = tokens
    assert token.decode() not in " ".join(processes.values())
    for path in [path for path in running.temporary.rglob("*") if path.is_file()]:
        assert token not in path.read_bytes(), path
    assert token not in running.daemon.log_file.read_bytes()
    assert not Path(NO_HOME, ".ray").exists()


# Becomes another user, and tells what that one can do with each path and each socket that it is told of.
ATTACK = """
import json, os, socket, sys
tried = json.load(sys.stdin)
os.setgroups([])
os.setgid(tried["user"])
os.setuid(tried["user"])
done = []
for path in tried["paths"]:
    for what in (os.listdir, lambda path: os.close(os.open(path, os.O_RDONLY)), os.unlink, os.rmdir,
                 lambda path: os.rename(path, path + ".gone")):
        try:
            what(path)
            done.append(path)
        except OSError:
            pass
for name in tried["sockets"]:
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.settimeout(20)
            line.connect(name.replace("@", chr(0), 1))
            line.sendall(bytes(32))
            if line.recv(1):
                done.append(name)
        except OSError:
            pass
print(json.dumps(done))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_do_nothing(running: Running) -> None:
    """Not list, read, replace or remove anything, and no Unix socket answers."""
    sockets = _sockets([*running.daemon.processes()])
    names = [row[7] for row in _rows("unix") if row[5] == _LISTENING_UNIX and row[6] in sockets and len(row) > 7]
    paths = [running.daemon.data_directory, *running.daemon.data_directory.rglob("*"), *running.temporary.rglob("*")]
    tried = {"user": OTHER_USER, "paths": [*map(str, paths)], "sockets": names}
    attacker = subprocess.run(
        [sys.executable, "-c", ATTACK], input=json.dumps(tried), capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(attacker.stdout) == []
