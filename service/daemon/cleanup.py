"""What a crash left of jobs that have come to their end."""

import logging
import sqlite3

from service.checkpoints.folder import CheckpointFolder
from service.errors import DamagedError
from service.storage.data_directory import DataDirectory
from service.stores.catalogues import ModelCatalogue
from service.stores.job_states import ENDED, SUCCEEDED
from service.stores.jobs import JobStore

__all__ = ["clean_up_after_crash"]

_log = logging.getLogger(__name__)


def clean_up_after_crash(directory: DataDirectory, jobs: JobStore, models: ModelCatalogue) -> None:
    """Removes what is left of deleted jobs, checkpoints that nobody goes on from, and files of unregistered models.

    But nothing at all where the database is damaged: what it does not name may be what it has lost. And nothing where
    its indexes cannot be made anew, on a disk that is full to the last byte: they have no digests.
    """
    if damages := jobs.damages() + models.damages():
        for damage in damages:
            _log.error("%s", damage)
        _log.error("nothing is tidied up beside that; with the service stopped, `nablad check` says more")
        return
    try:
        jobs.rebuild_indexes()
        models.rebuild_indexes()
        jobs.drop_orphans()
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
