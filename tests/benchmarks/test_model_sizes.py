"""The table of what models of several sizes cost the service."""

from benchmarks.model_sizes import markdown


def _results(resident: int) -> dict[str, object]:
    peak = {"resident": resident, "anonymous": 40_000_000}
    sizes = {size: {"predict": {"daemon": peak, "cluster process": peak}} for size in ("1 MB", "1 GB")}
    return {"machine": {"CPUs": "2"}, "sizes": sizes}


def test_each_size_has_its_row() -> None:
    """By process and by what was done, so that sizes stand below each other; in MB."""
    lines = markdown(_results(75_400_000), None).splitlines()
    assert [line for line in lines if "daemon" in line] == [
        "| 1 MB  | daemon          | predict |   75 |                   40 |",
        "| 1 GB  | daemon          | predict |   75 |                   40 |",
    ]


def test_earlier_results_stand_beside_the_new_ones() -> None:
    """In a column of their own."""
    document = markdown(_results(75_400_000), _results(3_000_000_000))
    assert "| model | process         | while   | before | peak | without mapped files |" in document
    assert "| 1 GB  | cluster process | predict |  3,000 |   75 |                   40 |" in document
