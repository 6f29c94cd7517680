"""The trial as a document; README.md says how to read it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median

from benchmarks.figures import Spread
from benchmarks.load.training import WATCH_INTERVAL_SECONDS
from benchmarks.load.trial import ALONE, CALLED, WATCHED, Trial
from benchmarks.load.windows import by_name
from benchmarks.report.tables import machine_section, spread, table

__all__ = ["markdown"]

_LONGEST_P99_SECONDS = 0.2
_LEAST_RATIO = 0.95
_MB = 1e6


def markdown(trial: Trial, machine: Mapping[str, str]) -> str:
    """The whole document."""
    extent = trial.extent
    return "\n\n".join(
        [
            "# Load\n\nMade by `make bench-load`; [README.md](../README.md#load) says how to read it.",
            machine_section(machine),
            _verdicts(trial),
            f"## Calls\n\nMilliseconds of each call, with {extent.queued:,} jobs in the queue and "
            f"{extent.crowd.watchers:,} watchers, {extent.crowd.silent:,} of whom never read.\n\n{_calls(trial)}",
            f"## Training\n\nOf all windows of {extent.seconds:.0f} s of a kind: samples per second, median "
            "(minimum–maximum); the CPUs that everybody had in use, and the daemon's resident memory at the end, "
            f"medians.\n\n{_windows(trial)}",
            _heard(trial),
            _order(trial),
        ]
    )


def _verdicts(trial: Trial) -> str:
    rows = [
        [f"p99 of {call}", "< 200 ms", f"{latencies.p99 * 1e3:.1f} ms", _met(latencies.p99 < _LONGEST_P99_SECONDS)]
        for call, latencies in trial.latencies.items()
    ]
    for title, name in ((WATCHED, WATCHED), (f"{WATCHED} {CALLED}", CALLED)):
        rows += [
            [f"{what} with {title}, over alone", "≥ 95 %", str(ratio), _met(ratio.median >= _LEAST_RATIO)]
            for what, ratio in (("training", trial.ratio(name)), ("its CPU time", trial.cpu_ratio(name)))
        ]
    gaps = sum(heard.gaps for heard in trial.heard)
    rows.append(["gaps in what watchers heard", "0", f"{gaps}", _met(gaps == 0)])
    order = "kept" if trial.in_order else "broken"
    rows.append(["order of starting: priority, then age", "kept", order, _met(trial.in_order)])
    return f"## Requirements\n\n{table(['what', 'must be', 'was', ''], rows)}"


def _calls(trial: Trial) -> str:
    rows = [
        [call, f"{one.calls:,}", *(f"{seconds * 1e3:.1f}" for seconds in (one.p50, one.p99, one.longest))]
        for call, one in trial.latencies.items()
    ]
    return table(["call", "calls", "p50", "p99", "longest"], rows)


def _windows(trial: Trial) -> str:
    who = list(trial.windows[0].cpu_seconds)
    rows = [
        [
            f"{name} ({len(windows)})",
            spread(asdict(Spread.of([window.samples_per_second for window in windows]))),
            *(f"{median(window.cpus(each) for window in windows):.2f}" for each in who),
            f"{median(window.daemon_bytes for window in windows) / _MB:.0f} MB",
        ]
        for name, windows in by_name(trial.windows).items()
    ]
    before = next(window.daemon_bytes for window in trial.windows if window.name == ALONE)
    most = max(window.daemon_bytes for window in trial.windows)
    memory = (
        f"The daemon had {before / _MB:.0f} MB before it had queue or watchers, {most / _MB:.0f} MB at most, and "
        f"{trial.daemon_bytes_after / _MB:.0f} MB when all had gone."
    )
    return f"{table(['window', 'samples/s', *who, 'memory'], rows)}\n\n{memory}"


def _heard(trial: Trial) -> str:
    endings = {ending: count for heard in trial.heard for ending, count in heard.endings.items()}
    return (
        f"## Watchers\n\nEach gets at most one message in {WATCH_INTERVAL_SECONDS:.0f} s. "
        f"They heard {sum(heard.events for heard in trial.heard):,} events in "
        f"{sum(heard.messages for heard in trial.heard):,} messages. "
        f"Watches that ended before their time: {endings or 'none'}."
    )


def _order(trial: Trial) -> str:
    rows = [[str(place), *pair] for place, pair in enumerate(zip(trial.started, trial.expected, strict=True), start=1)]
    return (
        f"## Order of starting\n\nThe first {len(rows)} of {trial.extent.queued:,} jobs that started when the training "
        f"had ended.\n\n{_words(['place', 'started', 'had to start'], rows)}"
    )


def _words(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table(heads, rows, words=len(heads))


def _met(good: bool) -> str:
    return "met" if good else "missed"
