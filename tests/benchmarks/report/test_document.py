"""The whole document, from the dictionary that the results file holds."""

from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.report import markdown
from benchmarks.requirements import verdicts


def _spread(median: float) -> dict[str, float]:
    return {"median": median, "minimum": median / 2, "maximum": 2 * median}


@pytest.fixture
def results() -> dict[str, Any]:
    """Of one work, and nothing else."""
    job = {
        "start_s": _spread(0.9),
        "step_us": 1600.0,
        "worker_us": {"computing": 1250.0, "waiting": 350.0},
        "server_us": {"waiting": 1300.0, "reducing": 200.0},
        "transports": [{"shared": 2}, {}, {"shared": 2}],
    }
    work = {
        "title": "784-100-50-10, batch 500",
        "rows": 60_000,
        "epochs": 5,
        "learning_rate": 0.5,
        "samples_per_second": {"numpy": _spread(200_000), "blas-limit": _spread(450_000), "service": _spread(310_000)},
        "last_cost": 0.5,
        "cost_differences": {"numpy": 0.0, "service": 3e-8},
        "jobs": {"service": job},
    }
    measured: dict[str, Any] = {
        "date": "2026-01-01", "machine": {"CPUs": "2"}, "repetitions": 3, "speed": {"paper-500": work}, "calm": [],
        "left_out": [],
    }  # fmt: skip
    return measured | {"requirements": [asdict(one) | {"outcome": one.outcome} for one in verdicts(measured)]}


def test_a_miss_is_said_plainly(results: dict[str, Any]) -> None:
    """Beside what was to be reached and aimed at; what was not measured is not called missed."""
    text = markdown(results)
    assert "Met: 1 of 18. Missed: 1." in text
    row = next(line for line in text.splitlines() if "batch 500: against numpy by hand, 1 thread" in line)
    assert [cell.strip() for cell in row.split("|")][2:-1] == ["1.55 ×", "≥ 1.60 ×", "≥ 1.85 ×", "MISSED"]


def test_everybody_stands_beside_the_service(results: dict[str, Any]) -> None:
    """With the spread, and how many times as fast the service is."""
    row = next(line for line in markdown(results).splitlines() if line.startswith("| numpy by hand, 1 thread "))
    assert "200,000 (100,000–400,000) |    1.55 × |               – |" in row


def test_contestants_that_were_left_out_are_named(results: dict[str, Any]) -> None:
    """By their titles; a run of all says nothing."""
    assert "Left out" not in markdown(results)
    text = markdown(results | {"left_out": ["torch-1", "scikit-learn"]})
    assert "Left out of this run: torch, 1 thread; scikit-learn, 1 thread." in text


def test_worker_and_parameter_server_stand_side_by_side(results: dict[str, Any]) -> None:
    """One column for every activity of either, and how the workers were reached."""
    lines = markdown(results).splitlines()
    heads = next(line for line in lines if line.startswith("| job  "))
    assert [cell.strip() for cell in heads.split("|")][3:-1] == ["a step", "computing", "waiting", "reducing"]
    worker, server = (line for line in lines if "batch 500: nablad" in line)
    assert [cell.strip() for cell in worker.split("|")][2:-1] == ["a worker", "1,600", "1,250", "350", ""]
    assert [cell.strip() for cell in server.split("|")][2:-1] == ["parameter server", "1,600", "", "1,300", "200"]
    assert "nablad, 2 workers: 4 shared" in markdown(results)


def test_what_was_left_out_has_no_section(results: dict[str, Any]) -> None:
    """And what was measured has one."""
    assert "## Memory" not in markdown(results)
    process = {"largest": {"peak": 140e6, "proportional": 90e6}, "limit": 150e6}
    memory = {"title": "x", "weights_bytes": 7.5e6, "rows_bytes": 47e6, "processes": {"worker": process}}
    assert "| worker  |      140 |         150 |               90 |" in markdown(results | {"memory": memory})
