"""CSV files of numbers, plain or gzipped, in UTF-8."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from service.datasets.csv_layout import is_number, layout_of
from service.datasets.limits import MAXIMUM_COLUMNS, check_shape
from service.datasets.staged_files import DatasetError, DatasetTooLargeError, StagedFile, open_inflated, quoted

#: The longest line that is read: the most columns there can be, with 24 letters and a delimiter each.
_LINE_BYTES = 25 * MAXIMUM_COLUMNS


class CsvFile:
    """A CSV file with one row per line, all columns numbers; see `Source`.

    The file is read twice: first for its layout and number of lines, then for its numbers.

    Args:
        file: The staged file.
        limit_bytes: Largest size of the inflated text, in bytes.

    Raises:
        DatasetError: The file has no numbers, is not text, or does not inflate.
        DatasetTooLargeError: The file has more text than the limit, or too many columns.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, file: StagedFile, limit_bytes: int) -> None:
        self.name = file.name
        self._file = file
        self._limit_bytes = limit_bytes
        lines = self._lines()
        _, first_line = next(lines, (0, None))
        if first_line is None:
            raise DatasetError(
                f"{self.name} holds only blank lines, but lines of numbers are expected; check how it was made."
            )
        self.layout = layout_of(first_line)
        rows = sum(1 for _ in lines) + (not self.layout.header)
        self.shape = (rows, self.layout.columns)
        check_shape(self.name, self.shape)

    def blocks(self, rows: int) -> Iterator[NDArray[np.float64]]:
        """See `Source.blocks`. Checks here that every number is finite, because only here the line number is known."""
        block = np.empty((min(rows, self.shape[0]), self.layout.columns))
        numbers: list[int] = []
        for number, line in self._data_lines():
            block[len(numbers)] = self._row(number, line)
            numbers.append(number)
            if len(numbers) == rows:
                yield self._require_finite(block, numbers)
                numbers.clear()
        if numbers:
            yield self._require_finite(block[: len(numbers)], numbers)

    def _row(self, number: int, line: str) -> list[float]:
        words = self.layout.words(line)
        if len(words) != self.layout.columns:
            raise DatasetError(
                f"{self.name} has {len(words):,} columns in line {number:,}, but {self.layout.columns:,} in its first "
                f"line; give every line the same number."
            )
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise self._not_a_number(number, words) from error
        if "_" in line:
            raise self._not_a_number(number, words)
        return row

    def _not_a_number(self, number: int, words: list[str]) -> DatasetError:
        column = next(column for column, word in enumerate(words) if not is_number(word))
        return DatasetError(
            f"{self.name} holds {quoted(words[column], 40)} in line {number:,}, {self.layout.column(column)}, where a "
            f"number with a decimal point is expected; columns are counted from 0. Correct or drop it."
        )

    def _require_finite(self, block: NDArray[np.float64], numbers: list[int]) -> NDArray[np.float64]:
        finite = np.isfinite(block)
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise DatasetError(
                f"{self.name} holds {block[row, column]} in line {numbers[row]:,}, {self.layout.column(int(column))}, "
                f"where a finite number is expected; columns are counted from 0. Fill the gap or drop the line."
            )
        return block

    def _data_lines(self) -> Iterator[tuple[int, str]]:
        lines = self._lines()
        if self.layout.header:
            next(lines)
        return lines

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Yields the lines that are not blank, without line ends, each with its number from 1."""
        number = total_bytes = 0
        with open_inflated(self._file) as stream:
            while line := stream.readline(_LINE_BYTES):
                number += 1
                total_bytes += len(line)
                self._require_within_limits(number, len(line), total_bytes)
                text = self._decoded(number, line)
                if text.strip(" \r\n"):
                    yield number, text.rstrip("\r\n")

    def _decoded(self, number: int, line: bytes) -> str:
        try:
            return line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{self.name} is not text in UTF-8: line {number:,} does not decode; save it as CSV in UTF-8."
            ) from error

    def _require_within_limits(self, number: int, line_bytes: int, total_bytes: int) -> None:
        if line_bytes == _LINE_BYTES:
            raise DatasetTooLargeError(
                f"{self.name} has a line {number:,} of more than {_LINE_BYTES:,} bytes; give one row in each line."
            )
        if total_bytes > self._limit_bytes:
            raise DatasetTooLargeError(
                f"{self.name} holds more than {self._limit_bytes:,} bytes of text, the most that the service reads; "
                f"register fewer rows, or raise the service's limit."
            )
