"""What was measured, checked and predicted, as tables; README.md says how to read them."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.report.tables import table
from benchmarks.scale import prediction
from benchmarks.scale.check import Checked
from benchmarks.scale.prediction import (
    BATCH_SIZE,
    MANY,
    MOST_WORKERS,
    SAMPLES,
    SHOWN_WORKERS,
    SIZES,
    Limit,
    Simulated,
    Strong,
)
from benchmarks.scale.quantities import Curve, Parts
from benchmarks.scale.results import Results

__all__ = ["markdown"]

_NOTHING = "–"
_EFFICIENT = 0.3


def markdown(results: Results) -> str:
    """The whole document."""
    predictions = results.predictions
    return "\n\n".join(
        [
            "# Scale\n\nMade by `make bench-scale`; [README.md](../README.md#scale) says what the model is and what "
            "follows from it.\n\n![Efficiency over workers, and the shards that are needed](scale.png)",
            _machine(results),
            _parts(results.parts),
            _check(results.checked),
            _simulated(predictions.simulated),
            "## Predictions",
            *(_weak(link, limits) for link, limits in predictions.weak.items()),
            _samples(predictions.most_workers),
            _strong(predictions.strong),
        ]
    )


def _machine(results: Results) -> str:
    facts = {
        "date": results.date,
        **results.machine,
        "CPUs that others had in use during a measurement": (
            f"{statistics.median(results.others_cpus):.2f} in the middle, {max(results.others_cpus):.2f} at most"
        ),
    }
    return "## Machine\n\n" + "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _parts(parts: Parts) -> str:
    computing = parts.computing
    figures = [
        ["gradient: each call", f"{computing.call_s * 1e6:.0f} µs"],
        ["gradient: matrix products, 1 thread", f"{1e-9 / computing.flop_s:.0f} GFLOP/s"],
        ["gradient: activations", f"{computing.node_sample_s * 1e9:.1f} ns per node and sample"],
        ["gradient: weights, once a call", f"{computing.weight_s * 1e9:.2f} ns per weight"],
        ["gathering a row of 784 pixels", f"{parts.gather_s * 1e9:.0f} ns"],
        *_messages(parts),
        ["a report, for each further worker", f"{parts.report_per_worker_s * 1e9:.0f} ns"],
    ]
    curves = {
        "inspecting a gradient": parts.inspect,
        "adding a gradient": parts.reduce,
        "last addition and update": parts.update,
        "reading fresh weights": parts.read,
        "CPU of a TCP sender": parts.send,
        "CPU of a TCP receiver": parts.receive,
        "TCP on the loopback": parts.loopback,
    }
    sizes = parts.inspect.sizes
    heads = ["GB per second, vector of", *(f"{size / 1e6:g} MB" for size in sizes)]
    return (
        f"## Parts\n\n{table(['part', 'measured'], figures)}\n\nThe terms of a gradient are fitted; the largest error "
        f"of the fit is {computing.worst_error:.0%}.\n\n"
        f"{table(heads, [[name, *_rates(curve)] for name, curve in curves.items()])}"
    )


def _messages(parts: Parts) -> list[list[str]]:
    names = {
        "order_s": "an order, server",
        "report_s": "a report, server",
        "update_s": "an update, server",
        "send_s": "a report, worker",
        "round_trip_s": "latency, both ways",
    }
    return [
        [f"{what} ({transport})", f"{getattr(messages, name) * 1e6:.0f} µs"]
        for transport, messages in parts.messages.items()
        for name, what in names.items()
    ]


def _rates(curve: Curve) -> list[str]:
    return [f"{1e-9 / seconds:.1f}" for seconds in curve.seconds_per_byte]


def _check(checked: Sequence[Checked]) -> str:
    heads = [
        "network", "transport", "batch", "workers", "measured", "median", "predicted", "error",
        "computing", "predicted", "server", "predicted",
    ]  # fmt: skip
    rows = [
        [
            one.form, one.transport, str(one.batch_size), str(one.workers),
            *(f"{seconds * 1e6:,.0f}" for seconds in (one.measured, one.median, one.predicted)),
            f"{one.error:+.0%}",
            *(f"{s * 1e6:,.0f}" for s in (one.computing, one.predicted_computing, one.server, one.predicted_server)),
        ]
        for one in checked
    ]  # fmt: skip
    errors = [abs(one.error) for one in checked]
    return (
        "## Check\n\nMicroseconds of a step: the lower quartile over the epochs of all repetitions, their median, and "
        f"the prediction. In the middle, it is off by {statistics.median(errors):.0%}; at most, by {max(errors):.0%}. "
        "Then what a worker computes, and what the parameter server's thread does: the measured figures contain the "
        "time in which others had their CPU, the predicted ones do not.\n\n"
        f"{table(heads, rows, words=2)}"
    )


def _simulated(by_link: Mapping[str, Sequence[Simulated]]) -> str:
    heads = ["link", "weights", *(f"{workers:,}" for workers in SHOWN_WORKERS[:-1])]
    rows = [
        [link, _size(size), *(f"{one.difference:+.0%}" for one in of_link if one.form.weights == size)]
        for link, of_link in by_link.items()
        for size in dict.fromkeys(one.form.weights for one in of_link)
    ]
    differences = [
        abs(one.difference) for of_link in by_link.values() for one in of_link if one.formula.efficiency >= _EFFICIENT
    ]
    return (
        "## Formulas and simulation\n\nHow much longer a step is by the formulas than by the simulation, with "
        f"{SAMPLES} samples for each worker and one parameter server, by the number of workers. Where the efficiency "
        f"is {_EFFICIENT:.0%} or more, they differ by at most {max(differences):.0%}.\n\n{table(heads, rows, words=2)}"
    )


def _weak(link: str, limits: Sequence[Limit]) -> str:
    heads = [
        "weights", "network", "gradient, ms", *(f"{workers:,}" for workers in SHOWN_WORKERS),
        "most workers", "then waits for", "memory for", *(f"shards for {workers:,}" for workers in MANY),
    ]  # fmt: skip
    rows = [
        [
            _size(limit.form.weights),
            limit.form.title,
            f"{limit.gradient_s * 1e3:,.1f}",
            *(f"{1 / step.seconds:.3g}/s, {step.efficiency:.0%}" for step in limit.steps.values()),
            _at_most(limit.most_workers),
            limit.bottleneck if limit.most_workers < MOST_WORKERS else _NOTHING,
            f"{limit.memory_workers:,}",
            *(str(shards or f"none: {limit.lacking[workers]}") for workers, shards in limit.shards.items()),
        ]
        for limit in limits
    ]
    return (
        f"### {link}, {SAMPLES} samples for each worker\n\nSteps per second and efficiency by the number of workers, "
        "with one parameter server; the most workers that compute for at least half of their time with it, and what "
        "one more would wait for; how many workers it has the memory for "
        f"({prediction.HOST_MEMORY_BYTES / 1e9:.0f} GB); and the fewest shards with which "
        f"{MANY[0]:,} and {MANY[1]:,} workers compute for at least half of their time.\n\n"
        f"{table(heads, rows, words=2)}"
    )


def _samples(most_workers: Mapping[str, Mapping[int, Sequence[int]]]) -> str:
    heads = ["link", "samples", *map(_size, SIZES)]
    rows = [
        [link, f"{samples:,}", *map(_at_most, most)]
        for link, by_samples in most_workers.items()
        for samples, most in by_samples.items()
    ]
    return (
        "### Samples for each worker\n\nThe most workers that compute for at least half of their time with one "
        "parameter server, by the samples of each worker and the weights.\n\n"
        f"{table(heads, rows)}"
    )


def _strong(strong: Mapping[str, Sequence[Strong]]) -> str:
    heads = ["link", "weights", *(f"{workers:,}" for workers in SHOWN_WORKERS[1:]), "best with", "then"]
    rows = [
        [
            link,
            _size(one.form.weights),
            *(f"{one.speedup[workers]:.1f} ×" for workers in SHOWN_WORKERS[1:]),
            f"{one.best_workers:,}",
            f"{one.best_speedup:.1f} ×",
        ]
        for link, sizes in strong.items()
        for one in sizes
    ]
    return (
        f"### Mini-batches of {BATCH_SIZE:,} samples, whatever the workers\n\nHow many times as fast a step is as with "
        "one worker, by the number of workers, with one parameter server; and the best that can be had.\n\n"
        f"{table(heads, rows, words=2)}"
    )


def _size(weights: float) -> str:
    """To a power of ten."""
    return f"10^{len(f'{weights * 1.01:.0f}') - 1}"


def _at_most(workers: int) -> str:
    return f"{workers:,}" if workers < MOST_WORKERS else f"≥ {MOST_WORKERS:,}"
