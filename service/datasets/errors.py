"""What can be wrong with the files of a data set.

DatasetError
└── DatasetTooLargeError     more than the service takes, or than its disk holds
"""

import unicodedata


class DatasetError(ValueError):
    """The files cannot become a data set.

    The message is one sentence: what was expected, what came, what to do. It names files as the client named them.
    """


class DatasetTooLargeError(DatasetError):
    """The files hold more than the service takes, or than its disk has room for."""


def shown(text: str, longest: int = 80) -> str:
    """``text`` as it may stand in a message: quoted, on one line, without control characters, not too long."""
    clean = "".join("?" if unicodedata.category(letter)[0] == "C" else letter for letter in text[: longest + 1])
    return f"'{clean}'" if len(clean) <= longest else f"'{clean[:longest]}…'"
