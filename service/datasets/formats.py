"""Formats of data sets: opens the files that a client sent with the reader of their format."""

from collections.abc import Sequence
from pathlib import Path

from nablad.v1.datasets_pb2 import DataFiles
from service.datasets import idx
from service.datasets.csv_file import CsvFile
from service.datasets.csv_layout import target_number
from service.datasets.numpy_files import NpyFile, open_npz
from service.datasets.samples import Samples, Source, side_by_side, split
from service.datasets.staged_files import DatasetError, StagedFile


def open_samples(
    files: Sequence[StagedFile], options: DataFiles, scratch: Path, limit_bytes: int, features: int | None = None
) -> Samples:
    """Opens the files, and checks all that is known without reading their numbers.

    Args:
        files: One .npz, one .csv, or features and targets in two files, each .npy or IDX.
        options: Options of the client.
        scratch: An empty directory for unpacked files.
        limit_bytes: Largest size when unpacked, in bytes.
        features: Number of features of the model that predicts them; then targets are optional. None for a data set
            to be registered.

    Raises:
        DatasetError: The files are not in a known format, or do not belong together.
    """
    if not files:
        raise DatasetError("No file was given, but a data set needs one .npz or .csv file, or two of .npy or IDX.")
    endings = [_format(file) for file in files]
    if endings[0] == "csv":
        return _open_csv(_only(files), options, limit_bytes, features)
    if options.target_column:
        raise DatasetError(
            f"A target column was given, but only CSV files have one, and {files[0].name} is none; leave it out."
        )
    if endings[0] == "npz":
        samples = side_by_side(*open_npz(_only(files), scratch, limit_bytes, targets_required=features is None))
    else:
        samples = _open_arrays(files, targets_required=features is None)
    if features is not None and samples.features != features:
        raise DatasetError(
            f"{samples.name} holds {samples.features:,} features in each row, but the model takes {features:,}; "
            f"give rows like those it was trained with."
        )
    return samples


def _open_csv(file: StagedFile, options: DataFiles, limit_bytes: int, features: int | None) -> Samples:
    table = CsvFile(file, limit_bytes)
    if features is None or table.layout.columns == features + 1:
        return split(table, target_number(table.name, table.layout, options.target_column))
    if table.layout.columns == features:
        return split(table, None)
    raise DatasetError(
        f"{table.name} has {table.layout.columns:,} columns, but the model takes {features:,} features; "
        f"give {features:,} columns, or {features + 1:,} with the target."
    )


def _open_arrays(files: Sequence[StagedFile], targets_required: bool) -> Samples:
    if len(files) > 2 or (targets_required and len(files) < 2):
        wanted = "two files are expected" if targets_required else "one or two files are expected"
        raise DatasetError(
            f"{wanted.capitalize()}, features and then targets, but {len(files)} came, the first of them "
            f"{files[0].name}; give both in one call."
        )
    sources = [_open_array(file) for file in files]
    return side_by_side(sources[0], sources[1] if len(sources) > 1 else None)


def _open_array(file: StagedFile) -> Source:
    kind = _format(file)
    if kind not in ("npy", "idx"):
        raise DatasetError(f"{file.name} cannot be combined with other files; give it alone.")
    return NpyFile(file.name, file.path) if kind == "npy" else idx.IdxFile(file)


def _only(files: Sequence[StagedFile]) -> StagedFile:
    if len(files) > 1:
        raise DatasetError(
            f"{files[0].name} is to hold features and targets both, but {files[1].name} came with it; give one of them."
        )
    return files[0]


def _format(file: StagedFile) -> str:
    """Returns the format of a file, by the ending of its name."""
    filename = file.filename.lower()
    for ending, kind in ((".npz", "npz"), (".npy", "npy"), (".csv", "csv"), (".csv.gz", "csv")):
        if filename.endswith(ending):
            return kind
    if idx.FILENAME.fullmatch(filename):
        return "idx"
    raise DatasetError(
        f"The format of {file.name} is not known by its ending; name it *.npz, *.npy, *.csv, *.csv.gz, or for IDX "
        f"*-idx3-ubyte, *.idx or the same with .gz."
    )
