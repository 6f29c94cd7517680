"""A real Prometheus scrapes a real service while jobs run: every query of every board and alert finds something."""

import json
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.rendering import FOLDER
from nablad import Client
from nablad.errors import NablaError
from nablad.jobspec import parse
from nablad.local import LocalService, pids_of
from nablad.v1 import jobs_pb2 as jobs_pb
from service.metrics.table import METRICS, Type
from tests.deploy.prometheus import PROGRAM, Prometheus, PrometheusError, prometheus
from tests.deploy.promql import known_series, mistakes, read
from tests.deploy.queries import Query, all_queries, substitute

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed (Debian: apt install prometheus)"),
    pytest.mark.timeout(300),
]

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules" / "nablad.yml"
DIGITS = ROOT / "nablad" / "demo"
SCRAPE_SECONDS = 0.5
SECONDS = 90
# The rules' durations are divided by this, so that an alert fires while a test waits for it.
HURRY = 60
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

# As long as it takes: nobody waits for its end.
JOB_FILE = """
name: watched
data: {train: digits-train, validation: digits-validation, scaling: standard}
model: {layers: [64, 40, 10], activation: sigmoid, output_activation: sigmoid}
cost: {function: log_loss}
training: {epochs: 1000000, batch_size: 50, learning_rate: 0.5, seed: 11}
distribution: {workers: 2, micro_batches: 4}
checkpoints: {every_seconds: 2}
"""


@dataclass(frozen=True)
class Watched:
    """What Prometheus has seen.

    Attributes:
        prometheus: It.
        job_id: Of the job that lost a worker, and then its parameter server, and was cancelled.
        begin: When that began, in Unix seconds.
        end: When it was over.
        fired: Alerts that were firing while the only worker of a job was stopped.
    """

    prometheus: Prometheus
    job_id: str
    begin: float
    end: float
    fired: set[tuple[str, str]]

    def found(self, expression: str) -> list[dict[str, Any]]:
        """Over the whole time."""
        return self.prometheus.series(expression, self.begin, self.end, SCRAPE_SECONDS)

    def substituted(self, query: Query) -> str:
        values = {
            "instance": ".*",
            "job_id": self.job_id,
            "__interval": "2s",
            "__rate_interval": "2s",
            "__range": "60s",
        }
        return substitute(query.expression, values)


