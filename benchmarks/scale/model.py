"""The time of one step, from measured parts: formulas, and nothing that measures. benchmarks/README.md says them too.

Assumed: workers are equal and none is a straggler. A parameter server works on one thread. The gradient of a layer is
on its way while those of earlier layers are computed; rows are gathered while a worker waits for the others and the
server. A result is checked and added when it comes, so that this overlaps with the work of those who are served later,
where the parameter server has a CPU of its own.
"""

from dataclasses import dataclass

from benchmarks.scale.forms import Form
from benchmarks.scale.quantities import Link, Parts
from benchmarks.scale.stages import SOCKET_BYTES, Stages, Work, stages_of

__all__ = ["SPIN_S", "Step", "needed_memory", "step"]

SPIN_S = 200e-6
"""How long a worker looks for its next order before it sleeps (workers/transport/server_connection.py)."""


@dataclass(frozen=True)
class Step:
    """A predicted step, in seconds.

    Attributes:
        seconds: From one update to the next.
        computing: Those in which a worker computes.
        server: Those in which the thread of a parameter server works.
        wire: Those in which the network of a parameter server's host is in use.
    """

    seconds: float
    computing: float
    server: float
    wire: float

    @property
    def efficiency(self) -> float:
        """The share of the workers' time that is computing."""
        return self.computing / self.seconds

    @property
    def bottleneck(self) -> str:
        """Beside the computing, what takes most of the step: "server" or "network"."""
        return "network" if self.wire > self.server else "server"


def step(work: Work, parts: Parts, link: Link, cpus: int | None = None) -> Step:
    """Predicts a step.

    Args:
        work: What is done.
        parts: What it costs.
        link: How weights and gradients travel.
        cpus: Of the one host that everything runs on; None if each worker and each parameter server has its own.
    """
    stages = stages_of(work, parts, link)
    if cpus is not None and work.workers >= cpus:
        seconds = _crowded(stages, work, cpus)
    elif link.transport == "shared" or work.shard_bytes <= SOCKET_BYTES:
        seconds = _in_turn(stages, work)
    else:
        seconds = _all_at_once(stages, work)
    tail = stages.check + stages.update + stages.round_trip
    seconds += stages.update + stages.round_trip + max(0.0, stages.gather - tail)
    return Step(seconds, stages.compute, work.workers * stages.thread + stages.update, 2 * work.workers * stages.wire)


def needed_memory(work: Work, link: Link) -> float:
    """Bytes that a parameter server's host needs at least: for its weights, and for a gradient of each worker.

    Shared memory has a region for each worker, whatever the shards, which are all on this host; inline, gradients that
    are sent at the same time arrive at the same time.
    """
    return (1 + work.workers) * (work.form.vector_bytes if link.transport == "shared" else work.shard_bytes)


def _in_turn(stages: Stages, work: Work) -> float:
    """From the first order to the last check, if workers are served one after the other.

    They are in shared memory, where orders are short, and where a socket takes the weights of each at once. The first
    worker goes through all stages, the others follow at the pace of the slowest; and the thread has all its own to do.
    """
    down, up = max(stages.order, stages.own_wire), max(stages.receive, stages.own_wire)
    first = down + stages.speak + stages.compute + _exposed(work.form, stages.compute, up) + stages.check
    pace = max(stages.order, stages.wire, stages.receive + stages.check)
    return max(first + (work.workers - 1) * pace, work.workers * stages.thread)


def _all_at_once(stages: Stages, work: Work) -> float:
    """The same, if workers share the network: all have their weights at the same time, and send at the same time."""
    workers = work.workers
    down = max(workers * stages.order, workers * stages.wire, stages.own_wire)
    up = max(workers * stages.receive, workers * stages.wire, stages.own_wire)
    return down + stages.speak + stages.compute + _exposed(work.form, stages.compute, up) + workers * stages.check


def _crowded(stages: Stages, work: Work, cpus: int) -> float:
    """The same, if the thread has no CPU of its own: its work overlaps with nothing.

    Where workers have to share CPUs too, one that looks for its order takes time from those that still compute.
    """
    at_worker = stages.speak + stages.compute + stages.copy
    if work.workers > cpus:
        at_worker += stages.gather + SPIN_S
    return work.workers * at_worker / cpus + work.shards * work.workers * stages.thread


def _exposed(form: Form, compute: float, sending: float) -> float:
    """What is left of the sending of a gradient, in seconds, when it is computed: its layers leave as they stand."""
    end = 0.0
    for done, share in form.gradient_parts:
        end = max(end, done * compute) + share * sending
    return end - compute
