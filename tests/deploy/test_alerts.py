"""The alerts: rules that can fire, words that lead somewhere, and names that exist."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from nablad.v1 import datasets_pb2, jobs_pb2, models_pb2
from service.metrics.table import METRICS
from service.stores.job_states import TRANSITIONS, state_name
from tests.deploy.promql import Matcher, known_series, mistakes, read
from workers.transport.tickets import Rejection

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
RUNBOOK = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


RULE_FILES = sorted(PROMETHEUS.glob("rules/*.yml"))
TEST_FILES = sorted(PROMETHEUS.glob("tests/*.yml"))
RULES = [rule for file in RULE_FILES for group in load(file)["groups"] for rule in group["rules"]]
ALERTS: Mapping[str, Mapping[str, Any]] = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS = [test for file in TEST_FILES for test in load(file)["tests"]]

CONTRACT = [datasets_pb2.DESCRIPTOR, jobs_pb2.DESCRIPTOR, models_pb2.DESCRIPTOR]
SERVICES = [service for file in CONTRACT for service in file.services_by_name.values()]
# What the values of labels can be that rules compare with.
VALUES: Mapping[str, set[str]] = {
    "job": {"nablad"},
    "state": {state_name(state) for state in TRANSITIONS},
    "code": {code.name for code in grpc.StatusCode},
    "method": {f"{service.name}/{method.name}" for service in SERVICES for method in service.methods},
    "reason": {refusal.name.lower() for refusal in Rejection},
    "process": {"parameter_server"},
    "worker": {"others"},
}

every_alert = pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])


def run(program: str, *arguments: str | Path) -> str:
    """Runs a program of Prometheus's; gives what it printed. It must succeed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here; Debian's prometheus and prometheus-alertmanager have promtool and amtool")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def known() -> dict[str, frozenset[str]]:
    """All series: those of the table, Prometheus's own, and what rules record."""
    series = known_series(METRICS) | {"up": frozenset()}
    recorded = {rule["record"]: read(rule["expr"]).labels(series) for rule in RULES if "record" in rule}
    return series | recorded


def alternatives(matcher: Matcher) -> Iterator[str]:
    """The values that a matcher names: its own, or those that its regular expression spells out."""
    for part in re.findall(r"[^|()]*\([^()]*\)|[^|]+", matcher.value):
        prefix, _, inner = part.partition("(")
        yield from (prefix + end for end in inner.rstrip(")").split("|"))


# -- what Prometheus says of them --------------------------------------------------------------------------------------


def test_the_configuration_is_valid() -> None:
    """Prometheus takes its configuration, and finds the rules by it."""
    assert f"{len(RULES)} rules found" in run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


def test_the_rules_are_valid() -> None:
    """Prometheus takes the rules, and has nothing to remark."""
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)


@pytest.mark.parametrize("file", TEST_FILES, ids=lambda file: file.stem)
def test_the_rules_do_what_they_are_to(file: Path) -> None:
    """They fire, in the words that are expected, on series that show the trouble, and on no others."""
    run("promtool", "test", "rules", file)


# -- what is tested of them --------------------------------------------------------------------------------------------


def expectations(name: str) -> list[Sequence[Any]]:
    """What tests expect of an alert, at one moment each."""
    checks = [check for test in TESTS for check in test.get("alert_rule_test", ())]
    return [check.get("exp_alerts", ()) for check in checks if check["alertname"] == name]


@every_alert
def test_every_alert_is_seen_firing(alert: Mapping[str, Any]) -> None:
    """Some test expects it, with labels and annotations."""
    firing = [each for expected in expectations(alert["alert"]) for each in expected]
    assert firing
    assert all(each["exp_labels"] and each["exp_annotations"] for each in firing)


def expects_silence(test: Mapping[str, Any]) -> bool:
    """Whether a test expects, at some moment, that no alert is even pending."""
    return any(check["expr"] == "ALERTS" and "exp_samples" not in check for check in test.get("promql_expr_test", ()))


def test_health_is_silence() -> None:
    """All series that rules ask for are in tests that expect no alert."""
    inputs = [each["series"] for test in TESTS if expects_silence(test) for each in test["input_series"]]
    given = {selector.name for series in inputs for selector in read(series).selectors}
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = {selector.name for rule in RULES for selector in read(rule["expr"]).selectors} - recorded
    assert asked <= given


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test["name"])
def test_tests_feed_series_that_there_are(test: Mapping[str, Any]) -> None:
    """A test of a series that the service does not export would prove nothing."""
    for each in test["input_series"]:
        assert not mistakes(each["series"], known())


