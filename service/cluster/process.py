"""The cluster process: speaks to Ray for the daemon, and ends with either of them."""

import asyncio
import ctypes
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click
import grpc

from nablad.v1 import cluster_pb2_grpc as cluster_grpc
from service.cluster.child import READY
from service.cluster.errors import ClusterError
from service.cluster.ray.environment import prepare_embedded, prepare_guest
from service.cluster.ray.log_sweep import keep_swept
from service.cluster.servicer import ClusterServicer
from service.cluster.watchdog import Watchdog

if TYPE_CHECKING:
    from service.cluster.ray.cluster import RayCluster

__all__ = ["main"]

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1
# To end in order may take so long.
_END_SECONDS: Final = 20.0
# Whom it speaks to is trusted, and an assignment holds two figures for each feature.
_OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

_log = logging.getLogger(__name__)


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), required=True, help="Unix socket to listen at.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="For an embedded Ray's files.")
@click.option("--ray", help="HOST:PORT of a running Ray cluster; else an embedded one is started.")
@click.option("--cpus", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="CPUs of an embedded Ray.")
def main(socket: Path, folder: Path, ray: str | None, cpus: int) -> None:
    """Speaks to Ray for the service, which starts this and keeps standard input open as long as it lives."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    say = _take_standard_output()
    _end_with_parent()
    secret = _read_secret()
    # Whoever sends it: the service decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Ray's processes are there before Ray is.
    signal.signal(signal.SIGTERM, lambda *_: _end_with_group())
    try:
        cluster = _start_cluster(ray, cpus, folder)
        if ray is None:
            keep_swept(folder)
        watchdog = Watchdog(cluster.processes(), cluster.check, lambda sentence: _give_up(say, sentence))
        asyncio.run(_serve(cluster, socket, secret, say))
        watchdog.stop()
        if ray is not None:
            cluster.leave()
    except ClusterError as error:
        say(str(error))
        sys.exit(1)
    except BaseException as error:
        # Nobody would see it: the last act leaves no time for it. A signal while Ray starts is no error.
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        raise
    finally:
        _end_with_group()


def _start_cluster(ray: str | None, cpus: int, folder: Path) -> "RayCluster":
    """Starts or joins Ray, which reads its settings from the environment when it is imported."""
    (prepare_embedded if ray is None else prepare_guest)(os.environ)
    from service.cluster.ray.cluster import RayCluster  # noqa: PLC0415

    return RayCluster(ray, cpus, folder)


async def _serve(cluster: "RayCluster", socket: Path, secret: str, say: Callable[[str], None]) -> None:
    """Until SIGTERM, or the end of the service."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def told_to_end(*_: object) -> None:
        # Not by the loop, which forgets it when it ends: a second signal would then end this process before Ray.
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    signal.signal(signal.SIGTERM, told_to_end)
    threading.Thread(target=_read_to_the_end, args=(loop, stop), daemon=True).start()
    servicer = ClusterServicer(cluster, secret)
    server = grpc.aio.server(options=_OPTIONS)
    cluster_grpc.add_ClusterServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    say(READY)
    await stop.wait()
    _end_within(_END_SECONDS)
    await server.stop(None)
    await servicer.close()


def _take_standard_output() -> Callable[[str], None]:
    """A function that says one line to who started this; nothing else comes there, and it ends with this process."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(sentence: str) -> None:
        with suppress(BrokenPipeError):  # who started this is gone: nobody has to be told
            os.write(output, (" ".join(sentence.split()) + "\n").encode())

    return say


def _end_with_parent() -> None:
    """SIGTERM when the service is gone, however it ended; standard input tells it too, but not while this starts."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        _log.warning("the end of the service cannot be told by signal: %s", os.strerror(ctypes.get_errno()))


def _read_secret() -> str:
    """The secret that calls have to carry: the first line of standard input."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:  # who started this is gone
            sys.exit(1)
        line += byte
    return line.decode().strip()


def _read_to_the_end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    with suppress(RuntimeError):  # the loop has ended before
        loop.call_soon_threadsafe(stop.set)


def _end_within(seconds: float) -> None:
    """Whatever Ray does."""
    timer = threading.Timer(seconds, _end_now)
    timer.daemon = True
    timer.start()


def _end_with_group() -> None:
    """The last act, and the end of an embedded Ray.

    Ray's own shutdown makes SIGTERM deadly again for this process, before Ray's processes have ended; and agents that
    are left behind try for a minute to tell a Ray that is gone of their raylet's end.
    """
    if os.getpgrp() == os.getpid():
        # Ray's workers are in groups of their own, and would take a moment to notice.
        for pid in _descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _end_now() -> NoReturn:
    """From any thread."""
    _end_with_group()
    os._exit(1)


def _descendants(ancestor: int) -> list[int]:
    """Of a process, by what the kernel says now."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = int(status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found = [ancestor]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _give_up(say: Callable[[str], None], sentence: str) -> NoReturn:
    """Ray's own processes on this host, and with them the fleets, end with this one."""
    say(sentence)
    _end_now()


if __name__ == "__main__":
    main()
