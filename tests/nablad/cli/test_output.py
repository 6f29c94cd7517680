"""What is printed, on terminals of every width."""

import json
import math
import re

import pytest

from nablad.cli import output
from nablad.v1 import jobs_pb2
from nablad.v1.metrics_pb2 import Metrics

COLUMNS = ("JOB", "STATE", "COST")
ROWS = [("digits-1f2e3d4c", "running", "0.25"), ("digits-5a6b7c8d", "queued", "")]


@pytest.mark.parametrize(("width", "columns"), [(80, 3), (30, 3), (29, 2), (24, 2), (23, 1), (15, 1)])
def test_a_table_keeps_its_first_columns_whole_where_there_is_little_room(monkeypatch, capsys, width, columns):
    """A narrow terminal shows fewer columns; no line is wrapped and no id is cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    output.print_table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [list(filter(None, row[:columns])) for row in (COLUMNS, *ROWS)]


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (80, [["JOB", "VALIDATION COST", "STATE"]]),
        (39, [["JOB", "VALIDATION COST", "STATE"]]),
        (38, [["VALIDATION"], ["JOB", "COST", "STATE"]]),
        (34, [["VALIDATION"], ["JOB", "COST", "STATE"]]),
        (33, [["VALIDATION"], ["JOB", "COST"]]),
    ],
)
def test_headings_fold_before_columns_are_left_out(monkeypatch, capsys, width, heads):
    """A heading of two words takes no more room than its longer one where that lets all columns stay."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    output.print_table(("JOB", "VALIDATION COST", "STATE"), [("digits-1f2e3d", "0.25", "running")])
    *head, row = [re.split("  +", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert head == heads
    assert row == ["digits-1f2e3d", "0.25", "running"][: len(heads[-1])]


def test_an_id_wider_than_the_terminal_is_folded_and_not_cut(monkeypatch, capsys):
    """All characters of an id are there, on two lines if need be."""
    monkeypatch.setenv("COLUMNS", "10")
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    output.print_table(("JOB",), [("0123456789abcdef",)])
    assert "".join(capsys.readouterr().out.split()) == "JOB0123456789abcdef"


@pytest.mark.parametrize(
    ("size_bytes", "words"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_are_said_in_the_unit_that_fits(size_bytes, words):
    """A size has at most four digits before its point."""
    assert output.size(size_bytes) == words


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_json_is_valid_whatever_the_numbers_are(capsys, value):
    """JSON has no infinity and no NaN: they are texts, as in all JSON of protobuf, and read back as what they were."""
    progress = jobs_pb2.Progress(training=Metrics(cost=value), gradient_norm=value)
    output.print_json_array([progress])
    output.print_json(progress)
    for text in (output.json_line(progress), *capsys.readouterr().out.split("]\n")):
        read = json.loads(text + "]" * text.startswith("["), parse_constant=pytest.fail)
        figures = read[0] if isinstance(read, list) else read
        assert [str(float(each)) for each in (figures["training"]["cost"], figures["gradient_norm"])] == [
            str(value)
        ] * 2
