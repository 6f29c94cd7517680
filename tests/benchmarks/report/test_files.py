"""Reports and the raw data beside them."""

import json
from pathlib import Path

from benchmarks.figures import Measurement
from benchmarks.report.files import write_report


def test_raw_data_lies_beside_the_report(tmp_path: Path) -> None:
    """Dataclasses become objects; the report ends with a newline."""
    write_report("speed", "# Speed", {"runs": [Measurement([2.0], [0.5])]}, tmp_path)
    assert (tmp_path / "speed.md").read_text() == "# Speed\n"
    raw = json.loads((tmp_path / "speed.json").read_text())
    assert raw == {"runs": [{"samples_per_second": [2.0], "costs": [0.5]}]}
