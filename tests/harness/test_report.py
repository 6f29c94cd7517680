"""The table of a robustness run."""

import json

from tests.harness.campaign import Result
from tests.harness.report import Report
from tests.harness.scenarios import SCENARIOS
from tests.harness.works import Arithmetic, Work

SPARING = next(each for each in SCENARIOS if each.spares_others)
SWEEPING = next(each for each in SCENARIOS if not each.spares_others)


def _result(scenario: str, seed: int, broken: dict[str, list[str]], attempts: int = 1) -> Result:
    return Result(scenario, seed, Work(Arithmetic("adam", 45)), 1, attempts, 0.5 + seed, 3.0, broken)


def _report(*results: Result) -> Report:
    return Report("2030-01-02", {"CPUs": "2"}, 3.0, [SPARING, SWEEPING], results)


def _cells(report: Report, name: str) -> list[str]:
    (line,) = [line for line in report.markdown().splitlines() if line.startswith(f"| `{name}`")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_counts_what_held() -> None:
    """Runs, faults, each invariant, the longest stall, and the attempts by their number."""
    report = _report(
        _result(SPARING.name, 1, {"A": [], "E": ["too slow"]}),
        _result(SPARING.name, 2, {"A": []}, attempts=2),
        _result(SWEEPING.name, 1, {}),
    )
    assert _cells(report, SPARING.name)[2:] == ["2", "2", "2", "2", "2", "2", "1", "2.5", "1 × 1, 2 × 1"]
    assert _cells(report, SWEEPING.name)[-3:] == ["–", "1.5", "1 × 1"]


def test_what_did_not_hold_is_told_with_its_seed() -> None:
    """And only then is there anything to tell."""
    report = _report(_result(SPARING.name, 7, {"B": ["other bits"]}), _result(SWEEPING.name, 1, {}))
    assert not report.holds
    assert f"- `{SPARING.name}` seed 7, B: other bits" in report.markdown()
    whole = _report(_result(SPARING.name, 7, {"B": []}), _result(SWEEPING.name, 1, {}))
    assert whole.holds
    assert "did not hold" not in whole.markdown()


def test_the_results_can_be_read_by_programs() -> None:
    """Every run with its seed and its job."""
    report = _report(_result(SPARING.name, 7, {"B": []}), _result(SWEEPING.name, 1, {}))
    first, _ = json.loads(json.dumps(report.json()))["results"]
    assert first["seed"] == 7
    assert first["work"]["arithmetic"] == {"optimizer": "adam", "batch_size": 45}
