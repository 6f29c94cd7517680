"""All parts of the model, measured on this machine in about a minute."""

import tempfile
from functools import partial

from benchmarks.scale import synthetic
from benchmarks.scale.compute_parts import computing, gather_s
from benchmarks.scale.line_parts import line_curves
from benchmarks.scale.processes import EpochSteps, quietest, run
from benchmarks.scale.quantities import Messages, Parts
from benchmarks.scale.quiet import Quiet
from benchmarks.scale.server_parts import report_per_worker_s, vector_curves

__all__ = ["measure", "messages", "of_steps"]

# Next to no weights, but work for half a millisecond: a thread that slept as long as in a real step has cold caches
# when it is woken. Little to gather, so that this is done before the next order comes.
_TINY = (8, 48, 48, 2)
_TINY_SAMPLES = 1000
_TINY_EPOCHS = 30
_TINY_STEPS = 60


def measure(quiet: Quiet) -> Parts:
    """Everything, one after the other.

    Raises:
        BenchmarkError: A process failed.
    """
    with tempfile.TemporaryFile("w+", prefix="nablad-scale-") as log:
        return Parts(
            computing=quiet.measure("Gradients", computing),
            gather_s=quiet.measure("Rows", gather_s),
            report_per_worker_s=quiet.measure("Reports of many workers", report_per_worker_s),
            **quiet.measure("Vectors in shared memory", lambda: vector_curves(log)),
            **quiet.measure("Vectors over a line", lambda: line_curves(log)),
            messages={
                transport: quiet.measure(f"Messages, {transport}", partial(messages, transport))
                for transport in ("shared", "inline")
            },
        )


def messages(transport: str) -> Messages:
    """What a step of a real parameter server and one worker costs beside its numbers.

    Raises:
        BenchmarkError: A process failed.
    """
    job = synthetic.spec(_TINY, _TINY_SAMPLES, _TINY_EPOCHS, 1, transport)
    return of_steps(quietest(run(job, _TINY_SAMPLES * _TINY_STEPS)))


def of_steps(tiny: EpochSteps) -> Messages:
    """What the steps of one worker say of messages: latency is what is left when both have done their work."""
    server, worker = tiny.server_s, tiny.worker_s
    report_s = server["receiving"] + server["inspecting"] + server["reducing"]
    known = report_s + server["updating"] + server["dealing"] + worker["computing"]
    return Messages(
        order_s=server["dealing"],
        report_s=report_s,
        update_s=server["updating"],
        send_s=worker["exchanging"],
        round_trip_s=tiny.step_s - known,
    )
