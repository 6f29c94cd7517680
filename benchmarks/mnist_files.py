"""MNIST as it is published: four gzipped IDX files in one folder."""

import gzip
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["TEST", "TRAIN", "FirstRows", "find", "read"]

TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")

_VARIABLE = "NABLAD_MNIST"
_ROOT = Path(__file__).parents[1]
# Where the files are looked for when neither the option nor the variable names a folder.
_USUAL_FOLDERS = (_ROOT / "data" / "mnist", _ROOT.parent / "shared" / "data" / "mnist")

_IMAGES_HEADER_BYTES = 16
_LABELS_HEADER_BYTES = 8
_PIXELS = 28 * 28


def find(folder: Path | None) -> Path:
    """The folder with the four files.

    Args:
        folder: Where they are; None: in the folder that NABLAD_MNIST names, else in a usual one.

    Raises:
        FileNotFoundError: Not all of them are there.
    """
    named = folder or os.environ.get(_VARIABLE)
    candidates = [Path(named)] if named else list(_USUAL_FOLDERS)
    for candidate in candidates:
        if all((candidate / name).is_file() for name in TRAIN + TEST):
            return candidate
    looked = " nor in ".join(str(candidate) for candidate in candidates)
    raise FileNotFoundError(
        f"MNIST's files {', '.join(TRAIN + TEST)} are not in {looked}; name their folder with --mnist or "
        f"{_VARIABLE}. Nothing is downloaded."
    )


def read(folder: Path, files: tuple[str, str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (rows, 784) and labels (rows,) of TRAIN or TEST."""
    images, labels = (gzip.decompress((folder / name).read_bytes()) for name in files)
    return (
        np.frombuffer(images, np.uint8, offset=_IMAGES_HEADER_BYTES).reshape(-1, _PIXELS),
        np.frombuffer(labels, np.uint8, offset=_LABELS_HEADER_BYTES),
    )


class FirstRows:
    """The first rows of MNIST's training data as two .npy files, for whoever reads no IDX."""

    def __init__(self, mnist: Path, folder: Path) -> None:
        """Reads the data once.

        Args:
            mnist: Where the IDX files are.
            folder: For the files that are made of them.
        """
        self._images, self._labels = read(mnist, TRAIN)
        self._folder = folder

    def folder(self, rows: int) -> Path:
        """Holds images.npy (rows, 784) and labels.npy (rows,), as they were published."""
        folder = self._folder / str(rows)
        if not folder.exists():
            folder.mkdir()
            np.save(folder / "images.npy", self._images[:rows])
            np.save(folder / "labels.npy", self._labels[:rows])
        return folder

    def files(self, rows: int) -> tuple[Path, Path]:
        """Features and targets, as a data set of the service is made of them."""
        return self.folder(rows) / "images.npy", self.folder(rows) / "labels.npy"
