"""Failpoints: off unless asked for, exact when they are, and the same names in code and table."""

import ast
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from workers.runtime.failpoints import ACTIONS, NAMES, VARIABLE

ROOT = Path(__file__).parents[3]
PACKAGES = ("nablad", "workers", "service")
PROGRAM = """
import sys
from workers.runtime.failpoints import check_failpoints, failpoint
check_failpoints()
for _ in range(4):
    for name in ("worker.ordered", "ps.updated"):
        try:
            failpoint(name)
        except (OSError, RuntimeError) as error:
            print(name, type(error).__name__, error)
        else:
            print(name)
        sys.stdout.flush()
"""


def _ran(setting: str | None, program: str = PROGRAM) -> "subprocess.CompletedProcess[str]":
    """A process that passes two failpoints four times, one after the other."""
    environment: Mapping[str, str] = {} if setting is None else {VARIABLE: setting}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _failed(ran: "subprocess.CompletedProcess[str]") -> list[int]:
    """Which of the passings raised, counted from 1."""
    return [number for number, line in enumerate(ran.stdout.splitlines(), 1) if " " in line]


@pytest.mark.parametrize("setting", [None, "", " ; "])
def test_nothing_fails_unless_the_environment_says_so(setting: str | None) -> None:
    """No error, and no warning either."""
    ran = _ran(setting)
    assert ran.stdout.split() == ["worker.ordered", "ps.updated"] * 4
    assert ran.stderr == ""
    assert ran.returncode == 0


@pytest.mark.parametrize(
    ("setting", "failed"),
    [
        ("worker.ordered=raise", [1]),
        ("worker.ordered=raise@3", [5]),
        ("worker.ordered=raise@3+", [5, 7]),
        ("worker.ordered=raise@2; ps.updated=raise@4", [3, 8]),
        ("ps.updated=raise@1;ps.updated=raise@3;", [2, 6]),
        ("ps.resumed=raise", []),
    ],
)
def test_the_hit_is_exact(setting: str, failed: list[int]) -> None:
    """Each name counts its own passings; an entry without a hit means the first, a plus all from there on."""
    assert _failed(_ran(setting)) == failed


def test_a_file_makes_it_happen_once_over_all_processes(tmp_path: Path) -> None:
    """Whoever creates the file fails; when it is taken away it may happen again."""
    setting = f"worker.ordered=raise@2+!{tmp_path / 'once'}"
    assert [_failed(_ran(setting)) for _ in range(2)] == [[3], []]
    (tmp_path / "once").unlink()
    assert _failed(_ran(setting)) == [3]


def test_errors_name_the_failpoint() -> None:
    """Who reads the log of a process sees that it was on purpose."""
    ran = _ran("worker.ordered=enospc;ps.updated=raise")
    assert ran.stdout.splitlines()[:2] == [
        "worker.ordered OSError [Errno 28] No space left on device (failpoint worker.ordered)",
        "ps.updated RuntimeError failpoint ps.updated",
    ]


@pytest.mark.parametrize(("action", "code"), [("kill", -signal.SIGKILL), ("exit", 1)])
def test_a_process_ends_at_the_moment(action: str, code: int) -> None:
    """It has passed what comes before, and comes to nothing after."""
    ran = _ran(f"ps.updated={action}@2")
    assert ran.stdout.split() == ["worker.ordered", "ps.updated", "worker.ordered"]
    assert ran.returncode == code


def test_a_stopped_process_goes_on_when_it_is_told_to() -> None:
    """SIGSTOP, and SIGCONT from outside."""
    program = f"""
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {PROGRAM!r}], stdout=subprocess.PIPE)
_, status = os.waitpid(child.pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
child.send_signal(signal.SIGCONT)
print(child.communicate()[0].decode(), end="")
"""
    ran = _ran("worker.ordered=stop@2", program)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["worker.ordered", "ps.updated"] * 4


def test_a_slow_process_has_a_fifth_of_its_speed() -> None:
    """From the hit on, it pauses at each passing for four times the CPU time since the last one, and not before."""
    program = """
import time
from workers.runtime import failpoints
pauses, cpu = [], iter(range(0, 100, 3))
failpoints.time = type("Clock", (), {"sleep": pauses.append, "thread_time": lambda: next(cpu)})
for _ in range(4):
    failpoints.failpoint("worker.computing")
    failpoints.failpoint("worker.ordered")
    print(pauses)
"""
    ran = _ran("worker.computing=slow@2", program)
    assert ran.stdout.splitlines() == ["[]", "[]", "[12.0]", "[12.0, 12.0]"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("worker.odered=kill", r"the failpoint 'worker\.odered'.*there are worker\.ordered, "),
        ("worker.ordered=die", "the action 'die'.*there are kill, stop, enospc, exit, raise, slow"),
        ("worker.ordered", "'worker.ordered'; expected NAME=ACTION"),
        ("worker.ordered=kill@0", "HIT ≥ 1"),
        ("worker.ordered=kill@x", "expected NAME=ACTION"),
    ],
)
def test_a_setting_that_means_nothing_ends_the_process(setting: str, said: str) -> None:
    """With a sentence: a test must not run without the fault that it asked for."""
    ran = _ran(setting)
    assert ran.returncode == 1
    assert re.search(f"ValueError: {VARIABLE} .*{said}", ran.stderr.splitlines()[-1])


def test_who_fails_on_purpose_says_so() -> None:
    """check_failpoints warns with the whole setting."""
    ran = _ran("ps.resumed=kill")
    assert ran.stderr == f"failpoints are on, this process fails on purpose: {VARIABLE}=ps.resumed=kill\n"


def _called() -> list[str]:
    """The names that the code passes to failpoint, each as often as it stands there."""
    names: list[str] = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and "failpoint" in {getattr(node.func, a, None) for a in ("id", "attr")}:
                    (name,) = node.args
                    assert isinstance(name, ast.Constant), f"{path}:{node.lineno} passes no literal"
                    names.append(str(name.value))
    return names


def test_every_name_is_one_moment_of_the_code() -> None:
    """What the table names is called somewhere, and nothing else."""
    assert set(_called()) == set(NAMES)


def test_the_page_on_robustness_names_all_there_is() -> None:
    """Its table has each failpoint with its meaning, and each action."""
    page = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
    assert not [name for name, moment in NAMES.items() if f"| `{name}` | {moment} |" not in page]
    assert not [action for action in ACTIONS if f"`{action}`" not in page]
