"""Cluster process: speaks to Ray for the daemon, and ends with either of them."""

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
from service.cluster.ray.log_sweep import start_log_sweep
from service.cluster.servicer import ClusterServicer
from service.cluster.watchdog import Watchdog

if TYPE_CHECKING:
    from service.cluster.ray.cluster import RayCluster

__all__ = ["main"]

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1
# Longest time for an orderly end.
_SHUTDOWN_SECONDS: Final = 20.0
# The daemon is trusted, and an assignment holds two numbers for each feature.
_OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

_log = logging.getLogger(__name__)


@click.command()
@click.option("--socket", type=click.Path(path_type=Path), required=True, help="Unix socket to listen at.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Folder for an embedded Ray's files.")
@click.option("--ray", help="HOST:PORT of a running Ray cluster; by default an embedded one is started.")
@click.option("--cpus", type=click.IntRange(min=1), default=os.cpu_count() or 1, help="CPUs of an embedded Ray.")
def main(socket: Path, folder: Path, ray: str | None, cpus: int) -> None:
    """Speak to Ray for the service, which starts this process and keeps its standard input open."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    report = _reserve_standard_output()
    _end_with_parent()
    secret = _read_secret()
    # A Ctrl-C in a terminal reaches this process too, but the service decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Set before Ray is ready, because its processes start earlier.
    signal.signal(signal.SIGTERM, lambda *_: _end_with_group())
    try:
        cluster = _start_cluster(ray, cpus, folder)
        if ray is None:
            start_log_sweep(folder)
        watchdog = Watchdog(
            cluster.core_processes(), cluster.require_alive, lambda sentence: _end_after_loss(report, sentence)
        )
        asyncio.run(_serve(cluster, socket, secret, report))
        watchdog.stop()
        if ray is not None:
            cluster.disconnect()
    except ClusterError as error:
        report(str(error))
        sys.exit(1)
    except BaseException as error:
        # Printed here, because this process is killed below. A signal while Ray starts is no error.
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


async def _serve(cluster: "RayCluster", socket: Path, secret: str, report: Callable[[str], None]) -> None:
    """Serves until SIGTERM, or the end of the service."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop_serving(*_: object) -> None:
        # Set by `signal` and not by the loop, whose handlers go with it: a second signal would end this before Ray.
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    signal.signal(signal.SIGTERM, stop_serving)
    threading.Thread(target=_wait_for_end_of_input, args=(loop, stop), daemon=True).start()
    servicer = ClusterServicer(cluster, secret)
    server = grpc.aio.server(options=_OPTIONS)
    cluster_grpc.add_ClusterServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    report(READY)
    await stop.wait()
    _end_within(_SHUTDOWN_SECONDS)
    await server.stop(None)
    await servicer.close()


def _reserve_standard_output() -> Callable[[str], None]:
    """Returns a function that reports a line to the daemon; all other output goes to standard error from now on."""
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def report(sentence: str) -> None:
        with suppress(BrokenPipeError):  # the daemon is gone
            os.write(output, (" ".join(sentence.split()) + "\n").encode())

    return report


def _end_with_parent() -> None:
    """Requests SIGTERM at the end of the service, because the end of standard input is noticed only while serving."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        _log.warning("the end of the service cannot be signalled: %s", os.strerror(ctypes.get_errno()))


def _read_secret() -> str:
    """Reads the secret that calls have to carry, the first line of standard input."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:  # the daemon is gone
            sys.exit(1)
        line += byte
    return line.decode().strip()


def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Sets an event at the end of standard input, which is the end of the daemon."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    with suppress(RuntimeError):  # the loop has ended before
        loop.call_soon_threadsafe(stop.set)


def _end_within(seconds: float) -> None:
    """Ends this process after some seconds, even if Ray hangs."""
    timer = threading.Timer(seconds, _end_now)
    timer.daemon = True
    timer.start()


def _end_with_group() -> None:
    """Kills this process, its descendants and its group, and so an embedded Ray.

    Ray's own shutdown is not used: it restores SIGTERM's default before its processes have ended, and leaves agents
    behind that run for another minute.
    """
    if os.getpgrp() == os.getpid():
        # Ray's workers are in groups of their own, and would notice the end of Ray only later.
        for pid in _descendants(os.getpid()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _end_now() -> NoReturn:
    """Ends this process at once, from any thread."""
    _end_with_group()
    os._exit(1)


def _descendants(ancestor: int) -> list[int]:
    """Returns the ids of all descendants of a process at this moment."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended
            parent = int(status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    found = [ancestor]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def _end_after_loss(report: Callable[[str], None], sentence: str) -> NoReturn:
    """Reports the loss of Ray and ends this process, Ray's processes on this host and the jobs' processes."""
    report(sentence)
    _end_now()


if __name__ == "__main__":
    main()
