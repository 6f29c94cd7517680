"""The table of what the parts of a mini-batch cost."""

from benchmarks.figures import Spread
from benchmarks.micro_batches import default_parts, markdown
from benchmarks.works import PAPER_100, PAPER_500


def test_speeds_stand_beside_that_of_two_parts_and_the_default_is_marked() -> None:
    """The default of both batches of the paper is two parts, however many workers there are."""
    speeds = {
        (work, 2, parts): Spread(speed, 0.9 * speed, 1.1 * speed)
        for work in (PAPER_100, PAPER_500)
        for parts, speed in ((2, 1000.0), (4, 500.0))
    }
    assert [default_parts(work) for work in (PAPER_100, PAPER_500)] == [2, 2]
    rows = [line.split("|")[1:-1] for line in markdown(speeds, 1).splitlines() if line.startswith("| ")][2:]
    assert [[cell.strip() for cell in row] for row in rows[:2]] == [
        ["100", "2", "2", "yes", "1,000", "900–1,100", "1.00"],
        ["100", "2", "4", "", "500", "450–550", "0.50"],
    ]
