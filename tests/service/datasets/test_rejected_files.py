"""What cannot be a data set is rejected with one sentence that names the file and the place, and nothing is kept.

The fixture `refused` holds the last part of that for every case.
"""

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nablad.v1.datasets_pb2 import DataFiles
from service.datasets import DatasetError, StagedFile, store_dataset

Bytes = Callable[..., bytes]
Refused = Callable[..., str]

X = np.arange(12, dtype=np.float64).reshape(4, 3)
Y = np.array([0, 1, 0, 1])


def shows(sentence: str, *parts: str) -> None:
    for part in parts:
        assert part in sentence


class TestIdx:
    X = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
    Y = np.array([0, 1, 2, 1, 0], np.uint8)

    def test_half(self, refused: Refused, idx_bytes: Bytes) -> None:
        """A file cut in half is called truncated, with what its header promises and what came."""
        content = idx_bytes(self.X)
        sentence = refused(("x-idx3-ubyte", content[:46]), ("y-idx1-ubyte", idx_bytes(self.Y)))
        shows(sentence, "'x-idx3-ubyte' is truncated", "5 × 4 × 3 numbers of 8 bits", "ends after 30", "copy it again")

    def test_every_length(self, refused: Refused, idx_bytes: Bytes, gz: Bytes) -> None:
        """A file cut at any length is refused as truncated or empty, plain and gzipped, features and targets."""
        x, y = idx_bytes(self.X), idx_bytes(self.Y)
        for length in range(len(x)):
            shows(refused(("x-idx3-ubyte", x[:length]), ("y-idx1-ubyte", y)), "'x-idx3-ubyte' is ", "copy it again")
            sentence = refused(("x-idx3-ubyte.gz", gz(x[:length])), ("y-idx1-ubyte", y))
            shows(sentence, "'x-idx3-ubyte.gz' is truncated", "copy it again")
        for length in range(len(y)):
            shows(refused(("x-idx3-ubyte", x), ("y-idx1-ubyte", y[:length])), "'y-idx1-ubyte' is ", "copy it again")

    def test_every_length_of_gzip(self, refused: Refused, idx_bytes: Bytes, gz: Bytes) -> None:
        """A gzip file cut at any length is refused, even in the checksum behind its last byte of data."""
        x, y = gz(idx_bytes(self.X)), idx_bytes(self.Y)
        for length in range(len(x)):
            sentence = refused(("x-idx3-ubyte.gz", x[:length]), ("y-idx1-ubyte", y))
            shows(sentence, "'x-idx3-ubyte.gz' is ", "copy it again")

    def test_every_byte_of_gzip(self, staged: Any, idx_bytes: Bytes, gz: Bytes, tmp_path: Path) -> None:
        """A gzip file with any one byte changed is refused, or the change did not reach the numbers."""
        x, y = gz(idx_bytes(self.X)), idx_bytes(self.Y)
        refusals = 0
        for place in range(len(x)):
            damaged = x[:place] + bytes([x[place] ^ 0x10]) + x[place + 1 :]
            files = staged(("x-idx3-ubyte.gz", damaged), ("y-idx1-ubyte", y))
            try:
                store_dataset(files, DataFiles(), tmp_path / str(place))
            except DatasetError:
                refusals += 1
            else:
                kept = np.load(tmp_path / str(place) / "features.npy")
                np.testing.assert_array_equal(kept, self.X.reshape(5, 12))
        assert refusals >= len(x) - 10  # gzip's header holds a time and a system, and deflate ends within a byte.

    @pytest.mark.parametrize("name", ["x-idx3-ubyte", "x-idx3-ubyte.gz"])
    def test_more_bytes(self, refused: Refused, idx_bytes: Bytes, gz: Bytes, name: str) -> None:
        """Bytes beyond what the header promises are refused, and a gzip bomb is not inflated to its end."""
        pack = gz if name.endswith("gz") else bytes
        content = pack(idx_bytes(self.X) + bytes(2**20))
        shows(refused((name, content), ("y-idx1-ubyte", idx_bytes(self.Y))), "more bytes follow")

    def test_lengths_differ(self, refused: Refused, idx_bytes: Bytes) -> None:
        """Features and labels of different data sets are named with their numbers of rows."""
        sentence = refused(("x-idx3-ubyte", idx_bytes(self.X)), ("y-idx1-ubyte", idx_bytes(self.Y[:4])))
        shows(sentence, "'y-idx1-ubyte' holds 4 targets", "'x-idx3-ubyte' holds 5 rows", "belong together")

    def test_wrong_order(self, refused: Refused, idx_bytes: Bytes) -> None:
        """Labels before features are told the right order."""
        sentence = refused(("y-idx1-ubyte", idx_bytes(self.Y)), ("x-idx3-ubyte", idx_bytes(self.X)))
        shows(sentence, "'y-idx1-ubyte' holds 5 numbers in one dimension", "the file of the features first")

    @pytest.mark.parametrize("content", [b"PNG and so on", bytes([0, 0, 7, 1]), bytes([0, 0, 8, 0])])
    def test_not_idx(self, refused: Refused, idx_bytes: Bytes, content: bytes) -> None:
        """Another magic number is shown, beside the one that was expected."""
        sentence = refused(("x-idx3-ubyte", content), ("y-idx1-ubyte", idx_bytes(self.Y)))
        shows(sentence, "is not an IDX file", content[:4].hex(" "))

    def test_gzip_and_ending(self, refused: Refused, idx_bytes: Bytes, gz: Bytes) -> None:
        """A gzip file without .gz, and .gz without a gzip file, are told apart."""
        x, y = idx_bytes(self.X), ("y-idx1-ubyte", idx_bytes(self.Y))
        shows(refused(("x-idx3-ubyte", gz(x)), y), "is gzipped, but its name does not end in .gz")
        shows(refused(("x-idx3-ubyte.gz", x), y), "is not gzipped, but its name ends in .gz")

    @pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
    def test_no_numbers(self, refused: Refused, idx_bytes: Bytes, shape: tuple[int, int]) -> None:
        """A file without rows, or with empty ones, is no data set."""
        shows(
            refused(("x-idx2-ubyte", idx_bytes(np.zeros(shape, np.uint8))), ("y-idx1-ubyte", idx_bytes(self.Y))),
            "no rows of numbers",
            str(shape),
        )

    @pytest.mark.parametrize(
        ("lengths", "part"),
        [((2**32 - 1, 2**32 - 1), "nodes"), ((2**32 - 1, 2**19), "keeps at most 1,000,000,000 bytes")],
    )
    def test_huge_promise(self, refused: Refused, gz: Bytes, lengths: tuple[int, int], part: str) -> None:
        """A header that promises exabytes takes no memory and no disk."""
        header = bytes([0, 0, 8, 2]) + b"".join(length.to_bytes(4, "big") for length in lengths)
        labels = bytes([0, 0, 8, 1]) + lengths[0].to_bytes(4, "big")
        shows(refused(("x-idx2-ubyte.gz", gz(header)), ("y-idx1-ubyte.gz", gz(labels))), part)


