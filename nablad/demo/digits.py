"""The handwritten digits that come with nablad; README.md in this folder says where they are from."""

from pathlib import Path

FOLDER = Path(__file__).parent
JOB_FILE = FOLDER / "digits.yaml"
FILES = {"digits-train": FOLDER / "digits-train.npz", "digits-validation": FOLDER / "digits-validation.npz"}

# One held-out digit without its label, and that label.
ONE_FILE = FOLDER / "digits-one.csv"
ONE_LABEL = 7

_SIDE = 8
_DARKEST = 16
_SHADES = " ░▒▓█"


def draw(pixels: str) -> list[str]:
    """A digit as lines of block characters.

    Args:
        pixels: 64 grey values from 0 to 16, row by row, as a line of CSV.
    """
    values = [int(value) for value in pixels.split(",")]
    shades = [2 * _SHADES[value * (len(_SHADES) - 1) // _DARKEST] for value in values]
    return ["".join(shades[start : start + _SIDE]) for start in range(0, len(shades), _SIDE)]
