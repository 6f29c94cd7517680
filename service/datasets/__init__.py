"""Data sets: reading what clients send, checking it, keeping it in the form that workers read.

Knows nothing of gRPC, of Ray and of the service's database.
"""

from service.datasets.errors import DatasetError, DatasetTooLargeError
from service.datasets.limits import DEFAULT_LIMIT_BYTES
from service.datasets.scaling import fit_scaling
from service.datasets.source import StagedFile
from service.datasets.store import StoredData, read_for_prediction, store
from service.datasets.stored import StoredDatasets, require_intact

__all__ = [
    "DEFAULT_LIMIT_BYTES",
    "DatasetError",
    "DatasetTooLargeError",
    "StagedFile",
    "StoredData",
    "StoredDatasets",
    "fit_scaling",
    "read_for_prediction",
    "require_intact",
    "store",
]
