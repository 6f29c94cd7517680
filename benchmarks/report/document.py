"""The results of the main benchmark as Markdown, section by section; README.md says how to read them."""

from collections import Counter
from typing import Any

from benchmarks.contestants import CONTESTANTS, REFERENCE, SUBJECT
from benchmarks.report.tables import machine_section, spread, table

__all__ = ["markdown"]


def markdown(results: dict[str, Any]) -> str:
    """Returns the report of whatever was measured."""
    sections = [
        "# MNIST\n\nMade by `make bench`; [README.md](../README.md) says what is measured and how to read it.",
        _machine(results),
        _verdicts(results["requirements"]),
        _speed(results),
        _steps(results["speed"]),
    ]
    for name, section in {"messages": _messages, "start_s": _starts, "memory": _memory, "accuracy": _accuracy}.items():
        if name in results:
            sections.append(section(results[name]))
    if results["calm"]:
        sections.append(_noise(results["calm"]))
    return "\n\n".join(sections)


def _machine(results: dict[str, Any]) -> str:
    facts = {"date": results["date"], **results["machine"]}
    return machine_section(facts)


def _accuracy(accuracy: dict[str, Any]) -> str:
    epochs = accuracy["epochs"]
    heads = ["epoch", "training cost", "training accuracy", "validation cost", "validation accuracy"]
    rows = [
        [
            f"{epoch['epoch']}",
            f"{epoch['training_cost']:.5f}",
            f"{epoch['training_accuracy']:.2%}",
            f"{epoch['validation_cost']:.5f}",
            f"{epoch['validation_accuracy']:.2%}",
        ]
        for epoch in epochs
    ]
    return (
        f"## Accuracy\n\nTest accuracy (10,000 images) after {len(epochs)} epochs: "
        f"{epochs[-1]['validation_accuracy']:.2%}. The job took {accuracy['seconds']:.0f} s from submission to end.\n\n"
        f"{table(heads, rows)}"
    )


def _noise(calm: list[dict[str, Any]]) -> str:
    disturbed = sum(look["disturbed"] for look in calm)
    return (
        f"## Noise\n\nJust before the {len(calm)} measurements, {_range(calm, 'cpus_in_use')} CPUs were in use and the "
        f"load average was {_range(calm, 'load')}; {disturbed} of them began although the machine was not idle. "
        "Other work that begins during a measurement shows only in its minimum and maximum."
    )


def _range(looks: list[dict[str, Any]], name: str) -> str:
    values = [look[name] for look in looks]
    return f"{min(values):.2f}–{max(values):.2f}"


def _verdicts(requirements: list[dict[str, Any]]) -> str:
    """Table of the requirements beside what was reached."""
    heads = ["requirement", "measured", "must", "aim", "outcome"]
    rows = [
        [
            verdict["what"],
            _figure(verdict["measured"], verdict["unit"]),
            _mark(verdict, "must"),
            _mark(verdict, "aim"),
            verdict["outcome"],
        ]
        for verdict in requirements
    ]
    missed = sum(verdict["outcome"] == "MISSED" for verdict in requirements)
    met = sum("reached" in verdict["outcome"] for verdict in requirements)
    return (
        f"## Requirements\n\nMet: {met} of {len(requirements)}. Missed: {missed}. Ratios are of medians in this "
        f"run.\n\n{table(heads, rows)}"
    )


def _speed(results: dict[str, Any]) -> str:
    """One table for each work."""
    intro = (
        "## Speed\n\nSamples per second: median (minimum–maximum) over all epochs but the first of each repetition "
        f"(repetitions: {results['repetitions']}). *nablad is* says how many times as fast as this contestant it is. "
        "Everybody starts from the same weights and sees the same rows in every step; *cost differs by* is the largest "
        "difference of a training cost from that of numpy, relative, over all epochs of all repetitions."
    )
    left_out = [CONTESTANTS[name].title for name in results["left_out"]]
    if left_out:
        intro += f" Left out of this run: {'; '.join(left_out)}."
    return "\n\n".join([intro, *map(_work, results["speed"].values())])


def _work(work: dict[str, Any]) -> str:
    speeds, differences = work["samples_per_second"], work["cost_differences"]
    heads = ["contestant", "samples per second", "nablad is", "cost differs by"]
    rows = [
        [
            CONTESTANTS[name].title,
            spread(figures),
            f"{speeds[SUBJECT]['median'] / figures['median']:.2f} ×",
            _difference(name, differences),
        ]
        for name, figures in speeds.items()
    ]
    return (
        f"### {work['title']}\n\n{work['rows']:,} rows, {work['epochs']} epochs, learning rate "
        f"{work['learning_rate']:g}; training cost of the last epoch {work['last_cost']:.6f}.\n\n{table(heads, rows)}"
    )


