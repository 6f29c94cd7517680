"""What the service keeps and finds gone, or not as it was stored.

    DamagedError
    ├── ModelFileError        the file of a model
    ├── CheckpointError       a checkpoint of a job
    ├── StoredDatasetError    the files of a registered data set
    └── DatabaseRowError      a row of the database

Reading again ends the same way, so nobody tries again by himself. The API answers DATA_LOSS.
"""

__all__ = ["CheckpointError", "DamagedError", "DatabaseRowError", "ModelFileError", "StoredDatasetError"]


class DamagedError(Exception):
    """Something stored cannot be used. The message is a sentence: what is missing or differs, and what to do.

    Attributes:
        metadata: What it is about, for programs: ids and paths by their names.
    """

    def __init__(self, sentence: str, **metadata: str) -> None:
        super().__init__(sentence)
        self.metadata = metadata


class ModelFileError(DamagedError):
    """The file of a model is gone, or not what was written."""


class CheckpointError(DamagedError):
    """A checkpoint cannot be used."""


class StoredDatasetError(DamagedError):
    """A file of a registered data set is gone, or not what was written."""


class DatabaseRowError(DamagedError):
    """A row of the database is not what was written, or the database's structure is damaged."""
