"""How the threads that make the steps share the CPUs."""

import logging
import os

__all__ = ["use_batch_scheduling"]


_log = logging.getLogger(__name__)


def use_batch_scheduling() -> None:
    """Makes the calling thread, and those it starts, one of a batch.

    Threads of a batch do not interrupt each other when they are woken: where workers and parameter server outnumber the
    CPUs, all of them are done sooner for it. Where that is forbidden, everything works without.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    except OSError as error:
        _log.info("the thread cannot join the batch: %s", error)