def _difference(name: str, differences: dict[str, float]) -> str:
    return "–" if name == REFERENCE or name not in differences else f"{differences[name]:.1e}"


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    return f"{value:.0f} {unit}" if value >= 100 else f"{value:.2f} {unit}"


def _mark(verdict: dict[str, Any], name: str) -> str:
    if verdict[name] is None:
        return "–"
    return f"{'≥' if verdict['at_least'] else '≤'} {_figure(verdict[name], verdict['unit'])}"


_MB = 10**6


def _steps(speed: dict[str, Any]) -> str:
    """Worker and parameter server side by side."""
    jobs = [(work["title"], name, job) for work in speed.values() for name, job in work["jobs"].items()]
    sides = {"a worker": "worker_us", "parameter server": "server_us"}
    activities = list(dict.fromkeys(name for _, _, job in jobs for side in sides.values() for name in job[side]))
    rows = [
        [
            f"{title}: {CONTESTANTS[name].title}",
            side,
            f"{job['step_us']:,.0f}",
            *(_microseconds(job[figures], activity) for activity in activities),
        ]
        for title, name, job in jobs
        for side, figures in sides.items()
    ]
    used = "\n".join(f"- {title}, {CONTESTANTS[name].title}: {_transports(job)}" for title, name, job in jobs)
    return (
        "## Where a step's time goes\n\nMicroseconds of a mean step, and what each side does in them: median over the "
        "repetitions, the first epoch left out; of a worker, the mean of both.\n\n"
        f"{table(['job', 'side', 'a step', *activities], rows, words=2)}\n\n"
        f"Workers by how weights and gradients reached them, seen after the first epoch of each repetition:\n\n{used}"
    )


def _messages(figures: dict[str, Any]) -> str:
    """The inline transport beside plain sockets."""
    heads = ["what moves the bytes", "MB per second"]
    rows = [
        ["nablad, inline", spread(figures["service_bytes_per_second"], ",.0f", _MB)],
        ["plain TCP on the loopback", spread(figures["loopback_bytes_per_second"], ",.0f", _MB)],
    ]
    return (
        f"## Messages\n\nThe {figures['step_bytes'] / _MB:.1f} MB of a step: weights down, gradients up. For nablad "
        "over the time of a step in which a worker neither gathers nor computes, so that reduction, update "
        "and waiting are in it; for the sockets over all of their time. "
        f"The ratio is {figures['ratio']:.2f}.\n\n{table(heads, rows)}"
    )


def _starts(start_s: dict[str, Any]) -> str:
    """Sentence on the time from acceptance to the first step."""
    return (
        "## Start\n\nFrom the acceptance of a job until its first worker was there and steps were made, all jobs but "
        f"the first of each service: {spread(start_s, '.2f')} s."
    )


def _memory(figures: dict[str, Any]) -> str:
    """Table of the memory of the processes of one job."""
    heads = ["process", "peak, MB", "at most, MB", "proportional, MB"]
    rows = [
        [
            role,
            f"{process['largest']['peak'] / _MB:.0f}",
            f"{process['limit'] / _MB:.0f}",
            f"{process['largest']['proportional'] / _MB:.0f}",
        ]
        for role, process in figures["processes"].items()
    ]
    return (
        f"## Memory\n\n{figures['title']}; {figures['weights_bytes'] / _MB:.1f} MB of weights and biases, "
        f"{figures['rows_bytes'] / _MB:.1f} MB of rows. The peak is the largest resident memory (VmHWM): it counts "
        "the pages that processes share, regions and rows among them, in each of them. The proportional size (Pss) "
        f"counts each once, in parts. Of the workers, the largest.\n\n{table(heads, rows)}"
    )


def _microseconds(figures: dict[str, float], activity: str) -> str:
    return f"{figures[activity]:,.0f}" if activity in figures else ""


def _transports(job: dict[str, Any]) -> str:
    """Counts the transports of all repetitions; a job may be too short to be seen."""
    seen = Counter[str]()
    for of_run in job["transports"]:
        seen.update(of_run)
    return ", ".join(f"{number} {transport}" for transport, number in seen.items()) or "not seen"
