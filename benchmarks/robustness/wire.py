"""A wire between two hosts: carries every packet, after a delay."""

import fcntl
import os
import select
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["TUN", "Wire", "open_interface"]

TUN: Final = Path("/dev/net/tun")
"""The device that gives network interfaces whose packets a program carries."""

# From <linux/if_tun.h>.
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_MOST_PACKET_BYTES: Final = 65_536


class _Packet(NamedTuple):
    """A packet that is under way."""

    due: float  # on the monotonic clock
    to: int
    data: bytes


def open_interface(name: str) -> int:
    """A new network interface on the host of this thread; the file that its packets are read from and written to.

    The interface goes when the file is closed.

    Raises:
        OSError: There can be no such interface.
    """
    file = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(file)
        raise
    return file


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