class TestNumpy:
    def test_bomb(self, refused: Refused) -> None:
        """An .npz of 188 bytes or so that claims 8 TiB is refused by its size, in both places that can claim it."""
        header = BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**31, 512)})
        archive = BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
            members.writestr("x.npy", header.getvalue())
            members.writestr("y.npy", header.getvalue())
        sentence = refused(("bomb.npz", archive.getvalue()))
        shows(sentence, "'x.npy' in 'bomb.npz' is truncated", "8,796,093,022,208 bytes", "only 0 follow")

    def test_forged_member_size(self, refused: Refused, npz_bytes: Bytes) -> None:
        """Sizes in the archive's list of members that its members do not have are refused."""
        content = npz_bytes(compressed=True, x=X, y=Y)
        true, forged = (128 + X.nbytes).to_bytes(4, "little"), (2**31).to_bytes(4, "little")
        at = content.rindex(true, 0, content.rindex(b"x.npy"))
        sentence = refused(("x.npz", content[:at] + forged + content[at + 4 :]), limit_bytes=2**33)
        shows(sentence, "'x.npy' in 'x.npz' is damaged", "2,147,483,520 follow")

    def test_limit(self, refused: Refused, npz_bytes: Bytes) -> None:
        """What inflates to more than the limit is refused before it is inflated."""
        content = npz_bytes(compressed=True, x=np.zeros((1000, 1000)), y=np.zeros(1000))
        shows(refused(("x.npz", content), limit_bytes=10**6), "at most 1,000,000 bytes")

    def test_pickles(self, refused: Refused, npz_bytes: Bytes, npy_bytes: Bytes) -> None:
        """Pickled objects are never loaded, from neither format."""
        objects = np.array([[{"a": 1}]], dtype=object)
        shows(refused(("x.npz", npz_bytes(x=objects, y=Y))), "'x.npy' in 'x.npz' holds pickled Python objects")
        shows(refused(("x.npy", npy_bytes(objects)), ("y.npy", npy_bytes(Y))), "'x.npy' holds pickled Python objects")

    @pytest.mark.parametrize(
        "array", [X.astype(complex), X.astype(str), X.astype("datetime64[s]"), np.zeros((4, 3), [("a", "f4")])]
    )
    def test_not_real(self, refused: Refused, npy_bytes: Bytes, array: Any) -> None:
        """Arrays of anything but real numbers are refused with their type."""
        shows(refused(("x.npy", npy_bytes(array)), ("y.npy", npy_bytes(Y))), "'x.npy' holds", "save real numbers")

    def test_keys(self, refused: Refused, npz_bytes: Bytes) -> None:
        """An archive without a pair of known names is told the names that it has and those that are known."""
        shows(refused(("x.npz", npz_bytes(pixels=X, y=Y))), "holds 'pixels', 'y'", "x/y, X/y, features/targets")

    def test_two_pairs(self, refused: Refused, npz_bytes: Bytes) -> None:
        """An archive with two pairs (train and test) is not guessed about."""
        shows(refused(("x.npz", npz_bytes(x_train=X, y_train=Y, x_test=X, y_test=Y))), "exactly one pair")

    def test_lengths(self, refused: Refused, npy_bytes: Bytes) -> None:
        """A .npy that is cut off, or goes on behind its array, is refused with both sizes."""
        x, y = npy_bytes(X), ("y.npy", npy_bytes(Y))
        shows(refused(("x.npy", x[:-10]), y), "truncated", "4 × 3 numbers of type float64 (96 bytes)", "only 86 follow")
        shows(refused(("x.npy", x + b"\0"), y), "damaged", "97 follow")

    @pytest.mark.parametrize("length", [0, 3, 8, 30, 127])
    def test_cut_header(self, refused: Refused, npy_bytes: Bytes, length: int) -> None:
        """A .npy cut within its header, or empty, is told from one that is whole."""
        shows(refused(("x.npy", npy_bytes(X)[:length]), ("y.npy", npy_bytes(Y))), "'x.npy' does not start with")

    @pytest.mark.parametrize(
        "header", ["-" * 9000 + "1", "(" * 9000, "{'descr':", "{'descr':'<f8','fortran_order':False,'shape':(-1,-12)}"]
    )
    def test_hostile_header(self, refused: Refused, npy_bytes: Bytes, header: str) -> None:
        """A header made to break Python's parser, or with lengths below 0, is refused."""
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + X.tobytes()
        shows(refused(("x.npy", content), ("y.npy", npy_bytes(Y))), "'x.npy'")

    def test_not_an_archive(self, refused: Refused, npz_bytes: Bytes) -> None:
        """An .npz that is no zip file, or only part of one, is refused."""
        shows(refused(("x.npz", b"no archive")), "'x.npz' is not a whole .npz archive")
        shows(refused(("x.npz", npz_bytes(x=X, y=Y)[:-30])), "'x.npz' is not a whole .npz archive")

    def test_forged_list_of_members(self, directory: Path, tmp_path: Path) -> None:
        """A list of members of 2 GiB is not read into memory."""
        size = 2**31
        path = tmp_path / "0"
        with path.open("wb") as stream:
            stream.truncate(size)
            stream.seek(size)
            stream.write(b"PK\x05\x06" + bytes(8) + size.to_bytes(4, "little") + bytes(6))
        with pytest.raises(DatasetError, match="its list of members takes 2,147,483,648 bytes"):
            store_dataset([StagedFile("x.npz", path)], DataFiles(), directory)

    def test_other_compression(self, refused: Refused, npy_bytes: Bytes) -> None:
        """Members packed by a method whose inflation cannot be bounded are refused."""
        archive = BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as members:
            members.writestr("x.npy", npy_bytes(X))
            members.writestr("y.npy", npy_bytes(Y))
        shows(refused(("x.npz", archive.getvalue())), "packed in a way that NumPy does not use")

    @pytest.mark.parametrize("shape", [(), (12,)])
    def test_dimensions(self, refused: Refused, npy_bytes: Bytes, shape: tuple[int, ...]) -> None:
        """Features need rows and columns."""
        shows(refused(("x.npy", npy_bytes(np.ones(shape))), ("y.npy", npy_bytes(Y))), "'x.npy' holds")

    def test_target_dimensions(self, refused: Refused, npy_bytes: Bytes) -> None:
        """Targets have no more than rows and columns."""
        sentence = refused(("x.npy", npy_bytes(X)), ("y.npy", npy_bytes(np.ones((4, 3, 2)))))
        shows(sentence, "'y.npy' holds 4 × 3 × 2 numbers", "targets have one dimension, or two")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, refused: Refused, npy_bytes: Bytes, value: float) -> None:
        """A number that is not finite is named with its row and column, in features and in targets."""
        x, y = X.copy(), Y.astype(float)
        x[2, 1] = y[3] = value
        shows(refused(("x.npy", npy_bytes(x)), ("y.npy", npy_bytes(Y))), "'x.npy' holds", "row 2, column 1")
        shows(refused(("x.npy", npy_bytes(X)), ("y.npy", npy_bytes(y))), "'y.npy' holds", "row 3, column 0")

    def test_not_finite_in_a_later_block(self, refused: Refused, npy_bytes: Bytes) -> None:
        """The row is counted over all blocks."""
        x = np.zeros((300_000, 2), np.float32)
        x[299_999, 1] = np.nan
        shows(refused(("x.npy", npy_bytes(x)), ("y.npy", npy_bytes(np.zeros(300_000)))), "row 299,999, column 1")

    def test_beyond_float64(self, refused: Refused, npy_bytes: Bytes) -> None:
        """A longer float that float64 cannot hold is refused, not stored as infinite."""
        x = X.astype(np.longdouble)
        x[1, 1] = np.longdouble(10) ** 400
        if np.isinf(x[1, 1]):
            pytest.skip("longdouble is float64 here")
        shows(refused(("x.npy", npy_bytes(x)), ("y.npy", npy_bytes(Y))), "row 1, column 1")


