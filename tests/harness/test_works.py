"""Which jobs are disturbed."""

import random
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.harness.fuses import HITS
from tests.harness.scenarios import SCENARIOS
from tests.harness.works import MOST_WORKERS, draw_work

ROOT = Path(__file__).parents[2]


@given(st.integers())
def test_a_seed_draws_the_same_job_again(seed: int) -> None:
    """One that breaks no rule."""
    work, again = (draw_work(random.Random(seed)) for _ in range(2))
    assert work == again
    assert work.spec("any") == again.spec("any")
    assert 1 <= work.workers <= MOST_WORKERS


@given(st.integers())
def test_every_hit_comes_in_every_job(seed: int) -> None:
    """In steps as in epochs: each worker gets an order in each step."""
    arithmetic = draw_work(random.Random(seed)).arithmetic
    assert max(HITS["worker.ordered"]) < arithmetic.steps
    assert max(HITS["ps.epoch_ended"]) < arithmetic.epochs


def test_the_page_on_robustness_has_the_table_of_scenarios() -> None:
    """Each with its fault, the stall that is allowed, and whether others are spared."""
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    for each in SCENARIOS:
        spares = "yes" if each.spares_others else "–"
        assert f"| `{each.name}` | {each.fault} | {each.stall_limit_s:.0f} | {spares} |" in page
