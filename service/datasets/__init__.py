"""Data sets: reads and checks the files that clients send, and stores them in the form that workers read.

Imports no gRPC, no Ray, and not the service's database.
"""

from service.datasets.integrity import DatasetVerifier, require_intact
from service.datasets.limits import DEFAULT_LIMIT_BYTES
from service.datasets.scaling import fit_scaling
from service.datasets.staged_files import DatasetError, DatasetTooLargeError, StagedFile
from service.datasets.store import StoredData, read_for_prediction, store_dataset

__all__ = [
    "DEFAULT_LIMIT_BYTES",
    "DatasetError",
    "DatasetTooLargeError",
    "DatasetVerifier",
    "StagedFile",
    "StoredData",
    "fit_scaling",
    "read_for_prediction",
    "require_intact",
    "store_dataset",
]