class TestCsv:
    def test_word(self, refused: Refused) -> None:
        """A word in a number column is named with its line and its column."""
        sentence = refused(("set.csv", b"age,height,label\n1,2,0\n\n3,tall,1\n"))
        shows(sentence, "'set.csv' holds 'tall' in line 4, column 1 ('height')", "a number with a decimal point")

    @pytest.mark.parametrize("word", ["", " ", "1_0", "1,5x", "0x10", "--1", "NA", "1e", "é"])
    def test_words(self, refused: Refused, word: str) -> None:
        """What is no number as C writes it is refused, and so is a gap."""
        shows(refused(("set.csv", f"1;2;0\n3;{word};1\n".encode())), f"holds '{word}' in line 2, column 1")

    def test_word_in_first_line(self, refused: Refused) -> None:
        """A first line with words and numbers is a row and not a header."""
        shows(refused(("set.csv", b"5.1,red,0\n4.9,3,1\n")), "holds 'red' in line 1, column 1")

    @pytest.mark.parametrize("word", ["nan", "inf", "-Infinity", "1e999"])
    def test_not_finite(self, refused: Refused, word: str) -> None:
        """A number that is not finite is named with its line and its column."""
        shows(refused(("set.csv", f"a,b\n1,0\n{word},1\n".encode())), "in line 3, column 0 ('a')", "finite")

    @pytest.mark.parametrize(("line", "columns"), [("3,4", 2), ("3,4,5,6", 4), ("3", 1)])
    def test_columns_differ(self, refused: Refused, line: str, columns: int) -> None:
        """A line with another number of columns is named."""
        shows(refused(("set.csv", f"1,2,0\n{line}\n".encode())), f"has {columns} columns in line 2, but 3 in its first")

    def test_column_names(self, refused: Refused) -> None:
        """A target column that is not there, or there twice, is answered with the choices."""
        text = b"age,height,age\n1,2,0\n"
        shows(refused(("set.csv", text), target_column="hight"), "no column 'hight'", "did you mean 'height'?")
        shows(refused(("set.csv", text), target_column="3"), "no column '3'", "a number from 0 to 2")
        shows(refused(("set.csv", text), target_column="age"), "2 columns named 'age'")
        shows(refused(("set.csv", b"1,2,0\n"), target_column="age"), "no header line", "a number from 0 to 2")

    @pytest.mark.parametrize(
        ("text", "part"),
        [
            (b"", "is empty"),
            (b"\n \n\n", "only blank lines"),
            (b"a,b\n", "no rows"),
            (b"1\n2\n", "a single column"),
            (b"1,2\n\xff\xfe,3\n", "line 2 does not decode"),
        ],
    )
    def test_no_table(self, refused: Refused, text: bytes, part: str) -> None:
        """Files without rows, with one column or of another encoding are refused."""
        shows(refused(("set.csv", text)), "'set.csv'", part)

    def test_long_quoted_word(self, refused: Refused) -> None:
        """A quoted word that is longer than Python's reader takes is refused like any other word."""
        shows(refused(("set.csv", b'1,2\n"' + b"x" * 200_000 + b'",3\n')), "in line 2, column 0", "…'")

    def test_limit(self, refused: Refused, gz: Bytes) -> None:
        """A gzipped file that inflates to more text than the limit is refused on the way."""
        shows(refused(("set.csv.gz", gz(b"1,2\n" * 100_000)), limit_bytes=100_000), "more than 100,000 bytes of text")

    def test_truncated_gzip(self, refused: Refused, gz: Bytes) -> None:
        """A gzipped file that is cut off is refused, not read as far as it goes."""
        shows(refused(("set.csv.gz", gz(b"1,2\n" * 100)[:-9])), "truncated")


