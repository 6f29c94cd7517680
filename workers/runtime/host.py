"""The host of this process: its identity, what rounds numbers on it, and how threads share its CPUs."""

import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from nablad.v1 import jobs_pb2 as jobs_pb

__all__ = ["host_fingerprint", "numeric_environment", "use_batch_scheduling"]

_CPU_INFO = Path("/proc/cpuinfo")

_log = logging.getLogger(__name__)


def host_fingerprint() -> str:
    """Returns the host's name, its boot, and the network namespace that its Unix sockets are in.

    Two processes with the same fingerprint can share memory.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{platform.node()}/{boot}/{Path('/proc/self/ns/net').readlink()}"


def use_batch_scheduling() -> None:
    """Sets SCHED_BATCH for the calling thread and its children; logs it where that is forbidden.

    Threads of this class do not interrupt each other when they are woken: where workers and parameter server outnumber
    the CPUs, all of them finish sooner.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        _log.info("SCHED_BATCH cannot be set, steps take longer where CPUs are few: %s", error)


def numeric_environment() -> jobs_pb.Arithmetic:
    """Returns what rounds numbers in this process: where it is the same, so are the bits."""
    return jobs_pb.Arithmetic(cpu=_cpu(), blas=_blas(), numpy=np.__version__)


def _cpu() -> str:
    """Returns the CPU's model name, or its architecture where the system has no more."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine()


def _blas() -> str:
    """Returns name, version and kernel of numpy's BLAS: other packages may have loaded their own."""
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    of_numpy = [library for library in libraries if "numpy" in Path(library["filepath"]).parent.as_posix()]
    return ", ".join(sorted({_describe(library) for library in of_numpy or libraries}))


def _describe(library: Mapping[str, Any]) -> str:
    words = (library["internal_api"], library["version"], library.get("architecture"))
    return " ".join(word for word in words if word)
