"""The predictions as a picture."""

from pathlib import Path

import pytest

from benchmarks.scale.quantities import Parts

pytest.importorskip("matplotlib", reason="only benchmarks need it")


def test_a_picture_is_drawn(parts: Parts, tmp_path: Path) -> None:
    """A PNG, whatever the parts are."""
    from benchmarks.scale.plot import draw  # noqa: PLC0415 (needs matplotlib)

    draw(parts, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