class TestFiles:
    def test_number_of_files(self, refused: Refused, npy_bytes: Bytes, npz_bytes: Bytes) -> None:
        """Each format is told how many files it wants."""
        x, y = ("x.npy", npy_bytes(X)), ("y.npy", npy_bytes(Y))
        archive = ("x.npz", npz_bytes(x=X, y=Y))
        shows(refused(), "No file was given")
        shows(refused(x), "Two files are expected", "1 came")
        shows(refused(x, y, y), "3 came")
        shows(refused(archive, y), "'y.npy' came with it")
        shows(refused(x, archive), "'x.npz' cannot be combined")

    def test_unknown_ending(self, refused: Refused) -> None:
        """A name of no known ending is answered with those that are known."""
        shows(refused(("data.parquet", b"")), "'data.parquet'", "*.npz, *.npy, *.csv")

    def test_target_column_elsewhere(self, refused: Refused, npz_bytes: Bytes) -> None:
        """A target column is for CSV alone."""
        shows(refused(("x.npz", npz_bytes(x=X, y=Y)), target_column="y"), "only CSV files have one")

    def test_names_are_only_shown(self, refused: Refused) -> None:
        """A name with a path, control characters and great length is never opened and comes out on one line."""
        sentence = refused(("../../etc/\x1b[31mpass\0wd\n" + "x" * 500 + ".csv", b"1,a\n"))
        shows(sentence, "'../../etc/?[31mpass?wd?xxx", "…'")
        assert len(sentence) < 500

    def test_no_room(self, refused: Refused, npy_bytes: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the disk has no room for is refused before it is written."""
        usage = type("Usage", (), {"free": 100})()
        monkeypatch.setattr("service.datasets.limits.shutil.disk_usage", lambda _: usage)
        shows(refused(("x.npy", npy_bytes(X)), ("y.npy", npy_bytes(Y))), "160 bytes", "100 bytes free")