def _until(condition: Callable[[], Any]) -> Any:
    """What is true in the end; it is looked for again and again."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def _submit(client: Client, **distribution: int) -> str:
    spec, violations = parse(JOB_FILE)
    assert not violations
    for name, value in distribution.items():
        setattr(spec.distribution, name, value)
    return client.submit(spec).job_id


def _wait_for(client: Client, job_id: str, happened: Callable[[jobs_pb.Event], Any], since: int = 1) -> int:
    """The number of the first event that it is true of."""
    for news in client.watch(job_id, from_event=since):
        if isinstance(news, jobs_pb.Event) and happened(news):
            return news.number
    raise AssertionError(f"job {job_id} has ended before")


def _live_a_little(client: Client, daemon: Any, server: Prometheus) -> str:
    """A job goes through everything that boards show."""
    for part in ("train", "validation"):
        client.add_dataset(f"digits-{part}", [DIGITS / f"digits-{part}.npz"])
    job_id = _submit(client)
    _wait_for(client, job_id, lambda event: event.checkpoint)
    # An increase is seen of a series that was there before.
    _until(lambda: server.value(f'nablad_job_workers_alive{{job_id="{job_id}"}} == 2'))
    os.kill(min(pids_of("worker", daemon.processes())), signal.SIGKILL)
    _until(lambda: server.value(f'nablad_job_workers_lost_total{{job_id="{job_id}"}} > 0'))
    os.kill(min(pids_of("parameter server", daemon.processes())), signal.SIGKILL)
    again = _wait_for(client, job_id, lambda event: event.attempt == 2 and event.state == jobs_pb.JOB_STATE_RUNNING)
    _wait_for(client, job_id, lambda event: event.checkpoint, again)
    _until(lambda: server.value(f'nablad_job_checkpoints_total{{job_id="{job_id}"}} > 0 and nablad_job_attempt == 2'))
    for _ in range(2):
        with suppress(NablaError):
            client.job("nobody")
    return job_id


def _stop_the_only_worker(client: Client, daemon: Any, server: Prometheus) -> set[tuple[str, str]]:
    """The names and jobs of the alerts that fire then."""
    job_id = _submit(client, workers=1)
    _wait_for(client, job_id, lambda event: event.checkpoint)
    (pid,) = pids_of("worker", daemon.processes())
    os.kill(pid, signal.SIGSTOP)

    def firing() -> set[tuple[str, str]]:
        alerts = [alert for alert in server.get("alerts")["alerts"] if alert["state"] == "firing"]
        names = {(alert["labels"]["alertname"], alert["labels"].get("job_id", "")) for alert in alerts}
        return names if ("NabladJobStalled", job_id) in names else set()

    names: set[tuple[str, str]] = _until(firing)
    os.kill(pid, signal.SIGCONT)
    client.cancel(job_id)
    return {(name, "the job" if job == job_id else job) for name, job in names}


def _hurried(rules: str) -> str:
    """The rules with all their durations divided."""
    return re.sub(r"(?<=\[)(\d+)([smhd])(?=\])|(?<=for: )(\d+)([smhd])|(?<=offset )(\d+)([smhd])", _shorter, rules)


def _shorter(match: re.Match[str]) -> str:
    number, unit = (group for group in match.groups() if group)
    return f"{max(round(int(number) * UNITS[unit] * 1000 / HURRY), 2000 if match[0] != '0s' else 0)}ms"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A Prometheus that has seen it all; the service is gone."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "rules.yml").write_text(_hurried(RULES.read_text(encoding="utf-8")), encoding="utf-8")
    started = LocalService(cpus=4).start()
    try:
        with prometheus(folder, [started.metrics_address], folder / "rules.yml", SCRAPE_SECONDS) as server:
            begin = time.time()
            with Client(started.address) as client:
                job_id = _live_a_little(client, started, server)
                client.cancel(job_id)
                fired = _stop_the_only_worker(client, started, server)
                _until(lambda: server.value(f'nablad_job_running{{job_id="{job_id}"}} == 0'))
            yield Watched(server, job_id, begin, time.time(), fired)
    finally:
        assert started.stop() == 0


def _boards() -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))]


def _complaints(watched: Watched, board: dict[str, Any]) -> list[str]:
    """What is wrong with the queries of a board, as sentences: names that there are not, errors, and no answer."""
    known = known_series(METRICS)
    found = []
    for query in all_queries(board):
        expression = watched.substituted(query)
        wrong = [*mistakes(expression, known), *filter(None, [_why_empty(watched, expression)])]
        found += [f"{query.board}: {query.kind} {query.panel!r}: {expression}: {sentence}" for sentence in wrong]
    return found


def _why_empty(watched: Watched, expression: str) -> str:
    try:
        found = watched.found(expression)
    except PrometheusError as error:
        return str(error)
    values = [float(value) for series in found for _, value in series["values"]]
    if not values:
        return "no series"
    return "" if any(map(math.isfinite, values)) else "no number"


@pytest.mark.parametrize("board", _boards(), ids=lambda board: board["uid"])
def test_every_query_of_a_board_finds_something(watched: Watched, board: dict[str, Any]) -> None:
    """Of panels, variables and annotations, without error."""
    assert len(all_queries(board)) > 5
    assert _complaints(watched, board) == []


def test_prometheus_is_answered_in_openmetrics(watched: Watched) -> None:
    """It asks for that first. There the family of a counter has no suffix, by which its metadata is known then."""
    for metric in (metric for metric in METRICS if metric.type == Type.COUNTER):
        told = watched.prometheus.get("metadata", metric=metric.name.removesuffix("_total"))
        assert {each["type"] for found in told.values() for each in found} == {"counter"}, metric.name


@pytest.mark.parametrize(
    ("right", "wrong"),
    [('job_id=\\"$job_id\\"', 'job=\\"$job_id\\"'), ("by (activity)", "by (activities)")],
    ids=["job for job_id", "activities for activity"],
)
def test_mistakes_with_labels_are_found(watched: Watched, right: str, wrong: str) -> None:
    """Prometheus's own label, which is no error and finds nothing, and a label of another name."""
    text = (FOLDER / "job.json").read_text(encoding="utf-8")
    board = json.loads(text.replace(right, wrong))
    planted = [query for query in all_queries(board) if wrong.replace("\\", "") in query.expression]
    assert planted
    complaints = _complaints(watched, board)
    for query in planted:
        assert any(query.panel in complaint for complaint in complaints), query


def test_every_rule_is_evaluated_without_error(watched: Watched) -> None:
    """And every series that it looks at is there: an alert on one that is not would never fire."""
    groups = watched.prometheus.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    written = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    assert len(rules) == sum(len(group["rules"]) for group in written)
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    names = {selector.name for rule in rules for selector in read(rule["query"]).selectors}
    assert {name for name in names if not watched.found(name)} == set()


def test_an_alert_fires_when_the_only_worker_is_stopped(watched: Watched) -> None:
    """That the job makes no steps; nobody says that the service is down."""
    assert ("NabladJobStalled", "the job") in watched.fired
    assert "NabladDown" not in {name for name, _ in watched.fired}
