"""Calls about data sets."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from nablad.client.connection import Connection, PathName
from nablad.client.uploading import ProgressCallback, Upload, describe_files
from nablad.v1 import datasets_pb2


class DatasetCalls(Connection):
    """Add, get, list and delete data sets."""

    def add_dataset(
        self,
        name: str,
        paths: Sequence[PathName],
        *,
        target_column: str = "",
        target_kind: datasets_pb2.TargetKind.ValueType = datasets_pb2.TARGET_KIND_UNSPECIFIED,
        classes: int = 0,
        progress: ProgressCallback | None = None,
    ) -> datasets_pb2.Dataset:
        """Adds the data set in some files, which are streamed and never loaded as a whole.

        Args:
            name: Name of the data set, for job files.
            paths: One .npz or .csv, or two files, features and targets, of .npy or IDX; .csv and IDX may be gzipped.
            target_column: CSV: name or number (from 0) of the targets' column; empty: the last one.
            target_kind: Kind of the targets; unspecified: labels if they are whole numbers, else values.
            classes: Number of classes, if the labels do not show all of them; 0: the largest label + 1.
            progress: Called with the bytes sent and the total bytes before each chunk, on another thread.

        Raises:
            OSError: A file cannot be read.
        """
        files = [Path(path) for path in paths]
        header = datasets_pb2.AddDatasetHeader(
            name=name, data_files=describe_files(files, target_column, target_kind, classes)
        )
        upload = Upload(datasets_pb2.AddDatasetRequest(header=header), files, datasets_pb2.AddDatasetRequest, progress)
        call = self._datasets.AddDataset.future(iter(upload))
        try:
            with upload.answers(self.address):
                return call.result().dataset
        finally:
            call.cancel()  # in case the caller was interrupted

    def dataset(self, name: str) -> datasets_pb2.Dataset:
        """Returns the data set with this name."""
        return self._call(self._datasets.GetDataset, datasets_pb2.GetDatasetRequest(name=name)).dataset

    def datasets(self) -> Iterator[datasets_pb2.Dataset]:
        """Yields all data sets, in the order of their names."""
        for page in self._pages(self._datasets.ListDatasets, datasets_pb2.ListDatasetsRequest()):
            yield from page.datasets

    def delete_dataset(self, name: str) -> None:
        """Deletes a data set that no unfinished job uses."""
        self._call(self._datasets.DeleteDataset, datasets_pb2.DeleteDatasetRequest(name=name))
