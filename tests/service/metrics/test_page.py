"""The page that Prometheus scrapes: the same series in both formats, gzipped or not."""

import gzip
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from service.metrics.table import JOB_METRICS, METRICS, Type

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# Of Prometheus 2.42 and 3.5.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)


def _get(address: str, **headers: str) -> tuple[str, bytes]:
    """The content type and the page."""
    request = Request(f"{address}/metrics", headers={name.replace("_", "-"): value for name, value in headers.items()})  # noqa: S310 (our own)
    with urlopen(request) as answer:  # noqa: S310
        return answer.headers["Content-Type"], answer.read()


def test_the_page_holds_the_service_and_its_jobs(address: str) -> None:
    """In the text format that Prometheus reads, each family once."""
    with urlopen(f"{address}/metrics") as response:  # noqa: S310 (our own)
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = response.read().decode()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    assert {"nablad_attempts", "nablad_job_epoch"} <= set(names)


def test_head_has_the_length_and_nothing_else(address: str) -> None:
    """As HTTP wants it."""
    with urlopen(Request(f"{address}/metrics", method="HEAD")) as answer:  # noqa: S310
        assert int(answer.headers["Content-Length"]) > 1000
        assert answer.read() == b""


def test_a_scraper_that_takes_gzip_gets_gzip(address: str) -> None:
    """The same page as without, so much smaller, and with the length that it has then."""
    with urlopen(f"{address}/metrics") as answer:  # noqa: S310
        assert "Content-Encoding" not in answer.headers
        plain = answer.read()
    for method in ("GET", "HEAD"):
        zips = {"Accept-Encoding": "gzip, deflate"}
        request = Request(f"{address}/metrics", headers=zips, method=method)  # noqa: S310
        with urlopen(request) as answer:  # noqa: S310
            assert answer.headers["Content-Encoding"] == "gzip"
            assert answer.headers["Vary"] == "Accept, Accept-Encoding"
            length, zipped = int(answer.headers["Content-Length"]), answer.read()
        assert 100 < length < len(plain) / 3
        assert len(zipped) in ({length} if method == "GET" else {0})
        if zipped:
            assert gzip.decompress(zipped).splitlines()[0] == plain.splitlines()[0]
            assert b"nablad_job_epoch" in gzip.decompress(zipped)


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3, "application/openmetrics-text", OPENMETRICS])
def test_a_scraper_that_takes_openmetrics_gets_it(address: str, accept: str) -> None:
    """A page that the strict parser reads, with each family of the table once, and an end."""
    content_type, page = _get(address, Accept=accept)
    assert content_type == OPENMETRICS
    assert page.endswith(b"\n# EOF\n")
    families = list(parse_openmetrics(page.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    assert set(names) >= {metric.name.removesuffix("_total") for metric in JOB_METRICS}


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/plain",
        "text/html",
        "application/openmetrics-text;version=0.0.1",
        "application/openmetrics-text;version=x",
        TEXT,
    ],
)
def test_whoever_does_not_take_openmetrics_gets_text(address: str, accept: str) -> None:
    """Without an end, which would be a comment there."""
    content_type, page = _get(address, Accept=accept)
    assert content_type == TEXT
    assert b"# EOF" not in page


def _samples(families: Iterator[Metric]) -> list[Sample]:
    return [sample for family in families for sample in family.samples]


def test_both_formats_have_the_same_series(address: str) -> None:
    """And the same help and types; only the families of counters go by names without suffix."""
    text = list(text_string_to_metric_families(_get(address)[1].decode()))
    strict = list(parse_openmetrics(_get(address, Accept=OPENMETRICS)[1].decode()))
    assert _samples(iter(text)) == _samples(iter(strict))
    assert [(f.name, f.type, f.documentation) for f in text] == [(f.name, f.type, f.documentation) for f in strict]


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_counters_keep_the_rules_of_their_format(address: str, accept: str) -> None:
    """The sample of a counter ends with _total; when a counter was made is not told."""
    page = _get(address, Accept=accept)[1].decode()
    counters = [metric.name for metric in METRICS if metric.type == Type.COUNTER and "_process_" not in metric.name]
    written = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE") and line.endswith(" counter")}
    assert written == {name.removesuffix("_total") if accept == OPENMETRICS else name for name in counters} | {
        name for name in written if "_process_" in name
    }
    assert "_created" not in page


def test_openmetrics_is_gzipped_for_those_who_ask_for_that(address: str) -> None:
    """It has its end after that."""
    content_type, zipped = _get(address, Accept=OPENMETRICS, Accept_Encoding="gzip")
    assert content_type == OPENMETRICS
    assert gzip.decompress(zipped).endswith(b"# EOF\n")
