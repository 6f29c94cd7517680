"""Layout of a CSV file, from its first line: the delimiter, and the names of the columns."""

import csv
import difflib
from dataclasses import dataclass

from service.datasets.staged_files import DatasetError, quoted


@dataclass(frozen=True)
class CsvLayout:
    """Layout of the lines of a CSV file.

    Attributes:
        delimiter: Character between the words of a line.
        columns: Number of words in each line.
        header: Names of the columns; empty when the file has no header line.
    """

    delimiter: str
    columns: int
    header: tuple[str, ...]

    def words(self, line: str) -> list[str]:
        """Returns the words of one line, without the quotes around them."""
        if '"' not in line:
            return line.split(self.delimiter)
        try:
            return next(csv.reader([line], delimiter=self.delimiter))
        except csv.Error:  # A word is too long. It is no number, so the caller rejects it.
            return line.split(self.delimiter)

    def column(self, number: int) -> str:
        """Returns a column's number and name for messages."""
        return f"column {number} ({quoted(self.header[number])})" if self.header else f"column {number}"


def layout_of(first_line: str) -> CsvLayout:
    """Returns the layout that the first line of a file implies.

    The delimiter is the tab where the line has one, else the semicolon where it has one, else the comma. The line is a
    header when its words are not numbers, apart from those that repeat the number of their column (as pandas names
    columns without a name): ``age,height,label`` and ``0,1,2,label`` are headers, ``5.1,3.5,red`` is not.
    """
    delimiter = next((candidate for candidate in "\t;" if candidate in first_line), ",")
    words = CsvLayout(delimiter, 0, ()).words(first_line)
    others = [word for column, word in enumerate(words) if word.strip() != str(column)]
    is_header = bool(others) and not any(is_number(word) for word in others)
    return CsvLayout(delimiter, len(words), tuple(word.strip() for word in words) if is_header else ())


def is_number(word: str) -> bool:
    """Returns whether a word is a number in C's syntax, without the underscores that Python allows."""
    try:
        float(word)
    except ValueError:
        return False
    return "_" not in word


def target_number(name: str, layout: CsvLayout, target_column: str) -> int:
    """Returns the number of the target column, from 0.

    Args:
        name: Name of the file, as messages show it.
        layout: Layout of the file.
        target_column: Name of the column in the header or, if no name matches, its number. Empty: the last column.

    Raises:
        DatasetError: There is no such column, or more than one.
    """
    if not target_column:
        return layout.columns - 1
    if layout.header.count(target_column) > 1:
        raise DatasetError(
            f"{name} has {layout.header.count(target_column)} columns named {quoted(target_column)}; "
            f"give the number of the one that holds the target, from 0 to {layout.columns - 1}."
        )
    if target_column in layout.header:
        return layout.header.index(target_column)
    if target_column.isascii() and target_column.isdigit() and int(target_column[:9]) < layout.columns:
        return int(target_column[:9])
    raise DatasetError(f"{name} has no column {quoted(target_column)}; {_choices(layout, target_column)}.")


def _choices(layout: CsvLayout, target_column: str) -> str:
    numbers = f"a number from 0 to {layout.columns - 1}"
    if not layout.header:
        return f"it has no header line, so give {numbers}"
    close = difflib.get_close_matches(target_column, layout.header, n=1)
    if close:
        return f"did you mean {quoted(close[0])}? Give a name from its header line, or {numbers}"
    names = ", ".join(quoted(name, 30) for name in layout.header[:10])
    return f"give a name from its header line ({names}{', …' if layout.columns > 10 else ''}), or {numbers}"
