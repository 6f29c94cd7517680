"""Where MNIST is looked for, and how it is read."""

import gzip
from pathlib import Path

import pytest

from benchmarks import mnist_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """MNIST with two images for training and one for tests."""
    for (images, labels), rows in ((mnist_files.TRAIN, 2), (mnist_files.TEST, 1)):
        header = bytes([0, 0, 8, 3, 0, 0, 0, rows, 0, 0, 0, 28, 0, 0, 0, 28])
        (tmp_path / images).write_bytes(gzip.compress(header + bytes(range(rows)) * 784))
        (tmp_path / labels).write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, rows]) + bytes([9] * rows)))
    return tmp_path


def test_headers_are_not_taken_for_pixels(folder: Path) -> None:
    """Images are one row each, labels one number each, from the first byte behind the header on."""
    images, labels = mnist_files.read(folder, mnist_files.TRAIN)
    assert images.shape == (2, 784)
    assert images[0, :4].tolist() == [0, 1, 0, 1]
    assert labels.tolist() == [9, 9]


def test_a_named_folder_is_taken_before_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option wins over the variable, and the variable over the usual folders."""
    monkeypatch.setenv("NABLAD_MNIST", "/nowhere")
    assert mnist_files.find(folder) == folder
    monkeypatch.setenv("NABLAD_MNIST", str(folder))
    assert mnist_files.find(None) == folder


def test_a_missing_file_is_named(folder: Path) -> None:
    """A folder without all four files is refused with a sentence that says what to do."""
    (folder / mnist_files.TEST[0]).unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte\.gz.* are not in .*--mnist"):
        mnist_files.find(folder)