# -- names -------------------------------------------------------------------------------------------------------------


@every_rule
def test_rules_ask_for_what_there_is(rule: Mapping[str, Any]) -> None:
    """All series and labels are in the table of metrics."""
    assert not mistakes(rule["expr"], known())


@every_rule
def test_rules_compare_with_values_that_there_are(rule: Mapping[str, Any]) -> None:
    """A state, a code, a method … that is misspelt would match nothing, for ever."""
    for selector in read(rule["expr"]).selectors:
        for matcher in selector.matchers:
            assert set(alternatives(matcher)) <= VALUES[matcher.label]


def test_a_misspelt_value_is_found() -> None:
    """The test above can fail: alternatives are told apart, also those in brackets."""
    assert list(alternatives(Matcher("code", "A|B"))) == ["A", "B"]
    assert list(alternatives(Matcher("method", "S/(A|B)|T/C"))) == ["S/A", "S/B", "T/C"]


def test_the_scrape_job_is_the_one_that_is_missed() -> None:
    """The alert that the service is down looks for the name that the configuration gives it."""
    names = {scrape["job_name"] for scrape in load(PROMETHEUS / "prometheus.yml")["scrape_configs"]}
    (down,) = {selector.matchers for selector in read(ALERTS["NabladDown"]["expr"]).selectors}
    assert [matcher.value for matcher in down] == list(names)


# -- words -------------------------------------------------------------------------------------------------------------


@every_alert
def test_every_alert_has_words(alert: Mapping[str, Any]) -> None:
    """Severity, patience, summary, description, and a runbook whose section exists."""
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert "for" in alert
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["annotations"]["runbook"] == f"docs/alerts.md#{alert['alert'].lower()}"


def test_the_runbook_has_a_section_for_each_alert() -> None:
    """And for nothing else: what was renamed or removed leaves no section behind."""
    assert sorted(re.findall(r"^### (.+)$", RUNBOOK, re.MULTILINE)) == sorted(ALERTS)


@every_alert
def test_the_section_of_an_alert_says_what_to_do(alert: Mapping[str, Any]) -> None:
    """Its severity, what it means, how to look closer, and what to do."""
    section = RUNBOOK.split(f"### {alert['alert']}\n")[1].split("\n### ")[0]
    assert section.lstrip().startswith(alert["labels"]["severity"])
    assert all(part in section for part in ("**It means:**", "**Look closer:**", "**Do:**"))


def test_links_within_the_runbook_lead_somewhere() -> None:
    """Every anchor is that of a section."""
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= {name.lower() for name in ALERTS}


def test_the_runbook_names_commands_that_there_are() -> None:
    """Each `nabla …` is a section of the command's own page."""
    commands = set(re.findall(r"`(nabla(?: [a-z]+)+)", RUNBOOK))
    documented = set(re.findall(r"^## `(.+)`$", (ROOT / "docs/cli.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert commands
    assert commands <= documented


def test_the_runbook_names_panels_that_there_are() -> None:
    """Each title in italics is that of a panel on one of the boards."""
    boards = [json.loads(file.read_text(encoding="utf-8")) for file in ROOT.glob("deploy/grafana/dashboards/*.json")]
    titles = {panel["title"] for board in boards for panel in board["panels"]}
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", " ".join(RUNBOOK.split())))
    assert named
    assert named <= titles


# -- Alertmanager ------------------------------------------------------------------------------------------------------


def test_the_example_of_an_alertmanager_is_valid() -> None:
    """Alertmanager takes it."""
    run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "on-call"), ("warning", "operators"), ("info", "operators")]
)
def test_alerts_are_sent_by_their_severity(severity: str, receiver: str) -> None:
    """What is critical wakes somebody, and nothing else does."""
    labels = ("alertname=Any", f"severity={severity}")
    assert run("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels).strip() == receiver


def test_what_is_inhibited_exists() -> None:
    """The names of alerts in the rules of inhibition are those of alerts."""
    rules = load(ALERTMANAGER)["inhibit_rules"]
    matchers = [each for rule in rules for side in ("source", "target") for each in rule[f"{side}_matchers"]]
    names = {name for each in matchers for name in re.findall(r"Nablad\w+", each)}
    assert names
    assert names <= set(ALERTS)
