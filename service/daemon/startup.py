"""Startup of the service: its addresses are checked, and what a crash left of ended jobs is removed."""

import logging
import socket
import sqlite3

from nablad.address import DEFAULT_ADDRESS
from service.checkpoints.folder import CheckpointFolder
from service.errors import DamagedError
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from service.stores.job_states import ENDED, SUCCEEDED
from service.stores.jobs import JobStore
from workers.native.library import missing_reason

__all__ = ["StartError", "clean_up_after_crash", "explain_unusable", "native_library_notice", "split_address"]

_log = logging.getLogger(__name__)


class StartError(Exception):
    """The service cannot start; the message says why and what to do."""


def clean_up_after_crash(directory: DataDirectory, jobs: JobStore, models: ModelCatalogue) -> None:
    """Removes the rest of deleted jobs, checkpoints of succeeded jobs, and files of unregistered models.

    Removes nothing if the database is damaged, because it may have lost the row that names a file. Removes nothing
    either if its indexes, which have no digests, cannot be rebuilt on a full disk.
    """
    if damages := jobs.damages() + models.damages():
        for damage in damages:
            _log.error("%s", damage)
        _log.error("nothing is tidied up beside that; with the service stopped, `nablad check` says more")
        return
    try:
        jobs.rebuild_indexes()
        models.rebuild_indexes()
        jobs.delete_orphaned_rows()
    except (sqlite3.Error, DamagedError) as error:
        _log.error("nothing is tidied up at this start: %s", error)
        return
    directory.remove_orphan_checkpoints(jobs.ids())
    for job_id in directory.jobs_with_checkpoints():
        if jobs.get(job_id).state == SUCCEEDED:
            CheckpointFolder(directory.checkpoints(job_id)).clear()
    registered = models.ids()
    for model_id in directory.model_ids():
        goes_on = jobs.has(model_id) and jobs.get(model_id).state not in ENDED
        if model_id not in registered and not goes_on:
            _log.warning("removing the file of model %s, which was never registered", model_id)
            directory.model(model_id).unlink()


def split_address(address: str) -> tuple[str, int]:
    """Splits an address into host and port.

    Raises:
        StartError: The text is no address.
    """
    host, _, port = address.rpartition(":")
    if not _is_encodable(host) or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise StartError(f"{address!r} is not an address: give HOST:PORT, such as {DEFAULT_ADDRESS}")
    return host, int(port)


def explain_unusable(host: str, port: int) -> str:
    """Returns the system's reason why a server cannot listen there; empty if it can. gRPC gives no reason."""
    reason = ""
    try:
        places = socket.getaddrinfo(host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return error.strerror or str(error)
    for family, kind, protocol, _, place in places:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                return ""
        except OSError as error:
            reason = error.strerror or str(error)
    return reason


def native_library_notice() -> str:
    """Returns whether this host has the native library, and what is lost without it, as a sentence."""
    if reason := missing_reason():
        return f"{reason}. Until then short steps take longer; results are the same"
    return "the native library is there: where workers share memory with the parameter server, steps are made in C"


def _is_encodable(host: str) -> bool:
    """Returns whether the name can be looked up at all."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False
