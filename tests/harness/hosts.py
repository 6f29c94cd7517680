"""Two hosts on one machine: network namespaces with nothing between them but a wire that can be slow, and be cut."""

import ctypes
import fcntl
import os
import select
import signal
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Final, NamedTuple, Self, TypeVar

from tests.harness import HarnessError

__all__ = ["Host", "TwoHosts", "Wire", "what_is_missing"]

_Answer = TypeVar("_Answer")

# From <sched.h>; Python has setns from 3.12 on.
_CLONE_NEWNET: Final = 0x4000_0000
# Of the addresses that are set aside for tests of networks (RFC 2544): the wire's, which only the hosts know, and those
# by which this machine reaches the near host, four for each process that may want them.
_WIRE: Final = "198.18.0"
_ACCESS: Final = ip_network("198.19.0.0/16")
_ACCESS_ADDRESSES: Final = 4
_END_SECONDS: Final = 10.0
# The device that gives network interfaces whose packets a program carries.
_TUN: Final = Path("/dev/net/tun")
# From <linux/if_tun.h>.
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_MOST_PACKET_BYTES: Final = 65_536


class Host:
    """A network namespace: it has addresses and ports of its own, and its processes share no memory with other hosts.

    Attributes:
        name: Of the namespace.
        address: On the wire.
    """

    def __init__(self, name: str, address: str) -> None:
        """Makes it, with a loopback interface that is up.

        Raises:
            HarnessError: It cannot be made.
        """
        self.name = name
        self.address = address
        self._file = Path("/run/netns", name)
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")

    @property
    def identity(self) -> str:
        """Identity of the network namespace that processes here see; workers join with it."""
        return f"net:[{self._file.stat().st_ino}]"

    def call(self, function: Callable[[], _Answer]) -> _Answer:
        """Calls it on a thread that is on this host, as all processes are that it starts."""
        with ThreadPoolExecutor(1) as threads:
            threads.submit(self._enter).result()
            return threads.submit(function).result()

    def close(self) -> None:
        """Kills all processes here, and removes the namespace with its interfaces.

        Raises:
            HarnessError: A process does not end.
        """
        deadline = time.monotonic() + _END_SECONDS
        while pids := _ip("netns", "pids", self.name).split():
            for pid in pids:
                _kill(int(pid), deadline)
        _ip("netns", "delete", self.name)

    def _enter(self) -> None:
        with self._file.open() as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                raise HarnessError(f"host {self.name} cannot be entered: {os.strerror(ctypes.get_errno())}")


class _Packet(NamedTuple):
    """A packet that is under way."""

    due: float  # on the monotonic clock
    to: int
    data: bytes


class Wire:
    """Carries packets between two interfaces.

    Attributes:
        delay_seconds: How long each packet takes, in either direction.
    """

    def __init__(self, one: int, other: int) -> None:
        """Carries from now on, without delay. Both files are taken over."""
        self.delay_seconds = 0.0
        self._far_end = {one: other, other: one}
        self._under_way: deque[_Packet] = deque()
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends, and both interfaces with it."""
        os.close(self._stop)
        self._thread.join()
        for file in (self._stopped, *self._far_end):
            os.close(file)

    def _carry(self) -> None:
        files = [self._stopped, *self._far_end]
        while True:
            wait = max(self._under_way[0].due - time.monotonic(), 0) if self._under_way else None
            readable, _, _ = select.select(files, [], [], wait)
            if self._stopped in readable:
                return
            for file in readable:
                self._take(file)
            self._deliver()

    def _take(self, file: int) -> None:
        """Everything that lies there to be sent."""
        due = time.monotonic() + self.delay_seconds
        with suppress(BlockingIOError):
            while True:
                self._under_way.append(_Packet(due, self._far_end[file], os.read(file, _MOST_PACKET_BYTES)))

    def _deliver(self) -> None:
        """Everything that is due; what comes to an interface that is down is lost."""
        while self._under_way and self._under_way[0].due <= time.monotonic():
            packet = self._under_way.popleft()
            with suppress(OSError):
                os.write(packet.to, packet.data)


class TwoHosts:
    """A near host, which this machine can reach, and a far one, which only the near one can.

    Attributes:
        near: The one.
        far: The other.
        access: The near host's address for this machine.
        wire: Between the two.
    """

    def __init__(self) -> None:
        """Makes them, and connects them without delay.

        Raises:
            HarnessError: They cannot be made.
            OSError: They cannot be connected.
        """
        name = f"nablad-{os.getpid()}"
        with ExitStack() as made:
            self.near = Host(f"{name}-near", f"{_WIRE}.1")
            made.callback(self.near.close)
            self.far = Host(f"{name}-far", f"{_WIRE}.2")
            made.callback(self.far.close)
            self.access = _give_access(self.near)
            made.callback(_take_access)
            self.wire = Wire(*(host.call(lambda: _open_interface("wire")) for host in (self.near, self.far)))
            made.callback(self.wire.close)
            for host in (self.near, self.far):
                _ip("-n", host.name, "address", "add", f"{host.address}/30", "dev", "wire")
            self.mend()
            self._made = made.pop_all()

    def cut(self) -> None:
        """Takes the interfaces at both ends of the wire down: nothing gets through, and no connection is told."""
        self._set_wire("down")

    def mend(self) -> None:
        """Takes them up again."""
        self._set_wire("up")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.close()

    def _set_wire(self, state: str) -> None:
        for host in (self.near, self.far):
            _ip("-n", host.name, "link", "set", "wire", state)


def what_is_missing() -> str:
    """Why there can be no two hosts here, as a sentence; empty if there can."""
    if os.geteuid():
        return "only root can make network namespaces"
    if not _TUN.exists():
        return f"there is no {_TUN}, with which a program carries packets"
    try:
        Host(f"nablad-{os.getpid()}-try", "").close()
    except (HarnessError, OSError) as error:
        return f"network namespaces cannot be made here: {error}"
    return ""


def _give_access(host: Host) -> str:
    """Connects the host with this machine, by a wire that is never cut; its address there."""
    first = _ACCESS_ADDRESSES * os.getpid() % _ACCESS.num_addresses
    ours, theirs = _ACCESS[first + 1], _ACCESS[first + 2]
    _ip("link", "add", _access_name(), "type", "veth", "peer", "name", "access", "netns", host.name)
    _ip("address", "add", f"{ours}/30", "dev", _access_name())
    _ip("link", "set", _access_name(), "up")
    _ip("-n", host.name, "address", "add", f"{theirs}/30", "dev", "access")
    _ip("-n", host.name, "link", "set", "access", "up")
    return str(theirs)


def _take_access() -> None:
    _ip("link", "delete", _access_name())


def _access_name() -> str:
    """Returns a name for this machine's end; names of interfaces have 15 characters at most."""
    return f"nablad{os.getpid()}"


def _ip(*arguments: str) -> str:
    """Runs iproute2; returns its output.

    Raises:
        HarnessError: It did not do it.
        OSError: It is not there.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HarnessError(f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


def _kill(pid: int, deadline: float) -> None:
    """Kills a process, and waits until it has ended."""
    with suppress(ProcessLookupError):
        end = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            if not select.select([end], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise HarnessError(f"process {pid} does not end")
        finally:
            os.close(end)


def _open_interface(name: str) -> int:
    """A new network interface on the host of this thread; the file that its packets are read from and written to.

    The interface goes when the file is closed.

    Raises:
        OSError: There can be no such interface.
    """
    file = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(file)
        raise
    return file
