"""The table of metrics keeps Prometheus's conventions, and is what the registry and the docs have."""

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from service.metrics.collector import ServiceCollector, ServiceStatus
from service.metrics.instruments import Instruments
from service.metrics.table import METRICS, PROCESS_METRICS, SERVICE_METRICS, Metric, Type, page

UNITS = ("seconds", "bytes", "ratio")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_keep_the_conventions(metric: Metric) -> None:
    """One prefix, the unit at the end, _total for counters alone; the label of a job is never `job`."""
    assert metric.name.startswith("nablad_")
    assert metric.name.endswith("_total") == (metric.type == Type.COUNTER)
    stem = metric.name.removesuffix("_total")
    assert metric.unit in ("", *UNITS)
    assert (metric.unit == "") or stem.endswith(f"_{metric.unit}")
    assert not any(stem.endswith(f"_{unit}") for unit in UNITS if unit != metric.unit)
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert metric.help.endswith(".")
    assert "job" not in metric.labels
    assert {"le", "quantile"}.isdisjoint(metric.labels)


def test_every_name_is_there_once() -> None:
    """Also with the suffixes of histograms and summaries."""
    names = [metric.name for metric in METRICS]
    suffixed = [
        f"{m.name}_{s}" for m in METRICS for s in ("bucket", "sum", "count") if m.type in ("histogram", "summary")
    ]
    assert len({*names, *suffixed}) == len(names) + len(suffixed)


def test_the_service_registers_the_table_and_nothing_else(tmp_path: Path) -> None:
    """Names, types, help and labels."""
    (tmp_path / "db").touch()
    registry = CollectorRegistry()
    Instruments(registry)
    registry.register(ServiceCollector(ServiceStatus, tmp_path / "db", "1+2"))
    ProcessCollector(namespace="nablad", registry=registry)
    ProcessCollector(namespace="nablad_cluster", registry=registry)
    families = {family.name: family for family in registry.collect()}
    expected = {metric.name.removesuffix("_total"): metric for metric in (*SERVICE_METRICS, *PROCESS_METRICS)}
    assert families.keys() == expected.keys()
    for name, metric in expected.items():
        assert families[name].type == metric.type
        if metric in SERVICE_METRICS:
            assert families[name].documentation == metric.help
        for sample in families[name].samples:
            assert sample.labels.keys() - {"le"} == set(metric.labels)


def test_the_page_of_the_docs_is_fresh() -> None:
    """`make docs` writes it."""
    root = Path(__file__).parents[3]
    assert (root / "docs" / "metrics.md").read_text(encoding="utf-8") == page()
    command = [sys.executable, "-m", "service.metrics.table"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert printed.stdout == page()
